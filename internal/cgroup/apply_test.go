package cgroup_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// writesFor are the writes that limits need here.
func writesFor(t *testing.T, c facts.Cgroup, l spec.Limits) []cgroup.Write {
	t.Helper()
	_, writes, missing := plan.LimitWrites(c, l)
	if len(missing) > 0 {
		t.Fatalf("missing: %v", missing)
	}
	var all []cgroup.Write
	for _, w := range writes {
		all = append(all, cgroup.Write{Controller: w.Controller, File: w.File, Value: w.Value})
	}
	return all
}

// holds fails unless the kernel has the values of writes.
func holds(t *testing.T, g *cgroup.Group, writes []cgroup.Write) {
	t.Helper()
	for _, w := range writes {
		if got, err := g.Read(w.Controller, w.File); err != nil || got != w.Value {
			t.Errorf("%s: got %q, %v, want %s", w.File, got, err, w.Value)
		}
	}
}

// TestApply raises and lowers the limits of a group in use, in both orders of the
// writes: version 1 refuses the wrong one.
func TestApply(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		small := spec.Limits{Memory: 64 * spec.MiB, MemorySwap: 96 * spec.MiB, MilliCPUs: 5, CPUWeight: 50, Pids: 33}
		large := spec.Limits{Memory: 256 * spec.MiB, MemorySwap: 512 * spec.MiB, MilliCPUs: 1500, CPUWeight: 200, Pids: 99}
		g := limited(t, c, small)
		start(t, c, g, "wait")
		for range 2 {
			for _, reverse := range []bool{false, true} {
				for _, l := range []spec.Limits{large, small} {
					writes := writesFor(t, c, l)
					if reverse {
						slices.Reverse(writes)
					}
					given := slices.Clone(writes)
					if err := g.Apply(writes); err != nil {
						t.Fatalf("%+v, reversed %v: %v", l, reverse, err)
					}
					holds(t, g, writes)
					if !slices.Equal(writes, given) {
						t.Error("the caller's list was changed")
					}
				}
			}
		}
	})
}

// TestApplyMemoryOrder is about the one pair of files of which the kernel has one
// above the other. The controls show that the kernel does refuse.
func TestApplyMemoryOrder(t *testing.T) {
	c := onlyV1(t)
	if !c.SwapAccounting {
		t.Log("this kernel does not account for swap: there is no such pair")
		return
	}
	small, large := spec.Limits{Memory: 64 * spec.MiB, MemorySwap: 96 * spec.MiB}, spec.Limits{Memory: 128 * spec.MiB, MemorySwap: 256 * spec.MiB}
	g := limited(t, c, small)
	up, down := writesFor(t, c, large), writesFor(t, c, small)
	if err := g.Write(up[0].Controller, up[0].File, up[0].Value); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("%s first: got %v, want a refusal", up[0], err)
	}
	if err := g.Apply(up); err != nil {
		t.Fatal(err)
	}
	holds(t, g, up)
	if err := g.Write(down[1].Controller, down[1].File, down[1].Value); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("%s first: got %v, want a refusal", down[1], err)
	}
	if err := g.Apply(down); err != nil {
		t.Fatal(err)
	}
	holds(t, g, down)
	none := []cgroup.Write{{Controller: "memory", File: "memory.limit_in_bytes", Value: "-1"}, {Controller: "memory", File: "memory.memsw.limit_in_bytes", Value: "-1"}}
	if err := g.Apply(none); err != nil {
		t.Errorf("no limits: %v", err)
	}
	if s := stats(t, g); s.MemoryLimit != 0 {
		t.Errorf("limit: got %d, want none", s.MemoryLimit)
	}
}

// TestApplyQuotaOrder has a group above with a limit that must not be exceeded on
// the way from one share below it to another.
func TestApplyQuotaOrder(t *testing.T) {
	c := onlyV1(t)
	above := limited(t, c, spec.Limits{MilliCPUs: 500})
	i := slices.IndexFunc(c.Hierarchies, func(h facts.CgroupHierarchy) bool { return slices.Contains(h.Controllers, "cpu") })
	c.Hierarchies[i].Parent = above.Paths()[0]
	if !slices.Contains(above.Places()[0].Controllers, "cpu") {
		t.Fatalf("got %v, want cpu first", above.Places())
	}
	g := makeGroup(t, c, "cpu")
	long := []cgroup.Write{{Controller: "cpu", File: "cpu.cfs_period_us", Value: "1000000"}, {Controller: "cpu", File: "cpu.cfs_quota_us", Value: "450000"}}
	short := []cgroup.Write{{Controller: "cpu", File: "cpu.cfs_period_us", Value: "100000"}, {Controller: "cpu", File: "cpu.cfs_quota_us", Value: "40000"}}
	for range 2 {
		for _, writes := range [][]cgroup.Write{long, short} {
			if err := g.Apply(writes); err != nil {
				t.Fatal(err)
			}
			holds(t, g, writes)
		}
	}
	if err := errors.Join(g.Apply(long), g.Write("cpu", "cpu.cfs_period_us", "100000")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("the period first: got %v, want a refusal", err)
	}
}

