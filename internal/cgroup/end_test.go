package cgroup_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/cgroup"
)

// TestKillLooksAgain: the number of a process that has left the group meanwhile may
// be somebody else's. A pipe stands for the list, so that it can change between
// two looks.
func TestKillLooksAgain(t *testing.T) {
	for _, stays := range []bool{false, true} {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop := lists(t, func(look int) string {
			if look == 0 || stays {
				return fmt.Sprintln(cmd.Process.Pid)
			}
			return ""
		})
		n, err := cgroup.KillBelow(stop.dir)
		stop.end()
		if err != nil || n == 0 {
			t.Errorf("got %d processes, %v; want one", n, err)
		}
		if !stays {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil { // were it killed, this would be too late
				t.Error(err)
			}
		}
		_ = cmd.Wait() // a signal has ended it
		want := syscall.SIGTERM
		if stays {
			want = syscall.SIGKILL
		}
		if got := cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != want {
			t.Errorf("it stays in the group: %t: got %v, want %v", stays, got, want)
		}
	}
}

// listing is a directory whose cgroup.procs says something else at each look.
type listing struct {
	dir string
	end func()
}

func lists(t *testing.T, say func(look int) string) listing {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "cgroup.procs")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	ended := make(chan struct{})
	done.Go(func() {
		for look := 0; ; look++ {
			f, err := os.OpenFile(path, os.O_WRONLY, 0) // waits for a reader
			if err != nil {
				t.Error(err)
				return
			}
			select {
			case <-ended:
				f.Close()
				return
			default:
			}
			_, _ = f.WriteString(say(look)) // the reader may be gone
			f.Close()
		}
	})
	return listing{dir, func() {
		close(ended)
		r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		done.Wait()
		r.Close()
	}}
}
