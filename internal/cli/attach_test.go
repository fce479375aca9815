package cli_test

import (
	"bufio"
	"bytes"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

const clearScreen = "\x1b[H\x1b[2J" // how a replay begins

// shellBox starts a sandbox with a shell on a terminal.
func shellBox(t *testing.T, args ...string) {
	t.Helper()
	box(t, append(args, "-t", "-e", "PS1=prompt>", "--", "bash", "--norc", "--noprofile", "--noediting")...)
}

// TestAttach: somebody comes, works, leaves; comes back to the same, and ends it.
func TestAttach(t *testing.T) {
	shellBox(t)
	s := openScreen(t)
	s.verb(t, "attach", "web")
	s.wait(t, clearScreen)
	s.wait(t, "prompt>")
	if s.settings(t).Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Error("the caller's terminal is not in raw mode")
	}
	s.write(t, "MARK=kept; stty size\n")
	s.wait(t, "33 77\r\nprompt>")
	s.resize(t, 40, 100)
	check(t, s.Process.Signal(syscall.SIGWINCH))
	s.write(t, "sleep 0.1; stty size\n")
	s.wait(t, "40 100\r\nprompt>")
	s.write(t, "sh -c 'echo as''leep; exec sleep 1000'\n") // the keys of job control are the sandbox's
	s.wait(t, "asleep\r\n")
	s.write(t, "\x03")
	s.wait(t, "^C")
	s.wait(t, "prompt>")
	s.write(t, "echo typed-\x10")
	s.write(t, "\x11")
	s.wait(t, "nucleus: web runs on; nucleus attach web comes back\r\n")
	s.ends(t, 0)

	must(t, "exec", "web", "true")
	s = openScreen(t)
	s.verb(t, "attach", "web")
	s.wait(t, clearScreen)
	s.wait(t, "40 100\r\n") // what was
	s.wait(t, "prompt>echo typed-")
	s.write(t, "$MARK; exit 5\n")
	s.wait(t, "\r\ntyped-kept\r\n")
	s.ends(t, 5)
	_, errOut, code := try(t, "attach", "web")
	if code != 1 || errOut != "nucleus: web is not running; start it with `nucleus start web`\n" {
		t.Errorf("got %d, %q", code, errOut)
	}
}

// TestAttachTwice: both are there; the keys of one are for itself.
func TestAttachTwice(t *testing.T) {
	shellBox(t)
	a, b := openScreen(t), openScreen(t)
	a.verb(t, "attach", "--detach-keys", "ctrl-x,d", "web")
	a.wait(t, "prompt>")
	b.resize(t, 20, 50)
	b.verb(t, "attach", "web")
	b.wait(t, "prompt>")
	a.write(t, "sleep 0.1; stty size\n")
	a.wait(t, "20 50\r\nprompt>")
	b.wait(t, "20 50\r\nprompt>")
	a.write(t, "stty -ixon; echo now; cat -v\n")
	b.wait(t, "\r\nnow\r\n")      // before, the terminal itself takes such keys
	a.write(t, "\x10\x11\x18x\n") // not its keys, but those of others
	b.wait(t, "^P^Q^Xx\r\n^P^Q^Xx\r\n")
	a.write(t, "\x18d")
	a.wait(t, "web runs on")
	a.ends(t, 0)
	b.write(t, "\x03")
	b.wait(t, "prompt>")
	b.write(t, "exit 3\n")
	b.ends(t, 3)
}

// TestAttachIsRestored: whatever ends it, the terminal is as it was found, also
// where the program has changed what cannot be asked for.
func TestAttachIsRestored(t *testing.T) {
	const full = `printf '\033[?1049h\033[?1000h\033[?25l\033[31mready'; exec sleep 1000`
	for _, tc := range []struct {
		name string
		act  func(t *testing.T, s *screen)
		code int
	}{
		{"keys", func(t *testing.T, s *screen) { s.write(t, "\x10\x11") }, 0},
		{"TERM", func(t *testing.T, s *screen) { check(t, s.Process.Signal(syscall.SIGTERM)) }, 143},
		{"HUP", func(t *testing.T, s *screen) { check(t, s.Process.Signal(syscall.SIGHUP)) }, 129},
		{"the sandbox ends", func(t *testing.T, s *screen) { must(t, "kill", "web") }, 137},
		{"the sandbox is removed", func(t *testing.T, s *screen) { must(t, "rm", "--force", "web") }, 137},
	} {
		t.Run(tc.name, func(t *testing.T) {
			box(t, "-t", "--", "sh", "-c", full)
			s := openScreen(t)
			s.verb(t, "attach", "web")
			s.wait(t, "\x1b[?1049h")
			s.wait(t, "ready")
			tc.act(t, s)
			s.wait(t, "\x1b[?1049l")
			s.wait(t, "\x1b[?25h")
			s.wait(t, "\x1b[?1000l")
			s.wait(t, "\x1b[m")
			s.ends(t, tc.code)
			if state := strings.TrimSpace(must(t, "ps", "-a", "--format", "{{.State}}")); tc.code < 137 && tc.code != 0 && state != "running" {
				t.Errorf("the sandbox is %q", state)
			}
		})
	}
}

// TestAttachStopped: job control of the caller's shell stops nucleus, not the
// sandbox, and what has happened meanwhile is shown when it goes on.
func TestAttachStopped(t *testing.T) {
	shellBox(t)
	s := openScreen(t)
	s.verb(t, "attach", "web")
	s.wait(t, "prompt>")
	s.write(t, "sleep 0.3; echo mean\"while\"\n")
	s.wait(t, "while\"\r\n")
	check(t, s.Process.Signal(syscall.SIGTSTP))
	var status syscall.WaitStatus
	for !status.Stopped() {
		_, err := syscall.Wait4(s.Process.Pid, &status, syscall.WUNTRACED, nil)
		if err != syscall.EINTR {
			check(t, err)
		}
	}
	if s.settings(t).Lflag&unix.ICANON == 0 {
		t.Error("the terminal is raw while nucleus is stopped")
	}
	check(t, s.Process.Signal(syscall.SIGCONT))
	s.wait(t, clearScreen)
	s.wait(t, "\r\nmeanwhile\r\nprompt>")
	s.write(t, "exit 4\n")
	s.ends(t, 4)
}

