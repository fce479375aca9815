package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/logs"
	"github.com/nucleus-container/nucleus/internal/record"
	"github.com/nucleus-container/nucleus/spec"
)

// Process opens the running sandbox, to execute programs in it, to signal it, to
// measure it. The caller closes it. ErrNotRunning if it does not run.
func (b *Sandbox) Process() (*nucleus.Process, error) {
	id, err := b.identity() // of the last run: whether that goes on, the kernel says
	if errors.Is(err, ErrNotRunning) {
		return nil, b.notRunning()
	}
	if err != nil {
		return nil, err
	}
	p, err := nucleus.Open(id)
	if errors.Is(err, os.ErrProcessDone) {
		return nil, b.notRunning()
	}
	return p, err
}

func (b *Sandbox) notRunning() error {
	c, err := b.entry.Config()
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", c.Display(), ErrNotRunning)
}

// Use says that somebody uses the sandbox, until release is called or this
// program ends: the idle timeout counts from then on.
func (b *Sandbox) Use() (release func() error, err error) { return b.entry.Use() }

// Idle says since when nobody uses the sandbox, or that somebody does.
func (b *Sandbox) Idle() (since time.Time, inUse bool, err error) { return b.entry.Idle() }

// Path is the path of a file of the sandbox in the state directory.
func (b *Sandbox) Path(file string) string { return b.entry.Path(file) }

// Signal sends a signal to the program. SIGKILL ends the whole sandbox. A
// restart policy does not apply to what was killed so or by the stop signal.
func (b *Sandbox) Signal(ctx context.Context, sig syscall.Signal) error {
	return b.locked(ctx, func(s *state) error {
		if !s.running() {
			return b.notRunning()
		}
		if sig == syscall.SIGKILL || sig == s.stopSignal() {
			s.rec.Stopped = true
			if err := s.save(); err != nil {
				return err
			}
		}
		s.log("kill", s.cfg, map[string]string{"signal": spec.SignalName(int(sig))})
		return s.signal(sig)
	})
}

func (s *state) stopSignal() syscall.Signal {
	return syscall.Signal(spec.SignalNumber(cmp.Or(s.cfg.Service.StopSignal, "TERM")))
}

// signal sends a signal; a program that has just ended needs none.
func (s *state) signal(sig syscall.Signal) error {
	p, err := s.Process()
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	err = p.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	return errors.Join(err, p.Close())
}

// Stop asks the program to end, and kills the sandbox if it has not ended after
// a time: zero is the sandbox's own (10 s), negative is at once. It returns when
// the sandbox has ended. One that does not run is no error.
func (b *Sandbox) Stop(ctx context.Context, patience time.Duration) error {
	var p *nucleus.Process
	err := b.locked(ctx, func(s *state) (err error) {
		if patience == 0 {
			patience = cmp.Or(s.cfg.Service.StopTimeout, spec.DefaultStopTimeout)
		}
		if !s.running() {
			if s.rec.Stopped {
				return nil
			}
			s.rec.Stopped = true // a keeper may be about to start it again
			return s.save()
		}
		if p, err = s.Process(); err != nil {
			if errors.Is(err, ErrNotRunning) { // it has just ended: a keeper may be about to start it again
				s.rec.Stopped = true
				return s.save()
			}
			return err
		}
		s.rec.Stopped = true
		wasPaused := s.rec.Paused
		s.rec.Paused = false
		if err := s.save(); err != nil {
			return err
		}
		s.log("stop", s.cfg, nil)
		if patience < 0 {
			return nil
		}
		if err := s.signal(s.stopSignal()); err != nil || !wasPaused {
			return err
		}
		return p.Unpause() // to hear it
	})
	if p != nil {
		if err == nil {
			err = end(ctx, p, patience)
		}
		err = errors.Join(err, p.Close())
	}
	if err != nil {
		return err
	}
	err = b.keeperGone(ctx)
	if errors.Is(err, ErrNotFound) { // it was to be removed at its end
		return nil
	}
	return err
}

