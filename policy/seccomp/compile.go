package seccomp

import (
	"fmt"
	"slices"
)

// Compile turns p into a program for a. The same policy always gives the same
// program.
//
// The shape: test the architecture, then search the number's range by halving,
// then test arguments. A call whose decision needs no argument reads nothing but
// its number, which since Linux 5.11 lets the kernel notice at load time that it
// is always allowed and skip the program altogether. That is why the search is
// made of plain comparisons and not of a bitmap with shifts: the kernel's check
// follows the former only.
func (p Policy) Compile(a Arch) (Program, error) {
	if a.AuditArch() == 0 {
		return Program{}, fmt.Errorf("compile seccomp policy: no such architecture %s", a)
	}
	if err := p.Validate(); err != nil {
		return Program{}, fmt.Errorf("compile seccomp policy: %w", err)
	}
	ranges, leaves := p.ranges(a)
	c := compiler{leaves: leaves, done: make([]label, len(leaves))}
	tree := c.tree(ranges)

	if a == AMD64 {
		// A tracer skips a call by writing -1 for its number, and programs probe
		// with it: it has the x32 bit and is not an x32 call.
		minusOne := c.branch(opJeq, ^uint32(0), c.leaf(0), c.ret(KillProcess))
		tree = c.branch(opJset, x32Bit, minusOne, tree)
	}
	load := c.load(offNR, tree)
	c.branch(opJeq, a.AuditArch(), load, c.ret(KillProcess))
	c.emit(Insn{Code: opLoad, K: offArch})
	slices.Reverse(c.rev)
	insns := prune(c.rev)
	if len(insns) > MaxInsns {
		return Program{}, fmt.Errorf("compile seccomp policy: %d instructions, the kernel takes %d", len(insns), MaxInsns)
	}
	return Program{Arch: a, Insns: insns}, nil
}

// A leaf is what is left to decide once the number is known: rules with
// conditions, in order, and the action if none holds.
type leaf struct {
	rules []Rule // each with at least one condition
	last  Action
}

// A span is a run of numbers, from first up to the next span, with one leaf.
type span struct {
	first uint32
	leaf  int
}

// ranges returns the decision for every number: spans in order, the first at 0,
// and the leaves they point into. Leaf 0 is for numbers that the table lacks.
func (p Policy) ranges(a Arch) ([]span, []leaf) {
	rules := make(map[string][]Rule, len(calls))
	for _, r := range p.Rules {
		for _, name := range r.Calls {
			rules[name] = append(rules[name], r)
		}
	}
	leaves := []leaf{{last: p.unknown()}}
	var byNumber []int
	for i := range calls {
		nr, ok := calls[i].number(a)
		if !ok {
			continue
		}
		l := reduce(rules[calls[i].name], p.Default)
		at := slices.IndexFunc(leaves, l.equal)
		if at < 0 {
			at = len(leaves)
			leaves = append(leaves, l)
		}
		if grow := int(nr) + 1 - len(byNumber); grow > 0 {
			byNumber = append(byNumber, make([]int, grow)...)
		}
		byNumber[nr] = at
	}
	var spans []span
	for nr, at := range append(byNumber, 0) {
		if n := len(spans); n == 0 || spans[n-1].leaf != at {
			spans = append(spans, span{uint32(nr), at})
		}
	}
	return spans, leaves
}

// reduce drops the rules that cannot matter: those after one that always holds,
// and those at the end that say what comes after them anyway.
func reduce(rules []Rule, last Action) leaf {
	l := leaf{last: last}
	for _, r := range rules {
		if len(r.When) == 0 {
			l.last = r.Do
			break
		}
		l.rules = append(l.rules, r)
	}
	for n := len(l.rules); n > 0 && l.rules[n-1].Do == l.last; n-- {
		l.rules = l.rules[:n-1]
	}
	return l
}

