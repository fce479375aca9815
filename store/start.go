package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/enter"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/logger"
	"github.com/nucleus-container/nucleus/internal/logs"
	"github.com/nucleus-container/nucleus/internal/record"
	"github.com/nucleus-container/nucleus/spec"
)

func bytesReader(b []byte) io.Reader { return bytes.NewReader(b) }

// Start starts the sandbox and returns when its program runs, or with the reason
// why it does not. One that runs is an error (ErrRunning).
func (b *Sandbox) Start(ctx context.Context) error {
	c, err := b.entry.Config()
	if err != nil {
		return err
	}
	if c.Service.Systemd {
		return b.startUnit(ctx)
	}
	if needsKeeper(c) {
		return b.startKept(ctx)
	}
	p, err := b.Launch(ctx, Launch{})
	if err != nil {
		return err
	}
	// Its end is for others to notice; its corpse is ours, for as long as we live.
	go func() { _ = errors.Join(p.Wait(context.Background()), p.Close()) }()
	return nil
}

// needsKeeper reports whether somebody must stay with the sandbox.
func needsKeeper(c *record.Config) bool {
	return c.Service.NeedsKeeper() || c.Sandbox.Terminal || c.Service.Ready != nil || len(c.Service.Hooks.Poststart) > 0 || len(c.Service.Hooks.CreateRuntime) > 0
}

// Launch says how a sandbox is started in this process. It is for the keeper.
type Launch struct {
	Restart bool                // it was started before and ended: counted
	Keep    bool                // this process stays with it, as its keeper
	Volumes []spec.Volume       // in addition
	Env     []string            // in addition
	Born    func(pid int) error // called before the program can run
}

// Launch starts the sandbox in this process. With a terminal, the Process has it.
func (b *Sandbox) Launch(ctx context.Context, l Launch) (p *nucleus.Process, err error) {
	err = b.locked(ctx, func(s *state) error {
		if s.running() {
			return fmt.Errorf("%s: %w", s.cfg.Display(), ErrRunning)
		}
		p, err = s.launch(ctx, l)
		return err
	})
	return p, err
}

func (s *state) launch(ctx context.Context, l Launch) (*nucleus.Process, error) {
	if err := s.prepare(ctx, l); err != nil {
		return nil, err
	}
	p, err := s.begin(l)
	if p == nil {
		return nil, errors.Join(err, s.notStarted(err))
	}
	s.rec.State, s.rec.Started = record.StateRunning, time.Now()
	if err = errors.Join(err, s.save()); err != nil { // its end is settled as any other's
		return nil, errors.Join(err, p.Kill(), p.Wait(ctx), p.Close())
	}
	s.logAt(s.rec.Started, "start", s.cfg, map[string]string{"pid": strconv.Itoa(s.rec.Pid)})
	return p, nil
}

