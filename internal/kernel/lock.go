package kernel

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Lock waits until it holds the exclusive lock on an open file (flock). The
// lock belongs to the open file: a process that ends gives it back.
func Lock(f FD) error { return retry(func() error { return unix.Flock(int(f), unix.LOCK_EX) }) }

// LockShared waits until it holds a shared lock on an open file (flock).
func LockShared(f FD) error { return retry(func() error { return unix.Flock(int(f), unix.LOCK_SH) }) }

// TryLock takes the exclusive lock on an open file (flock) if nobody has one.
func TryLock(f FD) (bool, error) {
	err := retry(func() error { return unix.Flock(int(f), unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// Unlock gives a lock back (flock), in every process that has inherited the
// open file too: closing it would leave the lock to those.
func Unlock(f FD) error { return retry(func() error { return unix.Flock(int(f), unix.LOCK_UN) }) }

// HoldShared takes a shared lock on a whole open file (open file description
// locks, 3.15), which another program can see without taking one itself: see
// Held. It never waits.
func HoldShared(f FD) error { return ofd(f, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}) }

// LetGo gives back what HoldShared took.
func LetGo(f FD) error { return ofd(f, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}) }

// Held reports whether another open file of the same file has HoldShared. It
// takes no lock, so that two who ask do not take each other for a holder.
func Held(f FD) (bool, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err := ofd(f, unix.F_OFD_GETLK, &lock)
	return lock.Type != unix.F_UNLCK, err
}

func ofd(f FD, cmd int, lock *unix.Flock_t) error {
	return retry(func() error { return unix.FcntlFlock(uintptr(f), cmd, lock) })
}

// SameFile reports whether path, itself, is the file that is open as f. A
// missing path is not.
func SameFile(f FD, path string) (bool, error) {
	var open, there Stat
	if err := retry(func() error { return unix.Fstat(int(f), &open) }); err != nil {
		return false, err
	}
	err := Lstat(path, &there)
	if NotExist(err) {
		return false, nil
	}
	return err == nil && open.Dev == there.Dev && open.Ino == there.Ino, err
}

// Read reads once.
func Read(f FD, b []byte) (n int, err error) {
	err = retry(func() (e error) { n, e = unix.Read(int(f), b); return e })
	return n, err
}

// Write writes once: fewer bytes than asked for mean that there was no room.
func Write(f FD, b []byte) (n int, err error) {
	err = retry(func() (e error) { n, e = unix.Write(int(f), b); return e })
	return n, err
}
