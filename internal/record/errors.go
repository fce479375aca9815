package record

import (
	"errors"
	"fmt"
)

// What can be wrong, for errors.Is.
var (
	// ErrNotFound: there is no such sandbox, or no more.
	ErrNotFound = errors.New("no such sandbox")
	// ErrAmbiguous: several sandboxes have an id that begins so.
	ErrAmbiguous = errors.New("more than one sandbox")
	// ErrExists: the name or id is taken.
	ErrExists = errors.New("name is taken")
	// ErrVersion: another version of nucleus wrote the file.
	ErrVersion = errors.New("unknown version")
	// ErrBroken: a file does not hold what it should.
	ErrBroken = errors.New("broken file")
	// ErrLock: the entry's lock is not held where it must be, or held where it must not.
	ErrLock = errors.New("lock")
	// ErrNotOwner: the state directory belongs to somebody else.
	ErrNotOwner = errors.New("not the owner")
	// ErrExposed: others can reach into the state directory.
	ErrExposed = errors.New("open to others")
	// ErrNotDir: the state directory is a symbolic link or not a directory.
	ErrNotDir = errors.New("not a directory")
)

// fault is an error of one of the kinds above that says what happened in its
// own words.
type fault struct {
	kind error
	text string
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.kind }

func fail(kind error, format string, args ...any) error {
	return &fault{kind, fmt.Sprintf(format, args...)}
}

// broken says what is wrong with a file. Its cause stays part of the chain.
func broken(path string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrBroken, path, err)
}

// errGone is a sandbox that was removed meanwhile.
func errGone(id string) error {
	return fail(ErrNotFound, "sandbox %s is gone: it was removed", id)
}
