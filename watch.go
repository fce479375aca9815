package nucleus

import (
	"errors"
	"time"

	"github.com/nucleus-container/nucleus/internal/enter"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/observe"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Level says how much a Watch sees.
type Level int

// The levels. Each sees what the one before it sees.
const (
	// Refusals are the system calls that the sandbox's policy refuses, and where
	// connections go. A program that is refused nothing pays nothing.
	Refusals Level = iota
	// Files adds the calls that open, change and execute files. Each of them
	// waits for this program.
	Files
	// Everything adds all other calls, but for those that every program makes
	// all the time ([seccomp.Basic]). What different processes do is not told apart.
	Everything
)

// Watch sees what a program in a sandbox asks for. What the sandbox's policy
// refuses is refused all the same, with the same error; only that this program
// gives the answer, and so knows of it. While this program does not run, no such
// call is answered.
type Watch struct {
	Level Level
	// Names has the calls remembered by name alone, which costs least.
	Names bool
	// Most bounds the number of different calls that are remembered; 0: 10000.
	Most int
	// Optional does without where the kernel has no listeners (before 5.0), and
	// where the sandbox's own policy leaves no room for one.
	Optional bool

	recorder *observe.Recorder
	serving  bool
	trail    *observe.Trail // nil: the kernel's audit log is not read
	trailed  bool           // nor any more
}

// Call is a system call that a Watch saw, or several that differ only in when
// they were made.
type Call struct {
	Name    string    `json:"name"`
	NR      uint32    `json:"nr"`
	Args    [6]uint64 `json:"args"`              // of the first
	Refused string    `json:"refused,omitempty"` // the errno that the policy answered with
	Rule    string    `json:"rule,omitempty"`    // why it does
	Path    string    `json:"path,omitempty"`    // absolute, in the sandbox; symbolic links are not resolved
	Second  string    `json:"second,omitempty"`  // of calls with two paths
	Addr    string    `json:"addr,omitempty"`    // host:port, or a local socket's name (@: abstract)
	Change  bool      `json:"change,omitempty"`  // it would change the file
	Exec    bool      `json:"exec,omitempty"`    // it would execute it
	Pid     int       `json:"pid"`               // of the thread that made the first, on the host
	Process string    `json:"process"`           // its name
	First   time.Time `json:"first"`
	Count   int       `json:"count"`
}

func (w *Watch) level() seccomp.Level { return seccomp.Level(w.Level) + seccomp.Refusals }

func (w *Watch) look() observe.Look {
	switch {
	case w.Names:
		return observe.Names
	case w.Level == Everything:
		return observe.Job
	}
	return observe.Processes
}

// listen has the recorder serve the listener of a plan, and reads along what
// Landlock refuses where the plan has the kernel write that down.
func (w *Watch) listen(p *plan.Plan, req *enter.Request) {
	if w == nil {
		return
	}
	if w.trailed { // of another program that was watched before
		w.trail, w.trailed = nil, false
	}
	for _, s := range p.Steps {
		switch a := s.Do.(type) {
		case plan.Landlock:
			if a.Logged() && w.trail == nil {
				w.trail, _ = observe.NewTrail() // without, it follows from the rules
			}
		case plan.Listen:
			most := w.Most
			if most <= 0 {
				most = 10000
			}
			w.recorder, w.serving = observe.New(a.Policy, a.Program.Arch, most, w.look()), false
			req.Listener = func(fd kernel.FD) {
				w.serving = true
				go w.recorder.Serve(fd)
			}
		}
	}
}

// wait waits until the last process of the sandbox is gone.
func (w *Watch) wait() (err error) {
	if w == nil {
		return nil
	}
	if w.serving {
		_, _, err = w.recorder.Wait()
	}
	return errors.Join(err, w.endTrail())
}

// trailTime is how long what the kernel still has to write about a sandbox that
// has ended is waited for; hardly ever more than the fewest milliseconds.
const trailTime = 100 * time.Millisecond

// endTrail ends reading along.
func (w *Watch) endTrail() error {
	if w == nil || w.trail == nil || w.trailed {
		return nil
	}
	w.trailed = true
	return w.trail.Stop(trailTime)
}

// blocked is what Landlock refused to the sandbox of a process 1. exact says that
// it is all there was.
func (w *Watch) blocked(pid int) (all []observe.Blocked, exact bool) {
	if w == nil || w.trail == nil {
		return nil, false
	}
	return w.trail.Of(pid)
}

// seen is what the recorder has.
func (w *Watch) seen() (calls []observe.Call, lost int) {
	if w == nil || w.recorder == nil {
		return nil, 0
	}
	return w.recorder.Calls()
}

// Calls returns what was seen so far, in the order of first appearance. lost
// counts calls that were not remembered because there were too many different ones.
func (w *Watch) Calls() (calls []Call, lost int) {
	seen, lost := w.seen()
	for _, c := range seen {
		calls = append(calls, Call{
			Name: c.Name, NR: c.NR, Args: c.Args, Refused: string(c.Refused), Rule: c.Rule, Path: c.Path, Second: c.Second, Addr: c.Addr,
			Change: c.Change, Exec: c.Exec, Pid: c.Pid, Process: c.Process, First: c.First, Count: c.Count,
		})
	}
	return calls, lost
}
