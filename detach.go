package nucleus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/enter"
	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/pid1"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/spec"
)

// Detach lets a sandbox outlive the program that starts it. Nobody needs to stay
// for it: its first process itself writes how the program ended.
//
// Package store keeps detached sandboxes by name; this is what it stands on.
type Detach struct {
	// Exit is a file in which the sandbox's first process leaves how the program
	// ended, for [Identity.Collect]; its modification time is the time of the
	// end. It is not closed. A program that joins a sandbox needs none.
	Exit *os.File
}

// Identity is what finds a detached sandbox again: its first process, its
// control groups, its ids, and the policy for programs that join it. It is
// data: it can be written as JSON. The environment of the program is part of it.
type Identity struct{ id identity }

type identity struct {
	Pid    int            `json:"pid"`
	Start  uint64         `json:"start"` // kernel.StartTime
	Boot   string         `json:"boot"`
	IDBase uint32         `json:"id_base,omitempty"`
	Groups []cgroup.Place `json:"groups,omitempty"`
	Policy plan.Policy    `json:"policy"`
	Memory spec.Bytes     `json:"memory,omitempty"` // the limit, for words about it
	Time   string         `json:"timeout,omitempty"`
}

// MarshalJSON writes what UnmarshalJSON reads.
func (i Identity) MarshalJSON() ([]byte, error) { return json.Marshal(i.id) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (i *Identity) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &i.id) }

// Pid is the host's number of the sandbox's first process, if it still lives.
func (i Identity) Pid() int { return i.id.Pid }

// Start is when that process began, in clock ticks since the boot.
func (i Identity) Start() uint64 { return i.id.Start }

// Boot names the boot in which it ran.
func (i Identity) Boot() string { return i.id.Boot }

// Groups are the directories of its control groups.
func (i Identity) Groups() []string {
	var all []string
	for _, g := range i.id.Groups {
		all = append(all, g.Path)
	}
	return all
}

// born tells the caller who the sandbox is.
func (c *Cmd) born(p *Plan, box *enter.Sandbox) error {
	if c.Born == nil && c.Detach == nil || c.into != nil {
		return nil
	}
	id, err := identify(box.Pid)
	if err != nil {
		return err
	}
	id.IDBase, id.Policy, id.Memory = box.IDBase, p.plan.Policy(), c.Sandbox.Limits.Memory
	if t := c.Sandbox.Timeout; t > 0 {
		id.Time = t.String()
	}
	switch {
	case box.Group == nil:
	case c.Detach == nil:
		id.Groups = box.Group.Places()
	default: // it must outlive us, and whoever finds it must know how to end it
		if id.Groups, err = box.Group.Detach(); err != nil {
			return err
		}
	}
	c.identity = Identity{id}
	if c.Born == nil {
		return nil
	}
	return c.Born(c.identity)
}

func identify(pid int) (identity, error) {
	start, err := kernel.StartTime(pid)
	if err != nil {
		return identity{}, err
	}
	boot, err := kernel.BootID()
	return identity{Pid: pid, Start: start, Boot: boot}, err
}

// detached lets go of a sandbox that runs by itself now.
func (c *Cmd) detached(box *enter.Sandbox) error {
	console := box.Console
	box.Console = kernel.None
	if box.Group != nil {
		if err := box.Group.Close(); err != nil {
			return err
		}
	}
	if c.into != nil { // a program that joined: nobody follows it
		c.Process = &Process{pid: box.Pid, life: gone{}}
		return errors.Join(reapLater(box), box.Release(), console.Close())
	}
	if err := box.Release(); err != nil {
		return err
	}
	p, err := Open(c.identity)
	if errors.Is(err, os.ErrProcessDone) { // so short a life is one too
		p, err = &Process{pid: box.Pid, life: gone{}}, reap(box.Pid)
	}
	if err != nil { // a start that failed leaves nothing that runs
		return errors.Join(err, syscall.Kill(box.Pid, syscall.SIGKILL), reap(box.Pid), console.Close())
	}
	p.child = true
	if console != kernel.None {
		p.console = console.File("console")
	}
	c.Process = p
	return nil
}

// reap takes away the corpse of a child of ours, unless somebody has.
func reap(pid int) error {
	_, _, err := kernel.Reap(pid)
	if kernel.IsErrno(err, syscall.ECHILD) {
		return nil
	}
	return err
}

// reapLater does it when the child has ended, for as long as we live.
func reapLater(box *enter.Sandbox) error {
	w, err := kernel.NewProcessWait(box.PidFD)
	if err != nil {
		return err
	}
	pid := box.Pid
	go func() {
		if err := w.Ended(); err == nil {
			_ = reap(pid) // nobody waits for it
		}
		_ = w.Close() // as above
	}()
	return nil
}

// gone is the life of a process that is not followed.
type gone struct{}

func (gone) Signal(syscall.Signal) error     { return os.ErrProcessDone }
func (gone) Alive(func(pid int) error) error { return os.ErrProcessDone }

// other is the life of a sandbox that is not ours to wait for.
type other struct {
	pid   int
	pidfd kernel.FD
	start uint64
}

func (o *other) Signal(sig syscall.Signal) error { return kernel.SignalProcess(o.pidfd, int(sig)) }

func (o *other) Alive(f func(pid int) error) error {
	if err := o.Signal(0); err != nil {
		return err
	}
	err := f(o.pid)
	if gone := o.Signal(0); gone != nil { // what f saw may be another's
		return gone
	}
	return err
}

