package nucleus

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/denial"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/observe"
	"github.com/nucleus-container/nucleus/spec"
)

// Denial is one thing that a sandbox refused, or several that differ only in
// when they were tried: what was tried, which rule refused it and why, and what
// would allow it. Text that came from the program is harmless to print.
type Denial struct {
	Time time.Time `json:"time"` // of the last
	// Layer is what refused it: seccomp, landlock, mount, capability, memory,
	// pids, network, time; or missing, for a file of the host that is not in the sandbox.
	Layer   string `json:"layer"`
	What    string `json:"what"`
	Object  string `json:"object,omitempty"`
	Process string `json:"process,omitempty"`
	Pid     int    `json:"pid,omitempty"` // of the first, on the host
	Errno   string `json:"errno,omitempty"`
	Rule    string `json:"rule"`
	// Allow is the flag of nucleus run, or the line of a policy, that would allow
	// it; Otherwise says what else can be done, or why nothing can.
	Allow     string `json:"allow,omitempty"`
	Otherwise string `json:"otherwise,omitempty"`
	// Say is a sentence for a model inside the sandbox.
	Say string `json:"say"`
	// Inferred says that the kernel reported nothing, and that it follows from
	// what it says of the object.
	Inferred bool `json:"inferred,omitempty"`
	// Minor says that programs usually try this and go on without.
	Minor bool `json:"minor,omitempty"`
	Count int  `json:"count"`
}

// String says it on one line, without what would allow it.
func (d Denial) String() string { return (*denial.Denial)(&d).String() }

// Fix says on one line what a person can do; it may be empty.
func (d Denial) Fix() string { return (*denial.Denial)(&d).Fix() }

// Denials returns what the sandbox refused, as far as Watch saw it and as it
// follows from how the program ended, the likeliest cause of a failure first. It
// can be called after Start has failed or Wait has returned, and before that for
// what there is so far. There are at most a few hundred.
//
// What Landlock refuses the kernel reports where its audit is on and this process
// may read that (Linux 6.15, as root). What it does not report is inferred from what
// it says of a file while the call waits; a Watch sees such calls at the level Files.
func (c *Cmd) Denials() []Denial { return c.denials(c.Args) }

// denials infers from the program and its arguments only what args holds of them.
func (c *Cmd) denials(args []string) []Denial {
	calls, _ := c.Watch.seen()
	blocked, exact := c.blocked()
	if len(calls)+len(blocked) == 0 && c.startErr == nil && (c.Outcome == nil || c.Outcome.Success()) {
		return nil
	}
	j := denial.New(c.full(), c.planned, ours())
	if exact {
		j.LandlockTells()
	}
	for _, b := range blocked {
		j.Blocked(denial.Blocked(b))
	}
	for _, call := range calls {
		j.Call(denial.Call{
			Name: call.Name, Args: call.Args, Refused: string(call.Refused), Rule: call.Rule, Path: call.Path, Second: call.Second, Addr: call.Addr,
			Change: call.Change, Exec: call.Exec, Pid: call.Pid, Process: call.Process, Time: call.First, Count: call.Count,
			Seen: denial.Seen(call.Seen), Needs: [2]denial.Need{
				{Path: call.At.Real, Dir: call.At.Kind == observe.Dir, Access: call.Access}, {Path: call.At2.Real, Dir: call.At2.Kind == observe.Dir, Access: call.Access2},
			},
		})
	}
	if o := c.Outcome; o != nil {
		j.End(denial.End{
			Time: o.Ended, Failed: !o.Success(), Code: o.Code, Memory: o.Reason == OutOfMemory, Deadline: o.Reason == DeadlineExceeded,
			PidsDenied: c.pidsDenied, Full: c.scratch.full, Args: args,
		})
	} else if c.startErr != nil {
		j.End(denial.End{Time: c.started, Args: append([]string{c.Path}, args...), NotFound: NotFound(c.startErr), NotExecutable: NotExecutable(c.startErr)})
	}
	return ranked(j)
}

// blocked is what the kernel says that Landlock refused, and whether it says all.
func (c *Cmd) blocked() (all []observe.Blocked, exact bool) {
	if c.Process == nil {
		return nil, false
	}
	return c.Watch.blocked(c.Process.pid)
}

// Explain returns what follows from how a program ended that nobody watched. An
// Outcome of a sandbox that was found by its record will do.
func Explain(s *spec.Sandbox, args []string, o *Outcome) []Denial {
	j := denial.New(s, nil, ours())
	j.End(denial.End{Time: o.Ended, Failed: !o.Success(), Code: o.Code, Memory: o.Reason == OutOfMemory, Deadline: o.Reason == DeadlineExceeded, Args: args})
	return ranked(j)
}

func ranked(j *denial.Judge) []Denial {
	var out []Denial
	for _, d := range denial.Ranked(j.Denials()) {
		out = append(out, Denial(d))
	}
	return out
}

// ours answers questions about this machine, as the caller sees it.
func ours() denial.Host {
	home, _ := os.UserHomeDir() // without one, nothing is looked for there
	dir, _ := os.Getwd()        // as above
	l := new(looker)
	return denial.Host{Has: l.has, Unreadable: l.unreadable, Home: home, Path: os.Getenv("PATH"), Dir: dir}
}

// looker looks at files of the host for as long as that is quick: a path may lead
// to a file system that does not answer.
type looker struct {
	lost bool
}

const lookTime = 100 * time.Millisecond

func (l *looker) has(path string) (dir, ok bool) {
	return l.ask(func() (bool, bool) {
		info, err := os.Stat(filepath.Clean(path))
		return err == nil && info.IsDir(), err == nil
	})
}

// unreadable reports whether this process, by its effective ids, may not read a file.
func (l *looker) unreadable(path string) bool {
	const cwd, read, effective = -100, 4, 0x200 // AT_FDCWD, R_OK, AT_EACCESS
	no, _ := l.ask(func() (bool, bool) {
		return errors.Is(syscall.Faccessat(cwd, path, read, effective), fs.ErrPermission), true
	})
	return no
}

// ask puts a question; one that is not answered in time has the answer no, and is the last.
func (l *looker) ask(question func() (a, b bool)) (a, b bool) {
	if l.lost {
		return false, false
	}
	type answer struct{ a, b bool }
	found := make(chan answer, 1)
	go func() {
		a, b := question()
		found <- answer{a, b}
	}()
	select {
	case is := <-found:
		return is.a, is.b
	case <-time.After(lookTime):
		l.lost = true
		return false, false
	}
}

// scratch is a hold on the sandbox's scratch space, to see at the end whether it
// is full.
type scratch struct {
	at   kernel.FD
	full bool
}

// hold takes hold of the scratch space of a sandbox that runs. Where it cannot,
// nothing is said about it later.
func (s *scratch) hold(pid int) {
	s.at = kernel.None
	if f, err := kernel.Open("/proc/"+strconv.Itoa(pid)+"/root", kernel.PathOnly|kernel.Directory, 0); err == nil {
		s.at = f
	}
}

// let lets go.
func (s *scratch) let() error {
	if s.at == kernel.None {
		return nil
	}
	space, err := kernel.SpaceOf(s.at)
	s.full = err == nil && (space.Free < spare || space.FreeFiles == 0)
	at := s.at
	s.at = kernel.None
	return at.Close()
}

// spare is what a full file system may have left.
const spare = 64 << 10
