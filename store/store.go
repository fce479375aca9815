// Package store keeps sandboxes that outlive the program that started them, by
// name, without a daemon: files say who they are, the kernel says whether they
// live (docs/design/004-life.md).
//
//	s, err := store.Open("")
//	box, err := s.Create(store.Config{Name: "web", Sandbox: sandbox, Command: []string{"python3", "-m", "http.server"}})
//	err = box.Start(ctx)
//	...
//	err = box.Stop(ctx, 0)
//	outcome, err := box.Wait(ctx)
//
// Every method may be called at the same time as every other, from any number of
// programs, and any of them may be killed at any time. Only the owner of the
// state directory can use it.
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/audit"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/record"
	"github.com/nucleus-container/nucleus/spec"
)

// Errors to compare with, by errors.Is.
var (
	// ErrNotFound: there is no such sandbox, or no more.
	ErrNotFound = record.ErrNotFound
	// ErrAmbiguous: several sandboxes have an id that begins so.
	ErrAmbiguous = record.ErrAmbiguous
	// ErrExists: the name is taken.
	ErrExists = record.ErrExists
	// ErrRunning: the sandbox runs, which it must not for this.
	ErrRunning = errors.New("the sandbox is running")
	// ErrNotRunning: the sandbox does not run, which it must for this.
	ErrNotRunning = errors.New("the sandbox is not running")
)

// Store is a state directory.
type Store struct {
	// Keeper is the command that stays with a sandbox that needs somebody to
	// (spec.Service.NeedsKeeper); the sandbox's id is added to it, and
	// descriptor 3 is a pipe for its report (see Report). Nil: such sandboxes
	// are refused.
	Keeper []string

	dir *record.Dir
}

// Open opens a state directory, and makes it if it is not there. Empty: the
// user's own ($NUCLEUS_STATE_DIR, /run/nucleus for root, $XDG_RUNTIME_DIR/nucleus).
func Open(dir string) (*Store, error) {
	d, err := record.Open(dir)
	if err != nil {
		return nil, err
	}
	return &Store{dir: d}, nil
}

// Path is the state directory.
func (s *Store) Path() string { return s.dir.Path() }

// Config is what Create needs to know.
type Config struct {
	Name    string // empty: none, the id does
	Sandbox spec.Sandbox
	Command []string
	Service spec.Service
	Labels  map[string]string
}

// Create makes a sandbox that is not started yet. What is wrong with the
// description is found here.
func (s *Store) Create(c Config) (*Sandbox, error) {
	return s.create(c, func(*record.Entry) error { return nil })
}

// create makes a sandbox, and calls fill before anybody else can change it.
func (s *Store) create(c Config, fill func(*record.Entry) error) (*Sandbox, error) {
	if len(c.Command) == 0 || c.Command[0] == "" {
		return nil, fmt.Errorf("no program is named: %w", nucleus.ErrInvalid)
	}
	if c.Name == "" {
		c.Name = c.Sandbox.Name
	}
	c.Sandbox.Name = c.Name
	if err := errors.Join(nucleus.Invalid(c.Sandbox.Validate()), nucleus.Invalid(c.Service.Validate())); err != nil {
		return nil, err
	}
	if err := absolute(&c.Sandbox); err != nil {
		return nil, err
	}
	if log := c.Service.Audit.Log; log != "" {
		if err := audit.Unseen(&c.Sandbox, log); err != nil {
			return nil, fmt.Errorf("audit log: %w: %w", err, nucleus.ErrInvalid)
		}
		abs, err := filepath.Abs(log)
		if err != nil {
			return nil, err
		}
		c.Service.Audit.Log = abs
	}
	cfg := &record.Config{Name: c.Name, Sandbox: c.Sandbox, Command: c.Command, Service: c.Service, Labels: c.Labels}
	e, err := s.dir.Create(cfg)
	if errors.Is(err, ErrExists) && s.ended(c.Name) {
		e, err = s.dir.Create(cfg)
	}
	if err != nil {
		return nil, err
	}
	b := &Sandbox{store: s, entry: e}
	if err := fill(e); err != nil {
		return nil, errors.Join(err, e.Remove())
	}
	if !c.Service.Log.Off && !c.Service.Log.Inherit {
		root, err := s.dir.LogRoot()
		if err == nil {
			cfg.LogDir = root + "/" + e.ID()
			err = e.SetConfig(cfg)
		}
		if err != nil {
			return nil, errors.Join(err, e.Remove())
		}
	}
	b.log("create", cfg, nil)
	return b, e.Unlock()
}