// TestAttachTooSlow: who does not look does not hold up the program, and sees the
// last screen when it does.
func TestAttachTooSlow(t *testing.T) {
	shellBox(t)
	s := openScreen(t)
	s.verb(t, "attach", "web")
	s.wait(t, "prompt>")
	check(t, s.Process.Signal(syscall.SIGSTOP))
	other := openScreen(t)
	other.verb(t, "attach", "web")
	other.wait(t, "prompt>")
	other.write(t, "seq 1000000; echo the-\"end\"\n") // 7.9 MB
	other.wait(t, "\r\nthe-end\r\nprompt>")
	check(t, s.Process.Signal(syscall.SIGCONT))
	s.wait(t, "\r\nthe-end\r\nprompt>")
	s.write(t, "exit 6\n")
	s.ends(t, 6)
	other.ends(t, 6)
}

// TestAttachWatches: without keys, and without a terminal of its own.
func TestAttachWatches(t *testing.T) {
	box(t, "-t", "--rm", "--", "sh", "-c", "stty -echo; echo ready; read line; echo got $line; exit 7")
	out, errOut, code := try(t, "attach", "web")
	if code != 2 || out != "" || !strings.Contains(errOut, "the input device is not a terminal; --no-stdin only watches") {
		t.Errorf("got %d, %q, %q", code, out, errOut)
	}
	watch := exec.Command(nucleus(t), "attach", "--no-stdin", "web")
	pipe, err := watch.StdoutPipe()
	check(t, err)
	check(t, watch.Start())
	shown, seen := bufio.NewReader(pipe), ""
	for !strings.HasSuffix(seen, "ready") { // it is there before the program ends
		c, err := shown.ReadByte()
		check(t, err)
		seen += string(c)
	}
	s := openScreen(t)
	s.verb(t, "attach", "web")
	s.wait(t, "ready")
	s.write(t, "x\n")
	s.wait(t, "got x\r\n")
	s.ends(t, 7) // although it is removed when it ends
	rest, err := io.ReadAll(shown)
	check(t, err)
	if err := watch.Wait(); watch.ProcessState.ExitCode() != 7 {
		t.Errorf("watching: got %v", err)
	}
	if !strings.HasSuffix(string(rest), "got x\r\n") {
		t.Errorf("watching: got %q", seen+string(rest))
	}
}

// TestAttachShell: a sandbox without a terminal is given a shell.
func TestAttachShell(t *testing.T) {
	box(t, "--", "sleep", "1000")
	s := openScreen(t)
	s.verb(t, "attach", "web")
	s.wait(t, "# ")
	s.write(t, "echo $0; stty size\n")
	s.wait(t, "bash\r\n")
	s.wait(t, "33 77\r\n")
	s.write(t, "exit 8\n")
	s.ends(t, 8)
	must(t, "exec", "web", "true")
}

// TestAttachFollows: what a program without a terminal writes from now on, and
// signals the other way.
func TestAttachFollows(t *testing.T) {
	box(t, "--", "bash", "-c", "echo before; trap 'echo hup; echo err >&2' HUP; trap 'exit 9' TERM; touch /tmp/up; while :; do sleep 0.02; done")
	must(t, "exec", "web", "sh", "-c", "until [ -e /tmp/up ]; do sleep 0.01; done")
	var out, errOut bytes.Buffer
	for _, proxy := range []string{"--sig-proxy=false", "--sig-proxy"} {
		out.Reset()
		errOut.Reset()
		r := exec.Command(nucleus(t), "attach", proxy, "web")
		r.Stdout, r.Stderr = &out, &errOut
		check(t, r.Start())
		watchdog := time.AfterFunc(20*time.Second*sandboxtest.Slow(), func() { r.Process.Kill() })
		defer watchdog.Stop()
		time.Sleep(300 * time.Millisecond) // that it follows shows nowhere
		must(t, "kill", "-s", "HUP", "web")
		time.Sleep(300 * time.Millisecond) // that it has been shown is looked at below
		check(t, r.Process.Signal(syscall.SIGTERM))
		want := map[string]int{"--sig-proxy=false": 143, "--sig-proxy": 9}[proxy]
		if err := r.Wait(); r.ProcessState.ExitCode() != want {
			t.Errorf("%s: got %v, want exit code %d", proxy, err, want)
		}
		if out.String() != "hup\n" || errOut.String() != "err\n" {
			t.Errorf("%s: got %q and %q", proxy, out.String(), errOut.String())
		}
	}
}

func TestDetachKeys(t *testing.T) {
	home(t)
	for _, keys := range []string{"", "ctrl-", "ctrl-1", "ab", "a,,b", "ctrl-pp", " "} {
		_, errOut, code := try(t, "attach", "--detach-keys", keys, "web")
		if code != 2 || !strings.Contains(errOut, "is not a list of keys such as ctrl-p,ctrl-q") {
			t.Errorf("%q: got %d, %q", keys, code, errOut)
		}
	}
	for _, keys := range []string{"a", "ctrl-a,A,ctrl-[", "none", "ctrl-@"} {
		if _, errOut, code := try(t, "attach", "--detach-keys", keys, "web"); code != 1 {
			t.Errorf("%q: got %d, %q", keys, code, errOut)
		}
	}
}
