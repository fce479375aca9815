package logger

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

func good() Config {
	return Config{Out: 3, Err: 4, Files: []int{5, 7, 6}, Size: 1 << 20, First: 2, Used: 77, Turn: 65535}
}

func TestImageIsWhatTheKernelWants(t *testing.T) {
	img := Image(good())
	f, err := elf.NewFile(bytes.NewReader(img))
	if err != nil {
		t.Fatal(err)
	}
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if f.Type != elf.ET_EXEC || f.Machine != machine || f.Class != elf.ELFCLASS64 || f.ByteOrder != binary.LittleEndian {
		t.Errorf("got %v %v %v %v, want a little-endian 64-bit executable for %v", f.Type, f.Machine, f.Class, f.ByteOrder, machine)
	}
	if len(f.Progs) != 2 || f.Progs[0].Type != elf.PT_LOAD || f.Progs[1].Type != elf.PT_GNU_STACK {
		t.Fatalf("got %d segments, want one that is loaded and one for the stack", len(f.Progs))
	}
	load, stack := f.Progs[0], f.Progs[1]
	if load.Flags != elf.PF_R|elf.PF_X || stack.Flags != elf.PF_R|elf.PF_W {
		t.Errorf("got %v and a stack %v, want nothing both writable and executable", load.Flags, stack.Flags)
	}
	if load.Off != 0 || load.Vaddr != loadAddr || load.Filesz != uint64(len(img)) || load.Memsz != load.Filesz || f.Entry != loadAddr+header {
		t.Errorf("got %+v and entry %#x, want the whole file of %d bytes at %#x", load.ProgHeader, f.Entry, len(img), loadAddr)
	}
	code := Code()
	t.Logf("%s: %d bytes of code, an image of %d", runtime.GOARCH, len(code), len(img))
	if len(img) > pageSize || len(code) == 0 || header+len(code) > dataAt {
		t.Errorf("%d bytes of code and an image of %d do not fit", len(code), len(img))
	}
	if !bytes.Equal(img[header:header+len(code)], code) {
		t.Error("the code is not behind the headers")
	}
	if rest := bytes.Trim(img[header+len(code):dataAt], "\x00"); len(rest) != 0 {
		t.Errorf("%d bytes after the code are not zero", len(rest))
	}
}

func TestConfigurationIsWhatTheProgramReads(t *testing.T) {
	le, data := binary.LittleEndian, Image(good())[dataAt:]
	insns := filter()
	if n, at := le.Uint16(data), le.Uint64(data[8:]); int(n) != len(insns) || at != loadAddr+filterAt {
		t.Errorf("filter: %d instructions at %#x, want %d at %#x", n, at, len(insns), loadAddr+filterAt)
	}
	got := []uint64{le.Uint64(data[24:]), le.Uint64(data[32:])}
	for i := range 4 {
		got = append(got, uint64(le.Uint32(data[40+4*i:])))
	}
	if want := []uint64{1 << 20, 77, 64 << 10, 3, 2, 65535}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	var fds []uint32
	for _, at := range []int{16, 20, 72, 76, 80, 84} {
		fds = append(fds, le.Uint32(data[at:]))
	}
	if want := []uint32{3, 4, 5, 7, 6, 1<<32 - 1}; !slices.Equal(fds, want) {
		t.Errorf("got descriptors %v, want %v", fds, want)
	}
	if got, _, _ := bytes.Cut(data[56:72], []byte{0}); string(got) != comm {
		t.Errorf("got name %q, want %q", got, comm)
	}
	for i, want := range insns {
		b := data[filterAt-dataAt+8*i:]
		if got := (seccomp.Insn{Code: le.Uint16(b), JT: b[2], JF: b[3], K: le.Uint32(b[4:])}); got != want {
			t.Errorf("instruction %d: got %v, want %v", i, got, want)
		}
	}
	small := good()
	small.Size = MinSize
	if chunk := le.Uint32(Image(small)[dataAt+40:]); chunk != MinSize-40 {
		t.Errorf("files of %d bytes: reads %d at once, want %d", MinSize, chunk, MinSize-40)
	}
}

func TestBadConfigurations(t *testing.T) {
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"zero":           func(c *Config) { *c = Config{} },
		"no files":       func(c *Config) { c.Files = nil },
		"too many files": func(c *Config) { c.Files = slices.Repeat([]int{9}, MaxFiles+1) },
		"small files":    func(c *Config) { c.Size = MinSize - 1 },
		"no such file":   func(c *Config) { c.First = 3 },
		"negative file":  func(c *Config) { c.First = -1 },
		"twice":          func(c *Config) { c.Files[1] = c.Err },
		"negative":       func(c *Config) { c.Out = -1 },
	} {
		c := good()
		change(&c)
		if c.Check() == nil || Image(c) != nil {
			t.Errorf("%s: got an image for %+v, want none", name, c)
		}
	}
}