// ErrStarting: the sandbox is still being made.
var ErrStarting = errors.New("the sandbox is being started")

// initName is the name of process 1's memfd, which enter gives it.
const initName = "nucleus-init"

// made checks that a sandbox found by Open is one by now.
//
// An attacker, or an unlucky user, would join it while its first process is known
// and still has the host's mounts and root: who joins that is on the host. That
// process executes its own page only after the last step that makes the sandbox,
// and the kernel says what it executes.
func (p *Process) made() error {
	o, ok := p.life.(*other)
	if !ok {
		return nil // started by us: Start returned when the program ran
	}
	done, err := kernel.Executes(o.pid, initName)
	if err == nil {
		err = o.Signal(0) // what was asked may have been another's number
	}
	if err == nil && !done {
		err = ErrStarting
	}
	return err
}

// Open finds a detached sandbox that runs. The error is os.ErrProcessDone if it
// has ended; see [Identity.Collect]. One that is still being made can be
// signalled and waited for; whatever looks inside it or joins it says
// ErrStarting. Close the Process when it is not needed any
// more; that does nothing to the sandbox.
func Open(id Identity) (*Process, error) {
	boot, err := kernel.BootID()
	if err != nil {
		return nil, err
	}
	if boot != id.id.Boot {
		return nil, os.ErrProcessDone
	}
	pidfd, err := kernel.OpenProcess(id.id.Pid, id.id.Start)
	if err != nil {
		return nil, err
	}
	pol := id.id.Policy
	return &Process{
		pid: id.id.Pid, workload: firstWorkload, idBase: id.id.IDBase, id: &id.id, policy: &pol,
		life: &other{pid: id.id.Pid, pidfd: pidfd, start: id.id.Start},
	}, nil
}

// firstWorkload is the number that the first child of process 1 has inside.
const firstWorkload = 2

// Close lets go of a sandbox found by Open, and of the terminal if it is held.
// The sandbox lives on.
func (p *Process) Close() error {
	var errs []error
	if o, ok := p.life.(*other); ok {
		errs = append(errs, o.pidfd.Close())
		p.life = gone{}
	}
	if p.console != nil {
		errs = append(errs, p.console.Close())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.id != nil && p.group != nil {
		errs = append(errs, p.group.Close())
		p.group = nil
	}
	return errors.Join(errs...)
}

// Wait waits until a sandbox found by Open, or started with Detach, has ended,
// and all its processes with it. Only a goroutine waits, no thread. The error
// is the context's if that is done first.
func (p *Process) Wait(ctx context.Context) error {
	o, ok := p.life.(*other)
	if !ok {
		return nil
	}
	w, err := kernel.NewProcessWait(o.pidfd)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = w.Close() }) // wakes the goroutine below
	err = w.Ended()
	if stop() {
		err = errors.Join(err, w.Close())
	} else if err != nil {
		return ctx.Err()
	}
	if p.child && err == nil {
		err = reap(p.pid)
	}
	return err
}

// Collect says how a sandbox ended that is not running any more, from what its
// first process left in the file Exit, and removes what the sandbox left: its
// control groups and its range of ids. Without a word from that process it was
// killed. Started and Ended of the outcome are the caller's to fill in.
func (i Identity) Collect(exit io.Reader) (*Outcome, error) {
	o := &Outcome{Reason: Signaled, Signal: syscall.SIGKILL}
	var b [8]byte
	if exit != nil {
		if _, err := io.ReadFull(exit, b[:]); err == nil {
			i.said(o, b[:])
		} else if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, err
		}
	}
	boot, err := kernel.BootID()
	if err != nil || boot != i.id.Boot { // nothing of an earlier boot is left
		return o, err
	}
	g, err := i.openGroup()
	if err != nil {
		return nil, err
	}
	if g != nil {
		kills, oerr := g.OOMKills()
		if oerr != nil && !errors.Is(oerr, os.ErrNotExist) && !errors.Is(oerr, errors.ErrUnsupported) {
			err = oerr
		}
		if kills > 0 && !o.Success() && o.Reason != DeadlineExceeded {
			o.outOfMemory(i.id.Memory)
		}
		if s, err := g.Stats(); err == nil { // what cannot be read is not known
			o.User, o.System, o.MemoryPeak = s.CPUUser, s.CPUSystem, s.MemoryPeak
		}
		// What joined the sandbox is about to end with it.
		err = errors.Join(err, g.Kill(), g.Remove())
	}
	if i.id.IDBase != 0 {
		err = errors.Join(err, enter.FreeIDs(i.id.IDBase, i.id.Pid, i.id.Start))
	}
	return o, err
}

// said reads the message of the sandbox's first process.
func (i Identity) said(o *Outcome, b []byte) {
	kind, value := pid1.Decode(b)
	status := syscall.WaitStatus(value)
	switch {
	case kind == pid1.Expired:
		o.Reason = DeadlineExceeded
		o.Detail = fmt.Sprintf("killed: it ran longer than its timeout of %s", i.id.Time)
	case kind != pid1.Ended:
	case status.Signaled():
		o.Reason, o.Signal = Signaled, status.Signal()
	default:
		o.Reason, o.Signal, o.Code = Exited, 0, status.ExitStatus()
	}
}

// openGroup opens the sandbox's control group; nil without one.
func (i Identity) openGroup() (*cgroup.Group, error) {
	if len(i.id.Groups) == 0 {
		return nil, nil
	}
	f, err := host.Probe(nil, true)
	if err != nil {
		return nil, err
	}
	return cgroup.Open(f.Cgroup, i.id.Groups)
}
