package cli_test

import (
	"bufio"
	"bytes"
	"math/rand/v2"
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
)

// box starts a sandbox with the name "web" in a state directory of its own.
func box(t *testing.T, args ...string) {
	t.Helper()
	home(t)
	must(t, append([]string{"run", "-d", "--name", "web"}, args...)...)
}

// verb starts any nucleus command in a session of its own on this terminal.
func (s *screen) verb(t *testing.T, args ...string) {
	t.Helper()
	s.Cmd = exec.Command(nucleus(t), args...)
	s.Stdin, s.Stdout, s.Stderr = s.slave, s.slave, s.slave
	s.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	check(t, s.Start())
	cmd := s.Cmd
	watchdog := time.AfterFunc(20*time.Second*sandboxtest.Slow(), func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		watchdog.Stop()
		cmd.Process.Kill() // nothing is left to kill unless the test failed
		cmd.Wait()
	})
}

// begin starts any nucleus command whose program says "ready".
func begin(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{Cmd: exec.Command(nucleus(t), args...)}
	r.Stderr = os.Stderr
	out, err := r.StdoutPipe()
	check(t, err)
	r.in, err = r.StdinPipe()
	check(t, err)
	check(t, r.Start())
	watchdog := time.AfterFunc(20*time.Second*sandboxtest.Slow(), func() { r.Process.Kill() })
	t.Cleanup(func() {
		watchdog.Stop()
		r.Process.Kill() // as above
		r.Wait()
	})
	r.out = bufio.NewReader(out)
	r.want(t, "ready")
	return r
}

func TestExecTerminal(t *testing.T) {
	box(t, "--", "sleep", "1000")
	s := openScreen(t)
	s.verb(t, "exec", "-it", "-e", "PS1=prompt>", "web", "--", "bash", "--norc", "--noprofile", "--noediting")
	s.wait(t, "prompt>")
	if s.settings(t).Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Error("the caller's terminal is not in raw mode")
	}
	s.write(t, "stty size; tty\n")
	s.wait(t, "33 77\r\n/dev/pts/0\r\n")
	s.resize(t, 40, 100)
	check(t, s.Process.Signal(syscall.SIGWINCH))
	s.write(t, "sleep 0.1; stty size\n")
	s.wait(t, "40 100\r\nprompt>") // what is typed before the prompt is echoed before it

	s.write(t, "cat\n")
	s.write(t, "it runs\n")
	s.wait(t, "it runs\r\nit runs\r\n") // the echo, and cat
	s.write(t, "\x1a")
	s.wait(t, "Stopped")
	s.wait(t, "prompt>")
	s.write(t, "fg\n")
	s.wait(t, "fg\r\ncat\r\n")
	s.write(t, "again\n")
	s.wait(t, "again\r\nagain\r\n")
	s.write(t, "\x03")
	s.wait(t, "^C") // what is typed before is thrown away
	s.wait(t, "prompt>")
	s.write(t, "exit 5\n")
	s.ends(t, 5)
	must(t, "exec", "web", "true") // the sandbox goes on
}

