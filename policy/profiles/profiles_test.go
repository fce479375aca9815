package profiles_test

import (
	"math/rand/v2"
	"testing"

	"github.com/nucleus-container/nucleus/policy/profiles"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// TestNarrower: a profile allows nothing that the default policy refuses, for
// every call and for arguments of every rule.
func TestNarrower(t *testing.T) {
	def := seccomp.Default()
	values := []uint64{0, 1, 2, 3, 6, 10, 16, 17, 31, 35, 58, 0x241, 0x5412, 0x541c, 0x5423, 0x8000, 0x1000, 0x7e020000, 0x11, 1 << 32, ^uint64(0), 0xffffffff}
	r := rand.New(rand.NewPCG(3, 4))
	for _, name := range profiles.Names() {
		p, err := profiles.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Seccomp.Validate(); err != nil || p.About == "" || profiles.About(name) != p.About {
			t.Errorf("%s: %v, about %q", name, err, p.About)
		}
		allowed, allowedByDefault := 0, 0
		for _, arch := range []seccomp.Arch{seccomp.AMD64, seccomp.ARM64} {
			prog, err := p.Seccomp.Compile(arch)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			t.Logf("%s on %s: %d rules, %d instructions", name, arch, len(p.Seccomp.Rules), len(prog.Insns))
			for _, call := range arch.Names() {
				nr, _ := arch.Number(call)
				for range 300 {
					var args [6]uint64
					for i := range args {
						args[i] = values[r.IntN(len(values))]
					}
					got, want := p.Seccomp.Decide(arch, nr, args), def.Decide(arch, nr, args)
					if got.Runs() && !want.Runs() {
						t.Fatalf("%s: %s%x: %s, which the default policy answers with %s", name, call, args, got, want)
					}
					if in := prog.Eval(seccomp.Data{NR: nr, Arch: arch.AuditArch(), Args: args}); in != got {
						t.Fatalf("%s: %s%x: the program says %s, the rules %s", name, call, args, in, got)
					}
					if got.Runs() {
						allowed++
					}
					if want.Runs() {
						allowedByDefault++
					}
				}
			}
		}
		if same := allowed == allowedByDefault; same != (name == "default") {
			t.Errorf("%s allows %d samples, the default policy %d", name, allowed, allowedByDefault)
		}
	}
	if _, err := profiles.Get("nothing"); err == nil {
		t.Error("got a profile that there is not")
	}
}

// TestNoneWritesNothing: without a way to open a file for writing.
func TestNoneWritesNothing(t *testing.T) {
	p, err := profiles.Get("none")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		call string
		args [6]uint64
		want bool
	}{
		{"openat", [6]uint64{0, 0, 0o2000000}, true}, // O_CLOEXEC
		{"openat", [6]uint64{0, 0, 0o1}, false},
		{"openat", [6]uint64{0, 0, 0o2}, false},
		{"openat", [6]uint64{0, 0, 0o100}, false},
		{"openat", [6]uint64{0, 0, 1<<32 | 0o1}, false},
		{"openat", [6]uint64{0, 0, 0o20200000}, false}, // O_TMPFILE
		{"open", [6]uint64{0, 0o1}, false},
		{"openat2", [6]uint64{}, false},
		{"creat", [6]uint64{}, false},
		{"socket", [6]uint64{1, 1}, false},
		{"clone", [6]uint64{17}, false},
		{"fork", [6]uint64{}, false},
		{"unlink", [6]uint64{}, false},
		{"execve", [6]uint64{}, true},
	} {
		nr, _ := seccomp.AMD64.Number(tt.call)
		if got := p.Seccomp.Decide(seccomp.AMD64, nr, tt.args); got.Runs() != tt.want {
			t.Errorf("%s%x: got %s", tt.call, tt.args, got)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for b.Loop() {
		if _, err := profiles.Get("python"); err != nil {
			b.Fatal(err)
		}
	}
}
