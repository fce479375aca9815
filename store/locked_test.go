package store

import (
	"context"
	"errors"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// TestKilledUnderTheLock: somebody who does not hold the lock ends the sandbox
// after its holder looked. It must not count as ended before its end is settled,
// or its control groups and ids would be forgotten.
func TestKilledUnderTheLock(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	ctx := context.Background()
	t.Setenv("NUCLEUS_STATE_DIR", t.TempDir()+"/state")
	st, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	b, err := st.Create(Config{Sandbox: spec.Sandbox{Toolchain: true}, Command: []string{"sleep", "60"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Remove(ctx, true); err != nil {
			t.Error(err)
		}
	})
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
