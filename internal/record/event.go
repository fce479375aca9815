package record

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Event is something that happened to a sandbox. What is noticed late is logged
// late, with the time at which it happened.
type Event struct {
	Time  time.Time         `json:"time"`
	Type  string            `json:"type"`
	ID    string            `json:"id"`
	Name  string            `json:"name,omitempty"`
	Attrs map[string]string `json:"attrs,omitempty"`
}

// maxEvent bounds a line of the file of events.
const maxEvent = 64 << 10

func (d *Dir) eventsPath() string    { return filepath.Join(d.path, "events.jsonl") }
func (d *Dir) oldEventsPath() string { return filepath.Join(d.path, "events.1.jsonl") }

// Log appends an event; a zero time is now. At 4 MiB the file becomes the old
// one, and the old one's events are forgotten. The lock of the state directory
// orders those who write and those who open both files.
func (d *Dir) Log(e Event) error {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = plain(e.Time)
	line, err := json.Marshal(e)
	if err == nil && len(line) >= maxEvent {
		err = fmt.Errorf("%d bytes are more than %d", len(line), maxEvent)
	}
	if err == nil {
		err = locked(d.path, kernel.Lock, func() error { return d.append(append(line, '\n')) })
	}
	if err != nil {
		return fmt.Errorf("log event %s: %w", e.Type, err)
	}
	return nil
}

// append appends a line. Precondition: the exclusive lock is held.
func (d *Dir) append(line []byte) (err error) {
	f, size, err := openEvents(d.eventsPath())
	if err == nil && size >= d.maxEvents {
		if err = errors.Join(f.Close(), os.Rename(d.eventsPath(), d.oldEventsPath())); err == nil {
			f, size, err = openEvents(d.eventsPath())
		}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size > 0 { // one who was killed may have left half a line
		var last [1]byte
		if _, err := f.ReadAt(last[:], size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	if _, err := f.Write(line); err != nil {
		return errors.Join(err, f.Truncate(size))
	}
	return nil
}

func openEvents(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// reader reads the lines of one of the files, as they come.
type reader struct {
	file *os.File // nil: there is none
	off  int64    // of the first line that was not complete
}

func (r *reader) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// read calls f for every event that is complete and was not read yet. Lines
// that are no events are left out: torn ones, and what others wrote.
func (r *reader) read(f func(Event) error) error {
	if r.file == nil {
		return nil
	}
	in := bufio.NewReaderSize(io.NewSectionReader(r.file, r.off, math.MaxInt64-r.off), maxEvent+1)
	length := int64(0) // of the part of the line that did not fit
	for {
		line, err := in.ReadSlice('\n')
		length += int64(len(line))
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read events: %w", err)
		}
		whole := length == int64(len(line))
		r.off, length = r.off+length, 0
		var e Event
		if !whole || json.Unmarshal(line, &e) != nil || e.Type == "" || e.Time.IsZero() {
			continue
		}
		if err := f(e); err != nil {
			return err
		}
	}
}

// openBoth opens the old file and the current one as they belong together.
func (d *Dir) openBoth() (old, current *reader, err error) {
	old, current = &reader{}, &reader{}
	err = locked(d.path, kernel.LockShared, func() error {
		var first, second error
		old.file, first = openIfThere(d.oldEventsPath())
		current.file, second = openIfThere(d.eventsPath())
		return errors.Join(first, second)
	})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read events: %w", err), old.close(), current.close())
	}
	return old, current, nil
}

func openIfThere(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

// Events returns the events from since to until in order of time, both
// included; the zero time is no bound.
func (d *Dir) Events(since, until time.Time) ([]Event, error) {
	all, current, err := d.history(since, until)
	if err != nil {
		return nil, err
	}
	return all, current.close()
}

// history is Events, with the current file at the place where it ended.
func (d *Dir) history(since, until time.Time) ([]Event, *reader, error) {
	old, current, err := d.openBoth()
	if err != nil {
		return nil, nil, err
	}
	var all []Event
	keep := func(e Event) error {
		if !e.Time.Before(since) && (until.IsZero() || !e.Time.After(until)) {
			all = append(all, e)
		}
		return nil
	}
	if err := errors.Join(old.read(keep), current.read(keep), old.close()); err != nil {
		return nil, nil, errors.Join(err, current.close())
	}
	slices.SortStableFunc(all, func(a, b Event) int { return a.Time.Compare(b.Time) })
	return all, current, nil
}

// Follow calls f with the events from since on, in order of time, and then with
// every event that is logged, in the order in which they are. It ends with the
// error of f or of ctx.
func (d *Dir) Follow(ctx context.Context, since time.Time, f func(Event) error) (err error) {
	past, current, err := d.history(since, time.Time{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, current.close()) }()
	for _, e := range past {
		if err := f(e); err != nil {
			return err
		}
	}
	tick := time.NewTicker(d.poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if current, err = d.follow(current, f); err != nil {
			return err
		}
	}
}

// follow reads on. It returns the reader of the file that is the current one
// now, and has closed the other.
func (d *Dir) follow(r *reader, f func(Event) error) (*reader, error) {
	now, err := os.Lstat(d.eventsPath())
	if errors.Is(err, fs.ErrNotExist) { // at the beginning, or just renamed
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read events: %w", err)
	}
	if same, err := r.is(now); same || err != nil {
		if err != nil || now.Size() == r.off {
			return r, err
		}
		return r, r.read(f)
	}
	old, current, err := d.openBoth()
	if err != nil {
		return r, err
	}
	// Nobody writes to the file that we had: the end of it first. If the old
	// file is yet another one, they were renamed twice since we looked. Where we
	// have seen none at all, the old one is new to us as well.
	err = r.read(f)
	if err == nil && old.file != nil {
		err = d.between(r, old, f)
	}
	if err == nil {
		err = current.read(f)
	}
	return current, errors.Join(err, r.close(), old.close())
}

// between reads old unless it is the file of r.
func (d *Dir) between(r, old *reader, f func(Event) error) error {
	st, err := old.file.Stat()
	if err != nil {
		return err
	}
	if same, err := r.is(st); same || err != nil {
		return err
	}
	return old.read(f)
}

// is reports whether r reads the file that st is about.
func (r *reader) is(st fs.FileInfo) (bool, error) {
	if r.file == nil {
		return false, nil
	}
	mine, err := r.file.Stat()
	return err == nil && os.SameFile(mine, st), err
}
