package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/spec"
)

// Machines that limits are translated for.
var (
	onV2 = facts.Cgroup{Mode: facts.CgroupV2, SwapAccounting: true, Hierarchies: []facts.CgroupHierarchy{
		{Version: 2, Mount: "/sys/fs/cgroup", Own: "/sys/fs/cgroup", Parent: "/sys/fs/cgroup", Via: facts.CgroupMkdir,
			Controllers: []string{"cpu", "io", "memory", "pids"}},
	}}
	onV1 = facts.Cgroup{Mode: facts.CgroupV1, SwapAccounting: true, Hierarchies: []facts.CgroupHierarchy{
		v1Hierarchy("pids"), v1Hierarchy("blkio"), v1Hierarchy("memory"), v1Hierarchy("cpu"),
	}}
	onHybrid = facts.Cgroup{Mode: facts.CgroupHybrid, SwapAccounting: true, Hierarchies: []facts.CgroupHierarchy{
		v1Hierarchy("pids"), v1Hierarchy("cpu"),
		{Version: 2, Mount: "/sys/fs/cgroup/unified", Own: "/sys/fs/cgroup/unified", Parent: "/sys/fs/cgroup/unified",
			Via: facts.CgroupMkdir, Controllers: []string{"memory", "io"}},
	}}
	onUserSystemd = facts.Cgroup{Mode: facts.CgroupV2, SwapAccounting: true,
		Systemd: &facts.CgroupSystemd{User: true, Socket: "/run/user/1000/systemd/private"},
		Hierarchies: []facts.CgroupHierarchy{{Version: 2, Mount: "/sys/fs/cgroup", Own: "/sys/fs/cgroup/x",
			Via: facts.CgroupScope, Controllers: []string{"memory", "pids"}}},
	}
	onDenied = facts.Cgroup{Mode: facts.CgroupV1, SwapAccounting: true, Hierarchies: []facts.CgroupHierarchy{
		{Version: 1, Mount: "/m", Own: "/m", Controllers: []string{"memory"}, Why: "may not", Fix: "be root"},
		{Version: 1, Mount: "/p", Own: "/p", Controllers: []string{"pids"}, Why: "may not", Fix: "be root"},
	}}
)

func v1Hierarchy(controllers ...string) facts.CgroupHierarchy {
	dir := "/sys/fs/cgroup/" + strings.Join(controllers, ",")
	return facts.CgroupHierarchy{Version: 1, Mount: dir, Own: dir, Parent: dir, Via: facts.CgroupMkdir, Controllers: controllers}
}

// without changes what a machine knows about swap.
func without(c facts.Cgroup, swap bool) facts.Cgroup {
	c.SwapAccounting, c.Swap = false, swap
	return c
}

// allLimits asks for one of everything.
var allLimits = spec.Limits{
	Memory: 512 * spec.MiB, MemorySwap: spec.GiB, MilliCPUs: 1500, CPUWeight: 200, Pids: 64,
	IO: []spec.IOLimit{{Major: 8, ReadBPS: 1 << 20, WriteIOPS: 100}, {Major: 8, Minor: 16, WriteBPS: 4096, ReadIOPS: 7}},
}