// TestFilterAllowsTheCallsOnly asks the filter about every number.
func TestFilterAllowsTheCallsOnly(t *testing.T) {
	for nr := range uint32(2000) {
		for _, id := range []uint32{arch.AuditArch(), 0x40000003} { // the latter: 32-bit x86
			name, known := arch.Name(nr)
			want := seccomp.KillProcess
			if known && slices.Contains(calls(), name) && id == arch.AuditArch() {
				want = seccomp.Allow
			}
			got := seccomp.Program{Arch: arch, Insns: filter()}.Eval(seccomp.Data{NR: nr, Arch: id})
			if got != want {
				t.Errorf("call %d (%s) of architecture %#x: got %v, want %v", nr, name, id, got, want)
			}
		}
	}
}

// TestArchitecturesAgree disassembles the program for both architectures: the
// same system calls in the same order, and the same constants in their arguments.
func TestArchitecturesAgree(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Toolchain)
	amd, arm := callsOf(t, "amd64", nil), callsOf(t, "arm64", nil)
	wrong, constants := differences(amd, arm)
	for _, w := range wrong {
		t.Error(w)
	}
	var names, after []string
	for _, c := range amd {
		names = append(names, c.name)
	}
	t.Logf("%d calls with %d constants alike: %s", len(amd), constants, strings.Join(names, " "))
	if len(amd) != 16 || constants < 29 {
		t.Errorf("%d calls and %d constants were compared: the disassembly was not understood", len(amd), constants)
	}
	for _, name := range names[slices.Index(names, "seccomp")+1:] {
		if !slices.Contains(after, name) {
			after = append(after, name)
		}
	}
	slices.Sort(after)
	if want := slices.Sorted(slices.Values(calls())); !slices.Equal(after, want) {
		t.Errorf("under its filter the program calls %q, and the filter allows %q", after, want)
	}
}

// TestDifferencesAreFound is the control of the test above.
func TestDifferencesAreFound(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Toolchain)
	reference := callsOf(t, "amd64", nil)
	for _, tc := range []struct{ name, old, new, want string }{
		{"another call", "MOVD $70, R8 ", "MOVD $68, R8 ", "pwritev"},
		{"another constant", "MOVD $0x10000, R1", "MOVD $0x20000, R1", "madvise"},
		{"a call less", "MOVD $46, R8                 // ftruncate(file, 0)\n\tMOVD ZR, R1\n\tSVC\n", "", "ftruncate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, err := os.ReadFile("logger_arm64.s")
			if err != nil {
				t.Fatal(err)
			}
			broken := strings.Replace(string(src), tc.old, tc.new, 1)
			if broken == string(src) {
				t.Fatalf("logger_arm64.s has no %q: this control no longer breaks anything", tc.old)
			}
			wrong, _ := differences(reference, callsOf(t, "arm64", []byte(broken)))
			if got := strings.Join(wrong, "\n"); !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want a complaint about %s", got, tc.want)
			}
		})
	}
}

// call is one system call of the program.
type call struct {
	name string
	args map[int]uint32 // those that are constants, by position
}

func differences(amd, arm []call) (wrong []string, constants int) {
	if len(amd) != len(arm) {
		wrong = append(wrong, fmt.Sprintf("%d calls on amd64, %d on arm64", len(amd), len(arm)))
	}
	for i := range min(len(amd), len(arm)) {
		a, b := amd[i], arm[i]
		if a.name != b.name {
			wrong = append(wrong, fmt.Sprintf("call %d: %s on amd64, %s on arm64", i, a.name, b.name))
			continue
		}
		for n, v := range a.args {
			if w, ok := b.args[n]; ok {
				constants++
				if v != w {
					wrong = append(wrong, fmt.Sprintf("call %d, %s, argument %d: %#x on amd64, %#x on arm64", i, a.name, n, v, w))
				}
			}
		}
	}
	return wrong, constants
}

// machine says how one architecture makes a system call.
type machine struct {
	symbol string
	trap   *regexp.Regexp
	jump   *regexp.Regexp // unconditional: what follows has other register contents
	zero   *regexp.Regexp
	set    *regexp.Regexp // constant, register
	more   *regexp.Regexp // a further part of a constant, its place, register
	load   *regexp.Regexp // anything else: no constant any more
	pool   *regexp.Regexp // from memory beside the code, which is not copied
	number string
	args   []string
	table  seccomp.Arch
}

