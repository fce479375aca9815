package seccomp

import (
	"math/rand/v2"
	"slices"
	"strings"
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

// FuzzCompile holds random policies, compiled, against their rules.
func FuzzCompile(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, uint8(seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, size uint8) {
		r := rand.New(rand.NewPCG(seed, uint64(size)))
		p := randomPolicy(r, int(size)%60)
		a := []Arch{AMD64, ARM64}[r.IntN(2)]
		prog := compiled(t, p, a)
		checkProgram(t, prog)
		if again := compiled(t, p, a); !slices.Equal(again.Insns, prog.Insns) {
			t.Fatal("compiled twice, two programs")
		}
		values := interesting(p)
		for range 200 {
			var args [6]uint64
			for i := range args {
				args[i] = pick(r, values)
			}
			nr := uint32(r.IntN(480))
			if len(p.Rules) > 0 && r.IntN(4) > 0 {
				calls := p.Rules[r.IntN(len(p.Rules))].Calls
				if n, ok := a.Number(calls[r.IntN(len(calls))]); ok {
					nr = n
				}
			}
			agree(t, p, prog, nr, args)
		}
		foreign := prog.Eval(Data{NR: 0, Arch: 0x40000003})
		if foreign != KillProcess {
			t.Fatalf("i386: got %s, want %s", foreign, KillProcess)
		}
	})
}

