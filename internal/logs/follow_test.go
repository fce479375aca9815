package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/logger"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// following is a Copy that runs.
type following struct {
	t    *testing.T
	out  *io.PipeReader
	done chan error
	end  atomic.Bool // what Done says
	stop context.CancelFunc
}

func follow(t *testing.T, dir string, o Options) *following {
	t.Helper()
	l := openDir(t, dir)
	r, w := io.Pipe()
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second*sandboxtest.Slow())
	fw := &following{t: t, out: r, done: make(chan error, 1), stop: stop}
	o.Follow, o.Done = true, fw.end.Load
	go func() {
		err := l.Copy(ctx, w, w, o)
		w.Close()
		fw.done <- err
	}()
	t.Cleanup(func() { r.Close(); stop(); fw.wait() })
	return fw
}

func (fw *following) wait() error {
	err := <-fw.done
	fw.done <- err
	return err
}

// want reads exactly this.
func (fw *following) want(text string) {
	fw.t.Helper()
	got := make([]byte, len(text))
	if n, err := io.ReadFull(fw.out, got); err != nil || string(got) != text {
		fw.t.Fatalf("got %q (%v), want %q", got[:n], err, text)
	}
}

// wantEnd reads the end.
func (fw *following) wantEnd(want error) {
	fw.t.Helper()
	if rest, err := io.ReadAll(fw.out); err != nil || len(rest) > 0 {
		fw.t.Errorf("got %q (%v), want the end", rest, err)
	}
	if err := fw.wait(); !errors.Is(err, want) {
		fw.t.Errorf("got %v, want %v", err, want)
	}
}

