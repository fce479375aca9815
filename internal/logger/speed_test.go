package logger

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/logs"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// noise writes n bytes that repeat only after a while, in writes of many sizes.
func noise(t testing.TB, to io.Writer, n int, seed byte) {
	block := make([]byte, 1<<20+4321)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(block); err != nil {
		t.Error(err)
	}
	for size := 1; n > 0; n -= size {
		size = min(size*3%130001+1, n)
		if _, err := to.Write(block[:size]); err != nil {
			t.Error(err)
			return
		}
		block[n%len(block)]++
	}
}

// TestFullSpeedIsComplete sends 64 MB, both streams at once.
func TestFullSpeedIsComplete(t *testing.T) {
	const each = 32 << 20
	w := start(t, setup{size: 20 << 20})
	var want [2]hash.Hash
	done := make(chan bool)
	for i := range want {
		want[i] = sha256.New()
		go func() {
			noise(t, io.MultiWriter(w.pipe[i], want[i]), each, byte(i))
			done <- true
		}()
	}
	<-done
	<-done
	w.end()
	got := [2]hash.Hash{sha256.New(), sha256.New()}
	var n [2]int
	err := open(t, w.dir).Frames(func(f logs.Frame) error {
		n[f.Stream-1] += len(f.Data)
		_, err := got[f.Stream-1].Write(f.Data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if !bytes.Equal(got[i].Sum(nil), want[i].Sum(nil)) {
			t.Errorf("stream %d: got %d bytes, want the %d that were written", i+1, n[i], each)
		}
	}
}

// BenchmarkAgainstCat sends 1 GB to the writer and to "cat >file", the same way,
// and compares for how long the sender is busy. (The writer's exit is not in it:
// ext4 begins to write a file out when it is closed if it was truncated before.)
func BenchmarkAgainstCat(b *testing.B) {
	sandboxtest.Need(b, sandboxtest.Program("cat"))
	const total, rounds = 1 << 30, 5
	for _, size := range []int{64 << 10, 4096, 100} {
		best, cpu := [2]time.Duration{time.Hour, time.Hour}, [2]time.Duration{time.Hour, time.Hour}
		n := total
		if size < 4096 {
			n /= 16
		}
		for range rounds {
			for i, f := range []func(*testing.B, string) (*os.File, func() time.Duration){toLogger, toCat} {
				dir := b.TempDir()
				syscall.Sync() // what came before does not count
				pipe, wait := f(b, dir)
				begin := time.Now()
				send(b, pipe, size, n)
				best[i] = min(best[i], time.Since(begin)) // the workload's time
				cpu[i] = min(cpu[i], wait())
				if err := os.RemoveAll(dir); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.Logf("%d MiB in writes of %d: log writer %v, cat %v: %.2f; of the processor %v and %v",
			n>>20, size, best[0], best[1], float64(best[0])/float64(best[1]), cpu[0], cpu[1])
	}
	b.ReportMetric(0, "ns/op")
}

func send(b *testing.B, to *os.File, size, n int) {
	cmd := exec.Command("dd", "if=/dev/zero", "bs="+strconv.Itoa(size), "count="+strconv.Itoa(n/size), "status=none")
	cmd.Stdout = to
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
}

func toLogger(b *testing.B, dir string) (*os.File, func() time.Duration) {
	w := start(b, setup{dir: dir, files: 1, size: 2 << 30})
	return w.pipe[0], func() time.Duration { w.end(); return used(w.Cmd) }
}

func toCat(b *testing.B, dir string) (*os.File, func() time.Duration) {
	r, p, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("cat")
	// In a session of its own, as the writer: the scheduler shares between sessions.
	cmd.Stdin, cmd.Stdout, cmd.SysProcAttr = r, out, &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	r.Close()
	out.Close()
	return p, func() time.Duration {
		p.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
		return used(cmd)
	}
}

func used(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.SystemTime() + cmd.ProcessState.UserTime()
}
