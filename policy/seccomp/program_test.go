package seccomp

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func TestBytesAreSockFilters(t *testing.T) {
	p := Program{Arch: AMD64, Insns: []Insn{{opJeq, 1, 2, 0xc000003e}, {opRet, 0, 0, retAllow}}}
	want := "1500" + "01" + "02" + "3e0000c0" + "0600" + "00" + "00" + "0000ff7f"
	if got := hex.EncodeToString(p.Bytes()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEvalRefusesBrokenPrograms(t *testing.T) {
	allow := Insn{Code: opRet, K: retAllow}
	for _, tt := range []struct {
		name  string
		insns []Insn
	}{
		{"empty", nil},
		{"no return", []Insn{{Code: opLoad, K: offNR}}},
		{"load past the data", []Insn{{Code: opLoad, K: 64}, allow}},
		{"load between words", []Insn{{Code: opLoad, K: 2}, allow}},
		{"jump out", []Insn{{Code: opJump, K: 7}, allow}},
		{"jump far out", []Insn{{Code: opJump, K: 1<<32 - 1}, allow}},
		{"branch out", []Insn{{Code: opJeq, JT: 9, JF: 9}, allow}},
		{"no such opcode", []Insn{{Code: 0xffff}, allow}},
	} {
		if got := (Program{Arch: AMD64, Insns: tt.insns}).Eval(Data{}); got != KillProcess {
			t.Errorf("%s: got %s, want %s", tt.name, got, KillProcess)
		}
	}
}

func TestDisassembleBrokenProgram(t *testing.T) {
	p := Program{Arch: AMD64, Insns: []Insn{{Code: 0xffff}, {Code: opJump, K: 40}, {Code: opJeq, JT: 200}, {Code: opLoad, K: 8}}}
	got := p.Disassemble()
	for _, want := range []string{"bad  0xffff", "jump 42", "goto 203", "load word 8"} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%swant %q in it", got, want)
		}
	}
}

func TestExplain(t *testing.T) {
	p := Policy{Default: Errno("EPERM"), Rules: []Rule{
		{Calls: []string{"ioctl"}, When: []Cond{{Arg: 1, Op: Ge, Value: 7, Width: 64}, is(0, 1)}, Do: Log, Why: "odd"},
		{Calls: []string{"read"}, Do: Allow, Why: "reading"},
		{Calls: []string{"read"}, Do: KillProcess, Why: "never asked"},
	}}
	for _, tt := range []struct{ call, want string }{
		{"read", "read (amd64 0, arm64 63):\n  allow: reading\n"},
		{"ioctl", "ioctl (amd64 16, arm64 29):\n  log when arg1 >= 0x7 and int arg0 == 0x1: odd\n  EPERM: no other rule names it, so the default holds\n"},
		{"open", "open (amd64 2):\n  EPERM: no other rule names it, so the default holds\n"},
		{"raed", "raed: no system call has this name\n"},
	} {
		if got := p.Explain(tt.call); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.call, got, tt.want)
		}
	}
	if got := Op(99).String(); got != "Op(99)" {
		t.Errorf("got %s, want Op(99)", got)
	}
}

func Example() {
	p := Default().With(Rule{
		Calls: []string{"ptrace"},
		Do:    Allow,
		Why:   "this sandbox runs a debugger",
	})
	prog, err := p.Compile(AMD64)
	if err != nil {
		fmt.Println(err)
		return
	}
	nr, _ := AMD64.Number("ptrace")
	call := Data{NR: nr, Arch: AMD64.AuditArch()}
	fmt.Println(DefaultProgram(AMD64).Eval(call), prog.Eval(call))
	// Output: EPERM allow
}
