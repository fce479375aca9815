package restart

import (
	"math"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/spec"
)

const (
	ms  = time.Millisecond
	day = 24 * time.Hour
)

func TestNext(t *testing.T) {
	var (
		no       = spec.Restart{}
		always   = spec.Restart{Policy: spec.RestartAlways}
		unless   = spec.Restart{Policy: spec.RestartUnlessStopped}
		failure  = spec.Restart{Policy: spec.RestartOnFailure}
		failure3 = spec.Restart{Policy: spec.RestartOnFailure, Max: 3}
	)
	for _, tc := range []struct {
		name  string
		r     spec.Restart
		h     History
		again bool
		after time.Duration
	}{
		{"no policy", no, History{Failures: 1}, false, 0},
		{"no policy, a long run", no, History{Failures: 1, Ran: day}, false, 0},
		{"unknown policy", spec.Restart{Policy: "sometimes"}, History{Failures: 1}, false, 0},

		{"always, after a failure", always, History{Failures: 1}, true, 100 * ms},
		{"always, after a success", always, History{Failures: 1, Success: true}, true, 100 * ms},
		{"always, second in a row", always, History{Failures: 2}, true, 200 * ms},
		{"always, successes in a row wait too", always, History{Failures: 3, Success: true}, true, 400 * ms},
		{"always, tenth", always, History{Failures: 10}, true, 51200 * ms},
		{"always, eleventh would be 102 s", always, History{Failures: 11}, true, time.Minute},
		{"always, after a year", always, History{Failures: math.MaxInt}, true, time.Minute},
		{"always, nothing counted", always, History{}, true, 100 * ms},
		{"always, nonsense counted", always, History{Failures: -5}, true, 100 * ms},
		{"always, lived for 9.999 s", always, History{Failures: 5, Ran: Settled - ms}, true, 1600 * ms},
		{"always, lived for 10 s", always, History{Failures: 5, Ran: Settled}, true, 100 * ms},
		{"always, stopped", always, History{Failures: 1, Stopped: true}, false, 0},
		{"always, stopped, with success", always, History{Failures: 1, Stopped: true, Success: true}, false, 0},
		{"always, the clock went back", always, History{Failures: 2, Ran: -day}, true, 200 * ms},
		{"unless-stopped, ended", unless, History{Failures: 2, Success: true}, true, 200 * ms},
		{"unless-stopped, stopped", unless, History{Failures: 1, Stopped: true}, false, 0},

		{"on-failure, success", failure, History{Failures: 1, Success: true}, false, 0},
		{"on-failure, late success", failure, History{Failures: 1, Success: true, Ran: day}, false, 0},
		{"on-failure, failure", failure, History{Failures: 4}, true, 800 * ms},
		{"on-failure, stopped", failure, History{Failures: 1, Stopped: true}, false, 0},
		{"on-failure, no end", failure, History{Failures: 1000}, true, time.Minute},
		{"on-failure:3, third restart", failure3, History{Failures: 3}, true, 400 * ms},
		{"on-failure:3, no fourth", failure3, History{Failures: 4}, false, 0},
		{"on-failure:3, the fourth lived long", failure3, History{Failures: 4, Ran: Settled}, true, 100 * ms},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if again, after := Next(tc.r, tc.h); again != tc.again || after != tc.after {
				t.Errorf("got %v after %v, want %v after %v", again, after, tc.again, tc.after)
			}
		})
	}
}

// TestRow runs a sandbox that fails again and again, lives once, and fails again.
func TestRow(t *testing.T) {
	r := spec.Restart{Policy: spec.RestartOnFailure, Max: 2}
	var h History
	for i, step := range []struct {
		ran   time.Duration
		again bool
		after time.Duration
	}{
		{time.Second, true, 100 * ms}, {time.Second, true, 200 * ms}, {Settled, true, 100 * ms}, // the third lived
		{time.Second, true, 200 * ms}, {time.Second, false, 0},
	} {
		h.Ended(step.ran, false, false)
		if again, after := Next(r, h); again != step.again || after != step.after {
			t.Errorf("run %d: got %v after %v, want %v after %v", i+1, again, after, step.again, step.after)
		}
	}
	h.Ended(time.Second, true, true)
	if !h.Success || !h.Stopped || h.Ran != time.Second || h.Failures != 4 {
		t.Errorf("got %+v, want a stopped success, the fourth of its row", h)
	}
}

// FuzzNext holds what is true of every policy and history.
func FuzzNext(f *testing.F) {
	f.Add("always", 0, 3, int64(1), false, false)
	f.Add("on-failure", 2, 3, int64(20e9), false, true)
	f.Add("", -1, math.MaxInt, int64(math.MinInt64), true, false)
	f.Fuzz(func(t *testing.T, policy string, limit, failures int, ran int64, success, stopped bool) {
		r := spec.Restart{Policy: spec.RestartPolicy(policy), Max: limit}
		h := History{Failures: failures, Ran: time.Duration(ran), Success: success, Stopped: stopped}
		again, after := Next(r, h)
		known := r.Policy == spec.RestartAlways || r.Policy == spec.RestartUnlessStopped || r.Policy == spec.RestartOnFailure
		switch {
		case again && (stopped || !known):
			t.Errorf("%+v %+v: started again", r, h)
		case again && r.Policy == spec.RestartOnFailure && success:
			t.Errorf("%+v %+v: started again after a success", r, h)
		case again && (after < First || after > Longest), !again && after != 0:
			t.Errorf("%+v %+v: got a pause of %v", r, h, after)
		case !again && !stopped && (r.Policy == spec.RestartAlways || r.Policy == spec.RestartUnlessStopped):
			t.Errorf("%+v %+v: not started again", r, h)
		}
		// One failure more never shortens the pause, nor makes a restart more likely.
		if failures < math.MaxInt {
			h.Failures++
			if again2, after2 := Next(r, h); again2 && (!again || after2 < after) {
				t.Errorf("%+v: failure %d: %v after %v, one before it: %v after %v", r, h.Failures, again2, after2, again, after)
			}
		}
	})
}
