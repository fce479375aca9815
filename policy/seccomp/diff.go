package seccomp

import (
	"fmt"
	"strings"
)

// Change is a call that two policies answer differently.
type Change struct {
	Call string `json:"call"`
	// More and Less say whether some arguments let the call run under the
	// second policy alone, or under the first alone. Neither: only how it is
	// refused differs.
	More bool `json:"more"`
	Less bool `json:"less"`
	// Unsure: there are too many conditions to try everything. More and Less are
	// then set, and if nothing was found that differs, After says so.
	Unsure bool   `json:"unsure,omitempty"`
	Before string `json:"before"` // what the first policy says
	After  string `json:"after"`
	// Example are arguments for which the answers differ.
	Example [6]uint64 `json:"example"`
}

// Diff returns the calls that a and b answer differently, sorted by name, and last
// what they say about numbers without a name. It compares answers and not rules:
// a call that is missing is answered alike whatever its arguments are.
func Diff(a, b Policy) []Change {
	var out []Change
	before, after := a.decisions(), b.decisions()
	for i := range calls {
		if c, differs := change(calls[i].name, before[calls[i].name], after[calls[i].name], maxSteps); differs {
			out = append(out, c)
		}
	}
	if c, differs := change(noName, decision{{Do: a.unknown()}}, decision{{Do: b.unknown()}}, maxSteps); differs {
		out = append(out, c)
	}
	return out
}

// maxSteps bounds what is tried for one call.
const maxSteps = 2_000_000

func change(name string, a, b decision, steps int) (c Change, differs bool) {
	if a.equal(b) {
		return c, false
	}
	c = Change{Call: name, Before: a.String(), After: b.String()}
	s := search{left: steps}
	s.compare(a, b, func(args [6]uint64) {
		before, after := a.decide(args), b.decide(args)
		more, less := after.Runs() && !before.Runs(), before.Runs() && !after.Runs()
		if !differs || more && !c.More || less && !c.Less && !c.More {
			c.Example = args
		}
		differs = true
		c.More, c.Less = c.More || more, c.Less || less
		s.done = c.More && c.Less
	})
	if s.left >= 0 || s.done {
		return c, differs
	}
	c.More, c.Less, c.Unsure = true, true, true
	if !differs { // no example is to be shown beside these, so they quote no condition
		c.Before = fmt.Sprintf("%d rules", len(a))
		c.After = fmt.Sprintf("%d rules, which may differ: there are too many conditions to compare them all", len(b))
	}
	return c, true
}

func (d decision) decide(args [6]uint64) Action {
	for _, r := range d {
		if r.holds(args) {
			return r.Do
		}
	}
	return KillProcess // a decision ends with a rule that always holds
}

// String prints what is decided on one line.
func (d decision) String() string {
	parts := make([]string, len(d))
	for i, r := range d {
		parts[i] = string(r.Do) + when(r.When)
	}
	if len(parts) > 4 {
		parts = append(parts[:3], fmt.Sprintf("%d more", len(d)-4), parts[len(d)-1])
	}
	return strings.Join(parts, ", else ")
}