// end waits for a sandbox to end and kills it when patience is over.
func end(ctx context.Context, p *nucleus.Process, patience time.Duration) error {
	if patience > 0 {
		short, cancel := context.WithTimeout(ctx, patience)
		err := p.Wait(short)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.Wait(ctx)
}

// keeperGone settles the end, and waits for the keeper of a stopped sandbox.
func (b *Sandbox) keeperGone(ctx context.Context) error {
	var keeper *record.Proc
	err := b.locked(ctx, func(s *state) error {
		if s.rec.Stopped && s.rec.Boot == s.boot && s.rec.Keeper != nil && s.rec.Keeper.Pid != os.Getpid() {
			keeper = s.rec.Keeper
		}
		return nil
	})
	if err != nil || keeper == nil {
		return err
	}
	return endProcess(ctx, *keeper, 5*time.Second)
}

// Wait waits until the sandbox has ended and says how, also if it is removed
// when it ends. One that was never started is an error (ErrNotRunning).
func (b *Sandbox) Wait(ctx context.Context) (Info, error) {
	c, err := b.entry.Config()
	if errors.Is(err, ErrNotFound) {
		return b.told(&record.Config{ID: b.ID()})
	}
	if err != nil {
		return Info{}, err
	}
	p, err := b.Process()
	if err == nil {
		err = errors.Join(p.Wait(ctx), p.Close())
	}
	if err != nil && !errors.Is(err, ErrNotRunning) && !errors.Is(err, ErrNotFound) {
		return Info{}, err
	}
	var out Info
	err = b.locked(ctx, func(s *state) error {
		out = info(s.cfg, s.rec, s.boot)
		if out.State == "created" {
			return b.notRunning()
		}
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		return b.told(c)
	}
	return out, err
}

// told is what the events say of the end of a sandbox that is not there any more.
func (b *Sandbox) told(c *record.Config) (Info, error) {
	all, err := b.store.Events(c.Created.Add(-time.Second), time.Time{}) // files have coarser times
	if err != nil {
		return Info{}, err
	}
	for _, e := range slices.Backward(all) {
		if e.ID == c.ID && e.Type == "end" {
			code, err := strconv.Atoi(e.Attrs["exit_code"])
			return Info{
				ID: c.ID, Name: e.Name, Command: c.Command, Created: c.Created, Labels: c.Labels, Sandbox: c.Sandbox, Service: c.Service,
				State: "exited", Ended: e.Time, Reason: e.Attrs["reason"], ExitCode: code, Detail: e.Attrs["detail"],
			}, err
		}
	}
	return Info{}, fmt.Errorf("%s was removed: %w", c.Display(), ErrNotFound)
}

// Restart stops the sandbox if it runs, and starts it.
func (b *Sandbox) Restart(ctx context.Context, patience time.Duration) error {
	c, err := b.entry.Config()
	if err != nil {
		return err
	}
	if c.Service.Remove {
		return fmt.Errorf("%s is removed when it ends, so it cannot be started again", c.Display())
	}
	if err := b.Stop(ctx, patience); err != nil {
		return err
	}
	if err := b.Log("restart", nil); err != nil {
		return err
	}
	return b.Start(ctx)
}

// Pause stops every process where it is, until Unpause.
func (b *Sandbox) Pause(ctx context.Context) error {
	return b.freeze(ctx, true, "pause", (*nucleus.Process).Pause)
}

// Unpause lets a paused sandbox go on.
func (b *Sandbox) Unpause(ctx context.Context) error {
	return b.freeze(ctx, false, "unpause", (*nucleus.Process).Unpause)
}

func (b *Sandbox) freeze(ctx context.Context, paused bool, what string, f func(*nucleus.Process) error) error {
	return b.locked(ctx, func(s *state) error {
		p, err := s.Process()
		if err != nil {
			return err
		}
		if s.rec.Paused == paused {
			return errors.Join(fmt.Errorf("%s: it is %s already", s.cfg.Display(), map[bool]string{true: "paused", false: "running"}[paused]), p.Close())
		}
		if err := errors.Join(f(p), p.Close()); err != nil {
			return err
		}
		s.rec.Paused = paused
		s.log(what, s.cfg, nil)
		return s.save()
	})
}

// Rename gives the sandbox another name.
func (b *Sandbox) Rename(ctx context.Context, name string) error {
	return b.locked(ctx, func(s *state) error {
		old := s.cfg.Display()
		if err := s.entry.Rename(name); err != nil {
			return err
		}
		s.cfg.Name = name
		s.log("rename", s.cfg, map[string]string{"old": old})
		return nil
	})
}

// Update changes limits: those of l that are not zero. They hold at once if the
// sandbox runs, and for every later start.
func (b *Sandbox) Update(ctx context.Context, l spec.Limits) error {
	return b.locked(ctx, func(s *state) error {
		c := *s.cfg
		merge(&c.Sandbox.Limits, l)
		if err := nucleus.Check(&c.Sandbox); err != nil {
			return err
		}
		if s.running() {
			p, err := s.Process()
			if err != nil {
				return err
			}
			live := l
			if live.Memory == 0 && live.MemorySwap != 0 || live.Memory != 0 && live.MemorySwap == 0 {
				live.Memory, live.MemorySwap = c.Sandbox.Limits.Memory, c.Sandbox.Limits.MemorySwap
			}
			if err := errors.Join(p.Update(live), p.Close()); err != nil {
				return err
			}
		}
		s.log("update", s.cfg, nil)
		return s.entry.SetConfig(&c)
	})
}

// merge takes over what is set in l.
func merge(to *spec.Limits, l spec.Limits) {
	to.Memory = cmp.Or(l.Memory, to.Memory)
	to.MemorySwap = cmp.Or(l.MemorySwap, to.MemorySwap)
	if to.MemorySwap != 0 && to.MemorySwap < to.Memory {
		to.MemorySwap = to.Memory
	}
	to.MilliCPUs = cmp.Or(l.MilliCPUs, to.MilliCPUs)
	to.CPUWeight = cmp.Or(l.CPUWeight, to.CPUWeight)
	to.Pids = cmp.Or(l.Pids, to.Pids)
	to.Memlock = cmp.Or(l.Memlock, to.Memlock)
	if len(l.IO) > 0 {
		to.IO = l.IO
	}
}

// Remove forgets the sandbox and its logs. One that runs is an error, unless
// force kills it first, as often as somebody else starts it meanwhile.
func (b *Sandbox) Remove(ctx context.Context, force bool) error {
	for {
		if force {
			if err := b.Stop(ctx, -1); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		err := b.locked(ctx, func(s *state) error {
			if s.running() {
				return fmt.Errorf("%s: %w", s.cfg.Display(), ErrRunning)
			}
			if s.rec.Logger != nil && s.rec.Boot == s.boot {
				if err := endProcess(ctx, *s.rec.Logger, 5*time.Second); err != nil {
					return err
				}
			}
			return s.remove()
		})
		switch {
		case force && errors.Is(err, ErrRunning):
			continue
		case force && errors.Is(err, ErrNotFound): // it was to be removed at its end, or somebody else was faster
			return nil
		}
		return err
	}
}

// LogOptions say which part of the logs is printed. The zero value prints
// nothing.
type LogOptions struct {
	Stdout, Stderr bool
	Tail           int       // only so many of the last lines; -1: all
	Since, Until   time.Time // only lines that began in this time; zero: without an end
	Timestamps     bool      // begin each line with the time at which it began
	Follow         bool      // wait for more, until the sandbox has ended
}

// Logs prints what is kept of the program's output: its standard output to out,
// its standard error to err, in the order in which it was written.
func (b *Sandbox) Logs(ctx context.Context, out, err io.Writer, o LogOptions) error {
	c, cerr := b.entry.Config()
	if cerr != nil {
		return cerr
	}
	switch {
	case c.Service.Log.Inherit && c.Service.Systemd:
		return b.journal(ctx, c, out, o)
	case c.Service.Log.Inherit:
		return fmt.Errorf("%s keeps no logs: what it says goes to where it was started", c.Display())
	case c.LogDir == "":
		return fmt.Errorf("%s keeps no logs", c.Display())
	}
	l, lerr := logs.OpenDir(c.LogDir)
	if lerr != nil {
		return lerr
	}
	return errors.Join(l.Copy(ctx, out, err, logs.Options{
		Stdout: o.Stdout, Stderr: o.Stderr, Tail: o.Tail, Since: o.Since, Until: o.Until, Timestamps: o.Timestamps,
		Follow: o.Follow, Done: func() bool { return !b.Writing() },
	}), l.Close())
}

// Writing reports whether somebody still writes to the logs.
func (b *Sandbox) Writing() bool {
	r, err := b.entry.Record()
	if err != nil {
		return false
	}
	return r.Logger != nil && same(*r.Logger) || r.State == record.StateCreated || r.Keeper != nil && same(*r.Keeper)
}

// Note changes what a keeper has to tell of the sandbox: f gets a copy of what is
// recorded and changes it.
func (b *Sandbox) Note(ctx context.Context, f func(*Note)) error {
	return b.locked(ctx, func(s *state) error {
		n := Note{Health: s.rec.Health, HealthDetail: s.rec.HealthDetail, Ready: s.rec.Ready, Status: s.rec.Status}
		f(&n)
		s.rec.Health, s.rec.HealthDetail, s.rec.Ready, s.rec.Status = n.Health, n.HealthDetail, n.Ready, n.Status
		return s.save()
	})
}

// Note is what a keeper tells of a running sandbox.
type Note struct {
	Health, HealthDetail, Status string
	Ready                        bool
}

// Stopped reports whether somebody has asked the sandbox to end.
func (b *Sandbox) Stopped() (bool, error) {
	r, err := b.entry.Record()
	if err != nil {
		return false, err
	}
	return r.Stopped, nil
}
