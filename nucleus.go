// Package nucleus runs programs in hardened Linux sandboxes.
//
// A sandbox is described by a [spec.Sandbox], whose zero value allows nothing:
// an empty root, no host file, no network, no capability. [Command] mirrors
// [os/exec.Command] and the result is used the same way:
//
//	box := &spec.Sandbox{Toolchain: true, Workspace: &spec.Bind{Source: "."}}
//	out, err := nucleus.Command(box, "python3", "agent.py").Output()
//
// What was asked for is enforced, or Start fails with an [*Error] that names
// the step, the object, the cause and often the remedy; then nothing has run
// and nothing is left behind. What could only be enforced in part is in the
// [Report], which is read back from the kernel.
//
// It works from any program, including tests: there is no function to call
// first, no daemon, no helper program and no cgo.
//
// A sandbox lives no longer than the program that started it, unless Detach says
// otherwise.
package nucleus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/enter"
	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/supervise"
	"github.com/nucleus-container/nucleus/spec"
)

// Cmd is a program prepared to run in a sandbox. It cannot be reused after Start.
type Cmd struct {
	// Sandbox describes the sandbox. It must not be changed after Start.
	Sandbox *spec.Sandbox
	// Path is the program: looked up in the sandbox's PATH unless it has a slash.
	Path string
	// Args are the arguments, beginning with the program's name.
	Args []string
	// Env is added to the sandbox's clean environment after Sandbox.Env; the
	// caller's environment is never passed on.
	Env []string
	// Dir is the working directory inside; empty: as Sandbox says.
	Dir string

	// Stdin, Stdout and Stderr are as in os/exec: nil is /dev/null, an
	// *os.File is passed on as it is, anything else is copied. With
	// Sandbox.Terminal they are copied from and to the terminal, which has no
	// separate Stderr.
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// ExtraFiles become descriptors 3 and up. Through a directory the program
	// reaches what lies beneath, but for opening it: standard streams must be none.
	ExtraFiles []*os.File

	// Cancel is called when the context is done. The default kills every
	// process in the sandbox.
	Cancel func() error
	// WaitDelay bounds the wait for copying after the sandbox has ended; all
	// its processes are gone by then, so a copy can only be held up by the
	// caller's own reader or writer. Zero: no bound.
	WaitDelay time.Duration
	// Start calls signal.Notify(Caught, Signals...) before the program can run, so
	// that none is lost that is meant for it. It is here because only Start knows
	// the moment at which that costs least.
	Signals []os.Signal
	Caught  chan<- os.Signal
	// Detach, if not nil, lets the sandbox outlive this program. Wait must not be
	// called then: see Process.Wait. Standard streams must be files.
	Detach *Detach
	// Born, if not nil, is called when the sandbox exists and before the program
	// can run; if it fails, the program never does. The identity is the only way
	// back to a detached sandbox. (Without a user namespace of its own, a
	// sandbox that is not detached does not wait for it.)
	Born func(Identity) error
	// Watch, if not nil, sees what the sandbox is refused, and more if it asks.
	// It cannot be combined with Detach.
	Watch *Watch
	// Events, if not nil, is told what happens in the sandbox's life. What an event
	// says about security was read back from the kernel while the program was held
	// before its first instruction; if the kernel does not confirm the plan, or
	// Events fails, the program never runs, or is killed. It is called by Start and
	// Wait, one event after the other. A program that joins a sandbox tells nothing.
	Events func(event.Body) error
	// HideArgs keeps the program's arguments out of Events.
	HideArgs bool
	// As, for a program that joins a sandbox, is another user of the sandbox.
	As *spec.User
	// Logger receives one line when the sandbox starts, one when it ends and
	// one for each thing that was weakened; at debug level one for each step.
	// Nil is silent.
	Logger *slog.Logger

	// Process is set by Start.
	Process *Process
	// Outcome is set by Wait.
	Outcome *Outcome
	// Err is a failure of construction, which Start reports.
	Err error

	ctx     context.Context
	io      stdio
	timer   *time.Timer
	stop    func() bool      // the context's watcher
	done    chan error       // of the copying goroutines
	edit    func(*plan.Plan) // tests only: change the plan before it is performed
	started time.Time

	planned    *plan.Plan // what Start did, or tried to do
	startErr   error      // why it did not
	blind      bool       // the kernel cannot watch, and that is all right
	pidsDenied uint64
	scratch    scratch

	into     *Process // the sandbox to join
	identity Identity // of a detached sandbox
	kills    uint64   // by the memory limit of the sandbox to join, so far
	usage    event.Usage
	ran      bool // the program has been executed
}

// Command returns the Cmd to run a program in a sandbox.
func Command(s *spec.Sandbox, name string, arg ...string) *Cmd {
	c := &Cmd{Sandbox: s, Path: name, Args: append([]string{name}, arg...)}
	c.Err = c.check()
	return c
}

