package cgroup_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// argEnv is the argument of a role.
const argEnv = "NUCLEUS_CGROUP_TEST_ARG"

// spin counts as fast as it can, into a file.
func spin() {
	f, err := os.OpenFile(os.Getenv(argEnv), os.O_WRONLY, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var b [8]byte
	for n := uint64(1); ; n++ {
		binary.LittleEndian.PutUint64(b[:], n)
		if _, err := f.WriteAt(b[:], 0); err != nil {
			os.Exit(1)
		}
	}
}

// counter is the file that a spinning process counts into.
type counter string

// newCounter makes one and makes it the argument of the roles that are started next.
func newCounter(t *testing.T) counter {
	t.Helper()
	path := filepath.Join(t.TempDir(), "count")
	if err := os.WriteFile(path, make([]byte, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(argEnv, path)
	return counter(path)
}

func (c counter) read(t *testing.T) uint64 {
	t.Helper()
	b, err := os.ReadFile(string(c))
	if err != nil || len(b) != 8 {
		t.Fatalf("read the counter: %d bytes, %v", len(b), err)
	}
	return binary.LittleEndian.Uint64(b)
}

// moves waits until the counter has moved on.
func (c counter) moves(t *testing.T) {
	t.Helper()
	begin := c.read(t)
	eventually(t, "the counter moves", func() bool { return c.read(t) != begin })
}

// eventually waits for something that takes a moment.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second * sandboxtest.Slow()); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came about that %s", what)
		}
	}
}

// eachTracked is eachWay, and version 1 on its own where there is one: a hybrid
// machine freezes in version 2.
func eachTracked(t *testing.T, f func(*testing.T, facts.Cgroup)) {
	eachWay(t, f)
	t.Run("v1", func(t *testing.T) { f(t, onlyV1(t)) })
}

// onlyV1 is this machine without version 2.
func onlyV1(t *testing.T) facts.Cgroup {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.CgroupV1)
	c := probe(t)
	c.Mode, c.Systemd = facts.CgroupV1, nil
	c.Hierarchies = slices.DeleteFunc(slices.Clone(c.Hierarchies), func(h facts.CgroupHierarchy) bool { return h.Version == 2 })
	return c
}

// tracked makes a group as for a detached sandbox.
func tracked(t *testing.T, c facts.Cgroup) *cgroup.Group {
	t.Helper()
	return makeGroup(t, c, cgroup.Trackable(c)...)
}

func TestFreezeStopsProgress(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g, n := tracked(t, c), newCounter(t)
		start(t, c, g, "spin")
		n.moves(t)
		if frozen, err := g.Frozen(); err != nil || frozen {
			t.Fatalf("before: got %v, %v, want false", frozen, err)
		}
		for range 3 {
			if err := g.Freeze(); err != nil {
				t.Fatal(err)
			}
			stopped := n.read(t)
			if frozen, err := g.Frozen(); err != nil || !frozen {
				t.Errorf("frozen: got %v, %v, want true", frozen, err)
			}
			time.Sleep(50 * time.Millisecond)
			if now := n.read(t); now != stopped {
				t.Errorf("it counted on from %d to %d", stopped, now)
			}
			if err := g.Thaw(); err != nil {
				t.Fatal(err)
			}
			if frozen, err := g.Frozen(); err != nil || frozen {
				t.Errorf("thawed: got %v, %v, want false", frozen, err)
			}
			n.moves(t)
		}
	})
}

// TestNobodyJoinsFrozen: in version 1 our own thread would stand still with it.
func TestNobodyJoinsFrozen(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g := tracked(t, c)
		start(t, c, g, "wait")
		if err := g.Freeze(); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Enter(); !errors.Is(err, cgroup.ErrFrozen) {
			t.Errorf("Enter: got %v, want %v", err, cgroup.ErrFrozen)
		}
		if err := g.Add(os.Getpid()); !errors.Is(err, cgroup.ErrFrozen) {
			t.Errorf("Add: got %v, want %v", err, cgroup.ErrFrozen)
		}
		if err := g.Thaw(); err != nil {
			t.Fatal(err)
		}
		start(t, c, g, "wait")
	})
}

func TestKillFrozen(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g := tracked(t, c)
		cmd := start(t, c, g, "wait")
		if err := g.Freeze(); err != nil {
			t.Fatal(err)
		}
		if some, err := g.Populated(); err != nil || !some {
			t.Errorf("Populated: got %v, %v, want true", some, err)
		}
		begin := time.Now()
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("got %v, want signal: killed", err)
		}
		if d := time.Since(begin); d > time.Second*sandboxtest.Slow() {
			t.Errorf("it took %v", d)
		}
		if some, err := g.Populated(); err != nil || some {
			t.Errorf("Populated: got %v, %v, want false", some, err)
		}
	})
}

