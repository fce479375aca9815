// Package keeper stays with a sandbox that needs somebody to: one that is started
// again when it ends, is asked for its health, says that it is ready, is stopped
// when nobody uses it, has hooks, or a terminal. It is a process of its own,
// `nucleus supervise ID`, that store.Start starts and that nothing waits for.
//
//	err := keeper.Run(ctx, store, id, os.NewFile(3, "report"))
//
// It holds nothing that is needed to look after the sandbox by hand. What it
// knows, it writes into the sandbox's record; killed at any moment, it leaves a
// sandbox that runs on, to be found, stopped and removed like any other.
//
// What happens to one sandbox happens in one goroutine (run.follow), which
// decides; whatever waits or asks is in others, and tells it.
package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/hook"
	"github.com/nucleus-container/nucleus/internal/restart"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// keeper looks after one sandbox, from its first start until it is not to be
// started again.
type keeper struct {
	box    *store.Sandbox
	about  store.Info // as it was at the beginning
	bundle string     // its directory
	report io.WriteCloser
}

// Run starts the sandbox and stays with it until it has ended for good. The
// report is written once, when the program runs (and is ready, if it has to say
// so) or does not, and closed then. When ctx is done the sandbox is stopped.
func Run(ctx context.Context, s *store.Store, id string, report io.WriteCloser) error {
	k := &keeper{report: report}
	err := k.find(ctx, s, id)
	if err == nil {
		err = k.keep(ctx)
	}
	return errors.Join(err, k.tell(err)) // the latter does nothing if it was told before
}

func (k *keeper) find(ctx context.Context, s *store.Store, id string) (err error) {
	if k.box, err = s.Sandbox(id); err != nil {
		return err
	}
	if k.about, err = k.box.Info(ctx); err != nil {
		return err
	}
	k.bundle = filepath.Dir(k.box.Path("config.json"))
	hooks := k.about.Service.Hooks
	for _, phase := range [][]spec.Hook{hooks.CreateRuntime, hooks.Poststart, hooks.Poststop} {
		for _, h := range phase { // now: at the end it is too late to refuse one
			if err := hook.Check(h, os.Geteuid()); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep runs the sandbox again and again, as its policy says. The error is that of
// the first start.
func (k *keeper) keep(ctx context.Context) error {
	var h restart.History
	for again := false; ; again = true {
		r := &run{keeper: k, again: again}
		o := r.once(ctx)
		if !again && o.err != nil {
			return o.err
		}
		if o.over || ctx.Err() != nil {
			return nil
		}
		h.Ended(o.ran, o.success && o.err == nil, o.stopped)
		policy := k.about.Service.Restart
		if o.again {
			policy = spec.Restart{Policy: spec.RestartAlways}
		}
		more, after := restart.Next(policy, h)
		if !more || !k.pause(ctx, after) {
			return nil
		}
		k.log("restart", map[string]string{"after": after.String()})
	}
}

// stopPoll is how often a pause looks for a word from others: a stop waits for us.
const stopPoll = 200 * time.Millisecond

// pause waits until the sandbox is to be started again. It is not, if somebody
// has stopped or removed it meanwhile.
func (k *keeper) pause(ctx context.Context, d time.Duration) bool {
	for until := time.Now().Add(d); ; {
		stopped, err := k.box.Stopped()
		left := time.Until(until)
		if err != nil || stopped || left <= 0 {
			return err == nil && !stopped
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(left, stopPoll)):
		}
	}
}

// tell writes the report, the first time. A reader that is gone does not need it.
func (k *keeper) tell(err error) error {
	if k.report == nil {
		return nil
	}
	b, jerr := json.Marshal(reportOf(err))
	if jerr == nil {
		_, _ = k.report.Write(b) // as above
	}
	cerr := k.report.Close()
	k.report = nil
	debug.FreeOSMemory() // what the start took is not needed again for a long time
	return errors.Join(jerr, cerr)
}

// Exit codes of the command line.
const (
	exitFailed        = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

func reportOf(err error) store.Report {
	if err == nil {
		return store.Report{}
	}
	r := store.Report{Error: err.Error(), Code: exitFailed}
	var step *nucleus.Error
	if errors.As(err, &step) {
		r.Hint = step.Hint
	}
	switch {
	case nucleus.NotFound(err):
		r.Code = exitNotFound
	case nucleus.NotExecutable(err):
		r.Code = exitNotExecutable
	}
	return r
}

// log tells that something happened. That it happened does not depend on it
// being told.
func (k *keeper) log(what string, attrs map[string]string) { _ = k.box.Log(what, attrs) }
