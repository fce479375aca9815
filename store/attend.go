package store

import (
	"context"
	"errors"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/record"
)

// Attend lists a sandbox that its caller starts and waits for itself, so that
// others can find it while it runs. It sets cmd.Born; done forgets the sandbox
// and must be called when it has ended or was not started. If the caller is
// killed the sandbox ends with it, and the next verb that looks forgets it.
func (s *Store) Attend(ctx context.Context, c Config, cmd *nucleus.Cmd) (done func() error, err error) {
	c.Service.Remove, c.Service.Log.Off = true, true
	b, err := s.Create(c)
	if err != nil {
		return nil, err
	}
	cmd.Born = func(id nucleus.Identity) error {
		return b.locked(ctx, func(st *state) error {
			st.rec.State, st.rec.Boot, st.rec.Run, st.rec.Started = record.StateRunning, st.boot, 1, time.Now()
			if err := st.born(id, Launch{}); err != nil {
				return err
			}
			st.log("start", st.cfg, nil)
			return nil
		})
	}
	return func() error {
		// Settling removes it; what never ran is removed here.
		err := b.locked(context.WithoutCancel(ctx), func(st *state) error {
			if st.running() {
				return nil
			}
			return st.remove()
		})
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}, nil
}
