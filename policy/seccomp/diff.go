package seccomp

import (
	"fmt"
	"slices"
	"strings"
)

// Change is a call that two policies answer differently.
type Change struct {
	Call string `json:"call"`
	// More and Less say whether some arguments let the call run under the
	// second policy alone, or under the first alone. Neither: only how it is
	// refused differs.
	More   bool   `json:"more"`
	Less   bool   `json:"less"`
	Before string `json:"before"` // what the first policy says
	After  string `json:"after"`
	// Example are arguments for which the answers differ.
	Example [6]uint64 `json:"example"`
}

// Diff returns the calls that a and b answer differently, sorted by name. It
// compares answers and not rules, for arguments on both sides of every value
// that a condition names.
func Diff(a, b Policy) []Change {
	var out []Change
	before, after := a.decisions(), b.decisions()
	for i := range calls {
		if c, differs := change(calls[i].name, before[calls[i].name], after[calls[i].name]); differs {
			out = append(out, c)
		}
	}
	return out
}

func change(name string, a, b decision) (c Change, differs bool) {
	if a.equal(b) {
		return c, false
	}
	c = Change{Call: name, Before: a.String(), After: b.String()}
	for _, args := range witnesses(a, b) {
		before, after := a.decide(args), b.decide(args)
		if before == after {
			continue
		}
		more, less := after.Runs() && !before.Runs(), before.Runs() && !after.Runs()
		if !differs || more && !c.More || less && !c.Less && !c.More {
			c.Example = args
		}
		differs = true
		c.More, c.Less = c.More || more, c.Less || less
	}
	return c, differs
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

// maxWitnesses bounds the arguments that are tried for one call.
const maxWitnesses = 300_000

// witnesses returns arguments around every value that the conditions name: if two
// decisions differ at all, they differ for one of them. (Conditions compare with
// constants, so between two neighbours of one argument nothing changes.)
func witnesses(lists ...decision) [][6]uint64 {
	var values [6][]uint64
	for i := range values {
		values[i] = []uint64{0}
	}
	add := func(arg int, v uint64) {
		if !slices.Contains(values[arg], v) {
			values[arg] = append(values[arg], v)
		}
	}
	for _, d := range lists {
		for _, r := range d {
			for _, c := range r.When {
				for _, v := range [...]uint64{c.Value, c.Value + 1, c.Value - 1, c.Value | 1<<32, ^uint64(0)} {
					add(c.Arg, v)
				}
				if c.Op == MaskedEq {
					add(c.Arg, c.Value|^c.Mask)
					for bit := c.Mask; bit != 0; bit &= bit - 1 {
						add(c.Arg, c.Value^(bit&-bit))
					}
				}
			}
		}
	}
	out := [][6]uint64{{}}
	for arg := range values {
		if len(out)*len(values[arg]) > maxWitnesses {
			values[arg] = values[arg][:max(1, maxWitnesses/len(out))]
		}
		var next [][6]uint64
		for _, args := range out {
			for _, v := range values[arg] {
				args[arg] = v
				next = append(next, args)
			}
		}
		out = next
	}
	return out
}
