package seccomp

import (
	"math/rand/v2"
	"testing"
)

// interesting are the argument values at which comparisons turn.
func interesting(p Policy) []uint64 {
	values := []uint64{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1 << 63, 1<<64 - 1}
	for _, r := range p.Rules {
		for _, c := range r.When {
			for _, v := range []uint64{c.Value, c.Mask, c.Value | ^c.Mask} {
				values = append(values, v, v-1, v+1, v|1<<32, v|1<<63, v^1<<32, uint64(uint32(v)))
			}
		}
	}
	return values
}

func pick(r *rand.Rand, values []uint64) uint64 {
	if r.IntN(8) == 0 {
		return r.Uint64()
	}
	return values[r.IntN(len(values))]
}

// agree fails the test when the compiled policy and its rules disagree on a call.
func agree(t *testing.T, p Policy, prog Program, nr uint32, args [6]uint64) {
	t.Helper()
	got := prog.Eval(Data{NR: nr, Arch: prog.Arch.AuditArch(), Args: args})
	if want := p.Decide(prog.Arch, nr, args); got != want {
		t.Fatalf("%s call %d args %#x: program says %s, rules say %s\n%s\n%s", prog.Arch, nr, args, got, want, p, prog.Disassemble())
	}
}

func TestDefaultCompiledAgreesWithRules(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	p := Default()
	values := interesting(p)
	for _, a := range []Arch{AMD64, ARM64} {
		prog := compiled(t, p, a)
		for nr := uint32(0); nr < 600; nr++ {
			for range 30 {
				var args [6]uint64
				for i := range args {
					args[i] = pick(r, values)
				}
				agree(t, p, prog, nr, args)
			}
		}
		for _, nr := range []uint32{x32Bit, x32Bit + 1, x32Bit | 512, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
			agree(t, p, prog, nr, [6]uint64{})
		}
	}
}
