package nucleus_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// act is a command that makes the probe program do something.
func act(s *spec.Sandbox, words string) *nucleus.Cmd {
	return nucleus.Command(withProbe(s), probePath, words)
}

// exitOf returns the outcome of a program that failed.
func exitOf(t *testing.T, err error) *nucleus.ExitError {
	t.Helper()
	var exit *nucleus.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("got %v, want an ExitError", err)
	}
	return exit
}

// TestLookup: a command is looked for in the sandbox's PATH, and what is wrong
// with it is said.
func TestLookup(t *testing.T) {
	needSandbox(t)
	dir := t.TempDir()
	write(t, dir+"/a/text", "no program")
	write(t, dir+"/a/both", "not executable")
	write(t, dir+"/a/noformat", "no program")
	write(t, dir+"/a/script", "#!"+probePath+" say\n")
	write(t, dir+"/a/orphan", "#!/no/interpreter\n")
	write(t, dir+"/b/both", string(tinyPrograms["exit7"]))
	write(t, dir+"/b/tool", string(tinyPrograms["exit7"]))
	write(t, dir+"/b/dir/x", "")
	for _, f := range []string{"a/noformat", "a/script", "a/orphan", "b/both", "b/tool"} {
		if err := os.Chmod(dir+"/"+f, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	found := func(err error) bool { return !nucleus.NotFound(err) && !nucleus.NotExecutable(err) }
	for _, tc := range []struct {
		name, command, path string
		exec                bool
		is                  func(error) bool
	}{
		{"in PATH", "tool", "/a:/b", true, found},
		{"second", "both", "/a:/b", true, found},
		{"by path", "/b/tool", "", true, found},
		{"relative", "./tool", "", true, found},
		{"relative with a slash", "dir/../tool", "", true, found},
		{"in the working directory by an empty entry", "tool", ":/a", true, found},
		{"script", "script", "/a", true, found},
		{"missing", "none", "/a:/b:/nowhere:/b/tool", true, nucleus.NotFound},
		{"missing path", "/none", "", true, nucleus.NotFound},
		{"below a file", "/b/tool/x", "", true, nucleus.NotFound},
		{"no interpreter", "orphan", "/a", true, nucleus.NotFound},
		{"no mode", "text", "/a:/b", true, nucleus.NotExecutable},
		{"no program", "noformat", "/a", true, nucleus.NotExecutable},
		{"directory", "/b/dir", "", true, nucleus.NotExecutable},
		{"noexec", "tool", "/a:/b", false, nucleus.NotExecutable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := withProbe(&spec.Sandbox{Workdir: "/b", Volumes: []spec.Volume{{Source: dir + "/a", Target: "/a", Exec: tc.exec}, {Source: dir + "/b", Target: "/b", Exec: tc.exec}}})
			if tc.path != "" {
				s.Env = []string{"PATH=" + tc.path}
			}
			err := nucleus.Command(s, tc.command).Run()
			if !tc.is(err) {
				t.Errorf("got %v", err)
			}
			if wrong := nucleus.NotFound(err) && nucleus.NotExecutable(err); wrong {
				t.Error("both not found and not executable")
			}
			var exit *nucleus.ExitError
			if tc.name == "in PATH" && (!errors.As(err, &exit) || exit.Code != 7) {
				t.Errorf("got %v, want exit status 7", err)
			}
		})
	}
	if err := errors.Join(fs.ErrNotExist); nucleus.NotFound(err) || nucleus.NotExecutable(err) || nucleus.NotFound(nil) || nucleus.NotExecutable(nil) {
		t.Error("an error about something else is taken for one about the program")
	}
}

func TestOutcomes(t *testing.T) {
	needSandbox(t)
	for _, tc := range []struct {
		act    string
		reason nucleus.Reason
		code   int
		text   string
	}{
		{"exit 0", nucleus.Exited, 0, "exit status 0"},
		{"exit 1", nucleus.Exited, 1, "exit status 1"},
		{"exit 125", nucleus.Exited, 125, "exit status 125"},
		{"exit 255", nucleus.Exited, 255, "exit status 255"},
		{"exit 256", nucleus.Exited, 0, "exit status 0"},
		{"die 15", nucleus.Signaled, 143, "signal: terminated"},
		{"die 9", nucleus.Signaled, 137, "signal: killed"},
		{"die 1", nucleus.Signaled, 129, "signal: hangup"},
	} {
		t.Run(tc.act, func(t *testing.T) {
			c := act(&spec.Sandbox{}, tc.act)
			err := c.Run()
			if c.Outcome == nil {
				t.Fatalf("no outcome: %v", err)
			}
			o := c.Outcome
			if o.Reason != tc.reason || o.ExitCode() != tc.code || o.String() != tc.text || o.Success() != (tc.code == 0) || o.Success() != (err == nil) {
				t.Errorf("got %v, %d, %q, %v; want %v, %d, %q", o.Reason, o.ExitCode(), o, err, tc.reason, tc.code, tc.text)
			}
			if err != nil && exitOf(t, err).Error() != tc.text {
				t.Errorf("error: got %q, want %q", err, tc.text)
			}
			if !o.Ended.After(o.Started) || o.MaxRSS < 1<<20 || o.User+o.System <= 0 {
				t.Errorf("usage: got %+v", o)
			}
		})
	}
}

// TestSignals: everything that is sent to the sandbox reaches the workload.
func TestSignals(t *testing.T) {
	needSandbox(t)
	c := act(&spec.Sandbox{Timeout: patience()}, "signals")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func() string { lines.Scan(); return lines.Text() }
	if got := next(); got != "ready" {
		t.Fatalf("got %q, want ready", got)
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGHUP} {
		if err := c.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		want := map[syscall.Signal]string{syscall.SIGTERM: "SIGTERM", syscall.SIGINT: "SIGINT", syscall.SIGQUIT: "SIGQUIT", syscall.SIGUSR1: "SIGUSR1", syscall.SIGUSR2: "SIGUSR2",
			syscall.SIGWINCH: "SIGWINCH", syscall.SIGCONT: "SIGCONT", syscall.SIGTSTP: "SIGTSTP", syscall.SIGHUP: "SIGHUP"}[s]
		if got := next(); got != want {
			t.Errorf("sent %v: got %q", s, got)
		}
	}
	if got := exitOf(t, c.Wait()).Code; got != 9 {
		t.Errorf("got %d, want 9", got)
	}
	if err := c.Process.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("after the end: got %v, want ErrProcessDone", err)
	}
	if err := c.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("after the end: got %v, want ErrProcessDone", err)
	}
}

