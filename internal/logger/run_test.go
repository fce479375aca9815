package logger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/logs"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// writer is a running log writer with the writing ends of its pipes.
type writer struct {
	*exec.Cmd
	t    testing.TB
	dir  string
	pipe [2]*os.File
}

type setup struct {
	dir    string // none: a new one
	files  int    // none: 4
	size   uint64 // none: 1 MiB
	userns bool   // in a user namespace of its own, where the test may look at it
	extra  func(files []*os.File)
	image  []byte // none: made from the above
	user   *syscall.Credential
}

// start runs the real image in a session of its own, without an environment.
func start(t testing.TB, s setup) *writer {
	t.Helper()
	if s.dir == "" {
		s.dir = filepath.Join(t.TempDir(), "log")
	}
	if s.files == 0 {
		s.files = 4
	}
	if s.size == 0 {
		s.size = 1 << 20
	}
	files, err := logs.Create(s.dir, s.files)
	if err != nil {
		t.Fatal(err)
	}
	if s.extra != nil {
		s.extra(files)
	}
	place, err := logs.Next(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Out: 3, Err: 4, Size: s.size, First: place.First, Used: place.Used, Turn: place.Turn}
	for i := range files {
		c.Files = append(c.Files, 5+i)
	}
	if s.image == nil {
		s.image = Image(c)
	}
	image, err := kernel.SealedImage("test-log", s.image)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	// Above all that become the program's own: it is opened when those are in place.
	high, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(image), syscall.F_DUPFD_CLOEXEC, 100)
	if e != 0 {
		t.Fatal(e)
	}
	defer syscall.Close(int(high))
	w := &writer{t: t, dir: s.dir}
	var ends []*os.File
	for i := range w.pipe {
		r, p, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		w.pipe[i], ends = p, append(ends, r)
	}
	ends = append(ends, files...)
	w.Cmd = &exec.Cmd{Path: fmt.Sprintf("/proc/self/fd/%d", high), Args: []string{comm}, Env: []string{}, Dir: "/",
		ExtraFiles: ends, SysProcAttr: &syscall.SysProcAttr{Setsid: true, Credential: s.user}}
	if s.userns {
		w.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
	}
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range ends {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	watch := time.AfterFunc(60*time.Second*sandboxtest.Slow(), func() { _ = w.Process.Kill() })
	t.Cleanup(func() {
		watch.Stop()
		if w.ProcessState == nil {
			_ = w.Process.Kill() // it may have ended by itself
			_ = w.Wait()
		}
		for _, p := range w.pipe {
			_ = p.Close() // a test may have
		}
	})
	return w
}

// say writes to one of the pipes: 1 or 2.
func (w *writer) say(stream int, text string) {
	w.t.Helper()
	if _, err := w.pipe[stream-1].WriteString(text); err != nil {
		w.t.Error(err)
	}
}

// end closes the pipes and waits for the exit.
func (w *writer) end() {
	w.t.Helper()
	if err := errors.Join(w.pipe[0].Close(), w.pipe[1].Close()); err != nil {
		w.t.Error(err)
	}
	if err := w.Wait(); err != nil {
		w.t.Errorf("the log writer ends with %v, want 0", err)
	}
}

func open(t testing.TB, dir string) *logs.Log {
	t.Helper()
	l, err := logs.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// read returns all that is logged, by stream.
func read(t testing.TB, dir string) (out, err string) {
	t.Helper()
	var o, e bytes.Buffer
	if err := open(t, dir).Copy(context.Background(), &o, &e, logs.Options{Tail: -1, Stdout: true, Stderr: true}); err != nil {
		t.Fatal(err)
	}
	return o.String(), e.String()
}

// frames returns what is logged, with the data copied.
func frames(t testing.TB, dir string) (all []logs.Frame) {
	t.Helper()
	err := open(t, dir).Frames(func(f logs.Frame) error {
		f.Data = bytes.Clone(f.Data)
		all = append(all, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func eventually(t testing.TB, what string, f func() (bool, string)) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second * sandboxtest.Slow()); ; time.Sleep(2 * time.Millisecond) {
		ok, got := f()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %s, want: %s", got, what)
		}
	}
}

func (w *writer) logged(out, err string) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%q and %q in the log", out, err), func() (bool, string) {
		o, e := read(w.t, w.dir)
		return o == out && e == err, fmt.Sprintf("%q and %q", o, e)
	})
}

func TestWritesBothStreams(t *testing.T) {
	before := time.Now()
	w := start(t, setup{})
	w.say(1, "out\n")
	w.logged("out\n", "")
	w.say(2, "err")
	w.logged("out\n", "err")
	w.say(2, "or\n")
	w.logged("out\n", "error\n")
	w.say(1, "end")
	w.end()
	var got []string
	last := before
	for _, f := range frames(t, w.dir) {
		got = append(got, fmt.Sprintf("%d %v %q", f.Stream, f.Continues, f.Data))
		if f.Time.Before(last) || f.Time.After(time.Now()) {
			t.Errorf("a frame at %v after %v", f.Time, last)
		}
		last = f.Time
	}
	const want = `1 false "out\n", 2 false "err", 2 true "or\n", 1 false "end"`
	if all := strings.Join(got, ", "); all != want {
		t.Errorf("got %s, want %s", all, want)
	}
}

