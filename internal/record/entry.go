package record

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Files of a sandbox.
const (
	configFile = "config.json"
	recordFile = "record.json"
	lockFile   = "lock"
	exitFile   = "exit"
	useFile    = "use"

	tempSuffix = ".new" // of a file that is being written: one writer at a time holds the lock
)

// Entry is one sandbox on disk. It stays valid as a value when the sandbox is
// removed; its methods then say ErrNotFound. Two goroutines that change the same
// sandbox use two entries, which exclude each other as two programs do.
type Entry struct {
	dir *Dir
	id  string

	mu   sync.Mutex
	lock kernel.FD // None: not locked
}

func (d *Dir) entry(id string) *Entry { return &Entry{dir: d, id: id, lock: kernel.None} }

// ID is the sandbox's id: 16 hexadecimal digits.
func (e *Entry) ID() string { return e.id }

// Dir is the state directory that it is in.
func (e *Entry) Dir() *Dir { return e.dir }

// Path is the path of one of its files.
func (e *Entry) Path(file string) string { return filepath.Join(e.dir.path, "sandboxes", e.id, file) }

// Lock waits until nobody else may change the sandbox. It is an error if the
// entry is locked already.
func (e *Entry) Lock(ctx context.Context) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 16*time.Millisecond) {
		ok, err := e.TryLock()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the lock of sandbox %s: %w", e.id, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// TryLock is Lock that says false instead of waiting.
func (e *Entry) TryLock() (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lock != kernel.None {
		return false, fail(ErrLock, "sandbox %s is locked already by this program", e.id)
	}
	for {
		fd, err := e.openOwn(lockFile)
		if err != nil {
			return false, err
		}
		ok, stale, err := e.take(fd)
		if err != nil || !stale {
			return ok, err
		}
	}
}

// take owns fd and takes the lock that it is. It is stale if the sandbox has
// been removed since fd was opened, or even made anew.
func (e *Entry) take(fd kernel.FD) (ok, stale bool, err error) {
	ok, err = kernel.TryLock(fd)
	if err != nil || !ok {
		return false, false, errors.Join(err, fd.Close())
	}
	same, err := kernel.SameFile(fd, e.Path(lockFile))
	if err != nil || !same {
		return false, err == nil, errors.Join(err, fd.Close())
	}
	e.lock = fd
	return true, false, nil
}

// openOwn opens a file that only we read and write, and makes it if need be.
func (e *Entry) openOwn(file string) (kernel.FD, error) {
	fd, err := kernel.Open(e.Path(file), kernel.ReadWrite|kernel.Create|kernel.NoFollow, 0o600)
	if kernel.NotExist(err) {
		return kernel.None, errGone(e.id)
	}
	if err != nil {
		return kernel.None, fmt.Errorf("open %s: %w", e.Path(file), err)
	}
	return fd, nil
}

// Unlock lets others change the sandbox.
func (e *Entry) Unlock() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.mustHold(); err != nil {
		return err
	}
	fd := e.lock
	e.lock = kernel.None
	return errors.Join(kernel.Unlock(fd), fd.Close())
}

// mustHold is an error unless the entry is locked. Precondition: mu is held.
func (e *Entry) mustHold() error {
	if e.lock == kernel.None {
		return fail(ErrLock, "this is a bug in nucleus: sandbox %s is to be changed without its lock", e.id)
	}
	return nil
}

// Config reads what was asked for.
func (e *Entry) Config() (*Config, error) {
	b, err := e.read(nil, configFile)
	if err != nil {
		return nil, err
	}
	return decodeConfig(e.id, e.Path(configFile), b)
}

// Record reads what happened.
func (e *Entry) Record() (*Record, error) {
	b, err := e.read(nil, recordFile)
	if err != nil {
		return nil, err
	}
	return decodeRecord(e.Path(recordFile), b)
}

