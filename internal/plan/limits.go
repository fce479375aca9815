package plan

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/spec"
)

// CgroupWrite is one control file of the sandbox's group and what is written to it.
type CgroupWrite struct {
	// Controller is the kernel's name of the controller that owns the file.
	Controller string `json:"controller"`
	File       string `json:"file"`
	Value      string `json:"value"`
	// Because names the field of the Spec that asked for it.
	Because string `json:"because"`
}

// MissingLimit is a limit that was asked for and that this machine cannot enforce.
type MissingLimit struct {
	Field string `json:"field"` // of the Spec
	Why   string `json:"why"`
	Fix   string `json:"fix,omitempty"` // what to do; empty rather than vague
}

// cpuPeriod is the kernel's default accounting period in microseconds, and
// cpuPeriodMax the longest that it accepts. The kernel refuses a quota below 1000.
const (
	cpuPeriod    = 100_000
	cpuPeriodMax = 1_000_000
	cpuQuotaMin  = 1_000
)

// LimitWrites translates limits to writes to control files, in the order in
// which they must be made, and names the controllers that the group needs.
//
// The default limit on tasks needs no group of its own: it is included only if
// another limit makes a group anyway, and is never missing. Memory is bounded
// by the hard limit alone: a soft one (memory.high) throttles a workload that is
// close to it without bound instead of ending it, which looks like a hang.
func LimitWrites(c facts.Cgroup, l spec.Limits) (controllers []string, writes []CgroupWrite, missing []MissingLimit) {
	b := limitBuilder{facts: c, limits: l}
	b.memory()
	b.cpu()
	b.io()
	b.pids()
	return b.controllers, b.writes, b.missing
}

// limitBuilder collects the result of LimitWrites.
type limitBuilder struct {
	facts       facts.Cgroup
	limits      spec.Limits
	controllers []string
	writes      []CgroupWrite
	missing     []MissingLimit
}

// use returns the version of the hierarchy that has the controller, under its
// name in either version, or 0 after noting that field is missing.
func (b *limitBuilder) use(v2name, v1name, field string) (controller string, version int) {
	h, name, ok := b.find(v2name, v1name)
	switch {
	case !ok:
		b.miss(field, "no control group hierarchy here has the "+v2name+" controller", controllerFix(b.facts, v2name))
		return "", 0
	case h.Via == facts.CgroupDenied:
		b.miss(field, h.Why, h.Fix)
		return "", 0
	}
	if !slices.Contains(b.controllers, name) {
		b.controllers = append(b.controllers, name)
	}
	return name, h.Version
}

// find looks for a controller in version 2 first.
func (b *limitBuilder) find(v2name, v1name string) (facts.CgroupHierarchy, string, bool) {
	for _, h := range b.facts.Hierarchies {
		name := v1name
		if h.Version == 2 {
			name = v2name
		}
		if slices.Contains(h.Controllers, name) {
			return h, name, true
		}
	}
	return facts.CgroupHierarchy{}, "", false
}

// miss notes a limit that cannot be enforced.
func (b *limitBuilder) miss(field, why, fix string) {
	b.missing = append(b.missing, MissingLimit{Field: field, Why: why, Fix: fix})
}

// write adds one write.
func (b *limitBuilder) write(controller, file, value, because string) {
	b.writes = append(b.writes, CgroupWrite{controller, file, value, because})
}

// memory bounds memory and swap.
func (b *limitBuilder) memory() {
	const field, swapField = "limits.memory", "limits.memory_swap"
	l := b.limits
	if l.Memory == 0 {
		if l.MemorySwap != 0 {
			b.miss(swapField, "memory and swap together are bounded only together with memory", "set limits.memory too")
		}
		return
	}
	name, version := b.use("memory", "memory", field)
	if version == 0 {
		return
	}
	because := swapField
	total := l.MemorySwap
	if total == 0 {
		because, total = field, l.Memory
	}
	// Below the memory limit the total means nothing; Validate refuses it.
	total = max(total, l.Memory)
	if version == 2 {
		b.write(name, "memory.max", decimal(uint64(l.Memory)), field)
		if b.swappable(because) {
			b.write(name, "memory.swap.max", decimal(uint64(total-l.Memory)), because)
		}
		// One victim would leave the rest of a sandbox running without the
		// part that it was waiting for. Since 4.19.
		b.write(name, "memory.oom.group", "1", field)
		return
	}
	// The total may never be below the limit, so in a new group, where both
	// are unlimited, the limit comes first.
	b.write(name, "memory.limit_in_bytes", decimal(uint64(l.Memory)), field)
	if b.swappable(because) {
		b.write(name, "memory.memsw.limit_in_bytes", decimal(uint64(total)), because)
	}
}

