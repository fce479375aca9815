package cli_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// TestStreams passes a megabyte of every byte there is through the sandbox.
func TestStreams(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for script, want := range map[string]int{"cat": 0, "cat >&2": 1} {
		var out [2]bytes.Buffer
		cmd := exec.Command(nucleus(t), "run", "-i", "--", "sh", "-c", script)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(data), &out[0], &out[1]
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out[want].Bytes(), data) || out[1-want].Len() > 0 {
			t.Errorf("%s: got %d bytes on stdout and %d on stderr, want the %d that went in", script, out[0].Len(), out[1].Len(), len(data))
		}
	}
}

// TestClosedStreams starts nucleus without standard input and output: whatever
// it opens itself must not become the program's.
func TestClosedStreams(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	out, err := exec.Command("sh", "-c", `"$0" run -- bash -c 'readlink /proc/$$/fd/0 /proc/$$/fd/1 >&2; ls /proc/self/fd | wc -l >&2' <&- >&-`, nucleus(t)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if want := "/dev/null\n/dev/null\n4\n"; string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// running is nucleus with a program that has said "ready".
type running struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{Cmd: exec.Command(nucleus(t), append([]string{"run"}, args...)...)}
	r.Stderr = os.Stderr
	out, err := r.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if r.in, err = r.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(20*time.Second*sandboxtest.Slow(), func() { r.Process.Kill() })
	t.Cleanup(func() {
		watchdog.Stop()
		r.Process.Kill() // nothing is left to kill unless the test failed
		r.Wait()
	})
	r.out = bufio.NewReader(out)
	r.want(t, "ready")
	return r
}

func (r *running) want(t *testing.T, line string) {
	t.Helper()
	got, err := r.out.ReadString('\n')
	if err != nil || got != line+"\n" {
		t.Errorf("got %q, %v; want %q", got, err, line)
	}
}

// ends waits for the end and wants an exit code.
func (r *running) ends(t *testing.T, code int) {
	t.Helper()
	err := r.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := r.ProcessState.ExitCode(); got != code {
		t.Errorf("got %v, want exit code %d", r.ProcessState, code)
	}
}

// TestSignals sends nucleus each signal that it passes on. The program says
// which it got.
func TestSignals(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	for _, s := range []struct {
		name string
		sig  syscall.Signal
	}{
		{"TERM", syscall.SIGTERM}, {"INT", syscall.SIGINT}, {"HUP", syscall.SIGHUP}, {"QUIT", syscall.SIGQUIT},
		{"USR1", syscall.SIGUSR1}, {"USR2", syscall.SIGUSR2}, {"WINCH", syscall.SIGWINCH}, {"CONT", syscall.SIGCONT},
	} {
		t.Run(s.name, func(t *testing.T) {
			script := `trap 'echo ` + s.name + `; exit 9' ` + s.name + `; echo ready; while read -r line; do :; done; sleep 9`
			r := start(t, "--", "bash", "-c", script)
			if err := r.Process.Signal(s.sig); err != nil {
				t.Fatal(err)
			}
			// Bash notices when its read ends.
			time.AfterFunc(50*time.Millisecond, func() { r.in.Close() })
			r.want(t, s.name)
			r.ends(t, 9)
		})
	}
}

// TestSignalEnds lets a signal end a program that does not expect it.
func TestSignalEnds(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	r := start(t, "--", "sh", "-c", "echo ready; exec sleep 60")
	if err := r.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.ends(t, 128+int(syscall.SIGTERM))
}

// TestIgnoredStaysIgnored: what runs under nohup must survive a hangup.
func TestIgnoredStaysIgnored(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	cmd := exec.Command("sh", "-c", `trap '' HUP; exec "$0" run -- sh -c 'echo ready; read -r line; echo "$line"'`, nucleus(t))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if got, err := lines.ReadString('\n'); got != "ready\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "alive\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := lines.ReadString('\n'); got != "alive\n" {
		t.Errorf("got %q, %v; want it alive", got, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestStop: a stop signal reaches the program and stops nucleus as well, which
// is what a shell waits for; a continuation wakes both.
func TestStop(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	r := start(t, "--", "bash", "-c", `trap 'echo stopped' TSTP; trap 'echo continued; exit 4' CONT; echo ready; while :; do read -rt 0.05 line; done`)
	if err := r.Process.Signal(syscall.SIGTSTP); err != nil {
		t.Fatal(err)
	}
	r.want(t, "stopped")
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(r.Process.Pid, &status, syscall.WUNTRACED, nil); !errors.Is(err, syscall.EINTR) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if !status.Stopped() {
		t.Fatalf("got %v, want nucleus stopped", status)
	}
	if err := r.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.want(t, "continued")
	r.ends(t, 4)
}

// TestKilled: when nucleus itself is killed, the sandbox ends with it.
func TestKilled(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	r := start(t, "--", "sh", "-c", "echo ready; exec sleep 60")
	if err := r.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The pipe ends when its last writer does.
	if rest, err := io.ReadAll(r.out); err != nil || strings.TrimSpace(string(rest)) != "" {
		t.Errorf("got %q, %v", rest, err)
	}
	_ = r.Wait()
}
