package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
)

// ErrNotKept: the sandbox is not this keeper's to start again. Somebody has asked
// it to end, or has started it meanwhile with another keeper.
var ErrNotKept = errors.New("the sandbox is not this keeper's any more")

// Relaunch starts a sandbox again, for the keeper that started it before. What
// Launch would not know is decided under the lock: whoever stops the sandbox
// before it is held wins, and ErrNotKept says so.
func (b *Sandbox) Relaunch(ctx context.Context, l Launch) (p *nucleus.Process, err error) {
	l.Restart, l.Keep = true, true
	err = b.locked(ctx, func(s *state) error {
		k := s.rec.Keeper
		if s.rec.Stopped || s.running() || s.rec.Boot != s.boot || k == nil || k.Pid != os.Getpid() || !same(*k) {
			return fmt.Errorf("%s: %w", s.cfg.Display(), ErrNotKept)
		}
		p, err = s.launch(ctx, l)
		return err
	})
	return p, err
}

// End is Stop for a keeper, which says why. For good means that it is not
// started again, as if somebody had called Stop. It returns when p, the run that
// the keeper means, has ended.
func (b *Sandbox) End(ctx context.Context, p *nucleus.Process, reason string, forGood bool) error {
	var patience time.Duration
	err := b.locked(ctx, func(s *state) error {
		patience = cmp.Or(s.cfg.Service.StopTimeout, spec.DefaultStopTimeout)
		if !s.running() || s.rec.Pid != p.Pid() {
			s.rec.Stopped = s.rec.Stopped || forGood && !s.running()
			return s.save()
		}
		wasPaused := s.rec.Paused
		s.rec.Stopped, s.rec.Paused = s.rec.Stopped || forGood, false
		if err := s.save(); err != nil {
			return err
		}
		s.log("stop", s.cfg, map[string]string{"reason": reason})
		if err := s.signal(s.stopSignal()); err != nil || !wasPaused {
			return err
		}
		return p.Unpause() // to hear it
	})
	if errors.Is(err, ErrNotFound) { // nobody can find it any more: it must not outlive this
		err = nil
	}
	return errors.Join(err, end(ctx, p, patience))
}
