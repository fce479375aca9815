package audit

import (
	"errors"
	"sync"
	"time"

	"github.com/nucleus-container/nucleus/event"
)

// Teller tells the events of one sandbox to an audit log and to streams. Its
// methods may be called at the same time.
type Teller struct {
	Sandbox event.Sandbox
	Log     *Log // or nil
	Streams []*Stream

	mu sync.Mutex
}

// Tell tells of an event that happens now. The error is the audit log's: a stream
// says at its end what it could not write.
func (t *Teller) Tell(b event.Body) error { return t.TellAt(time.Now(), b) }

// TellAt tells of an event that was noticed late.
func (t *Teller) TellAt(at time.Time, b event.Body) error {
	t.mu.Lock() // in one order everywhere
	defer t.mu.Unlock()
	r, err := event.New(at, t.Sandbox, b)
	if err != nil {
		return err
	}
	var head Head
	last := final(b)
	if t.Log != nil {
		head, err = t.Log.Append(r, last)
	}
	for _, s := range t.Streams {
		s.Tell(r)
	}
	if t.Log == nil || err != nil || !last {
		return err
	}
	note, err := event.New(at, t.Sandbox, event.LogHead{Path: t.Log.Path(), Seq: head.Seq, Hash: head.Hash})
	for _, s := range t.Streams {
		s.Tell(note)
	}
	return err
}

// final reports whether an event ends a run, so that it has to be on the disk.
func final(b event.Body) bool {
	switch b.(type) {
	case event.Ended, event.NotStarted:
		return true
	}
	return false
}

// Close lets go of the log and the streams.
func (t *Teller) Close() error {
	var errs []error
	if t.Log != nil {
		errs = append(errs, t.Log.Close())
	}
	for _, s := range t.Streams {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
