package nucleus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/spec"
)

// Stats is what a sandbox uses and may use. Fields of controllers that it does
// not have are 0, as are limits that do not exist.
type Stats struct {
	// Memory is bytes in use now, without file pages that the kernel would give
	// up first; MemoryRaw is with them, as it counts for the limit.
	Memory      uint64 `json:"memory"`
	MemoryRaw   uint64 `json:"memory_raw"`
	MemoryPeak  uint64 `json:"memory_peak"`
	MemoryLimit uint64 `json:"memory_limit"`
	Swap        uint64 `json:"swap"`
	OOMKills    uint64 `json:"oom_kills"`

	// CPU and its parts are processor time so far.
	CPU       time.Duration `json:"cpu_ns"`
	CPUUser   time.Duration `json:"cpu_user_ns"`
	CPUSystem time.Duration `json:"cpu_system_ns"`
	Throttled time.Duration `json:"throttled_ns"`
	CPULimit  uint64        `json:"cpu_limit"` // thousandths of a processor

	Pids      uint64 `json:"pids"` // tasks now
	PidsLimit uint64 `json:"pids_limit"`

	// Block devices, so far.
	ReadBytes  uint64 `json:"read_bytes"`
	WriteBytes uint64 `json:"write_bytes"`
	ReadOps    uint64 `json:"read_ops"`
	WriteOps   uint64 `json:"write_ops"`

	// Pressure is how much of the time work had to wait (PSI); nil where the
	// kernel does not tell.
	CPUPressure    *Pressure `json:"cpu_pressure,omitempty"`
	MemoryPressure *Pressure `json:"memory_pressure,omitempty"`
	IOPressure     *Pressure `json:"io_pressure,omitempty"`

	// Summed says that there is no control group: memory and time are summed
	// over the processes that live now, and shared memory counts in each.
	Summed bool `json:"summed,omitempty"`
}

// Pressure is the share of time, in percent over the last seconds, in which some
// of the sandbox's tasks waited, and in which all did.
type Pressure struct {
	Some10    float64       `json:"some_10"`
	Some60    float64       `json:"some_60"`
	Some300   float64       `json:"some_300"`
	Full10    float64       `json:"full_10"`
	Full60    float64       `json:"full_60"`
	Full300   float64       `json:"full_300"`
	SomeTotal time.Duration `json:"some_total_ns"`
	FullTotal time.Duration `json:"full_total_ns"`
}

// withGroup calls f with the sandbox's control group, or with nil if it has none.
func (p *Process) withGroup(f func(*cgroup.Group) error) error {
	if p.id != nil {
		h, err := p.host()
		if err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.group == nil && len(p.id.Groups) > 0 {
			if p.group, err = cgroup.Open(h.facts.Cgroup, p.id.Groups); err != nil {
				return err
			}
		}
		return f(p.group)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return f(p.group)
}

// Stats says what the sandbox uses.
func (p *Process) Stats() (s Stats, err error) {
	err = p.withGroup(func(g *cgroup.Group) error {
		if g == nil {
			return errNoGroup
		}
		c, err := g.Stats()
		s = Stats{
			Memory: c.Memory, MemoryRaw: c.MemoryRaw, MemoryPeak: c.MemoryPeak, MemoryLimit: c.MemoryLimit, Swap: c.Swap, OOMKills: c.OOMKills,
			CPU: c.CPU, CPUUser: c.CPUUser, CPUSystem: c.CPUSystem, Throttled: c.Throttled, CPULimit: c.CPULimit,
			Pids: c.Pids, PidsLimit: c.PidsLimit,
			ReadBytes: c.ReadBytes, WriteBytes: c.WriteBytes, ReadOps: c.ReadOps, WriteOps: c.WriteOps,
			CPUPressure: (*Pressure)(c.Pressure.CPU), MemoryPressure: (*Pressure)(c.Pressure.Memory), IOPressure: (*Pressure)(c.Pressure.IO),
		}
		return err
	})
	if errors.Is(err, errNoGroup) {
		return p.summed()
	}
	return s, err
}

var errNoGroup = errors.New("the sandbox has no control group")

// summed adds up the sandbox's processes.
func (p *Process) summed() (Stats, error) {
	all, err := p.Processes()
	s := Stats{Summed: true}
	for _, proc := range all {
		s.Memory += proc.RSS
		s.CPU += proc.CPU
		s.Pids += uint64(proc.Threads)
	}
	s.MemoryRaw = s.Memory
	return s, err
}

// ProcessInfo is one process of a sandbox.
type ProcessInfo struct {
	Pid     int           `json:"pid"`     // the host's number
	Inside  int           `json:"inside"`  // the sandbox's number
	Parent  int           `json:"parent"`  // the host's number
	UID     uint32        `json:"uid"`     // inside
	State   string        `json:"state"`   // as ps(1) says it: R, S, D, T, Z
	Threads int           `json:"threads"` //
	RSS     uint64        `json:"rss"`     // bytes
	CPU     time.Duration `json:"cpu_ns"`  // so far
	Command string        `json:"command"` // with arguments
}

// Processes lists the sandbox's processes, by number. A frozen or hostile
// process cannot hide: the kernel is asked who is in the sandbox's process
// namespace.
func (p *Process) Processes() (all []ProcessInfo, err error) {
	if err := p.made(); err != nil {
		return nil, err
	}
	err = p.life.Alive(func(pid int) error {
		list, err := host.Namespace(pid)
		for _, x := range list {
			all = append(all, ProcessInfo{
				Pid: x.Pid, Inside: x.Inside, Parent: x.Parent, UID: p.insideID(x.UID), State: x.State, Threads: x.Threads, RSS: x.RSS, CPU: x.CPU, Command: x.Command,
			})
		}
		return err
	})
	slices.SortFunc(all, func(a, b ProcessInfo) int { return a.Inside - b.Inside })
	return all, err
}

// insideID is the sandbox's number of a user of the host.
func (p *Process) insideID(host uint32) uint32 {
	if p.policy != nil && p.policy.Owned && !p.policy.Ranged {
		return p.policy.User.UID // there is no other
	}
	return host - p.idBase
}

// Pause stops every process of the sandbox where it is, until Unpause.
func (p *Process) Pause() error { return p.freeze("freeze", (*cgroup.Group).Freeze) }

// Unpause lets a paused sandbox go on.
func (p *Process) Unpause() error { return p.freeze("thaw", (*cgroup.Group).Thaw) }

func (p *Process) freeze(op string, f func(*cgroup.Group) error) error {
	err := p.withGroup(func(g *cgroup.Group) error {
		if g == nil {
			return fmt.Errorf("%w: %w", errNoGroup, ErrUnsupported)
		}
		return f(g)
	})
	if err == nil {
		return nil
	}
	e := &Error{Stage: StageSupervise, Step: -1, Op: op, Object: "sandbox", Err: err}
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, ErrUnsupported) {
		e.Hint = "a control group can stop a sandbox as a whole; `nucleus doctor`, line cgroup, says how to get one"
	}
	return e
}

