package seccomp

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// MaxInsns is the longest program that the kernel takes (BPF_MAXINSNS).
const MaxInsns = 4096

// Insn is one instruction of classic BPF: the kernel's struct sock_filter.
type Insn struct {
	Code   uint16 // what to do
	JT, JF uint8  // how many instructions to skip when a test holds, or not
	K      uint32 // the operand
}

// Program is a compiled policy. It must not be changed: two sandboxes may share
// its instructions.
type Program struct {
	Arch  Arch
	Insns []Insn
}

// Data is what the kernel shows to a filter: struct seccomp_data.
type Data struct {
	NR   uint32    // the call's number
	Arch uint32    // AUDIT_ARCH_ word
	IP   uint64    // instruction pointer
	Args [6]uint64 // argument registers
}

// The opcodes that this package writes and that Eval knows.
const (
	opLoad = 0x20 // BPF_LD|BPF_W|BPF_ABS
	opAnd  = 0x54 // BPF_ALU|BPF_AND|BPF_K
	opJump = 0x05 // BPF_JMP|BPF_JA
	opJeq  = 0x15 // BPF_JMP|BPF_JEQ|BPF_K
	opJgt  = 0x25 // BPF_JMP|BPF_JGT|BPF_K
	opJge  = 0x35 // BPF_JMP|BPF_JGE|BPF_K
	opJset = 0x45 // BPF_JMP|BPF_JSET|BPF_K
	opRet  = 0x06 // BPF_RET|BPF_K
)

// Where the words of struct seccomp_data lie, on a little-endian machine.
const (
	offNR   = 0
	offArch = 4
	offArgs = 16
)

// What a filter returns: the action in the upper half, an errno in the lower.
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retNotify      = 0x7fc00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
)

func (a Action) encode() (uint32, bool) {
	switch a {
	case Allow:
		return retAllow, true
	case KillProcess:
		return retKillProcess, true
	case KillThread:
		return retKillThread, true
	case Trap:
		return retTrap, true
	case Log:
		return retLog, true
	case UserNotify:
		return retNotify, true
	}
	no, ok := errnoNumber(string(a))
	return retErrno | uint32(no), ok
}

func decode(ret uint32) Action {
	switch ret & 0xffff0000 {
	case retAllow:
		return Allow
	case retLog:
		return Log
	case retNotify:
		return UserNotify
	case retKillThread:
		return KillThread
	case retTrap:
		return Trap
	case retErrno:
		return Errno(errnoName(uint16(ret)))
	}
	return KillProcess
}

// Eval runs p on one call and returns what the kernel would do. A program that
// the kernel would not have loaded answers [KillProcess].
func (p Program) Eval(d Data) Action {
	action, _ := p.run(d)
	return action
}

// run is Eval that also counts the instructions it executed.
func (p Program) run(d Data) (Action, int) {
	var acc uint32
	steps := 0
	for pc := 0; pc < len(p.Insns); pc++ {
		in := p.Insns[pc]
		steps++
		skip := in.JF
		switch in.Code {
		case opLoad:
			w, ok := d.word(in.K)
			if !ok {
				return KillProcess, steps
			}
			acc = w
			continue
		case opAnd:
			acc &= in.K
			continue
		case opRet:
			return decode(in.K), steps
		case opJump:
			if in.K >= uint32(len(p.Insns)) {
				return KillProcess, steps
			}
			pc += int(in.K)
			continue
		}
		holds, ok := in.test(acc)
		if !ok {
			return KillProcess, steps
		}
		if holds {
			skip = in.JT
		}
		pc += int(skip)
	}
	return KillProcess, steps
}

func (in Insn) test(acc uint32) (holds, ok bool) {
	switch in.Code {
	case opJeq:
		return acc == in.K, true
	case opJgt:
		return acc > in.K, true
	case opJge:
		return acc >= in.K, true
	case opJset:
		return acc&in.K != 0, true
	}
	return false, false
}

// word reads the 32 bits at an offset of struct seccomp_data.
func (d Data) word(off uint32) (uint32, bool) {
	if off%4 != 0 || off >= offArgs+8*6 {
		return 0, false
	}
	words := [4]uint32{d.NR, d.Arch, uint32(d.IP), uint32(d.IP >> 32)}
	if off < offArgs {
		return words[off/4], true
	}
	arg := d.Args[(off-offArgs)/8]
	if off%8 == 4 {
		arg >>= 32
	}
	return uint32(arg), true
}

// Bytes returns the instructions as the kernel reads them: an array of struct
// sock_filter, little-endian as both architectures are.
func (p Program) Bytes() []byte {
	out := make([]byte, 0, 8*len(p.Insns))
	for _, in := range p.Insns {
		out = binary.LittleEndian.AppendUint16(out, in.Code)
		out = append(out, in.JT, in.JF)
		out = binary.LittleEndian.AppendUint32(out, in.K)
	}
	return out
}

// Disassemble prints p for a reader: one instruction a line, jumps with their
// target lines, numbers of calls with their names.
func (p Program) Disassemble() string {
	held := p.held()
	var b strings.Builder
	for i, in := range p.Insns {
		fmt.Fprintf(&b, "%4d  %s\n", i, p.text(i, in, held[i]))
	}
	return b.String()
}

func (p Program) text(i int, in Insn, held uint32) string {
	switch in.Code {
	case opLoad:
		return "load " + wordName(in.K)
	case opAnd:
		return fmt.Sprintf("and  %#x", in.K)
	case opJump:
		return fmt.Sprintf("jump %d", i+1+int(in.K))
	case opRet:
		return "ret  " + string(decode(in.K))
	}
	signs := map[uint16]string{opJeq: "==", opJgt: ">", opJge: ">=", opJset: "&"}
	sign, ok := signs[in.Code]
	if !ok {
		return fmt.Sprintf("bad  %#x", in.Code)
	}
	k := fmt.Sprintf("%#x", in.K)
	if name, ok := p.Arch.Name(in.K); ok && held == offNR {
		k = fmt.Sprintf("%d (%s)", in.K, name)
	}
	return fmt.Sprintf("if %s %s goto %d else %d", sign, k, i+1+int(in.JT), i+1+int(in.JF))
}

// held returns for each instruction the offset of the word that was loaded
// last on the way to it. Jumps only go forward, so one pass is enough.
func (p Program) held() []uint32 {
	held := make([]uint32, len(p.Insns)+1)
	for i, in := range p.Insns {
		word := held[i]
		if in.Code == opLoad {
			word = in.K
		}
		for _, t := range in.targets(i) {
			if t < len(held) {
				held[t] = word
			}
		}
	}
	return held
}

// targets returns where in may lead when it is instruction i.
func (in Insn) targets(i int) []int {
	switch in.Code {
	case opRet:
		return nil
	case opJump:
		return []int{i + 1 + int(in.K)}
	case opJeq, opJgt, opJge, opJset:
		return []int{i + 1 + int(in.JT), i + 1 + int(in.JF)}
	}
	return []int{i + 1}
}

func wordName(off uint32) string {
	switch {
	case off == offNR:
		return "nr"
	case off == offArch:
		return "arch"
	case off < offArgs:
		return fmt.Sprintf("word %d", off)
	case off%8 == 4:
		return fmt.Sprintf("arg%d high", (off-offArgs)/8)
	}
	return fmt.Sprintf("arg%d low", (off-offArgs)/8)
}
