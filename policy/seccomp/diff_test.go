package seccomp

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	more := Default().With(Rule{Calls: []string{"ptrace"}, Do: Allow, Why: "x"})
	less := Default().With(Rule{Calls: []string{"ioctl"}, When: []Cond{is(1, 0x1234)}, Do: Errno("EPERM"), Why: "x"})
	other := Default().With(Rule{Calls: []string{"bpf"}, Do: Errno("ENOSYS"), Why: "x"})
	for _, tt := range []struct {
		name string
		to   Policy
		want string
	}{
		{"same", Default(), ""},
		{"more", more, "+ptrace"},
		{"less", less, "-ioctl"},
		{"other", other, "~bpf"},
		{"unknown", Policy{Default: Default().Default, Unknown: Allow, Rules: Default().Rules}, "+a number without a name"},
		{"unknown that is left out", Policy{Default: Default().Default, Rules: Default().Rules}, ""},
		{"rules that change nothing", Default().With(Rule{Calls: []string{"read"}, When: []Cond{is(0, 3)}, Do: Allow, Why: "x"}), ""},
	} {
		var got []string
		for _, c := range Diff(Default(), tt.to) {
			sign := map[[2]bool]string{{true, false}: "+", {false, true}: "-", {true, true}: "±", {}: "~"}[[2]bool{c.More, c.Less}]
			got = append(got, sign+c.Call)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %v, want %q", tt.name, got, tt.want)
		}
	}
}

// TestDiffFindsWhatDiffers: random policies that differ for a random call are
// said to differ in it, and the example shows it.
func TestDiffFindsWhatDiffers(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		a, b := overlapping(r), overlapping(r)
		changes := Diff(a, b)
		for range 200 {
			name := []string{"read", "socket", "ioctl", "clone", "openat", "close"}[r.IntN(6)]
			nr, _ := AMD64.Number(name)
			args := [6]uint64{uint64(r.IntN(5)), uint64(r.IntN(5)) | uint64(r.IntN(2))<<32}
			if a.Decide(AMD64, nr, args) != b.Decide(AMD64, nr, args) && !slices.ContainsFunc(changes, func(c Change) bool { return c.Call == name }) {
				t.Fatalf("%s%v differs and is not listed\n%s\n%s", name, args, a, b)
			}
		}
		for _, c := range changes {
			nr, ok := AMD64.Number(c.Call)
			if ok && a.Decide(AMD64, nr, c.Example) == b.Decide(AMD64, nr, c.Example) {
				t.Fatalf("%s%v is the example, and does not differ", c.Call, c.Example)
			}
		}
	}
}

// TestDiffSolvesConditionsTogether: what several conditions on one argument leave
// is in none of them.
func TestDiffSolvesConditionsTogether(t *testing.T) {
	masked := func(arg int, mask, value uint64) Cond {
		return Cond{Arg: arg, Op: MaskedEq, Mask: mask, Value: value, Width: 64}
	}
	cond := func(op Op, value uint64) Cond { return Cond{Op: op, Value: value, Width: 64} }
	for _, tt := range []struct {
		name   string
		unless []Cond // of a rule that refuses before
		when   []Cond
		want   bool
	}{
		{"two masks", nil, []Cond{masked(0, 0xff, 0x06), masked(0, 0xff00, 0x4200)}, true},
		{"bits", nil, []Cond{masked(0, 1, 1), masked(0, 2, 2), masked(0, 4, 4), masked(0, 8, 0)}, true},
		{"a mask in a range", nil, []Cond{cond(Gt, 0x100), cond(Lt, 0x200), masked(0, 0xff, 0x77)}, true},
		{"a mask beyond a range", nil, []Cond{cond(Gt, 0x100), cond(Lt, 0x170), masked(0, 0xff, 0x77)}, false},
		{"masks that contradict", nil, []Cond{masked(0, 0xff, 0x06), masked(0, 0xf, 0x7)}, false},
		{"both halves", nil, []Cond{cond(Gt, 5<<32|7), cond(Le, 6<<32|2), {Op: Ge, Value: 2, Width: 32}, {Op: Lt, Value: 3, Width: 32}}, true},
		{"halves apart", nil, []Cond{cond(Gt, 5<<32|7), cond(Lt, 6<<32|2), {Op: Ge, Value: 2, Width: 32}, {Op: Lt, Value: 3, Width: 32}}, false},
		{"all but one", nil, []Cond{cond(Lt, 3), cond(Ne, 0), cond(Ne, 1)}, true},
		{"all but all", nil, []Cond{cond(Lt, 2), cond(Ne, 0), cond(Ne, 1)}, false},
		{"odd ones but for the least", []Cond{masked(0, 1, 0)}, []Cond{cond(Gt, 6), cond(Lt, 10), cond(Ne, 7)}, true},
		{"odd ones but for the only one", []Cond{masked(0, 1, 0)}, []Cond{cond(Gt, 6), cond(Lt, 9), cond(Ne, 7)}, false},
		{"a value outside of its mask", nil, []Cond{{Op: MaskedEq, Mask: 1, Value: 2, Width: 64}}, false},
		{"a mask below a range", nil, []Cond{cond(Ge, 1<<63), masked(0, 1<<63, 0)}, false},
		{"less than nothing", nil, []Cond{cond(Lt, 0)}, false},
		{"more than everything", nil, []Cond{cond(Gt, ^uint64(0))}, false},
		{"more than every int", nil, []Cond{{Op: Gt, Value: 1<<32 - 1, Width: 32}}, false},
		{"two arguments", nil, []Cond{masked(0, 0xff, 0x06), masked(0, 0xff00, 0x4200), masked(5, 0xf, 0x3), masked(5, 0xf0, 0x70)}, true},
	} {
		unless := Rule{Calls: []string{"ptrace"}, When: tt.unless, Do: Errno("EPERM"), Why: "x"}
		refused := Rule{Calls: []string{"ptrace"}, Do: Errno("EPERM"), Why: "x"}
		sometimes := Rule{Calls: []string{"ptrace"}, When: tt.when, Do: Allow, Why: "x"}
		rules := []Rule{sometimes, refused}
		if tt.unless != nil {
			rules = slices.Insert(rules, 0, unless)
		}
		got := Diff(Policy{Default: Allow, Rules: []Rule{refused}}, Policy{Default: Allow, Rules: rules})
		if tt.want != (len(got) == 1) || tt.want && (!got[0].More || got[0].Less || !sometimes.holds(got[0].Example)) {
			t.Errorf("%s: got %+v, want a difference: %t", tt.name, got, tt.want)
		}
	}
}

