package record

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Beginnings of the names of directories that are about to be a sandbox, and
// that have been one. Nothing else begins with a dot.
const (
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
)

// linkPrefix stands before the id in the target of a name.
const linkPrefix = "../sandboxes/"

// Create makes a sandbox that was not started, with its record, and returns it
// locked. It fills in c.ID, unless that is given, c.Created and c.Version.
//
// All of it is made beside the others, the name is taken, and one rename makes
// it a sandbox. What a killed Create leaves has no sandbox in place; its name
// is free for the next one.
func (d *Dir) Create(c *Config) (*Entry, error) {
	out := *c
	if out.Name != "" {
		if err := checkName(out.Name); err != nil {
			return nil, err
		}
	}
	if out.ID != "" && !validID(out.ID) {
		return nil, fmt.Errorf("%.40q is not the id of a sandbox: %d digits of 0-9a-f", out.ID, idLen)
	}
	if out.Created.IsZero() {
		out.Created = time.Now()
	}
	out.Created, out.Version = plain(out.Created), Version
	boot, err := kernel.BootID()
	if err != nil {
		return nil, err
	}
	var e *Entry
	err = d.change(func() error {
		if err := d.chooseID(&out); err != nil {
			return err
		}
		e = d.entry(out.ID)
		return e.create(&out, boot)
	})
	if err != nil {
		return nil, err
	}
	*c = out
	return e, nil
}

// chooseID gives c an id that is neither an id nor a name, or checks the one it has.
func (d *Dir) chooseID(c *Config) error {
	if c.ID != "" {
		return d.freeID(c.ID, c.Name)
	}
	for {
		// It need not be unguessable, only free.
		id := fmt.Sprintf("%0*x", idLen, rand.Uint64())
		err := d.freeID(id, c.Name)
		if !errors.Is(err, ErrExists) {
			c.ID = id
			return err
		}
	}
}

// freeID refuses an id that exists, or that a name could be mistaken for.
func (d *Dir) freeID(id, name string) error {
	var st kernel.Stat
	switch err := kernel.Lstat(filepath.Join(d.sandboxes(), id), &st); {
	case err == nil:
		return fail(ErrExists, "there is a sandbox %s already", id)
	case !kernel.NotExist(err):
		return fmt.Errorf("look for sandbox %s: %w", id, err)
	}
	for _, n := range []string{id, Short(id)} {
		if holder := d.holder(n); n == name || holder != "" {
			return fail(ErrExists, "%s would be both a name and an id; choose another", n)
		}
	}
	return nil
}

// create makes the sandbox's files and its name. Precondition: the lock of the
// names is held, and the id is free.
func (e *Entry) create(c *Config, boot string) (err error) {
	temp := filepath.Join(e.dir.sandboxes(), newPrefix+e.id)
	if err := os.RemoveAll(temp); err != nil { // of one who was killed
		return fmt.Errorf("make sandbox %s: %w", e.id, err)
	}
	lock := kernel.None
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close(), os.RemoveAll(temp), e.dir.dropName(c.Name, e.id))
		}
	}()
	if err := os.Mkdir(temp, 0o700); err != nil {
		return fmt.Errorf("make sandbox %s: %w", e.id, err)
	}
	if lock, err = kernel.Open(filepath.Join(temp, lockFile), kernel.ReadWrite|kernel.Create, 0o600); err != nil {
		return fmt.Errorf("make the lock of sandbox %s: %w", e.id, err)
	}
	if err := kernel.Lock(lock); err != nil {
		return fmt.Errorf("lock sandbox %s: %w", e.id, err)
	}
	if err := e.fill(temp, c, boot); err != nil {
		return err
	}
	if err := e.dir.takeName(c.Name, e.id); err != nil {
		return err
	}
	if err := os.Rename(temp, e.Path("")); err != nil {
		return fmt.Errorf("make sandbox %s: %w", e.id, err)
	}
	e.lock = lock
	return nil
}

// fill writes the files of a new sandbox. The lock's time is the sandbox's: it
// is what List sorts by.
func (e *Entry) fill(temp string, c *Config, boot string) error {
	path := filepath.Join(temp, configFile)
	b, err := encodeConfig(e.id, path, c)
	if err != nil {
		return err
	}
	if err := writeFile(path, b); err != nil {
		return err
	}
	path = filepath.Join(temp, recordFile)
	if b, err = encode(path, &Record{Version: Version, State: StateCreated, Boot: boot}); err != nil {
		return err
	}
	return errors.Join(
		writeFile(path, b),
		writeFile(filepath.Join(temp, useFile), nil),
		os.Chtimes(filepath.Join(temp, lockFile), c.Created, c.Created))
}

// linkPath is the place of a name. Precondition: checkName accepts it.
func (d *Dir) linkPath(name string) string { return filepath.Join(d.names(), name) }

