package seccomp

import (
	"fmt"
	"sort"
)

// Arch is a processor architecture: the numbers of its system calls differ.
type Arch uint8

// The architectures that a program can be compiled for. The zero value is none.
const (
	AMD64 Arch = iota + 1
	ARM64
)

// x32Bit marks a number of the x32 ABI, which shares AUDIT_ARCH_X86_64 with the
// ordinary one and gives the same calls other numbers.
const x32Bit = 0x40000000

// call is a row of the table in calls.go.
type call struct {
	name  string
	amd64 int16
	arm64 int16
}

// String returns the name that Go uses for a.
func (a Arch) String() string {
	switch a {
	case AMD64:
		return "amd64"
	case ARM64:
		return "arm64"
	}
	return fmt.Sprintf("Arch(%d)", uint8(a))
}

// ParseArch returns the architecture that Go calls name (as in runtime.GOARCH).
func ParseArch(name string) (Arch, error) {
	switch name {
	case "amd64":
		return AMD64, nil
	case "arm64":
		return ARM64, nil
	}
	return 0, fmt.Errorf("no system call table for architecture %q", name)
}

// AuditArch returns the AUDIT_ARCH_ word that the kernel hands to a filter for
// a native call of a, and 0 for an unknown architecture.
func (a Arch) AuditArch() uint32 {
	switch a {
	case AMD64:
		return 0xc000003e
	case ARM64:
		return 0xc00000b7
	}
	return 0
}

// Number returns the number of the call name on a.
func (a Arch) Number(name string) (uint32, bool) {
	i := sort.Search(len(calls), func(i int) bool { return calls[i].name >= name })
	if i == len(calls) || calls[i].name != name {
		return 0, false
	}
	return calls[i].number(a)
}

// Name returns the name of the call nr on a. It walks the whole table: it is
// for reports, not for a path that must be quick.
func (a Arch) Name(nr uint32) (string, bool) {
	for i := range calls {
		if n, ok := calls[i].number(a); ok && n == nr {
			return calls[i].name, true
		}
	}
	return "", false
}

// Names returns the calls of a, sorted by name.
func (a Arch) Names() []string {
	names := make([]string, 0, len(calls))
	for i := range calls {
		if _, ok := calls[i].number(a); ok {
			names = append(names, calls[i].name)
		}
	}
	return names
}

// Known reports whether some architecture has a call of that name.
func Known(name string) bool {
	for _, a := range [...]Arch{AMD64, ARM64} {
		if _, ok := a.Number(name); ok {
			return true
		}
	}
	return false
}

func (c call) number(a Arch) (uint32, bool) {
	n := int16(-1)
	switch a {
	case AMD64:
		n = c.amd64
	case ARM64:
		n = c.arm64
	}
	return uint32(n), n >= 0
}
