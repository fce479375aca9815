package cgroup_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// order is what a process of a role is told, and what it answers.
type order struct {
	Facts  facts.Cgroup
	Name   string
	Role   string // of the sandbox's process
	Places []cgroup.Place
	Pid    int
	Gone   bool   // let the scope go
	Go     string // the sandbox's process goes on when somebody writes to this pipe
}

// fork runs the test binary in a role, as another process, until it ends.
func fork(t *testing.T, role string, o order) order {
	t.Helper()
	arg, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role, argEnv+"="+string(arg))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", role, err, &stderr)
	}
	if err := json.Unmarshal(out, &o); err != nil {
		t.Fatalf("%s said %q: %v", role, out, err)
	}
	return o
}

// told is the other side of fork.
func told() order {
	var o order
	check(json.Unmarshal([]byte(os.Getenv(argEnv)), &o))
	return o
}

// check ends a role that failed.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// spawn starts a process in a group, in a role that begins when the pipe begin is
// opened for writing, and leaves it alone. It must not have children before Add,
// as a sandbox's process has none: they would stay behind.
func spawn(g *cgroup.Group, c facts.Cgroup, role, begin string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/bin/sh", "-c", `exec "$0" <"$1"`, self, begin)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	if dir := g.Dir(); dir != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	leave, err := g.Enter()
	if err != nil {
		return 0, err
	}
	err = errors.Join(cmd.Start(), leave())
	if err == nil && c.Systemd != nil {
		err = g.Add(cmd.Process.Pid)
	}
	if err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}

// maker starts a sandbox and ends, as "nucleus run -d" does.
func maker() {
	o := told()
	controllers, writes, _ := plan.LimitWrites(o.Facts, spec.Limits{Memory: 48 * spec.MiB})
	for _, c := range cgroup.Trackable(o.Facts) {
		if !slices.Contains(controllers, c) {
			controllers = append(controllers, c)
		}
	}
	g, err := cgroup.Create(o.Facts, o.Name, controllers)
	check(err)
	for _, w := range writes {
		check(g.Write(w.Controller, w.File, w.Value))
	}
	o.Pid, err = spawn(g, o.Facts, o.Role, o.Go)
	check(err)
	if o.Gone {
		o.Places = g.Places()
	} else {
		o.Places, err = g.Detach()
		check(err)
	}
	check(g.Close())
	check(json.NewEncoder(os.Stdout).Encode(o))
}

// user does with a group that another process made all that can be done.
func user() {
	o := told()
	g, err := cgroup.Open(o.Facts, o.Places)
	check(err)
	s, err := g.Stats()
	check(err)
	if s.Pids == 0 || s.MemoryLimit != 48<<20 {
		check(fmt.Errorf("stats: got %+v", s))
	}
	check(g.Freeze())
	frozen, err := g.Frozen()
	check(err)
	if !frozen {
		check(errors.New("not frozen"))
	}
	check(g.Thaw())
	check(g.Apply([]cgroup.Write{{Controller: "pids", File: "pids.max", Value: "77"}}))
	// And join it, as exec does.
	o.Pid, err = spawn(g, o.Facts, "wait", o.Go)
	check(err)
	pids, err := g.Pids()
	check(err)
	if !slices.Contains(pids, o.Pid) {
		check(fmt.Errorf("%d is not in the group: %v", o.Pid, pids))
	}
	check(g.Close())
	check(json.NewEncoder(os.Stdout).Encode(o))
}

// detached makes a detached group whose process waits for the file o.Go.
func detached(t *testing.T, c facts.Cgroup, role string, letGo bool) (order, *cgroup.Group) {
	t.Helper()
	pipe := filepath.Join(t.TempDir(), "go")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	o := fork(t, "maker", order{Facts: c, Name: name(), Role: role, Gone: letGo, Go: pipe})
	g, err := cgroup.Open(c, o.Places)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Kill(), g.Remove()); err != nil {
			t.Error(err)
		}
	})
	return o, g
}

// letGo lets the sandbox's process begin.
func (o order) letGo(t *testing.T) {
	t.Helper()
	eventually(t, "the process waits", func() bool {
		f, err := os.OpenFile(o.Go, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			err = f.Close()
		}
		return err == nil
	})
}

