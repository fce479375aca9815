// Package logger is the log writer of a detached sandbox: a static program of
// one page.
//
// It copies two pipes, the workload's standard output and standard error, into a
// ring of regular files that it was given open, and exits with 0 when both pipes
// are at their end. It opens no path, has no right and allocates nothing. What it
// writes are the frames that package logs describes and reads.
//
// The workload never waits for space on a disk and is never killed for the lack
// of it: what cannot be written is dropped and counted, and the count is written
// as soon as something can be. It does wait for a disk that is slow.
//
// The program is the machine code of logger_GOARCH.s behind an ELF header that
// [Image] writes. Its exit codes: 0 the end of the output, 1 it could not confine
// itself.
//
// # How it is started
//
// In a session of its own, without an environment (each string is resident
// memory), with at least 128 KiB of stack:
//
//	files, err := logs.Create(dir, n)
//	place, err := logs.Next(dir)
//	image, err := kernel.SealedImage("nucleus-log", logger.Image(logger.Config{
//		Out: 3, Err: 4, Files: []int{5, 6}, Size: 8 << 20,
//		First: place.First, Used: place.Used, Turn: place.Turn}))
//
// It makes the reading ends of the pipes non-blocking, which their writers do
// not see.
package logger

import (
	"encoding/binary"
	"fmt"

	"github.com/nucleus-container/nucleus/policy/seccomp"
)

const (
	// MaxFiles is the greatest number of files in a ring.
	MaxFiles = 16
	// MinSize is the least size of a file.
	MinSize = 4096
	// MaxData is the most output that one frame holds.
	MaxData = 64 << 10
)

const (
	loadAddr = 0x400000 // fixed, and written out in logger_GOARCH.s
	dataAt   = 0xc00    // likewise
	pageSize = 0x1000
	header   = 64 + 2*56 // ELF header and two program headers
	filterAt = dataAt + 72 + 4*MaxFiles
	overhead = 16 + 24 // a frame's header, and the frame about lost bytes before it

	comm = "nucleus-log" // at most 15 bytes
)

// Config is what the program needs to know.
type Config struct {
	Out, Err int    // reading ends of the pipes
	Files    []int  // the ring: regular files opened for writing, without O_APPEND
	Size     uint64 // the most bytes in one file, at least MinSize

	// Where to go on: logs.Next. The program cuts what is behind Used.
	First int    // index of the file
	Used  uint64 // bytes in it that are valid
	Turn  uint16 // of that file
}

// Check says what is wrong with c.
func (c Config) Check() error {
	if len(c.Files) == 0 || len(c.Files) > MaxFiles {
		return fmt.Errorf("a ring of %d log files, want 1 to %d", len(c.Files), MaxFiles)
	}
	if c.Size < MinSize || c.Size > 1<<62 {
		return fmt.Errorf("log files of %d bytes, want at least %d", c.Size, MinSize)
	}
	if c.First < 0 || c.First >= len(c.Files) || c.Used > 1<<62 {
		return fmt.Errorf("go on with log file %d of %d at %d: there is no such place", c.First, len(c.Files), c.Used)
	}
	seen := map[int]bool{}
	for _, fd := range append([]int{c.Out, c.Err}, c.Files...) {
		if fd < 0 || fd > 1<<30 || seen[fd] {
			return fmt.Errorf("descriptor %d of the log writer is none, or is used twice", fd)
		}
		seen[fd] = true
	}
	return nil
}

// Image returns the program as a static ELF executable of one page, which is
// mapped read-only. With a configuration that Check refuses it returns nil, which
// no kernel executes.
func Image(c Config) []byte {
	if c.Check() != nil {
		return nil
	}
	le := binary.LittleEndian
	prog := filter()
	size := filterAt + 8*len(prog)
	b := make([]byte, 0, pageSize)
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
	for _, v := range []uint64{0, loadAddr, loadAddr, uint64(size), uint64(size), pageSize} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, 0x6474e551) // PT_GNU_STACK
	b = le.AppendUint32(b, 6)          // rw-
	for _, v := range []uint64{0, 0, 0, 0, 0, 16} {
		b = le.AppendUint64(b, v)
	}
	b = append(b, Code()...)
	b = append(b[:dataAt], c.encode(prog)...) // make zeroed what is between
	return b
}

// encode returns the configuration as the program reads it, its filter behind it.
func (c Config) encode(filter []seccomp.Insn) []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, uint64(len(filter))) // struct sock_fprog
	b = le.AppendUint64(b, loadAddr+filterAt)
	b = le.AppendUint32(b, uint32(c.Out))
	b = le.AppendUint32(b, uint32(c.Err))
	b = le.AppendUint64(b, c.Size)
	b = le.AppendUint64(b, c.Used)
	b = le.AppendUint32(b, uint32(min(MaxData, c.Size-overhead)))
	b = le.AppendUint32(b, uint32(len(c.Files)))
	b = le.AppendUint32(b, uint32(c.First))
	b = le.AppendUint32(b, uint32(c.Turn))
	b = append(b, comm...)
	b = append(b, make([]byte, 16-len(comm))...)
	for i := range MaxFiles {
		fd := uint32(1<<32 - 1) // never used
		if i < len(c.Files) {
			fd = uint32(c.Files[i])
		}
		b = le.AppendUint32(b, fd)
	}
	for _, f := range filter {
		b = le.AppendUint16(b, f.Code)
		b = append(b, f.JT, f.JF)
		b = le.AppendUint32(b, f.K)
	}
	return b
}

// calls are all that the program does once it has confined itself.
func calls() []string {
	return []string{"ppoll", "read", "clock_gettime", "pwritev", "ftruncate", "madvise", "exit_group"}
}

// filter returns the seccomp program that allows these calls and kills the
// program for every other. It tests numbers only, so that the kernel can decide
// them at load time (5.11).
func filter() []seccomp.Insn {
	const (
		load, jeq, ret = 0x20, 0x15, 0x06 // classic BPF
		kill, allow    = 0x80000000, 0x7fff0000
	)
	names := calls()
	prog := []seccomp.Insn{
		{Code: load, K: 4}, {Code: jeq, JF: uint8(len(names) + 1), K: arch.AuditArch()}, // another architecture: kill
		{Code: load},
	}
	for i, name := range names {
		nr, ok := arch.Number(name)
		if !ok {
			nr = 1<<32 - 1 // not a call: the tests would see it
		}
		prog = append(prog, seccomp.Insn{Code: jeq, JT: uint8(len(names) - i), K: nr})
	}
	return append(prog, seccomp.Insn{Code: ret, K: kill}, seccomp.Insn{Code: ret, K: allow})
}