func (l leaf) equal(other leaf) bool {
	return l.last == other.last && slices.EqualFunc(l.rules, other.rules, func(a, b Rule) bool {
		return a.Do == b.Do && slices.Equal(a.When, b.When)
	})
}

// A compiler writes the program backwards: the target of a jump, which always
// lies ahead, is then known when the jump is written. A label is the number of
// instructions that were written up to and including its target; 0 is none.
type compiler struct {
	rev    []Insn
	leaves []leaf
	done   []label          // where each leaf was written, if it was
	rets   map[uint32]label // the newest return of each value
}

type label int

func (c *compiler) emit(in Insn) label {
	c.rev = append(c.rev, in)
	return label(len(c.rev))
}

func (c *compiler) at(l label) Insn { return c.rev[l-1] }

// near returns a label for the same code that a conditional jump can reach even
// if one more instruction comes between: the label itself, or that of a copy or
// a jump written now.
func (c *compiler) near(l label) label {
	distance := len(c.rev) - int(l)
	if distance < 255 {
		return l
	}
	if in := c.at(l); in.Code == opRet {
		return c.emit(in)
	}
	return c.emit(Insn{Code: opJump, K: uint32(distance)})
}

func (c *compiler) branch(code uint16, k uint32, yes, no label) label {
	if yes == no {
		return yes
	}
	yes = c.near(yes)
	no = c.near(no)
	n := len(c.rev)
	return c.emit(Insn{Code: code, K: k, JT: uint8(n - int(yes)), JF: uint8(n - int(no))})
}

func (c *compiler) ret(a Action) label {
	k, _ := a.encode() // Validate has refused what does not encode
	if l, ok := c.rets[k]; ok && len(c.rev)-int(l) < 255 {
		return l
	}
	if c.rets == nil {
		c.rets = make(map[uint32]label)
	}
	c.rets[k] = c.emit(Insn{Code: opRet, K: k})
	return c.rets[k]
}

// load writes a load of a word that goes on at next.
func (c *compiler) load(off uint32, next label) label {
	if distance := len(c.rev) - int(next); distance > 0 {
		c.emit(Insn{Code: opJump, K: uint32(distance)})
	}
	return c.emit(Insn{Code: opLoad, K: off})
}

// tree writes the search among spans and returns where it starts.
func (c *compiler) tree(spans []span) label {
	switch {
	case len(spans) == 1:
		return c.leaf(spans[0].leaf)
	case len(spans) == 3 && spans[0].leaf == spans[2].leaf && spans[1].first+1 == spans[2].first:
		rest := c.leaf(spans[0].leaf)
		one := c.leaf(spans[1].leaf)
		return c.branch(opJeq, spans[1].first, one, rest)
	}
	mid := len(spans) / 2
	high := c.tree(spans[mid:])
	low := c.tree(spans[:mid])
	return c.branch(opJge, spans[mid].first, high, low)
}

// leaf writes what remains to be decided once the number is known.
func (c *compiler) leaf(i int) label {
	l := c.leaves[i]
	if len(l.rules) == 0 {
		return c.ret(l.last)
	}
	if c.done[i] == 0 {
		c.done[i] = c.rules(l)
	}
	return c.done[i]
}

// rules writes the tests of a leaf, the last one first.
func (c *compiler) rules(l leaf) label {
	last := c.ret(l.last)
	starts := make([][]label, len(l.rules)) // of each condition of each rule
	for i := len(l.rules) - 1; i >= 0; i-- {
		conds := l.rules[i].When
		starts[i] = make([]label, len(conds)+1)
		starts[i][len(conds)] = c.ret(l.rules[i].Do)
		for j := len(conds) - 1; j >= 0; j-- {
			no := last
			if k, from := l.next(i, j); k < len(l.rules) {
				no = starts[k][from]
			}
			starts[i][j] = c.cond(conds[j], starts[i][j+1], no)
		}
	}
	return starts[0][0]
}

