package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/store"
)

func TestGroups(t *testing.T) {
	s := open(t)
	never, err := s.Create(store.Config{Name: "never", Command: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := never.Groups(); err != nil || len(got) != 0 {
		t.Errorf("never started: got %q, %v, want none", got, err)
	}
	sandboxtest.Need(t, sandboxtest.Cgroup)
	b := start(t, s, store.Config{Name: "web", Command: []string{"sleep", "60"}})
	got, err := b.Groups()
	if err != nil || len(got) == 0 {
		t.Fatalf("got %q, %v", got, err)
	}
	for _, dir := range got {
		if _, err := os.Stat(dir + "/cgroup.procs"); err != nil {
			t.Error(err)
		}
	}
	if err := b.Stop(context.Background(), -1); err != nil {
		t.Fatal(err)
	}
	for _, dir := range got {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want it to be gone", dir, err)
		}
	}
}