// started runs an act until it has said a word.
func started(t *testing.T, c *nucleus.Cmd, word string) *bufio.Reader {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the workload ended before it said %q: %v", word, err)
		}
		if strings.TrimSpace(l) == word {
			return r
		}
	}
}

// drained waits until nobody has the other end of the pipe any more: every
// process that inherited it is gone.
func drained(t *testing.T, r io.Reader) {
	t.Helper()
	done := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, r); done <- err }()
	select {
	case <-done:
	case <-time.After(patience()):
		t.Error("a process of the sandbox is still there")
	}
}

// TestCancel: a context that is done ends every process, those that left their
// session and their parents too.
func TestCancel(t *testing.T) {
	needSandbox(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := nucleus.CommandContext(ctx, withProbe(&spec.Sandbox{Timeout: patience()}), probePath, "daemon stay")
	r := started(t, c, "gone")
	cancel()
	err := c.Wait()
	if !errors.Is(err, context.Canceled) || exitOf(t, err).Signal != syscall.SIGKILL {
		t.Errorf("got %v, want cancelled and killed", err)
	}
	drained(t, r)

	c = nucleus.CommandContext(ctx, withProbe(&spec.Sandbox{}), probePath, "exit 0")
	if err := c.Run(); !errors.Is(err, context.Canceled) || c.Process != nil {
		t.Errorf("a context that is done: got %v, want cancelled before the start", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	c = nucleus.CommandContext(ctx, withProbe(&spec.Sandbox{Timeout: patience()}), probePath, "signals")
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGHUP) }
	r = started(t, c, "ready")
	cancel()
	if err := c.Wait(); exitOf(t, err).Code != 9 {
		t.Errorf("a Cancel of one's own: got %v, want exit status 9", err)
	}
	drained(t, r)
}

// TestDaemonsEnd: when the workload exits, what it left behind ends with it.
func TestDaemonsEnd(t *testing.T) {
	needSandbox(t)
	c := act(&spec.Sandbox{Timeout: patience()}, "daemon")
	r := started(t, c, "gone")
	drained(t, r)
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

// TestSupervisorDies: a sandbox does not outlive the program that started it,
// here a copy of this one that is killed.
func TestSupervisorDies(t *testing.T) {
	needSandbox(t)
	const env = "NUCLEUS_TEST_SUPERVISOR"
	lifeless := without(plan.Lifeline{})
	if which := os.Getenv(env); which != "" {
		a := &attempt{TB: t}
		if which == lifeless.name {
			a.edit = lifeless.edit
		}
		c := a.probe(&spec.Sandbox{}, "hang")
		c.Stdout = os.Stdout
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Println("init", c.Process.Pid())
		time.Sleep(time.Hour)
	}
	for _, which := range []string{"intact", lifeless.name} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestSupervisorDies$")
		cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env+"="+which), w, os.Stderr
		if err := errors.Join(cmd.Start(), w.Close()); err != nil {
			t.Fatal(err)
		}
		init, in := 0, bufio.NewReader(r)
		for said := false; !said || init == 0; {
			l, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			said = said || l == "hanging\n"
			_, _ = fmt.Sscanf(l, "init %d", &init)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		ended := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, in); close(ended) }()
		wait := patience()
		if which != "intact" {
			wait = time.Second * sandboxtest.Slow()
		}
		select {
		case <-ended:
			if which != "intact" {
				t.Error("it ends without the step too")
			}
		case <-time.After(wait):
			if which == "intact" {
				t.Error("the sandbox goes on without its supervisor")
			}
			_ = syscall.Kill(init, syscall.SIGKILL)
			<-ended
		}
		_ = r.Close()
	}
}

