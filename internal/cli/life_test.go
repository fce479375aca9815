package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/store"
)

// home is a state directory of a test's own, without what it leaves.
func home(t *testing.T) *store.Store {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Userns)
	state := filepath.Join(t.TempDir(), "state")
	t.Setenv("NUCLEUS_STATE_DIR", state)
	s, err := store.Open(state)
	check(t, err)
	t.Cleanup(func() { removeSandboxes(t, state) })
	return s
}

// try runs nucleus and returns what it printed and its exit code.
func try(t *testing.T, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := exec.Command(nucleus(t), args...)
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	if _, ended := err.(*exec.ExitError); err != nil && !ended {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	out, errOut, code := try(t, args...)
	if code != 0 {
		t.Fatalf("nucleus %q: exit code %d: %s", args, code, errOut)
	}
	return strings.TrimSpace(out)
}

func noSandboxes(t *testing.T, s *store.Store) {
	t.Helper()
	all, err := s.List(context.Background())
	if err != nil || len(all) > 0 {
		t.Errorf("got %v, %v, want no sandboxes", all, err)
	}
}

func TestUpdateLimits(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Cgroup)
	s := home(t)
	must(t, "run", "-d", "--name", "job", "--memory", "128M", "--", "sleep", "60")
	must(t, "update", "--memory", "64M", "--pids", "20", "job")
	limits := func() (memory, pids uint64) {
		b, err := s.Sandbox("job")
		check(t, err)
		p, err := b.Process()
		check(t, err)
		defer p.Close()
		stats, err := p.Stats()
		check(t, err)
		return stats.MemoryLimit, stats.PidsLimit
	}
	memory, pids := limits()
	if memory != 64<<20 || pids < 20 || pids > 21 { // the sandbox's init is one more
		t.Errorf("got %d and %d, want 64M and 20", memory, pids)
	}
	must(t, "restart", "-t", "0", "job")
	if m, p := limits(); m != memory || p != pids {
		t.Errorf("after a restart: got %d and %d, want %d and %d", m, p, memory, pids)
	}
}

