package keeper_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// startError starts a sandbox that must not start, and returns what is said.
func (b *box) startError() string {
	b.t.Helper()
	err := b.Start(context.Background())
	var failed *store.StartError
	if !errors.As(err, &failed) {
		b.t.Fatalf("got %v, want a report", err)
	}
	return failed.Report.Error
}

func wantWords(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("got %q, want %q in it", text, w)
		}
	}
}

func TestReady(t *testing.T) {
	const script = "sleep 0.3; echo 200 >state; touch open; exec " + probePath + " serve 127.0.0.1:8080 state"
	for name, check := range map[string]spec.Check{
		"command": {Command: []string{"test", "-e", "open"}},
		"HTTP":    {HTTP: "http://127.0.0.1:8080/"},
		"TCP":     {TCP: "127.0.0.1:8080"},
	} {
		t.Run(name, func(t *testing.T) {
			check.Interval, check.Retries = soon, 1000
			b := start(t, open(t), spec.Service{Ready: &check}, script)
			if i := b.info(); !i.Ready || i.State != "running" || !i.Kept {
				t.Errorf("got %+v, want ready", i)
			}
			if len(b.lines("state")) == 0 {
				t.Error("it was ready before it was")
			}
			b.wantEvents("start", "ready")
		})
	}
}

// TestNotReady: the start fails, says why, and leaves nothing that runs.
func TestNotReady(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		service      spec.Service
		want         []string
	}{
		{"command", "exec sleep 60", spec.Service{Ready: command("echo not yet; exit 3")},
			[]string{"the command sh -c", "asked for 2 times in", "the last answer: exit status 3: not yet"}},
		{"no such command", "exec sleep 60", spec.Service{Ready: &spec.Check{Command: []string{"no-such-program"}, Interval: soon, Retries: 2}},
			[]string{"no-such-program", "2 times", "no such file"}},
		{"HTTP", "echo 503 >state; exec " + probePath + " serve 127.0.0.1:8080 state", spec.Service{Ready: &spec.Check{HTTP: "http://127.0.0.1:8080/up", Interval: 200 * time.Millisecond, Retries: 5}},
			[]string{"GET http://127.0.0.1:8080/up", "5 times", "status 503"}},
		{"TCP", "exec sleep 60", spec.Service{Ready: &spec.Check{TCP: "127.0.0.1:5432", Interval: soon, Retries: 3}},
			[]string{"a connection to 127.0.0.1:5432", "3 times", "connection refused"}},
		{"it ends", "sleep 0.1; exit 9", spec.Service{Ready: &spec.Check{TCP: "127.0.0.1:5432", Interval: soon}},
			[]string{"it ended before: exit status 9", "127.0.0.1:5432"}},
		{"it ends and is removed", "sleep 0.1; exit 9", spec.Service{Remove: true, Ready: &spec.Check{TCP: "127.0.0.1:5432", Interval: soon}},
			[]string{"it ended before", "127.0.0.1:5432"}},
		{"it does not say so", "exec sleep 60", spec.Service{Notify: true, Ready: command("exit 1")},
			[]string{"2 times"}},
		{"with a policy", "exec sleep 60", spec.Service{Ready: command("exit 1"), Restart: spec.Restart{Policy: spec.RestartAlways}},
			[]string{"2 times"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := create(t, open(t), tc.service, leaveTime+tc.script)
			text := b.startError()
			wantWords(t, text, "did not become ready")
			wantWords(t, text, tc.want...)
			if tc.service.Remove {
				if _, err := b.Info(context.Background()); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("got %v, want that it is gone", err)
				}
				return
			}
			if i := b.ended(); i.Ready {
				t.Errorf("got %+v", i)
			}
			if n := len(b.lines("runs")); n != 1 {
				t.Errorf("it was started %d times: a first start that fails is not tried again", n)
			}
		})
	}
}

