// Package hook runs programs of the host at points of a sandbox's life, as the
// OCI runtime specification has it (config.md, "POSIX-platform Hooks"):
// createRuntime, poststart and poststop. They run outside of the sandbox, with
// the rights of who runs Nucleus, so what may be one is checked first: see [Check].
//
//	state := hook.State(id, "created", pid, dir, nil)
//	for _, h := range service.Hooks.CreateRuntime {
//		if err := hook.Run(ctx, h, state, log); err != nil { ... }
//	}
//
// The phases that run inside of a sandbox, createContainer and startContainer,
// are not here: they would be one more program between us and the sandbox's.
package hook

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/nucleus-container/nucleus/spec"
)

// Bounds of a hook.
const (
	DefaultTimeout = 10 * time.Second
	MaxOutput      = 4 << 10  // of its output, in an error: the last of it
	MaxLog         = 64 << 10 // of its output, in the log: the first of it
)

// lingering is how long the output of what a hook leaves running is waited for.
const lingering = time.Second

// Error says which hook failed, how, and what it said.
type Error struct {
	Path   string
	Err    error  // *exec.ExitError if it ran and ended with something other than 0
	Output string // the last of its output, without control characters
}

func (e *Error) Error() string {
	text := fmt.Sprintf("hook %s: %v", e.Path, e.Err)
	if e.Output != "" {
		text += "; its output ends with:\n" + e.Output
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ociVersion is the version of the state's format.
const ociVersion = "1.0.2"

// State is the OCI state of a sandbox (runtime.md, "State"). A pid of 0 is left
// out, as it must be of one that has ended.
func State(id, status string, pid int, bundle string, annotations map[string]string) []byte {
	b, err := json.Marshal(struct {
		Version     string            `json:"ociVersion"`
		ID          string            `json:"id"`
		Status      string            `json:"status"`
		PID         int               `json:"pid,omitempty"`
		Bundle      string            `json:"bundle"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}{ociVersion, id, status, pid, bundle, annotations})
	if err != nil {
		return nil // strings and a number: there is nothing that could fail
	}
	return b
}

// Run checks a hook and runs it. It gets state on standard input, exactly the
// environment that it lists, and / as its directory. What it says goes to log, up
// to MaxLog; a log that cannot be written to does not stop it.
//
// A hook that takes longer than its timeout is killed with its process group. One
// that ends and leaves something running is not held up by it: after a second,
// its output is closed.
func Run(ctx context.Context, h spec.Hook, state []byte, log io.Writer) error {
	p, err := find(h.Path, os.Geteuid())
	if err != nil {
		return err
	}
	defer p.file.Close() // opened to name a file: there is nothing that could get lost
	return p.run(ctx, h, state, log)
}

func (p *program) run(ctx context.Context, h spec.Hook, state []byte, log io.Writer) error {
	limit := cmp.Or(h.Timeout, DefaultTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %v and was killed", limit))
	defer cancel()
	name, err := p.name()
	if err != nil {
		return &Error{Path: h.Path, Err: err}
	}
	out := &output{log: log}
	cmd := exec.CommandContext(ctx, name)
	cmd.Args = h.Args
	if len(cmd.Args) == 0 {
		cmd.Args = []string{h.Path}
	}
	cmd.Env = append([]string{}, h.Env...) // not nil: that would be our own
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(state), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = lingering
	cmd.Cancel = func() error {
		// Once it is reaped, its number may be somebody else's.
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			return err
		}
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	err = cmd.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // the latter: it succeeded, and left something running
		return nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return &Error{Path: h.Path, Err: err, Output: out.text()}
}

// output takes everything that a hook says, so that it never waits for us.
type output struct {
	log    io.Writer
	logged int
	tail   []byte
}

func (o *output) Write(b []byte) (int, error) {
	if n := min(len(b), MaxLog-o.logged); o.log != nil && n > 0 {
		o.logged += n
		if _, err := o.log.Write(b[:n]); err != nil {
			o.log = nil
		}
	}
	o.tail = append(o.tail, b[max(0, len(b)-MaxOutput):]...)
	if extra := len(o.tail) - MaxOutput; extra > 0 {
		o.tail = append(o.tail[:0], o.tail[extra:]...)
	}
	return len(b), nil
}

// text is the last of the output, fit for a terminal.
func (o *output) text() string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsGraphic(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, string(o.tail)))
}
