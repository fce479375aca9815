package cgroup_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// roleEnv makes the test binary play a workload instead.
const roleEnv = "NUCLEUS_CGROUP_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		sandboxtest.Main(m)
	}
	// A workload waits until it is let go, as a sandbox's first process does.
	os.Stdin.Read(make([]byte, 1))
	switch role {
	case "eat":
		eat()
	case "fork":
		forkMany()
	case "spin":
		spin()
	case "burn":
		for {
			runtime.Gosched()
		}
	case "hold":
		hold()
	case "write":
		writeThrough()
	case "maker":
		maker()
	case "user":
		user()
	}
}

// eat uses 256 MiB and is expected to be stopped on the way.
func eat() {
	for range 256 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		eaten = append(eaten, b)
	}
}

var eaten [][]byte

// forkMany exits with 3 when the kernel refuses it a process.
func forkMany() {
	for range 100 {
		c := exec.Command("/bin/sleep", "60")
		if err := c.Start(); errors.Is(err, syscall.EAGAIN) {
			os.Exit(3)
		} else if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(4)
		}
	}
}

// probe probes this machine.
func probe(t testing.TB) facts.Cgroup {
	t.Helper()
	c, err := host.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// eachWay runs a test in each way in which this process can get a group: the one
// that the probe proposes, and a directory at the top of the version 2 tree,
// which systemd machines do not propose but root may make.
func eachWay(t *testing.T, f func(*testing.T, facts.Cgroup)) {
	t.Run("probed", func(t *testing.T) {
		c := probe(t)
		if c.Systemd != nil {
			sandboxtest.Need(t, sandboxtest.Systemd)
		} else {
			sandboxtest.Need(t, sandboxtest.Cgroup)
		}
		f(t, c)
	})
	t.Run("v2", func(t *testing.T) {
		sandboxtest.Need(t, sandboxtest.Root, sandboxtest.CgroupV2)
		f(t, atTop(t, probe(t)))
	})
}

// atTop puts the group at the top of the version 2 tree.
func atTop(t *testing.T, c facts.Cgroup) facts.Cgroup {
	t.Helper()
	h, ok := c.Unified()
	if !ok {
		t.Fatal("no version 2 hierarchy")
	}
	h.Via, h.Parent = facts.CgroupMkdir, h.Mount
	read := func(file string) []string {
		data, err := os.ReadFile(filepath.Join(h.Mount, file))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(data))
	}
	h.Controllers, h.Enabled = read("cgroup.controllers"), read("cgroup.subtree_control")
	return facts.Cgroup{Mode: c.Mode, Hierarchies: []facts.CgroupHierarchy{h}, SwapAccounting: c.SwapAccounting, Swap: c.Swap}
}

var names atomic.Uint32

// name is a name for a group of this test.
func name() string { return fmt.Sprintf("nucleus-test-%d-%d", os.Getpid(), names.Add(1)) }

// makeGroup makes a group that is gone when the test ends.
func makeGroup(t testing.TB, c facts.Cgroup, controllers ...string) *cgroup.Group {
	t.Helper()
	g, err := cgroup.Create(c, name(), controllers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Kill(), g.Remove()); err != nil {
			t.Error(err)
		}
	})
	return g
}

// limited makes a group with limits, as a sandbox start does.
func limited(t *testing.T, c facts.Cgroup, l spec.Limits) *cgroup.Group {
	t.Helper()
	controllers, writes, missing := plan.LimitWrites(c, l)
	if len(missing) > 0 {
		t.Fatalf("missing: %v", missing)
	}
	g := makeGroup(t, c, controllers...)
	for _, w := range writes {
		if err := g.Write(w.Controller, w.File, w.Value); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// start starts the test binary in a role as a member of g, however a process
// gets into such a group, and lets it go unless it shall wait.
func start(t testing.TB, c facts.Cgroup, g *cgroup.Group, role string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	if dir := g.Dir(); dir != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	runtime.LockOSThread()
	leave, err := g.Enter()
	if err != nil {
		t.Fatal(err)
	}
	startErr := cmd.Start()
	if err := leave(); err != nil {
		t.Fatal(err)
	}
	runtime.UnlockOSThread()
	if startErr != nil {
		t.Fatal(startErr)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() // an error if the test has waited; both are fine
	})
	if c.Systemd != nil {
		if err := g.Add(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	if role != "wait" {
		stdin.Close()
	}
	return cmd
}

// members are the processes of a directory.
func members(t *testing.T, dir string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// usable are those of a list of controllers that can be used here.
func usable(t *testing.T, c facts.Cgroup, names ...string) []string {
	t.Helper()
	var out []string
	for _, n := range names {
		if h, ok := c.For(n); ok && h.Via != facts.CgroupDenied {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		t.Fatalf("none of %v can be used: %s", names, c)
	}
	return out
}

func TestBornInGroup(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		g := makeGroup(t, c, usable(t, c, "memory", "pids", "cpu")...)
		cmd := start(t, c, g, "wait")
		if len(g.Paths()) == 0 {
			t.Fatal("no path")
		}
		for _, path := range g.Paths() {
			if got := members(t, path); !slices.Equal(got, []string{strconv.Itoa(cmd.Process.Pid)}) {
				t.Errorf("%s: got %v, want %d", path, got, cmd.Process.Pid)
			}
		}
		own, err := os.ReadFile("/proc/thread-self/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(own), g.Name()) {
			t.Errorf("we are still in it:\n%s", own)
		}
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("after Kill: got %v, want signal: killed", err)
		}
	})
}

func TestCreateRefusesExisting(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		use := usable(t, c, "memory", "pids")
		g := makeGroup(t, c, use[len(use)-1])
		start(t, c, g, "wait")
		if c.Systemd != nil {
			again, err := cgroup.Create(c, g.Name(), use)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Add(os.Getpid()); !errors.Is(err, fs.ErrExist) {
				t.Errorf("a second scope of the same name: got %v, want file exists", err)
			}
			if err := again.Remove(); err != nil {
				t.Error(err)
			}
			return
		}
		_, err := cgroup.Create(c, g.Name(), use)
		if !errors.Is(err, fs.ErrExist) {
			t.Fatalf("got %v, want file exists", err)
		}
		// What the second attempt made before it failed is gone, what was there is not.
		for _, h := range c.Hierarchies {
			path := filepath.Join(h.Parent, g.Name())
			_, err := os.Stat(path)
			if there := err == nil; there != slices.Contains(g.Paths(), path) {
				t.Errorf("%s: exists: %v", path, there)
			}
		}
	})
}