// next returns where to go on when condition j of rule i does not hold: the
// first later rule that this does not rule out as well, and the first of its
// conditions that is not known to hold already.
func (l leaf) next(i, j int) (rule, cond int) {
	hold, failed := l.rules[i].When[:j], l.rules[i].When[j]
	for k := i + 1; k < len(l.rules); k++ {
		conds := l.rules[k].When
		if slices.Contains(conds, failed) {
			continue
		}
		from := 0
		for from < len(conds) && slices.Contains(hold, conds[from]) {
			from++
		}
		return k, from
	}
	return len(l.rules), 0
}

// cond writes one condition.
func (c *compiler) cond(q Cond, yes, no label) label {
	switch q.Op {
	case Ne:
		q.Op, yes, no = Eq, no, yes
	case Lt:
		q.Op, yes, no = Ge, no, yes
	case Le:
		q.Op, yes, no = Gt, no, yes
	}
	low, high := uint32(offArgs+8*q.Arg), uint32(offArgs+8*q.Arg+4)
	mask, value := q.Mask, q.Value
	if q.Op != MaskedEq {
		mask = ^uint64(0)
	}
	if q.Op == Gt || q.Op == Ge {
		code := uint16(opJgt)
		if q.Op == Ge {
			code = opJge
		}
		start := c.word(code, low, ^uint32(0), uint32(value), yes, no)
		if q.Width == 32 {
			return start
		}
		// Past the upper half only when it is equal; the load in between is kept.
		equal := c.branch(opJeq, uint32(value>>32), start, c.without(no, high))
		bigger := c.branch(opJgt, uint32(value>>32), c.without(yes, high), equal)
		return c.load(high, bigger)
	}
	start := yes
	if uint32(mask) != 0 {
		start = c.word(opJeq, low, uint32(mask), uint32(value), yes, no)
	}
	if q.Width == 32 || mask>>32 == 0 {
		return start
	}
	return c.word(opJeq, high, uint32(mask>>32), uint32(value>>32), start, no)
}

// word writes a test of one 32-bit word: load, mask, compare.
func (c *compiler) word(code uint16, off, mask, value uint32, yes, no label) label {
	switch {
	case mask == ^uint32(0):
		test := c.branch(code, value, c.without(yes, off), c.without(no, off))
		return c.load(off, test)
	case value == 0:
		// Any bit of the mask set means not equal; this leaves the word as it was.
		test := c.branch(opJset, mask, c.without(no, off), c.without(yes, off))
		return c.load(off, test)
	}
	test := c.branch(code, value, yes, no)
	if distance := len(c.rev) - int(test); distance > 0 {
		test = c.emit(Insn{Code: opJump, K: uint32(distance)})
	}
	c.emit(Insn{Code: opAnd, K: mask})
	return c.emit(Insn{Code: opLoad, K: off})
}

// without returns the label after l if l only loads the word that the
// accumulator holds already.
func (c *compiler) without(l label, off uint32) label {
	if in := c.at(l); in.Code == opLoad && in.K == off {
		return l - 1
	}
	return l
}

// prune removes the instructions that no path reaches, such as loads that every
// jump goes past. Jumps only become shorter.
func prune(insns []Insn) []Insn {
	live := make([]bool, len(insns))
	live[0] = true
	for i, in := range insns {
		if live[i] {
			for _, t := range in.targets(i) {
				live[t] = true
			}
		}
	}
	moved := make([]int, len(insns)) // where each instruction ends up
	n := 0
	for i := range insns {
		moved[i] = n
		if live[i] {
			n++
		}
	}
	out := make([]Insn, 0, n)
	for i, in := range insns {
		if !live[i] {
			continue
		}
		switch t := in.targets(i); in.Code {
		case opJump:
			in.K = uint32(moved[t[0]] - len(out) - 1)
		case opJeq, opJgt, opJge, opJset:
			in.JT = uint8(moved[t[0]] - len(out) - 1)
			in.JF = uint8(moved[t[1]] - len(out) - 1)
		}
		out = append(out, in)
	}
	return out
}
