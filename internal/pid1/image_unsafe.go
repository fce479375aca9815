// Package pid1 is the init of every sandbox: a static program of one page.
//
// It is process 1 inside. It starts the workload's process, which installs the
// workload's seccomp filter and executes it; it reaps every orphan, passes
// signals on, says how the workload ended and exits alike. It holds no memory
// of the program that made it, no descriptor but its status socket, and cannot
// be traced by the workload. It needs no right of its own, and none of its
// system calls pass the workload's filter.
//
// The program is the machine code of init_GOARCH.s behind an ELF header that
// [Image] writes. It is not for running anything else.
//
// # Protocol
//
// On its status descriptor the init sends messages of two 32-bit numbers, kind
// and value: [Started] and the workload's pid in its namespace, or [NotStarted]
// and a negative errno; then [Ended] and the status as wait4 gives it. When the
// other end of that socket is closed, SIGIO (the descriptor must have O_ASYNC;
// the init makes itself its owner) makes the init exit, and so ends the sandbox.
//
// A detached init closes that socket when the workload has started, and writes
// its last message to the exit descriptor, a file. If it was given a timer
// (setitimer(2), ITIMER_REAL, survives execve) that message may be [Expired]. At
// each SIGALRM it looks whether the timer has run out: one that the workload sent,
// and that is still pending, swallows the timer's own.
//
// A joined init is the parent of a program that joins a sandbox. It has done so
// itself, but for the process namespace, which only its children are in. When
// nobody supervises it any more it kills that program.
package pid1

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"unsafe"

	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Kinds of messages. Not negative: a step of the plan failed (child.Report).
const (
	Started    = -1
	NotStarted = -2 // the program could not be executed
	Ended      = -3
	Expired    = -5 // the timer ran out; value is the wait status of a killed process
	NoSession  = -6 // not started: no session, or no controlling terminal
	NoFilter   = -7 // not started: the filter was refused
	Broken     = -8 // not started: process 1 could not do its own part
)

// Decode splits a message of eight bytes.
func Decode(b []byte) (kind, value int) {
	return int(int32(binary.NativeEndian.Uint32(b))), int(int32(binary.NativeEndian.Uint32(b[4:])))
}

const (
	loadAddr = 0x400000 // fixed, and written out in init_GOARCH.s
	dataPage = 0x1000
	header   = 64 + 2*56 // ELF header and two program headers
	filterAt = 32        // in the data page
	endMark  = "pid1end!"
)

// Config is what the program needs to know.
type Config struct {
	Filter   []seccomp.Insn // the workload's filter; empty: none
	StatusFD int
	Terminal bool // descriptor 0 becomes the workload's controlling terminal
	Detached bool // go on without a supervisor
	Joined   bool // not process 1, but the parent of a program that joins a sandbox
	Awaits   bool // start the workload when a byte comes, and not before
	Timed    bool // it has been given a timer, whose end is the sandbox's
	ExitFD   int  // where a detached init says how the workload ended; 0: nowhere
}

// flags as the program reads them.
func (c Config) flags() (f uint32) {
	for i, on := range []bool{c.Terminal, c.Detached, c.Joined, c.Awaits, c.Timed} {
		if on {
			f |= 1 << i
		}
	}
	return f
}

func codeAddr() uintptr // init_GOARCH.s: where the program's bytes are

// Code returns the program's machine code.
func Code() []byte {
	p := codeAddr()
	// SAFETY: codeAddr is the address of a text symbol that is longer than the
	// code up to its end mark; text is never unmapped or written.
	b := unsafe.Slice(*(**byte)(unsafe.Pointer(&p)), 2048)
	return b[:bytes.Index(b, []byte(endMark))]
}

// Image returns the program as a static ELF executable: header and code in its
// first page, the configuration in its second. Both are mapped read-only.
func Image(c Config) []byte {
	le := binary.LittleEndian
	size := dataPage + filterAt + len(c.Filter)*8
	b := make([]byte, 0, size)
	b = append(b, 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, elfMachine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, loadAddr+header) // entry
	b = le.AppendUint64(b, 64)              // program headers follow
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 2, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // PT_LOAD
	b = le.AppendUint32(b, 5) // r-x
	for _, v := range []uint64{0, loadAddr, loadAddr, uint64(size), uint64(size), 0x1000} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, 0x6474e551) // PT_GNU_STACK
	b = le.AppendUint32(b, 6)          // rw-
	for _, v := range []uint64{0, 0, 0, 0, 0, 16} {
		b = le.AppendUint64(b, v)
	}
	b = append(b, Code()...)
	b = b[:dataPage] // make zeroed it
	b = le.AppendUint16(b, uint16(len(c.Filter)))
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint64(b, loadAddr+dataPage+filterAt)
	b = le.AppendUint32(b, uint32(c.StatusFD))
	b = le.AppendUint32(b, c.flags())
	b = le.AppendUint32(b, uint32(int32(cmp.Or(c.ExitFD, -1))))
	b = le.AppendUint32(b, 0)
	for _, f := range c.Filter {
		b = le.AppendUint16(b, f.Code)
		b = append(b, f.JT, f.JF)
		b = le.AppendUint32(b, f.K)
	}
	return b
}
