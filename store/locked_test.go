package store

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// lone is a store with one sandbox, which is removed in the end.
func lone(t *testing.T, command ...string) (*Store, *Sandbox) {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Userns)
	t.Setenv("NUCLEUS_STATE_DIR", t.TempDir()+"/state")
	st, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	b, err := st.Create(Config{Sandbox: spec.Sandbox{Toolchain: true}, Command: command})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Remove(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
	return st, b
}

// TestRunThatDoesNotBegin: what fails, or is killed, before a program starts once
// more is the end of that run, and no sandbox that never was.
func TestRunThatDoesNotBegin(t *testing.T) {
	ctx := context.Background()
	st, b := lone(t, "true")
	p, err := b.Launch(ctx, Launch{})
	if err == nil {
		err = errors.Join(p.Wait(ctx), p.Close())
	}
	if i, ierr := b.Info(ctx); err != nil || ierr != nil || i.State != "exited" || i.Reason != "exited" {
		t.Fatalf("got %+v, %v, %v", i, err, ierr)
	}
	ended := func(what string) {
		t.Helper()
		i, err := b.Info(ctx)
		if err != nil || i.State != "exited" || i.Reason != "not started" {
			t.Errorf("%s: got %s, %s (%v), want that it did not start", what, i.State, i.Reason, err)
		}
	}
	if err := errors.Join(os.Remove(b.Path("exit")), os.MkdirAll(b.Path("exit/x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if p, err := b.Launch(ctx, Launch{}); err == nil {
		t.Errorf("it started: %v", errors.Join(p.Kill(), p.Close()))
	}
	ended("nowhere to write its end to")
	err = b.locked(ctx, func(s *state) error {
		s.cfg.Created = time.Now().Add(-2 * unborn)
		return errors.Join(s.entry.SetConfig(s.cfg), s.prepare(ctx, Launch{})) // and no further
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Collect(ctx, -1); err != nil {
		t.Error(err)
	}
	ended("its starter was killed")
	if err := os.RemoveAll(b.Path("exit")); err != nil {
		t.Fatal(err)
	}
}

// TestKilledUnderTheLock: somebody who does not hold the lock ends the sandbox
// after its holder looked. It must not count as ended before its end is settled,
// or its control groups and ids would be forgotten.
func TestKilledUnderTheLock(t *testing.T) {
	ctx := context.Background()
	_, b := lone(t, "sleep", "60")
	for range 2 {
		p, err := b.Launch(ctx, Launch{})
		if err != nil {
			t.Fatal(err)
		}
		groups, err := b.Groups()
		if err != nil {
			t.Fatal(err)
		}
		err = b.locked(ctx, func(s *state) error {
			if err := errors.Join(p.Kill(), p.Wait(ctx), p.Close()); err != nil {
				return err
			}
			if !s.running() {
				t.Errorf("it counts as ended: its groups %q are lost by the next start", groups)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
