package store_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
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
