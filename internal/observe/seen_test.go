package observe

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// TestLook: what is asked about a path is asked below the sandbox's root, and a
// link there leads nowhere else.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"out": "/etc/passwd", "up": "../../../../etc/passwd", "in": "/file"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := kernel.Open(dir, kernel.PathOnly|kernel.Directory, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, want := range map[string]Seen{
		"/file": {Asked: true, Exists: true, Parent: true}, "/in": {Asked: true, Exists: true, Parent: true}, "/new": {Asked: true, Parent: true},
		"/no/new": {Asked: true}, "/out": {Asked: true, Parent: true}, "/up": {Asked: true, Parent: true}, "/file/below": {Asked: true},
	} {
		got := look(root, name)
		got.Real, got.ReadOnly, got.NoExec = "", false, false
		if got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	if got := look(root, "/in").Real; got != filepath.Join(dir, "file") {
		t.Errorf("the link leads to %q", got)
	}
}

// TestAskerGivesUp: a file system that does not answer holds up one call, once.
func TestAskerGivesUp(t *testing.T) {
	a := asker{questions: make(chan question, 1)} // and nobody answers
	began := time.Now()
	if s := a.ask(Call{}, "/x"); s.seen.Asked || time.Since(began) < patience {
		t.Errorf("got %+v after %v", s, time.Since(began))
	}
	began = time.Now()
	for range 1000 {
		if s := a.ask(Call{}, "/x"); s.seen.Asked {
			t.Fatalf("got %+v", s)
		}
	}
	if took := time.Since(began); took > patience {
		t.Errorf("asking goes on: %v", took)
	}
}

// TestAskerIsPatient: a machine with much to do answers later, and is asked on.
func TestAskerIsPatient(t *testing.T) {
	a := asker{questions: make(chan question)}
	go func() {
		for q := range a.questions {
			time.Sleep(patience / 5)
			q.answer <- answered{seen: Seen{Asked: true}}
		}
	}()
	defer a.close()
	for range 2 {
		if s := a.ask(Call{}, "/x"); !s.seen.Asked || patience/5 < 100*time.Millisecond {
			t.Errorf("got %+v, with a patience of %v", s.seen, patience)
		}
	}
}