// begin starts the program. An error beside a process came when that ran already.
func (s *state) begin(l Launch) (*nucleus.Process, error) {
	exit, err := s.entry.NewExit()
	if err != nil {
		return nil, err
	}
	defer exit.Close()
	box := s.cfg.Sandbox
	box.Volumes = append(append([]spec.Volume(nil), box.Volumes...), l.Volumes...)
	box.Env = append(append([]string(nil), box.Env...), l.Env...)
	box.Name = cmp.Or(s.cfg.Name, record.Short(s.ID())) // it may have been renamed
	cmd := nucleus.Command(&box, s.cfg.Command[0], s.cfg.Command[1:]...)
	cmd.Detach = &nucleus.Detach{Exit: exit}
	cmd.Born = func(id nucleus.Identity) error { return s.born(id, l) }
	out, err := s.output()
	if err != nil {
		return nil, err
	}
	if !box.Terminal {
		cmd.Stdout, cmd.Stderr = out[0], out[1]
	}
	teller, err := s.teller(s.cfg)
	if err == nil && teller != nil {
		cmd.Events, cmd.HideArgs = teller.Tell, s.cfg.Service.Audit.HideArgs
	}
	if err == nil {
		err = cmd.Start()
	}
	if teller != nil {
		err = errors.Join(err, teller.Close())
	}
	for _, f := range out {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return cmd.Process, err
}

// prepare makes the record of a run that begins.
func (s *state) prepare(ctx context.Context, l Launch) error {
	r := s.rec
	old := r.Logger
	*r = record.Record{Version: r.Version, State: record.StateCreated, Boot: s.boot, Run: r.Run + 1, Restarts: r.Restarts, Keeper: r.Keeper, Unit: r.Unit, Logger: old}
	if l.Restart {
		r.Restarts++
	} else {
		r.Restarts = 0
	}
	if l.Keep {
		start, err := kernel.StartTime(os.Getpid())
		if err != nil {
			return err
		}
		r.Keeper = &record.Proc{Pid: os.Getpid(), Start: start}
	}
	if old != nil { // it writes to the end what the last run said
		if err := endProcess(ctx, *old, 5*time.Second); err != nil {
			return err
		}
	}
	r.Logger = nil
	return s.save()
}

// born records whose processes these are, before the program runs.
func (s *state) born(id nucleus.Identity, l Launch) error {
	if err := s.setIdentity(id); err != nil {
		return err
	}
	s.rec.Pid, s.rec.StartTicks = id.Pid(), id.Start()
	if err := s.save(); err != nil {
		return err
	}
	if l.Born != nil {
		return l.Born(id.Pid())
	}
	return nil
}

// notStarted records that a run did not begin because of err.
func (s *state) notStarted(err error) error {
	code := 125
	switch {
	case nucleus.NotFound(err):
		code = 127
	case nucleus.NotExecutable(err):
		code = 126
	}
	s.rec.State, s.rec.Pid, s.rec.Ended = record.StateEnded, 0, time.Now()
	s.rec.Outcome = &record.Outcome{Reason: "not started", Code: code, Detail: err.Error()}
	var step *nucleus.Error
	if errors.As(err, &step) {
		s.rec.Outcome.Hint = step.Hint
	}
	s.log("end", s.cfg, map[string]string{"reason": "not started", "exit_code": strconv.Itoa(code)})
	return s.save()
}

// output starts the logger and returns the files that are the program's standard
// output and error. With a terminal the keeper writes there.
func (s *state) output() (out [2]*os.File, err error) {
	if s.cfg.Service.Log.Inherit && !s.cfg.Sandbox.Terminal {
		return inherited()
	}
	if s.cfg.LogDir == "" || s.cfg.Sandbox.Terminal {
		return out, nil
	}
	out, err = s.startLogger()
	if err == nil {
		err = s.save()
	}
	return out, err
}

// inherited are our own standard output and error.
func inherited() (out [2]*os.File, err error) {
	for i, f := range []*os.File{os.Stdout, os.Stderr} {
		fd, err := kernel.DupAbove(int(f.Fd()), 3)
		if err != nil {
			return out, err
		}
		out[i] = fd.File(f.Name())
	}
	return out, nil
}

// Output starts a logger for a keeper that itself writes what is to be logged.
func (b *Sandbox) Output(ctx context.Context) (w *os.File, err error) {
	err = b.locked(ctx, func(s *state) error {
		if s.cfg.LogDir == "" {
			return nil
		}
		if s.rec.Logger != nil {
			if err := endProcess(ctx, *s.rec.Logger, 5*time.Second); err != nil {
				return err
			}
		}
		out, err := s.startLogger()
		if err != nil {
			return err
		}
		w = out[0]
		return errors.Join(out[1].Close(), s.save())
	})
	return w, err
}

func (s *state) startLogger() (out [2]*os.File, err error) {
	n, size := s.cfg.Service.Log.Files, s.cfg.Service.Log.Size
	if n == 0 {
		n = spec.DefaultLogFiles
	}
	if size == 0 {
		size = spec.DefaultLogSize
	}
	var open []*os.File
	defer func() {
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
	}()
	files, err := logs.Create(s.cfg.LogDir, n)
	if err != nil {
		return out, err
	}
	open = append(open, files...)
	place, err := logs.Next(s.cfg.LogDir)
	if err != nil {
		return out, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return out, err
	}
	open = append(open, null)
	fds := []int{int(null.Fd()), int(null.Fd()), int(null.Fd())}
	for i := range out {
		r, w, err := os.Pipe()
		if err != nil {
			return out, err
		}
		open = append(open, r)
		out[i] = w
		fds = append(fds, int(r.Fd()))
	}
	cfg := logger.Config{Out: 3, Err: 4, Size: uint64(size), First: place.First, Used: place.Used, Turn: place.Turn}
	for i, f := range files {
		cfg.Files = append(cfg.Files, 5+i)
		fds = append(fds, int(f.Fd()))
	}
	pid, pidfd, err := enter.Page("nucleus-log", logger.Image(cfg), fds)
	if err != nil {
		return out, fmt.Errorf("start the logger: %w", err)
	}
	start, err := kernel.StartTime(pid)
	if err != nil {
		return out, errors.Join(err, pidfd.Close())
	}
	s.rec.Logger = &record.Proc{Pid: pid, Start: start}
	go reapLater(pid, pidfd)
	return out, nil
}

// reapLater waits for a child without occupying a thread.
func reapLater(pid int, pidfd kernel.FD) {
	w, err := kernel.NewProcessWait(pidfd)
	if err == nil {
		err = errors.Join(w.Ended(), w.Close())
	}
	if err == nil {
		_, _, _ = kernel.Reap(pid) // nobody needs its status
	}
	_ = pidfd.Close() // as above
}

// endProcess waits until a process of ours that is about to end has ended, and
// kills it if that takes longer than patience.
func endProcess(ctx context.Context, p record.Proc, patience time.Duration) error {
	fd, err := kernel.OpenProcess(p.Pid, p.Start)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer fd.Close()
	w, err := kernel.NewProcessWait(fd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = kernel.SignalProcess(fd, 9) }) // it has ended if this fails
	err = w.Ended()
	stop()
	return errors.Join(err, w.Close())
}
