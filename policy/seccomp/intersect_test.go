package seccomp

import (
	"math/rand/v2"
	"testing"
)

// overlapping makes a policy of a few calls with conditions that overlap.
func overlapping(r *rand.Rand) Policy {
	actions := []Action{Allow, Allow, Errno("EPERM"), Errno("ENOSYS"), KillProcess, KillThread, Trap, Log}
	pick := func() Action { return actions[r.IntN(len(actions))] }
	p := Policy{Default: pick(), Unknown: pick()}
	names := []string{"read", "socket", "ioctl", "clone", "openat"}
	for range r.IntN(8) {
		rule := Rule{Do: pick(), Why: "r", Calls: []string{names[r.IntN(len(names))], names[r.IntN(len(names))]}}
		for range r.IntN(3) {
			c := Cond{Arg: r.IntN(2), Op: Op(1 + r.IntN(7)), Value: uint64(r.IntN(4)), Width: 32 * (1 + r.IntN(2))}
			if c.Op == MaskedEq {
				c.Mask, c.Value = 3, c.Value&3
			}
			if r.IntN(4) == 0 && c.Width == 64 && c.Op != MaskedEq {
				c.Value |= uint64(r.IntN(2)) << 32
			}
			rule.When = append(rule.When, c)
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

// TestIntersect: the answer to any call is the strictest of both answers, from
// the rules and from the program.
func TestIntersect(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		p, q := overlapping(r), overlapping(r)
		both := Intersect(p, q)
		if err := both.Validate(); err != nil {
			t.Fatalf("%v\n%s\n%s", err, p, q)
		}
		prog, err := both.Compile(AMD64)
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			name := []string{"read", "socket", "ioctl", "clone", "openat", "close"}[r.IntN(6)]
			nr, _ := AMD64.Number(name)
			if r.IntN(10) == 0 {
				nr = 1000
			}
			args := [6]uint64{uint64(r.IntN(4)), uint64(r.IntN(4)) | uint64(r.IntN(2))<<32}
			want := Stricter(p.Decide(AMD64, nr, args), q.Decide(AMD64, nr, args))
			if got := both.Decide(AMD64, nr, args); got != want {
				t.Fatalf("%s%v: got %s, want %s\n%s\nand\n%s\nis\n%s", name, args, got, want, p, q, both)
			}
			if got := prog.Eval(Data{NR: nr, Arch: AMD64.AuditArch(), Args: args}); got != want {
				t.Fatalf("%s%v: the program says %s, want %s", name, args, got, want)
			}
		}
	}
	if got := Intersect(Default(), Default()); len(got.Rules) > 2*len(Default().Rules) {
		t.Errorf("the default with itself has %d rules", len(got.Rules))
	}
}

func TestKnownElsewhere(t *testing.T) {
	for name, want := range map[string]bool{"clock_gettime64": true, "s390_sthyi": true, "read": false, "raed": false, "": false, "clone ": false} {
		if got := KnownElsewhere(name); got != want {
			t.Errorf("%q: got %t, want %t", name, got, want)
		}
	}
}
