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