// pointsTo is the id that a name points to, whether or not there is such a
// sandbox; "" if there is no such name.
func (d *Dir) pointsTo(name string) string {
	target, err := kernel.Readlink(d.linkPath(name))
	if err != nil {
		return ""
	}
	id, ok := strings.CutPrefix(target, linkPrefix)
	if !ok || !validID(id) {
		return ""
	}
	return id
}

// holder is the id of the sandbox that has a name; "" if none has. The name and
// the configuration have to say the same, so that Rename happens in the instant
// in which it replaces the configuration. Of one that cannot be read, the name
// is believed: it is what is left to find the sandbox by.
func (d *Dir) holder(name string) string {
	id := d.pointsTo(name)
	if id == "" {
		return ""
	}
	claimed, err := d.entry(id).name()
	if err == nil && claimed != name || errors.Is(err, ErrNotFound) {
		return ""
	}
	return id
}

// name is the name in a sandbox's configuration. Reading nothing else of that
// saves a short-lived program a tenth of its time.
func (e *Entry) name() (string, error) {
	b, err := e.read(nil, configFile)
	if err != nil {
		return "", err
	}
	var c struct {
		Version int    `json:"version"`
		ID      string `json:"id"`
		Name    string `json:"name"`
	}
	err = decode(e.Path(configFile), b, &c, &c.Version)
	if err == nil && c.ID != e.id {
		err = broken(e.Path(configFile), fmt.Errorf("it is about sandbox %q", c.ID))
	}
	return c.Name, err
}

// takeName makes name point to id. Precondition: the lock of the names is held;
// so what contradicts itself is what somebody left who was killed.
func (d *Dir) takeName(name, id string) error {
	if name == "" {
		return nil
	}
	if err := d.notAnID(name); err != nil {
		return err
	}
	err := os.Symlink(linkPrefix+id, d.linkPath(name))
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	switch holder := d.holder(name); holder {
	case "":
	case id:
		return nil
	default:
		return fail(ErrExists, "name %s is taken by sandbox %s; choose another or remove it with nucleus rm %s", name, Short(holder), name)
	}
	temp := filepath.Join(d.names(), newPrefix+id)
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(linkPrefix+id, temp); err != nil {
		return err
	}
	return os.Rename(temp, d.linkPath(name))
}

// notAnID refuses a name that is an id, or what is shown of one.
func (d *Dir) notAnID(name string) error {
	if len(name) < shortLen || len(name) > idLen || !isHex(name) {
		return nil
	}
	ids, err := d.ids()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if strings.HasPrefix(id, name) {
			return fail(ErrExists, "name %s is the id of sandbox %s; choose another", name, id)
		}
	}
	return nil
}

// dropName removes a name if it points to id.
func (d *Dir) dropName(name, id string) error {
	if name == "" || d.pointsTo(name) != id {
		return nil
	}
	if err := os.Remove(d.linkPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("give back the name: %w", err)
	}
	return nil
}

// Rename gives the sandbox another name. It must be locked.
func (e *Entry) Rename(name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.mustHold(); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	return e.dir.change(func() error {
		c, err := e.Config()
		if err != nil {
			return err
		}
		old := c.Name
		if old == name {
			return e.dir.takeName(name, e.id) // puts it right if somebody lost it
		}
		if err := e.dir.takeName(name, e.id); err != nil {
			return err
		}
		c.Name = name
		if err := e.writeConfig(c); err != nil {
			return errors.Join(err, e.dir.dropName(name, e.id))
		}
		return e.dir.dropName(old, e.id)
	})
}

// Remove removes the sandbox's files and its name, and unlocks it. It must be
// locked. Files of another version are not touched; broken ones are removed.
func (e *Entry) Remove() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.mustHold(); err != nil {
		return err
	}
	c, err := e.Config()
	if err != nil && !errors.Is(err, ErrBroken) {
		return err
	}
	if _, err := e.Record(); err != nil && !errors.Is(err, ErrBroken) {
		return err
	}
	gone := filepath.Join(e.dir.sandboxes(), gonePrefix+e.id)
	err = e.dir.change(func() error {
		if err := os.RemoveAll(gone); err != nil {
			return err
		}
		if err := os.Rename(e.Path(""), gone); err != nil {
			return err
		}
		if c == nil {
			return e.dir.dropNames(e.id)
		}
		return e.dir.dropName(c.Name, e.id)
	})
	if err != nil {
		return fmt.Errorf("remove sandbox %s: %w", e.id, err)
	}
	err = removeTree(gone)
	lock := e.lock
	e.lock = kernel.None
	return errors.Join(err, kernel.Unlock(lock), lock.Close())
}

// dropNames removes every name that points to id.
func (d *Dir) dropNames(id string) error {
	names, err := readDir(d.names())
	for _, name := range names {
		err = errors.Join(err, d.dropName(name, id))
	}
	return err
}

// removeTree removes a directory that Sweep may be removing too. It never
// follows a symbolic link.
func removeTree(path string) error {
	err := os.RemoveAll(path)
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}
