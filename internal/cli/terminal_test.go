package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// screen is a terminal with nucleus on it.
type screen struct {
	*exec.Cmd
	master, slave *os.File
	found         unix.Termios

	mu   sync.Mutex
	text bytes.Buffer
}

// openScreen makes a terminal of 33 rows and 77 columns.
func openScreen(t *testing.T) *screen {
	t.Helper()
	if os.Getenv("NUCLEUS_STATE_DIR") == "" { // on a terminal, what was refused is kept
		t.Setenv("NUCLEUS_STATE_DIR", t.TempDir())
	}
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	check(t, err)
	check(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	check(t, err)
	check(t, unix.SetNonblock(fd, true))
	s := &screen{master: os.NewFile(uintptr(fd), "terminal")}
	s.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	check(t, err)
	s.resize(t, 33, 77)
	s.found = s.settings(t)
	go s.collect()
	t.Cleanup(func() { s.master.Close(); s.slave.Close() })
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *screen) resize(t *testing.T, rows, cols uint16) {
	t.Helper()
	check(t, unix.IoctlSetWinsize(int(s.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}))
}

func (s *screen) settings(t *testing.T) unix.Termios {
	t.Helper()
	settings, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	check(t, err)
	return *settings
}

func (s *screen) collect() {
	b := make([]byte, 4096)
	for {
		n, err := s.master.Read(b)
		s.mu.Lock()
		s.text.Write(b[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// run starts nucleus in a session of its own on this terminal.
func (s *screen) run(t *testing.T, args ...string) {
	t.Helper()
	s.Cmd = exec.Command(nucleus(t), append([]string{"run"}, args...)...)
	s.Stdin, s.Stdout, s.Stderr = s.slave, s.slave, s.slave
	s.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	check(t, s.Start())
	watchdog := time.AfterFunc(20*time.Second*sandboxtest.Slow(), func() { s.Process.Kill() })
	t.Cleanup(func() {
		watchdog.Stop()
		s.Process.Kill() // nothing is left to kill unless the test failed
		s.Wait()
	})
}

func (s *screen) write(t *testing.T, text string) {
	t.Helper()
	_, err := s.master.WriteString(text)
	check(t, err)
}

// wait waits until a text is on the screen, and clears it.
func (s *screen) wait(t *testing.T, text string) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second * sandboxtest.Slow())
	for {
		s.mu.Lock()
		_, after, found := strings.Cut(s.text.String(), text)
		if found {
			s.text.Reset()
			s.text.WriteString(after)
		}
		shown := s.text.String()
		s.mu.Unlock()
		if found {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the screen shows %q, want %q", shown, text)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ends wants an exit code, and the terminal as it was found.
func (s *screen) ends(t *testing.T, code int) {
	t.Helper()
	if err := s.Wait(); s.ProcessState == nil {
		t.Fatal(err)
	}
	if got := s.ProcessState.ExitCode(); got != code {
		t.Errorf("got %v, want exit code %d", s.ProcessState, code)
	}
	if now := s.settings(t); !reflect.DeepEqual(now, s.found) {
		t.Errorf("the terminal was left as %+v, found as %+v", now, s.found)
	}
}

func TestTerminal(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	s := openScreen(t)
	s.run(t, "-t", "-e", "PS1=prompt>", "--", "bash", "--norc", "--noprofile", "--noediting")
	s.wait(t, "prompt>")
	if s.settings(t).Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Error("the caller's terminal is not in raw mode")
	}
	s.write(t, "stty size; tty\n")
	s.wait(t, "33 77\r\n/dev/pts/0\r\n")
	s.resize(t, 40, 100)
	check(t, s.Process.Signal(syscall.SIGWINCH))
	s.write(t, "until [ \"$(stty size)\" = '40 100' ]; do sleep 0.1; done; echo new-$((1+1))-size\n")
	s.wait(t, "new-2-size\r\nprompt>") // what is typed before the prompt is echoed before it

	// The keys of job control are the sandbox's: they reach its foreground job.
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
}

// TestTerminalIsRestored: whatever ends the program, or keeps it from starting.
func TestTerminalIsRestored(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	for _, tc := range []struct {
		name string
		sig  syscall.Signal
		code int
		args []string
	}{
		{"TERM to a program that ends", syscall.SIGTERM, 143, []string{"sh", "-c", "echo ready; exec sleep 60"}},
		{"TERM to a program that cleans up", syscall.SIGTERM, 9, []string{"bash", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"}},
		{"HUP", syscall.SIGHUP, 129, []string{"sh", "-c", "echo ready; exec sleep 60"}},
		{"not found", 0, 127, []string{"no-such-program"}},
		{"timeout", 0, 124, []string{"--timeout", "100ms", "sleep", "60"}},
		{"bad input", 0, 2, []string{"--workspace", "/no/such/dir", "true"}},
		{"SIGKILL inside", 0, 137, []string{"sh", "-c", "kill -KILL $$"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openScreen(t)
			s.run(t, append([]string{"-t"}, tc.args...)...)
			if tc.sig != 0 {
				s.wait(t, "ready")
				check(t, s.Process.Signal(tc.sig))
			}
			s.ends(t, tc.code)
		})
	}
}

// TestTerminalOutputIsComplete: what was written last is shown before the end.
func TestTerminalOutputIsComplete(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	s := openScreen(t)
	s.run(t, "-t", "--", "sh", "-c", "seq 2000; echo the-last-line")
	s.wait(t, "the-last-line\r\n")
	s.ends(t, 0)
}
