// Package plan turns a description of a sandbox and the facts about a machine
// into the ordered list of kernel operations that makes the sandbox.
//
// [Build] is pure: the same input gives the same plan on any machine. A plan can
// be printed, compared and checked ([Plan.Check]) without privileges; package
// enter performs it. Nothing here decides how a step is encoded or undone, and
// nothing after here decides what is done.
//
// A new kernel effect is a new [Action]: its value, its text, its place in the
// order, and the invariant it must respect.
package plan

import (
	"time"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Where says who performs a step.
type Where string

// The places of a plan, in the order of time.
const (
	Host  Where = "host"  // this program, before the clone; undone on failure and at the end
	Clone Where = "clone" // the clone itself
	Gate  Where = "gate"  // this program, while the child waits
	Child Where = "child" // the child, between clone and exec
	Init  Where = "init"  // process 1, for the workload's process
)

// Step is one kernel operation and the field of the Spec that caused it.
type Step struct {
	Where   Where
	Because string
	Do      Action
}

// Action is what a step does. Call is the kernel call, or for steps of several
// calls the one that they are about; String is its object, as people read it.
type Action interface {
	Call() string
	String() string
}

// FD names a descriptor that one step makes and later ones use.
type FD string

// Attr is a set of mount attributes (abi.MountAttr*).
type Attr uint64

// Locked-down mounts: what every mount but an executable one gets.
const (
	noSuidDev = Attr(abi.MountAttrNoSuid | abi.MountAttrNoDev)
	noExec    = Attr(abi.MountAttrNoExec)
	readOnly  = Attr(abi.MountAttrReadOnly)
)

// SeeGroup is the group whose members see every process of a sandbox in /proc,
// where hidepid shows others only those that they may trace. Programs that join
// are in it: Landlock forbids them to trace what they did not start.
const SeeGroup = 65533

// Host steps.
type (
	// ReserveIDs takes a range of host ids that no other sandbox has, for as long as this one lives.
	ReserveIDs struct {
		Count   uint32
		Lasting bool // also when this program has ended
	}
	// CgroupCreate makes the sandbox's control group in the hierarchies of some controllers.
	CgroupCreate struct{ Controllers []string }
	// CgroupJoin is about the control group of a sandbox that runs.
	CgroupJoin struct{}
	// MakeInit writes the sealed image of process 1 with the workload's filter.
	MakeInit struct {
		Filter   seccomp.Program
		Terminal bool
		Detached bool // it goes on without a supervisor
		Joined   bool // it is the parent of a program that joins a sandbox
	}
	// OwnPipes gives the anonymous pipes among the workload's descriptors to the
	// sandbox's user, who could not open /dev/stdout otherwise. Named files keep
	// their owner.
	OwnPipes struct{ UID, GID uint32 }
	// HostTree clones a mount of the host, from a path opened with the host's
	// rights. With IDMap, the files' owner is the sandbox's user inside.
	HostTree struct {
		Source           string
		As               FD
		Attr             Attr
		IDMap            bool
		Count            uint32 // so many ids, from these on; 0: one
		FromUID, FromGID uint32 // owner on disk
		ToUID, ToGID     uint32 // who that is inside
	}
)

// Attest compares a directory with its manifest, and holds on to it: a HostTree
// of the same source is made of this very directory.
type Attest struct {
	Source   string
	Manifest string // empty: the one in the directory
	SHA256   string // of the manifest; empty: any
}

// Clone and gate steps.
type (
	// CloneInto is the clone3 call.
	CloneInto struct {
		Flags  uint64 // abi.CloneNew*
		Cgroup bool   // born in the sandbox's control group
		Copy   bool   // with a copy of our memory, which a time namespace asks for
	}
	// WriteMap writes one extent of uid_map or gid_map.
	WriteMap struct {
		File            string
		Inside, Outside uint32
		Count           uint32
		Reserved        bool // Outside is the start of the reserved range
	}
	// DenySetgroups gives up setgroups, without which an ordinary user may not map groups.
	DenySetgroups struct{}
	// CgroupAdd has the service manager make a group around the child.
	CgroupAdd struct{ Controllers []string }
)

// Child steps.
type (
	// NewSession leaves the caller's session and controlling terminal.
	NewSession struct{}
	// Stdio puts the workload's descriptors in their places.
	Stdio struct{ Extra int }
	// CloseInherited closes every descriptor that the plan does not name.
	CloseInherited struct{}
	// Private cuts the propagation of mounts between here and the host.
	Private struct{}
	// OpenTree clones a mount by path, in the sandbox's own mount namespace.
	OpenTree struct {
		Source    string
		Recursive bool
		As        FD
	}
	// SetAttr changes a mount's attributes.
	SetAttr struct {
		FD        FD     // this mount, or
		Path      string // the mount at this path
		Attr      Attr
		Recursive bool
	}
	// MoveMount attaches a mount.
	MoveMount struct {
		From FD
		To   string
	}
	// NewMount makes a file system that is attached later.
	NewMount struct {
		Type    string
		Options []string // key=value
		Attr    Attr
		As      FD
	}
	// MountFS makes and attaches a file system.
	MountFS struct {
		Type, Target string
		Flags        uint64
		Data         string
	}
	// Wait holds the child until the gate steps are done.
	Wait struct{}
	// NewCgroupNS makes the group that the child is in now the root of its view.
	NewCgroupNS struct{}
	// PivotRoot makes the file system mounted at Path the root and drops the old one.
	PivotRoot struct{ Path string }
	// Show mounts a part of a staged tree, with all mounts below it. A symbolic
	// link in its place is an error.
	Show struct{ Source, Target string }
	// Unmount removes what is mounted at Path, and the empty directory below.
	Unmount struct{ Path string }
	// Mkdir makes a directory.
	Mkdir struct {
		Path string
		Mode uint32
	}
	// MakeLink makes a symbolic link.
	MakeLink struct{ Target, Path string }
	// Touch makes an empty file.
	Touch struct{ Path string }
	// WriteFile makes a file.
	WriteFile struct {
		Path string
		Mode uint32
		Data string
	}
	// CopyFile makes a file with the content of one of the host's.
	CopyFile struct {
		Source, Path string
		Size         int // when the host was asked
	}
	// Securebits makes user id 0 mean nothing, for good.
	Securebits struct{}
	// SetIDs becomes a user and group without supplementary groups, but one perhaps.
	SetIDs struct {
		UID, GID   uint32
		KeepGroups bool // the kernel does not let an ordinary user drop them
		See        bool // be in the group that sees all processes of the sandbox
	}
	// Hostname names the sandbox.
	Hostname struct{ Name string }
	// LoopbackUp brings up the loopback device.
	LoopbackUp struct{}
	// Keyring joins a new, empty session keyring.
	Keyring struct{}
	// Rlimit sets a resource limit, hard and soft.
	Rlimit struct {
		Resource int // abi.Rlimit*
		Name     string
		Soft     uint64
		Hard     uint64
	}
	// KeepCaps makes capabilities inheritable and ambient while the child holds
	// Held. Programs that are executed have what is ambient.
	KeepCaps struct{ Held, Inheritable, Ambient caps.Set }
	// DropBounding removes every capability but those kept from the bounding set.
	DropBounding struct {
		Last int
		Keep caps.Set
	}
	// ClearAmbient empties the ambient set.
	ClearAmbient struct{}
	// DropCaps empties the permitted, effective and inheritable sets, but for
	// what is kept: Keep in the first two.
	DropCaps struct{ Keep, Inheritable caps.Set }
	// NoNewPrivs forbids gaining privileges by executing a program.
	NoNewPrivs struct{}
	// Landlock restricts what files, ports and scopes can be reached.
	Landlock struct {
		Rules  landlock.Ruleset
		Narrow bool // those of a policy, on top of those that follow from the mounts
		// Log says what goes into the machine's audit log: flags of
		// landlock_restrict_self(2). By itself nothing of what is executed does.
		Log uint32
	}
	// OpenTerminal makes a terminal on the sandbox's devpts, hands its other
	// end to the supervisor and puts it on descriptors 0 to 2.
	OpenTerminal struct{}
	// Lifeline ties the sandbox's life to its supervisor's.
	Lifeline struct{}
	// Deadline ends a sandbox that nobody supervises after a time.
	Deadline struct{ After time.Duration }
	// JoinNamespaces enters namespaces of a sandbox that runs, all at once.
	JoinNamespaces struct{ Flags uint64 } // abi.CloneNew*
	// Umask sets the file mode mask.
	Umask struct{ Mask uint32 }
	// Chdir changes the working directory.
	Chdir struct{ Dir string }
	// Listen installs the workload's filter in a form that leaves what it refuses,
	// and more, to a listener, and hands the listener to the supervisor.
	Listen struct {
		Name    string // of the policy
		Level   seccomp.Level
		Policy  seccomp.Policy  // which the listener answers by
		Program seccomp.Program // the policy in that form
		Plain   seccomp.Program // and as it is, for programs that join
		Flags   uint32          // of seccomp(2)
	}
	// Hold tells the supervisor that the sandbox is complete, and waits until what
	// the kernel says about it was read back. Mounts, if there are any, must be what
	// is mounted then.
	Hold struct{ Mounts []Mounted }
	// ExecInit executes process 1.
	ExecInit struct{}
)

// Logged reports whether what it refuses goes into the machine's audit log.
func (a Landlock) Logged() bool { return a.Log&abi.LandlockRestrictSelfLogNewExecOn != 0 }

// Init steps.
type (
	// Seccomp installs the workload's filter.
	Seccomp struct {
		Name    string
		Program seccomp.Program
	}
	// Exec executes the workload: the first of Paths that exists.
	Exec struct {
		Paths []string
		Args  []string
		Env   []string
	}
)
