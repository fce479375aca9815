package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// wordedError says in the words of the command line what store says in its own.
type wordedError struct {
	text string
	err  error
}

func (e *wordedError) Error() string { return e.text }
func (e *wordedError) Unwrap() error { return e.err }

// worded says what to do about a sandbox that is in the wrong state.
func worded(ctx context.Context, b *store.Sandbox, err error) error {
	text := ""
	switch {
	case errors.Is(err, store.ErrRunning):
		text = "%s is still running; stop it with `nucleus stop %[1]s`"
	case errors.Is(err, store.ErrNotRunning):
		text = "%s is not running; start it with `nucleus start %[1]s`"
	default:
		return err
	}
	name := b.ID()
	if i, ierr := b.Info(ctx); ierr == nil {
		name = i.Display()
	}
	return &wordedError{fmt.Sprintf(text, name), err}
}

// runKill is `nucleus kill`.
func runKill(c *call) int {
	sig := cmp.Or(syscall.Signal(c.opts.life.signal), syscall.SIGKILL)
	return c.each(func(ctx context.Context, b *store.Sandbox) error { return worded(ctx, b, b.Signal(ctx, sig)) })
}

// runWait is `nucleus wait`.
func runWait(c *call) int {
	if len(c.args) == 0 {
		return fail(c.cmd, usageError("no sandbox is named; see nucleus wait --help"))
	}
	s, err := openStore()
	if err != nil {
		return failVerb(c.cmd, err)
	}
	ctx, cancel := interruptible()
	defer cancel()
	type result struct {
		info store.Info
		err  error
	}
	// All are opened before the first has ended: others may be removed when they end.
	results := make([]chan result, len(c.args))
	for i, ref := range c.args {
		results[i] = make(chan result, 1)
		b, err := lookUp(s, ref)
		go func() {
			r := result{err: err}
			if err == nil {
				r.info, r.err = waitFor(ctx, b)
				r.err = worded(ctx, b, r.err)
			}
			results[i] <- r
		}()
	}
	code := exitOK
	for _, r := range results {
		r := <-r
		if r.err != nil {
			code = failVerb(c.cmd, r.err)
			continue
		}
		fmt.Println(r.info.ExitCode)
	}
	return code
}

// waitFor waits for the last end of a sandbox: not for one after which its keeper
// starts it again.
func waitFor(ctx context.Context, b *store.Sandbox) (store.Info, error) {
	for {
		i, err := b.Wait(ctx)
		if err != nil || i.State != "restarting" && !i.Running() {
			return i, err
		}
		select {
		case <-ctx.Done():
			return i, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// runRemove is `nucleus rm`. With --force what is not there is no error, as with rm(1).
func runRemove(c *call) int {
	if c.opts.life.force && len(c.args) > 0 {
		s, err := openStore()
		if err != nil {
			return failVerb(c.cmd, err)
		}
		c.args = slices.DeleteFunc(slices.Clone(c.args), func(ref string) bool {
			_, err := s.Sandbox(ref)
			return errors.Is(err, store.ErrNotFound)
		})
		if len(c.args) == 0 {
			return exitOK
		}
	}
	return c.each(func(ctx context.Context, b *store.Sandbox) error {
		err := b.Remove(ctx, c.opts.life.force)
		if errors.Is(err, store.ErrRunning) {
			err = worded(ctx, b, err)
			err = &wordedError{err.Error() + ", or kill and remove it with `nucleus rm --force`", err}
		}
		return err
	})
}

// runRename is `nucleus rename`.
func runRename(c *call) int {
	if len(c.args) != 2 {
		return fail(c.cmd, usageError("rename: give a sandbox and its new name"))
	}
	ref, name := c.args[0], c.args[1]
	if name == "" {
		return fail(c.cmd, usageError("rename: the new name is empty"))
	}
	if err := (&spec.Sandbox{Name: name}).Validate(); err != nil {
		return fail(c.cmd, usageError("rename: "+err.Error()))
	}
	ctx, cancel := interruptible()
	defer cancel()
	b, err := c.one()
	if err == nil {
		err = b.Rename(ctx, name)
	}
	if err != nil {
		return failVerb(c.cmd, err)
	}
	fmt.Println(ref)
	return exitOK
}

// runUpdate is `nucleus update`.
func runUpdate(c *call) int {
	l := c.opts.box.Limits
	if reflect.DeepEqual(l, spec.Limits{}) {
		return fail(c.cmd, usageError("update: no limit is given; see nucleus update --help"))
	}
	alone := l // what is wrong whatever the sandbox has already
	if alone.Memory == 0 {
		alone.MemorySwap = 0
	}
	if err := (&spec.Sandbox{Limits: alone}).Validate(); err != nil {
		return fail(c.cmd, nucleus.Invalid(err))
	}
	return c.each(func(ctx context.Context, b *store.Sandbox) error { return b.Update(ctx, l) })
}

// runCollect is `nucleus gc`.
func runCollect(c *call) int {
	s, err := openStore()
	if err != nil {
		return failVerb(c.cmd, err)
	}
	ctx, cancel := interruptible()
	defer cancel()
	keep := time.Duration(-1)
	if c.opts.life.ended {
		keep = c.opts.life.keep
	}
	removed, err := s.Collect(ctx, keep)
	code := exitOK
	if c.opts.json {
		code = outputJSON(struct {
			Removed []string `json:"removed"`
		}{append([]string{}, removed...)})
	} else {
		for _, what := range removed {
			fmt.Println("removed " + what)
		}
	}
	if err != nil {
		return failVerb(c.cmd, err)
	}
	return code
}

// stopping shows how long a stop will wait at most.
func (c *call) stopping(ctx context.Context, b *store.Sandbox, line *statusLine) (done func()) {
	if !onTerminal() {
		return func() {}
	}
	i, err := b.Info(ctx)
	if err != nil || !i.Running() {
		return func() {}
	}
	patience := c.opts.life.patience
	if patience == 0 {
		patience = cmp.Or(i.Service.StopTimeout, spec.DefaultStopTimeout)
	}
	return line.show("stopping "+i.Display(), patience)
}