// swappable reports whether the limit on swap must be written. Without swap
// accounting it cannot be, which is harmless as long as there is no swap.
func (b *limitBuilder) swappable(field string) bool {
	if b.facts.SwapAccounting {
		return true
	}
	if b.facts.Swap {
		b.miss(field, "this kernel does not account for swap, and the machine has some",
			"boot with swapaccount=1, or switch swap off with swapoff -a")
	}
	return false
}

// cpu bounds processor time and sets the share under contention.
func (b *limitBuilder) cpu() {
	if m := b.limits.MilliCPUs; m != 0 {
		const field = "limits.milli_cpus"
		quota, period := cpuQuota(m)
		switch name, version := b.use("cpu", "cpu", field); version {
		case 2:
			b.write(name, "cpu.max", decimal(quota)+" "+decimal(period), field)
		case 1:
			b.write(name, "cpu.cfs_period_us", decimal(period), field)
			b.write(name, "cpu.cfs_quota_us", decimal(quota), field)
		}
	}
	if w := b.limits.CPUWeight; w != 0 {
		const field = "limits.cpu_weight"
		switch name, version := b.use("cpu", "cpu", field); version {
		case 2:
			b.write(name, "cpu.weight", decimal(w), field)
		case 1:
			// 100 in version 2 is 1024 in version 1, as the kernel itself
			// converts; both ends of the range fit.
			b.write(name, "cpu.shares", decimal(max(2, (w*1024+50)/100)), field)
		}
	}
}

// cpuQuota turns thousandths of a processor into microseconds in each period.
// A small quota gets a longer period, so that nothing is rounded: one
// thousandth is the least that the kernel takes, and it is exact.
func cpuQuota(milli uint64) (quota, period uint64) {
	if quota = milli * (cpuPeriod / 1000); quota >= cpuQuotaMin {
		return quota, cpuPeriod
	}
	return milli * (cpuPeriodMax / 1000), cpuPeriodMax
}

// io bounds block devices.
func (b *limitBuilder) io() {
	if len(b.limits.IO) == 0 {
		return
	}
	name, version := b.use("io", "blkio", "limits.io")
	if version == 0 {
		return
	}
	for i, d := range b.limits.IO {
		because := fmt.Sprintf("limits.io[%d]", i)
		device := fmt.Sprintf("%d:%d", d.Major, d.Minor)
		line := device
		for _, k := range []struct {
			key, v1 string
			value   uint64
		}{
			{"rbps", "blkio.throttle.read_bps_device", d.ReadBPS},
			{"wbps", "blkio.throttle.write_bps_device", d.WriteBPS},
			{"riops", "blkio.throttle.read_iops_device", d.ReadIOPS},
			{"wiops", "blkio.throttle.write_iops_device", d.WriteIOPS},
		} {
			switch {
			case k.value == 0:
			case version == 2:
				line += " " + k.key + "=" + decimal(k.value)
			default:
				b.write(name, k.v1, device+" "+decimal(k.value), because)
			}
		}
		if version == 2 && line != device {
			b.write(name, "io.max", line, because)
		}
	}
}

// pids bounds tasks: if asked for, or if there is a group anyway.
func (b *limitBuilder) pids() {
	const field = "limits.pids"
	n := b.limits.EffectivePids()
	asked := b.limits.Pids > 0
	if n == 0 || !asked && len(b.controllers) == 0 {
		return
	}
	if h, _, ok := b.find("pids", "pids"); !asked && (!ok || h.Via == facts.CgroupDenied) {
		return
	}
	if name, version := b.use("pids", "pids", field); version != 0 {
		b.write(name, "pids.max", decimal(n+ownTasks), field)
	}
}

// controllerFix says how to get a controller that no hierarchy offers.
func controllerFix(c facts.Cgroup, v2name string) string {
	switch {
	case c.Mode == facts.CgroupNone:
		return "mount a control group hierarchy, usually at /sys/fs/cgroup"
	case c.Systemd != nil && c.Systemd.User:
		return "let the system manager delegate it: Delegate=" + v2name + " in a drop-in for user@.service"
	case c.Mode == facts.CgroupV2:
		return "enable +" + v2name + " in the cgroup.subtree_control of the groups above " + parentOf(c)
	}
	return ""
}

// parentOf is the directory below which a group would be created on version 2.
func parentOf(c facts.Cgroup) string {
	if h, ok := c.Unified(); ok && h.Parent != "" {
		return h.Parent
	}
	return "ours"
}

// decimal prints a number as the kernel reads it.
func decimal(n uint64) string { return strconv.FormatUint(n, 10) }
