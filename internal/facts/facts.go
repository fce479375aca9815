// Package facts is what a machine can do and who we are on it, as data.
//
// A [Host] is gathered by package host, prints as JSON, and can be recorded on
// one machine and planned with on another: golden tests do that. Nothing here
// asks the kernel anything.
package facts

// Host describes a machine and the user that asks for a sandbox on it.
type Host struct {
	Kernel string `json:"kernel"` // uname -r; for people, never decided upon
	Arch   string `json:"arch"`   // GOARCH

	UID uint32 `json:"uid"` // effective
	GID uint32 `json:"gid"` // effective
	// CapEff is the effective capability set, as in /proc/self/status.
	CapEff uint64 `json:"cap_eff"`
	// LastCap is the highest capability that the kernel knows.
	LastCap int `json:"last_cap"`
	// LandlockABI is the version of Landlock, 0 without it.
	LandlockABI int `json:"landlock_abi"`
	// SeccompFlags are the flags for a seccomp filter with a listener, 0
	// without them. Asked for only where somebody is to listen.
	SeccompFlags uint32 `json:"seccomp_flags,omitempty"`
	// AuditLog says that the kernel writes what Landlock refuses into its audit
	// log (ABI 7, audit is on), and that we may read that. Asked for likewise.
	AuditLog bool `json:"audit_log,omitempty"`
	// NoFile is the hard limit on open files.
	NoFile uint64 `json:"nofile"`
	// Memlock is the hard limit on locked memory in bytes.
	Memlock uint64 `json:"memlock"`

	// Lockdown is the state of the kernel's lockdown, if it was asked for: a word
	// of kernel_lockdown(7), or empty where LockdownWhy says why nobody knows.
	Lockdown    string `json:"lockdown,omitempty"`
	LockdownWhy string `json:"lockdown_why,omitempty"`

	Cgroup Cgroup `json:"cgroup"`

	// Rootfs is what the root that the user named is made of, if one was named.
	Rootfs *Rootfs `json:"rootfs,omitempty"`

	// Paths are the files that a plan may mention, by absolute path. A path
	// that was looked for and not found is not in it.
	Paths map[string]Path `json:"paths"`
}

// Kind is the type of a file.
type Kind string

// Kinds of files.
const (
	Dir     Kind = "dir"
	File    Kind = "file"
	Symlink Kind = "symlink"
	Device  Kind = "device"
	Other   Kind = "other"
)

// Path is one file of the host.
type Path struct {
	Kind   Kind   `json:"kind"`
	Target string `json:"target,omitempty"` // of a symlink, as it is
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Size   int64  `json:"size,omitempty"` // of a file
	Real   string `json:"real,omitempty"` // of a source that the user named: without symlinks
}

// Rootfs is the top of a directory that becomes a sandbox's root.
type Rootfs struct {
	Entries []Entry `json:"entries"`         // by name; those that are not for sandboxes left out
	Store   []Entry `json:"store,omitempty"` // the parts of the Nix store that it names
}

// Entry is a name in a directory, and what has it.
type Entry struct {
	Name   string `json:"name"`
	Kind   Kind   `json:"kind"`
	Target string `json:"target,omitempty"` // of a symlink, as it is
}

// Capability numbers that planning asks for (capabilities(7)).
const (
	CapSetgid   = 6
	CapSetuid   = 7
	CapSysAdmin = 21
)

// Privileged reports whether the caller may do what root may: map ranges of
// ids, make namespaces without a user namespace, and mount with idmaps.
func (h *Host) Privileged() bool {
	const need = 1<<CapSetgid | 1<<CapSetuid | 1<<CapSysAdmin
	return h.UID == 0 && h.CapEff&need == need
}

// Mount is one mount that a process sees, as the kernel says.
type Mount struct {
	Target  string // without the kernel's escapes
	Type    string
	Options string // of this mount, not of the file system
	Device  string // of the file system, "major:minor"
}
