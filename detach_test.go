package nucleus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// lasting is a detached sandbox of a test.
type lasting struct {
	*nucleus.Cmd
	id   nucleus.Identity
	exit string
}

// detach starts a program that outlives its Cmd.
func detach(t *testing.T, s *spec.Sandbox, out *os.File, name string, arg ...string) *lasting {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Userns)
	l := &lasting{exit: filepath.Join(t.TempDir(), "exit")}
	f, err := os.OpenFile(l.exit, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l.Cmd = nucleus.Command(s, name, arg...)
	l.Detach = &nucleus.Detach{Exit: f}
	l.Born = func(id nucleus.Identity) error {
		b, err := json.Marshal(id)
		if err == nil {
			err = json.Unmarshal(b, &l.id) // what a file would keep
		}
		return err
	}
	if out != nil {
		l.Stdout, l.Stderr = out, out
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if l.id.Pid() != 0 {
			l.Process.Kill() // it has ended unless the test failed
			l.Process.Wait(context.Background())
			l.collect(t)
			l.Process.Close()
		}
	})
	return l
}

func (l *lasting) wait(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second*sandboxtest.Slow())
	defer cancel()
	if err := l.Process.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

func (l *lasting) collect(t *testing.T) *nucleus.Outcome {
	t.Helper()
	f, err := os.Open(l.exit)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o, err := l.id.Collect(f)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestDetachedSandboxSaysHowItEnded(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		timeout      time.Duration
		signal       syscall.Signal
		reason       nucleus.Reason
		code         int
	}{
		{"exit 0", "exit 0", 0, 0, nucleus.Exited, 0},
		{"exit 7", "exit 7", 0, 0, nucleus.Exited, 7},
		{"a signal from inside", "kill -USR1 $$", 0, 0, nucleus.Signaled, 128 + int(syscall.SIGUSR1)},
		{"a signal from outside", "exec sleep 60", 0, syscall.SIGTERM, nucleus.Signaled, 143},
		{"killed", "exec sleep 60", 0, syscall.SIGKILL, nucleus.Signaled, 137},
		{"a deadline", "exec sleep 60", 100 * time.Millisecond, 0, nucleus.DeadlineExceeded, 137},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := detach(t, &spec.Sandbox{Toolchain: true, Timeout: tc.timeout}, nil, "sh", "-c", tc.script)
			if tc.signal != 0 {
				if err := l.Process.Signal(tc.signal); err != nil {
					t.Fatal(err)
				}
			}
			l.wait(t)
			o := l.collect(t)
			if o.Reason != tc.reason && o.Reason != nucleus.Signaled || o.ExitCode() != tc.code && tc.reason != nucleus.DeadlineExceeded {
				t.Errorf("got %s, code %d (%v), want %s, %d", o.Reason, o.ExitCode(), o, tc.reason, tc.code)
			}
			if tc.reason == nucleus.DeadlineExceeded && (o.Reason != tc.reason || !strings.Contains(o.Detail, "100ms")) {
				t.Errorf("got %s %q, want a deadline", o.Reason, o.Detail)
			}
			if _, err := nucleus.Open(l.id); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("an ended sandbox opens: %v", err)
			}
		})
	}
}

