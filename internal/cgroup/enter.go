package cgroup

import (
	"errors"
	"fmt"
	"strconv"
)

// Enter puts the calling thread into the version 1 parts of the group, so that
// a process that it clones is born there. leave puts it back and must be called
// right after the clone. Without such parts both do nothing.
//
// Precondition: the OS thread is locked. If leave fails, the thread must not be
// given back to the scheduler: end the goroutine while it is locked.
//
// The detour is worth it: writing another process's number to cgroup.procs
// waits for all processors to pass through the scheduler (the kernel takes a
// lock against every fork and exit), about 15 ms on an idle machine; a thread
// that moves itself takes no such lock, about 4 µs.
//
// A frozen group is refused with [ErrFrozen]: our own thread would be frozen with
// it in version 1, and a child that is born frozen never says that it has started.
func (g *Group) Enter() (leave func() error, err error) {
	if err := g.running("enter"); err != nil {
		return nil, err
	}
	var inside []*part
	leave = func() error {
		var errs []error
		for _, p := range inside {
			errs = append(errs, writeAt(int(p.home.Fd()), p.home.Name(), "tasks", "0"))
		}
		return errors.Join(errs...)
	}
	for _, p := range g.parts {
		if p.Version != 1 {
			continue
		}
		if p.home == nil {
			// To leave it out would be to start a process without its limits.
			return nil, errors.Join(fmt.Errorf("enter %s: the group that we are in is not known, so there is no way back", p.Path), leave())
		}
		if err := p.write("tasks", "0"); err != nil {
			return nil, errors.Join(err, leave())
		}
		inside = append(inside, p)
	}
	return leave, nil
}

// Add puts a process into the group. It is for a process that could not be born
// there: one that joins a sandbox whose group is a systemd scope, and the first
// one of such a scope, for which Add also makes the scope and does the writes
// that wait for it. It is slow: see Enter, also for frozen groups.
func (g *Group) Add(pid int) error {
	if err := g.running("join"); err != nil {
		return err
	}
	if g.scope != nil {
		if g.scope.made {
			return g.scope.attach(pid)
		}
		return g.makeScope(pid)
	}
	for _, p := range g.parts {
		if err := p.write("cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// ErrFrozen is a group that nobody can join before it is thawed.
var ErrFrozen = errors.New("the group is frozen")

// running makes sure that the group is not frozen.
func (g *Group) running(verb string) error {
	p := g.freezer()
	if p == nil {
		return nil
	}
	asked, err := p.asked()
	if err == nil && asked {
		err = ErrFrozen
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, g.name, err)
	}
	return nil
}