// check looks at what only the Cmd says. A Cmd need not come from Command, so
// it is also done later.
func (c *Cmd) check() error {
	wrong := func(object, why string) error {
		return &Error{Stage: StageValidate, Step: -1, Op: "check", Object: object, Err: fmt.Errorf("%s: %w", why, ErrInvalid)}
	}
	switch {
	case c.Sandbox == nil:
		return wrong("sandbox", "no sandbox is described")
	case c.Path == "":
		return wrong("command", "no program is named")
	case strings.ContainsRune(c.Path, 0), slices.ContainsFunc(c.Args, func(a string) bool { return strings.ContainsRune(a, 0) }):
		return wrong("command", "an argument has a zero byte")
	}
	return nil
}

// CommandContext is like Command with a context: when it is done before the
// sandbox has ended, every process in the sandbox is killed.
func CommandContext(ctx context.Context, s *spec.Sandbox, name string, arg ...string) *Cmd {
	c := Command(s, name, arg...)
	c.ctx = ctx
	return c
}

// String returns the command, its arguments separated by spaces.
func (c *Cmd) String() string { return strings.Join(c.Args, " ") }

// full returns the description with the Cmd's own additions.
func (c *Cmd) full() *spec.Sandbox {
	s := *c.Sandbox
	if len(c.Env) > 0 {
		s.Env = append(append([]string(nil), s.Env...), c.Env...)
	}
	if c.Dir != "" {
		s.Workdir = c.Dir
	}
	return &s
}

// Plan returns what Start would do here. It has no side effects.
func (c *Cmd) Plan() (*Plan, error) {
	if c.Err != nil {
		return nil, c.Err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.into != nil {
		return c.joinPlan()
	}
	s := c.full()
	h, err := probe(s, c.Detach != nil)
	if err != nil {
		return nil, err
	}
	if c.Watch != nil {
		host.Listeners(&h.facts)
		c.blind = c.Watch.Optional && plan.Watchable(&h.facts) != nil
	}
	return c.plan(s, h)
}

func (c *Cmd) plan(s *spec.Sandbox, h *Host) (*Plan, error) {
	run := c.command()
	if run.Detach {
		run.Track = cgroup.Trackable(h.facts.Cgroup)
	}
	return newPlan(s, h, run)
}

// command is what the plan needs to know of the program.
func (c *Cmd) command() plan.Command {
	run := plan.Command{Name: c.Path, Extra: len(c.ExtraFiles), Detach: c.Detach != nil, Joinable: c.Detach != nil || c.Born != nil}
	if c.Watch != nil && !c.blind {
		run.Observe = c.Watch.level()
	}
	run.Hold = c.tells()
	if len(c.Args) > 0 {
		run.Arg0, run.Args = c.Args[0], c.Args[1:]
	}
	return run
}

// Start starts the program in its sandbox. When it returns nil the program has
// been executed, and Wait must be called.
func (c *Cmd) Start() error {
	if c.Process != nil {
		return errors.New("nucleus: already started")
	}
	if c.ctx != nil {
		if err := c.ctx.Err(); err != nil {
			c.Err = errors.Join(c.Err, err)
		}
	}
	p, err := c.Plan()
	if err != nil {
		c.io.closeAll()
		return err
	}
	if c.edit != nil {
		c.edit(p.plan)
	}
	fds, err := c.openStdio()
	if err != nil {
		c.io.closeAll()
		return err
	}
	c.started, c.planned = time.Now(), p.plan
	box, err := c.enterTold(p, fds)
	c.io.closeChild()
	if err != nil {
		c.io.closeAll()
		c.startErr = err
		if lost := c.Watch.endTrail(); lost != nil { // alone, err keeps its type
			err = errors.Join(err, lost)
		}
		return err
	}
	if c.Detach != nil {
		return c.detached(box)
	}
	c.supervise(p, box)
	return nil
}

// enter performs the plan.
func (c *Cmd) enter(p *Plan, fds []int) (*enter.Sandbox, error) {
	req := enter.Request{Plan: p.plan, Host: &p.host.facts, Name: c.name(), Stdio: fds}
	req.Cloned = func(box *enter.Sandbox) error { return c.born(p, box) }
	if len(c.Signals) > 0 && c.Caught != nil {
		req.Meanwhile = func() { signal.Notify(c.Caught, c.Signals...) }
	}
	if c.Detach != nil && c.Detach.Exit != nil {
		req.Exit = int(c.Detach.Exit.Fd())
	}
	if c.into == nil {
		c.Watch.listen(p.plan, &req)
		if c.tells() {
			req.Held = func(box *enter.Sandbox) error { return c.held(p, box) }
			req.Started = func(box *enter.Sandbox) error { return c.tellStarted(p, box) }
		}
		return enter.Start(req)
	}
	into, err := c.into.intoRequest()
	if err != nil {
		return nil, err
	}
	req.Into = into
	if into.Group != nil {
		if c.kills, err = into.Group.OOMKills(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, into.Group.Close())
		}
	}
	box, err := enter.Start(req)
	if err == nil {
		return box, nil
	}
	if into.Group != nil {
		err = errors.Join(err, into.Group.Close())
	}
	if gone := c.into.life.Signal(0); gone != nil { // whatever step noticed it
		err = gone
	}
	return nil, err
}

