package landlock

import (
	"fmt"
	"strings"

	"github.com/nucleus-container/nucleus/internal/abi"
)

// Access is a set of rights over files. Its bits are the kernel's.
type Access uint64

// The single rights, as the kernel has them.
const (
	Execute     Access = abi.LandlockFSExecute     // run a file as a program
	WriteFile   Access = abi.LandlockFSWriteFile   // open a file for writing
	ReadFile    Access = abi.LandlockFSReadFile    // open a file for reading
	ReadDir     Access = abi.LandlockFSReadDir     // list a directory
	RemoveDir   Access = abi.LandlockFSRemoveDir   // remove or rename a directory
	RemoveFile  Access = abi.LandlockFSRemoveFile  // unlink or rename a file
	MakeChar    Access = abi.LandlockFSMakeChar    // make a character device
	MakeDir     Access = abi.LandlockFSMakeDir     // make a directory
	MakeReg     Access = abi.LandlockFSMakeReg     // make a regular file
	MakeSock    Access = abi.LandlockFSMakeSock    // bind a local socket
	MakeFifo    Access = abi.LandlockFSMakeFifo    // make a named pipe
	MakeBlock   Access = abi.LandlockFSMakeBlock   // make a block device
	MakeSym     Access = abi.LandlockFSMakeSym     // make a symbolic link
	Refer       Access = abi.LandlockFSRefer       // link or rename across directories
	Truncate    Access = abi.LandlockFSTruncate    // cut a file's length
	IoctlDev    Access = abi.LandlockFSIoctlDev    // ioctl on a device
	ResolveUnix Access = abi.LandlockFSResolveUnix // connect to a local socket by its file
)

// Plain words for what people mean. Reading never includes executing: a readable
// /etc or a mounted secret must not be a place to run programs from.
const (
	Read       Access = ReadFile | ReadDir
	Write      Access = WriteFile | Truncate // change what a file holds
	Create     Access = MakeReg | MakeDir | MakeSym | MakeSock | MakeFifo
	MakeDevice Access = MakeChar | MakeBlock // apart from Create: a device is a driver
	Remove     Access = RemoveFile | RemoveDir
)

// FileRights are the rights that a rule on a file, not on a directory, may carry.
// The kernel refuses a rule on a file with any other (EINVAL).
const FileRights Access = Execute | WriteFile | ReadFile | Truncate | IoctlDev | ResolveUnix

// NetAccess is a set of rights over ports. Its bits are the kernel's.
type NetAccess uint64

// The rights over ports.
const (
	BindTCP        NetAccess = abi.LandlockNetBindTCP        // listen on a TCP port
	ConnectTCP     NetAccess = abi.LandlockNetConnectTCP     // connect to a TCP port
	BindUDP        NetAccess = abi.LandlockNetBindUDP        // take a local UDP port
	ConnectSendUDP NetAccess = abi.LandlockNetConnectSendUDP // send to a UDP port
)

// Scope is a set of things outside its own domain that a process cannot reach.
type Scope uint64

// The scopes.
const (
	ScopeAbstractUnix Scope = abi.LandlockScopeAbstractUnixSocket // connect to abstract local sockets
	ScopeSignal       Scope = abi.LandlockScopeSignal             // send signals
)

// Latest is the newest Landlock ABI that this package knows.
const Latest = 10

// A level lists what one version of the Landlock ABI brought.
type level struct {
	abi   int
	fs    Access
	net   NetAccess
	scope Scope
}

// levels are in order of ABI. ABI 7 and 8 brought flags for logging and threads,
// no rights.
var levels = [...]level{
	{abi: 1, fs: 1<<13 - 1},
	{abi: 2, fs: Refer},
	{abi: 3, fs: Truncate},
	{abi: 4, net: BindTCP | ConnectTCP},
	{abi: 5, fs: IoctlDev},
	{abi: 6, scope: ScopeAbstractUnix | ScopeSignal},
	{abi: 9, fs: ResolveUnix},
	{abi: 10, net: BindUDP | ConnectSendUDP},
}