// TestProgress makes sure that a person is told what a long stop waits for, and
// that nobody else is.
func TestProgress(t *testing.T) {
	home(t)
	const stubborn = "trap '' TERM; touch up; while :; do sleep 0.02; done"
	w := t.TempDir()
	check(t, os.Chmod(w, 0o777))
	deaf := func() {
		must(t, "run", "-d", "--rm", "--name", "deaf", "--workspace", w, "--", "sh", "-c", stubborn)
		for {
			if os.Remove(filepath.Join(w, "up")) == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	deaf()
	screen := openScreen(t)
	cmd := exec.Command(nucleus(t), "stop", "-t", "3", "deaf")
	cmd.Stderr = screen.slave
	out, err := cmd.Output()
	if err != nil || string(out) != "deaf\n" {
		t.Errorf("got %q, %v", out, err)
	}
	screen.wait(t, "\rstopping deaf (2 s left)\x1b[K")
	screen.wait(t, "\rstopping deaf (1 s left)\x1b[K")
	screen.wait(t, "\r\x1b[K")

	deaf()
	if out, errOut, code := try(t, "stop", "-t", "1200ms", "deaf"); out != "deaf\n" || errOut != "" || code != 0 {
		t.Errorf("got %q, %q, %d", out, errOut, code)
	}
}

// TestInterruptedStart makes sure that who does not want to wait for a sandbox to
// be ready leaves nothing of it.
func TestInterruptedStart(t *testing.T) {
	s := home(t)
	w := t.TempDir()
	check(t, os.Chmod(w, 0o777))
	cmd := exec.Command(nucleus(t), "run", "-d", "--name", "web", "--workspace", w, "--readiness-cmd", "false", "--", "sh", "-c", "touch up; sleep 60")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	check(t, cmd.Start())
	for os.Remove(filepath.Join(w, "up")) != nil {
		time.Sleep(time.Millisecond)
	}
	check(t, cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait() // the code is asked for below
	if cmd.ProcessState.ExitCode() != 125 || strings.Count(errOut.String(), "\n") != 1 {
		t.Errorf("got %v, %q", cmd.ProcessState, &errOut)
	}
	noSandboxes(t, s)
}

// TestRunWithConsoleSocket hands terminals to a program that listens, as OCI runtimes do.
func TestRunWithConsoleSocket(t *testing.T) {
	s := home(t)
	path := filepath.Join(t.TempDir(), "console")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	check(t, err)
	defer l.Close()
	for _, tc := range []struct {
		name string
		args []string
	}{
		{"foreground", []string{"run", "-t"}},
		{"detached", []string{"run", "-d", "-t", "--name", "x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.Command(nucleus(t), append(tc.args, "--console-socket", path, "--", "sh", "-c", "stty -echo; echo ready; read x; echo got $x; sleep 0.2; exit 4")...)
			check(t, cmd.Start())
			tty := receive(t, l)
			defer tty.Close()
			readUntil(t, tty, "ready")
			_, err := tty.WriteString("hello\n")
			check(t, err)
			readUntil(t, tty, "got hello")
			_ = cmd.Wait() // the code is asked for below
			if tc.name == "foreground" {
				if code := cmd.ProcessState.ExitCode(); code != 4 {
					t.Errorf("got exit code %d, want 4", code)
				}
				return
			}
			if code := cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("got exit code %d, want 0", code)
			}
			if got := must(t, "wait", "x"); got != "4" {
				t.Errorf("got %s, want 4", got)
			}
			must(t, "rm", "x")
		})
	}
	t.Run("hung up", func(t *testing.T) {
		cmd := exec.Command(nucleus(t), "run", "-t", "--console-socket", path, "--", "sh", "-c", "echo ready; exec sleep 60")
		check(t, cmd.Start())
		tty := receive(t, l)
		readUntil(t, tty, "ready")
		check(t, tty.Close())
		_ = cmd.Wait() // the code is asked for below
		if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGHUP) {
			t.Errorf("got exit code %d, want 129", code)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		for _, args := range [][]string{{"run", "-t"}, {"run", "-d", "-t"}} {
			out, errOut, code := try(t, append(args, "--console-socket", path+"-not", "--", "sleep", "60")...)
			if code != 125 || out != "" || !strings.Contains(errOut, "--console-socket") {
				t.Errorf("%q: got %d, %q, %q", args, code, out, errOut)
			}
		}
		noSandboxes(t, s)
	})
}

// receive takes a descriptor from who connects.
func receive(t *testing.T, l *net.UnixListener) *os.File {
	t.Helper()
	check(t, l.SetDeadline(time.Now().Add(20*time.Second)))
	c, err := l.AcceptUnix()
	check(t, err)
	defer c.Close()
	text, control := make([]byte, 100), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(text, control)
	check(t, err)
	messages, err := unix.ParseSocketControlMessage(control[:n])
	check(t, err)
	fds, err := unix.ParseUnixRights(&messages[0])
	check(t, err)
	check(t, unix.SetNonblock(fds[0], true))
	return os.NewFile(uintptr(fds[0]), "terminal")
}

func readUntil(t *testing.T, f *os.File, want string) {
	t.Helper()
	check(t, f.SetReadDeadline(time.Now().Add(20*time.Second)))
	got, b := "", make([]byte, 100)
	for !strings.Contains(got, want) {
		n, err := f.Read(b)
		if err != nil {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
		got += string(b[:n])
	}
}

// TestGC makes sure that what ended goes when that is asked for, and what runs stays.
func TestGC(t *testing.T) {
	s := home(t)
	must(t, "run", "-d", "--name", "live", "--", "sleep", "60")
	must(t, "run", "-d", "--name", "over", "--", "true")
	must(t, "wait", "over")
	orphan := filepath.Join(s.Path(), "log", "0123456789abcdef")
	check(t, os.MkdirAll(orphan, 0o700))
	old := time.Now().Add(-time.Hour)
	check(t, os.Chtimes(orphan, old, old))
	if out := must(t, "gc", "--ended=1h"); strings.Contains(out, "over") {
		t.Errorf("got %q", out)
	}
	if _, err := os.Stat(orphan); err == nil {
		t.Error("a log directory of nobody's is still there")
	}
	var got struct{ Removed []string }
	check(t, json.Unmarshal([]byte(must(t, "gc", "--ended", "--json")), &got))
	if !strings.Contains(strings.Join(got.Removed, "\n"), "sandbox over") {
		t.Errorf("got %q", got)
	}
	if names := must(t, "names"); names != "live" {
		t.Errorf("got %q, want live", names)
	}
}

// TestKilledWaiter makes sure that a signal ends a wait, and nothing else.
func TestKilledWaiter(t *testing.T) {
	home(t)
	must(t, "run", "-d", "--name", "web", "--", "sleep", "60")
	cmd := exec.Command(nucleus(t), "wait", "web")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	check(t, cmd.Start())
	time.AfterFunc(200*time.Millisecond, func() { cmd.Process.Signal(syscall.SIGTERM) })
	_ = cmd.Wait() // how it ended is asked for below
	// Before it catches signals, one just ends it.
	if code := cmd.ProcessState.ExitCode(); code != 1 && code != -1 || code == 1 && errOut.String() != "nucleus: interrupted\n" {
		t.Errorf("got %v, %q", cmd.ProcessState, &errOut)
	}
	if _, _, code := try(t, "kill", "web"); code != 0 {
		t.Error("the sandbox has ended with its waiter")
	}
}
