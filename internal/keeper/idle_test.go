package keeper_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// userEnv makes this binary a program that uses the sandbox that it names.
const userEnv = "KEEPER_TEST_USER"

func user(id string) int {
	s, err := store.Open("")
	if err != nil {
		return 1
	}
	b, err := s.Sandbox(id)
	if err != nil {
		return 1
	}
	if _, err := b.Use(); err != nil {
		return 1
	}
	time.Sleep(time.Minute)
	return 0
}

func TestIdle(t *testing.T) {
	limit := 300 * time.Millisecond * sandboxtest.Slow()
	b := start(t, open(t), spec.Service{IdleTimeout: limit, Restart: spec.Restart{Policy: spec.RestartAlways}}, "exec sleep 60")
	began := b.info().Started
	i := b.ended()
	if took := i.Ended.Sub(began); took < limit-20*time.Millisecond || took > limit+2*time.Second {
		t.Errorf("it was stopped after %v, want %v", took, limit)
	}
	if i.Restarts != 0 || i.ExitCode != 143 {
		t.Errorf("got %+v, want stopped for good", i)
	}
	b.wantEvents("stop reason=idle")
}

// TestInUse: as long as somebody uses it, and its time again from then on. A
// health check is nobody.
func TestInUse(t *testing.T) {
	limit := 300 * time.Millisecond * sandboxtest.Slow()
	b := start(t, open(t), spec.Service{IdleTimeout: limit, Health: command("true")}, "exec sleep 60")
	release, err := b.Use()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * limit)
	if i := b.info(); i.State != "running" {
		t.Errorf("got %+v although somebody uses it", i)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	released := time.Now()
	i := b.ended()
	if took := i.Ended.Sub(released); took < limit-20*time.Millisecond || took > limit+2*time.Second {
		t.Errorf("it was stopped %v after its last use, want %v", took, limit)
	}
}

// TestUserKilled: a user that is killed is one no longer, and was one until then.
func TestUserKilled(t *testing.T) {
	limit := 800 * time.Millisecond * sandboxtest.Slow()
	b := start(t, open(t), spec.Service{IdleTimeout: limit}, "exec sleep 60")
	user := exec.Command(self)
	user.Env = append(os.Environ(), userEnv+"="+b.ID())
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	b.until("in use", func(store.Info) bool { _, used, err := b.Idle(); return err == nil && used })
	time.Sleep(2 * limit)
	if i := b.info(); i.State != "running" {
		t.Errorf("got %+v although somebody uses it", i)
	}
	if err := user.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = user.Wait() // killed
	killed := time.Now()
	i := b.ended()
	if took := i.Ended.Sub(killed); took < limit/2 || took > limit+2*time.Second {
		t.Errorf("it was stopped %v after its user was killed, want about %v", took, limit)
	}
}
