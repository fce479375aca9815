// Package supervise follows a running sandbox to its end and says why it ended.
//
// It holds the sandbox's status socket and pidfd and nothing else; what the
// workload reads and writes passes it by.
package supervise

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/pid1"
)

// Result is how a sandbox ended.
type Result struct {
	Status   syscall.WaitStatus // the workload's
	Killed   bool               // process 1 was killed before it could say how the workload ended
	OOMKills uint64             // processes that the memory limit killed
	// PidsDenied is how often the limit on tasks refused one, if a control group keeps it.
	PidsDenied uint64
	User       time.Duration // processor time of the whole sandbox
	System     time.Duration
	MaxRSS     int64 // bytes, of the largest process
	Ended      time.Time
}

// Sandbox is a running sandbox.
type Sandbox struct {
	Pid    int              // of process 1, a child of ours
	PidFD  kernel.FD        // of process 1
	Status *kernel.Waitable // process 1's messages (package pid1)
	Group  *cgroup.Group    // or nil
	Joined bool             // process 1 is not one, but the parent of a program that joined
	Last   func()           // called when the sandbox has ended and nothing is removed yet; or nil
	Close  func() error     // lets go of all of it
}

// Supervisor follows one sandbox.
type Supervisor struct {
	box Sandbox

	mu    sync.Mutex
	ended bool // process 1 has been reaped: its pid may be another's
}

// New takes over the sandbox: the supervisor closes it when it has ended.
func New(box Sandbox) *Supervisor { return &Supervisor{box: box} }

// Signal sends a signal to process 1, which passes it on to the workload;
// SIGKILL ends the whole sandbox at once. It never reaches another process: the
// pidfd is the sandbox's own.
func (s *Supervisor) Signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return os.ErrProcessDone
	}
	if s.box.Joined && sig == syscall.SIGKILL {
		return s.box.Status.HangUp() // it kills the program, and then tells how that ended
	}
	return kernel.SignalPid(s.box.PidFD, int(sig))
}

// Alive calls f while the sandbox's first process certainly has its pid.
func (s *Supervisor) Alive(f func(pid int) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return os.ErrProcessDone
	}
	return f(s.box.Pid)
}

// Wait waits until the sandbox has ended with all its processes, and cleans up
// after it. It is called once.
//
// While the workload runs only this goroutine waits, no thread; when process 1
// has said how the workload ended, it is about to end itself.
func (s *Supervisor) Wait() (Result, error) {
	var r Result
	last, err := s.lastWords()
	if err != nil {
		err = errors.Join(err, s.Signal(syscall.SIGKILL))
	}
	status, usage, werr := kernel.Reap(s.box.Pid)
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	r.Ended = time.Now()
	if last != nil {
		r.Status = *last
	} else {
		r.Status, r.Killed = syscall.WaitStatus(status), true
	}
	r.User = time.Duration(usage.Utime.Nano())
	r.System = time.Duration(usage.Stime.Nano())
	r.MaxRSS = usage.Maxrss << 10
	if g := s.box.Group; g != nil {
		n, oerr := g.OOMKills()
		// The group of a sandbox that was joined may be gone with it.
		if oerr != nil && !errors.Is(oerr, errors.ErrUnsupported) && !errors.Is(oerr, os.ErrNotExist) {
			err = errors.Join(err, oerr)
		}
		r.OOMKills = n
		if r.Status != 0 { // nobody asks about what succeeded
			r.PidsDenied, _ = g.PidsDenied() // an explanation is all that is lost
		}
	}
	if s.box.Last != nil {
		s.box.Last()
	}
	return r, errors.Join(err, werr, s.box.Close())
}

// lastWords waits for the workload's status as process 1 gives it. It is nil if
// process 1 was killed before it could.
func (s *Supervisor) lastWords() (*syscall.WaitStatus, error) {
	var b [8]byte
	for {
		n, _, err := s.box.Status.Receive(b[:], true)
		if kernel.IsErrno(err, kernel.ECONNRESET) || err == nil && n == 0 {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the status socket: %w", err)
		}
		if kind, value := pid1.Decode(b[:]); n == len(b) && kind == pid1.Ended {
			w := syscall.WaitStatus(value)
			return &w, nil
		}
	}
}
