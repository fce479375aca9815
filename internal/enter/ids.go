package enter

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/plan"
)

// The ranges of host ids that sandboxes started by root have: 65536 ids each,
// from a part of the number space that neither distributions' subid tables nor
// systemd's own allocations use (systemd's UIDS-GIDS document). Half of them are
// for sandboxes that end with their starter, half for those that do not.
const (
	idFirst   = 0x7000_0000
	idCount   = 65536
	idSlots   = 4094
	idLasting = idSlots / 2 // the first slot of those
)

// idDir holds the file whose bytes are the locks of the ranges. It belongs to
// root and stays when the last sandbox is gone; the locks do not. Lasting ranges
// are files of a directory in it, each with the owner's identity.
const (
	idDir     = "/run/nucleus"
	lastingAt = idDir + "/ids.d"
)

// reserveIDs takes a range.
func (r *run) reserveIDs(a plan.ReserveIDs) error {
	if a.Count != idCount {
		return fmt.Errorf("this is a bug in nucleus: a range of %d ids", a.Count)
	}
	if a.Lasting {
		return r.reserveLasting()
	}
	const path = idDir + "/ids"
	f, err := kernel.Open(path, kernel.ReadWrite|kernel.Create|kernel.NoFollow, 0o600)
	if kernel.NotExist(err) {
		if err := os.MkdirAll(idDir, 0o700); err != nil {
			return err
		}
		f, err = kernel.Open(path, kernel.ReadWrite|kernel.Create|kernel.NoFollow, 0o600)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	r.box.undo.push(f.Close)
	start := rand.IntN(idLasting)
	for i := range idLasting {
		slot := (start + i) % idLasting
		// The lock is the open file's: it ends with this process however that
		// ends, and no file says that a range is taken when it is not.
		err := kernel.LockByte(f, int64(slot))
		if err == nil {
			r.box.IDBase = idFirst + uint32(slot)*idCount
			return nil
		}
		if !kernel.IsErrno(err, kernel.EAGAIN, kernel.EACCES) {
			return fmt.Errorf("lock %s: %w", path, err)
		}
	}
	return fmt.Errorf("all %d ranges of %s are in use", idLasting, path)
}

// reserveLasting takes a range by making its file. Until the sandbox has a
// process of its own, the owner is this one.
func (r *run) reserveLasting() error {
	if err := os.MkdirAll(lastingAt, 0o700); err != nil {
		return err
	}
	start, err := kernel.StartTime(os.Getpid())
	if err != nil {
		return err
	}
	return lockLasting(func() error {
		first := rand.IntN(idSlots - idLasting)
		for i := range idSlots - idLasting {
			slot := idLasting + (first+i)%(idSlots-idLasting)
			f, err := os.OpenFile(lastingPath(slot), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if errors.Is(err, fs.ErrExist) {
				continue
			}
			if err != nil {
				return err
			}
			_, err = f.WriteString(owner(os.Getpid(), start))
			if err = errors.Join(err, f.Close()); err != nil {
				return errors.Join(err, os.Remove(lastingPath(slot)))
			}
			base := idFirst + uint32(slot)*idCount
			r.box.IDBase = base
			r.box.undo.push(func() error { return lockLasting(func() error { return ignoreMissing(os.Remove(lastingPath(slot))) }) })
			return nil
		}
		return fmt.Errorf("all %d ranges of %s are in use; `nucleus gc` frees those of sandboxes that are gone", idSlots-idLasting, lastingAt)
	})
}

// ownIDs says that a lasting range is the new process's.
func (r *run) ownIDs() error {
	start, err := kernel.StartTime(r.box.Pid)
	if err != nil {
		return err
	}
	return os.WriteFile(lastingPath(slotOf(r.box.IDBase)), []byte(owner(r.box.Pid, start)), 0o600)
}

func lastingPath(slot int) string { return lastingAt + "/" + strconv.Itoa(slot) }

func slotOf(base uint32) int { return int(base-idFirst) / idCount }

// owner identifies a process. Its number means something only in the process
// namespace that it was seen in.
func owner(pid int, start uint64) string {
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		ns = "?"
	}
	return fmt.Sprintf("%d %d %s\n", pid, start, ns)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// lockLasting calls f while nobody else changes the lasting ranges.
func lockLasting(f func() error) error {
	dir, err := os.Open(lastingAt)
	if err != nil {
		return err
	}
	defer dir.Close() // and unlocks
	for {
		if err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return &fs.PathError{Op: "lock", Path: lastingAt, Err: err}
	}
	return f()
}

// FreeIDs gives back the lasting range of a sandbox whose first process has
// ended. A range that belongs to another process by now stays.
func FreeIDs(base uint32, pid int, start uint64) error {
	slot := slotOf(base)
	if slot < idLasting || slot >= idSlots {
		return nil
	}
	if _, err := os.Stat(lastingPath(slot)); err != nil {
		return ignoreMissing(err)
	}
	return lockLasting(func() error {
		b, err := os.ReadFile(lastingPath(slot))
		if err != nil || string(b) != owner(pid, start) {
			return ignoreMissing(err)
		}
		return ignoreMissing(os.Remove(lastingPath(slot)))
	})
}

// SweepIDs frees the lasting ranges of processes that are gone, and says how many.
func SweepIDs() (freed int, err error) {
	entries, err := os.ReadDir(lastingAt)
	if err != nil || len(entries) == 0 {
		return 0, ignoreMissing(err)
	}
	err = lockLasting(func() error {
		var errs []error
		for _, e := range entries {
			path := lastingAt + "/" + e.Name()
			b, err := os.ReadFile(path)
			if err != nil {
				errs = append(errs, ignoreMissing(err))
				continue
			}
			var pid int
			var start uint64
			if _, err := fmt.Sscanf(string(b), "%d %d", &pid, &start); err == nil {
				if string(b) != owner(pid, start) {
					continue // seen from elsewhere: nothing here tells whether it lives
				}
				now, err := kernel.StartTime(pid)
				if err == nil && now == start || err != nil && !errors.Is(err, os.ErrProcessDone) {
					continue
				}
			}
			freed++
			errs = append(errs, ignoreMissing(os.Remove(path)))
		}
		return errors.Join(errs...)
	})
	return freed, err
}