func appendTo(t *testing.T, dir string, i int, b []byte) {
	t.Helper()
	file, err := os.OpenFile(fileName(dir, i), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.Write(b)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestFollow(t *testing.T) {
	dir := ring(t, nil, nil)
	fw := follow(t, dir, all)
	appendTo(t, dir, 0, encode(0, f{1, 1, "a\n", false}, f{2, 2, "par", false}))
	fw.want("a\npar")
	next := encode(0, f{3, 2, "t\n", true})
	appendTo(t, dir, 0, next[:17]) // as seen by a reader in between
	time.Sleep(2 * interval)
	appendTo(t, dir, 0, next[17:])
	fw.want("t\n")
	appendTo(t, dir, 1, encode(1, f{4, 1, "next file\n", false}))
	fw.want("next file\n")
	if err := os.Truncate(fileName(dir, 0), 0); err != nil {
		t.Fatal(err)
	}
	appendTo(t, dir, 0, encode(2, f{5, 1, "around\n", false}))
	fw.want("around\n")
	appendTo(t, dir, 0, encode(2, f{6, 1, "last", false}))
	fw.end.Store(true)
	fw.want("last")
	fw.wantEnd(nil)
}

func TestFollowNewLinesOnly(t *testing.T) {
	dir := ring(t, encode(0, f{1, 1, "old\nold ", false}))
	fw := follow(t, dir, with(func(o *Options) { o.Tail = 0 }))
	time.Sleep(2 * interval) // Copy must have begun
	appendTo(t, dir, 0, encode(0, f{2, 1, "end\nnew\n", true}))
	fw.want("new\n")
	fw.stop()
	fw.wantEnd(context.Canceled)
}

func TestFollowUntil(t *testing.T) {
	dir := ring(t, encode(0, f{1, 1, "a\n", false}))
	fw := follow(t, dir, with(func(o *Options) { o.Until = time.Now().Add(-time.Hour) }))
	fw.wantEnd(nil) // the frame is of the future
}

// TestFollowIsOvertaken empties the file that is being read.
func TestFollowIsOvertaken(t *testing.T) {
	for name, second := range map[string]string{"shorter": "b\n", "longer": strings.Repeat("b", 100) + "\n"} {
		t.Run(name, func(t *testing.T) {
			dir := ring(t, encode(0, f{1, 1, strings.Repeat("a", 20), false}))
			fw := follow(t, dir, all)
			fw.want(strings.Repeat("a", 20))
			if err := os.Truncate(fileName(dir, 0), 0); err != nil {
				t.Fatal(err)
			}
			appendTo(t, dir, 0, encode(1, f{2, 1, second, false}))
			fw.want("\n" + overwritten + second)
			fw.end.Store(true)
			fw.wantEnd(nil)
		})
	}
}

// TestCutFrameIsNotPrinted does what a writer does on a full disk.
func TestCutFrameIsNotPrinted(t *testing.T) {
	dir := ring(t, encode(0, f{1, 1, "a\n", false}))
	fw := follow(t, dir, all)
	fw.want("a\n")
	forged := string(encode(0, f{1, 1, "forged\n", false}))
	appendTo(t, dir, 0, encode(0, f{2, 1, strings.Repeat(forged, 10), false})[:100])
	time.Sleep(2 * interval)
	if err := os.Truncate(fileName(dir, 0), 18); err != nil {
		t.Fatal(err)
	}
	appendTo(t, dir, 0, encode(0, f{3, 1, "b\n", false}))
	fw.want("b\n")
	fw.end.Store(true)
	fw.wantEnd(nil)
}

// TestFollowGoesAroundOnce has turns that lead in a circle, as no writer leaves them.
func TestFollowGoesAroundOnce(t *testing.T) {
	dir := ring(t, encode(0, f{1, 1, "a", false}), encode(20000, f{1, 1, "b", true}), encode(40000, f{1, 1, "c", true}))
	fw := follow(t, dir, with(func(o *Options) { o.Stderr = false }))
	time.Sleep(2 * interval)
	fw.end.Store(true)
	text, err := io.ReadAll(fw.out)
	if got := strings.ReplaceAll(string(text), overwritten, ""); err != nil || len(strings.ReplaceAll(got, "\n", "")) > 3 {
		t.Errorf("got %q (%v), want each file at most once", got, err)
	}
}

// TestCutFramesNeverMix cuts and writes anew, as on a full disk, as fast as it can
// be done. Each frame is of one letter.
func TestCutFramesNeverMix(t *testing.T) {
	first := encode(0, f{1, 1, "first\n", false})
	dir := ring(t, first)
	file, err := os.OpenFile(fileName(dir, 0), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan bool), make(chan error)
	var anew sync.RWMutex // a writer never takes back what was whole: no reader may see us do it
	go func() {
		for at := 2.0; ; at += 3 { // no two frames have the same time, as a writer's
			long := encode(0, f{at, 1, strings.Repeat("a", 60000), false})
			pair := encode(0, f{at + 1, 1, strings.Repeat("b", 50000), false}, f{at + 2, 1, strings.Repeat("c", 50000), true})
			for _, b := range [][]byte{long[:50000], pair[:50016], pair} {
				_, err := file.WriteAt(b, int64(len(first)))
				if err == nil && len(b) == 50000 {
					err = file.Truncate(int64(len(first)))
				}
				if err != nil {
					done <- err
					return
				}
			}
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			anew.Lock()
			err := file.Truncate(int64(len(first)))
			anew.Unlock()
			if err != nil {
				done <- err
				return
			}
		}
	}()
	l, frames := openDir(t, dir), 0
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end) && !t.Failed(); {
		anew.RLock()
		err := l.Frames(func(x Frame) error {
			frames++
			if x.Data[0] == 'a' || x.Data[0] != 'f' && strings.Trim(string(x.Data), string(x.Data[:1])) != "" {
				t.Errorf("got a frame of %d bytes that was never whole: %.10q...", len(x.Data), x.Data)
			}
			return nil
		})
		anew.RUnlock()
		if err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := errors.Join(<-done, file.Close()); err != nil || frames == 0 {
		t.Errorf("%d frames: %v", frames, err)
	}
}

// TestNothingIsMissedAtTheTurn has a writer go from file to file as fast as the
// reader can follow.
func TestNothingIsMissedAtTheTurn(t *testing.T) {
	const files, ahead = 8, 10
	dir := ring(t, make([][]byte, files)...)
	var seen atomic.Int64
	stop, done := make(chan bool), make(chan int64)
	go func() {
		n := int64(0)
		defer func() { done <- n }()
		for turn := 0; ; turn++ {
			file, err := os.OpenFile(fileName(dir, turn%files), os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			for range 3 {
				for n-seen.Load() > ahead {
					select {
					case <-stop:
						file.Close()
						return
					default:
					}
				}
				n++
				if _, err := file.Write(encode(uint16(turn), f{1, 1, fmt.Sprintln(n), false})); err != nil {
					t.Error(err)
				}
			}
			file.Close()
		}
	}()
	r := &reader{log: openDir(t, dir)}
	r.gap = func(bool) error { return errors.New("a gap") }
	r.each = func(x Frame) error {
		if want := fmt.Sprintln(seen.Add(1)); string(x.Data) != want {
			return fmt.Errorf("got %q, want %q", x.Data, want)
		}
		return nil
	}
	var err error
	began := time.Now()
	going := func() bool { // for many turns, however slow the machine is
		took := time.Since(began)
		return took < 400*time.Millisecond || seen.Load() < 100 && took < 30*time.Second*sandboxtest.Slow()
	}
	for err == nil && going() {
		err = r.more(nil)
	}
	close(stop)
	for n := <-done; err == nil && seen.Load() < n; {
		err = r.more(nil)
	}
	if err != nil || seen.Load() < 100 {
		t.Errorf("after %d frames: %v", seen.Load(), err)
	}
}

func TestErrorsOfWritersAreReturned(t *testing.T) {
	dir := ring(t, encode(0, f{1, 1, "a\n", false}))
	r, w := io.Pipe()
	r.Close()
	for _, follow := range []bool{false, true} {
		o := with(func(o *Options) { o.Follow = follow })
		if err := openDir(t, dir).Copy(context.Background(), w, w, o); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("follow %v: got %v, want the writer's error", follow, err)
		}
	}
}

// TestRealWriterOvertakes follows the real log writer over a ring that is far too
// small for the speed. Whatever is missing, what is printed are lines as they were
// written, in their order, and each gap is noted.
func TestRealWriterOvertakes(t *testing.T) {
	for _, files := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(files), func(t *testing.T) {
			dir := ring(t, make([][]byte, files)...)
			pipe, wait := realWriter(t, dir, files)
			fw := follow(t, dir, all)
			const n = 200000
			done := make(chan error)
			go func() {
				var err error
				for i := 0; i < n && err == nil; i++ {
					_, err = fmt.Fprintf(pipe, "line %d of %s.\n", i, strings.Repeat("x", i%97))
				}
				done <- errors.Join(err, pipe.Close())
			}()
			result := make(chan [3]int)
			go func() { result <- checkLines(t, fw.out) }()
			if err := <-done; err != nil {
				t.Error(err)
			}
			wait()
			fw.end.Store(true)
			got := <-result
			if err := fw.wait(); err != nil {
				t.Error(err)
			}
			t.Logf("%d of %d lines, %d gaps", got[0], n, got[2])
			overtaken := got[2] > 0 || sandboxtest.Slow() > 1 // a slow writer may be read in time
			if got[0] == 0 || got[1] != n-1 || !overtaken {
				t.Errorf("%d lines to number %d with %d notes, want some, to %d, and notes", got[0], got[1], got[2], n-1)
			}
		})
	}
}