// TestNotReadyAgain: a sandbox that is started again and does not get ready has
// failed again.
func TestNotReadyAgain(t *testing.T) {
	b := start(t, open(t), spec.Service{Ready: &spec.Check{Command: []string{"test", "-e", "well"}, Interval: 50 * time.Millisecond, Retries: 10}, Restart: spec.Restart{Policy: spec.RestartOnFailure, Max: 2}},
		leaveTime+"test -e go && exec sleep 60; touch well; until test -e go; do sleep 0.01; done; exit 1")
	if i := b.info(); !i.Ready {
		t.Errorf("got %+v", i)
	}
	if err := os.Remove(b.dir + "/well"); err != nil {
		t.Fatal(err)
	}
	b.write("go", "")
	b.ended()
	if n := len(b.lines("runs")); n != 3 {
		t.Errorf("got %d runs, want 3", n)
	}
	// (The end of a program that ends at once can be some milliseconds before what
	// led to it: files have coarser times.)
	b.wantEvents("end exit_code=1", "restart", "start", "stop reason=failed start", "restart", "start", "stop reason=failed start")
	if n := b.count("ready"); n != 1 {
		t.Errorf("it was ready %d times", n)
	}
}

// TestStartIsCalledOff: who does not want to wait any longer leaves nothing behind.
func TestStartIsCalledOff(t *testing.T) {
	b := create(t, open(t), spec.Service{Ready: &spec.Check{TCP: "127.0.0.1:5432", Interval: soon}}, "touch runs; exec sleep 60")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for i := 0; i < 1000 && len(b.events()) < 2; i++ {
			time.Sleep(5 * time.Millisecond)
		}
		cancel()
	}()
	if err := b.Start(ctx); err == nil {
		t.Error("it has started")
	}
	b.ended()
	b.wantEvents("start", "stop reason=signal")
}

func TestStartFails(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*store.Config)
		code   int
		want   []string
	}{
		{"no such program", func(c *store.Config) { c.Command = []string{"no-such-program"} }, 127, []string{"no-such-program"}},
		{"not executable", func(c *store.Config) { c.Command = []string{"/etc/passwd"} }, 126, []string{"/etc/passwd"}},
		{"no such volume", func(c *store.Config) {
			c.Sandbox.Volumes = append(c.Sandbox.Volumes, spec.Volume{Source: "/no/such/volume", Target: "/v"})
		}, 125, []string{"/no/such/volume"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := create(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}}, "", tc.change)
			err := b.Start(context.Background())
			var failed *store.StartError
			if !errors.As(err, &failed) || failed.Code != tc.code {
				t.Fatalf("got %v (%+v), want code %d", err, failed, tc.code)
			}
			wantWords(t, failed.Error(), tc.want...)
			b.until("not kept", func(i store.Info) bool { return !i.Kept })
		})
	}
}

// TestStartTwice: the second start does not disturb the first.
func TestStartTwice(t *testing.T) {
	b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}, Hooks: spec.Hooks{Poststop: []spec.Hook{{Path: "/usr/bin/true"}}}}, "exec sleep 60")
	pid := b.keeperPid()
	wantWords(t, b.startError(), "is running")
	if i := b.info(); i.State != "running" || !i.Kept || b.keeperPid() != pid {
		t.Errorf("got %+v", i)
	}
}

// TestReaderGone: a keeper needs nobody to hear its report.
func TestReaderGone(t *testing.T) {
	s := open(t)
	b := create(t, s, spec.Service{Ready: &spec.Check{Command: []string{"test", "-e", "go"}, Interval: soon, Retries: 10000}}, "exec sleep 60")
	pid := killedStarter(t, s, b)
	b.until("running", func(i store.Info) bool { return i.State == "running" })
	b.write("go", "")
	b.until("ready", func(i store.Info) bool { return i.Ready })
	if i := b.info(); !i.Kept || b.keeperPid() == pid {
		t.Errorf("got %+v", i)
	}
}
