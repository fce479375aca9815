package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/facts"
)

const (
	// freezeTime is how long Freeze and Thaw wait for the kernel to say that it
	// is done. A process in an uninterruptible system call keeps it from it.
	freezeTime = 5 * time.Second

	legacyState = "freezer.state"
)

// Freeze stops every process in the group and below, and returns when the kernel
// says that none runs any more. Processes that are born or join later are stopped
// too. If that takes longer than five seconds, the group is let go again.
func (g *Group) Freeze() error { return g.setFrozen(true, freezeTime) }

// Thaw lets the group go on, and returns when the kernel says that it does.
func (g *Group) Thaw() error { return g.setFrozen(false, freezeTime) }

// Frozen reports whether every process in the group is stopped, by Freeze or
// because a group above it is frozen.
func (g *Group) Frozen() (bool, error) {
	p, err := g.canFreeze("ask whether it is frozen")
	if err != nil {
		return false, err
	}
	return p.frozen()
}

// setFrozen asks for a state and waits for it.
func (g *Group) setFrozen(frozen bool, limit time.Duration) error {
	verb := "freeze"
	if !frozen {
		verb = "thaw"
	}
	p, err := g.canFreeze(verb)
	if err != nil {
		return err
	}
	last := frozen
	err = retry(limit, func() error {
		// Version 1 wants to be told again: a fork at the wrong moment leaves
		// it on the way (FREEZING) for good. Version 2 does not mind.
		if err := p.freeze(frozen); err != nil {
			return err
		}
		last, err = p.frozen()
		if err == nil && last != frozen {
			err = syscall.EBUSY
		}
		return err
	})
	switch {
	case !errors.Is(err, syscall.EBUSY):
		return err
	case frozen:
		return errors.Join(fmt.Errorf("freeze %s: a process in it did not stop within %v, so it runs again: %w",
			g.name, limit, os.ErrDeadlineExceeded), p.freeze(false))
	}
	return fmt.Errorf("thaw %s: it is still frozen after %v; perhaps a group above it is: %w",
		g.name, limit, os.ErrDeadlineExceeded)
}

// canFreeze is the part that can be frozen, or why there is none.
func (g *Group) canFreeze(verb string) (*part, error) {
	p := g.freezer()
	if p == nil {
		if g.scope != nil && !g.scope.made {
			return nil, fmt.Errorf("%s %s: its scope does not exist yet: %w", verb, g.name, fs.ErrNotExist)
		}
		return nil, fmt.Errorf("%s %s: the group has neither a part in the version 2 hierarchy nor the freezer of version 1: %w",
			verb, g.name, errors.ErrUnsupported)
	}
	return p, nil
}

// freezer is the part that can be frozen, or nil. Version 2 comes first: it can
// be killed while it is frozen.
func (g *Group) freezer() *part {
	if p := g.v2(); p != nil {
		return p
	}
	for _, p := range g.parts {
		if slices.Contains(p.Controllers, facts.Freezer) {
			return p
		}
	}
	return nil
}

// freeze asks for a state.
func (p *part) freeze(frozen bool) error {
	if p.Version == 1 {
		state := "THAWED"
		if frozen {
			state = "FROZEN"
		}
		return p.write(legacyState, state)
	}
	state := "0"
	if frozen {
		state = "1"
	}
	err := p.write("cgroup.freeze", state) // since 5.2
	if errors.Is(err, fs.ErrNotExist) && p.exists() {
		return fmt.Errorf("%w: this kernel cannot freeze a group of version 2: %w", err, errors.ErrUnsupported)
	}
	return err
}

// exists reports whether the group has not been removed.
func (p *part) exists() bool {
	_, err := p.read("cgroup.procs")
	return err == nil
}

// asked reports whether somebody wants the group frozen, done or not.
func (p *part) asked() (bool, error) {
	file, running := "cgroup.freeze", "0"
	if p.Version == 1 {
		file, running = legacyState, "THAWED"
	}
	state, err := p.read(file)
	if errors.Is(err, fs.ErrNotExist) && p.exists() {
		return false, nil // a kernel that cannot
	}
	return state != running, err
}

// frozen is what the kernel has achieved, not what it was asked for.
func (p *part) frozen() (bool, error) {
	if p.Version == 1 {
		state, err := p.read(legacyState)
		return state == "FROZEN", err
	}
	n, err := p.keyed("cgroup.events", "frozen")
	return n == 1, err
}

// Populated reports whether there is a live process in the group or below.
func (g *Group) Populated() (bool, error) {
	if p := g.v2(); p != nil {
		n, err := p.keyed("cgroup.events", "populated")
		return n == 1, gone(err)
	}
	some := false
	err := g.eachProcess(func(int) { some = true })
	return some, err
}

// Pids are the processes in the group and below, in order, by the numbers that
// they have here. Those of a foreign process namespace are left out.
func (g *Group) Pids() ([]int, error) {
	var all []int
	err := g.eachProcess(func(pid int) {
		if pid > 0 {
			all = append(all, pid)
		}
	})
	slices.Sort(all)
	return slices.Compact(all), err // version 1 may name one twice
}

// eachProcess calls f for every process in the group and below. A process is in
// all parts, so one of them is enough; 0 is one that has no number here.
func (g *Group) eachProcess(f func(pid int)) error {
	p := g.v2()
	if p == nil && len(g.parts) > 0 {
		p = g.parts[0]
	}
	if p == nil {
		return nil
	}
	return walk(p.Path, func(path string) error {
		data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		// EOPNOTSUPP: a group of threads; the one above it names their processes.
		if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
			return gone(err)
		}
		for field := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil {
				f(pid)
			}
		}
		return nil
	})
}

// gone forgives a group that has been removed, before or after it was opened.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return err
}