// TestApplyIsAllOrNothing lets the last write fail.
func TestApplyIsAllOrNothing(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		l := spec.Limits{Memory: 64 * spec.MiB, MemorySwap: 96 * spec.MiB, MilliCPUs: 250, Pids: 33}
		g := limited(t, c, l)
		start(t, c, g, "wait")
		before := writesFor(t, c, l)
		bad := cgroup.Write{Controller: "pids", File: "pids.max", Value: "many"}
		all := append(writesFor(t, c, spec.Limits{Memory: 256 * spec.MiB, MemorySwap: 512 * spec.MiB, MilliCPUs: 5, Pids: 99}), bad)
		err := g.Apply(all)
		if !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "earlier values again") || !strings.Contains(err.Error(), "pids.max=many") {
			t.Errorf("got %v, want what was refused and what is the case now", err)
		}
		holds(t, g, before)
		if err := g.Apply([]cgroup.Write{bad}); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("got %v, want that nothing was changed", err)
		}
		if err := g.Apply([]cgroup.Write{before[0], {Controller: "rdma", File: "rdma.max", Value: "1"}}); err == nil || !strings.Contains(err.Error(), "no controller rdma") {
			t.Errorf("got %v, want that there is no such controller", err)
		}
		// The control: without Apply the first writes stay.
		for _, w := range all[:len(all)-1] {
			g.Write(w.Controller, w.File, w.Value)
		}
		if got, err := g.Read("pids", "pids.max"); err != nil || got != "100" {
			t.Errorf("pids.max: got %s, %v, want 100", got, err)
		}
	})
}

// TestApplyTakesDevicesBack: such a file has a line for each device, and reads
// differently from what is written.
func TestApplyTakesDevicesBack(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g := tracked(t, c)
		start(t, c, g, "wait")
		disk := diskOf(t, "/var/tmp")
		w := cgroup.Write{Controller: "blkio", File: "blkio.throttle.read_bps_device", Value: disk + " 1073741824"}
		other := cgroup.Write{Controller: "blkio", File: w.File, Value: disk + " 2147483648"}
		if _, ok := c.For("blkio"); !ok {
			w = cgroup.Write{Controller: "io", File: "io.max", Value: disk + " rbps=1073741824 wbps=max riops=max wiops=max"}
			other = cgroup.Write{Controller: "io", File: w.File, Value: disk + " rbps=2147483648"}
		}
		bad := cgroup.Write{Controller: "pids", File: "pids.max", Value: "many"}
		if err := g.Apply([]cgroup.Write{w, bad}); !errors.Is(err, syscall.EINVAL) || strings.Contains(err.Error(), "could not") {
			t.Fatalf("got %v, want the refusal alone", err)
		}
		if got, err := g.Read(w.Controller, w.File); err != nil || strings.Contains(got, disk) {
			t.Errorf("got %q, %v, want no limit for %s", got, err, disk)
		}
		if err := g.Apply([]cgroup.Write{w}); err != nil {
			t.Fatal(err)
		}
		if err := g.Apply([]cgroup.Write{other, bad}); !errors.Is(err, syscall.EINVAL) || strings.Contains(err.Error(), "could not") {
			t.Fatalf("got %v, want the refusal alone", err)
		}
		holds(t, g, []cgroup.Write{w})
	})
}

// TestApplyBelowUse: version 1 refuses a memory limit that cannot be met, and
// version 2 meets it.
func TestApplyBelowUse(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		before := spec.Limits{Memory: 256 * spec.MiB, Pids: 33}
		g, path := limited(t, c, before), onDisk(t)
		cmd := start(t, c, g, "hold")
		eventually(t, "memory is held", func() bool {
			_, err := os.Stat(path + ".done")
			return err == nil
		})
		err := g.Apply(writesFor(t, c, spec.Limits{Memory: 16 * spec.MiB, Pids: 99}))
		if h, _ := c.For("memory"); h.Version == 2 {
			n, oerr := g.OOMKills()
			if err != nil || oerr != nil || n == 0 {
				t.Errorf("got %v, %d killed, %v, want the limit and at least one killed", err, n, oerr)
			}
			cmd.Wait()
			return
		}
		if !errors.Is(err, syscall.EBUSY) {
			t.Errorf("got %v, want device or resource busy", err)
		}
		holds(t, g, writesFor(t, c, before))
		if s := stats(t, g); s.OOMKills != 0 || s.Memory < held {
			t.Errorf("got %+v, want nobody harmed", s)
		}
	})
}

// TestApplyWaitsForTheScope: what is applied before there is one is not lost.
func TestApplyWaitsForTheScope(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Systemd)
	c := probe(t)
	if c.Systemd == nil {
		return
	}
	g := makeGroup(t, c, "pids")
	w := cgroup.Write{Controller: "pids", File: "pids.max", Value: fmt.Sprint(44)}
	if err := g.Apply([]cgroup.Write{w}); err != nil {
		t.Fatal(err)
	}
	start(t, c, g, "wait")
	holds(t, g, []cgroup.Write{w})
}
