package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// workEnv makes this program one of the processes of a stress test.
const workEnv = "NUCLEUS_RECORD_WORK"

func TestMain(m *testing.M) {
	if work, dir, ok := strings.Cut(os.Getenv(workEnv), ":"); ok {
		if err := works[work](dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	sandboxtest.Main(m)
}

// testDir is an empty state directory.
func testDir(t testing.TB) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// create makes an unlocked sandbox.
func create(t testing.TB, d *Dir, name string) *Entry {
	t.Helper()
	e, err := d.Create(&Config{Name: name, Command: []string{"true"}})
	must(t, err)
	must(t, e.Unlock())
	return e
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error, text ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
	for _, s := range text {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("got error %q, want %q in it", err, s)
		}
	}
}

func lock(t testing.TB, e *Entry) {
	t.Helper()
	must(t, e.Lock(context.Background()))
	unlockLater(t, e)
}

// unlockLater gives the lock back at the end, if e still has it.
func unlockLater(t testing.TB, e *Entry) {
	t.Cleanup(func() {
		if err := e.Unlock(); !errors.Is(err, ErrLock) {
			must(t, err)
		}
	})
}

// names reads which names there are, with where they point to.
func names(t testing.TB, d *Dir) map[string]string {
	t.Helper()
	all, err := readDir(d.names())
	must(t, err)
	m := map[string]string{}
	for _, n := range all {
		m[n] = d.pointsTo(n)
	}
	return m
}

func listed(t testing.TB, d *Dir) []string {
	t.Helper()
	all, err := d.List()
	must(t, err)
	loaded, err := d.Load()
	must(t, err)
	var a, b []string
	for _, e := range all {
		a = append(a, e.ID())
	}
	for _, l := range loaded {
		b = append(b, l.Entry.ID())
	}
	if !slices.Equal(a, b) {
		t.Errorf("List has %q, Load has %q", a, b)
	}
	return a
}
