package files

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	moby "github.com/moby/profiles/seccomp"

	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/profiles"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// This file holds compiled filters against two readers that share no code with
// the compiler: a machine for classic BPF that executes the bytes the kernel
// gets, and a reading of OCI JSON that asks its groups directly.

// call is what a filter is asked.
type call struct {
	arch, nr uint32
	args     [6]uint64
}

// machine executes classic BPF as linux/filter.h describes it and returns the
// value of the return instruction. It knows every opcode that seccomp accepts of
// loads, arithmetic with constants and jumps.
func machine(code []byte, c call) (uint32, error) {
	data := binary.LittleEndian.AppendUint32(nil, c.nr)
	data = binary.LittleEndian.AppendUint32(data, c.arch)
	data = binary.LittleEndian.AppendUint64(data, 0x7fff00001234)
	for _, a := range c.args {
		data = binary.LittleEndian.AppendUint64(data, a)
	}
	var a uint32
	for pc := 0; ; pc++ {
		if pc < 0 || pc*8+8 > len(code) {
			return 0, fmt.Errorf("the program runs off its end at %d", pc)
		}
		in := code[pc*8:]
		op, jt, jf, k := binary.LittleEndian.Uint16(in), int(in[2]), int(in[3]), binary.LittleEndian.Uint32(in[4:])
		switch class := op & 7; class {
		case 0: // BPF_LD, a word at a fixed place
			if op != 0x20 || k%4 != 0 || k > 60 {
				return 0, fmt.Errorf("load %#x at %d", op, k)
			}
			a = binary.LittleEndian.Uint32(data[k:])
		case 4: // BPF_ALU
			switch op {
			case 0x54:
				a &= k
			case 0x44:
				a |= k
			default:
				return 0, fmt.Errorf("arithmetic %#x", op)
			}
		case 5: // BPF_JMP
			if op == 5 {
				pc += int(k)
				continue
			}
			taken, ok := map[uint16]bool{0x15: a == k, 0x25: a > k, 0x35: a >= k, 0x45: a&k != 0}[op]
			if !ok {
				return 0, fmt.Errorf("jump %#x", op)
			}
			if taken {
				pc += jt
			} else {
				pc += jf
			}
		case 6: // BPF_RET
			return k, nil
		default:
			return 0, fmt.Errorf("class %d", class)
		}
	}
}

// value is what a filter returns for an action, from seccomp(2).
func value(t testing.TB, a seccomp.Action) uint32 {
	t.Helper()
	known := map[seccomp.Action]uint32{
		seccomp.Allow: 0x7fff0000, seccomp.Log: 0x7ffc0000, seccomp.Trap: 0x00030000, seccomp.KillThread: 0, seccomp.KillProcess: 0x80000000,
	}
	if v, ok := known[a]; ok {
		return v
	}
	no, ok := a.Errno()
	if !ok {
		t.Fatalf("no value for %s", a)
	}
	return 0x00050000 | uint32(no)
}

// reading is a profile as encoding/json gives it, without our reader.
type reading struct {
	DefaultAction   string
	DefaultErrnoRet *uint16
	Syscalls        []struct {
		Name     string
		Names    []string
		Action   string
		ErrnoRet *uint16
		Args     []struct {
			Index    int
			Value    uint64
			ValueTwo uint64
			Op       string
		}
		Includes, Excludes struct {
			Arches, Caps []string
			MinKernel    string
		}
	}
}