// TestDetached: the maker is gone, the group is not; the counter of processes that
// ran out of memory is there when they are all dead, and the rest goes with Remove.
func TestDetached(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		o, g := detached(t, c, "eat", false)
		holder := o.Places[len(o.Places)-1].Holder
		if (holder != nil) != (c.Systemd != nil) {
			t.Errorf("holder: got %+v, want one for a scope", holder)
		}
		if pids, err := g.Pids(); err != nil || !slices.Contains(pids, o.Pid) {
			t.Fatalf("got %v, %v, want %d among them", pids, err, o.Pid)
		}
		o.letGo(t)
		eventually(t, "all are dead", func() bool {
			some, err := g.Populated()
			if err != nil {
				t.Fatal(err)
			}
			return !some
		})
		if err := g.Close(); err != nil { // a program that only looked
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond) // systemd removes a scope within milliseconds
		g, err := cgroup.Open(c, o.Places)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := g.OOMKills(); err != nil || n == 0 {
			t.Errorf("OOMKills: got %d, %v, want at least 1", n, err)
		}
		if err := g.Remove(); err != nil {
			t.Fatal(err)
		}
		for _, p := range o.Places {
			eventually(t, p.Path+" is gone", func() bool {
				_, err := os.Stat(p.Path)
				return errors.Is(err, fs.ErrNotExist)
			})
		}
		if holder != nil {
			eventually(t, "the holder and its scope are gone", func() bool {
				_, err := os.Stat(filepath.Dir(o.Places[len(o.Places)-1].Path))
				_, perr := os.Stat(fmt.Sprintf("/proc/%d", holder.Pid))
				return errors.Is(err, fs.ErrNotExist) && errors.Is(perr, fs.ErrNotExist)
			})
		}
	})
}

// TestNotDetached is the control: without Detach a scope ends with its process.
func TestNotDetached(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Systemd)
	c := probe(t)
	if c.Systemd == nil {
		return // a directory stays, whoever made it
	}
	o, _ := detached(t, c, "eat", true)
	o.letGo(t)
	eventually(t, "the scope is gone", func() bool {
		_, err := os.Stat(filepath.Dir(o.Places[0].Path))
		return errors.Is(err, fs.ErrNotExist)
	})
}

// TestAnotherProcessUsesTheGroup has a third process do everything with it.
func TestAnotherProcessUsesTheGroup(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		o, g := detached(t, c, "wait", false)
		joined := fork(t, "user", order{Facts: c, Places: o.Places, Go: o.Go}).Pid
		for _, path := range g.Paths() {
			got := strings.Join(members(t, path), " ")
			if !strings.Contains(got, fmt.Sprint(o.Pid)) || !strings.Contains(got, fmt.Sprint(joined)) {
				t.Errorf("%s: got %s, want %d and %d", path, got, o.Pid, joined)
			}
		}
		if got, err := g.Read("pids", "pids.max"); err != nil || got != "77" {
			t.Errorf("pids.max: got %s, %v, want 77", got, err)
		}
	})
}

// TestOpenFindsTheWayBack: a hybrid machine has two freezers, and the group may
// have been made in the one that is not used any more.
func TestOpenFindsTheWayBack(t *testing.T) {
	g := makeGroup(t, onlyV1(t), facts.Freezer)
	again, err := cgroup.Open(probe(t), g.Places())
	if err != nil {
		t.Fatal(err)
	}
	cmd := start(t, probe(t), again, "wait")
	if pids, err := g.Pids(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("got %v, %v, want %d alone", pids, err, cmd.Process.Pid)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	lost, err := cgroup.Open(facts.Cgroup{}, g.Places())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lost.Enter(); err == nil {
		t.Error("a thread could enter that would not find out again")
	}
	if err := lost.Close(); err != nil {
		t.Error(err)
	}
}

// TestDetachBeforeTheScope says that there is nothing yet that could stay.
func TestDetachBeforeTheScope(t *testing.T) {
	c := facts.Cgroup{Mode: facts.CgroupV2, Systemd: &facts.CgroupSystemd{Socket: "/nonexistent"}, Hierarchies: []facts.CgroupHierarchy{
		{Version: 2, Mount: "/sys/fs/cgroup", Via: facts.CgroupScope, Controllers: []string{"memory"}}}}
	g, err := cgroup.Create(c, name(), []string{"memory", facts.Freezer})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Detach(); err == nil {
		t.Error("a scope that does not exist was detached")
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}
