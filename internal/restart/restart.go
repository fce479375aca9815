// Package restart decides whether an ended sandbox is started again, and when.
// It has no clock and starts nothing: the keeper does.
//
//	var h restart.History
//	h.Ended(ran, success, stopped)
//	if again, after := restart.Next(policy, h); again { ... }
//
// The figures are docker's (moby, daemon/internal/restartmanager): the first
// restart waits 100 ms, each next one twice as long, up to a minute, and a run of
// 10 s begins the row anew. In one thing we differ: docker's on-failure:N counts
// all restarts since the last start by hand, ours counts those in a row, so a
// service that fails once a week is not given up after N weeks.
package restart

import (
	"time"

	"github.com/nucleus-container/nucleus/spec"
)

// Docker's figures.
const (
	First   = 100 * time.Millisecond // before the first restart of a row
	Longest = time.Minute            // no pause is longer
	Settled = 10 * time.Second       // a run that lived this long is the first of a new row
)

// History is what there is to know about a sandbox that has just ended.
type History struct {
	// Failures is how many runs in a row have not lived for Settled, the last one
	// included whatever its length. An early end counts whether it was a success
	// or not: one that succeeds at once, again and again, must not be started ten
	// times a second for ever.
	Failures int `json:"failures,omitempty"`
	// Ran is how long the last run lived.
	Ran time.Duration `json:"ran,omitempty"`
	// Success is whether the last run exited with 0.
	Success bool `json:"success,omitempty"`
	// Stopped is whether the user asked for its end.
	Stopped bool `json:"stopped,omitempty"`
}

// Ended adds a run to the history.
func (h *History) Ended(ran time.Duration, success, stopped bool) {
	if ran >= Settled {
		h.Failures = 0
	}
	*h = History{Failures: max(h.Failures, 0) + 1, Ran: ran, Success: success, Stopped: stopped}
}

// Next says whether the sandbox is started again, and after which pause.
func Next(r spec.Restart, h History) (again bool, after time.Duration) {
	row := max(h.Failures, 1)
	if h.Ran >= Settled {
		row = 1
	}
	switch {
	case h.Stopped:
		return false, 0
	case r.Policy == spec.RestartAlways, r.Policy == spec.RestartUnlessStopped:
		return true, pause(row)
	case r.Policy == spec.RestartOnFailure && !h.Success && (r.Max == 0 || row <= r.Max):
		return true, pause(row)
	}
	return false, 0
}

// pause is the time before restart number row of a row, from 1.
func pause(row int) time.Duration {
	after := First
	for ; row > 1 && after < Longest; row-- {
		after *= 2
	}
	return min(after, Longest)
}
