package pid1

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
	"strconv"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

func TestImageIsWhatTheKernelWants(t *testing.T) {
	filter := []seccomp.Insn{{Code: 0x20}, {Code: 0x15, JT: 1, JF: 2, K: 3}, {Code: 6, K: 0x7fff0000}}
	img := Image(Config{Filter: filter, StatusFD: 17, Terminal: true})
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
	if load.Flags != elf.PF_R|elf.PF_X {
		t.Errorf("the image is mapped %v, want readable and executable, not writable", load.Flags)
	}
	if stack.Flags != elf.PF_R|elf.PF_W {
		t.Errorf("the stack is %v, want not executable", stack.Flags)
	}
	if load.Off != 0 || load.Vaddr != loadAddr || load.Filesz != uint64(len(img)) || load.Memsz != load.Filesz {
		t.Errorf("got %+v, want the whole file of %d bytes at %#x", load.ProgHeader, len(img), loadAddr)
	}
	if f.Entry != loadAddr+header {
		t.Errorf("got entry %#x, want %#x: right behind the headers", f.Entry, loadAddr+header)
	}
	code := Code()
	t.Logf("%s: %d bytes of code, an image of %d with a filter of %d instructions", runtime.GOARCH, len(code), len(img), len(filter))
	if len(code) == 0 || header+len(code) > dataPage {
		t.Errorf("%d bytes of code and %d of headers do not fit one page", len(code), header)
	}
	if !bytes.Equal(img[header:header+len(code)], code) {
		t.Error("the code is not behind the headers")
	}
	if rest := bytes.Trim(img[header+len(code):dataPage], "\x00"); len(rest) != 0 {
		t.Errorf("%d bytes after the code are not zero", len(rest))
	}

	le, data := binary.LittleEndian, img[dataPage:]
	if n, at := le.Uint16(data), le.Uint64(data[8:]); n != 3 || at != loadAddr+dataPage+filterAt {
		t.Errorf("filter: %d instructions at %#x, want 3 at %#x", n, at, loadAddr+dataPage+filterAt)
	}
	if fd, flags, exit := le.Uint32(data[16:]), le.Uint32(data[20:]), int32(le.Uint32(data[24:])); fd != 17 || flags != 1 || exit != -1 {
		t.Errorf("got status descriptor %d, flags %d and exit descriptor %d, want 17, 1 and -1", fd, flags, exit)
	}
	for i, want := range filter {
		b := data[filterAt+8*i:]
		if got := (seccomp.Insn{Code: le.Uint16(b), JT: b[2], JF: b[3], K: le.Uint32(b[4:])}); got != want {
			t.Errorf("instruction %d: got %v, want %v", i, got, want)
		}
	}
	if plain := Image(Config{StatusFD: 3}); le.Uint16(plain[dataPage:]) != 0 || le.Uint32(plain[dataPage+20:]) != 0 {
		t.Error("without a filter and a terminal: want length 0 and flags 0")
	}
}

// TestImagesAreFresh checks that an image is nobody else's.
func TestImagesAreFresh(t *testing.T) {
	a, b := Image(Config{StatusFD: 3}), Image(Config{StatusFD: 3})
	a[header] ^= 0xff
	if bytes.Equal(a, b) || Code()[0] != b[header] {
		t.Error("two images share memory")
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
	var names []string
	for _, c := range amd {
		names = append(names, c.name)
	}
	t.Logf("%d calls with %d constants alike: %s", len(amd), constants, strings.Join(names, " "))
	if len(amd) < 15 || constants < 40 {
		t.Errorf("%d calls and %d constants were compared: the disassembly was not understood", len(amd), constants)
	}
}

// TestDifferencesAreFound is the control of the test above.
func TestDifferencesAreFound(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Toolchain)
	good := callsOf(t, "amd64", nil)
	for _, tc := range []struct{ name, old, new, want string }{
		{"another call", "MOVD $129, R8 ", "MOVD $130, R8 ", "tkill"},
		{"another constant", "MOVD $0x42, R3", "MOVD $0x40, R3", "recvfrom"},
		{"a call less", "MOVD $25, R8                 // fcntl(status, F_SETFD, FD_CLOEXEC)\n\tMOVD R19, R0\n\tMOVD $2, R1\n\tMOVD $1, R2\n\tSVC\n", "", "fcntl"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, err := os.ReadFile("init_arm64.s")
			if err != nil {
				t.Fatal(err)
			}
			broken := strings.Replace(string(src), tc.old, tc.new, 1)
			if broken == string(src) {
				t.Fatalf("init_arm64.s has no %q: this control no longer breaks anything", tc.old)
			}
			wrong, _ := differences(good, callsOf(t, "arm64", []byte(broken)))
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
	number string
	args   []string
	table  seccomp.Arch
}

var machines = map[string]machine{
	"amd64": {
		symbol: "initAMD64", trap: regexp.MustCompile(`\bSYSCALL\b`), jump: regexp.MustCompile(`\bJMP\b`),
		zero: regexp.MustCompile(`\bXORL (\w+), (\w+)$`), set: regexp.MustCompile(`\bMOV[LQ] \$(-?0x[0-9a-f]+), (\w+)$`),
		number: "AX", args: []string{"DI", "SI", "DX", "R10", "R8", "R9"}, table: seccomp.AMD64,
	},
	"arm64": {
		symbol: "initARM64", trap: regexp.MustCompile(`\bSVC\b`), jump: regexp.MustCompile(`\b(?:JMP|B) `),
		zero: regexp.MustCompile(`\bMOVD (ZR), (\w+)$`), set: regexp.MustCompile(`\b(?:MOV[DW]|ORR) \$(-?\d+),(?: ZR,)? (\w+)$`),
		number: "R8", args: []string{"R0", "R1", "R2", "R3", "R4", "R5"}, table: seccomp.ARM64,
	},
}

// callsOf builds a program that holds the init, from other assembly if that is
// given, and reads the system calls from its disassembly.
func callsOf(t *testing.T, arch string, replace []byte) (all []call) {
	t.Helper()
	m, regs := machines[arch], map[string]uint32{}
	for line := range strings.Lines(disassembleInit(t, arch, replace)) {
		line = strings.Join(strings.Fields(line), " ")
		if z := m.zero.FindStringSubmatch(line); z != nil && (z[1] == "ZR" || z[1] == z[2]) {
			regs[z[2]] = 0
		} else if s := m.set.FindStringSubmatch(line); s != nil {
			v, err := strconv.ParseInt(s[1], 0, 64)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			regs[s[2]] = uint32(v)
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

func disassembleInit(t *testing.T, arch string, replace []byte) string {
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
		"package main\n\nimport \"github.com/nucleus-container/nucleus/internal/pid1\"\n\nfunc main() { println(len(pid1.Code())) }\n"))}
	if replace != nil {
		overlay[filepath.Join(dir, "init_"+arch+".s")] = file("init.s", replace)
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
