package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// TestHolderIsNobodyElse: a record may be old, and its number somebody else's.
func TestHolderIsNobodyElse(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	c, err := host.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	h, ok := c.Unified()
	if !ok {
		sandboxtest.Need(t, sandboxtest.CgroupV2)
	}
	unit := fmt.Sprintf("nucleus-test-holder-%d%s", os.Getpid(), scopeSuffix)
	dir := filepath.Join(h.Mount, unit, holderName)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if err := errors.Join(os.Remove(dir), os.Remove(filepath.Dir(dir))); err != nil {
			t.Error(err)
		}
	})
	began, err := kernel.StartTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	right := holder{Holder: Holder{Pid: pid, Start: began}, unit: unit}
	spared := func(name string, h holder) {
		t.Helper()
		if err := h.end(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		time.Sleep(20 * time.Millisecond)
		if state, err := kernel.StartTime(pid); err != nil || state != began || zombie(t, pid) {
			t.Fatalf("%s: process %d was ended", name, pid)
		}
	}
	spared("in another group", right)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
	older := right
	older.Start--
	spared("started at another time", older)
	other := right
	other.unit = "nucleus-other.scope"
	spared("in another scope", other)
	unknown := right
	unknown.Pid = 1 << 30
	spared("no process of that number", unknown)

	if err := right.end(); err != nil { // and it is ended where all is right
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it came to a good end, want it killed")
	}
	if err := right.end(); err != nil {
		t.Errorf("again: %v", err)
	}
}

func zombie(t *testing.T, pid int) bool {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(data), ") Z ")
}

// TestHolderStays: it ends with us unless it was told to stay.
func TestHolderStays(t *testing.T) {
	for _, stay := range []bool{false, true} {
		h, err := startHolder("nucleus-x.scope")
		if err != nil {
			t.Fatal(err)
		}
		if stay {
			if err := h.detach(); err != nil {
				t.Fatal(err)
			}
		} else if err := h.rope.Close(); err != nil { // as our death would
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() {
			_, err := h.process.Wait()
			ended <- err
		}()
		select {
		case err := <-ended:
			if stay || err != nil {
				t.Errorf("told to stay: %v: it ended (%v)", stay, err)
			}
		case <-time.After(200 * time.Millisecond):
			if !stay {
				t.Errorf("it goes on without us")
			}
			if err := h.process.Kill(); err != nil {
				t.Error(err)
			}
			<-ended
		}
	}
}

// TestHolderEndsWithItsHandle: also one that was told to stay ends with Remove.
func TestHolderEndsWithItsHandle(t *testing.T) {
	for _, stay := range []bool{false, true} {
		h, err := startHolder("nucleus-x.scope")
		if err != nil {
			t.Fatal(err)
		}
		if stay {
			if err := h.detach(); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.end(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", h.Pid)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("told to stay: %v: got %v, want no process", stay, err)
		}
	}
}
