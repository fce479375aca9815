package cgroup

import (
	"errors"
	"io/fs"
	"time"
)

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

// Stats is what a group uses. Fields of absent controllers are 0.
type Stats struct {
	Memory     uint64        `json:"memory"`      // bytes, now
	MemoryPeak uint64        `json:"memory_peak"` // bytes, at most so far; version 2 has it since 5.19
	CPU        time.Duration `json:"cpu"`         // used so far
	Pids       uint64        `json:"pids"`        // tasks, now
}

// Stats reads what the group uses.
func (g *Group) Stats() (Stats, error) {
	var s Stats
	var errs []error
	if p := g.with("memory"); p != nil {
		now, peak := "memory.current", "memory.peak"
		if p.Version == 1 {
			now, peak = "memory.usage_in_bytes", "memory.max_usage_in_bytes"
		}
		errs = append(errs, set(&s.Memory, p, now), optional(set(&s.MemoryPeak, p, peak)))
	}
	if p := g.with("pids"); p != nil {
		errs = append(errs, set(&s.Pids, p, "pids.current"))
	}
	errs = append(errs, g.cpu(&s))
	return s, errors.Join(errs...)
}

// cpu reads processor time. Version 2 has it in every group; in version 1 it
// belongs to cpuacct, which may or may not be mounted with cpu.
func (g *Group) cpu(s *Stats) error {
	if p := g.v2(); p != nil {
		n, err := p.keyed("cpu.stat", "usage_usec")
		s.CPU = time.Duration(n) * time.Microsecond
		return err
	}
	if p := g.with("cpu"); p != nil {
		n, err := p.number("cpuacct.usage")
		s.CPU = time.Duration(n)
		return optional(err)
	}
	return nil
}

// set reads a number into a field.
func set(field *uint64, p *part, file string) error {
	n, err := p.number(file)
	if err == nil {
		*field = n
	}
	return err
}

// optional forgives a file that this kernel does not have.
func optional(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
