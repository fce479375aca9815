// Package denial turns what a sandbox refused into words: what was tried, which
// rule refused it and why, and what would allow it.
//
// It is pure. What happened comes from others: the calls that a listener saw,
// how the sandbox ended, what a control group counted. What the description and
// the plan say decides which rule it was.
//
//	j := denial.New(sandbox, plan, host)
//	for _, c := range calls { j.Call(c) }
//	j.End(end)
//	for _, d := range j.Denials() { fmt.Println(d) }
//
// The kernel tells a listener what it refuses itself and nothing of what happens
// to a call that goes on. What other layers refused is therefore inferred, from
// what the kernel says of the file while the call waits, and marked so.
package denial

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Layers: the parts of a sandbox that refuse things.
const (
	Seccomp    = "seccomp"    // the filter of system calls
	Landlock   = "landlock"   // rules about files, beside the mounts
	Mount      = "mount"      // a mount is read-only or not executable
	Missing    = "missing"    // it exists on the host, and is not in the sandbox
	Capability = "capability" // the sandbox's root lacks the right
	Memory     = "memory"     // the memory limit, or that of scratch space
	Pids       = "pids"       // the limit on tasks
	Network    = "network"    // there is none
	Time       = "time"       // the timeout
)

// Denial is one thing that a sandbox refused, or several that differ only in
// when they were tried. Text that came from the workload is made harmless to
// print and is cut.
type Denial struct {
	Time    time.Time `json:"time"`
	Layer   string    `json:"layer"`
	What    string    `json:"what"`             // what was tried, such as "write"
	Object  string    `json:"object,omitempty"` // to what
	Process string    `json:"process,omitempty"`
	Pid     int       `json:"pid,omitempty"` // on the host
	Errno   string    `json:"errno,omitempty"`
	// Rule says which rule refused it and why.
	Rule string `json:"rule"`
	// Allow is the flag or the line of a policy that would allow it; Otherwise
	// says what to do where nothing does.
	Allow     string `json:"allow,omitempty"`
	Otherwise string `json:"otherwise,omitempty"`
	// Say is a sentence for a model inside the sandbox.
	Say string `json:"say"`
	// Inferred says that the kernel did not report it, and it follows from what
	// it says of the object.
	Inferred bool `json:"inferred,omitempty"`
	// Minor says that programs usually try this and go on without.
	Minor bool `json:"minor,omitempty"`
	Count int  `json:"count"`
}

// Most bounds the number of denials that are kept. A workload decides how many
// there are.
const Most = 256

// cut bounds the text of a workload in one field.
const cut = 240

// String is one line.
func (d *Denial) String() string {
	var b strings.Builder
	who := d.Process
	if who == "" {
		who = "the program"
	}
	b.WriteString(who + " could not " + d.What)
	if d.Object != "" {
		b.WriteString(" " + d.Object)
	}
	b.WriteString(": " + d.Rule)
	if d.Errno != "" {
		b.WriteString(" (" + d.Errno + ")")
	}
	return b.String()
}

// Fix is what a person can do, on one line.
func (d *Denial) Fix() string {
	if d.Allow != "" {
		return "to allow: " + d.Allow
	}
	return d.Otherwise
}

// Clean makes text of a workload harmless to print: no control characters, none
// that turn the direction of text or are invisible, and no more than a line.
//
// What an attacker would try: sequences that a terminal obeys, text that reads
// backwards, a path so long that its end hides what is after it.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs):
			return '?'
		}
		return r
	}, s)
	if len(s) <= cut {
		return s
	}
	head, tail := s[:cut/2], s[len(s)-cut/2:]
	for !utf8.ValidString(head) {
		head = head[:len(head)-1]
	}
	for !utf8.ValidString(tail) {
		tail = tail[1:]
	}
	return head + "..." + tail
}

// quote makes an argument for a shell, or says that it cannot be one that a
// person should copy.
func quote(s string) (string, bool) {
	if Clean(s) != s {
		return "", false
	}
	plain := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._+@%=:,-", r))
	}
	if s != "" && !strings.ContainsFunc(s, plain) {
		return s, true
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'", true
}

// Ranked returns the denials in the order in which they are likely to have
// caused a failure, the likeliest first.
func Ranked(all []Denial) []Denial {
	all = slices.Clone(all)
	last := time.Time{}
	for _, d := range all {
		if !d.Minor && d.Time.After(last) {
			last = d.Time
		}
	}
	score := func(d Denial) int {
		s := weights(d.Layer)
		if d.Process == "" { // nobody was seen doing it, and it is on the command line
			s += 10
		}
		if d.Minor {
			s -= 100
		}
		if d.Time.Equal(last) {
			s += 25
		}
		return s
	}
	slices.SortStableFunc(all, func(a, b Denial) int { return score(b) - score(a) })
	return all
}

// weights is how likely a layer's refusal is to end a program.
func weights(layer string) int {
	switch layer {
	case Memory, Pids, Time:
		return 100
	case Mount, Landlock:
		return 80
	case Seccomp, Capability:
		return 70
	case Network:
		return 65
	}
	return 50
}