// TestFreezeEmpty: there is nobody to wait for.
func TestFreezeEmpty(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g := tracked(t, c)
		if c.Systemd != nil {
			if err := g.Freeze(); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a scope that was not made: got %v, want %v", err, fs.ErrNotExist)
			}
			return
		}
		if err := errors.Join(g.Freeze(), g.Thaw()); err != nil {
			t.Error(err)
		}
	})
}

func TestFreezeWithoutFreezer(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.CgroupV1)
	g := makeGroup(t, onlyV1(t), "pids")
	start(t, onlyV1(t), g, "wait")
	_, asked := g.Frozen()
	for name, err := range map[string]error{"Freeze": g.Freeze(), "Thaw": g.Thaw(), "Frozen": asked} {
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "freezer of version 1") {
			t.Errorf("%s: got %v, want an error that says what is missing", name, err)
		}
	}
	// It can be asked and ended without one.
	if some, err := g.Populated(); err != nil || !some {
		t.Errorf("Populated: got %v, %v, want true", some, err)
	}
}

// TestFreezeGivesUp has a process wait for a file system that never answers, in a
// system call that only death interrupts.
func TestFreezeGivesUp(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		g, n := tracked(t, c), newCounter(t)
		start(t, c, g, "spin")
		dir := deadFileSystem(t)
		t.Setenv(argEnv, filepath.Join(dir, "x"))
		stuck := start(t, c, g, "spin")
		eventually(t, "the process is in the system call", func() bool { return stuckInOpen(t, stuck.Process.Pid) })
		err := g.FreezeWithin(200 * time.Millisecond)
		if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "runs again") {
			t.Errorf("got %v, want the deadline and what is the case now", err)
		}
		n.moves(t)
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
	})
}

// stuckInOpen reports whether a thread of a process waits in openat and cannot be
// interrupted. Under load a process also waits like that for its own pages.
func stuckInOpen(t *testing.T, pid int) bool {
	t.Helper()
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(all, func(dir string) bool {
		state, _ := os.ReadFile(filepath.Join(dir, "stat"))
		call, _ := os.ReadFile(filepath.Join(dir, "syscall"))
		return strings.Contains(string(state), ") D ") && strings.HasPrefix(string(call), fmt.Sprintf("%d ", syscall.SYS_OPENAT))
	})
}

// deadFileSystem mounts one that nobody serves.
func deadFileSystem(t *testing.T) string {
	t.Helper()
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev.Fd())
	if err := syscall.Mount("nucleus-test", dir, "fuse", syscall.MS_NOSUID|syscall.MS_NODEV, options); err != nil {
		dev.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(dev.Close(), syscall.Unmount(dir, syscall.MNT_DETACH)); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestPidsAndPopulated(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g := tracked(t, c)
		if some, err := g.Populated(); err != nil || some {
			t.Errorf("new: got %v, %v, want false", some, err)
		}
		if pids, err := g.Pids(); err != nil || len(pids) != 0 {
			t.Errorf("new: got %v, %v, want none", pids, err)
		}
		first, second := start(t, c, g, "wait"), start(t, c, g, "wait")
		for _, path := range g.Paths() {
			below := filepath.Join(path, "below")
			if err := os.Mkdir(below, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(below, "cgroup.procs"), []byte(strconv.Itoa(second.Process.Pid)), 0); err != nil {
				t.Fatal(err)
			}
		}
		want := []int{first.Process.Pid, second.Process.Pid}
		slices.Sort(want)
		if pids, err := g.Pids(); err != nil || !slices.Equal(pids, want) {
			t.Errorf("got %v, %v, want %v", pids, err, want)
		}
		first.Process.Kill()
		first.Wait()
		if pids, err := g.Pids(); err != nil || !slices.Equal(pids, []int{second.Process.Pid}) {
			t.Errorf("got %v, %v, want %d", pids, err, second.Process.Pid)
		}
		if some, err := g.Populated(); err != nil || !some {
			t.Errorf("one below: got %v, %v, want true", some, err)
		}
		second.Process.Kill()
		second.Wait()
		if some, err := g.Populated(); err != nil || some {
			t.Errorf("at last: got %v, %v, want false", some, err)
		}
	})
}
