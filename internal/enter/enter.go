// Package enter performs a plan: the host steps in ordinary Go with an undo for
// each, then the clone, the gate while the child waits, and the child's steps as
// a list of system calls that package child executes.
//
// It decides nothing. A step that fails is reported as a [*StepError]; then the
// child is gone, everything made for it is undone, and the workload has not run.
//
// # Protocol
//
// Parent and child share a SOCK_SEQPACKET socket. Messages are eight bytes: two
// 32-bit numbers, kind and value.
//
//	parent -> child  one byte         the gate is open
//	child  -> parent index, errno     operation index failed (index >= 0); the end
//	child  -> parent console, 0       with a descriptor: the terminal's other end
//	child  -> parent held, 0          the sandbox is complete, if the plan has it wait
//	parent -> child  one byte         it may go on
//	parent -> init   two bytes        the workload may start, if the init awaits that
//	init   -> parent started, pid     the workload has been executed
//	init   -> parent not started, -e  it could not be; the end
//	init   -> parent ended, status    the workload has ended
//
// When the parent closes its end, the child gives up and the init ends the sandbox.
package enter

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/child"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/pid1"
	"github.com/nucleus-container/nucleus/internal/plan"
)

// StepError says which step of the plan failed. Err is the cause, usually an errno.
type StepError struct {
	Index int
	Step  plan.Step
	Call  string // the kernel call that failed, where the step has several
	Err   error
}

func (e *StepError) Error() string { return fmt.Sprintf("%s %s: %v", e.Call, e.Step.Do, e.Err) }

func (e *StepError) Unwrap() error { return e.Err }

// Request is what Start needs besides the plan.
type Request struct {
	Plan  *plan.Plan
	Host  *facts.Host
	Name  string // of the sandbox; names its control group
	Stdio []int  // descriptors of ours that become 0, 1, 2 and more; not closed
	// Cloned, if not nil, is called when process 1 exists and has steps to
	// perform: what it does then costs the start little. Where the child waits
	// for a gate, the workload cannot run before it returns, and never runs if
	// it fails.
	Cloned func(*Sandbox) error
	// Meanwhile, if not nil, is called while the child performs its steps: what
	// it does costs the start nothing, unless it takes longer than they do. The
	// workload cannot run before it returns.
	Meanwhile func()
	// Held is called when the sandbox is complete and waits, if the plan has it
	// wait: everything but the workload's filter and session is in force on
	// process Pid. If it fails, the workload never runs.
	Held func(*Sandbox) error
	// Started is called when the workload has been executed. If it fails, the
	// sandbox is ended.
	Started func(*Sandbox) error
	// Listener takes the listener of a filter that has one, and must begin to
	// answer on it at once.
	Listener func(kernel.FD)
	Exit     int   // descriptor for the exit of a detached sandbox; 0: none; not closed
	Into     *Into // the sandbox to join, if the plan joins one

	edit func(step, op int, o *child.Op) // tests only: change an operation
}

// Into is a sandbox that runs, for a program that joins it. It belongs to the caller.
type Into struct {
	PidFD  kernel.FD // of its process 1
	IDBase uint32    // first host id of its range, 0 without one
	Group  *cgroup.Group
}

// Sandbox is a running sandbox. Its owner calls Close when its process has been
// waited for.
type Sandbox struct {
	Pid         int              // of process 1, in our process namespace
	PidFD       kernel.FD        // of process 1
	Status      *kernel.Waitable // the parent's end of the protocol
	Console     kernel.FD        // the supervisor's end of the terminal, or None
	WorkloadPid int              // in the sandbox's process namespace
	IDBase      uint32           // first host id of the reserved range, 0 without one
	Group       *cgroup.Group
	undo        undoStack
}

// Close undoes the host steps. The sandbox's process must have been waited for.
func (s *Sandbox) Close() error {
	return errors.Join(s.Status.Close(), s.PidFD.Close(), s.undo.run())
}

// Release lets go of a sandbox that lives on by itself: nothing is undone.
func (s *Sandbox) Release() error {
	s.undo = nil
	return errors.Join(s.Status.Close(), s.PidFD.Close(), s.Console.Close())
}

// undoStack holds what must be undone, the last first.
type undoStack []func() error

func (u *undoStack) push(f func() error) { *u = append(*u, f) }

func (u *undoStack) run() error {
	var errs []error
	for i := len(*u) - 1; i >= 0; i-- {
		errs = append(errs, (*u)[i]())
	}
	*u = nil
	return errors.Join(errs...)
}