// ask answers a call as the text of the profile says, for a machine of ours with
// a new kernel.
func (r *reading) ask(t testing.TB, arch seccomp.Arch, have []string, c call) uint32 {
	if c.arch != arch.AuditArch() || arch == seccomp.AMD64 && c.nr&0x40000000 != 0 && c.nr != 0xffffffff {
		return 0x80000000
	}
	ret := func(action string, errno *uint16) uint32 {
		no := uint16(1)
		if errno != nil {
			no = *errno
		}
		v, ok := map[string]uint32{"SCMP_ACT_ALLOW": 0x7fff0000, "SCMP_ACT_LOG": 0x7ffc0000, "SCMP_ACT_TRAP": 0x30000, "SCMP_ACT_KILL": 0,
			"SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_ERRNO": 0x50000 | uint32(no)}[action]
		if !ok {
			t.Fatalf("action %q", action)
		}
		return v
	}
	def := ret(r.DefaultAction, r.DefaultErrnoRet)
	name, known := arch.Name(c.nr)
	if !known {
		if strings.HasPrefix(r.DefaultAction, "SCMP_ACT_KILL") || r.DefaultAction == "SCMP_ACT_TRAP" {
			return def
		}
		return 0x50000 | 38
	}
	for _, g := range r.Syscalls {
		in, ex := g.Includes, g.Excludes
		lacks := slices.ContainsFunc(in.Caps, func(c string) bool { return !slices.Contains(have, c) })
		has := slices.ContainsFunc(ex.Caps, func(c string) bool { return slices.Contains(have, c) })
		if lacks || has || ex.MinKernel != "" || slices.Contains(ex.Arches, arch.String()) || len(in.Arches) > 0 && !slices.Contains(in.Arches, arch.String()) {
			continue
		}
		if g.Name != name && !slices.Contains(g.Names, name) {
			continue
		}
		holds := true
		for _, q := range g.Args {
			v := c.args[q.Index]
			holds = holds && map[string]bool{
				"SCMP_CMP_EQ": v == q.Value, "SCMP_CMP_NE": v != q.Value, "SCMP_CMP_LT": v < q.Value, "SCMP_CMP_LE": v <= q.Value,
				"SCMP_CMP_GT": v > q.Value, "SCMP_CMP_GE": v >= q.Value, "SCMP_CMP_MASKED_EQ": v&q.Value == q.ValueTwo,
			}[q.Op]
		}
		if holds {
			return ret(g.Action, g.ErrnoRet)
		}
	}
	return def
}

// subject is a policy with the values around which its arguments are chosen.
type subject struct {
	name   string
	arch   seccomp.Arch
	policy seccomp.Policy
	code   []byte
	text   *reading // of an OCI profile
	have   []string
	values []uint64
	judged []uint32 // numbers of calls whose arguments count
}

func newSubject(t testing.TB, name string, arch seccomp.Arch, p seccomp.Policy) *subject {
	t.Helper()
	prog, err := p.Compile(arch)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	s := &subject{name: name + " on " + arch.String(), arch: arch, policy: p, code: prog.Bytes(), values: []uint64{0, 1, ^uint64(0), 1 << 32}}
	for _, r := range p.Rules {
		for _, name := range r.Calls {
			if nr, ok := arch.Number(name); ok && len(r.When) > 0 && !slices.Contains(s.judged, nr) {
				s.judged = append(s.judged, nr)
			}
		}
		for _, c := range r.When {
			s.values = append(s.values, c.Value, c.Value+1, c.Value-1, c.Value|1<<32, c.Value|^c.Mask, c.Mask, c.Value<<32)
		}
	}
	return s
}

// ociSubject reads a profile both ways.
func ociSubject(t testing.TB, name string, arch seccomp.Arch, data []byte, have ...string) *subject {
	t.Helper()
	set, err := caps.Parse(strings.Join(have, ","))
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParseSeccomp(name, data, Target{Arch: arch, Kernel: "6.18.0", Caps: set})
	if err != nil {
		t.Fatal(err)
	}
	s := newSubject(t, name, arch, *p)
	s.text, s.have = new(reading), have
	if err := json.Unmarshal(data, s.text); err != nil {
		t.Fatal(err)
	}
	return s
}

