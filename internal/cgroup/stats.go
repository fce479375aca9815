package cgroup

import "time"

// OOMKills is the number of processes that the kernel killed because the group
// reached its memory limit; 0 without the memory controller.
func (g *Group) OOMKills() (uint64, error) {
	p := g.with("memory")
	switch {
	case p == nil:
		return 0, nil
	case p.Version == 2:
		return p.keyed("memory.events", "oom_kill")
	}
	return p.keyed("memory.oom_control", "oom_kill") // since 4.13
}

// PidsDenied is how often a fork failed because of the limit on tasks; 0
// without the pids controller.
func (g *Group) PidsDenied() (uint64, error) {
	p := g.with("pids")
	if p == nil {
		return 0, nil
	}
	return p.keyed("pids.events", "max")
}

// Stats is what a group uses and may use. Fields of absent controllers are 0, as
// are limits that do not exist: nobody may use 0.
type Stats struct {
	// Memory is bytes in use now without the file pages that the kernel has
	// not seen used twice and gives up first: what Docker shows. MemoryRaw is
	// with them: what is held against the limit.
	Memory      uint64 `json:"memory"`
	MemoryRaw   uint64 `json:"memory_raw"`
	MemoryPeak  uint64 `json:"memory_peak"` // of MemoryRaw; version 2 has it since 5.19
	MemoryLimit uint64 `json:"memory_limit"`
	Swap        uint64 `json:"swap"`      // bytes now
	OOMKills    uint64 `json:"oom_kills"` // processes so far

	// CPU and its parts are processor time so far. Throttled is how long the
	// limit kept the group from running, summed over processors.
	CPU       time.Duration `json:"cpu_ns"`
	CPUUser   time.Duration `json:"cpu_user_ns"`
	CPUSystem time.Duration `json:"cpu_system_ns"`
	Throttled time.Duration `json:"throttled_ns"`
	CPULimit  uint64        `json:"cpu_limit"` // thousandths of a processor

	Pids      uint64 `json:"pids"` // tasks now
	PidsLimit uint64 `json:"pids_limit"`

	// What went to and came from block devices so far. The page cache stands
	// before them: a file that is read twice is read once. Version 1 counts,
	// since 6.10, only on devices for which some group has had a limit.
	ReadBytes  uint64 `json:"read_bytes"`
	WriteBytes uint64 `json:"write_bytes"`
	ReadOps    uint64 `json:"read_ops"`
	WriteOps   uint64 `json:"write_ops"`

	Pressure Pressures `json:"pressure"`
}

// Pressures is how much of the time work had to wait for what. They exist for
// groups of version 2, where the kernel has pressure stall information; nil
// otherwise.
type Pressures struct {
	CPU    *Pressure `json:"cpu,omitempty"`
	Memory *Pressure `json:"memory,omitempty"`
	IO     *Pressure `json:"io,omitempty"`
}

// Pressure is the share of time, in percent over the last seconds, in which some
// of the group's tasks waited, and in which all that could have run did.
type Pressure struct {
	Some10    float64       `json:"some_10"`
	Some60    float64       `json:"some_60"`
	Some300   float64       `json:"some_300"`
	Full10    float64       `json:"full_10"`
	Full60    float64       `json:"full_60"`
	Full300   float64       `json:"full_300"`
	SomeTotal time.Duration `json:"some_total_ns"` // so far
	FullTotal time.Duration `json:"full_total_ns"` // of a processor since 5.13
}

// Stats reads what the group uses. A file that the kernel does not have, or not any
// more because somebody has taken the controller away from the groups above, is
// not an error as long as the group is there.
func (g *Group) Stats() (Stats, error) {
	var s Stats
	r := &reader{buf: make([]byte, readSize)}
	if p := g.with("memory"); p != nil {
		if p.Version == 2 {
			r.memory(p, &s)
		} else {
			r.legacyMemory(p, &s)
		}
	}
	r.cpu(g, &s)
	if p := g.with("pids"); p != nil {
		r.number(p, "pids.current", &s.Pids)
		r.number(p, "pids.max", &s.PidsLimit)
	}
	if p := g.with("io"); p != nil {
		r.io(p, &s)
	} else if p := g.with("blkio"); p != nil {
		r.legacyIO(p, &s)
	}
	if p := g.v2(); p != nil {
		s.Pressure = Pressures{CPU: r.pressure(p, "cpu.pressure"), Memory: r.pressure(p, "memory.pressure"), IO: r.pressure(p, "io.pressure")}
	}
	return s, r.err
}

// memory reads version 2's counters.
func (r *reader) memory(p *part, s *Stats) {
	r.number(p, "memory.current", &s.MemoryRaw)
	r.number(p, "memory.peak", &s.MemoryPeak)
	r.number(p, "memory.max", &s.MemoryLimit)
	r.number(p, "memory.swap.current", &s.Swap) // not without swap accounting
	var inactive uint64
	r.keyed(p, "memory.stat", field{"inactive_file", &inactive})
	r.keyed(p, "memory.events", field{"oom_kill", &s.OOMKills})
	s.Memory = working(s.MemoryRaw, inactive)
}

// legacyMemory reads version 1's.
func (r *reader) legacyMemory(p *part, s *Stats) {
	r.number(p, "memory.usage_in_bytes", &s.MemoryRaw)
	r.number(p, "memory.max_usage_in_bytes", &s.MemoryPeak)
	r.number(p, "memory.limit_in_bytes", &s.MemoryLimit)
	var inactive uint64
	r.keyed(p, "memory.stat", field{"total_inactive_file", &inactive}, field{"total_swap", &s.Swap})
	r.keyed(p, "memory.oom_control", field{"oom_kill", &s.OOMKills})
	s.Memory = working(s.MemoryRaw, inactive)
}

// working is the memory that is not given up first. The two numbers are not from
// the same moment.
func working(raw, inactive uint64) uint64 {
	if inactive < raw {
		return raw - inactive
	}
	return raw
}

// cpu reads processor time and its limit. Version 2 has the time in every group,
// with or without the controller; in version 1 it belongs to cpuacct, which may or
// may not be mounted with cpu.
func (r *reader) cpu(g *Group, s *Stats) {
	limit := g.with("cpu")
	if p := g.v2(); p != nil {
		var all, user, system, throttled uint64
		r.keyed(p, "cpu.stat", field{"usage_usec", &all}, field{"user_usec", &user},
			field{"system_usec", &system}, field{"throttled_usec", &throttled})
		s.CPU, s.CPUUser, s.CPUSystem = microseconds(all), microseconds(user), microseconds(system)
		s.Throttled = microseconds(throttled)
		if limit == p {
			s.CPULimit = r.quota(p)
		}
	} else if limit != nil {
		r.duration(limit, "cpuacct.usage", &s.CPU)
		r.duration(limit, "cpuacct.usage_user", &s.CPUUser)
		r.duration(limit, "cpuacct.usage_sys", &s.CPUSystem)
	}
	if limit != nil && limit.Version == 1 {
		var throttled uint64
		r.keyed(limit, "cpu.stat", field{"throttled_time", &throttled})
		s.Throttled = time.Duration(throttled)
		s.CPULimit = r.legacyQuota(limit)
	}
}

func microseconds(n uint64) time.Duration { return time.Duration(n) * time.Microsecond }

// duration reads nanoseconds from a file that may be absent.
func (r *reader) duration(p *part, file string, d *time.Duration) {
	var n uint64
	r.number(p, file, &n)
	*d = time.Duration(n)
}