var limitTests = []struct {
	name   string
	facts  facts.Cgroup
	limits spec.Limits
	want   string
}{
	{"nothing asked", onV2, spec.Limits{}, ""},
	{"default tasks alone", onV2, spec.Limits{MilliCPUs: 0, Pids: 0}, ""},
	{"no limit on tasks", onV2, spec.Limits{Pids: spec.Unlimited}, ""},
	{"everything, v2", onV2, allLimits, `
		memory memory.max=536870912 (limits.memory)
		memory memory.swap.max=536870912 (limits.memory_swap)
		memory memory.oom.group=1 (limits.memory)
		cpu cpu.max=150000 100000 (limits.milli_cpus)
		cpu cpu.weight=200 (limits.cpu_weight)
		io io.max=8:0 rbps=1048576 wiops=100 (limits.io[0])
		io io.max=8:16 wbps=4096 riops=7 (limits.io[1])
		pids pids.max=65 (limits.pids)`},
	{"everything, v1", onV1, allLimits, `
		memory memory.limit_in_bytes=536870912 (limits.memory)
		memory memory.memsw.limit_in_bytes=1073741824 (limits.memory_swap)
		cpu cpu.cfs_period_us=100000 (limits.milli_cpus)
		cpu cpu.cfs_quota_us=150000 (limits.milli_cpus)
		cpu cpu.shares=2048 (limits.cpu_weight)
		blkio blkio.throttle.read_bps_device=8:0 1048576 (limits.io[0])
		blkio blkio.throttle.write_iops_device=8:0 100 (limits.io[0])
		blkio blkio.throttle.write_bps_device=8:16 4096 (limits.io[1])
		blkio blkio.throttle.read_iops_device=8:16 7 (limits.io[1])
		pids pids.max=65 (limits.pids)`},
	{"everything, hybrid", onHybrid, allLimits, `
		memory memory.max=536870912 (limits.memory)
		memory memory.swap.max=536870912 (limits.memory_swap)
		memory memory.oom.group=1 (limits.memory)
		cpu cpu.cfs_period_us=100000 (limits.milli_cpus)
		cpu cpu.cfs_quota_us=150000 (limits.milli_cpus)
		cpu cpu.shares=2048 (limits.cpu_weight)
		io io.max=8:0 rbps=1048576 wiops=100 (limits.io[0])
		io io.max=8:16 wbps=4096 riops=7 (limits.io[1])
		pids pids.max=65 (limits.pids)`},
	{"memory brings the default on tasks, no swap", onV2, spec.Limits{Memory: 64 * spec.MiB}, `
		memory memory.max=67108864 (limits.memory)
		memory memory.swap.max=0 (limits.memory)
		memory memory.oom.group=1 (limits.memory)
		pids pids.max=513 (limits.pids)`},
	{"memory and any number of tasks", onV1, spec.Limits{Memory: 64 * spec.MiB, Pids: spec.Unlimited}, `
		memory memory.limit_in_bytes=67108864 (limits.memory)
		memory memory.memsw.limit_in_bytes=67108864 (limits.memory)`},
	{"no accounting, no swap, v1", without(onV1, false), spec.Limits{Memory: 64 * spec.MiB, Pids: -1}, `
		memory memory.limit_in_bytes=67108864 (limits.memory)`},
	{"no accounting, swap, v1", without(onV1, true), spec.Limits{Memory: 64 * spec.MiB, Pids: -1}, `
		memory memory.limit_in_bytes=67108864 (limits.memory)
		missing limits.memory: this kernel does not account for swap, and the machine has some`},
	{"no accounting, swap, v2", without(onV2, true), spec.Limits{Memory: 64 * spec.MiB, MemorySwap: spec.GiB, Pids: -1}, `
		memory memory.max=67108864 (limits.memory)
		memory memory.oom.group=1 (limits.memory)
		missing limits.memory_swap: this kernel does not account for swap, and the machine has some`},
	{"swap without memory", onV2, spec.Limits{MemorySwap: spec.GiB}, `
		missing limits.memory_swap: memory and swap together are bounded only together with memory`},
	{"one thousandth of a processor", onV2, spec.Limits{MilliCPUs: 1, Pids: -1}, `
		cpu cpu.max=1000 1000000 (limits.milli_cpus)`},
	{"the least in a usual period", onV2, spec.Limits{MilliCPUs: 10, Pids: -1}, `
		cpu cpu.max=1000 100000 (limits.milli_cpus)`},
	{"least and most weight, v1", onV1, spec.Limits{CPUWeight: 1, Pids: -1}, `
		cpu cpu.shares=10 (limits.cpu_weight)`},
	{"most weight, v1", onV1, spec.Limits{CPUWeight: 10000, Pids: -1}, `
		cpu cpu.shares=102400 (limits.cpu_weight)`},
	{"an empty device", onV2, spec.Limits{IO: []spec.IOLimit{{Major: 8}}, Pids: -1}, ``},
	{"systemd lacks a controller", onUserSystemd, spec.Limits{MilliCPUs: 500, Pids: 8}, `
		pids pids.max=9 (limits.pids)
		missing limits.milli_cpus: no control group hierarchy here has the cpu controller [let the system manager delegate it: Delegate=cpu in a drop-in for user@.service]`},
	{"denied", onDenied, spec.Limits{Memory: 64 * spec.MiB}, `
		missing limits.memory: may not [be root]`},
	{"denied tasks are asked for", onDenied, spec.Limits{Pids: 5}, `
		missing limits.pids: may not [be root]`},
	{"no control groups", facts.Cgroup{Mode: facts.CgroupNone}, spec.Limits{Pids: 5}, `
		missing limits.pids: no control group hierarchy here has the pids controller [mount a control group hierarchy, usually at /sys/fs/cgroup]`},
}

func TestLimitWrites(t *testing.T) {
	for _, tt := range limitTests {
		t.Run(tt.name, func(t *testing.T) {
			controllers, writes, missing := LimitWrites(tt.facts, tt.limits)
			got := limitLines(writes, missing)
			want := strings.TrimSpace(strings.ReplaceAll(tt.want, "\t", ""))
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			for _, w := range writes {
				if !slices.Contains(controllers, w.Controller) {
					t.Errorf("%s is written but %s is not among %v", w.File, w.Controller, controllers)
				}
			}
		})
	}
}

// limitLines prints a result. A fix is printed where a test is about it: the
// one about swap is long and the same everywhere.
func limitLines(writes []CgroupWrite, missing []MissingLimit) string {
	var lines []string
	for _, w := range writes {
		lines = append(lines, fmt.Sprintf("%s %s=%s (%s)", w.Controller, w.File, w.Value, w.Because))
	}
	for _, m := range missing {
		line := "missing " + m.Field + ": " + m.Why
		if m.Fix != "" && !strings.Contains(m.Why, "swap") {
			line += " [" + m.Fix + "]"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// TestEveryAskedLimitIsWrittenOrMissing is the promise that nothing is weakened
// silently, over every combination of one machine and one limit.
func TestEveryAskedLimitIsWrittenOrMissing(t *testing.T) {
	machines := []facts.Cgroup{onV1, onV2, onHybrid, onUserSystemd, onDenied, {}, without(onV1, true), without(onV2, true)}
	asked := map[string]spec.Limits{
		"limits.memory":      {Memory: 64 * spec.MiB},
		"limits.memory_swap": {Memory: 64 * spec.MiB, MemorySwap: 65 * spec.MiB},
		"limits.milli_cpus":  {MilliCPUs: 3},
		"limits.cpu_weight":  {CPUWeight: 3},
		"limits.pids":        {Pids: 3},
		"limits.io":          {IO: []spec.IOLimit{{Major: 1, ReadBPS: 5}}},
	}
	for i, c := range machines {
		for field, l := range asked {
			_, writes, missing := LimitWrites(c, l)
			written := slices.ContainsFunc(writes, func(w CgroupWrite) bool { return strings.HasPrefix(w.Because, field) })
			lacks := slices.ContainsFunc(missing, func(m MissingLimit) bool {
				// Without the limit on memory, the one on swap has no place.
				return m.Field == field || field == "limits.memory_swap" && m.Field == "limits.memory"
			})
			if !written && !lacks {
				t.Errorf("machine %d: %s is neither written nor missing", i, field)
			}
		}
	}
}
