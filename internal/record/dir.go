// Package record is everything that is on disk about sandboxes that outlive
// their starter: what was asked for, what happened, who holds which name, and
// the events of their lives. It knows files only. Whether a process that a
// record names still runs is the business of others: a record is a claim.
//
// Many programs work in one state directory at once, none of them is a daemon,
// and each can be killed between any two system calls. What keeps that in order:
//
//   - A sandbox is a directory that appears and disappears whole, by a rename.
//   - Who changes a sandbox holds the lock in its directory ([Entry.Lock]).
//   - Who changes which sandboxes or names there are holds the lock of names/,
//     for less than a millisecond and never while it waits for another lock.
//     So whoever holds it sees only what is finished, or what was left by
//     somebody who was killed.
//   - A name is a symbolic link, and the sandbox's configuration says the same
//     name. A link that the configuration denies counts for nothing.
//   - Files are replaced by a rename, so readers need no lock.
//
// Nothing is synced to a disk: all this describes processes of this boot, and
// the directory is in memory where the system is set up as usual.
//
//	dir, err := record.Open("")
//	e, err := dir.Create(&record.Config{Name: "web", Sandbox: box})
//	defer e.Unlock()
package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Environment variables that say where things are.
const (
	stateEnv = "NUCLEUS_STATE_DIR"
	logEnv   = "NUCLEUS_LOG_DIR"
)

// Dir is a state directory.
type Dir struct {
	path   string
	chosen bool // somebody named it: its logs are inside

	maxEvents int64         // size at which the events file is rotated
	poll      time.Duration // how often Follow looks
}

// Open opens a state directory and makes it if it is not there; "" is Default.
//
// An attacker would prepare the directory, or a link in its place, to feed us
// records of his own or to read ours. So it must be a directory itself, belong
// to the effective user, and be closed to everybody else.
func Open(path string) (*Dir, error) {
	chosen := path != "" || os.Getenv(stateEnv) != ""
	if path == "" {
		var err error
		if path, err = Default(); err != nil {
			return nil, err
		}
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("state directory %q is not an absolute path", path)
	}
	// Without a slash at the end: with one, lstat would follow a link.
	d := &Dir{path: filepath.Clean(path), chosen: chosen, maxEvents: 4 << 20, poll: 100 * time.Millisecond}
	err := check(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(d.path, 0o700); err != nil {
			return nil, fmt.Errorf("make the state directory: %w", err)
		}
		err = check(d.path)
	}
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{d.sandboxes(), d.names()} {
		if err := os.Mkdir(sub, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make the state directory: %w", err)
		}
	}
	return d, nil
}

// check refuses a state directory that is not ours alone.
func check(path string) error {
	var st kernel.Stat
	if err := kernel.Lstat(path, &st); err != nil {
		return fmt.Errorf("state directory %s: %w", path, err)
	}
	switch {
	case st.Mode&kernel.ModeType == kernel.ModeLink:
		return fail(ErrNotDir, "state directory %s is a symbolic link: give the directory itself", path)
	case st.Mode&kernel.ModeType != kernel.ModeDir:
		return fail(ErrNotDir, "state directory %s is not a directory", path)
	case int(st.Uid) != os.Geteuid():
		return fail(ErrNotOwner, "state directory %s belongs to user %d; run as that user, e.g. `sudo -u '#%d' nucleus ...`, or choose another with %s",
			path, st.Uid, st.Uid, stateEnv)
	case st.Mode&0o077 != 0:
		return fail(ErrExposed, "state directory %s is open to other users (mode %04o); close it with `chmod 700 %s`", path, st.Mode&0o7777, path)
	}
	return nil
}

// Default is where the state directory is if nobody says otherwise:
// $NUCLEUS_STATE_DIR; for root /run/nucleus; else nucleus in $XDG_RUNTIME_DIR
// or /run/user/UID, whichever is the user's own; else nucleus/run in
// $XDG_STATE_HOME. A place in /tmp is not among them: anybody could take it first.
func Default() (string, error) {
	if dir := os.Getenv(stateEnv); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("%s=%q is not an absolute path", stateEnv, dir)
		}
		return dir, nil
	}
	uid := os.Geteuid()
	if uid == 0 {
		return "/run/nucleus", nil
	}
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(uid)} {
		if filepath.IsAbs(dir) && ownDir(dir, uid) {
			return filepath.Join(dir, "nucleus"), nil
		}
	}
	home, err := stateHome()
	if err != nil {
		return "", fmt.Errorf("no place for the state directory: %w; set %s", err, stateEnv)
	}
	return filepath.Join(home, "nucleus", "run"), nil
}

func ownDir(path string, uid int) bool {
	st, err := os.Stat(path)
	if err != nil || !st.IsDir() {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == uid
}

// stateHome is $XDG_STATE_HOME with its default.
func stateHome() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home := os.Getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", fmt.Errorf("HOME=%q is not an absolute path", home)
	}
	return filepath.Join(home, ".local", "state"), nil
}

// Path is the directory itself.
func (d *Dir) Path() string { return d.path }

// LogRoot is the directory below which each sandbox has its logs; it need not
// exist. $NUCLEUS_LOG_DIR; inside a state directory that somebody chose; for
// root /var/log/nucleus; else nucleus/log in $XDG_STATE_HOME.
func (d *Dir) LogRoot() (string, error) {
	if dir := os.Getenv(logEnv); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("%s=%q is not an absolute path", logEnv, dir)
		}
		return filepath.Clean(dir), nil
	}
	if d.chosen {
		return filepath.Join(d.path, "log"), nil
	}
	if os.Geteuid() == 0 {
		return "/var/log/nucleus", nil
	}
	home, err := stateHome()
	if err != nil {
		return "", fmt.Errorf("no place for logs: %w; set %s", err, logEnv)
	}
	return filepath.Join(home, "nucleus", "log"), nil
}

func (d *Dir) sandboxes() string { return filepath.Join(d.path, "sandboxes") }
func (d *Dir) names() string     { return filepath.Join(d.path, "names") }

// locked runs f with the lock of a directory, shared or exclusive.
func locked(dir string, lock func(kernel.FD) error, f func() error) error {
	fd, err := kernel.Open(dir, kernel.ReadOnly|syscall.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	if err := lock(fd); err != nil {
		return errors.Join(fmt.Errorf("lock %s: %w", dir, err), fd.Close())
	}
	err = f()
	return errors.Join(err, kernel.Unlock(fd), fd.Close())
}

// change runs f while nobody else changes which sandboxes and names there are.
func (d *Dir) change(f func() error) error { return locked(d.names(), kernel.Lock, f) }