// TestExecTerminalIsRestored: whatever ends the program, or keeps it from starting.
func TestExecTerminalIsRestored(t *testing.T) {
	box(t, "--", "sleep", "1000")
	for _, tc := range []struct {
		name string
		act  func(t *testing.T, s *screen)
		code int
		args []string
	}{
		{"TERM", signaled(syscall.SIGTERM), 143, []string{"web", "sh", "-c", "echo ready; exec sleep 60"}},
		{"TERM to a program that cleans up", signaled(syscall.SIGTERM), 9, []string{"web", "bash", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"}},
		{"HUP", signaled(syscall.SIGHUP), 129, []string{"web", "sh", "-c", "echo ready; exec sleep 60"}},
		{"not found", nil, 127, []string{"web", "no-such-program"}},
		{"timeout", nil, 124, []string{"--timeout", "100ms", "web", "sleep", "60"}},
		{"bad input", nil, 2, []string{"--workdir", "relative", "web", "true"}},
		{"no such sandbox", nil, 1, []string{"nobody", "true"}},
		{"SIGKILL inside", nil, 137, []string{"web", "sh", "-c", "kill -KILL $$"}},
		{"the sandbox ends", func(t *testing.T, s *screen) { s.wait(t, "ready"); must(t, "kill", "web") }, 137, []string{"web", "sh", "-c", "echo ready; exec sleep 60"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openScreen(t)
			s.verb(t, append([]string{"exec", "-t"}, tc.args...)...)
			if tc.act != nil {
				tc.act(t, s)
			}
			s.ends(t, tc.code)
		})
	}
}

func signaled(sig syscall.Signal) func(*testing.T, *screen) {
	return func(t *testing.T, s *screen) {
		s.wait(t, "ready")
		check(t, s.Process.Signal(sig))
	}
}

// TestExecSignals: those that run passes on, one after the other.
func TestExecSignals(t *testing.T) {
	box(t, "--", "sleep", "1000")
	r := begin(t, "exec", "web", "bash", "-c",
		"for s in HUP INT QUIT USR1 USR2 WINCH; do trap \"echo $s\" $s; done; trap 'exit 9' TERM; echo ready; while :; do read -rt 0.05 line </dev/zero; sleep 0.02; done")
	for _, sig := range []struct {
		syscall.Signal
		name string
	}{{syscall.SIGHUP, "HUP"}, {syscall.SIGINT, "INT"}, {syscall.SIGQUIT, "QUIT"}, {syscall.SIGUSR1, "USR1"}, {syscall.SIGUSR2, "USR2"}, {syscall.SIGWINCH, "WINCH"}} {
		check(t, r.Process.Signal(sig.Signal))
		r.want(t, sig.name)
	}
	check(t, r.Process.Signal(syscall.SIGTERM))
	r.ends(t, 9)
}

// TestExecKilled: when nucleus exec is killed, the program ends with it, and the
// sandbox does not.
func TestExecKilled(t *testing.T) {
	box(t, "--", "sleep", "1000")
	r := begin(t, "exec", "web", "sh", "-c", "echo ready; exec sleep 61")
	check(t, r.Process.Kill())
	if rest, err := r.out.ReadString(0); rest != "" { // the pipe ends when its last writer does
		t.Errorf("got %q, %v", rest, err)
	}
	must(t, "exec", "web", "sh", "-c", "for i in $(seq 500); do grep -q '^sleep.61' /proc/[0-9]*/cmdline 2>/dev/null || exit 0; sleep 0.02; done; exit 1")
}

// TestExecStreams passes a megabyte of every byte there is through the sandbox.
func TestExecStreams(t *testing.T) {
	box(t, "--", "sleep", "1000")
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for script, want := range map[string]int{"cat": 0, "cat >&2": 1} {
		var out [2]bytes.Buffer
		cmd := exec.Command(nucleus(t), "exec", "-i", "web", "sh", "-c", script)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(data), &out[0], &out[1]
		check(t, cmd.Run())
		if !bytes.Equal(out[want].Bytes(), data) || out[1-want].Len() > 0 {
			t.Errorf("%s: got %d bytes on stdout and %d on stderr, want the %d that went in", script, out[0].Len(), out[1].Len(), len(data))
		}
	}
}

// TestExecDetachedOutlivesUs: and does not hold our pipes open.
func TestExecDetachedOutlivesUs(t *testing.T) {
	box(t, "--", "sleep", "1000")
	out, err := exec.Command(nucleus(t), "exec", "-d", "web", "sh", "-c", "echo out; echo err >&2; echo $$ >/tmp/pid; exec sleep 62").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("got %q, %v", out, err)
	}
	if got := must(t, "exec", "web", "sh", "-c", "until [ -s /tmp/pid ]; do sleep 0.01; done; tr '\\0' ' ' </proc/$(cat /tmp/pid)/cmdline"); got != "sleep 62" {
		t.Errorf("got %q", got)
	}
}

// TestExecConsoleSocket: the terminal goes to the program that listens.
func TestExecConsoleSocket(t *testing.T) {
	box(t, "--", "sleep", "1000")
	path := filepath.Join(t.TempDir(), "console")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	check(t, err)
	defer l.Close()
	cmd := exec.Command(nucleus(t), "exec", "-t", "--console-socket", path, "web", "sh", "-c", "stty -echo; echo ready; read x; echo got $x; exec sleep 60")
	check(t, cmd.Start())
	tty := receive(t, l)
	readUntil(t, tty, "ready")
	_, err = tty.WriteString("hello\n")
	check(t, err)
	readUntil(t, tty, "got hello")
	check(t, tty.Close()) // nobody else has it: the program is hung up on
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 129 {
		t.Errorf("got %v, want exit code 129", err)
	}
	out, errOut, code := try(t, "exec", "-t", "--console-socket", path+"-not", "web", "sleep", "60")
	if code != 125 || out != "" || !strings.Contains(errOut, "--console-socket: connect to ") {
		t.Errorf("nobody listens: got %d, %q, %q", code, out, errOut)
	}
}
