package keeper

import (
	"context"
	"fmt"
	"os"

	"github.com/nucleus-container/nucleus/internal/hook"
	"github.com/nucleus-container/nucleus/spec"
)

// Phases of hooks, with the status that each is told (OCI runtime
// specification, runtime.md).
const (
	createRuntime = "createRuntime" // creating
	poststart     = "poststart"     // running
	poststop      = "poststop"      // stopped
)

// hooks runs the hooks of one phase, in their order, until one fails.
func (k *keeper) hooks(ctx context.Context, phase, status string, all []spec.Hook, pid int) error {
	state := hook.State(k.about.ID, status, pid, k.bundle, k.about.Labels)
	for i, h := range all {
		if err := hook.Run(ctx, h, state, nil); err != nil {
			return fmt.Errorf("hooks.%s[%d]: %w", phase, i, err)
		}
	}
	return nil
}

// poststop runs the hooks of the end: all of them, whatever fails. There is
// nobody left to tell but the events, and who reads our standard error if that is
// where the program's own goes.
func (k *keeper) poststop(ctx context.Context) {
	for i, h := range k.about.Service.Hooks.Poststop {
		if err := k.hooks(ctx, poststop, "stopped", []spec.Hook{h}, 0); err != nil {
			k.log("hook", map[string]string{"phase": poststop, "hook": fmt.Sprint(i), "error": err.Error()})
			k.warn(err.Error())
		}
	}
}

// warn tells whoever reads our standard error, if the program's own goes there.
func (k *keeper) warn(what string) {
	if k.about.Service.Log.Inherit {
		_, _ = fmt.Fprintf(os.Stderr, "nucleus: warning: %s\n", what) // nowhere is left to say that this failed
	}
}
