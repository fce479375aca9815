package store_test

import (
	"context"
	"errors"
	"testing"

	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// TestRelaunch: only the keeper that has it starts a sandbox again, and only if
// nobody has asked for its end. Here this test is the keeper.
func TestRelaunch(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	launch := func(name string, l store.Launch) *store.Sandbox {
		t.Helper()
		b, err := s.Create(store.Config{Name: name, Sandbox: spec.Sandbox{Toolchain: true}, Command: []string{"true"}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := b.Launch(ctx, l)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.Wait(ctx), p.Close()); err != nil {
			t.Fatal(err)
		}
		return b
	}
	relaunch := func(b *store.Sandbox, want error) {
		t.Helper()
		p, err := b.Relaunch(ctx, store.Launch{})
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if err == nil {
			if err := errors.Join(p.Wait(ctx), p.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := launch("kept", store.Launch{Keep: true})
	relaunch(b, nil)
	if i, err := b.Info(ctx); err != nil || i.Restarts != 1 || !i.Kept {
		t.Errorf("got %+v, %v, want one restart", i, err)
	}
	if err := b.Stop(ctx, 0); err != nil { // after its end, in the pause of a keeper
		t.Fatal(err)
	}
	relaunch(b, store.ErrNotKept)
	relaunch(launch("another", store.Launch{}), store.ErrNotKept)
}

// TestEnd: for good, or not; and of the run that is meant.
func TestEnd(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	for _, forGood := range []bool{false, true} {
		b, err := s.Create(store.Config{Sandbox: spec.Sandbox{Toolchain: true}, Command: []string{"sleep", "60"}})
		if err != nil {
			t.Fatal(err)
		}
		old, err := b.Launch(ctx, store.Launch{Keep: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.End(ctx, old, "because", forGood); err != nil {
			t.Fatal(err)
		}
		if stopped, err := b.Stopped(); err != nil || stopped != forGood {
			t.Errorf("for good %v: got stopped %v, %v", forGood, stopped, err)
		}
		p, err := b.Launch(ctx, store.Launch{Keep: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.End(ctx, old, "too late", true); err != nil { // the one that has ended
			t.Error(err)
		}
		if i, err := b.Info(ctx); err != nil || i.State != "running" {
			t.Errorf("got %+v, %v, want the next run untouched", i, err)
		}
		if stopped, err := b.Stopped(); err != nil || stopped {
			t.Errorf("got stopped %v, %v, want the next run untouched", stopped, err)
		}
		if err := errors.Join(old.Close(), p.Kill(), p.Wait(ctx), p.Close()); err != nil {
			t.Error(err)
		}
	}
}