// run is one start in progress.
type run struct {
	req     Request
	box     *Sandbox
	child   kernel.FD // the child's end of the protocol
	init    kernel.FD
	trees   map[plan.FD]kernel.FD
	idmaps  map[[5]uint32]kernel.FD
	tested  map[string]kernel.FD // directories that were compared with their manifests
	held    undoStack            // released as soon as the child runs
	enc     encoder
	clone   plan.CloneInto
	cloneAt int
}

// Start performs the plan. When it returns without an error the workload has
// been executed.
func Start(req Request) (*Sandbox, error) {
	r := &run{req: req, child: kernel.None, init: kernel.None, trees: map[plan.FD]kernel.FD{}, idmaps: map[[5]uint32]kernel.FD{}, tested: map[string]kernel.FD{},
		box: &Sandbox{PidFD: kernel.None, Console: kernel.None}}
	err := r.start()
	if e := r.held.run(); err == nil {
		err = e
	}
	if err != nil {
		return nil, errors.Join(err, r.box.Console.Close(), r.box.Close())
	}
	return r.box, nil
}

func (r *run) start() error {
	ours, theirs, err := kernel.SocketPair()
	if err != nil {
		return fmt.Errorf("make the status socket: %w", err)
	}
	r.child = theirs
	r.held.push(func() error { return r.child.Close() })
	if r.box.Status, err = kernel.NewWaitable(ours, "status"); err != nil {
		return fmt.Errorf("make the status socket: %w", err)
	}
	if err := r.high(&r.child); err != nil {
		return err
	}
	if err := r.keep(); err != nil {
		return err
	}
	for i, s := range r.req.Plan.Steps {
		switch s.Where {
		case plan.Host:
			if err := r.host(s.Do); err != nil {
				return r.failed(i, "", err)
			}
		case plan.Clone:
			r.clone, r.cloneAt = s.Do.(plan.CloneInto), i
		}
	}
	if err := r.encode(); err != nil {
		return err
	}
	defer r.enc.Free()
	if err := r.enter(); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return errors.Join(err, r.kill())
	}
	return nil
}

func (r *run) failed(index int, call string, err error) error {
	s := r.req.Plan.Steps[index]
	if call == "" {
		call = s.Do.Call()
	}
	return &StepError{Index: index, Step: s, Call: call, Err: err}
}

// keep puts descriptors that the child needs, and the workload must not have,
// above those that it will have.
func (r *run) keep() error {
	keep := func(fd *int) error {
		n, dup, err := above(*fd, len(r.req.Stdio))
		if dup {
			r.held.push(kernel.FD(n).Close)
		}
		*fd = n
		r.enc.kept = append(r.enc.kept, n)
		return err
	}
	if r.req.Exit > 0 {
		if err := keep(&r.req.Exit); err != nil {
			return err
		}
		r.enc.exit = r.req.Exit
	}
	if r.req.Into != nil {
		r.box.IDBase = r.req.Into.IDBase
		r.enc.into = int(r.req.Into.PidFD)
		return keep(&r.enc.into)
	}
	return nil
}

// high moves a descriptor of ours above those that the workload will have.
func (r *run) high(f *kernel.FD) error {
	n, dup, err := above(int(*f), len(r.req.Stdio))
	if err != nil || !dup {
		return err
	}
	old := *f
	*f = kernel.FD(n)
	return old.Close()
}

// encode lays out the child's steps.
func (r *run) encode() error {
	e := &r.enc
	e.used, e.named = map[int]bool{}, map[plan.FD]int{}
	e.state, e.init, e.edit = int(r.child), int(r.init), r.req.edit
	for to, from := range r.req.Stdio {
		if to != from {
			n, dup, err := above(from, len(r.req.Stdio))
			if err != nil {
				return err
			}
			if dup {
				r.held.push(kernel.FD(n).Close)
			}
			from = n
		}
		e.stdio = append(e.stdio, from)
	}
	for name, fd := range r.trees {
		e.named[name] = int(fd)
	}
	exec := r.req.Plan.Exec()
	e.argv = append(append(append([]string{"nucleus-init"}, exec.Paths...), ""), exec.Args...)
	e.envv = exec.Env
	steps := r.req.Plan.Steps
	arena, err := child.NewArena(opsFor(steps), dataFor(steps)+argSize(e.argv)+argSize(e.envv))
	if err != nil {
		return err
	}
	e.Arena = arena
	e.info = make([]opInfo, 0, opsFor(steps))
	for i, s := range steps {
		if s.Where == plan.Child && e.err == nil {
			e.encode(i, s.Do)
		}
	}
	if e.err == nil && e.Full() {
		e.fail("this is a bug in nucleus: the plan does not fit its arena (%d operations)", e.Len())
	}
	if e.err == nil {
		e.err = e.Seal()
	}
	if e.err != nil {
		return errors.Join(r.failed(e.step, "", e.err), e.Free())
	}
	return nil
}