func TestTimeout(t *testing.T) {
	needSandbox(t)
	limit := 300 * time.Millisecond * sandboxtest.Slow()
	c := act(&spec.Sandbox{Timeout: limit}, "daemon stay")
	r := started(t, c, "gone")
	err := c.Wait()
	o := exitOf(t, err)
	if want := fmt.Sprintf("killed: it ran longer than its timeout of %v", limit); o.Reason != nucleus.DeadlineExceeded || o.ExitCode() != 137 || err.Error() != want {
		t.Errorf("got %v, %d, %q; want %q", o.Reason, o.ExitCode(), err, want)
	}
	if d := o.Ended.Sub(o.Started); d < limit {
		t.Errorf("it ended after %v, before its time", d)
	}
	drained(t, r)
}

// TestStreams: output, together and apart, and the ends of pipes.
func TestStreams(t *testing.T) {
	needSandbox(t)
	if out, err := act(&spec.Sandbox{}, "both").Output(); string(out) != "out" || err != nil {
		t.Errorf("Output: got %q, %v", out, err)
	}
	if out, err := act(&spec.Sandbox{}, "both").CombinedOutput(); string(out) != "outerr" || err != nil {
		t.Errorf("CombinedOutput: got %q, %v", out, err)
	}
	var one, two bytes.Buffer
	c := act(&spec.Sandbox{}, "both")
	c.Stdout, c.Stderr = &one, &two
	if err := c.Run(); one.String() != "out" || two.String() != "err" || err != nil {
		t.Errorf("two writers: got %q, %q, %v", &one, &two, err)
	}
	if err := act(&spec.Sandbox{}, "both").Run(); err != nil {
		t.Errorf("no writers: %v", err)
	}
	c = act(&spec.Sandbox{}, "both")
	outPipe, err1 := c.StdoutPipe()
	errPipe, err2 := c.StderrPipe()
	if err := errors.Join(err1, err2, c.Start()); err != nil {
		t.Fatal(err)
	}
	out, err1 := io.ReadAll(outPipe)
	errOut, err2 := io.ReadAll(errPipe)
	if err := errors.Join(err1, err2, c.Wait(), outPipe.Close(), errPipe.Close()); string(out) != "out" || string(errOut) != "err" || err != nil {
		t.Errorf("pipes: got %q, %q, %v", out, errOut, err)
	}
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c = act(&spec.Sandbox{}, "both")
	c.Stdout, c.Stderr = file, file
	if err := c.Run(); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(file.Name()); string(got) != "outerr" || err != nil {
		t.Errorf("a file: got %q, %v", got, err)
	}
	for _, set := range []func(*nucleus.Cmd){
		func(c *nucleus.Cmd) { c.Stdout = io.Discard; _, err = c.Output() },
		func(c *nucleus.Cmd) { c.Stderr = io.Discard; _, err = c.CombinedOutput() },
		func(c *nucleus.Cmd) { c.Stdout = io.Discard; _, err = c.StdoutPipe() },
		func(c *nucleus.Cmd) { c.Stderr = io.Discard; _, err = c.StderrPipe() },
		func(c *nucleus.Cmd) { c.Stdin = strings.NewReader(""); _, err = c.StdinPipe() },
	} {
		if set(act(&spec.Sandbox{}, "both")); err == nil {
			t.Error("a stream that is set twice: got no error")
		}
	}
}

