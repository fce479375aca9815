package cgroup_test

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/spec"
)

// TestLimitsUnderSignals: Go stops its threads with signals, and a v1 limit of
// memory is not set while one is pending.
func TestLimitsUnderSignals(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		g := limited(t, c, spec.Limits{Memory: spec.GiB})
		start(t, c, g, "wait") // a scope has no directory without a process
		file := "memory.max"
		if h, _ := c.For("memory"); h.Version == 1 {
			file = "memory.limit_in_bytes"
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		writer, end := syscall.Gettid(), make(chan bool)
		var all sync.WaitGroup
		defer all.Wait()
		defer close(end)
		all.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					_ = syscall.Tgkill(os.Getpid(), writer, syscall.SIGURG)
				}
			}
		})
		for i := range 5000 {
			if err := g.Write("memory", file, strconv.Itoa((1024-i%2)<<20)); err != nil {
				t.Fatalf("write %d: %v", i, err)
			}
		}
	})
}