// enter clones.
func (r *run) enter() error {
	ids := setup.enter(r.box.IDBase != 0 && !r.clone.Copy)
	r.held.push(ids.leave)
	if err := r.cloneInGroup(); err != nil {
		return r.failed(r.cloneAt, "", err)
	}
	// Ours alone now: when the child is gone, reading ends.
	err := r.child.Close()
	r.child = kernel.None
	return err
}

// cloneInGroup clones so that the child is born in the sandbox's control group.
// The thread that clones may be in that group meanwhile. It must not be the
// first one of this process: /proc/self tells its groups as ours, and a start
// beside this one would take the sandbox's group for its parent.
func (r *run) cloneInGroup() error {
	if !r.clone.Cgroup {
		return r.cloneHere()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if kernel.ThreadID() != os.Getpid() {
		return r.cloneHere()
	}
	done := make(chan error) // another goroutine has another thread: this one is taken
	go func() { done <- r.cloneHere() }()
	return <-done
}

// cloneHere clones, in this thread if the child is to be born in its groups.
func (r *run) cloneHere() error {
	if !r.clone.Cgroup {
		return r.cloneInto(-1)
	}
	runtime.LockOSThread()
	into := -1
	if dir := r.box.Group.Dir(); dir != nil {
		into = int(dir.Fd())
	}
	leave, err := r.box.Group.Enter()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = r.cloneInto(into)
	if e := leave(); e != nil {
		// This thread is still in the sandbox's group. It stays locked, so
		// that it ends with this goroutine and runs nobody else's.
		return errors.Join(err, e, r.killStarted())
	}
	runtime.UnlockOSThread()
	return err
}

// cloneInto clones. A child is born in the version 2 group of descriptor into,
// if that is not negative.
func (r *run) cloneInto(into int) error {
	p, errno := child.Start(r.enc.Arena, child.How{Flags: r.clone.Flags, Copy: r.clone.Copy}, int(r.child), into)
	if errno != 0 {
		return errno
	}
	r.box.Pid, r.box.PidFD = p.Pid, kernel.FD(p.PidFD)
	return nil
}

// killStarted ends the child if there is one.
func (r *run) killStarted() error {
	if r.box.PidFD == kernel.None {
		return nil
	}
	return r.kill()
}

// settle performs the gate steps and follows the child until the workload runs.
func (r *run) settle() error {
	gated, lasting := false, false
	for i, s := range r.req.Plan.Steps {
		switch {
		case s.Where == plan.Gate:
			if err := r.gate(s.Do); err != nil {
				return r.gone(r.failed(i, "", err))
			}
		case s.Where == plan.Child && s.Do == plan.Action(plan.Wait{}):
			gated = true
		case s.Where == plan.Host && s.Do.Call() == "ids.reserve":
			lasting = s.Do.(plan.ReserveIDs).Lasting
		}
	}
	if lasting {
		if err := r.ownIDs(); err != nil {
			return r.gone(err)
		}
	}
	if r.req.Cloned != nil {
		if err := r.req.Cloned(r.box); err != nil {
			return r.gone(err)
		}
	}
	if gated {
		if err := r.box.Status.Send([]byte{1}); err != nil {
			return r.gone(fmt.Errorf("open the gate: %w", err))
		}
	}
	if r.req.Meanwhile != nil {
		r.req.Meanwhile()
	}
	if !has[plan.Hold](r.req.Plan) { // else when it is let on
		if err := r.word(); err != nil {
			return err
		}
	}
	for {
		done, err := r.message()
		if err != nil || done {
			return err
		}
	}
}

// has says whether a plan has a step of a kind.
func has[A plan.Action](p *plan.Plan) bool {
	return slices.ContainsFunc(p.Steps, func(s plan.Step) bool { _, ok := s.Do.(A); return ok })
}

// word lets the init start the workload, if it awaits that. It is longer than
// what a child waits for, which therefore fails if it reads this instead.
func (r *run) word() error {
	if r.req.Meanwhile == nil {
		return nil
	}
	if err := r.box.Status.Send([]byte{1, 1}); err != nil {
		return r.gone(fmt.Errorf("let the workload start: %w", err))
	}
	return nil
}

// gone prefers what a dead child said to what its death made fail here.
func (r *run) gone(err error) error {
	var b [8]byte
	n, passed, e := r.receive(b[:], false)
	if passed != kernel.None {
		err = errors.Join(err, passed.Close())
	}
	if e == nil && n == len(b) {
		if kind, value := pid1.Decode(b[:]); kind >= 0 {
			return r.stepReport(kind, value)
		}
	}
	return err
}

// receive reads one message. A child that ends before it has read that the gate
// is open resets the connection, once: what it has said before is still there.
func (r *run) receive(b []byte, wait bool) (n int, passed kernel.FD, err error) {
	n, passed, err = r.box.Status.Receive(b, wait)
	if kernel.IsErrno(err, kernel.ECONNRESET) {
		n, passed, err = r.box.Status.Receive(b, wait)
	}
	return n, passed, err
}

func (r *run) message() (done bool, err error) {
	var b [8]byte
	n, fd, err := r.receive(b[:], true)
	if err != nil {
		return false, fmt.Errorf("read the status socket: %w", err)
	}
	if n != len(b) {
		return false, errors.New("the sandbox's first process was killed before the workload ran")
	}
	switch kind, value := pid1.Decode(b[:]); {
	case kind >= 0:
		return false, r.stepReport(kind, value)
	case kind == kindConsole:
		r.box.Console = fd
		return false, nil
	case kind == kindHeld:
		return false, r.letOn()
	case kind == kindListener && r.req.Listener != nil:
		r.req.Listener(fd)
		return false, nil
	case kind == pid1.Started:
		r.box.WorkloadPid = value
		if r.req.Started != nil {
			err = r.req.Started(r.box)
		}
		return true, err
	case kind == pid1.NotStarted:
		return false, r.failed(len(r.req.Plan.Steps)-1, "", syscall.Errno(-value))
	case kind == pid1.NoFilter:
		return false, r.failed(len(r.req.Plan.Steps)-2, "", syscall.Errno(-value))
	case kind == pid1.NoSession:
		return false, r.failed(len(r.req.Plan.Steps)-3, "setsid", syscall.Errno(-value))
	case kind == pid1.Broken:
		return false, r.failed(len(r.req.Plan.Steps)-3, "process 1", syscall.Errno(-value))
	default:
		return false, fmt.Errorf("this is a bug in nucleus: message %d, %d from the sandbox", kind, value)
	}
}

// letOn asks what the kernel says about the sandbox, and lets it go on.
func (r *run) letOn() error {
	if r.req.Held != nil { // first: it tells of what the audit refuses, too
		if err := r.req.Held(r.box); err != nil {
			return r.gone(err)
		}
	}
	if err := r.audit(); err != nil {
		return r.gone(err)
	}
	if err := r.box.Status.Send([]byte{1}); err != nil {
		return r.gone(fmt.Errorf("let the sandbox go on: %w", err))
	}
	return r.word()
}

func (r *run) stepReport(op, errno int) error {
	if op >= len(r.enc.info) {
		return fmt.Errorf("this is a bug in nucleus: operation %d of %d failed", op, len(r.enc.info))
	}
	return r.failed(r.enc.info[op].step, r.enc.info[op].call, syscall.Errno(errno))
}

// kill ends what was cloned and waits for it: it may still use the arena.
func (r *run) kill() error {
	if err := kernel.SignalPid(r.box.PidFD, int(syscall.SIGKILL)); err != nil && !kernel.IsErrno(err, kernel.ESRCH) {
		return err
	}
	_, _, err := kernel.Reap(r.box.Pid)
	return err
}

// dumpGuard puts back this process's "dumpable" flag, which belongs to memory
// that a child shares while it sets up: one that changes its user id clears it
// (prctl(2), PR_SET_DUMPABLE). It does so when the last such start is over.
type dumpGuard struct {
	mu      sync.Mutex
	running int
	was     bool
}

var setup dumpGuard

type dumpToken struct{ guard *dumpGuard }

func (g *dumpGuard) enter(changesIDs bool) dumpToken {
	if !changesIDs {
		return dumpToken{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running == 0 {
		was, err := kernel.Dumpable()
		g.was = was || err != nil
	}
	g.running++
	return dumpToken{g}
}

func (t dumpToken) leave() error {
	if t.guard == nil {
		return nil
	}
	t.guard.mu.Lock()
	defer t.guard.mu.Unlock()
	t.guard.running--
	if t.guard.running > 0 || !t.guard.was {
		return nil
	}
	return kernel.SetDumpable()
}
