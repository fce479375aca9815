// Package health turns the answers of a sandbox to a check into its state, and
// asks the one kind of question that needs a protocol, HTTP. It runs no command,
// opens no connection and has no clock: the keeper does that, and says what came
// of it.
//
//	m := health.New(box.Service.Health, health.Liveness, started)
//	// at m.Due(), ask; then:
//	state, changed := m.Result(ok, detail, time.Now())
package health

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nucleus-container/nucleus/spec"
)

// State is what is thought of a sandbox.
type State string

// States, with docker's names.
const (
	None      State = "none"      // nobody asks
	Starting  State = "starting"  // no answer that counts yet
	Healthy   State = "healthy"   // the last answer was a yes, or the noes since are too few
	Unhealthy State = "unhealthy" // too many noes in a row
)

// Purpose is what a check is for.
type Purpose bool

// Purposes.
const (
	Liveness  Purpose = false // asked for as long as the sandbox runs
	Readiness Purpose = true  // asked from its start on, until the first yes
)

// Defaults of a check; those of liveness are docker's.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultRetries       = 3
	defaultReadyInterval = time.Second
	defaultReadyTimeout  = 5 * time.Second
	defaultReadyRetries  = 60
)

// Interval is the time from an answer to the next question.
func Interval(c *spec.Check, p Purpose) time.Duration {
	return choose(c.Interval, defaultInterval, defaultReadyInterval, p)
}

// Timeout is how long an answer may take.
func Timeout(c *spec.Check, p Purpose) time.Duration {
	return choose(c.Timeout, defaultTimeout, defaultReadyTimeout, p)
}

// Retries is how many noes in a row make a sandbox unhealthy.
func Retries(c *spec.Check, p Purpose) int {
	return choose(c.Retries, defaultRetries, defaultReadyRetries, p)
}

// choose is what was asked for, or the purpose's default.
func choose[T time.Duration | int](asked, live, ready T, p Purpose) T {
	switch {
	case asked > 0:
		return asked
	case p == Readiness:
		return ready
	}
	return live
}

// Machine follows one sandbox through one run. It is not safe for concurrent use.
type Machine struct {
	check   *spec.Check
	purpose Purpose
	grace   time.Time // noes to questions before it do not count, until the first yes
	due     time.Time
	state   State
	noes    int
	detail  string
	since   time.Time
}

// New begins with a sandbox that has been started at the given time. Without a
// check the state is None, for ever.
func New(c *spec.Check, p Purpose, started time.Time) *Machine {
	m := &Machine{check: c, purpose: p, state: None, since: started}
	if c == nil {
		return m
	}
	m.state, m.grace, m.due = Starting, started.Add(c.StartPeriod), started
	// Readiness is asked at once: the start waits for it. Liveness is first asked
	// after an interval, as docker does it.
	if p == Liveness {
		m.due = started.Add(Interval(c, p))
	}
	return m
}

// Due is when to ask next; the zero time means never: there is no check, or it
// was for readiness and is decided.
func (m *Machine) Due() time.Time { return m.due }

// State is what is thought of the sandbox now.
func (m *Machine) State() State { return m.state }

// Since is the time from which on that has been thought.
func (m *Machine) Since() time.Time { return m.since }

// Failures is the number of noes in a row that count.
func (m *Machine) Failures() int { return m.noes }

// Detail is what the last answer said, as [Clean] leaves it.
func (m *Machine) Detail() string { return m.detail }

// Result takes the answer, at the given time, to the question that was due. An
// answer that did not come in time, and a question that could not be asked, are
// noes as well: the sandbox decides whether there is somebody to ask.
//
// As docker does it: a no to a question of the start period does not count, and
// a yes ends that period. A yes makes the unhealthy healthy again.
func (m *Machine) Result(ok bool, detail string, at time.Time) (s State, changed bool) {
	if m.due.IsZero() {
		return m.state, false
	}
	before, asked := m.state, m.due
	m.detail = Clean(detail)
	m.due = at.Add(Interval(m.check, m.purpose))
	switch {
	case ok:
		m.state, m.noes = Healthy, 0
	case m.state == Starting && asked.Before(m.grace):
	default:
		m.noes++
		if m.noes >= Retries(m.check, m.purpose) {
			m.state = Unhealthy
		}
	}
	if m.purpose == Readiness && m.state != Starting {
		m.due = time.Time{}
	}
	if m.state != before {
		m.since = at
	}
	return m.state, m.state != before
}

// maxDetail bounds what is kept of an answer.
const maxDetail = 512

// Clean makes text of a sandbox fit for a record and a terminal: valid UTF-8 of
// at most 512 bytes. An attacker would write escape sequences, lines of his own,
// or marks that turn the direction of writing; each such character becomes "?".
func Clean(s string) string {
	s = s[:min(len(s), maxDetail+utf8.UTFMax)]
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsGraphic(r) {
			return '?'
		}
		return r
	}, s)
	for len(s) > maxDetail {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return strings.TrimSpace(s)
}
