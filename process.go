package nucleus

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/supervise"
	"github.com/nucleus-container/nucleus/spec"
)

// Process is a running sandbox. Its methods may be called at the same time.
type Process struct {
	pid      int
	workload int
	life     life
	sup      *supervise.Supervisor // nil: nobody waits for it but Wait
	plan     *Plan                 // nil: Open found it
	idBase   uint32
	console  *os.File
	child    bool // Open found it, and it is a child of ours

	mu     sync.Mutex
	group  *cgroup.Group
	facts  *Host        // as asked for programs that join
	id     *identity    // of one that Open found
	policy *plan.Policy // as above

	expired   atomic.Bool
	cancelled atomic.Bool
}

// life is the part of a sandbox's process that must not be mistaken for another's.
type life interface {
	Signal(sig syscall.Signal) error
	Alive(f func(pid int) error) error
}

// Pid returns the host's number of the sandbox's first process, its init.
func (p *Process) Pid() int { return p.pid }

// Signal sends a signal to the program. os.Kill ends the whole sandbox.
// After the end it returns os.ErrProcessDone.
func (p *Process) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("nucleus: %v is not a signal of this system", sig)
	}
	return p.life.Signal(s)
}

// Kill ends every process in the sandbox, at once.
func (p *Process) Kill() error { return p.life.Signal(syscall.SIGKILL) }

// Terminal returns the supervisor's end of the sandbox's terminal, or nil. It
// belongs to the Process.
func (p *Process) Terminal() *os.File { return p.console }

// Resize sets the size of the sandbox's terminal in characters.
func (p *Process) Resize(rows, cols uint16) error {
	if p.console == nil {
		return os.ErrInvalid
	}
	return kernel.SetWindowSize(p.console, rows, cols)
}

// Reason says why a sandbox ended.
type Reason string

// Reasons.
const (
	Exited           Reason = "exited"        // the program ended by itself
	Signaled         Reason = "signaled"      // a signal ended the program
	OutOfMemory      Reason = "out of memory" // the memory limit ended it
	DeadlineExceeded Reason = "deadline exceeded"
)

// Outcome says how a sandbox ended.
type Outcome struct {
	Reason  Reason
	Code    int            // exit code, if Exited
	Signal  syscall.Signal // if a signal ended the program
	Detail  string         // more about the reason, for people; may be empty
	Started time.Time
	Ended   time.Time
	User    time.Duration // processor time of all processes
	System  time.Duration
	MaxRSS  int64 // bytes of memory of the largest process

	MemoryPeak uint64 // bytes that the control group held at most; 0: unknown
}

// Success reports whether the program exited with 0.
func (o *Outcome) Success() bool { return o.Reason == Exited && o.Code == 0 }

// ExitCode is the exit code, or 128 and the signal's number.
func (o *Outcome) ExitCode() int {
	if o.Signal != 0 {
		return 128 + int(o.Signal)
	}
	return o.Code
}

// String says it in a few words.
func (o *Outcome) String() string {
	switch {
	case o.Detail != "":
		return o.Detail
	case o.Signal != 0:
		return "signal: " + o.Signal.String()
	}
	return fmt.Sprintf("exit status %d", o.Code)
}

// ExitError is the error of a program that did not exit with 0.
type ExitError struct{ *Outcome }

func (e *ExitError) Error() string { return e.Outcome.String() }

func (c *Cmd) outcome(r supervise.Result) *Outcome {
	o := &Outcome{Reason: Exited, Code: r.Status.ExitStatus(), Started: c.started, Ended: r.Ended, User: r.User, System: r.System, MaxRSS: r.MaxRSS}
	if r.Status.Signaled() {
		o.Reason, o.Signal, o.Code = Signaled, r.Status.Signal(), 0
	}
	limit := c.Sandbox.Limits.Memory
	switch {
	case c.Process.expired.Load() && o.Signal == syscall.SIGKILL:
		o.Reason = DeadlineExceeded
		o.Detail = fmt.Sprintf("killed: it ran longer than its timeout of %v", c.Sandbox.Timeout)
	case r.OOMKills > c.kills && !o.Success():
		o.outOfMemory(limit)
	}
	return o
}

func (o *Outcome) outOfMemory(limit spec.Bytes) {
	o.Reason = OutOfMemory
	o.Detail = fmt.Sprintf("out of memory: it needed more than its limit of %v (limits.memory), and the kernel killed it", limit)
}
