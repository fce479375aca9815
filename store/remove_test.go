package store_test

import (
	"context"
	"sync"
	"testing"

	"github.com/nucleus-container/nucleus/store"
)

// TestRemoveByForce makes sure that removing by force works whatever others do:
// it is no error that somebody else was faster, or has started it again.
func TestRemoveByForce(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	for range 20 {
		b := start(t, s, store.Config{Name: "web", Command: []string{"sleep", "60"}})
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := b.Remove(ctx, true); err != nil {
					t.Errorf("remove by force: %v", err)
				}
			})
			all.Go(func() { _ = b.Restart(ctx, -1) }) // it may be gone
		}
		all.Wait()
		if left, err := s.List(ctx); err != nil || len(left) > 0 {
			t.Errorf("got %v, %v, want that nothing is left", left, err)
		}
	}
}