// TestDiffAgainstAllValues holds Diff against every small value: for rules with
// several conditions on an argument, it is never silent about a difference.
func TestDiffAgainstAllValues(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var values []uint64
	for v := range uint64(16) {
		values = append(values, v, v|1<<32)
	}
	differ, same := 0, 0
	for range 1500 {
		a := crowded(r)
		b := Policy{Default: a.Default, Rules: slices.Clone(a.Rules)}
		switch i := r.IntN(len(a.Rules)); r.IntN(3) {
		case 0: // said in another way, or nearly
			b.Rules[i].When = append(slices.Clone(b.Rules[i].When), smallCond(r))
		case 1:
			b.Rules = slices.Insert(b.Rules, i, crowded(r).Rules...)
		default:
			b = crowded(r)
		}
		before, after := a.decisions()["read"], b.decisions()["read"]
		more, less, any := false, false, false
		for _, v := range values {
			for _, w := range values {
				was, is := before.decide([6]uint64{v, w}), after.decide([6]uint64{v, w})
				any = any || was != is
				more, less = more || is.Runs() && !was.Runs(), less || was.Runs() && !is.Runs()
			}
		}
		got := Diff(a, b)
		if any && len(got) == 0 || len(got) > 0 && (more && !got[0].More || less && !got[0].Less) {
			t.Fatalf("got %+v, want more %t, less %t\n%s\n%s", got, more, less, a, b)
		}
		if len(got) > 0 && before.decide(got[0].Example) == after.decide(got[0].Example) {
			t.Fatalf("%#x is the example, and does not differ\n%s\n%s", got[0].Example, a, b)
		}
		if len(got) > 0 {
			differ++
		} else {
			same++
		}
	}
	if differ < 200 || same < 200 {
		t.Errorf("%d differ and %d do not: one of them is hardly tested", differ, same)
	}
}

// crowded makes a policy for read whose rules have several conditions on an argument.
func crowded(r *rand.Rand) Policy {
	p := Policy{Default: Errno("EPERM")}
	for range 1 + r.IntN(4) {
		rule := Rule{Calls: []string{"read"}, Do: []Action{Allow, Errno("EPERM"), Errno("EACCES")}[r.IntN(3)], Why: "r"}
		for range 1 + r.IntN(4) {
			rule.When = append(rule.When, smallCond(r))
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

// smallCond is a condition that values of four bits decide.
func smallCond(r *rand.Rand) Cond {
	c := Cond{Arg: r.IntN(2), Op: Op(1 + r.IntN(7)), Value: uint64(r.IntN(16)), Width: 32 * (1 + r.IntN(2))}
	if c.Op == MaskedEq || r.IntN(2) == 0 {
		c.Op, c.Mask = MaskedEq, uint64(1+r.IntN(15))
		c.Value &= c.Mask
	}
	return c
}

// TestDiffIsNeverSilent: where the steps run out, two policies may differ.
func TestDiffIsNeverSilent(t *testing.T) {
	a, b := Policy{Default: Errno("EPERM")}, Policy{Default: Errno("EPERM")}
	for i := range 6 {
		rule := Rule{Calls: []string{"read"}, When: []Cond{is(i, 1), is((i+1)%6, 2)}, Do: Allow, Why: "x"}
		a.Rules, b.Rules = append(a.Rules, rule), slices.Insert(b.Rules, 0, rule)
	}
	if got := Diff(a, b); got != nil {
		t.Fatalf("got %+v, want the same rules in another order to be the same", got)
	}
	got, differs := change("read", a.decisions()["read"], b.decisions()["read"], 50)
	if !differs || !got.Unsure || !got.More || !got.Less || !strings.Contains(got.After, "may differ") {
		t.Errorf("after 50 steps: got %+v, %t", got, differs)
	}
}
