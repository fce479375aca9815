// Package observe answers the calls that a sandbox's filter leaves to a listener,
// and remembers them.
//
// It answers as the policy decides, from the call's number and its argument words
// alone, which the kernel has copied: what a policy refuses is refused with the
// policy's errno, what it allows goes on in the kernel, where every other layer
// still decides. What pointers lead to is read for the record only. It may have
// changed since, so the record tells what was asked for and decides nothing.
//
// When this program ends, so do the answers: calls that the filter leaves to the
// listener fail with ENOSYS from then on.
package observe

import (
	"cmp"
	"errors"
	"path"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Call is one call, or several that differ in nothing but when they were made.
type Call struct {
	Name    string         // of the system call, or its number
	NR      uint32         // its number
	Args    [6]uint64      // of the first
	Refused seccomp.Action // the errno that it was answered with; empty: it went on
	Rule    string         // why the policy refuses it
	Path    string         // the file that it names, as an absolute path of the sandbox
	Second  string         // the other one, of calls that have two
	Addr    string         // network address: host:port, or the name of a local socket
	Change  bool           // it would change the file
	Exec    bool           // it would execute it
	Pid     int            // of the process that made the first, in our process namespace
	Process string         // that process's name
	First   time.Time
	Count   int
	Seen    Seen // what there was at Path, Second or Addr when the first was made
}

// Recorder answers and remembers. It is made by New.
type Recorder struct {
	policy seccomp.Policy
	arch   seccomp.Arch
	table  table
	asker  asker
	done   chan struct{}
	err    error
}

// New returns a Recorder for a policy. most bounds the number of different calls
// that it remembers.
func New(p seccomp.Policy, a seccomp.Arch, most int) *Recorder {
	return &Recorder{policy: p, arch: a, table: newTable(most), done: make(chan struct{})}
}

// Serve answers until the last process that has the filter is gone. It takes
// ownership of the descriptor.
func (r *Recorder) Serve(fd kernel.FD) {
	defer close(r.done)
	n := kernel.NewNotifier(fd)
	r.err = r.serve(n)
	r.asker.close()
	r.err = errors.Join(r.err, n.Close())
}

func (r *Recorder) serve(n kernel.Notifier) error {
	var note kernel.Notification
	for {
		if err := n.Receive(&note); err != nil {
			if errors.Is(err, kernel.ErrNotifierGone) {
				return nil
			}
			return err
		}
		action := r.policy.Decide(r.arch, uint32(note.NR), note.Args)
		c := r.describe(&note, action)
		// What was read is about this call only if its process still waits.
		if n.Valid(note.ID) {
			r.table.add(c)
		}
		if err := answer(n, note.ID, action); err != nil && !errors.Is(err, kernel.ErrNotifierGone) {
			return err
		}
	}
}

// answer is the only place that lets a call go on, and only one that the policy
// allows. A call that should not have come here is refused.
func answer(n kernel.Notifier, id uint64, a seccomp.Action) error {
	if a == seccomp.Allow || a == seccomp.Log {
		return n.Continue(id)
	}
	errno, ok := a.Errno()
	if !ok {
		errno = uint16(syscall.EPERM)
	}
	return n.Refuse(id, syscall.Errno(errno))
}

func (r *Recorder) describe(note *kernel.Notification, a seccomp.Action) Call {
	c := Call{NR: uint32(note.NR), Args: note.Args, Pid: int(note.Pid), First: time.Now(), Count: 1}
	name, ok := r.arch.Name(c.NR)
	if !ok {
		name = "call " + number(uint64(c.NR))
	}
	c.Name = name
	if a != seccomp.Allow && a != seccomp.Log {
		c.Refused, c.Rule = a, r.policy.Why(r.arch, c.NR, c.Args)
	}
	c.Process = process(c.Pid)
	arguments(&c)
	if c.Refused == "" && !r.table.has(&c) {
		c.Seen = r.see(&c)
	}
	return c
}

// see asks about the file that a call names, the one that would be made if there
// are two.
func (r *Recorder) see(c *Call) Seen {
	name := cmp.Or(c.Second, c.Path)
	if name == "" && path.IsAbs(c.Addr) { // a local socket
		name = c.Addr
	}
	if name == "" {
		return Seen{}
	}
	return r.asker.ask(c.Pid, name)
}

// Wait waits for the end and returns what was seen, in the order of first
// appearance; lost is the number of calls that were not remembered because there
// were too many different ones.
func (r *Recorder) Wait() (calls []Call, lost int, err error) {
	<-r.done
	calls, lost = r.table.all()
	return calls, lost, r.err
}

// Calls returns what was seen so far.
func (r *Recorder) Calls() (calls []Call, lost int) { return r.table.all() }