// randomPolicy uses few calls and few values, so that rules collide.
func randomPolicy(r *rand.Rand, rules int) Policy {
	actions := []Action{Allow, Log, UserNotify, KillProcess, Errno("EPERM"), Errno("ENOSYS"), Errno("EHWPOISON")}
	action := func() Action { return actions[r.IntN(len(actions))] }
	p := Policy{Default: action(), Unknown: action()}
	all := append(AMD64.Names(), ARM64.Names()...)
	few := make([]string, 1+r.IntN(12))
	for i := range few {
		few[i] = all[r.IntN(len(all))]
	}
	conds := make([]Cond, 1+r.IntN(6))
	for i := range conds {
		conds[i] = randomCond(r)
	}
	for range rules {
		rule := Rule{Do: action(), Why: "random"}
		for range 1 + r.IntN(5) {
			rule.Calls = append(rule.Calls, few[r.IntN(len(few))])
		}
		for range r.IntN(4) {
			c := conds[r.IntN(len(conds))]
			if r.IntN(3) == 0 {
				c = randomCond(r)
			}
			rule.When = append(rule.When, c)
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

func randomCond(r *rand.Rand) Cond {
	values := []uint64{0, 1, 2, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 5 << 32, 1 << 63, 1<<64 - 1}
	c := Cond{Arg: r.IntN(6), Op: Op(1 + r.IntN(7)), Width: 32 * (1 + r.IntN(2)), Value: values[r.IntN(len(values))]}
	if c.Op == MaskedEq {
		c.Mask = values[r.IntN(len(values))] | uint64(1)<<r.IntN(32)
		c.Value &= c.Mask
		if r.IntN(2) == 0 {
			c.Value = 0
		}
	}
	if c.Width == 32 {
		c.Value = uint64(uint32(c.Value))
		c.Mask = uint64(uint32(c.Mask))
	}
	return c
}

// checkProgram does what the kernel's check does before it takes a program: known
// opcodes, aligned loads inside the data, jumps inside the program, a return at
// every end. And no instruction is dead.
func checkProgram(t *testing.T, p Program) {
	t.Helper()
	if len(p.Insns) == 0 || len(p.Insns) > MaxInsns {
		t.Fatalf("got %d instructions, want 1 to %d", len(p.Insns), MaxInsns)
	}
	reached := make([]bool, len(p.Insns))
	reached[0] = true
	for i, in := range p.Insns {
		if !reached[i] {
			t.Fatalf("instruction %d is dead", i)
		}
		switch in.Code {
		case opLoad:
			if _, ok := (Data{}).word(in.K); !ok {
				t.Fatalf("instruction %d loads at %d", i, in.K)
			}
		case opAnd, opJump, opJeq, opJgt, opJge, opJset, opRet:
		default:
			t.Fatalf("instruction %d has opcode %#x", i, in.Code)
		}
		for _, target := range in.targets(i) {
			if target >= len(p.Insns) {
				t.Fatalf("instruction %d leads out of the program", i)
			}
			reached[target] = true
		}
	}
}

// A policy that treats every call differently needs jumps longer than 255.
func TestCompileLongJumps(t *testing.T) {
	for _, a := range []Arch{AMD64, ARM64} {
		p := Policy{Default: Allow}
		for i, name := range a.Names() {
			p.Rules = append(p.Rules, Rule{
				Calls: []string{name},
				When:  []Cond{{Arg: i % 6, Op: Gt, Value: uint64(i) << 20, Width: 64}},
				Do:    Errno("EPERM"), Why: "each its own",
			})
		}
		prog := compiled(t, p, a)
		checkProgram(t, prog)
		jumps := 0
		for _, in := range prog.Insns {
			if in.Code == opJump {
				jumps++
			}
		}
		if jumps == 0 {
			t.Errorf("%s: no long jump in %d instructions, so nothing is tested", a, len(prog.Insns))
		}
		for _, name := range a.Names() {
			nr, _ := a.Number(name)
			for i := range 500 {
				v := uint64(i) << 20
				agree(t, p, prog, nr, [6]uint64{v, v + 1, v - 1, v, v + 1, v - 1})
			}
		}
	}
}

func TestCompileTooLong(t *testing.T) {
	p := Policy{Default: Allow}
	for i := range uint64(2500) {
		p.Rules = append(p.Rules, Rule{
			Calls: []string{"read"}, When: []Cond{{Arg: int(i % 6), Op: Eq, Value: i<<32 | i, Width: 64}},
			Do: Errno("EPERM"), Why: "many",
		})
	}
	if _, err := p.Compile(AMD64); err == nil || !strings.Contains(err.Error(), "4096") {
		t.Errorf("got %v, want an error that names the limit", err)
	}
}

func TestValidate(t *testing.T) {
	ok := Rule{Calls: []string{"read"}, Do: Allow, Why: "w"}
	with := func(change func(*Rule)) Policy {
		r := ok
		change(&r)
		return Policy{Default: Allow, Rules: []Rule{r}}
	}
	cond := func(c Cond) Policy { return with(func(r *Rule) { r.When = []Cond{c} }) }
	for _, tt := range []struct {
		name string
		p    Policy
		want string // "" is valid
	}{
		{"default", Default(), ""},
		{"zero", Policy{}, `no action ""`},
		{"no such action", Policy{Default: "maybe"}, `"maybe"`},
		{"no such errno", Policy{Default: Errno("EWHATEVER")}, `"EWHATEVER"`},
		{"no such unknown", Policy{Default: Allow, Unknown: "x"}, "unknown:"},
		{"no why", with(func(r *Rule) { r.Why = "" }), "Why"},
		{"no calls", with(func(r *Rule) { r.Calls = nil }), "no calls"},
		{"misspelt call", with(func(r *Rule) { r.Calls = []string{"raed"} }), `"raed"`},
		{"upper case call", with(func(r *Rule) { r.Calls = []string{"READ"} }), `"READ"`},
		{"call of amd64 only", with(func(r *Rule) { r.Calls = []string{"open"} }), ""},
		{"no do", with(func(r *Rule) { r.Do = "" }), "no action"},
		{"arg 6", cond(Cond{Arg: 6, Op: Eq, Width: 32}), "0 to 5"},
		{"arg -1", cond(Cond{Arg: -1, Op: Eq, Width: 32}), "0 to 5"},
		{"no width", cond(Cond{Op: Eq}), "width"},
		{"no op", cond(Cond{Width: 32}), "comparison"},
		{"wide value", cond(Cond{Op: Eq, Value: 1 << 32, Width: 32}), "exceeds 32 bits"},
		{"wide mask", cond(Cond{Op: MaskedEq, Mask: 1 << 32, Width: 32}), "exceeds 32 bits"},
		{"mask of nothing", cond(Cond{Op: MaskedEq, Width: 32}), "without a mask"},
		{"mask not used", cond(Cond{Op: Eq, Mask: 1, Width: 32}), "MaskedEq only"},
		{"value outside mask", cond(Cond{Op: MaskedEq, Mask: 2, Value: 1, Width: 32}), "never holds"},
	} {
		err := tt.p.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		if _, compileErr := tt.p.Compile(ARM64); (compileErr == nil) != (err == nil) {
			t.Errorf("%s: Compile says %v, Validate %v", tt.name, compileErr, err)
		}
	}
	if _, err := Default().Compile(0); err == nil {
		t.Error("compiled for no architecture")
	}
}

func TestWithTakesPrecedenceAndCopies(t *testing.T) {
	base := Default()
	before := base.String()
	debug := base.With(Rule{Calls: []string{"ptrace"}, Do: Allow, Why: "a debugger"})
	nr, _ := AMD64.Number("ptrace")
	if got := debug.Decide(AMD64, nr, [6]uint64{}); got != Allow {
		t.Errorf("with the rule: got %s, want %s", got, Allow)
	}
	if got := base.Decide(AMD64, nr, [6]uint64{}); got != Errno("EPERM") || base.String() != before {
		t.Errorf("the original changed: got %s", got)
	}
}

// constant runs p as the kernel does at load time (5.11 and later) to find the
// calls that are always allowed: it knows the number and nothing else.
func constant(p Program, nr uint32) (Action, bool) {
	var acc uint32
	for pc := 0; ; {
		in := p.Insns[pc]
		next := in.targets(pc)
		switch in.Code {
		case opRet:
			return decode(in.K), true
		case opLoad:
			if in.K >= 8 {
				return "", false
			}
			acc, _ = Data{NR: nr, Arch: p.Arch.AuditArch()}.word(in.K)
		case opAnd:
			acc &= in.K
		}
		pc = next[len(next)-1]
		if holds, ok := in.test(acc); ok && holds {
			pc = next[0]
		}
	}
}

func TestCommonCallsAreConstant(t *testing.T) {
	for _, a := range []Arch{AMD64, ARM64} {
		p := DefaultProgram(a)
		for _, name := range names("read write openat close fstat mmap munmap futex execve epoll_pwait clock_gettime sendto recvfrom exit_group") {
			nr, _ := a.Number(name)
			if got, ok := constant(p, nr); !ok || got != Allow {
				t.Errorf("%s %s: got %q constant %t, want allow without reading an argument", a, name, got, ok)
			}
		}
		nr, _ := a.Number("socket")
		if _, ok := constant(p, nr); ok {
			t.Errorf("%s: socket is decided without its arguments", a)
		}
	}
}