// SetConfig replaces what was asked for. Rename changes the name, nothing the id.
func (e *Entry) SetConfig(c *Config) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.mustHold(); err != nil {
		return err
	}
	old, err := e.Config()
	if err != nil && !errors.Is(err, ErrBroken) {
		return err
	}
	if c.ID != e.id || old != nil && old.Name != c.Name || old == nil && c.Name != "" && e.dir.pointsTo(c.Name) != e.id {
		return fmt.Errorf("this is a bug in nucleus: the configuration of %s would become that of %s %q", e.id, c.ID, c.Name)
	}
	return e.writeConfig(c)
}

func (e *Entry) writeConfig(c *Config) error {
	out := *c
	out.Version, out.Created = Version, plain(c.Created)
	b, err := encodeConfig(e.id, e.Path(configFile), &out)
	if err != nil {
		return err
	}
	return replaceFile(e.Path(configFile), b)
}

// SetRecord replaces what happened.
func (e *Entry) SetRecord(r *Record) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.mustHold(); err != nil {
		return err
	}
	old, err := e.read(nil, recordFile)
	if err == nil {
		_, err = decodeRecord(e.Path(recordFile), old)
	}
	if err != nil && !errors.Is(err, ErrBroken) { // a broken one is mended so
		return err
	}
	return e.writeRecord(e.Path(recordFile), r)
}

func (e *Entry) writeRecord(path string, r *Record) error {
	out := *r
	out.Version, out.Started, out.Ended = Version, plain(r.Started), plain(r.Ended)
	b, err := encode(path, &out)
	if err != nil {
		return err
	}
	if _, err := decodeRecord(path, b); err != nil {
		return err
	}
	return replaceFile(path, b)
}

// plain is a time as it comes back from a file.
func plain(t time.Time) time.Time { return t.UTC().Round(0) }

// read reads a whole file of the sandbox, into b as far as there is room. A
// missing file of a sandbox that exists is broken.
func (e *Entry) read(b []byte, file string) ([]byte, error) {
	path := e.Path(file)
	b, err := readFile(b, path)
	switch {
	case err == nil:
		return b, nil
	case kernel.NotExist(err):
		if e.there() {
			return nil, broken(path, fs.ErrNotExist)
		}
		return nil, errGone(e.id)
	case errors.Is(err, syscall.EFBIG), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ELOOP):
		return nil, broken(path, err)
	}
	return nil, fmt.Errorf("read %s: %w", path, err)
}

func (e *Entry) there() bool {
	var st kernel.Stat
	return kernel.Lstat(e.Path(""), &st) == nil && st.Mode&kernel.ModeType == kernel.ModeDir
}

// readFile is os.ReadFile with three system calls, for there can be thousands
// of files. O_NONBLOCK: a pipe in the place of a file must not hold us up.
func readFile(b []byte, path string) ([]byte, error) {
	fd, err := kernel.Open(path, kernel.ReadOnly|kernel.NoFollow|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if cap(b) < 8<<10 {
		b = make([]byte, 8<<10)
	}
	b = b[:cap(b)]
	for used := 0; ; {
		n, err := kernel.Read(fd, b[used:])
		used += n
		switch {
		case err != nil:
			return nil, errors.Join(err, fd.Close())
		case used > maxFile:
			return nil, errors.Join(syscall.EFBIG, fd.Close())
		case used < len(b): // nobody writes to the file any more: a short read is its end
			return b[:used], fd.Close()
		}
		b = append(b, make([]byte, 3*len(b))...)
	}
}

// replaceFile replaces a file in one step. Precondition: no one else does.
func replaceFile(path string, b []byte) error {
	temp := path + tempSuffix
	if err := writeFile(temp, b); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

func writeFile(path string, b []byte) error {
	fd, err := kernel.Open(path, syscall.O_WRONLY|syscall.O_TRUNC|kernel.Create|kernel.NoFollow, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	n, err := kernel.Write(fd, b)
	if err == nil && n < len(b) {
		err = syscall.ENOSPC
	}
	if err = errors.Join(err, fd.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path))
	}
	return nil
}
