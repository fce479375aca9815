package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/enter"
	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/record"
)

// unborn is how old something must be that looks as if it was being made.
const unborn = time.Minute

// Collect removes what the kernel and the records do not know any more: what
// programs that were killed have left. Sandboxes that ended longer ago than keep
// are removed too, unless keep is negative. It says what it removed.
func (s *Store) Collect(ctx context.Context, keep time.Duration) (removed []string, err error) {
	all, err := s.List(ctx) // settles what has ended
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, i := range all {
		old := i.State == "exited" && keep >= 0 && time.Since(i.Ended) >= keep
		never := i.State == "created" && time.Since(i.Created) >= unborn // a start that never happened
		if !old && !never {
			continue
		}
		b, err := s.Sandbox(i.ID)
		if err == nil && never { // or one more start of it
			if i, err = b.settled(ctx); err == nil && i.State != "created" {
				continue
			}
		}
		if err == nil {
			err = b.Remove(ctx, false)
		}
		switch {
		case err == nil:
			removed = append(removed, "sandbox "+i.Display())
		case !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrRunning):
			errs = append(errs, err)
		}
	}
	swept, err := s.dir.Sweep(ctx)
	removed = append(removed, swept...)
	errs = append(errs, err)
	for _, dir := range s.orphans() {
		err := os.RemoveAll(dir)
		if err == nil {
			removed = append(removed, dir)
		}
		errs = append(errs, err)
	}
	groups, err := s.collectGroups()
	removed = append(removed, groups...)
	errs = append(errs, err)
	if os.Geteuid() == 0 {
		n, err := enter.SweepIDs()
		if n > 0 {
			removed = append(removed, fmt.Sprintf("%d ranges of ids", n))
		}
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// orphans are the logs that no sandbox has. In a directory that somebody chose
// there may be those of another state directory.
func (s *Store) orphans() []string {
	if os.Getenv("NUCLEUS_LOG_DIR") != "" {
		return nil
	}
	return s.dir.LogOrphans()
}

// collectGroups removes control groups of ours that nobody is in and that no
// record names.
func (s *Store) collectGroups() (removed []string, err error) {
	f, err := host.Probe(nil, true)
	if err != nil {
		return nil, err
	}
	ours, err := cgroup.Ours(f.Cgroup)
	if err != nil || len(ours) == 0 {
		return nil, err
	}
	known, err := s.groups()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, place := range ours {
		st, err := os.Stat(place.Path)
		if err != nil || time.Since(st.ModTime()) < unborn || slices.Contains(known, place.Path) {
			continue
		}
		g, err := cgroup.Open(f.Cgroup, []cgroup.Place{place})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		busy, err := g.Populated()
		if err != nil || busy {
			errs = append(errs, err, g.Close())
			continue
		}
		if err := g.Remove(); errors.Is(err, syscall.EBUSY) { // by processes that we cannot see
			continue
		} else if err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, place.Path)
	}
	return removed, errors.Join(errs...)
}

// groups are the control groups of sandboxes that run.
func (s *Store) groups() (all []string, err error) {
	entries, err := s.dir.List()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		r, err := e.Record()
		if err != nil || r.State == record.StateEnded {
			continue
		}
		b := &Sandbox{store: s, entry: e}
		if id, err := b.identity(); err == nil {
			all = append(all, id.Groups()...)
		}
	}
	return all, nil
}
