package observe

import (
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Seen is what the kernel says of the path of a call while its process waits.
type Seen struct {
	Asked    bool
	Exists   bool
	Parent   bool   // the directory that would hold it exists
	Real     string // where it leads to
	ReadOnly bool   // the mount of it, or of that directory
	NoExec   bool
	Special  bool // neither a file nor a directory
}

// patience bounds one question. A sandbox can have a network file system in it, or
// one that a program serves, whose answer may never come.
// A machine with much to do takes a while as well.
const patience = 500 * time.Millisecond

// asker puts questions about a sandbox's files, one at a time. After one that was
// not answered in time it asks nothing more: whoever waits behind it must not
// wait longer.
type asker struct {
	mu        sync.Mutex
	questions chan question // nil: nothing was asked yet
	lost      bool
}

type question struct {
	call   Call
	path   string
	answer chan answered
}

// answered is what there is at the path, and the call with what it needs.
type answered struct {
	seen Seen
	call Call
}

// close ends the goroutine, once it has its last answer.
func (a *asker) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.questions != nil {
		close(a.questions)
	}
	a.lost = true
}

func (a *asker) ask(c Call, name string) answered {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost || !path.IsAbs(name) || strings.HasPrefix(name, "/proc/") {
		return answered{}
	}
	if a.questions == nil {
		a.questions = make(chan question)
		go serve(a.questions)
	}
	q := question{c, name, make(chan answered, 1)}
	a.questions <- q
	select {
	case s := <-q.answer:
		return s
	case <-time.After(patience):
		a.lost = true
		return answered{}
	}
}

// serve holds on to the sandbox's root: all its processes have the same.
func serve(questions <-chan question) {
	root := kernel.None
	for q := range questions {
		if root == kernel.None {
			fd, err := kernel.Open("/proc/"+strconv.Itoa(q.call.Pid)+"/root", kernel.PathOnly|kernel.Directory, 0)
			if err != nil {
				q.answer <- answered{}
				continue
			}
			root = fd
		}
		a := answered{look(root, q.path), q.call}
		(&view{root}).needs(&a.call)
		q.answer <- a
	}
	if root != kernel.None {
		_ = root.Close() // nothing was written through it
	}
}

// look asks about a path below a root. Nothing is opened but names.
func look(root kernel.FD, name string) Seen {
	s := Seen{Asked: true}
	f, err := kernel.OpenAt(root, name, kernel.PathOnly, 0, kernel.InRoot)
	if err == nil {
		s.Exists, s.Parent = true, true
		st, serr := kernel.FileStat(f)
		kind := st.Mode & kernel.ModeType
		s.Special = serr == nil && kind != kernel.ModeDir && kind != kernel.ModeRegular
	} else if kernel.NotExist(err) {
		if f, err = kernel.OpenAt(root, path.Dir(name), kernel.PathOnly|kernel.Directory, 0, kernel.InRoot); err != nil {
			return s
		}
		s.Parent = true
	} else {
		return Seen{}
	}
	defer f.Close()
	space, err := kernel.SpaceOf(f)
	if err != nil {
		return Seen{}
	}
	s.ReadOnly, s.NoExec = space.ReadOnly, space.NoExec
	if s.Real, err = kernel.PathOf(f); err == nil && !s.Exists {
		s.Real = path.Join(s.Real, path.Base(name))
	}
	return s
}