// All returns every right over files that a kernel of this ABI can refuse, and
// none for an ABI below 1.
func All(abi int) Access {
	return upTo(abi).fs
}

// AllNet returns every right over ports that a kernel of this ABI can refuse.
func AllNet(abi int) NetAccess {
	return upTo(abi).net
}

// AllScopes returns every scope of this ABI.
func AllScopes(abi int) Scope {
	return upTo(abi).scope
}

func upTo(abi int) level {
	sum := level{abi: abi}
	for _, l := range levels {
		if l.abi <= abi {
			sum.fs |= l.fs
			sum.net |= l.net
			sum.scope |= l.scope
		}
	}
	return sum
}

// words names bits, for reports and for policies written by people.
type word struct {
	bits uint64
	name string
}

// The plain words come first: String prints the widest word that fits.
var fsWords = [...]word{
	{uint64(Read), "read"}, {uint64(Write), "write"}, {uint64(Create), "create"}, {uint64(Remove), "remove"},
	{uint64(MakeDevice), "make-device"},
	{uint64(Execute), "execute"}, {uint64(ReadFile), "read-file"}, {uint64(ReadDir), "read-dir"},
	{uint64(WriteFile), "write-file"}, {uint64(Truncate), "truncate"},
	{uint64(MakeReg), "make-file"}, {uint64(MakeDir), "make-dir"}, {uint64(MakeSym), "make-symlink"},
	{uint64(MakeSock), "make-socket"}, {uint64(MakeFifo), "make-fifo"},
	{uint64(MakeChar), "make-char-device"}, {uint64(MakeBlock), "make-block-device"},
	{uint64(RemoveFile), "remove-file"}, {uint64(RemoveDir), "remove-dir"},
	{uint64(Refer), "refer"}, {uint64(IoctlDev), "ioctl-device"}, {uint64(ResolveUnix), "connect-unix"},
}

var netWords = [...]word{
	{uint64(BindTCP), "bind-tcp"}, {uint64(ConnectTCP), "connect-tcp"},
	{uint64(BindUDP), "bind-udp"}, {uint64(ConnectSendUDP), "send-udp"},
}

var scopeWords = [...]word{
	{uint64(ScopeAbstractUnix), "abstract-unix-sockets"}, {uint64(ScopeSignal), "signals"},
}

// ParseAccess returns the rights that the words name. Words are separated by
// commas or spaces; an unknown word is an error.
func ParseAccess(list string) (Access, error) {
	var a Access
	split := func(r rune) bool { return r == ',' || r == ' ' }
next:
	for _, name := range strings.FieldsFunc(list, split) {
		for _, w := range fsWords {
			if w.name == name {
				a |= Access(w.bits)
				continue next
			}
		}
		return 0, fmt.Errorf("no file right is named %q", name)
	}
	return a, nil
}

// ParseNetAccess returns the right over ports that a word names.
func ParseNetAccess(name string) (NetAccess, error) {
	for _, w := range netWords {
		if w.name == name {
			return NetAccess(w.bits), nil
		}
	}
	return 0, fmt.Errorf("no right over ports is named %q", name)
}

// ParseScope returns the scope that a word names.
func ParseScope(name string) (Scope, error) {
	for _, w := range scopeWords {
		if w.name == name {
			return Scope(w.bits), nil
		}
	}
	return 0, fmt.Errorf("no scope is named %q", name)
}

// String returns the words for a, with commas between, or "nothing".
func (a Access) String() string { return inWords(uint64(a), fsWords[:]) }

// String returns the words for n, with commas between, or "nothing".
func (n NetAccess) String() string { return inWords(uint64(n), netWords[:]) }

// String returns the words for s, with commas between, or "nothing".
func (s Scope) String() string { return inWords(uint64(s), scopeWords[:]) }

func inWords(set uint64, words []word) string {
	if set == 0 {
		return "nothing"
	}
	var parts []string
	for _, w := range words {
		if set&w.bits == w.bits {
			parts = append(parts, w.name)
			set &^= w.bits
		}
	}
	if set != 0 {
		parts = append(parts, fmt.Sprintf("%#x", set))
	}
	return strings.Join(parts, ",")
}
