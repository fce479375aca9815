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
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/policy/landlock"
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
	Words   [3]uint64      // arguments that tell what kind of call it is
	Change  bool           // it would change the file
	Exec    bool           // it would execute it
	Pid     int            // of the process that made the first, in our process namespace
	Process string         // that process's name
	First   time.Time
	Count   int
	Seen    Seen // what there was at Path, Second or Addr when the first was made

	Access  landlock.Access // what it needs over Path, if that was asked for
	Access2 landlock.Access // and over Second
	At, At2 Place           // where they lead

	// What follows is there when a job is learned.
	WordCount    int      // how many of Words there are
	Interpreters []string // what the kernel executes with it
	Blocked      string   // the errno that a mount answers with

	raw, raw2 string // the paths as they were written
	flags     uint64 // of a call that opens a file: those that matter
}

// Look says how closely calls are looked at.
type Look int

// The ways to look.
const (
	// Processes tells apart what different processes do.
	Processes Look = iota
	// Job takes all processes together, and asks where paths lead.
	Job
	// Names remembers calls by name alone.
	Names
)

// Recorder answers and remembers. It is made by New.
type Recorder struct {
	arch  seccomp.Arch
	look  Look
	table table
	done  chan struct{}
	err   error

	receive sync.Mutex // one asks for a call at a time

	mu     sync.Mutex
	policy seccomp.Policy
	asker  asker
	calls  map[uint32]known
	view   *view
	asked  bool // view was asked for
	init   int  // process 1
	began  bool // the program was executed, or is about to be
}

// known is what has been worked out about a number.
type known struct {
	name   string
	policy seccomp.Policy // the rules that name it, in order
}

// New returns a Recorder for a policy. most bounds the number of different calls
// that it remembers.
func New(p seccomp.Policy, a seccomp.Arch, most int, l Look) *Recorder {
	return &Recorder{policy: p, arch: a, look: l, table: newTable(most, l), calls: map[uint32]known{}, done: make(chan struct{})}
}

// servers is how many calls can be looked at at the same time: a job of several
// processes waits for its answers less.
const servers = 4

// Serve answers until the last process that has the filter is gone. It takes
// ownership of the descriptor.
func (r *Recorder) Serve(fd kernel.FD) {
	defer close(r.done)
	n := kernel.NewNotifier(fd)
	count := 1 // what is refused is rare
	if r.look != Processes {
		count = min(servers, runtime.GOMAXPROCS(0))
	}
	errs := make([]error, count)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = r.serve(n) })
	}
	all.Wait()
	r.asker.close()
	if r.view != nil {
		errs = append(errs, r.view.root.Close())
	}
	r.err = errors.Join(append(errs, n.Close())...)
}

func (r *Recorder) serve(n kernel.Notifier) error {
	var note kernel.Notification
	for {
		r.receive.Lock() // a kernel before 6.11 does not wake who asks for a call when all processes are gone
		err := n.Receive(&note)
		r.receive.Unlock()
		if errors.Is(err, kernel.ErrNotifierGone) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.handle(n, &note); err != nil {
			return err
		}
	}
}

// handle answers one call. It counts once its answer has been taken: a call that
// a signal interrupts before is made again, and what was read was not about
// another process that has got the same number since.
func (r *Recorder) handle(n kernel.Notifier, note *kernel.Notification) error {
	k := r.known(uint32(note.NR))
	action := k.policy.Decide(r.arch, uint32(note.NR), note.Args)
	c := r.describe(note, k, action)
	err := answer(n, note.ID, action)
	if err == nil && !r.own(&c) {
		r.table.add(c)
	}
	if errors.Is(err, kernel.ErrNotifierGone) {
		return nil
	}
	return err
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

// own reports whether a call is one that starting the program takes, and not the
// program's: those of process 1, and those before the first execution.
func (r *Recorder) own(c *Call) bool {
	if r.look == Processes || c.Refused != "" {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.init == 0 {
		r.init = c.Pid
	}
	r.began = r.began || c.Pid != r.init && strings.HasPrefix(c.Name, "execve")
	return c.Pid == r.init || !r.began
}

// known works out what there is to know about a number, once.
func (r *Recorder) known(nr uint32) known {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.calls[nr]
	if ok {
		return k
	}
	k.policy = seccomp.Policy{Default: r.policy.Default, Unknown: r.policy.Unknown}
	if k.name, ok = r.arch.Name(nr); !ok {
		k.name = "call " + number(uint64(nr))
	}
	for _, rule := range r.policy.Rules {
		if slices.Contains(rule.Calls, k.name) {
			k.policy.Rules = append(k.policy.Rules, rule)
		}
	}
	if len(r.calls) < 1000 { // a workload can make up four billion numbers
		r.calls[nr] = k
	}
	return k
}

func (r *Recorder) describe(note *kernel.Notification, k known, a seccomp.Action) Call {
	c := Call{Name: k.name, NR: uint32(note.NR), Args: note.Args, Pid: int(note.Pid), First: time.Now(), Count: 1}
	if a != seccomp.Allow && a != seccomp.Log {
		c.Refused, c.Rule = a, k.policy.Why(r.arch, c.NR, c.Args)
	}
	if r.look == Names {
		if r.table.isNew(&c) {
			c.Process = process(c.Pid)
		}
		return c
	}
	c.flags = openFlags(&c) & flagsThatMatter
	arguments(&c)
	if r.look == Processes {
		c.Process = process(c.Pid)
		if c.Refused == "" && r.table.isNew(&c) {
			r.see(&c)
		}
		return c
	}
	c.Words, c.WordCount = words(&c)
	if c.Refused == "" && !r.table.settled(&c) {
		r.rights(&c)
		c.Seen = c.At.seen()
	}
	if r.table.isNew(&c) {
		c.Process = process(c.Pid)
	}
	return c
}

// see asks about the file that a call names, the one that would be made if there
// are two, and what the call needs over them.
func (r *Recorder) see(c *Call) {
	name := cmp.Or(c.Second, c.Path)
	if name == "" && path.IsAbs(c.Addr) { // a local socket
		name = c.Addr
	}
	if name == "" {
		return
	}
	a := r.asker.ask(*c, name)
	c.Seen, c.Access, c.Access2, c.At, c.At2 = a.seen, a.call.Access, a.call.Access2, a.call.At, a.call.At2
}

// files returns the view of the sandbox's files, nil if there is none.
func (r *Recorder) files(pid int) *view {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.asked {
		r.asked = true
		r.view, _ = newView(pid) // without, a record has no rights over files, and says so
	}
	return r.view
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