// supervise takes over a sandbox that runs.
func (c *Cmd) supervise(p *Plan, box *enter.Sandbox) {
	pid, console, group, end := box.Pid, box.Console, box.Group, box.Close
	if c.into != nil && group != nil { // the sandbox's, not ours to remove
		end = func() error { return errors.Join(box.Close(), group.Close()) }
	}
	sup := supervise.New(supervise.Sandbox{Pid: pid, PidFD: box.PidFD, Status: box.Status, Group: group, Last: c.measure(group), Close: end, Joined: c.into != nil})
	c.scratch.at = kernel.None
	if c.Watch != nil && c.into == nil {
		c.scratch.hold(pid)
	}
	c.Process = &Process{pid: pid, workload: box.WorkloadPid, life: sup, sup: sup, plan: p, idBase: box.IDBase, group: group}
	if console >= 0 {
		c.Process.console = console.File("console")
		c.io.terminal(c.Process.console, c.Stdin, c.Stdout)
	}
	c.done = c.io.copy()
	c.watch()
	c.log(p)
}

// watch kills the sandbox when its time is over.
func (c *Cmd) watch() {
	if t := c.Sandbox.Timeout; t > 0 {
		c.timer = time.AfterFunc(t-time.Since(c.started), func() {
			c.Process.expired.Store(true)
			_ = c.Process.Kill() // it has ended by itself if this fails
		})
	}
	if c.ctx != nil {
		c.stop = context.AfterFunc(c.ctx, func() {
			c.Process.cancelled.Store(true)
			cancel := c.Cancel
			if cancel == nil {
				cancel = c.Process.Kill
			}
			_ = cancel() // as above
		})
	}
}

func (c *Cmd) log(p *Plan) {
	if c.Logger == nil {
		return
	}
	for i, s := range p.plan.Steps {
		c.Logger.Debug("step", "sandbox", c.Sandbox.Name, "stage", StageEnter, "step", i, "op", s.Do.Call(), "object", s.Do.String())
	}
	for _, w := range p.plan.Weakened {
		c.Logger.Warn("weakened", "sandbox", c.Sandbox.Name, "feature", w.Feature, "why", w.Why)
	}
	c.Logger.Info("started", "sandbox", c.Sandbox.Name, "pid", c.Process.pid, "dur", time.Since(c.started))
}

// Wait waits for the sandbox to end, with all its processes, and for the
// copying to and from it. The error is an *ExitError if the program did not
// exit with 0.
func (c *Cmd) Wait() error {
	if c.Process == nil {
		return errors.New("nucleus: not started")
	}
	if c.Process.sup == nil {
		return errors.New("nucleus: a detached program is not waited for; see Process.Wait")
	}
	if c.Outcome != nil {
		return errors.New("nucleus: Wait was already called")
	}
	res, err := c.Process.sup.Wait()
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.stop != nil {
		c.stop()
	}
	c.Outcome, c.pidsDenied = c.outcome(res), res.PidsDenied
	copyErr := errors.Join(c.scratch.let(), c.Watch.wait(), c.io.wait(c.done, c.WaitDelay))
	if c.Logger != nil {
		c.Logger.Info("ended", "sandbox", c.Sandbox.Name, "reason", string(c.Outcome.Reason), "code", c.Outcome.ExitCode(), "dur", c.Outcome.Ended.Sub(c.Outcome.Started))
	}
	if err = errors.Join(err, c.tellEnd(res.OOMKills)); err != nil {
		return &Error{Stage: StageSupervise, Step: -1, Op: "wait for", Object: c.Path, Err: err}
	}
	if c.ctx != nil && c.Process.cancelled.Load() && c.Outcome.Reason != Exited {
		return errors.Join(c.ctx.Err(), &ExitError{Outcome: c.Outcome})
	}
	if !c.Outcome.Success() {
		return &ExitError{Outcome: c.Outcome}
	}
	return copyErr
}

// Run starts the program and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns its standard output.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("nucleus: Stdout is already set")
	}
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the program and returns its standard output and error, interleaved.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("nucleus: Stdout or Stderr is already set")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