// Update changes the limits of a running sandbox: those of l that are not zero.
// What its control group cannot enforce is an error, and then nothing has changed.
func (p *Process) Update(l spec.Limits) error {
	h, err := p.host()
	if err != nil {
		return err
	}
	if l.Memlock != 0 {
		return &Error{Stage: StagePlan, Step: -1, Op: "enforce", Object: "limits.memlock", Because: "limits.memlock",
			Hint: "stop the sandbox first", Err: fmt.Errorf("each process has this limit from its start: %w", ErrUnsupported)}
	}
	group := l // what its control group is to enforce
	if l.Pids < 0 {
		group.Pids = 1 // for the file that holds it
	}
	_, writes, missing := plan.LimitWrites(h.facts.Cgroup, group)
	for _, m := range missing {
		if m.Field != "limits.pids" || l.Pids != 0 {
			return &Error{Stage: StagePlan, Step: -1, Op: "enforce", Object: m.Field, Because: m.Field, Hint: m.Fix, Err: fmt.Errorf("%s: %w", m.Why, ErrUnsupported)}
		}
	}
	var all []cgroup.Write
	for _, w := range writes {
		if w.Because == "limits.pids" && l.Pids < 0 {
			w.Value = "max"
		}
		if w.Because != "limits.pids" || l.Pids != 0 { // the default is not asked for
			all = append(all, cgroup.Write{Controller: w.Controller, File: w.File, Value: w.Value})
		}
	}
	err = p.withGroup(func(g *cgroup.Group) error {
		if g == nil {
			return fmt.Errorf("%w: %w", errNoGroup, ErrUnsupported)
		}
		return g.Apply(all)
	})
	if err != nil {
		return &Error{Stage: StageSupervise, Step: -1, Op: "update", Object: "limits", Err: err}
	}
	return nil
}

// Root opens the sandbox's root directory. Paths below it are the sandbox's: who
// follows them must not follow what leads out of it (openat2, RESOLVE_IN_ROOT).
func (p *Process) Root() (dir *os.File, err error) {
	if err := p.made(); err != nil {
		return nil, err
	}
	err = p.life.Alive(func(pid int) error {
		var e error
		dir, e = os.Open(filepath.Join("/proc", strconv.Itoa(pid), "root"))
		return e
	})
	if err != nil && dir != nil {
		err = errors.Join(err, dir.Close())
		dir = nil
	}
	return dir, err
}

// HostID is the host's number of a user of the sandbox.
func (p *Process) HostID(inside uint32) uint32 {
	if p.policy != nil && p.policy.Owned && !p.policy.Ranged {
		return uint32(os.Getuid()) // there is no other
	}
	return p.idBase + inside
}
