package notify

import "time"

// Watchdog knows when a program should have said WATCHDOG=1 again. The zero
// value never expires. It is not safe for concurrent use.
type Watchdog struct {
	// Timeout is how long it may be silent. Zero: for ever, until it sets a time
	// itself with WATCHDOG_USEC.
	Timeout time.Duration

	last    time.Time // when it last gave a sign of life; zero: it has not begun
	trigger bool      // it said itself that it is not well
}

// Observe takes what the program said at the given time. As systemd has it, the
// time runs from READY=1 on, or from the first sign of life.
func (w *Watchdog) Observe(m Message, now time.Time) {
	if m.WatchdogTimeout > 0 {
		w.Timeout = m.WatchdogTimeout
	}
	begins := m.WatchdogTimeout > 0 && !w.last.IsZero()
	if m.Ready || m.Watchdog || begins {
		w.last = now
	}
	w.trigger = w.trigger || m.Trigger
}

// Due is when it expires if nothing more is said; the zero time means never.
func (w *Watchdog) Due() time.Time {
	if w.Timeout <= 0 || w.last.IsZero() {
		return time.Time{}
	}
	return w.last.Add(w.Timeout)
}

// Expired reports whether the program has been silent for too long, or has asked
// for help.
func (w *Watchdog) Expired(now time.Time) bool {
	due := w.Due()
	return w.trigger || !due.IsZero() && !now.Before(due)
}