var machines = map[string]machine{
	"amd64": {
		symbol: "loggerAMD64", trap: regexp.MustCompile(`\bSYSCALL\b`), jump: regexp.MustCompile(`\bJMP\b`),
		zero: regexp.MustCompile(`\bXORL (\w+), (\w+)$`), set: regexp.MustCompile(`\bMOV[LQ] \$(-?0x[0-9a-f]+), (\w+)$`),
		more: regexp.MustCompile(`^never$`), load: regexp.MustCompile(`\b(?:MOV|LEA)\w+ .*[)\w], (\w+)$`),
		pool:   regexp.MustCompile(`\(IP\)`),
		number: "AX", args: []string{"DI", "SI", "DX", "R10", "R8", "R9"}, table: seccomp.AMD64,
	},
	"arm64": {
		symbol: "loggerARM64", trap: regexp.MustCompile(`\bSVC\b`), jump: regexp.MustCompile(`\b(?:JMP|B) `),
		zero: regexp.MustCompile(`\bMOVD (ZR), (\w+)$`), set: regexp.MustCompile(`\b(?:MOV[DW]|ORR) \$(-?\d+),(?: ZR,)? (\w+)$`),
		more: regexp.MustCompile(`\bMOVK \$\((\d+)<<(\d+)\), (\w+)$`), load: regexp.MustCompile(`\b(?:MOV|ADD|SUB)\w* .*[)\w], (\w+)$`),
		pool:   regexp.MustCompile(`\(PC\), `),
		number: "R8", args: []string{"R0", "R1", "R2", "R3", "R4", "R5"}, table: seccomp.ARM64,
	},
}

// callsOf builds a program that holds the writer, from other assembly if that is
// given, and reads the system calls from its disassembly.
func callsOf(t *testing.T, arch string, replace []byte) (all []call) {
	t.Helper()
	m, regs := machines[arch], map[string]uint32{}
	for line := range strings.Lines(disassemble(t, arch, replace)) {
		line = strings.Join(strings.Fields(line), " ")
		if z := m.zero.FindStringSubmatch(line); z != nil && (z[1] == "ZR" || z[1] == z[2]) {
			regs[z[2]] = 0
		} else if s := m.set.FindStringSubmatch(line); s != nil {
			v, err := strconv.ParseInt(s[1], 0, 64)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			regs[s[2]] = uint32(v)
		} else if s := m.more.FindStringSubmatch(line); s != nil {
			var v, shift uint32
			if _, err := fmt.Sscan(s[1], &v); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if _, err := fmt.Sscan(s[2], &shift); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			regs[s[3]] |= v << shift
		} else if m.pool.MatchString(line) {
			t.Errorf("%s: %q needs what is not in the image", arch, line)
		} else if l := m.load.FindStringSubmatch(line); l != nil {
			delete(regs, l[1])
		} else if m.trap.MatchString(line) {
			name, ok := m.table.Name(regs[m.number])
			if _, set := regs[m.number]; !set || !ok {
				t.Errorf("%s: no known number before %q", arch, line)
			}
			c := call{name: name, args: map[int]uint32{}}
			for i, r := range m.args {
				if v, ok := regs[r]; ok {
					c.args[i] = v
				}
			}
			all = append(all, c)
			clear(regs)
		} else if m.jump.MatchString(line) {
			clear(regs)
		}
	}
	return all
}

func disassemble(t *testing.T, arch string, replace []byte) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	file := func(name string, content []byte) string {
		at := filepath.Join(work, name)
		if err := os.WriteFile(at, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return at
	}
	overlay := map[string]string{filepath.Join(dir, "program/main.go"): file("main.go", []byte(
		"package main\n\nimport \"github.com/nucleus-container/nucleus/internal/logger\"\n\nfunc main() { println(len(logger.Code())) }\n"))}
	if replace != nil {
		overlay[filepath.Join(dir, "logger_"+arch+".s")] = file("logger.s", replace)
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(work, "program")
	cmd := exec.Command("go", "build", "-overlay", file("overlay.json", list), "-o", out, "./program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, text)
	}
	text, err := exec.Command("go", "tool", "objdump", "-s", machines[arch].symbol, out).Output()
	if err != nil {
		t.Fatalf("disassemble: %v", err)
	}
	return string(text)
}
