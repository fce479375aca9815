package keeper_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// starterEnv makes this binary a program that starts the sandbox that it names.
const starterEnv = "KEEPER_TEST_STARTER"

func starter(id string) int {
	s, err := store.Open("")
	if err == nil {
		s.Keeper = keeperCommand()
		var b *store.Sandbox
		if b, err = s.Sandbox(id); err == nil {
			err = b.Start(context.Background())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// killedStarter starts a sandbox from another program, and kills that with -9 as
// soon as the sandbox runs.
func killedStarter(t *testing.T, s *store.Store, b *box) int {
	t.Helper()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), starterEnv+"="+b.ID())
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.until("running", func(i store.Info) bool { return i.State == "running" })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	return cmd.Process.Pid
}

// TestKeeperKilled: the sandbox goes on, and every verb knows.
func TestKeeperKilled(t *testing.T) {
	ctx := context.Background()
	b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}, Notify: true, Health: command("true")},
		leaveTime+probePath+" notify READY=1; until test -e go; do sleep 0.01; done; exit 5")
	pid := b.keeperPid()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
	if i := b.info(); i.State != "running" || i.Kept {
		t.Errorf("got %+v, want that it runs and nobody stays with it", i)
	}
	if out := b.exec("echo", "hello"); out != "hello\n" {
		t.Errorf("got %q", out)
	}
	b.write("go", "")
	if i := b.ended(); i.ExitCode != 5 || len(b.lines("runs")) != 1 {
		t.Errorf("got %+v", i)
	}
	if err := os.Remove(b.dir + "/go"); err != nil {
		t.Fatal(err)
	}
	b.start() // over what the killed keeper has left
	if i := b.info(); i.State != "running" || !i.Kept {
		t.Errorf("got %+v", i)
	}
	if err := syscall.Kill(b.keeperPid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := b.Stop(ctx, -1); err != nil {
		t.Fatal(err)
	}
	b.ended()
}

// TestKeeperKilledDuringPause: there is nothing left to start it again.
func TestKeeperKilledDuringPause(t *testing.T) {
	b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}}, leaveTime+"exit 5")
	b.until("in a long pause", func(i store.Info) bool { return i.Restarts == 3 && i.State == "restarting" })
	pid := b.keeperPid()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
	if i := b.info(); i.State != "exited" || i.Kept || i.ExitCode != 5 {
		t.Errorf("got %+v, want the truth", i)
	}
}

// TestKeeperStopped: SIGTERM and SIGINT stop the sandbox as Stop does.
func TestKeeperStopped(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}, StopSignal: "USR1"},
				"trap 'exit 8' USR1; touch up; while :; do sleep 0.01; done")
			b.until("up", func(store.Info) bool { _, err := os.Stat(b.dir + "/up"); return err == nil })
			if err := syscall.Kill(b.keeperPid(), sig); err != nil {
				t.Fatal(err)
			}
			if i := b.ended(); i.ExitCode != 8 || i.Restarts != 0 {
				t.Errorf("got %+v", i)
			}
			b.wantEvents("stop reason=signal")
		})
	}
}

// TestPausedIsStopped: it is asked to end, and must be able to hear it.
func TestPausedIsStopped(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Cgroup)
	b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}}, "trap 'exit 8' TERM; touch up; while :; do sleep 0.01; done")
	b.until("up", func(store.Info) bool { _, err := os.Stat(b.dir + "/up"); return err == nil })
	if err := b.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(b.keeperPid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if i := b.ended(); i.ExitCode != 8 {
		t.Errorf("got %+v", i)
	}
}

// TestStopIsPatient: a program that does not hear is killed after its time.
func TestStopIsPatient(t *testing.T) {
	b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}, StopTimeout: 100e6}, "trap '' TERM; touch up; while :; do sleep 0.01; done")
	b.until("up", func(store.Info) bool { _, err := os.Stat(b.dir + "/up"); return err == nil })
	if err := syscall.Kill(b.keeperPid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if i := b.ended(); i.ExitCode != 137 {
		t.Errorf("got %+v", i)
	}
}

// TestRemovedUnderIt: by force, with its end, and without any manners.
func TestRemovedUnderIt(t *testing.T) {
	ctx := context.Background()
	always := spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}}
	for _, tc := range []struct {
		name    string
		service spec.Service
		remove  func(*box) error
	}{
		{"by force", always, func(b *box) error { return b.Remove(ctx, true) }},
		{"with its end", spec.Service{Remove: true, Health: command("true")}, func(b *box) error { return b.Stop(ctx, 0) }},
		{"without manners", always, func(b *box) error {
			p, err := b.Process()
			if err != nil {
				return err
			}
			data, err := os.ReadFile(b.Path("identity.json"))
			var id nucleus.Identity
			if err == nil {
				err = json.Unmarshal(data, &id)
			}
			if err != nil {
				return err
			}
			if err := os.RemoveAll(b.Path("")); err != nil {
				return err
			}
			err = errors.Join(p.Kill(), p.Wait(ctx), p.Close())
			_, cerr := id.Collect(nil) // nobody else knows any more what it leaves
			return errors.Join(err, cerr)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := start(t, open(t), tc.service, "exec sleep 60")
			pid := b.keeperPid()
			if err := tc.remove(b); err != nil {
				t.Fatal(err)
			}
			gone(t, pid)
			if _, err := os.Stat(b.Path("")); !os.IsNotExist(err) {
				t.Errorf("got %v, want that its files are gone", err)
			}
		})
	}
}
