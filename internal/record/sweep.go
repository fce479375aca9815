package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// sweepAge is how old something has to be before it is a leftover.
const sweepAge = time.Minute

// Sweep removes what programs that were killed have left: directories that did
// not become sandboxes or are none any more, half-written files, and names
// without a sandbox. It says what it has removed. What somebody holds the lock
// of stays, and so does what is younger than a minute.
func (d *Dir) Sweep(ctx context.Context) ([]string, error) { return d.sweep(ctx, sweepAge) }

func (d *Dir) sweep(ctx context.Context, age time.Duration) (removed []string, err error) {
	s := &sweep{dir: d, before: time.Now().Add(-age)}
	err = d.change(func() error {
		return errors.Join(s.each(ctx, d.sandboxes(), s.sandbox), s.each(ctx, d.names(), s.name))
	})
	slices.Sort(s.removed)
	return s.removed, err
}

// sweep is one round. While it lasts the lock of the names is held: no sandbox
// is just being made, renamed or removed.
type sweep struct {
	dir     *Dir
	before  time.Time
	removed []string
}

func (s *sweep) each(ctx context.Context, dir string, f func(name string) error) error {
	names, err := readDir(dir)
	for _, name := range names {
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		err = errors.Join(err, f(name))
	}
	return err
}

// old reports whether path is there and is old enough.
func (s *sweep) old(path string) bool {
	var st kernel.Stat
	return kernel.Lstat(path, &st) == nil && !time.Unix(st.Mtim.Unix()).After(s.before)
}

func (s *sweep) note(path, why string) {
	rel, err := filepath.Rel(s.dir.path, path)
	if err != nil {
		rel = path
	}
	s.removed = append(s.removed, fmt.Sprintf("%s (%s)", rel, why))
}

// sandbox removes a directory that is none, or the half-written files of one.
func (s *sweep) sandbox(name string) error {
	path := filepath.Join(s.dir.sandboxes(), name)
	switch {
	case validID(name):
		return errors.Join(s.temp(name, configFile), s.temp(name, recordFile))
	case strings.HasPrefix(name, newPrefix):
		return s.tree(path, "never completed")
	case strings.HasPrefix(name, gonePrefix):
		return s.tree(path, "not completely removed")
	}
	return nil // not ours
}

// tree removes a directory whose lock nobody holds.
func (s *sweep) tree(path, why string) error {
	if !s.old(path) {
		return nil
	}
	fd, err := kernel.Open(filepath.Join(path, lockFile), kernel.ReadWrite|kernel.NoFollow, 0)
	if err != nil && !kernel.NotExist(err) {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if err == nil {
		defer fd.Close()
		if free, err := kernel.TryLock(fd); err != nil || !free {
			return err
		}
	}
	if err := removeTree(path); err != nil {
		return err
	}
	s.note(path, why)
	return nil
}

// temp removes a file that was to replace another.
func (s *sweep) temp(id, file string) error {
	e := s.dir.entry(id)
	path := e.Path(file) + tempSuffix
	if !s.old(path) {
		return nil
	}
	if free, err := e.TryLock(); err != nil || !free {
		return err
	}
	var err error
	if s.old(path) { // still, now that nobody is writing it
		if err = os.Remove(path); err == nil {
			s.note(path, "never completed")
		}
	}
	return errors.Join(err, e.Unlock())
}

// name removes a name that no sandbox has.
func (s *sweep) name(name string) error {
	path := s.dir.linkPath(name)
	if !s.old(path) {
		return nil
	}
	why := "no such sandbox"
	if strings.HasPrefix(name, newPrefix) {
		why = "never completed"
	} else if s.dir.pointsTo(name) == "" || s.dir.holder(name) != "" {
		return nil // not ours, or in order
	} else if s.dir.entry(s.dir.pointsTo(name)).there() {
		why = "the sandbox has another name"
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	s.note(path, why)
	return nil
}

// LogOrphans lists the directories of logs whose sandbox is gone.
func (d *Dir) LogOrphans() []string {
	root, err := d.LogRoot()
	if err != nil {
		return nil
	}
	names, err := readDir(root)
	if err != nil {
		return nil
	}
	var orphans []string
	for _, id := range names {
		if validID(id) && !d.entry(id).there() {
			orphans = append(orphans, filepath.Join(root, id))
		}
	}
	slices.Sort(orphans)
	return orphans
}