// ended reports whether the sandbox that has a name has ended and was to be
// removed then, which nobody has noticed yet: now the name is free. One whose
// attendant was killed is about to end.
func (s *Store) ended(name string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), attendantWait)
	defer cancel()
	b, err := s.Sandbox(name)
	if err != nil {
		return errors.Is(err, ErrNotFound)
	}
	if a, err := b.attendant(); err == nil && a != nil && !same(a.Proc) {
		if p, err := b.Process(); err == nil {
			_ = errors.Join(p.Wait(ctx), p.Close()) // what has not ended has its name
		}
	}
	return errors.Is(b.locked(ctx, func(*state) error { return nil }), ErrNotFound) // settles it
}

// absolute makes host paths independent of the working directory: the sandbox
// may be started again from another one.
func absolute(s *spec.Sandbox) error {
	var paths []*string
	if s.Context != nil {
		c := *s.Context
		s.Context = &c
		paths = append(paths, &c.Source)
	}
	if s.Workspace != nil {
		w := *s.Workspace
		s.Workspace = &w
		paths = append(paths, &w.Source)
	}
	if s.Rootfs != nil {
		r := *s.Rootfs
		s.Rootfs = &r
		paths = append(paths, &r.Source)
		if r.Manifest != "" {
			paths = append(paths, &r.Manifest)
		}
	}
	s.Volumes = append([]spec.Volume(nil), s.Volumes...)
	for i := range s.Volumes {
		paths = append(paths, &s.Volumes[i].Source)
	}
	for _, p := range paths {
		if (*p)[0] == '/' {
			continue
		}
		wd, err := os.Getwd()
		if err != nil {
			return err
		}
		*p = wd + "/" + *p
	}
	return nil
}

// Sandbox finds a sandbox by its name, its id, or the beginning of its id.
func (s *Store) Sandbox(ref string) (*Sandbox, error) {
	e, err := s.dir.Find(ref)
	if err != nil {
		return nil, err
	}
	return &Sandbox{store: s, entry: e}, nil
}

// List says of every sandbox what Info says of one, the oldest first. Those
// whose files cannot be read have a Problem.
func (s *Store) List(ctx context.Context) ([]Info, error) {
	all, err := s.dir.Load()
	if err != nil {
		return nil, err
	}
	boot, err := kernel.BootID()
	if err != nil {
		return nil, err
	}
	var out []Info
	for _, l := range all {
		b := &Sandbox{store: s, entry: l.Entry}
		if l.Err == nil && b.stale(l.Record, boot) {
			info, err := b.Info(ctx) // settles it
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err == nil {
				out = append(out, info)
				continue
			}
			l.Err = err
		}
		if l.Err != nil {
			out = append(out, Info{ID: l.Entry.ID(), State: "broken", Problem: l.Err.Error()})
			continue
		}
		out = append(out, info(l.Config, l.Record, boot))
	}
	return out, nil
}

// Events returns what happened from since to until, in order of time; the zero
// time is no bound.
func (s *Store) Events(since, until time.Time) ([]Event, error) {
	all, err := s.dir.Events(since, until)
	out := make([]Event, len(all))
	for i, e := range all {
		out[i] = Event(e)
	}
	return out, err
}

// Follow calls f with the events from since on, and then with each as it
// happens. A sandbox that nobody keeps is watched meanwhile, so that its end is
// told when it happens. It ends with the error of f or of ctx.
func (s *Store) Follow(ctx context.Context, since time.Time, f func(Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); s.watch(ctx) }()
	err := s.dir.Follow(ctx, since, func(e record.Event) error { return f(Event(e)) })
	cancel()
	<-done
	return err
}

// watch settles what ends.
func (s *Store) watch(ctx context.Context) {
	for ctx.Err() == nil {
		_, _ = s.List(ctx) // settling is all that is wanted; what is broken stays so
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Event is something that happened to a sandbox: create, start, ready, health,
// hook, exec, pause, unpause, update, rename, stop, kill, oom, end, restart, remove,
// and audit: something could not be written to the sandbox's audit log.
// What is noticed late is told late, with the time at which it happened.
type Event struct {
	Time  time.Time         `json:"time"`
	Type  string            `json:"type"`
	ID    string            `json:"id"`
	Name  string            `json:"name,omitempty"`
	Attrs map[string]string `json:"attrs,omitempty"`
}