// TestCreateRefusesEmpty: an empty group of the name is one that somebody has made
// for a program that is about to start.
func TestCreateRefusesEmpty(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		if c.Systemd != nil {
			return // a scope without processes does not exist
		}
		g := makeGroup(t, c, usable(t, c, "memory", "pids")...)
		if _, err := cgroup.Create(c, g.Name(), usable(t, c, "memory", "pids")); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v, want file exists", err)
		}
	})
}

func TestCreateRefusesNames(t *testing.T) {
	for _, name := range []string{"", "web", "nucleus-a/../b", "nucleus-a\n", "nucleus-" + strings.Repeat("x", 250)} {
		if _, err := cgroup.Create(facts.Cgroup{}, name, nil); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

func TestOOMKillIsCounted(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		g := limited(t, c, spec.Limits{Memory: 48 * spec.MiB})
		cmd := start(t, c, g, "eat")
		err := cmd.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("got %v, want signal: killed", err)
		}
		if n, err := g.OOMKills(); err != nil || n == 0 {
			t.Errorf("OOMKills: got %d, %v, want at least 1", n, err)
		}
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := g.OOMKills(); err != nil || s.OOMKills != n {
			t.Errorf("Stats.OOMKills: got %d, want %d (%v)", s.OOMKills, n, err)
		}
		if s.MemoryPeak < 24<<20 || s.MemoryPeak > 49<<20 {
			t.Errorf("peak: got %d, want about 48 MiB", s.MemoryPeak)
		}
	})
}

// TestNoOOMKillWithoutLimit is the control of the test above: the same workload
// ends by itself.
func TestNoOOMKillWithoutLimit(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		g := limited(t, c, spec.Limits{Memory: spec.GiB})
		if err := start(t, c, g, "eat").Wait(); err != nil {
			t.Errorf("got %v, want a good end", err)
		}
		if n, err := g.OOMKills(); err != nil || n != 0 {
			t.Errorf("OOMKills: got %d, %v, want 0", n, err)
		}
	})
}

func TestPidsLimitIsCounted(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		g := limited(t, c, spec.Limits{Pids: 12})
		cmd := start(t, c, g, "fork")
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != 3 {
			t.Errorf("exit: got %d, want 3 (EAGAIN)", got)
		}
		if n, err := g.PidsDenied(); err != nil || n == 0 {
			t.Errorf("PidsDenied: got %d, %v, want at least 1", n, err)
		}
		s, err := g.Stats()
		if err != nil || s.Pids == 0 || s.Pids > 13 {
			t.Errorf("tasks left running: got %d, %v, want 1 to 13", s.Pids, err)
		}
		// The cleanup kills the sleeping ones.
	})
}

func TestRemoveWaitsForTheLast(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		g := makeGroup(t, c, usable(t, c, "pids")...)
		cmd := start(t, c, g, "wait")
		path := g.Paths()[0]
		time.AfterFunc(50*time.Millisecond, func() { cmd.Process.Kill() })
		begin := time.Now()
		if err := g.Remove(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d < 40*time.Millisecond {
			t.Errorf("removed after %v, before the process was killed", d)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	})
}

