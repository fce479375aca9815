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
	switch os.Getenv(roleEnv) {
	case "":
		sandboxtest.Main(m)
	case "wait":
		os.Stdin.Read(make([]byte, 1))
	case "eat":
		eat()
	case "fork":
		forkMany()
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

// facts probes this machine.
func probe(t *testing.T) facts.Cgroup {
	t.Helper()
	c, err := host.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// name is a name for a group of this test.
func name(t *testing.T) string {
	return fmt.Sprintf("nucleus-test-%d-%s", os.Getpid(), strings.ToLower(filepath.Base(t.Name())))
}

// makeGroup makes a group that is gone when the test ends.
func makeGroup(t *testing.T, controllers ...string) *cgroup.Group {
	t.Helper()
	g, err := cgroup.Create(probe(t), name(t), controllers)
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
func limited(t *testing.T, l spec.Limits) *cgroup.Group {
	t.Helper()
	controllers, writes, missing := plan.LimitWrites(probe(t), l)
	if len(missing) > 0 {
		t.Fatalf("missing: %v", missing)
	}
	g := makeGroup(t, controllers...)
	for _, w := range writes {
		if err := g.Write(w.Controller, w.File, w.Value); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// start starts the test binary in a role as a member of g, in all three ways.
func start(t *testing.T, g *cgroup.Group, role string) *exec.Cmd {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), roleEnv+"="+role, "GOMAXPROCS=1")
	c.Stderr = os.Stderr
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	if dir := g.Dir(); dir != nil {
		c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	runtime.LockOSThread()
	leave, err := g.Enter()
	if err != nil {
		t.Fatal(err)
	}
	startErr := c.Start()
	if err := leave(); err != nil {
		t.Fatal(err)
	}
	runtime.UnlockOSThread()
	if startErr != nil {
		t.Fatal(startErr)
	}
	return c
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

// controllersHere are those of a list that can be used on this machine.
func controllersHere(t *testing.T, names ...string) []string {
	t.Helper()
	c := probe(t)
	var out []string
	for _, n := range names {
		if h, ok := c.For(n); ok && h.Via == facts.CgroupMkdir {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		t.Fatalf("none of %v can be used: %s", names, c)
	}
	return out
}

func TestBornInGroup(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root, sandboxtest.Cgroup)
	g := makeGroup(t, controllersHere(t, "memory", "pids", "cpu")...)
	c := start(t, g, "wait")
	for _, path := range g.Paths() {
		if got := members(t, path); !slices.Equal(got, []string{strconv.Itoa(c.Process.Pid)}) {
			t.Errorf("%s: got %v, want %d", path, got, c.Process.Pid)
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
	c.Wait()
}

func TestCreateRefusesExisting(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root, sandboxtest.Cgroup)
	use := controllersHere(t, "memory", "pids")
	g := makeGroup(t, use[len(use)-1])
	_, err := cgroup.Create(probe(t), g.Name(), use)
	if !errors.Is(err, fs.ErrExist) {
		t.Fatalf("got %v, want file exists", err)
	}
	// What the second attempt made before it failed is gone, what was there is not.
	for _, h := range probe(t).Hierarchies {
		path := filepath.Join(h.Parent, g.Name())
		_, err := os.Stat(path)
		if there := err == nil; there != slices.Contains(g.Paths(), path) {
			t.Errorf("%s: exists: %v", path, there)
		}
	}
}

func TestOOMKillIsCounted(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root, sandboxtest.Cgroup)
	g := limited(t, spec.Limits{Memory: 48 * spec.MiB})
	c := start(t, g, "eat")
	err := c.Wait()
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
	if s.MemoryPeak < 24<<20 || s.MemoryPeak > 49<<20 {
		t.Errorf("peak: got %d, want about 48 MiB", s.MemoryPeak)
	}
}

func TestPidsLimitIsCounted(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root, sandboxtest.Cgroup)
	g := limited(t, spec.Limits{Pids: 12})
	c := start(t, g, "fork")
	c.Wait()
	if got := c.ProcessState.ExitCode(); got != 3 {
		t.Errorf("exit: got %d, want 3 (EAGAIN)", got)
	}
	if n, err := g.PidsDenied(); err != nil || n == 0 {
		t.Errorf("PidsDenied: got %d, %v, want at least 1", n, err)
	}
	s, err := g.Stats()
	if err != nil || s.Pids == 0 || s.Pids > 12 {
		t.Errorf("tasks left running: got %d, %v, want 1 to 12", s.Pids, err)
	}
	// The cleanup kills the sleeping ones.
}

func TestRemoveWaitsForTheLast(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root, sandboxtest.Cgroup)
	g := makeGroup(t, controllersHere(t, "pids")...)
	path := g.Paths()[0]
	c := start(t, g, "wait")
	time.AfterFunc(50*time.Millisecond, func() { c.Process.Kill() })
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
	c.Wait()
}
