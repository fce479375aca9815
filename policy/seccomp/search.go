package seccomp

import (
	mathbits "math/bits"
	"slices"
)

// A search finds arguments for which two decisions differ. It goes through the
// pairs of rules that say different things, keeping what each argument may still
// be, so that what it does not find does not exist, unless its steps run out.
type search struct {
	left int  // rules and conditions that it may look at yet; below 0 it has given up
	done bool // enough was found
}

func (s *search) over() bool { return s.left < 0 || s.done }

// rooms are what the arguments may be.
type rooms [6]room

// args are one value for each.
func (r *rooms) args() (args [6]uint64) {
	for i := range r {
		args[i] = r[i].fits
	}
	return args
}

// compare calls found with arguments for every pair of rules that decide
// differently and can decide at once.
func (s *search) compare(a, b decision, found func(args [6]uint64)) {
	var all rooms
	for i := range all {
		all[i] = room{high: ^uint64(0), high32: 1<<32 - 1}
	}
	for i, r := range a {
		for j, o := range b {
			if r.Do == o.Do {
				continue
			}
			if s.left -= i + j; s.over() {
				return
			}
			when, earlier := slices.Concat(r.When, o.When), slices.Concat(a[:i], b[:j])
			if slices.ContainsFunc(earlier, func(e Rule) bool { return implies(when, e.When) }) {
				continue
			}
			if in, ok := s.all(all, when); ok && s.solve(&in, earlier) {
				found(in.args())
			}
		}
	}
}

// all leaves the arguments for which every condition holds.
func (s *search) all(in rooms, when []Cond) (out rooms, ok bool) {
	for _, c := range when {
		if in, ok = s.narrow(in, c, true); !ok {
			return in, false
		}
	}
	return in, true
}

// solve finds arguments within in for which none of the rules holds, and leaves them
// in it. It looks at a rule only once the arguments at hand make it hold.
func (s *search) solve(in *rooms, rules []Rule) bool {
	if s.left -= len(rules); s.over() {
		return false
	}
	args := in.args()
	at := slices.IndexFunc(rules, func(r Rule) bool { return r.holds(args) })
	if at < 0 {
		return true
	}
	for _, c := range rules[at].When {
		if out, ok := s.narrow(*in, c, false); ok && s.solve(&out, rules) {
			*in = out
			return true
		}
		var ok bool
		if *in, ok = s.narrow(*in, c, true); !ok {
			return false
		}
	}
	return false
}

// narrow leaves the arguments for which c holds, or does not; ok is false if there are none.
func (s *search) narrow(in rooms, c Cond, holds bool) (out rooms, ok bool) {
	if s.left--; s.over() {
		return in, false
	}
	r := in[c.Arg].with(c, holds)
	if c.holds(r.fits) != holds {
		if r.fits, ok = s.fit(r); !ok {
			return in, false
		}
	}
	in[c.Arg] = r
	return in, true
}

// A room is what one argument may be: a value between low and high, whose lower
// half is between low32 and high32, with some bits given and some patterns forbidden.
type room struct {
	low, high     uint64
	low32, high32 uint64
	given         pattern
	forbidden     []pattern
	fits          uint64 // one of the values
}

// A pattern is matched by a value whose bits under mask are those of value.
type pattern struct{ mask, value uint64 }

// inverse is the comparison that holds when another does not.
var inverse = [...]Op{Eq: Ne, Ne: Eq, Lt: Ge, Le: Gt, Gt: Le, Ge: Lt}

// with returns r narrowed to the values for which c holds, or does not. What fits
// is left as it was.
func (r room) with(c Cond, holds bool) room {
	low, high, all := &r.low, &r.high, ^uint64(0)
	if c.Width == 32 {
		low, high, all = &r.low32, &r.high32, 1<<32-1
	}
	if c.Op == MaskedEq {
		return r.masked(pattern{c.Mask, c.Value}, holds)
	}
	op := c.Op
	if !holds {
		op = inverse[op]
	}
	switch {
	case op == Lt && c.Value == 0, op == Gt && c.Value >= all:
		*low, *high = all, 0
	case op == Ne:
		return r.masked(pattern{all, c.Value}, false)
	case op == Eq:
		*low, *high = max(*low, c.Value), min(*high, c.Value)
	case op == Lt:
		*high = min(*high, c.Value-1)
	case op == Le:
		*high = min(*high, c.Value)
	case op == Gt:
		*low = max(*low, c.Value+1)
	case op == Ge:
		*low = max(*low, c.Value)
	}
	return r
}

func (r room) masked(p pattern, holds bool) room {
	switch {
	case !holds:
		r.forbidden = append(slices.Clip(r.forbidden), p) // a copy: other ways go on from the same list
	case (r.given.value^p.value)&r.given.mask&p.mask|p.value&^p.mask != 0:
		r.low, r.high = 1, 0
	default:
		r.given.mask |= p.mask
		r.given.value |= p.value
	}
	return r
}

// fit returns a value of r. Where the least one matches a forbidden pattern, it
// tries those that differ from the pattern in one bit after the other.
func (s *search) fit(r room) (v uint64, ok bool) {
	if s.left -= 1 + len(r.forbidden); s.over() {
		return 0, false
	}
	if v, ok = r.least(); !ok {
		return 0, false
	}
	for _, f := range r.forbidden {
		if v&f.mask != f.value {
			continue
		}
		for free := f.mask &^ r.given.mask; free != 0; free &= free - 1 {
			bit := free & -free
			other := r
			other.given.mask |= bit
			other.given.value |= ^f.value & bit
			if v, ok := s.fit(other); ok {
				return v, true
			}
			r.given.mask |= bit // from here on this bit is the pattern's
			r.given.value |= f.value & bit
		}
		return 0, false
	}
	return v, true
}

// least returns the least value of r, if patterns are not forbidden.
func (r room) least() (v uint64, ok bool) {
	const half = 1<<32 - 1
	upper, ok := leastBetween(r.low>>32, r.high>>32, pattern{r.given.mask >> 32, r.given.value >> 32})
	for ok {
		from, to := r.low32, r.high32
		if upper == r.low>>32 {
			from = max(from, r.low&half)
		}
		if upper == r.high>>32 {
			to = min(to, r.high&half)
		}
		if lower, fits := leastBetween(from, to, pattern{r.given.mask & half, r.given.value & half}); fits {
			return upper<<32 | lower, true
		}
		if from == r.low32 && to == r.high32 {
			return 0, false // no other upper half leaves more to the lower one
		}
		upper, ok = leastBetween(upper+1, r.high>>32, pattern{r.given.mask >> 32, r.given.value >> 32})
	}
	return 0, false
}

// leastBetween returns the least value from low to high that matches p, which are
// halves: 32 bits.
func leastBetween(low, high uint64, p pattern) (v uint64, ok bool) {
	v = low&^p.mask | p.value
	if v == low {
		return v, v <= high
	}
	top := uint64(1) << (mathbits.Len64(v^low) - 1) // the highest bit in which p is not as low
	if v < low {
		// A greater bit that p leaves open must make up for it. Of halves, there is one: beyond high.
		free := ^(p.mask | low) &^ (top<<1 - 1)
		top = free & -free
		v |= top
	}
	v = v&^(top-1) | p.value&(top-1)
	return v, v <= high
}
