package pid1

import (
	"errors"
	"syscall"
	"testing"
	"time"
)

// TestAwaits: an init that is told to does not start the workload before it has
// read a byte, and never starts it for somebody who is gone.
func TestAwaits(t *testing.T) {
	silent := func(t *testing.T, b *box) {
		t.Helper()
		time.Sleep(100 * time.Millisecond)
		var m [8]byte
		if n, _, err := syscall.Recvfrom(int(b.status), m[:], syscall.MSG_DONTWAIT); !errors.Is(err, syscall.EAGAIN) {
			t.Fatalf("the init says %x (%v) before it was told to go on", m[:max(n, 0)], err)
		}
	}
	t.Run("told", func(t *testing.T) {
		b := start(t, setup{config: Config{Awaits: true}, workload: "exit 7"})
		silent(t, b)
		if err := syscall.Sendto(int(b.status), []byte{1, 1}, syscall.MSG_NOSIGNAL, nil); err != nil {
			t.Fatal(err)
		}
		b.wantMessage(t, Started, 2)
		b.wantMessage(t, Ended, 7<<8)
		b.wantExit(t, 7)
	})
	t.Run("left", func(t *testing.T) {
		b := start(t, setup{config: Config{Awaits: true}, workload: "exit 7"})
		silent(t, b)
		b.hangUp(t)
		b.wantExit(t, 137)
	})
	t.Run("control", func(t *testing.T) { // the same silence is broken by one that does not wait
		b := start(t, setup{workload: "exit 7"})
		b.wantMessage(t, Started, 2)
		b.wantExit(t, 7)
	})
}
