package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

func open(t *testing.T) *store.Store {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Userns)
	dir := t.TempDir() + "/state"
	t.Setenv("NUCLEUS_STATE_DIR", dir)
	s, err := store.Open("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		all, err := s.List(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, i := range all {
			b, err := s.Sandbox(i.ID)
			if err == nil {
				err = b.Remove(context.Background(), true)
			}
			if err != nil {
				t.Errorf("remove %s: %v", i.ID, err)
			}
		}
	})
	return s
}

func start(t *testing.T, s *store.Store, c store.Config) *store.Sandbox {
	t.Helper()
	c.Sandbox.Toolchain = true
	b, err := s.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLife(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	b := start(t, s, store.Config{Name: "web", Command: []string{"sh", "-c", "echo out; echo err >&2; trap 'exit 3' TERM; while :; do sleep 0.05; done"}})
	i, err := b.Info(ctx)
	if err != nil || i.State != "running" || i.Pid == 0 {
		t.Fatalf("got %+v, %v", i, err)
	}
	p, err := b.Process()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Command("echo", "hello").Output()
	if err != nil || string(out) != "hello\n" {
		t.Fatalf("got %q, %v", out, err)
	}
	p.Close()
	if err := b.Stop(ctx, 0); err != nil {
		t.Fatal(err)
	}
	i, err = b.Info(ctx)
	if err != nil || i.State != "exited" || i.ExitCode != 3 {
		t.Fatalf("got %+v, %v", i, err)
	}
	var stdout, stderr bytes.Buffer
	if err := b.Logs(ctx, &stdout, &stderr, store.LogOptions{Stdout: true, Stderr: true, Tail: -1, Follow: true}); err != nil {
		t.Fatal(err)
	}
	if stdout.String() != "out\n" || stderr.String() != "err\n" {
		t.Errorf("got %q and %q", stdout.String(), stderr.String())
	}
	all, err := s.List(ctx)
	if err != nil || len(all) != 1 || all[0].Name != "web" {
		t.Fatalf("got %v, %v", all, err)
	}
}

func TestWaitForRemoved(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	b := start(t, s, store.Config{Name: "web", Service: spec.Service{Remove: true}, Command: []string{"sh", "-c", "exit 3"}})
	for range 2 { // the first one settles and removes it
		if i, err := b.Wait(ctx); err != nil || i.ExitCode != 3 || i.State != "exited" || i.Name != "web" {
			t.Fatalf("got %+v, %v", i, err)
		}
	}
	if _, err := s.Sandbox("web"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want that it is gone", err)
	}
}

// TestNameOfTheEnded makes sure that a sandbox that was to be removed when it
// ended does not keep its name until somebody looks.
func TestNameOfTheEnded(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	c := store.Config{Name: "web", Service: spec.Service{Remove: true}, Command: []string{"sleep", "60"}}
	b := start(t, s, c)
	if _, err := s.Create(c); !errors.Is(err, store.ErrExists) {
		t.Fatalf("while it runs: got %v, want ErrExists", err)
	}
	p, err := b.Process()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Kill(), p.Wait(ctx), p.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(c); err != nil {
		t.Errorf("after its end: %v", err)
	}
}

func TestAttend(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	box := spec.Sandbox{Toolchain: true, Name: "web"}
	for name, tc := range map[string]struct {
		command string
		code    int
		reason  string
	}{"ends": {"exit 3", 3, "exited"}, "killed": {"kill -9 $$", 137, "signaled"}} {
		t.Run(name, func(t *testing.T) {
			cmd := nucleus.Command(&box, "sh", "-c", "read x; "+tc.command)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			done, err := s.Attend(ctx, store.Config{Name: "web", Sandbox: box, Command: cmd.Args}, cmd)
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err, done())
			}
			b, err := s.Sandbox("web")
			if err != nil {
				t.Fatal(err)
			}
			if i, err := b.Info(ctx); err != nil || i.State != "running" || i.Pid != cmd.Process.Pid() {
				t.Errorf("got %+v, %v", i, err)
			}
			var waited store.Info
			var all sync.WaitGroup
			var werr error
			all.Go(func() { waited, werr = b.Wait(ctx) })
			in.Close()
			var exit *nucleus.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != tc.code {
				t.Errorf("got %v", err)
			}
			if err := done(); err != nil {
				t.Error(err)
			}
			all.Wait()
			if werr != nil || waited.ExitCode != tc.code || waited.Reason != tc.reason {
				t.Errorf("another program waited: got %+v, %v, want code %d", waited, werr, tc.code)
			}
			if all, err := s.List(ctx); err != nil || len(all) != 0 {
				t.Errorf("got %v, %v, want that it is forgotten", all, err)
			}
		})
	}
}

func TestAttendWhatCannotStart(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	box := spec.Sandbox{Toolchain: true, Name: "web"}
	cmd := nucleus.Command(&box, "no-such-program")
	done, err := s.Attend(ctx, store.Config{Sandbox: box, Command: cmd.Args}, cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); !nucleus.NotFound(err) {
		t.Errorf("got %v", err)
	}
	if err := done(); err != nil {
		t.Error(err)
	}
	if all, err := s.List(ctx); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v, want that it is forgotten", all, err)
	}
	events, err := s.Events(time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Type == "end" && e.Attrs["reason"] != "not started" {
			t.Errorf("got %+v", e)
		}
	}
}

// TestAttendantKilled makes sure that what a foreground program leaves when it is
// killed before its sandbox ran is forgotten.
func TestAttendantKilled(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	b, err := s.Create(store.Config{Name: "web", Command: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.Path("attend.json"), []byte(`{"pid":1,"start":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := s.List(ctx); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v, want that it is forgotten", all, err)
	}
}

func TestRenamedIsStartedAnew(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	b := start(t, s, store.Config{Name: "old", Command: []string{"sleep", "60"}})
	if err := b.Rename(ctx, "new"); err != nil {
		t.Fatal(err)
	}
	other := start(t, s, store.Config{Name: "old", Command: []string{"sleep", "60"}})
	if i, err := other.Info(ctx); err != nil || i.State != "running" {
		t.Errorf("got %+v, %v", i, err)
	}
	if err := b.Restart(ctx, -1); err != nil {
		t.Fatal(err)
	}
	p, err := b.Process()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if out, err := p.Command("hostname").Output(); err != nil || string(out) != "new\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestRestartOfTheUnrepeatable(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	b := start(t, s, store.Config{Name: "web", Service: spec.Service{Remove: true}, Command: []string{"sleep", "60"}})
	if err := b.Restart(ctx, -1); err == nil {
		t.Error("it was started again")
	}
	if i, err := b.Info(ctx); err != nil || i.State != "running" {
		t.Errorf("got %+v, %v, want that it still runs", i, err)
	}
}

// TestNameOfTheAbandoned makes sure that the name of a foreground sandbox is free
// as soon as its program was killed, and not when the kernel has ended the sandbox.
func TestNameOfTheAbandoned(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	c := store.Config{Name: "web", Service: spec.Service{Remove: true}, Command: []string{"sleep", "60"}}
	b := start(t, s, c)
	if err := os.WriteFile(b.Path("attend.json"), []byte(`{"pid":1,"start":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := b.Process()
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, func() { p.Kill(); p.Close() }) // as the kernel would
	next, err := s.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Remove(ctx, true); err != nil {
		t.Error(err)
	}
}