// TestDeadlineInAFlood: the signal of the deadline is merged into one that the
// program has sent to process 1, which has not taken that yet.
func TestDeadlineInAFlood(t *testing.T) {
	const limit = time.Second
	l := detach(t, &spec.Sandbox{Toolchain: true, Timeout: limit}, nil, "sh", "-c", "trap '' ALRM; while :; do kill -ALRM 1; sleep 0.01; done")
	if err := syscall.Kill(l.id.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(limit * 3 / 2)
	if err := syscall.Kill(l.id.Pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	l.wait(t)
	if o := l.collect(t); o.Reason != nucleus.DeadlineExceeded {
		t.Errorf("got %s (%v), want a deadline", o.Reason, o)
	}
}

// TestUnbornNeverRuns: what nobody could find again does not run.
func TestUnbornNeverRuns(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c := nucleus.Command(&spec.Sandbox{Toolchain: true}, "echo", "I ran")
	c.Stdout = out
	refusal := errors.New("the disk is full")
	c.Detach = &nucleus.Detach{Exit: out}
	c.Born = func(nucleus.Identity) error { return refusal }
	if err := c.Start(); !errors.Is(err, refusal) {
		t.Errorf("got %v, want %v", err, refusal)
	}
	if b, _ := os.ReadFile(out.Name()); len(b) > 0 {
		t.Errorf("it ran: %q", b)
	}
}

// open finds a sandbox by its identity alone.
func open(t *testing.T, l *lasting) *nucleus.Process {
	t.Helper()
	p, err := nucleus.Open(l.id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestJoin(t *testing.T) {
	l := detach(t, &spec.Sandbox{Toolchain: true, Env: []string{"A=1", "B=2"}}, nil, "sh", "-c", "echo secret > /tmp/x; exec sleep 60")
	p := open(t, l)
	c := p.Command("sh", "-c", "echo $A $B $C; cat /tmp/x; exit 4")
	c.Env = []string{"B=3", "C=4"}
	out, err := c.Output()
	var exit *nucleus.ExitError
	if !errors.As(err, &exit) || exit.Code != 4 || string(out) != "1 3 4\nsecret\n" {
		t.Errorf("got %q, %v; want the sandbox's environment and file, exit 4", out, err)
	}
	c = p.Command("cat")
	c.Stdin = strings.NewReader("in and out")
	if out, err := c.Output(); err != nil || string(out) != "in and out" {
		t.Errorf("got %q, %v", out, err)
	}
	nobody := p.Command("true")
	nobody.As = &spec.User{UID: 1<<32 - 1, GID: 1<<32 - 1} // no change, for setresuid(2)
	if err := nobody.Run(); !errors.Is(err, nucleus.ErrInvalid) {
		t.Errorf("as nobody: got %v, want invalid", err)
	}
	if err := p.Command("no-such-program").Run(); !nucleus.NotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
	if all, err := p.Processes(); err != nil || len(all) != 2 { // nobody in the sandbox could take it away
		t.Errorf("what was not found has left something: %+v, %v", all, err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	l.wait(t)
	if err := p.Command("true").Run(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("joining an ended sandbox: %v, want %v", err, os.ErrProcessDone)
	}
}

// TestJoinedHasThePolicy compares everything that the kernel says of a program
// that joined with what it says of the sandbox's own.
func TestJoinedHasThePolicy(t *testing.T) {
	const look = `pwd; cd /proc/self; grep -E '^(Uid|Gid|Cap|NoNewPrivs|Seccomp)' status; cat limits uid_map gid_map;
for n in user pid mnt net uts ipc cgroup time; do readlink ns/$n; done; readlink root; tr '\0' '\n' < environ | grep -v '^OLDPWD'; cat /proc/self/cgroup; umask`
	for _, tc := range []struct {
		name string
		box  spec.Sandbox
	}{
		{"default", spec.Sandbox{Toolchain: true}},
		{"time namespace", spec.Sandbox{Toolchain: true, TimeNamespace: true}},
		{"working directory", spec.Sandbox{Toolchain: true, Workdir: "/tmp", Env: []string{"K=V"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file, err := os.Create(filepath.Join(t.TempDir(), "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			l := detach(t, &tc.box, file, "sh", "-c", look+"\necho done; exec sleep 60")
			var own string
			for deadline := time.Now().Add(10 * time.Second * sandboxtest.Slow()); ; {
				b, err := os.ReadFile(file.Name())
				if err != nil {
					t.Fatal(err)
				}
				if text, ok := strings.CutSuffix(string(b), "done\n"); ok {
					own = text
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the sandbox said %q", b)
				}
				time.Sleep(5 * time.Millisecond)
			}
			out, err := open(t, l).Command("sh", "-c", look).Output()
			if err != nil {
				t.Fatal(err)
			}
			if string(out) != own {
				t.Errorf("a program that joined is told\n%s\nthe sandbox's own\n%s", out, own)
			}
		})
	}
}

// TestJoinedEndsWithItsStarter: who waits for it decides its life.
func TestJoinedEnds(t *testing.T) {
	l := detach(t, &spec.Sandbox{Toolchain: true}, nil, "sleep", "60")
	p := open(t, l)
	ctx, cancel := context.WithCancel(context.Background())
	c := p.Command("sh", "-c", "echo up; sleep 60")
	var out bytes.Buffer
	r, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go io.Copy(&out, r)
	time.AfterFunc(50*time.Millisecond, func() { c.Process.Kill(); cancel() })
	err = c.Wait()
	<-ctx.Done()
	var exit *nucleus.ExitError
	if !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL {
		t.Errorf("got %v, want killed", err)
	}
	got, err := p.Command("sh", "-c", "cat /proc/[0-9]*/comm").Output()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count("\n"+string(got), "\nsleep\n"); n != 1 {
		t.Errorf("%d sleeping processes are in the sandbox, want its own: %q", n, got)
	}
}

// TestHalfMadeIsNotJoined: until its first process executes its own page, that
// process has the host's root. Nothing may be led there.
func TestHalfMadeIsNotJoined(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	exit, err := os.OpenFile(filepath.Join(t.TempDir(), "exit"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer exit.Close()
	c := nucleus.Command(&spec.Sandbox{Toolchain: true}, "sleep", "60")
	c.Detach = &nucleus.Detach{Exit: exit}
	asked := 0
	var known nucleus.Identity
	c.Born = func(id nucleus.Identity) error {
		known = id
		// What is tested here is a danger: the host's files are there.
		ours, err1 := os.Stat("/etc")
		its, err2 := os.Stat(fmt.Sprintf("/proc/%d/root/etc", id.Pid()))
		if err1 != nil || err2 != nil || !os.SameFile(ours, its) {
			t.Errorf("the first process does not have the host's root (%v, %v): this test tests nothing", err1, err2)
		}
		p, err := nucleus.Open(id)
		if err != nil {
			return err
		}
		defer p.Close()
		want := func(what string, err error) {
			asked++
			if !errors.Is(err, nucleus.ErrStarting) {
				t.Errorf("%s: got %v, want %v", what, err, nucleus.ErrStarting)
			}
		}
		want("join", p.Command("cat", "/etc/hostname").Run())
		detached := p.Command("touch", "/tmp/escaped")
		detached.Detach = &nucleus.Detach{}
		want("join, detached", detached.Start())
		dir, err := p.Root()
		if err == nil {
			dir.Close()
		}
		want("root", err)
		_, err = p.Processes()
		want("processes", err)
		conn, err := p.DialTCP(t.Context(), netip.MustParseAddrPort("127.0.0.1:1"))
		if err == nil {
			conn.Close()
		}
		want("dial", err)
		if err := p.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("it cannot be signalled: %v", err)
		}
		return nil
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		c.Process.Kill()
		c.Process.Wait(context.Background())
		c.Process.Close()
		if _, err := known.Collect(nil); err != nil {
			t.Error(err)
		}
	}()
	if asked != 5 {
		t.Errorf("%d questions were asked, want 5", asked)
	}
	if _, err := c.Process.Processes(); err != nil {
		t.Errorf("once it is made: %v", err)
	}
}
