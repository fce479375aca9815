package logger

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/nucleus-container/nucleus/internal/logs"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// TestKilledWriterLeavesAReadableLog kills writers at work, looks at what they
// left, and lets the next one go on behind it.
func TestKilledWriterLeavesAReadableLog(t *testing.T) {
	dir, torn, before := filepath.Join(t.TempDir(), "log"), 0, 0
	block := lines(1, 700)
	const rounds = 20
	for round := range rounds {
		w := start(t, setup{dir: dir, files: 3, size: 64 << 20})
		kill := time.AfterFunc(time.Duration(1+round%5)*time.Millisecond*sandboxtest.Slow(), func() { _ = w.Process.Kill() })
		var err error
		for err == nil { // until nobody reads any more
			_, err = w.pipe[0].WriteString(block)
		}
		if kill.Stop(); !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
		_ = w.Wait() // it was killed

		place, err := logs.Next(dir)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(fmt.Sprintf("%s/log.%d", dir, place.First))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > int64(place.Used) {
			torn++
		}
		// What is new is a beginning of what was written.
		all, pos := frames(t, dir), 0
		if len(all) < before {
			t.Fatalf("round %d: %d frames, and there were %d before", round, len(all), before)
		}
		for _, f := range all[before:] {
			for data := string(f.Data); data != ""; {
				n := min(len(data), len(block)-pos)
				if data[:n] != block[pos:pos+n] {
					t.Fatalf("round %d: %.50q... was not written at %d", round, data, pos)
				}
				data, pos = data[n:], (pos+n)%len(block)
			}
		}
		before = len(all)
	}
	t.Logf("%d frames; %d of %d files ended in a torn one", before, torn, rounds)
	// A slow machine has less time between a start and a kill; some must have come so far.
	if before*int(sandboxtest.Slow()) < rounds {
		t.Errorf("%d frames of %d writers: they were killed before they did anything", before, rounds)
	}
}

// TestTornTailIsCut puts what a killed writer could leave behind the valid frames.
func TestTornTailIsCut(t *testing.T) {
	w := start(t, setup{})
	w.say(1, "first\n")
	w.end()
	name := filepath.Join(w.dir, "log.0")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, tail := range [][]byte{whole[:10], whole[:17], make([]byte, 3000)} {
		if err := os.WriteFile(name, append(whole[:len(whole):len(whole)], tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		w = start(t, setup{dir: w.dir})
		w.logged("first\n", "")
		w.say(2, "second\n")
		w.end()
		if out, err := read(t, w.dir); out != "first\n" || err != "second\n" {
			t.Errorf("got %q and %q, want first and second", out, err)
		}
		if info, err := os.Stat(name); err != nil || info.Size() != int64(len(whole)+16+7) {
			t.Errorf("got a file of %v (%v), want %d bytes", info, err, len(whole)+16+7)
		}
	}
}

// TestNextWriterGoesOn starts writers one after the other on one ring.
func TestNextWriterGoesOn(t *testing.T) {
	dir, all := filepath.Join(t.TempDir(), "log"), ""
	for i := range 40 {
		w := start(t, setup{dir: dir, files: 3, size: MinSize})
		text := strings.Repeat(fmt.Sprintf("writer %d\n", i), 100)
		all += text
		w.say(1, text)
		w.end()
		out, err := read(t, dir)
		if !strings.HasSuffix(all, out) || len(out) < min(len(all), 2*MinSize/2) || err != "" {
			t.Fatalf("writer %d: got %q and %q, want the end of what was written", i, out, err)
		}
	}
}

// disk is a small file system in a namespace of its own.
func disk(t *testing.T, size string) (root string) {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Program("sh"), sandboxtest.Program("mount"))
	cmd := exec.Command("sh", "-c", "mount -t tmpfs -o size="+size+" none /tmp && echo ready && read x")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait() // a read at the end of its input fails
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("got %q (%v) from the mount", line, err)
	}
	return fmt.Sprintf("/proc/%d/root/tmp", cmd.Process.Pid)
}

// account goes through the log of one stream, which begins at pos of what was
// written: every frame must be what was written at its place, which is behind the
// frames and the lost bytes before it. It returns how far that goes, and the
// numbers of bytes lost.
func account(t *testing.T, dir, written string, pos int) (end int, lost []int) {
	t.Helper()
	for i, f := range frames(t, dir) {
		if f.Stream == logs.Lost {
			lost = append(lost, int(binary.LittleEndian.Uint64(f.Data)))
			pos += lost[len(lost)-1]
			continue
		}
		if pos > len(written) || !strings.HasPrefix(written[pos:], string(f.Data)) {
			t.Fatalf("frame %d: %.50q... does not stand at %d of what was written", i, f.Data, pos)
		}
		if want := pos > 0 && written[pos-1] != '\n'; len(f.Data) > 0 && f.Continues != want {
			t.Errorf("frame %d: got %v, want %v: it goes on with a line", i, f.Continues, want)
		}
		pos += len(f.Data)
	}
	return pos, lost
}

