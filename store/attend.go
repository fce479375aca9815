package store

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/record"
)

// Attend lists a sandbox that its caller starts and waits for itself, so that
// others can find it while it runs. It sets cmd.Born; done forgets the sandbox
// and must be called when it has ended or was not started. If the caller is
// killed the sandbox ends with it, and the next verb that looks forgets it.
func (s *Store) Attend(ctx context.Context, c Config, cmd *nucleus.Cmd) (done func() error, err error) {
	c.Service.Remove, c.Service.Log.Off = true, true
	start, err := kernel.StartTime(os.Getpid())
	if err != nil {
		return nil, err
	}
	self := attendant{Proc: record.Proc{Pid: os.Getpid(), Start: start}}
	b, err := s.create(c, func(e *record.Entry) error { return self.write(e) })
	if err != nil {
		return nil, err
	}
	cmd.Born = func(id nucleus.Identity) error {
		return b.locked(ctx, func(st *state) error {
			st.rec.State, st.rec.Boot, st.rec.Run, st.rec.Started = record.StateRunning, st.boot, 1, time.Now()
			if err := st.born(id, Launch{}); err != nil {
				return err
			}
			st.log("start", st.cfg, nil)
			return nil
		})
	}
	return func() error {
		self.Outcome = outcome(cmd.Outcome)
		self.Ended = time.Now()
		err := self.write(b.entry)
		if err == nil { // settling removes it; what never ran is removed here
			err = b.locked(context.WithoutCancel(ctx), func(st *state) error {
				if st.running() {
					return nil
				}
				return st.remove()
			})
		}
		if errors.Is(err, ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}, nil
}

// outcome is how a sandbox that was attended to ended; nil: it was not started.
func outcome(o *nucleus.Outcome) *record.Outcome {
	if o == nil {
		return &record.Outcome{Reason: "not started", Code: 125}
	}
	r := &record.Outcome{Reason: string(o.Reason), Code: o.Code, Signal: int(o.Signal), Detail: o.Detail}
	if o.User+o.System > 0 || o.MemoryPeak > 0 {
		r.Usage = &event.Usage{UserSeconds: o.User.Seconds(), SystemSeconds: o.System.Seconds(), MaxRSS: o.MaxRSS, MemoryPeak: o.MemoryPeak}
	}
	return r
}

// attendant is the program that waits for a sandbox itself, and how that ended
// as soon as it knows: until then nobody else may clean up after the sandbox.
type attendant struct {
	record.Proc
	Outcome *record.Outcome `json:"outcome,omitempty"`
	Ended   time.Time       `json:"ended,omitzero"`
}

const attendFile = "attend.json"

func (a *attendant) write(e *record.Entry) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return replace(e.Path(attendFile), b)
}

// attendant returns who attends to the sandbox; nil if nobody ever did.
func (b *Sandbox) attendant() (*attendant, error) {
	data, err := os.ReadFile(b.entry.Path(attendFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var a attendant
	if err == nil {
		err = json.Unmarshal(data, &a)
	}
	return &a, err
}

// attendantWait is how long an attendant that lives may take to say how its
// sandbox ended: it has to remove control groups, and may be stopped.
const attendantWait = 2 * time.Second

// attended returns what the attendant of a sandbox that has ended knows of the
// end; nil if there is none any more, and it is ours to find out.
func (b *Sandbox) attended() (*attendant, error) {
	for begin := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		a, err := b.attendant()
		if a == nil || err != nil || a.Outcome != nil {
			return a, err
		}
		if !same(a.Proc) || time.Since(begin) > attendantWait {
			return nil, nil
		}
	}
}