// checkLines returns the number of lines, the last one's number, and that of notes.
func checkLines(t *testing.T, r io.Reader) (got [3]int) {
	text, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	last, gap := -1, false
	for part := range strings.Lines(string(text)) {
		if part == overwritten {
			got[2]++
			gap = true
			continue
		}
		var i int
		if _, err := fmt.Sscanf(part, "line %d of", &i); err == nil && part == fmt.Sprintf("line %d of %s.\n", i, strings.Repeat("x", i%97)) {
			if i <= last || i > last+1 && !gap && last >= 0 { // the first may have been overwritten before we came
				t.Errorf("line %d after %d, gap %v", i, last, gap)
				return got
			}
			got[0]++
			last, got[1], gap = i, i, false
			continue
		}
		// A line whose end was overwritten stands before a note.
		if !strings.HasPrefix("line ", part[:min(5, len(part)-1)]) {
			t.Errorf("got %q, which was never written", part)
			return got
		}
	}
	return got
}

// realWriter starts the log writer; wait returns when it has ended.
func realWriter(t *testing.T, dir string, n int) (pipe *os.File, wait func()) {
	t.Helper()
	files, err := Create(dir, n)
	if err != nil {
		t.Fatal(err)
	}
	c := logger.Config{Out: 3, Err: 4, Size: 64 << 10}
	for i := range files {
		c.Files = append(c.Files, 5+i)
	}
	image, err := kernel.SealedImage("test-log", logger.Image(c))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	high, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(image), syscall.F_DUPFD_CLOEXEC, 100)
	if e != 0 {
		t.Fatal(e)
	}
	defer syscall.Close(int(high))
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	ends := append([]*os.File{nil, nil, nil, r, null}, files...)
	p, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", high), []string{"log"}, &os.ProcAttr{Files: ends, Env: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range ends[3:] {
		end.Close()
	}
	return pipe, func() {
		if state, err := p.Wait(); err != nil || !state.Success() {
			t.Errorf("the log writer ends with %v (%v)", state, err)
		}
	}
}