// TestFullDiskBlocksNobody fills a disk, frees it again and accounts for every byte.
func TestFullDiskBlocksNobody(t *testing.T) {
	root := disk(t, "512k")
	ballast := filepath.Join(root, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 256<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	w := start(t, setup{dir: root + "/log", files: 2, size: 64 << 20})
	const n = 20000 // 1.7 MB: several times the disk
	for i := range n {
		w.say(1, line(1, i)) // ends: nobody waits
	}
	w.waiting()
	before, _ := account(t, w.dir, lines(1, n), 0)
	if before >= len(lines(1, n)) {
		t.Fatal("the disk was not full")
	}
	info, err := os.Stat(w.dir + "/log.0")
	if err != nil {
		t.Fatal(err)
	}
	// More space: the frame about what was lost comes without any further output.
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an account of every byte", func() (bool, string) {
		pos, lost := account(t, w.dir, lines(1, n), 0)
		return pos == len(lines(1, n)) && len(lost) > 0, fmt.Sprint(pos, lost)
	})
	w.say(2, "again\n")
	w.end()
	_, lost := account(t, w.dir, lines(1, n)+"again\n", 0)
	_, text := read(t, w.dir)
	want := ""
	for _, n := range lost {
		want += fmt.Sprintf("nucleus: %d bytes of output were lost: the disk was full\n", n)
	}
	if text != want+"again\n" {
		t.Errorf("got %q, want %q", text, want)
	}
	if now, err := os.Stat(w.dir + "/log.0"); err != nil || now.Size() <= info.Size() {
		t.Errorf("%v (%v): it does not go on in the same file", now, err)
	}
}

// TestLossIsToldAtTheEnd frees the disk just before the end.
func TestLossIsToldAtTheEnd(t *testing.T) {
	root := disk(t, "256k")
	ballast := filepath.Join(root, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	w := start(t, setup{dir: root + "/log", size: 64 << 20})
	n := 0
	eventually(t, "loss that is not told yet", func() (bool, string) {
		for range 500 {
			w.say(1, line(1, n))
			n++
		}
		for left := int32(1); left > 0; {
			const fionread = 0x541b
			if _, _, e := syscall.RawSyscall(syscall.SYS_IOCTL, w.pipe[0].Fd(), fionread, uintptr(unsafe.Pointer(&left))); e != 0 {
				t.Fatal(e)
			}
		}
		w.waiting()
		pos, _ := account(t, w.dir, lines(1, n), 0)
		return pos < len(lines(1, n)), fmt.Sprint(pos)
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.end()
	if pos, lost := account(t, w.dir, lines(1, n), 0); pos != len(lines(1, n)) || len(lost) == 0 {
		t.Errorf("%d of %d bytes are accounted for, %v lost", pos, len(lines(1, n)), lost)
	}
}

// TestEndOnAFullDisk checks that the writer ends, and that nothing torn is left.
func TestEndOnAFullDisk(t *testing.T) {
	root := disk(t, "128k")
	w := start(t, setup{dir: root + "/log", files: 1, size: 64 << 20})
	for i := range 5000 {
		w.say(1, line(1, i))
	}
	w.end()
	place, err := logs.Next(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(w.dir + "/log.0"); err != nil || info.Size() != int64(place.Used) || place.Used == 0 {
		t.Errorf("got %v (%v), want a file of %d bytes, all valid", info, err, place.Used)
	}
	account(t, w.dir, lines(1, 5000), 0)
}

// TestUnusableFilesAreSkipped puts devices into the ring that take nothing.
func TestUnusableFilesAreSkipped(t *testing.T) {
	for _, tc := range []struct {
		name string
		bad  []int
	}{{"one", []int{0}}, {"another", []int{2}}, {"all", []int{0, 1, 2}}} {
		t.Run(tc.name, func(t *testing.T) {
			w := start(t, setup{files: 3, size: 8192, extra: func(files []*os.File) {
				for _, i := range tc.bad {
					full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
					if err != nil {
						t.Fatal(err)
					}
					if err := files[i].Close(); err != nil {
						t.Error(err)
					}
					files[i] = full
				}
			}})
			const n = 2000
			for i := range n {
				w.say(1, line(1, i))
			}
			w.end()
			all := frames(t, w.dir)
			if len(tc.bad) == 3 {
				if len(all) > 0 {
					t.Errorf("got %d frames from nowhere", len(all))
				}
				return
			}
			if len(all) < 2 {
				t.Fatalf("got %d frames, want some", len(all))
			}
			// The oldest that is left is somewhere in what was written.
			pos := 0
			if all[0].Stream == logs.Lost {
				pos -= int(binary.LittleEndian.Uint64(all[0].Data))
				all = all[1:]
			}
			pos += strings.Index(lines(1, n), string(all[0].Data))
			if end, lost := account(t, w.dir, lines(1, n), pos); len(lost) == 0 {
				t.Errorf("from %d to %d and no notes, want some", pos, end)
			}
		})
	}
}

// TestStealingIsNoHarm has somebody else read from the pipe, as a workload can
// that opens /proc/self/fd/1.
func TestStealingIsNoHarm(t *testing.T) {
	w := start(t, setup{})
	w.waiting()
	thief, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", w.pipe[0].Fd()))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, thief)
		done <- err
	}()
	for range 20000 {
		w.say(1, "mine\n")
	}
	w.say(2, "others\n")
	eventually(t, "the other stream", func() (bool, string) {
		_, err := read(t, w.dir)
		return err == "others\n", err
	})
	w.end()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := thief.Close(); err != nil {
		t.Error(err)
	}
}
