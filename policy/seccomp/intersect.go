package seccomp

import (
	"slices"
	"strings"
)

// strictness orders actions as the kernel does when filters disagree.
func (a Action) strictness() int {
	switch a {
	case Allow:
		return 0
	case Log:
		return 1
	case UserNotify:
		return 2
	case Trap:
		return 4
	case KillThread:
		return 5
	case KillProcess:
		return 6
	}
	return 3 // an error
}

// Stricter returns the stricter of two actions, and the first of two errors.
func Stricter(a, b Action) Action {
	if b.strictness() > a.strictness() {
		return b
	}
	return a
}

// Intersect returns a policy that answers every call as the strictest of the
// given policies does. It allows only what all of them allow. Without any, it is
// the default policy.
func Intersect(policies ...Policy) Policy {
	if len(policies) == 0 {
		return Default()
	}
	out := policies[0]
	for _, p := range policies[1:] {
		out = intersect(out, p)
	}
	return out
}

// noRule is the reason of a policy's default.
const noRule = "no rule names it"

// decision is what one policy says about one call: rules with conditions in
// order, then one without.
type decision []Rule

// decisions goes through the rules once.
func (p Policy) decisions() map[string]decision {
	all := make(map[string]decision, len(calls))
	for _, r := range p.Rules {
		for _, name := range r.Calls {
			d := all[name]
			if n := len(d); n == 0 || len(d[n-1].When) > 0 { // not decided yet
				all[name] = append(d, Rule{When: r.When, Do: r.Do, Why: r.Why})
			}
		}
	}
	for i := range calls {
		d := all[calls[i].name]
		if n := len(d); n == 0 || len(d[n-1].When) > 0 {
			all[calls[i].name] = append(d, Rule{Do: p.Default, Why: noRule})
		}
	}
	return all
}

func (d decision) equal(other decision) bool {
	return slices.EqualFunc(d, other, func(a, b Rule) bool {
		return a.Do == b.Do && a.Why == b.Why && slices.Equal(a.When, b.When)
	})
}

// intersect goes through every pair of rules, in the order of both: the first
// pair that holds is the first rule that holds of the one and of the other.
func intersect(p, q Policy) Policy {
	out := Policy{Default: Stricter(p.Default, q.Default), Unknown: Stricter(p.unknown(), q.unknown())}
	type group struct {
		calls []string
		d     decision
	}
	var groups []group
	ours, theirs := p.decisions(), q.decisions()
	for i := range calls {
		d := pairs(ours[calls[i].name], theirs[calls[i].name])
		if last := d[len(d)-1]; len(d) == 1 && last.Do == out.Default && last.Why == noRule {
			continue
		}
		at := slices.IndexFunc(groups, func(g group) bool { return g.d.equal(d) })
		if at < 0 {
			at = len(groups)
			groups = append(groups, group{d: d})
		}
		groups[at].calls = append(groups[at].calls, calls[i].name)
	}
	for _, g := range groups {
		for _, r := range g.d {
			r.Calls = g.calls
			out.Rules = append(out.Rules, r)
		}
	}
	return out
}

func pairs(a, b decision) decision {
	if a.equal(b) {
		return a
	}
	var out decision
	for _, r := range a {
		for _, s := range b {
			when, possible := both(r.When, s.When)
			if !possible {
				continue
			}
			do := Stricter(r.Do, s.Do)
			rule := Rule{When: when, Do: do, Why: reason(r, s, do)}
			if !slices.ContainsFunc(out, func(o Rule) bool { return implies(when, o.When) }) {
				out = append(out, rule)
			}
		}
	}
	return trim(out)
}

// trim drops the rules before the last that say what it says anyway.
func trim(d decision) decision {
	n := len(d)
	for n > 1 && d[n-2].Do == d[n-1].Do && d[n-2].Why == d[n-1].Why {
		n--
		d[n-1].When = nil
	}
	return d[:n]
}

// reason is that of whoever decides.
func reason(r, s Rule, do Action) string {
	switch {
	case r.Why == s.Why || r.Do == do && s.Do != do, s.Why == noRule && r.Do == do:
		return r.Why
	case s.Do == do && r.Do != do, r.Why == noRule && s.Do == do:
		return s.Why
	}
	return strings.Join([]string{r.Why, s.Why}, "; ")
}

// implies reports whether conditions hold only where those of another rule do
// (as far as it can be told by comparing them).
func implies(when, other []Cond) bool {
	return !slices.ContainsFunc(other, func(c Cond) bool { return !slices.Contains(when, c) })
}

// both joins conditions; possible is false if they are seen to contradict each other.
func both(a, b []Cond) (when []Cond, possible bool) {
	when = slices.Clone(a)
	for _, c := range b {
		if !slices.Contains(when, c) {
			when = append(when, c)
		}
	}
	for i, c := range when {
		if c.Op != Eq {
			continue
		}
		for j, d := range when {
			if i != j && c.Arg == d.Arg && c.Width == d.Width && !d.holds(c.Value) {
				return nil, false
			}
		}
	}
	return when, true
}

// Excludes reports whether c and d are seen never to hold at once.
func (c Cond) Excludes(d Cond) bool {
	if c.Arg != d.Arg || c.Width != d.Width {
		return false
	}
	if c.Op == Eq {
		return !d.holds(c.Value)
	}
	if d.Op == Eq {
		return !c.holds(d.Value)
	}
	if c.Op == MaskedEq && d.Op == MaskedEq {
		common := c.Mask & d.Mask
		return c.Value&common != d.Value&common
	}
	low, high := c.bounds()
	from, to := d.bounds()
	return high < from || to < low
}

// bounds are the least and the greatest value for which c may hold.
func (c Cond) bounds() (low, high uint64) {
	switch c.Op {
	case Lt:
		return 0, max(c.Value, 1) - 1
	case Le:
		return 0, c.Value
	case Gt:
		return min(c.Value, ^uint64(1)) + 1, ^uint64(0)
	case Ge:
		return c.Value, ^uint64(0)
	}
	return 0, ^uint64(0)
}
