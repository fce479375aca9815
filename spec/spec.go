// Package spec describes a sandbox as plain data.
//
// A [Sandbox] says what was asked for and nothing else: it holds no descriptor,
// touches no file and can be written as JSON on one machine and used on another.
// Its zero value denies everything: an empty root, no host directory, no network,
// no capability. [Sandbox.Validate] checks a description against itself; whether
// this machine can do it is the business of later stages.
//
//	box := &spec.Sandbox{Toolchain: true, Workspace: &spec.Bind{Source: "."}}
//	if err := box.Validate(); err != nil { ... }
package spec

import (
	"fmt"
	"time"

	"github.com/nucleus-container/nucleus/policy"
)

// Bytes is an amount of memory or storage in bytes. Zero means not set.
type Bytes uint64

// Binary units.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
	TiB Bytes = 1 << 40
)

// String prints b in the largest binary unit that divides it.
func (b Bytes) String() string {
	for _, u := range []struct {
		size Bytes
		name string
	}{{TiB, "T"}, {GiB, "G"}, {MiB, "M"}, {KiB, "K"}} {
		if b >= u.size && b%u.size == 0 {
			return fmt.Sprintf("%d%s", b/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d", uint64(b))
}

// Userns says which user namespace a sandbox gets.
type Userns string

const (
	// UsernsPrivate, the zero value, gives each sandbox a user namespace of its
	// own. Started by root, its ids are a range that no other sandbox uses;
	// started by an ordinary user, its one id is that user.
	UsernsPrivate Userns = ""
	// UsernsHost keeps the host's user namespace: root inside is root outside.
	// The Report names this as a weakening.
	UsernsHost Userns = "host"
)

// Network says what a sandbox can reach.
type Network string

// NetworkNone, the zero value, is a network namespace that holds nothing but
// its own loopback device.
const NetworkNone Network = ""

// Degradable features, for [Sandbox.Degrade].
const (
	// DegradeLandlock accepts a kernel without Landlock.
	DegradeLandlock = "landlock"
	// DegradeCgroup accepts requested limits that no cgroup can enforce here.
	DegradeCgroup = "cgroup"
)

// Sandbox describes one sandbox. The zero value allows nothing.
type Sandbox struct {
	// Name identifies the sandbox to people; it names its control group.
	// At most 64 characters of [A-Za-z0-9_.-], not starting with a dot or
	// dash. Empty: a random name.
	Name string `json:"name,omitempty"`
	// Hostname is the name inside; empty: Name, or "sandbox" without one. RFC 1123.
	Hostname string `json:"hostname,omitempty"`
	// Toolchain makes the host's programs and libraries visible, read-only:
	// /usr, /bin, /sbin, /lib*, /nix/store, and an /etc made for the sandbox.
	Toolchain bool `json:"toolchain,omitempty"`
	// Rootfs is a root of the sandbox's own, instead of the Toolchain.
	Rootfs *Rootfs `json:"rootfs,omitempty"`
	// Context is a host directory, read-only at /context.
	Context *Bind `json:"context,omitempty"`
	// Workspace is a host directory, read-write at /workspace, which becomes
	// the working directory unless Workdir says otherwise.
	Workspace *Bind `json:"workspace,omitempty"`
	// Volumes are further host files and directories.
	Volumes []Volume `json:"volumes,omitempty"`
	// Tmpfs are further empty writable directories.
	Tmpfs []Tmpfs `json:"tmpfs,omitempty"`
	// Scratch bounds the sandbox's own writable memory file system (/tmp, the
	// home directory, /dev/shm). Zero: 256 MiB.
	Scratch Bytes `json:"scratch,omitempty"`

	// User is the identity inside. The zero value is root inside, which is
	// nobody in particular outside and holds no capability.
	User User `json:"user"`
	// Userns chooses the user namespace.
	Userns Userns `json:"userns,omitempty"`
	// TimeNamespace adds a time namespace.
	TimeNamespace bool `json:"time_namespace,omitempty"`
	// Network chooses the network.
	Network Network `json:"network,omitempty"`

	// Workdir is the working directory inside: an absolute path. Empty:
	// /workspace if there is one, else /.
	Workdir string `json:"workdir,omitempty"`
	// Env is added to the clean environment, as K=V. A later entry replaces an
	// earlier one. Variables that steer the dynamic loader are refused.
	Env []string `json:"env,omitempty"`
	// Terminal gives the workload a terminal of the sandbox's own.
	Terminal bool `json:"terminal,omitempty"`

	// Policy says what programs may do beyond, or short of, the defaults: system
	// calls, capabilities, files. Package policy/files reads one from files.
	Policy *policy.Policy `json:"policy,omitempty"`

	// Limits bound what it uses.
	Limits Limits `json:"limits"`
	// Timeout ends the sandbox after this long. Zero: never.
	Timeout time.Duration `json:"timeout,omitempty"`

	// Degrade names the features that may be weakened where this machine
	// cannot enforce them. Everything else is enforced or it is an error.
	Degrade []string `json:"degrade,omitempty"`

	// Mode says how much must hold for the sandbox to start at all.
	Mode Mode `json:"mode,omitempty"`
	// Lockdown demands a state of the kernel's lockdown.
	Lockdown Lockdown `json:"lockdown,omitempty"`
	// Trust says how far the program is trusted.
	Trust Trust `json:"trust,omitempty"`
}

// Bind is a host directory at a place that the sandbox chooses.
type Bind struct {
	// Source is a path on the host. Relative paths are taken from the
	// caller's working directory.
	Source string `json:"source"`
	// Exec allows programs below it to be executed.
	Exec bool `json:"exec,omitempty"`
}

// Volume is a host file or directory at a chosen place.
type Volume struct {
	Source string `json:"source"`
	// Target is an absolute path inside. Its place under another volume must exist.
	Target string `json:"target"`
	// Writable allows writing; the default is read-only.
	Writable bool `json:"writable,omitempty"`
	// Exec allows programs below it to be executed.
	Exec bool `json:"exec,omitempty"`
}

// Tmpfs is an empty writable directory in memory.
type Tmpfs struct {
	Target string `json:"target"`
	// Size bounds it: what files hold, and one file for each 4 KiB of it, but at
	// least 1024. Zero: 64 MiB.
	Size Bytes `json:"size,omitempty"`
	// Exec allows programs below it to be executed.
	Exec bool `json:"exec,omitempty"`
}

// User is an identity inside a sandbox, as numbers of the sandbox's own
// user namespace, 0 to 65534.
type User struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	// Name is the user's name in the sandbox's passwd. Empty: "root" for 0, else "user".
	Name string `json:"name,omitempty"`
}

// DefaultPids is the number of tasks a sandbox may have when Limits.Pids is 0.
const DefaultPids = 512

// Unlimited, as Limits.Pids, removes the limit.
const Unlimited = -1

// DefaultMemlock is the amount of memory that may be locked when
// Limits.Memlock is 0.
const DefaultMemlock = 64 * KiB

// MinMemory is the smallest memory limit that a sandbox starts in. Below it
// the kernel's own bookkeeping for the sandbox does not fit.
const MinMemory = 6 * MiB

// Limits bound a sandbox as a whole. Zero fields are not limited, but for
// Pids and Memlock, which have defaults.
type Limits struct {
	// Memory bounds memory, kernel memory on its behalf included. At least MinMemory.
	Memory Bytes `json:"memory,omitempty"`
	// MemorySwap bounds memory and swap together, as docker's flag of that
	// name: zero with Memory set means no swap; less than Memory is an error.
	MemorySwap Bytes `json:"memory_swap,omitempty"`
	// MilliCPUs is processor time in thousandths of a processor.
	MilliCPUs uint64 `json:"milli_cpus,omitempty"`
	// CPUWeight is the share under contention, 1 to 10000; the kernel's default is 100.
	CPUWeight uint64 `json:"cpu_weight,omitempty"`
	// Pids bounds tasks (processes and threads). Zero: DefaultPids. Unlimited: none.
	Pids int64 `json:"pids,omitempty"`
	// IO bounds block devices.
	IO []IOLimit `json:"io,omitempty"`
	// Memlock bounds locked memory per process. Zero: DefaultMemlock.
	Memlock Bytes `json:"memlock,omitempty"`
}

// IOLimit bounds one block device. Zero fields are not limited.
type IOLimit struct {
	Major     uint32 `json:"major"`
	Minor     uint32 `json:"minor"`
	ReadBPS   uint64 `json:"rbps,omitempty"`  // bytes per second
	WriteBPS  uint64 `json:"wbps,omitempty"`  // bytes per second
	ReadIOPS  uint64 `json:"riops,omitempty"` // operations per second
	WriteIOPS uint64 `json:"wiops,omitempty"` // operations per second
}

// EffectivePids is the limit on tasks that applies: Pids with its default, 0 for none.
func (l Limits) EffectivePids() uint64 {
	switch {
	case l.Pids < 0:
		return 0
	case l.Pids == 0:
		return DefaultPids
	}
	return uint64(l.Pids)
}

// NeedsCgroup reports whether something was asked for that only a control
// group can enforce. The default limit on tasks is not such a thing.
func (l Limits) NeedsCgroup() bool {
	return l.Memory != 0 || l.MemorySwap != 0 || l.MilliCPUs != 0 || l.CPUWeight != 0 || l.Pids > 0 || len(l.IO) > 0
}
