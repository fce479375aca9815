package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/record"
	"github.com/nucleus-container/nucleus/spec"
)

// Sandbox is one sandbox of a store. It holds nothing open.
type Sandbox struct {
	store *Store
	entry *record.Entry
}

// ID is the sandbox's id.
func (b *Sandbox) ID() string { return b.entry.ID() }

// Info is what is known of a sandbox.
type Info struct {
	ID      string    `json:"id"`
	Name    string    `json:"name,omitempty"`
	Command []string  `json:"command,omitempty"`
	State   string    `json:"state"` // created, running, paused, restarting, exited, broken
	Pid     int       `json:"pid,omitempty"`
	Created time.Time `json:"created,omitzero"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`

	// Reason, ExitCode and Detail say how the last run ended.
	Reason   string `json:"reason,omitempty"`
	ExitCode int    `json:"exit_code"`
	Detail   string `json:"detail,omitempty"`

	Restarts     int               `json:"restarts,omitempty"`
	Health       string            `json:"health,omitempty"` // starting, healthy, unhealthy
	HealthDetail string            `json:"health_detail,omitempty"`
	Ready        bool              `json:"ready,omitempty"`
	Status       string            `json:"status,omitempty"` // as the program itself says, by sd_notify
	Kept         bool              `json:"kept,omitempty"`   // a keeper stays with it
	Unit         string            `json:"unit,omitempty"`   // of systemd
	LogDir       string            `json:"log_dir,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Sandbox      spec.Sandbox      `json:"sandbox"`
	Service      spec.Service      `json:"service"`
	Problem      string            `json:"problem,omitempty"` // why nothing more is known
}

// Display is what people call it: its name, or the beginning of its id.
func (i Info) Display() string { return cmp.Or(i.Name, record.Short(i.ID)) }

// Running reports whether there is a process of it.
func (i Info) Running() bool { return i.State == "running" || i.State == "paused" }

func info(c *record.Config, r *record.Record, boot string) Info {
	i := Info{
		ID: c.ID, Name: c.Name, Command: c.Command, Created: c.Created, Started: r.Started, Ended: r.Ended, Restarts: r.Restarts,
		Health: r.Health, HealthDetail: r.HealthDetail, Ready: r.Ready, Status: r.Status, Unit: r.Unit,
		LogDir: c.LogDir, Labels: c.Labels, Sandbox: c.Sandbox, Service: c.Service,
	}
	i.Kept = r.Keeper != nil && r.Boot == boot && same(*r.Keeper)
	switch {
	case r.State == record.StateEnded && i.Kept && !r.Stopped && c.Service.Restart.Policy != spec.RestartNo:
		i.State = "restarting"
	case r.State == record.StateEnded:
		i.State = "exited"
	case r.Pid == 0 || r.State == record.StateCreated && !begun(r):
		i.State = "created"
	case r.Paused:
		i.State, i.Pid = "paused", r.Pid
	default:
		i.State, i.Pid = "running", r.Pid
	}
	if o := r.Outcome; o != nil {
		i.Reason, i.ExitCode, i.Detail = o.Reason, o.Code, o.Detail
		if o.Signal != 0 {
			i.ExitCode = 128 + o.Signal
		}
	}
	if !i.Running() {
		i.Health, i.Ready, i.Status = "", false, ""
	}
	return i
}

// begun reports whether a sandbox has been made, whose starter has not said so:
// it may have been killed before it could.
func begun(r *record.Record) bool {
	done, err := kernel.Executes(r.Pid, "nucleus-init")
	return err == nil && done
}

// alive reports whether the kernel knows the process that r names.
func alive(r *record.Record, boot string) bool {
	return r.Pid != 0 && r.Boot == boot && same(record.Proc{Pid: r.Pid, Start: r.StartTicks})
}

// same reports whether a process still is the one that was recorded.
func same(p record.Proc) bool {
	start, err := kernel.StartTime(p.Pid)
	return err == nil && start == p.Start
}

// stale reports whether there is something to settle.
func (b *Sandbox) stale(r *record.Record, boot string) bool {
	switch {
	case r.State == record.StateEnded:
		return false
	case r.Pid != 0:
		return !alive(r, boot)
	}
	a, err := b.attendant()
	return err == nil && a != nil && (r.Boot != boot || !same(a.Proc))
}

// Info says what is known of it now.
func (b *Sandbox) Info(ctx context.Context) (Info, error) {
	boot, err := kernel.BootID()
	if err != nil {
		return Info{}, err
	}
	for {
		c, err := b.entry.Config()
		if err != nil {
			return Info{}, err
		}
		r, err := b.entry.Record()
		if err != nil {
			return Info{}, err
		}
		if !b.stale(r, boot) {
			return info(c, r, boot), nil
		}
		if err := b.locked(ctx, func(*state) error { return nil }); err != nil { // settles it
			return Info{}, err
		}
	}
}

// settled is Info after whatever has ended was noticed.
func (b *Sandbox) settled(ctx context.Context) (Info, error) {
	if err := b.locked(ctx, func(*state) error { return nil }); err != nil {
		return Info{}, err
	}
	return b.Info(ctx)
}

// state is a sandbox's files while its lock is held.
type state struct {
	*Sandbox
	cfg  *record.Config
	rec  *record.Record
	boot string
	live bool // it ran when the lock was taken
	gone bool // its files were removed
}

// locked calls f with the sandbox's files while nobody else may change them,
// after an end that nobody has noticed yet was settled.
func (b *Sandbox) locked(ctx context.Context, f func(*state) error) (err error) {
	e, err := b.store.dir.Find(b.ID()) // goroutines need locks of their own
	if err != nil {
		return err
	}
	if err := e.Lock(ctx); err != nil {
		return err
	}
	s := &state{Sandbox: &Sandbox{store: b.store, entry: e}}
	defer func() {
		if !s.gone {
			err = errors.Join(err, e.Unlock())
		}
	}()
	if s.cfg, err = e.Config(); err != nil {
		return err
	}
	if s.rec, err = e.Record(); err != nil {
		return err
	}
	if s.boot, err = kernel.BootID(); err != nil {
		return err
	}
	if err := s.settle(); err != nil {
		return err
	}
	if s.gone {
		return ErrNotFound
	}
	return f(s)
}

// running reports whether the sandbox ran when the lock was taken. The kernel is
// asked only once: one that is killed a moment later has an end that was not
// settled, and whoever took it for ended would lose its control groups and ids.
func (s *state) running() bool { return s.live }

func (s *state) save() error { return s.entry.SetRecord(s.rec) }

// identityFile holds a nucleus.Identity, of the last run.
const identityFile = "identity.json"

func (s *state) setIdentity(id nucleus.Identity) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	return replace(s.entry.Path(identityFile), b)
}

// replace writes a file in one step.
func replace(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (b *Sandbox) identity() (id nucleus.Identity, err error) {
	data, err := os.ReadFile(b.entry.Path(identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return id, ErrNotRunning
	}
	if err == nil {
		err = json.Unmarshal(data, &id)
	}
	return id, err
}

// settle records the end of a run that is over: it may be long ago.
func (s *state) settle() error {
	if s.rec.State == record.StateEnded {
		return nil
	}
	if s.live = alive(s.rec, s.boot); s.live {
		return nil
	}
	if s.rec.Pid == 0 {
		return s.settleUnborn()
	}
	o, ended, err := s.outcome()
	if err != nil {
		return err
	}
	s.rec.State, s.rec.Ended, s.rec.Paused, s.rec.Outcome = record.StateEnded, ended, false, o
	if s.rec.Boot != s.boot {
		s.rec.Outcome.Detail = "the machine was restarted"
	}
	if err := s.save(); err != nil {
		return err
	}
	if o.Reason == string(nucleus.OutOfMemory) {
		s.logAt(ended, "oom", s.cfg, nil)
	}
	code := o.Code
	if o.Signal != 0 {
		code = 128 + o.Signal
	}
	attrs := map[string]string{"reason": o.Reason, "exit_code": strconv.Itoa(code)}
	if o.Detail != "" {
		attrs["detail"] = o.Detail
	}
	s.logAt(ended, "end", s.cfg, attrs)
	s.auditedEnd(o, ended)
	if s.cfg.Service.Remove {
		return s.remove()
	}
	return nil
}

// settleUnborn forgets a sandbox whose attendant was killed before it ran, and
// records that a later run did not begin: who starts one holds the lock until it
// has, or has failed to.
func (s *state) settleUnborn() error {
	if s.stale(s.rec, s.boot) {
		return s.remove()
	}
	if s.rec.Run > 1 {
		return s.notStarted(errStarterKilled)
	}
	return nil
}

var errStarterKilled = errors.New("who was starting it was killed")

// outcome finds out how a run ended, and cleans up after it.
func (s *state) outcome() (*record.Outcome, time.Time, error) {
	a, err := s.attended()
	if err != nil {
		return nil, time.Time{}, err
	}
	if a != nil { // and it has cleaned up
		return a.Outcome, a.Ended, nil
	}
	id, err := s.identity()
	if err != nil {
		return nil, time.Time{}, err
	}
	said, ended, err := s.entry.ReadExit()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, err
	}
	switch {
	case len(said) == 0:
		ended = time.Now()
	case ended.Before(s.rec.Started): // a file's time is a tick behind, and a short run is over before its start is written down
		ended = s.rec.Started
	}
	o, err := id.Collect(bytesReader(said))
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("clean up after %s: %w", s.cfg.Display(), err)
	}
	return outcome(o), ended, nil
}

// remove forgets a sandbox that does not run.
func (s *state) remove() error {
	if err := s.removeLogs(); err != nil {
		return err
	}
	if err := s.entry.Remove(); err != nil {
		return err
	}
	s.gone = true
	s.log("remove", s.cfg, nil)
	return nil
}

// removeLogs removes the logs, if they are where this store keeps logs.
func (s *state) removeLogs() error {
	root, err := s.store.dir.LogRoot()
	if err != nil || s.cfg.LogDir == "" || s.cfg.LogDir != filepath.Join(root, s.ID()) {
		return err
	}
	return os.RemoveAll(s.cfg.LogDir)
}

func (b *Sandbox) log(what string, c *record.Config, attrs map[string]string) {
	b.logAt(time.Now(), what, c, attrs)
}

// logAt logs an event. That it happened does not depend on it being told.
func (b *Sandbox) logAt(at time.Time, what string, c *record.Config, attrs map[string]string) {
	_ = b.store.dir.Log(record.Event{Time: at, Type: what, ID: c.ID, Name: c.Name, Attrs: attrs})
	b.audited(at, c, bodyOf(what, attrs))
}

// Log tells that something happened to the sandbox.
func (b *Sandbox) Log(what string, attrs map[string]string) error {
	c, err := b.entry.Config()
	if err != nil {
		return err
	}
	b.audited(time.Now(), c, bodyOf(what, attrs))
	return b.store.dir.Log(record.Event{Type: what, ID: c.ID, Name: c.Name, Attrs: attrs})
}
