package record

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Use says that somebody is attached to the sandbox or executes something in
// it, until release is called or this program ends. It needs no lock and is no
// obstacle to those who have one.
func (e *Entry) Use() (release func() error, err error) {
	fd, err := e.openOwn(useFile)
	if err != nil {
		return nil, err
	}
	return e.use(fd)
}

// use is Use with the file, which it owns.
func (e *Entry) use(fd kernel.FD) (release func() error, err error) {
	if err := kernel.HoldShared(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", e.Path(useFile), err), fd.Close())
	}
	same, err := kernel.SameFile(fd, e.Path(useFile))
	if err == nil && !same {
		err = errGone(e.id)
	}
	if err == nil {
		err = e.touch()
	}
	if err != nil {
		return nil, errors.Join(err, kernel.LetGo(fd), fd.Close())
	}
	return sync.OnceValue(func() error {
		// The time first: nobody must find it both unused and long unused.
		err := e.touch()
		if errors.Is(err, ErrNotFound) {
			err = nil
		}
		return errors.Join(err, kernel.LetGo(fd), fd.Close())
	}), nil
}

// touch makes now the time of the last use.
func (e *Entry) touch() error {
	now := time.Now()
	err := os.Chtimes(e.Path(useFile), now, now)
	if errors.Is(err, fs.ErrNotExist) {
		return errGone(e.id)
	}
	return err
}

// Idle says whether somebody uses the sandbox, and else since when nobody does.
// It notes the time when somebody does, for a user that is killed cannot.
func (e *Entry) Idle() (since time.Time, inUse bool, err error) {
	fd, err := e.openOwn(useFile)
	if err != nil {
		return time.Time{}, false, err
	}
	inUse, err = kernel.Held(fd)
	if err = errors.Join(err, fd.Close()); err != nil {
		return time.Time{}, false, fmt.Errorf("look at %s: %w", e.Path(useFile), err)
	}
	var st kernel.Stat
	if err := kernel.Lstat(e.Path(useFile), &st); err != nil {
		return time.Time{}, false, errGone(e.id)
	}
	since = time.Unix(st.Mtim.Unix())
	if inUse && time.Since(since) > time.Second {
		return time.Now(), true, e.touch()
	}
	return since, inUse, nil
}

// NewExit makes the file that the next run's end is written to, for appending.
// The sandbox must be locked.
func (e *Entry) NewExit() (*os.File, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.mustHold(); err != nil {
		return nil, err
	}
	if err := os.Remove(e.Path(exitFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(e.Path(exitFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
}

// ReadExit returns what was written about the last run's end, and when. Nothing
// at all means that it has not ended, or that nobody was left to write. Without
// a run it is fs.ErrNotExist.
func (e *Entry) ReadExit() (b []byte, ended time.Time, err error) {
	f, err := os.OpenFile(e.Path(exitFile), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && !e.there() {
			err = errGone(e.id)
		}
		return nil, time.Time{}, err
	}
	defer f.Close()
	const most = 4096
	b, err = io.ReadAll(io.LimitReader(f, most))
	if err != nil || len(b) == 0 {
		return nil, time.Time{}, err
	}
	st, err := f.Stat() // after the reading: the time of what was read, or later
	if err != nil {
		return nil, time.Time{}, err
	}
	return b, st.ModTime(), nil
}
