package child

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// Names of the functions that the child runs, as the disassembler prints them.
const (
	self      = "github.com/nucleus-container/nucleus/internal/child."
	rawName   = "syscall.RawSyscall6"
	innerName = "internal/runtime/syscall/linux.Syscall6"
)

// TestRunCallsOnlyRawSyscall6 checks, on machine code, what makes run safe
// after the clone: from the clone on, nothing is executed but run, RawSyscall6
// and the system call instruction. No stack growth, no bounds check, no write
// barrier, no instrumentation. It looks at every kind of build that a user of
// this module can ask for, on both architectures.
func TestRunCallsOnlyRawSyscall6(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Toolchain)
	for _, arch := range []string{"amd64", "arm64"} {
		for _, b := range []build{
			{name: "normal"},
			{name: "cover", flags: []string{"-cover", "-covermode=atomic", "-coverpkg=."}},
			{name: "unoptimised", flags: []string{"-gcflags=all=-N -l"}},
			{name: "race", flags: []string{"-gcflags=-race"}, unlinked: true},
		} {
			b.arch = arch
			t.Run(arch+"/"+b.name, func(t *testing.T) {
				for _, wrong := range impurities(t, b) {
					t.Error(wrong)
				}
			})
		}
	}
}

// TestRunIsPureInRaceDetector looks at a linked -race build, for which Go needs
// a C compiler. The other test sees the same compiler's output unlinked.
func TestRunIsPureInRaceDetector(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Toolchain, sandboxtest.Program("gcc"))
	for _, wrong := range impurities(t, build{name: "race", flags: []string{"-race"}, cgo: true}) {
		t.Error(wrong)
	}
}

// TestThisBinaryIsPure looks at the program that runs the tests of this
// package, however it was built.
func TestThisBinaryIsPure(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Toolchain)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Symbols(); err != nil { // "go test" leaves them out, "go test -c" does not
		exe = filepath.Join(t.TempDir(), "child.test")
		if out, err := exec.Command("go", "test", "-c", "-o", exe).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, wrong := range judge(disassemble(t, exe), true) {
		t.Error(wrong)
	}
}

// TestImpuritiesAreFound breaks the package in the ways that matter: the checks
// above are worth something only if each of these fails them.
func TestImpuritiesAreFound(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Toolchain)
	const loop = "\tfor i := uintptr(0); i < w.n; i++ {\n"
	for _, tc := range []struct {
		name, file, old, new, want string
		build                      build
	}{
		{"bounds check", "child_unsafe.go", loop, "\tvar seen [8]uintptr\n" + loop + "\t\tseen[i] = w.errfd\n", "panicBounds", build{arch: "amd64"}},
		{"print", "child_unsafe.go", loop, loop + "\t\tprintln(i)\n", "runtime.print", build{arch: "arm64"}},
		{"allocation", "child_unsafe.go", "\tvar rep Report\n", "\tvar rep Report\n\trep = make([]Report, w.n)[0]\n", "runtime.makeslice", build{arch: "amd64"}},
		{"stack growth", "child_unsafe.go", "//go:nosplit\n//go:norace\n", "//go:norace\n", "runtime.morestack", build{arch: "amd64"}},
		{"stack growth where signals are blocked", "child_unsafe.go", "//go:nosplit\n//go:norace\n//go:nocheckptr\nfunc masked", "//go:norace\n//go:nocheckptr\nfunc masked", "runtime.morestack", build{arch: "amd64"}},
		{"race detector", "child_unsafe.go", "//go:norace\n", "", "runtime.race", build{arch: "amd64", flags: []string{"-gcflags=-race"}, unlinked: true}},
		{"call by name", "clone_amd64.s", "CALL\tR12", "CALL\t·run(SB)", "run.abi0", build{arch: "amd64"}},
		{"call by name, instrumented", "clone_amd64.s", "CALL\tR12", "CALL\t·run(SB)", "racefuncenter", build{arch: "amd64", flags: []string{"-gcflags=-race"}, unlinked: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, err := os.ReadFile(tc.file)
			if err != nil {
				t.Fatal(err)
			}
			broken := strings.Replace(string(src), tc.old, tc.new, 1)
			if broken == string(src) {
				t.Fatalf("%s has no %q: this control no longer breaks anything", tc.file, tc.old)
			}
			tc.build.replace = map[string]string{tc.file: broken}
			got := strings.Join(impurities(t, tc.build), "\n")
			if !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want a complaint about %s", got, tc.want)
			}
		})
	}
}

// build is one way to build this package into a program.
type build struct {
	name     string
	arch     string // GOARCH; empty: this machine's
	flags    []string
	cgo      bool
	unlinked bool              // only compile: the race detector's runtime is C
	replace  map[string]string // files of this package with other content
}