// random chooses a call: mostly one that has a name, with arguments near what
// conditions compare with.
func (s *subject) random(r *rand.Rand) call {
	c := call{arch: s.arch.AuditArch(), nr: uint32(r.IntN(480))}
	if len(s.judged) > 0 && r.IntN(2) == 0 {
		c.nr = s.judged[r.IntN(len(s.judged))]
	}
	switch r.IntN(40) {
	case 0:
		c.arch = []uint32{0x40000003, 0xc000003e, 0xc00000b7, 0x40000028, 0}[r.IntN(5)]
	case 1:
		c.nr |= 0x40000000
	case 2:
		c.nr = []uint32{0xffffffff, r.Uint32(), 0x3fffffff, 512, 1 << 31}[r.IntN(5)]
	}
	for i := range c.args {
		switch r.IntN(4) {
		case 0:
			c.args[i] = r.Uint64()
		case 1:
			c.args[i] = uint64(r.IntN(64))
		default:
			c.args[i] = s.values[r.IntN(len(s.values))]
		}
	}
	return c
}

// check asks everyone about one call.
func (s *subject) check(t testing.TB, c call) {
	t.Helper()
	if err := s.disagree(t, c); err != nil {
		t.Fatal(err)
	}
}

func (s *subject) disagree(t testing.TB, c call) error {
	got, err := machine(s.code, c)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	decided := seccomp.KillProcess // every foreign architecture, before any rule
	if c.arch == s.arch.AuditArch() {
		decided = s.policy.Decide(s.arch, c.nr, c.args)
	}
	if want := value(t, decided); got != want {
		return fmt.Errorf("%s: %x: the program returns %#x, its rules say %s (%#x)", s.name, c, got, decided, want)
	}
	if s.text == nil {
		return nil
	}
	if want := s.text.ask(t, s.arch, s.have, c); got != want {
		return fmt.Errorf("%s: %x: the program returns %#x, the profile says %#x", s.name, c, got, want)
	}
	return nil
}

// subjects are our own policies and those of moby, for two architectures and
// several sets of capabilities.
func subjects(t testing.TB) (out []*subject) {
	t.Helper()
	docker, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../internal/cli/testdata/policy/policy.toml")
	if err != nil {
		t.Fatal(err)
	}
	own, err := ParsePolicy("policy.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []seccomp.Arch{seccomp.AMD64, seccomp.ARM64} {
		for _, name := range profiles.Names() {
			p, err := profiles.Get(name)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, newSubject(t, name, arch, p.Seccomp))
		}
		out = append(out, newSubject(t, "policy.toml", arch, *own.Seccomp))
		out = append(out, ociSubject(t, "moby", arch, docker))
		out = append(out, ociSubject(t, "moby with CAP_SYS_ADMIN", arch, docker, "CAP_SYS_ADMIN", "CAP_BPF"))
		out = append(out, ociSubject(t, "moby with the rest", arch, docker, "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_SYS_TIME", "CAP_SYS_NICE", "CAP_DAC_READ_SEARCH"))
		r := rand.New(rand.NewPCG(7, uint64(arch)))
		for i := range 6 {
			out = append(out, ociSubject(t, fmt.Sprint("random ", i), arch, randomProfile(r)))
		}
	}
	return out
}

// randomProfile writes a profile that its reader accepts: the groups of one call
// have one action.
func randomProfile(r *rand.Rand) []byte {
	ops := []string{"SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"}
	actions := []string{"SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP", "SCMP_ACT_LOG", "SCMP_ACT_ERRNO"}
	type m = map[string]any
	var groups []m
	for _, name := range []string{"read", "write", "socket", "ioctl", "clone", "prctl", "openat", "mmap"} {
		action := actions[r.IntN(len(actions))]
		for range 1 + r.IntN(4) {
			g := m{"names": []string{name}, "action": action}
			if action == "SCMP_ACT_ERRNO" {
				g["errnoRet"] = 13
			}
			var args []m
			for _, i := range r.Perm(6)[:r.IntN(4)] {
				v := []uint64{r.Uint64(), uint64(r.IntN(300)), 1 << 32, ^uint64(0)}[r.IntN(4)]
				a := m{"index": i, "value": v, "op": ops[r.IntN(len(ops))]}
				if a["op"] == "SCMP_CMP_MASKED_EQ" {
					a["value"] = v | 1
					a["valueTwo"] = r.Uint64() & (v | 1)
				}
				args = append(args, a)
			}
			g["args"] = args
			groups = append(groups, g)
		}
	}
	b, err := json.Marshal(m{"defaultAction": actions[r.IntN(len(actions))], "syscalls": groups})
	if err != nil {
		panic(err)
	}
	return b
}