// TestLargeStreams copies 64 MiB through a sandbox, by readers and by pipes.
func TestLargeStreams(t *testing.T) {
	needSandbox(t)
	size := int64(64<<20) / int64(min(sandboxtest.Slow(), 8))
	block := bytes.Repeat([]byte("0123456789abcdef\n"), 1000)
	source := func() io.Reader {
		return io.LimitReader(readerFunc(func(p []byte) (int, error) { return copy(p, block), nil }), size)
	}
	sum := func(r io.Reader) string {
		h := sha256.New()
		n, err := io.Copy(h, r)
		return fmt.Sprintf("%d %x %v", n, h.Sum(nil), err)
	}
	var sent bytes.Buffer
	c := act(&spec.Sandbox{Timeout: patience()}, "cat")
	c.Stdin = io.TeeReader(source(), &sent)
	var got bytes.Buffer
	c.Stdout = &got
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if g, w := sum(&got), sum(&sent); g != w {
		t.Errorf("by readers: got %s, want %s", g, w)
	}
	c = act(&spec.Sandbox{Timeout: patience()}, "cat")
	in, err1 := c.StdinPipe()
	out, err2 := c.StdoutPipe()
	if err := errors.Join(err1, err2, c.Start()); err != nil {
		t.Fatal(err)
	}
	var fed bytes.Buffer
	written := make(chan error, 1)
	go func() {
		_, err := io.Copy(in, io.TeeReader(source(), &fed))
		written <- errors.Join(err, in.Close(), in.Close())
	}()
	g := sum(out)
	if err := errors.Join(<-written, c.Wait(), out.Close()); err != nil {
		t.Error(err)
	}
	if w := sum(&fed); g != w {
		t.Errorf("by pipes: got %s, want %s", g, w)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestInputNotRead: a workload need not read its input; one whose input never
// ends holds Wait up no longer than WaitDelay.
func TestInputNotRead(t *testing.T) {
	needSandbox(t)
	c := act(&spec.Sandbox{}, "exit 0")
	c.Stdin = readerFunc(func(p []byte) (int, error) { return len(p), nil })
	if err := c.Run(); err != nil {
		t.Errorf("endless input: got %v", err)
	}
	r, w := io.Pipe()
	defer w.Close()
	c = act(&spec.Sandbox{}, "exit 0")
	c.Stdin, c.WaitDelay = r, 50*time.Millisecond
	if err := c.Run(); !errors.Is(err, nucleus.ErrWaitDelay) {
		t.Errorf("silent input: got %v, want ErrWaitDelay", err)
	}
	blocked := make(chan struct{})
	c = act(&spec.Sandbox{}, "say word")
	c.Stdout, c.WaitDelay = writerFunc(func(p []byte) (int, error) { <-blocked; return len(p), nil }), 50*time.Millisecond
	if err := c.Run(); !errors.Is(err, nucleus.ErrWaitDelay) {
		t.Errorf("a writer that blocks: got %v, want ErrWaitDelay", err)
	}
	close(blocked)
	failing := errors.New("the disk is full")
	c = act(&spec.Sandbox{}, "say word")
	c.Stdout = writerFunc(func([]byte) (int, error) { return 0, failing })
	if err := c.Run(); !errors.Is(err, failing) {
		t.Errorf("a writer that fails: got %v, want its error", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestMisuse: every wrong use is an error, never a panic.
func TestMisuse(t *testing.T) {
	needSandbox(t)
	dir, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for name, c := range map[string]*nucleus.Cmd{
		"a directory to read from": {Sandbox: &spec.Sandbox{}, Path: "true", Args: []string{"true"}, Stdin: dir},
		"a directory to write to":  {Sandbox: &spec.Sandbox{}, Path: "true", Args: []string{"true"}, Stderr: dir},
		"no sandbox":               nucleus.Command(nil, "true"), "no program": nucleus.Command(&spec.Sandbox{}, ""),
		"zero": {}, "no arguments": {Sandbox: &spec.Sandbox{}}, "zero byte": nucleus.Command(&spec.Sandbox{}, "true", "a\x00b"),
		"zero byte in the name": nucleus.Command(&spec.Sandbox{}, "tr\x00ue"),
		"bad sandbox":           nucleus.Command(&spec.Sandbox{Name: "-"}, "true"), "nil file": {Sandbox: &spec.Sandbox{}, Path: "true", Args: []string{"true"}, ExtraFiles: []*os.File{nil}},
	} {
		if err := c.Run(); !errors.Is(err, nucleus.ErrInvalid) {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
		if err := c.Wait(); err == nil {
			t.Errorf("%s: Wait: got no error", name)
		}
	}
	c := act(&spec.Sandbox{}, "exit 0")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err == nil {
		t.Error("a second start: got no error")
	}
	if _, err := c.StdoutPipe(); err == nil {
		t.Error("a pipe after the start: got no error")
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err == nil {
		t.Error("a second Wait: got no error")
	}
	if err := c.Process.Resize(1, 1); err == nil {
		t.Error("Resize without a terminal: got no error")
	}
	bare := nucleus.Cmd{Sandbox: &spec.Sandbox{}, Path: "/none"}
	if err := bare.Run(); !nucleus.NotFound(err) {
		t.Errorf("a Cmd without arguments: got %v, want not found", err)
	}
}

// TestConcurrent starts sandboxes from many goroutines.
func TestConcurrent(t *testing.T) {
	needSandbox(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 5 {
				word := fmt.Sprint("say ", i, j)
				out, err := act(&spec.Sandbox{}, word).Output()
				if err != nil || string(out) != fmt.Sprintf("%d%d\n", i, j) && string(out) != fmt.Sprintln(i, j) {
					t.Errorf("%s: got %q, %v", word, out, err)
				}
			}
		})
	}
	all.Wait()
}
