package keeper_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/keeper"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

func terminal(c *store.Config) { c.Sandbox.Terminal = true }

// TestTerminal: who attaches sees and is heard, what was shown is in the log, and
// a program that is started again has another terminal.
func TestTerminal(t *testing.T) {
	ctx := context.Background()
	b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartOnFailure, Max: 1}},
		"test -t 0 && tty; echo hello; while read line; do echo got $line; test $line != end || exit 3; done", terminal)
	for run, word := range []string{"one", "two"} {
		b.until("running", func(i store.Info) bool { return i.Restarts == run && i.State == "running" })
		var a *keeper.Attached
		b.until("attached", func(store.Info) bool {
			var err error
			a, err = keeper.Attach(b.Path("keeper.sock"))
			return err == nil
		})
		if _, err := io.WriteString(a, word+"\rend\r"); err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(a)
		if err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
		wantWords(t, string(out), "/dev/pts/0", "hello\r\n", "got "+word+"\r\n", "got end\r\n")
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	if i := b.ended(); i.ExitCode != 3 {
		t.Errorf("got %+v", i)
	}
	if _, err := os.Stat(b.Path("keeper.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	var log bytes.Buffer
	if err := b.Logs(ctx, &log, &log, store.LogOptions{Stdout: true, Stderr: true, Tail: -1, Follow: true}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "hello\r\n"); n != 2 {
		t.Errorf("the log has %d greetings: %q", n, log.String())
	}
	wantWords(t, log.String(), "got one", "got two")
}

// TestKeeperOfTerminalKilled: the terminal hangs up, and the program hears that.
func TestKeeperOfTerminalKilled(t *testing.T) {
	b := start(t, open(t), spec.Service{}, "trap 'exit 9' HUP; touch up; while :; do sleep 0.01; done", terminal)
	b.until("up", func(store.Info) bool { _, err := os.Stat(b.dir + "/up"); return err == nil })
	pid := b.keeperPid()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if i := b.ended(); i.ExitCode != 9 {
		t.Errorf("got %+v", i)
	}
}