// TestOnePipeEnds checks that the other one is still read, and without haste.
func TestOnePipeEnds(t *testing.T) {
	for closed := range 2 {
		w := start(t, setup{})
		if err := w.pipe[closed].Close(); err != nil {
			t.Fatal(err)
		}
		want := [2]string{}
		want[1-closed] = "still\n"
		w.say(2-closed, "still\n")
		w.logged(want[0], want[1])
		ticks := w.ticks()
		time.Sleep(300 * time.Millisecond) // a time to be idle in
		if now := w.ticks(); now > ticks+5 {
			t.Errorf("%d ticks of processor time while there is nothing to do", now-ticks)
		}
		want[1-closed] += "and still\n"
		w.say(2-closed, "and still\n")
		w.logged(want[0], want[1])
		w.pipe[closed] = w.pipe[1-closed]
		if err := w.pipe[closed].Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// ticks returns the processor time that the writer has used, in 1/100 s.
func (w *writer) ticks() int {
	w.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.Process.Pid))
	if err != nil {
		w.t.Fatal(err)
	}
	f, sum := strings.Fields(string(stat)), 0
	for _, s := range f[13:15] {
		n, err := strconv.Atoi(s)
		if err != nil {
			w.t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// TestSignalsEndNothing sends what can be blocked, and stops it meanwhile.
func TestSignalsEndNothing(t *testing.T) {
	w := start(t, setup{})
	w.say(1, "before\n")
	w.logged("before\n", "")
	for sig := syscall.Signal(1); sig < 64; sig++ {
		if sig == syscall.SIGKILL {
			continue
		}
		if err := w.Process.Signal(sig); err != nil {
			t.Fatalf("%v: %v", sig, err)
		}
	}
	w.say(2, "after\n")
	if err := w.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.logged("before\n", "after\n")
	w.end()
}

// numbered writes numbered lines of both streams at once.
func (w *writer) numbered(lines int) {
	var g sync.WaitGroup
	for stream := 1; stream <= 2; stream++ {
		g.Go(func() {
			for i := range lines {
				w.say(stream, line(stream, i))
			}
		})
	}
	g.Wait()
}

func line(stream, i int) string {
	return fmt.Sprintf("%d %06d %s\n", stream, i, strings.Repeat("x", i%150))
}

func lines(stream, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(line(stream, i))
	}
	return b.String()
}

func TestInterleavedStreamsKeepTheirOrder(t *testing.T) {
	w := start(t, setup{size: 8 << 20})
	w.numbered(5000)
	w.end()
	out, err := read(t, w.dir)
	if out != lines(1, 5000) || err != lines(2, 5000) {
		t.Errorf("got %d and %d bytes, want %d and %d, as they were written", len(out), len(err), len(lines(1, 5000)), len(lines(2, 5000)))
	}
	all := frames(t, w.dir)
	switches := 0
	for i := 1; i < len(all); i++ {
		if all[i].Time.Before(all[i-1].Time) {
			t.Errorf("frame %d is of %v, after one of %v", i, all[i].Time, all[i-1].Time)
		}
		if all[i].Stream != all[i-1].Stream {
			switches++
		}
	}
	if switches < 2 {
		t.Errorf("%d frames with %d changes of stream: nothing was interleaved", len(all), switches)
	}
}

// TestRingKeepsItsLimit looks at the sizes all the time.
func TestRingKeepsItsLimit(t *testing.T) {
	for _, tc := range []setup{{files: 1, size: MinSize}, {files: 2, size: 5000}, {files: 3, size: 70000}, {files: 16, size: 4097}} {
		t.Run(fmt.Sprintf("%d of %d", tc.files, tc.size), func(t *testing.T) {
			w := start(t, tc)
			stop, done := make(chan bool), make(chan uint64)
			go func() {
				most := uint64(0)
				for {
					select {
					case <-stop:
						done <- most
						return
					default:
						most = max(most, ringSize(t, w.dir, tc.size))
					}
				}
			}()
			w.numbered(8000)
			close(stop)
			most := <-done
			w.end()
			limit := uint64(tc.files) * tc.size
			if most > limit || most < limit/2 {
				t.Errorf("at most %d bytes were there at once, want up to %d", most, limit)
			}
			out, err := read(t, w.dir)
			// Of one file, all that is left may be the end of one line, which is not read.
			empty := out+err == "" && tc.files > 1
			if !strings.HasSuffix(lines(1, 8000), out) || !strings.HasSuffix(lines(2, 8000), err) || empty {
				t.Errorf("got %d and %d bytes that are not the end of what was written", len(out), len(err))
			}
		})
	}
}

// ringSize returns the sum of the files' sizes.
func ringSize(t testing.TB, dir string, each uint64) (sum uint64) {
	names, err := filepath.Glob(dir + "/log.*")
	if err != nil {
		t.Error(err)
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			t.Error(err)
			return sum
		}
		if size := uint64(info.Size()); size > each {
			t.Errorf("%s has %d bytes, want at most %d", name, size, each)
		}
		sum += uint64(info.Size())
	}
	return sum
}
