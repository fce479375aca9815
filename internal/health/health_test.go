package health

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nucleus-container/nucleus/spec"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestDefaults(t *testing.T) {
	for _, tc := range []struct {
		name              string
		check             spec.Check
		purpose           Purpose
		interval, timeout time.Duration
		retries           int
	}{
		{"liveness", spec.Check{}, Liveness, 30 * time.Second, 30 * time.Second, 3},
		{"readiness", spec.Check{}, Readiness, time.Second, 5 * time.Second, 60},
		{"asked for", spec.Check{Interval: 2, Timeout: 3, Retries: 4}, Liveness, 2, 3, 4},
		{"asked for, readiness", spec.Check{Interval: 2, Timeout: 3, Retries: 4}, Readiness, 2, 3, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i, o, r := Interval(&tc.check, tc.purpose), Timeout(&tc.check, tc.purpose), Retries(&tc.check, tc.purpose)
			if i != tc.interval || o != tc.timeout || r != tc.retries {
				t.Errorf("got %v, %v, %d, want %v, %v, %d", i, o, r, tc.interval, tc.timeout, tc.retries)
			}
		})
	}
}

// TestMachine answers every question at once, in order: y is a yes, n is a no.
// The state after each answer is a letter as well: s h u.
func TestMachine(t *testing.T) {
	const sec = time.Second
	for _, tc := range []struct {
		name    string
		check   spec.Check
		purpose Purpose
		answers string
		want    string
		due     time.Duration // of the next question, from the start; -1: never
	}{
		{"healthy at once", spec.Check{}, Liveness, "y", "h", 60 * sec},
		{"three noes", spec.Check{}, Liveness, "nnn", "ssu", 120 * sec},
		{"three noes with a yes in between", spec.Check{}, Liveness, "nnynnyn", "sshhhhh", 240 * sec},
		{"unhealthy and back", spec.Check{}, Liveness, "ynnnnyn", "hhhuuhh", 240 * sec},
		{"one no is enough", spec.Check{Retries: 1, Interval: sec}, Liveness, "nyn", "uhu", 4 * sec},

		// Questions at 1, 2, 3 s are in the period, the one at 4 s is not.
		{"start period", spec.Check{Retries: 2, Interval: sec, StartPeriod: 4 * sec}, Liveness, "nnnnn", "ssssu", 6 * sec},
		{"start period, ended by a yes", spec.Check{Retries: 2, Interval: sec, StartPeriod: time.Hour}, Liveness, "nnnynn", "ssshhu", 7 * sec},
		{"start period, healthy after it", spec.Check{Retries: 2, Interval: sec, StartPeriod: 2 * sec}, Liveness, "nny", "ssh", 4 * sec},

		{"ready at once", spec.Check{}, Readiness, "y", "h", -1},
		{"ready at last", spec.Check{}, Readiness, "nnny", "sssh", -1},
		{"never ready", spec.Check{Retries: 3}, Readiness, "nnn", "ssu", -1},
		{"not ready yet", spec.Check{}, Readiness, strings.Repeat("n", 59), strings.Repeat("s", 59), 59 * sec},
		{"not ready in a minute", spec.Check{}, Readiness, strings.Repeat("n", 60), strings.Repeat("s", 59) + "u", -1},
		{"decided, then answers that nobody asked for", spec.Check{Retries: 1}, Readiness, "ynnn", "hhhh", -1},
		{"start period of readiness", spec.Check{Retries: 1, StartPeriod: 2 * sec}, Readiness, "nnn", "ssu", -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := New(&tc.check, tc.purpose, start)
			if m.State() != Starting || m.Since() != start {
				t.Fatalf("got %s since %v at the start", m.State(), m.Since())
			}
			got, before, at := "", Starting, start
			for i, a := range tc.answers {
				if !m.Due().IsZero() {
					at = m.Due()
				}
				state, changed := m.Result(a == 'y', fmt.Sprint(i), at)
				if changed != (state != before) || state != m.State() || changed && m.Since() != at {
					t.Errorf("answer %d: %s after %s: got changed %v, State %s since %v", i, state, before, changed, m.State(), m.Since())
				}
				got, before = got+string(state[0]), state
			}
			if got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if tc.due < 0 != m.Due().IsZero() || tc.due >= 0 && m.Due().Sub(start) != tc.due {
				t.Errorf("got the next question at %v, want %v", m.Due().Sub(start), tc.due)
			}
		})
	}
}

// TestInterval counts from the answer, not from the question: a check that takes
// longer than its interval is not asked twice at once.
func TestInterval(t *testing.T) {
	m := New(&spec.Check{Interval: time.Second, StartPeriod: 2 * time.Second, Retries: 1}, Liveness, start)
	// Due in the start period, answered long after it: it does not count.
	if state, _ := m.Result(false, "", start.Add(time.Minute)); state != Starting || m.Failures() != 0 {
		t.Errorf("got %s with %d failures, want starting with none", state, m.Failures())
	}
	if got := m.Due().Sub(start); got != time.Minute+time.Second {
		t.Errorf("got the next question at %v, want 1m1s", got)
	}
	if state, _ := m.Result(false, "", start.Add(2*time.Minute)); state != Unhealthy || m.Failures() != 1 {
		t.Errorf("got %s with %d failures, want unhealthy with one", state, m.Failures())
	}
}

func TestNobodyAsks(t *testing.T) {
	m := New(nil, Liveness, start)
	state, changed := m.Result(false, "x", start)
	if state != None || changed || !m.Due().IsZero() || m.Detail() != "" {
		t.Errorf("got %s, changed %v, due %v, detail %q, want none of it", state, changed, m.Due(), m.Detail())
	}
}

func TestClean(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"text", " é: 日本 ✓ ", "é: 日本 ✓"},
		{"escape sequence", "\x1b[2Jx", "?[2Jx"},
		{"C1 control", "a\u009b2Jb", "a?2Jb"},
		{"lines", "a\nb\r\nc", "a?b??c"},
		{"direction", "a\u202eb\u2066c\u200e", "a?b?c?"},
		{"line separator", "a\u2028b", "a?b"},
		{"not UTF-8", "a\xff\xfeb", "a??b"},
		{"long", strings.Repeat("a", 600), strings.Repeat("a", 512)},
		{"long, the last rune does not fit", strings.Repeat("a", 511) + "日本", strings.Repeat("a", 511)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := New(&spec.Check{}, Liveness, start)
			m.Result(true, tc.in, start)
			if m.Detail() != tc.want || !utf8.ValidString(m.Detail()) {
				t.Errorf("got %q, want %q", m.Detail(), tc.want)
			}
		})
	}
}
