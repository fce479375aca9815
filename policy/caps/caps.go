// Package caps names the capabilities of Linux and does arithmetic on sets of
// them. It is pure: it decides what a sandbox keeps, and a step of the plan drops
// the rest before the workload starts. No function here, nor any caller of it,
// adds a capability to a running process.
//
//	keep, err := caps.Parse("net_bind_service,CAP_CHOWN")
//	drop := caps.All.Diff(keep)
//
// The zero [Set] is empty: a sandbox that asks for nothing keeps nothing.
package caps

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Cap is the number of one capability, as prctl(PR_CAPBSET_DROP) takes it.
type Cap uint8

// The capabilities, by number. The last ones are PERFMON and BPF (5.8) and
// CHECKPOINT_RESTORE (5.9).
const (
	Chown Cap = iota
	DACOverride
	DACReadSearch
	Fowner
	Fsetid
	Kill
	Setgid
	Setuid
	Setpcap
	LinuxImmutable
	NetBindService
	NetBroadcast
	NetAdmin
	NetRaw
	IPCLock
	IPCOwner
	SysModule
	SysRawio
	SysChroot
	SysPtrace
	SysPacct
	SysAdmin
	SysBoot
	SysNice
	SysResource
	SysTime
	SysTTYConfig
	Mknod
	Lease
	AuditWrite
	AuditControl
	Setfcap
	MACOverride
	MACAdmin
	Syslog
	WakeAlarm
	BlockSuspend
	AuditRead
	Perfmon
	BPF
	CheckpointRestore

	count
)

// Last is the highest capability that has a name here. A newer kernel may have
// more (/proc/sys/kernel/cap_last_cap); whoever drops the bounding set goes up to
// the kernel's number and not to this one.
const Last = count - 1

// Set is a set of capabilities: bit n is capability n.
type Set uint64

// All holds every capability that has a name here.
const All Set = 1<<count - 1

// names are the kernel's, without CAP_, by number.
var names = [count]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
	"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
	"IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
	"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
	"LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
	"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// ParseCap returns the capability of that name. The prefix CAP_ may be left out
// and case does not matter.
func ParseCap(name string) (Cap, error) {
	bare := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	for i, n := range names {
		if n == bare {
			return Cap(i), nil
		}
	}
	return 0, fmt.Errorf("no capability is named %q", name)
}

// Parse returns the set of the named capabilities, which are separated by commas
// or spaces. "ALL" and "NONE" are not names: a list says what it means.
func Parse(list string) (Set, error) {
	var s Set
	split := func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }
	for _, name := range strings.FieldsFunc(list, split) {
		c, err := ParseCap(name)
		if err != nil {
			return 0, err
		}
		s = s.With(c)
	}
	return s, nil
}

// FromHex reads a set as /proc/PID/status prints it ("00000000a80425fb"). Bits of
// capabilities that have no name here are kept: dropping them from view would
// hide what a process of a newer kernel holds.
func FromHex(text string) (Set, error) {
	v, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("capability set %q is not a hexadecimal number of 64 bits", text)
	}
	return Set(v), nil
}

// Of returns the set of the given capabilities.
func Of(caps ...Cap) Set { return Set(0).With(caps...) }

// String returns the kernel's name, with CAP_, or the number of a capability
// that has no name here.
func (c Cap) String() string {
	if c < count {
		return "CAP_" + names[c]
	}
	return fmt.Sprintf("CAP_%d", uint8(c))
}

// Has reports whether c is in s.
func (s Set) Has(c Cap) bool { return c < 64 && s>>c&1 != 0 }

// With returns s and the given capabilities.
func (s Set) With(caps ...Cap) Set {
	for _, c := range caps {
		s |= 1 << c
	}
	return s
}

// Without returns s less the given capabilities.
func (s Set) Without(caps ...Cap) Set { return s.Diff(Of(caps...)) }

// Diff returns what is in s and not in other.
func (s Set) Diff(other Set) Set { return s &^ other }

// Caps returns the members of s, lowest first.
func (s Set) Caps() []Cap {
	caps := make([]Cap, 0, bits.OnesCount64(uint64(s)))
	for rest := uint64(s); rest != 0; rest &= rest - 1 {
		caps = append(caps, Cap(bits.TrailingZeros64(rest)))
	}
	return caps
}

// String returns the names of the members, with commas between, or "none".
// What it returns for named capabilities [Parse] reads back.
func (s Set) String() string {
	if s == 0 {
		return "none"
	}
	var b strings.Builder
	for i, c := range s.Caps() {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(c.String())
	}
	return b.String()
}

// Hex returns s as /proc/PID/status prints it.
func (s Set) Hex() string { return fmt.Sprintf("%016x", uint64(s)) }
