package keeper_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// run is what a sandbox does that leaves the time of each of its runs.
const leaveTime = "date +%s%N >> runs; "

func TestRestartAlways(t *testing.T) {
	ctx := context.Background()
	b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}}, leaveTime+"sleep 0.05; exit 0")
	b.until("restarting", func(i store.Info) bool { return i.State == "restarting" })
	b.until("started again", func(i store.Info) bool { return len(b.lines("runs")) >= 4 })
	if err := b.Stop(ctx, 0); err != nil {
		t.Fatal(err)
	}
	i := b.ended()
	runs := b.lines("runs")
	if i.Restarts != len(runs)-1 {
		t.Errorf("got %d restarts, want one less than the %d runs", i.Restarts, len(runs))
	}
	var at []int
	for _, r := range runs {
		n, err := strconv.Atoi(r)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, n)
	}
	for i, least := range []time.Duration{100, 200, 400} {
		if gap := time.Duration(at[i+1] - at[i]); gap < least*time.Millisecond {
			t.Errorf("restart %d came after %v, want at least %v", i+1, gap, least*time.Millisecond)
		}
	}
	b.wantEvents("create", "start", "end exit_code=0", "restart after=100ms", "start", "end", "restart after=200ms", "start", "end", "restart after=400ms", "start")
}

func TestRestartOnFailure(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		restart      spec.Restart
		runs, code   int
	}{
		{"given up", "exit 7", spec.Restart{Policy: spec.RestartOnFailure, Max: 2}, 3, 7},
		{"a success", "exit 0", spec.Restart{Policy: spec.RestartOnFailure, Max: 2}, 1, 0},
		{"a success at last", "test $(wc -l <runs) = 3", spec.Restart{Policy: spec.RestartOnFailure}, 3, 0},
		{"killed from inside", "kill -9 $$", spec.Restart{Policy: spec.RestartOnFailure, Max: 1}, 2, 137},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := start(t, open(t), spec.Service{Restart: tc.restart}, leaveTime+tc.script)
			i := b.ended()
			if runs := len(b.lines("runs")); runs != tc.runs || i.ExitCode != tc.code || i.Restarts != tc.runs-1 {
				t.Errorf("got %d runs, %d restarts, exit code %d; want %d runs, exit code %d", runs, i.Restarts, i.ExitCode, tc.runs, tc.code)
			}
		})
	}
}

// TestStopDuringPause: between two runs there is nothing to stop but the intention.
func TestStopDuringPause(t *testing.T) {
	ctx := context.Background()
	for name, stop := range map[string]func(*box) error{
		"stop":   func(b *box) error { return b.Stop(ctx, 0) },
		"remove": func(b *box) error { return b.Remove(ctx, false) },
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}}, leaveTime+"exit 1")
			pid := b.keeperPid()
			b.until("in a long pause", func(i store.Info) bool { return i.Restarts == 3 && i.State == "restarting" }) // 800 ms
			began := time.Now()
			if err := stop(b); err != nil {
				t.Fatal(err)
			}
			runs := len(b.lines("runs"))
			gone(t, pid)
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("it took %v", took)
			}
			if name == "stop" {
				if i := b.info(); i.State != "exited" || i.ExitCode != 1 {
					t.Errorf("got %+v", i)
				}
			}
			if now := len(b.lines("runs")); now != runs {
				t.Errorf("it ran %d times, and then %d", runs, now)
			}
		})
	}
}

// TestStopIsNotUndone: whoever stops a sandbox at any moment of a restart wins.
func TestStopIsNotUndone(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	for i := range 12 {
		b := start(t, s, spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}}, leaveTime+"exit 0")
		pid := b.keeperPid()
		time.Sleep(90*time.Millisecond + time.Duration(i)*3*time.Millisecond) // around the first restart
		if err := b.Stop(ctx, -1); err != nil {
			t.Fatal(err)
		}
		gone(t, pid)
		if i := b.info(); i.State != "exited" || i.Kept {
			t.Errorf("got %+v", i)
		}
	}
}

// TestStartDuringPause: a start by hand is a new beginning, with a new keeper.
func TestStartDuringPause(t *testing.T) {
	b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}}, leaveTime+"test -e stay || exit 1; exec sleep 60")
	old := b.keeperPid()
	b.until("in a long pause", func(i store.Info) bool { return i.Restarts == 3 && i.State == "restarting" })
	b.write("stay", "")
	b.start()
	gone(t, old)
	if i := b.info(); i.State != "running" || i.Restarts != 0 || !i.Kept {
		t.Errorf("got %+v, want the new run, and its keeper", i)
	}
	if b.keeperPid() == old {
		t.Error("the old keeper is the new one")
	}
}

// TestFailedRestart: a start that fails is a failure like others, and one that
// does not is the end of it.
func TestFailedRestart(t *testing.T) {
	data := t.TempDir() + "/data"
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartOnFailure, Max: 5}}, leaveTime+"test -e stay || exit 1; exec sleep 60",
		func(c *store.Config) {
			c.Sandbox.Volumes = append(c.Sandbox.Volumes, spec.Volume{Source: data, Target: "/data"})
		})
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	i := b.until("not started", func(i store.Info) bool { return i.Reason == "not started" })
	if i.State != "restarting" || !strings.Contains(i.Detail, data) {
		t.Errorf("got %+v", i)
	}
	b.until("not started again", func(i store.Info) bool { return b.count("end exit_code=125") >= 2 })
	b.write("stay", "")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	b.until("running", func(i store.Info) bool { return i.State == "running" })
}

func TestKilledByUser(t *testing.T) {
	ctx := context.Background()
	b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}}, leaveTime+"exec sleep 60")
	b.until("running", func(i store.Info) bool { return len(b.lines("runs")) == 1 })
	if err := b.Signal(ctx, 9); err != nil {
		t.Fatal(err)
	}
	b.ended()
	if n := len(b.lines("runs")); n != 1 {
		t.Errorf("it ran %d times: what a user kills stays so", n)
	}
}