// impurities builds a program that uses Start and says what is wrong with it.
func impurities(t *testing.T, b build) []string {
	t.Helper()
	dir, out := here(t), filepath.Join(t.TempDir(), "program")
	overlay := map[string]string{}
	put := func(name, content string) {
		at := filepath.Join(t.TempDir(), "f"+filepath.Ext(name))
		if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		overlay[filepath.Join(dir, name)] = at
	}
	put("program/main.go", "package main\n\nimport \""+strings.TrimSuffix(self, ".")+"\"\n\nfunc main() { child.Start(nil, child.How{}, 0, 0) }\n")
	for name, content := range b.replace {
		put(name, content)
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(overlayFile, list, 0o644); err != nil {
		t.Fatal(err)
	}
	pkg, cgo := "./program", "CGO_ENABLED=0"
	if b.unlinked {
		pkg = "."
	}
	if b.cgo {
		cgo = "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(append([]string{"build", "-overlay", overlayFile, "-o", out}, b.flags...), pkg)...)
	cmd.Env = append(os.Environ(), cgo)
	if b.arch != "" {
		cmd.Env = append(cmd.Env, "GOARCH="+b.arch)
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, text)
	}
	return judge(disassemble(t, out), !b.unlinked)
}

func here(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// function is what the disassembly shows of one function: what it calls.
type function struct{ calls []string }

var (
	textLine = regexp.MustCompile(`^TEXT (\S+)\(SB\)`)
	// A call, or a jump out of the function: to a name, or through a register.
	callLine = regexp.MustCompile(`\t(?:CALL|BL|JMP|B)\s+(\S+\(SB\)|\(?R\d+\)?)\s*$`)
	// The same before linking, where a relocation has the name.
	relocLine = regexp.MustCompile(`R_CALL(?:ARM64|IND)?:(\S+?)(?:<\d+>)?\s*$`)
)

// disassemble returns the functions that the child executes or could. Two
// functions of one name, a wrapper and the function itself, are told apart by
// the file that they come from.
func disassemble(t *testing.T, file string) map[string]*function {
	t.Helper()
	names := `^(` + regexp.QuoteMeta(self) + `(run|masked|clone3Run)(\.abi0)?|` + regexp.QuoteMeta(rawName) + `|` + regexp.QuoteMeta(innerName) + `(\.abi0)?)$`
	out, err := exec.Command("go", "tool", "objdump", "-s", names, file).Output()
	if err != nil {
		t.Fatalf("disassemble %s: %v", file, err)
	}
	all, f := map[string]*function{}, (*function)(nil)
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\n\t ")
		if m := textLine.FindStringSubmatch(line); m != nil {
			name := m[1]
			if strings.HasSuffix(line, "<autogenerated>") && !strings.HasSuffix(name, ".abi0") {
				name += " (wrapper)"
			}
			f = new(function)
			all[name] = f
			continue
		}
		if f == nil {
			continue
		}
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			m = relocLine.FindStringSubmatch(line)
		}
		if m != nil {
			f.calls = append(f.calls, strings.TrimSuffix(m[1], "(SB)"))
		}
	}
	return all
}

// judge says what is wrong with the code that the child executes.
func judge(code map[string]*function, linked bool) (wrong []string) {
	want := func(name string, ok bool, what string) {
		f := code[name]
		switch {
		case f == nil:
			wrong = append(wrong, name+" is not there: was it renamed or inlined?")
		case !ok:
			wrong = append(wrong, fmt.Sprintf("%s calls %s, want %s", name, strings.Join(f.calls, ", "), what))
		}
	}
	only := func(name string, times int, callee string) {
		f := code[name]
		ok := f != nil && len(f.calls) >= times && !slices.ContainsFunc(f.calls, func(c string) bool { return c != callee })
		want(name, ok, "only "+callee)
	}
	only(self+"run", 3, rawName)
	clone := self + "clone3Run.abi0"
	if linked {
		inner := innerName
		if code[inner] == nil {
			inner += ".abi0" // where the assembly has the old calling convention
		}
		only(rawName, 1, inner)
		f := code[inner]
		want(inner, f != nil && len(f.calls) == 0, "nothing")
		f = code[clone]
		want(clone, f != nil && len(f.calls) == 1 && strings.Trim(f.calls[0], "()") == "R12", "only the address in R12")
	}
	// The one that clones, on the thread whose signals it blocks.
	f := code[self+"masked"]
	want(self+"masked", f != nil && len(f.calls) >= 3 && !slices.ContainsFunc(f.calls, func(c string) bool {
		return c != rawName && strings.TrimSuffix(c, ".abi0") != self+"clone3Run"
	}), "only "+rawName+" and clone3Run")
	if f := code[self+"clone3Run (wrapper)"]; f != nil && slices.ContainsFunc(f.calls, func(c string) bool { return strings.TrimSuffix(c, ".abi0") != self+"clone3Run" }) {
		wrong = append(wrong, "the way to clone3Run calls "+strings.Join(f.calls, ", "))
	}
	// A wrapper exists when something calls run by its name from assembly.
	for _, name := range []string{self + "run.abi0", self + "run (wrapper)"} {
		if f := code[name]; f != nil {
			wrong = append(wrong, name+" stands between the clone and run, and calls "+strings.Join(f.calls, ", "))
		}
	}
	return wrong
}