// TestScopeOutlivesItsProcess shows what the holder is for: systemd removes a
// scope within milliseconds of the death of its last process.
func TestScopeOutlivesItsProcess(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Systemd)
	c := probe(t)
	if c.Systemd == nil {
		return // our group is delegated: a group below it is a directory, which nobody else removes
	}
	g := makeGroup(t, c, usable(t, c, "pids")...)
	cmd := start(t, c, g, "end")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	scope := filepath.Dir(g.Paths()[0])
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := g.PidsDenied(); err != nil {
			t.Fatalf("the counters are gone: %v", err)
		}
	}
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	// And no longer than that.
	for end := time.Now().Add(time.Second * sandboxtest.Slow()); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(scope); errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is still there", scope)
		}
	}
}

func TestRemoveTakesGroupsBelow(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		g := makeGroup(t, c, usable(t, c, "pids")...)
		start(t, c, g, "wait") // a scope has no directory without a process
		path := g.Paths()[0]
		if err := os.MkdirAll(filepath.Join(path, "a", "b"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(g.Kill(), g.Remove()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	})
}

func TestOpenFindsTheSameGroup(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		g := makeGroup(t, c, usable(t, c, "memory", "pids")...)
		cmd := start(t, c, g, "wait")
		again, err := cgroup.Open(c, g.Places())
		if err != nil {
			t.Fatal(err)
		}
		if again.Name() != g.Name() || !slices.Equal(again.Paths(), g.Paths()) {
			t.Errorf("got %s %v, want %s %v", again.Name(), again.Paths(), g.Name(), g.Paths())
		}
		if s, err := again.Stats(); err != nil || s.Pids == 0 {
			t.Errorf("Stats: got %+v, %v, want the tasks of one process", s, err)
		}
		// A second process joins, as with exec.
		second := start(t, c, again, "wait")
		for _, path := range again.Paths() {
			if got := members(t, path); !slices.Contains(got, strconv.Itoa(second.Process.Pid)) {
				t.Errorf("%s: got %v, want %d among them", path, got, second.Process.Pid)
			}
		}
		if err := again.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		second.Wait()
		if err := again.Remove(); err != nil {
			t.Error(err)
		}
		gone, err := cgroup.Open(c, g.Places())
		if err != nil || len(gone.Paths()) != 0 {
			t.Errorf("gone: got %v, %v, want an empty group", gone, err)
		}
	})
}

func TestOpenRefusesStrangers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nucleus-x")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "nucleus-y")
	if err := os.Symlink("/sys/fs/cgroup", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link, "/sys/fs/cgroup", "/", filepath.Dir(dir)} {
		if _, err := cgroup.Open(facts.Cgroup{}, []cgroup.Place{{Version: 2, Path: path}}); err == nil {
			t.Errorf("%s was opened", path)
		}
	}
}

// TestWriteSaysWhatAndWhere also shows that a limit the kernel refuses is an error.
func TestWriteSaysWhatAndWhere(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		g := makeGroup(t, c, usable(t, c, "pids")...)
		start(t, c, g, "wait")
		err := g.Write("pids", "pids.max", "many")
		want := fmt.Sprintf("write pids.max=many in %s: invalid argument", g.Paths()[0])
		if !errors.Is(err, syscall.EINVAL) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		err = g.Write("pids", "../"+g.Name()+"/pids.max", "10")
		if err == nil || !strings.Contains(err.Error(), "not the name of a control file") {
			t.Errorf("a path instead of a file: got %v", err)
		}
		if err := g.Write("rdma", "rdma.max", "max"); err == nil {
			t.Error("a controller that the group lacks was written to")
		}
	})
}

// TestLimitsRead writes every limit and reads them back as the kernel has them.
func TestLimitsRead(t *testing.T) {
	eachWay(t, func(t *testing.T, c facts.Cgroup) {
		l := spec.Limits{Memory: 64 * spec.MiB, MemorySwap: 96 * spec.MiB, MilliCPUs: 5, CPUWeight: 50, Pids: 33}
		if c.Systemd != nil {
			usable(t, c, "memory", "pids", "cpu")
		}
		g := limited(t, c, l)
		start(t, c, g, "wait")
		_, writes, _ := plan.LimitWrites(c, l)
		for _, w := range writes {
			for _, p := range g.Places() {
				if !slices.Contains(p.Controllers, w.Controller) {
					continue
				}
				got, err := os.ReadFile(filepath.Join(p.Path, w.File))
				if err != nil || strings.TrimSpace(string(got)) != w.Value {
					t.Errorf("%s: got %q, %v, want %s", w.File, got, err, w.Value)
				}
			}
		}
	})
}

// BenchmarkStart is what a limit costs a start, without the process itself.
func BenchmarkStart(b *testing.B) {
	sandboxtest.Need(b, sandboxtest.Root, sandboxtest.Cgroup)
	c, err := host.Cgroup()
	if err != nil {
		b.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		g, err := cgroup.Create(c, name(), []string{"memory", "pids"})
		if err != nil {
			b.Fatal(err)
		}
		leave, err := g.Enter()
		if err == nil {
			err = leave()
		}
		if err := errors.Join(err, g.Remove()); err != nil {
			b.Fatal(err)
		}
	}
}
