package seccomp

import (
	"math/rand/v2"
	"testing"
)

// TestObservedAllowsNothingMore compares the decisions of a policy with those of
// its observed forms: each either is the same or is left to the listener.
func TestObservedAllowsNothingMore(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, a := range []Arch{AMD64, ARM64} {
		for l := Refusals; l <= Everything; l++ {
			plain, seen := Default(), compiled(t, Default().Observed(l), a)
			notified := 0
			for range 60_000 {
				nr := rng.Uint32N(480)
				var args [6]uint64
				for i := range args {
					args[i] = words[rng.IntN(len(words))]
				}
				want := plain.Decide(a, nr, args)
				got := seen.Eval(Data{NR: nr, Arch: a.AuditArch(), Args: args})
				name, _ := a.Name(nr)
				switch {
				case got == UserNotify:
					notified++
					if want == KillProcess {
						t.Fatalf("%v, level %d: %s%v is left to the listener, want %s", a, l, name, args, want)
					}
				case name == "seccomp" && args[1]&secondListener != 0:
					if got != Errno("EBUSY") {
						t.Fatalf("%v, level %d: a second listener: got %s", a, l, got)
					}
				case got != want:
					t.Fatalf("%v, level %d: %s%v: got %s, want %s", a, l, name, args, got, want)
				}
			}
			if notified == 0 {
				t.Errorf("%v, level %d: nothing is seen", a, l)
			}
		}
	}
}

var words = []uint64{0, 1, 2, 3, 6, 8, 10, 16, 17, 31, 35, 0x5412, 0x541c, 0x1000, 0x8000, 0x20000, 0x7e020000, 0xffffffff, 1 << 32, 1<<32 | 0x5412, ^uint64(0)}

// TestStartedAllowsNothingMore: whatever a policy refuses to who starts a
// program, both filters together decide as the policy, or leave it to the listener.
func TestStartedAllowsNothingMore(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	plain := Default().With(
		Rule{Calls: []string{"clone", "kill", "seccomp"}, Do: Errno("EACCES"), Why: "a test"},
		Rule{Calls: []string{"ioctl"}, When: []Cond{is(1, 3)}, Do: Errno("ENOSYS"), Why: "a test"},
		Rule{Calls: []string{"sendmsg", "ioctl"}, Do: Errno("EPERM"), Why: "a test"})
	refused := []string{"clone", "kill", "seccomp", "ioctl", "sendmsg"}
	for l := Refusals; l <= Everything; l++ {
		first, then := plain.Started(l, refused)
		a, b := compiled(t, first, AMD64), compiled(t, then, AMD64)
		for range 60_000 {
			nr := rng.Uint32N(480)
			if rng.IntN(3) == 0 {
				nr, _ = AMD64.Number(refused[rng.IntN(len(refused))])
			}
			var args [6]uint64
			for i := range args {
				args[i] = words[rng.IntN(len(words))]
			}
			d := Data{NR: nr, Arch: AMD64.AuditArch(), Args: args}
			want, got := plain.Decide(AMD64, nr, args), Stricter(a.Eval(d), b.Eval(d))
			name, _ := AMD64.Name(nr)
			switch {
			case got == UserNotify && want != KillProcess, got == want:
			case name == "seccomp" && got == Errno("EBUSY"):
			default:
				t.Fatalf("level %d: %s%x: got %s, want %s", l, name, args, got, want)
			}
		}
	}
}

// TestObservedSeesRefusals: what is refused for good is seen, what has a fallback
// is answered at once, and what is allowed costs nothing.
func TestObservedSeesRefusals(t *testing.T) {
	for _, tc := range []struct {
		call  string
		level Level
		want  Action
	}{
		{"ptrace", Refusals, UserNotify}, {"mount", Refusals, UserNotify}, {"socket", Refusals, UserNotify},
		{"io_uring_setup", Refusals, Errno("ENOSYS")}, {"clone3", Refusals, Errno("ENOSYS")},
		{"openat", Refusals, Allow}, {"connect", Refusals, UserNotify},
		{"openat", Files, UserNotify}, {"newfstatat", Files, Allow}, {"read", Everything, Allow}, {"newfstatat", Everything, UserNotify},
	} {
		nr, _ := AMD64.Number(tc.call)
		if got := Default().Observed(tc.level).Decide(AMD64, nr, [6]uint64{17}); got != tc.want {
			t.Errorf("%s at level %d: got %s, want %s", tc.call, tc.level, got, tc.want)
		}
	}
}

// TestBasicIsAllowed: what every program makes is allowed by the default policy.
func TestBasicIsAllowed(t *testing.T) {
	for _, name := range Basic() {
		if nr, ok := AMD64.Number(name); ok && Default().Decide(AMD64, nr, [6]uint64{}) != Allow {
			t.Errorf("%s is refused", name)
		}
	}
}

func TestPass(t *testing.T) {
	p := Pass(AMD64)
	for _, tc := range []struct {
		d    Data
		want Action
	}{
		{Data{NR: 101, Arch: AMD64.AuditArch()}, Allow},
		{Data{NR: 999, Arch: AMD64.AuditArch()}, Allow},
		{Data{NR: 101, Arch: ARM64.AuditArch()}, KillProcess},
		{Data{NR: x32Bit, Arch: AMD64.AuditArch()}, KillProcess},
	} {
		if got := p.Eval(tc.d); got != tc.want {
			t.Errorf("%+v: got %s, want %s", tc.d, got, tc.want)
		}
	}
}

// TestObservedKills: a listener answers with errors alone, so what ends a program
// or sends it a signal stays with the filter.
func TestObservedKills(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	for range 200 {
		p := overlapping(r)
		for l := Refusals; l <= Everything; l++ {
			o := p.Observed(l)
			for range 100 {
				name := []string{"read", "socket", "ioctl", "clone", "openat", "close"}[r.IntN(6)]
				nr, _ := AMD64.Number(name)
				args := [6]uint64{uint64(r.IntN(4)), uint64(r.IntN(4))}
				want, got := p.Decide(AMD64, nr, args), o.Decide(AMD64, nr, args)
				if _, errno := want.Errno(); errno && got.Runs() && got != UserNotify || !errno && !want.Runs() && got != want {
					t.Fatalf("%s%v at level %d: %s is %s to a sandbox that is watched\n%s", name, args, l, want, got, p)
				}
			}
		}
	}
}
