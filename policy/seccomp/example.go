package seccomp

import "slices"

// Example returns arguments with which p allows a call, those that are not
// decided upon being 0: for trying a call that is refused with others. ok is
// false if no rule with simple conditions allows it.
func (p Policy) Example(a Arch, name string) (args [6]uint64, ok bool) {
	nr, known := a.Number(name)
	if !known {
		return args, false
	}
	for _, r := range p.Rules {
		if r.Do != Allow && r.Do != Log || !slices.Contains(r.Calls, name) {
			continue
		}
		var try [6]uint64
		for _, c := range r.When {
			try[c.Arg] = c.Value
		}
		if d := p.Decide(a, nr, try); d == Allow || d == Log {
			return try, true
		}
	}
	return args, false
}
