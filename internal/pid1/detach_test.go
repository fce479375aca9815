package pid1

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// detached starts a shell under a detached init.
func detached(t *testing.T, script string) (b *box, exit string) {
	t.Helper()
	exit = filepath.Join(t.TempDir(), "exit")
	f, err := os.OpenFile(exit, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := shell(t, script)
	s.config.Detached, s.config.ExitFD, s.exit = true, 4, f
	b = start(t, s)
	b.wantMessage(t, Started, 2)
	return b, exit
}

// wantExitFile wants the one message that the init wrote.
func wantExitFile(t *testing.T, path string, kind, value int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != 8 {
		t.Fatalf("the exit file has %d bytes, want 8", len(b))
	}
	if k, v := Decode(b); k != kind || v != value {
		t.Errorf("the exit file says %d, %d; want %d, %d", k, v, kind, value)
	}
}

func TestDetachedSaysTheExit(t *testing.T) {
	b, exit := detached(t, "read x; exit 7")
	b.hangUp(t)
	fmt.Fprintln(b.stdin, "go")
	b.wantExit(t, 7)
	wantExitFile(t, exit, Ended, 7<<8)

	b, exit = detached(t, "read x; kill -TERM $$")
	b.hangUp(t)
	fmt.Fprintln(b.stdin, "go")
	b.wantExit(t, 143)
	wantExitFile(t, exit, Ended, int(syscall.SIGTERM))
}

// TestDetachedHoldsTheExitOnly checks that the supervisor's socket is gone, and
// that the workload never had the exit file.
func TestDetachedHoldsTheExitOnly(t *testing.T) {
	b, exit := detached(t, "readlink /proc/self/fd/*; echo .; read x")
	for line := b.line(t); line != "."; line = b.line(t) {
		if line == exit || strings.HasPrefix(line, "socket:") {
			t.Errorf("the workload has %s", line)
		}
	}
	sandboxtest.Need(t, sandboxtest.Root) // to look: the init is not dumpable
	fds := fmt.Sprintf("/proc/%d/fd", b.Process.Pid)
	eventually(t, "the init holds the exit file only", func() (bool, string) {
		entries, err := os.ReadDir(fds)
		if err != nil {
			return false, err.Error()
		}
		if len(entries) != 1 {
			return false, fmt.Sprint(entries)
		}
		to, err := os.Readlink(filepath.Join(fds, entries[0].Name()))
		return to == exit, fmt.Sprint(to, err)
	})
}

// TestAlarmOfOthersIsForwarded: only the init's own timer ends the sandbox.
func TestAlarmOfOthersIsForwarded(t *testing.T) {
	b, exit := detached(t, "trap 'exit 3' ALRM; echo ready; while :; do sleep 0.01; done")
	if got := b.line(t); got != "ready" {
		t.Fatal(got)
	}
	if err := b.Process.Signal(syscall.SIGALRM); err != nil {
		t.Fatal(err)
	}
	b.wantExit(t, 3)
	wantExitFile(t, exit, Ended, 3<<8)
}