// proofEnv asks for a number of calls instead of a few seconds' worth.
const proofEnv = "NUCLEUS_POLICY_PROOF"

// TestProgramsAgree asks compiled filters, their rules and the text that they
// were read from about random calls: 10 million with NUCLEUS_POLICY_PROOF=10000000.
func TestProgramsAgree(t *testing.T) {
	all := subjects(t)
	count, limit := 1<<62, time.Now().Add(3*time.Second)
	if text := os.Getenv(proofEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		count, limit = n, time.Now().Add(24*time.Hour)
	}
	began, done := time.Now(), 0
	r := rand.New(rand.NewPCG(uint64(count), 8))
	for done < count && time.Now().Before(limit) {
		s := all[r.IntN(len(all))]
		for range min(1000, count-done) {
			s.check(t, s.random(r))
			done++
		}
	}
	t.Logf("%d calls to %d filters agree, in %v", done, len(all), time.Since(began).Round(time.Millisecond))
	if done < 10_000 && done < count {
		t.Errorf("only %d calls in this time", done)
	}
}

// TestProofCanFail changes each constant and each jump of a compiled profile:
// almost every change must be noticed within some thousand calls.
func TestProofCanFail(t *testing.T) {
	docker, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	s := ociSubject(t, "moby", seccomp.AMD64, docker)
	r := rand.New(rand.NewPCG(11, 12))
	intact, changed, noticed := slices.Clone(s.code), 0, 0
	for at := 0; at < len(intact); at += 8 {
		s.code = slices.Clone(intact)
		if in := binary.LittleEndian.Uint16(intact[at:]); in&7 == 5 {
			s.code[at+2], s.code[at+3] = s.code[at+3], s.code[at+2] // the other way round
		} else {
			s.code[at+4] ^= 4
		}
		changed++
		for range 20_000 {
			if s.disagree(t, s.random(r)) != nil {
				noticed++
				break
			}
		}
	}
	t.Logf("%d of %d changes were noticed", noticed, changed)
	if noticed < changed*95/100 {
		t.Errorf("%d of %d changes were noticed", noticed, changed)
	}
}

// FuzzParseSeccomp reads whatever comes: it is an error, or a filter that agrees
// with its rules.
func FuzzParseSeccomp(f *testing.F) {
	docker, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(docker, uint64(1))
	for i := range uint64(4) {
		f.Add(randomProfile(rand.New(rand.NewPCG(i, 9))), i)
	}
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"read","action":"SCMP_ACT_ERRNO","errnoRet":0}]}`), uint64(2))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		p, err := ParseSeccomp("f", data, Target{Arch: seccomp.AMD64, Kernel: "6.1"})
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q is more than one line", err)
			}
			return
		}
		prog, err := p.Compile(seccomp.AMD64)
		if err != nil {
			return // longer than the kernel takes
		}
		if prog.Arch != seccomp.AMD64 {
			t.Fatal("another architecture")
		}
		s := newSubject(t, "fuzzed", seccomp.AMD64, *p)
		r := rand.New(rand.NewPCG(seed, 10))
		for range 50 {
			s.check(t, s.random(r))
		}
	})
}

// FuzzParseToml reads whatever comes as each kind of TOML.
func FuzzParseToml(f *testing.F) {
	for _, name := range []string{"policy.toml", "caps.toml", "landlock.toml"} {
		data, err := os.ReadFile("../../internal/cli/testdata/policy/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseCaps("f", data); err == nil && c.Validate() != nil {
			t.Errorf("an invalid policy was read: %v", c)
		}
		if c, err := ParseLandlock("f", data); err == nil && c.Validate() != nil {
			t.Errorf("an invalid policy was read: %v", c)
		}
		p, err := ParsePolicy("f", data)
		if err == nil && p.Seccomp != nil && p.Seccomp.Validate() != nil {
			t.Errorf("an invalid policy was read: %v", p.Seccomp)
		}
	})
}
