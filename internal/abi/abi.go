// Package abi holds constants of the Linux kernel's interface. It makes no calls.
//
// The numbers are those of the generic system call interface and are the same
// on every architecture that Nucleus supports, except where a file name says
// otherwise. The comments name the version that brought each.
package abi

// Clone flags (clone(2)).
const (
	CloneNewTime   = 0x80       // 5.6
	CloneNewNS     = 0x20000    // 2.4
	CloneNewCgroup = 0x2000000  // 4.6
	CloneNewUTS    = 0x4000000  // 2.6
	CloneNewIPC    = 0x8000000  // 2.6
	CloneNewUser   = 0x10000000 // 3.8
	CloneNewPID    = 0x20000000 // 2.6
	CloneNewNet    = 0x40000000 // 2.6
)

// Mount attributes (mount_setattr(2), 5.12; fsmount(2), 5.2).
const (
	MountAttrReadOnly = 0x1
	MountAttrNoSuid   = 0x2
	MountAttrNoDev    = 0x4
	MountAttrNoExec   = 0x8
	MountAttrIDMap    = 0x100000 // 5.12
)

// Flags of mount(2) and umount2(2).
const (
	MSNoSuid    = 0x2
	MSNoDev     = 0x4
	MSNoExec    = 0x8
	MSRec       = 0x4000
	MSPrivate   = 0x40000
	MntDetach   = 0x2
	OpenTreeNew = 0x1    // OPEN_TREE_CLONE, 5.2
	AtRecursive = 0x8000 // AT_RECURSIVE, 5.2
	AtEmptyPath = 0x1000
	AtNoFollow  = 0x100
	AtRemoveDir = 0x200

	UmountNoFollow = 0x8 // UMOUNT_NOFOLLOW, 2.6.34

	MoveMountFromEmpty = 0x4 // MOVE_MOUNT_F_EMPTY_PATH, 5.2
)

// New mount interface (fsopen(2), 5.2).
const (
	FSOpenCloexec  = 0x1
	FSMountCloexec = 0x1
	FSConfigString = 1   // FSCONFIG_SET_STRING
	FSConfigCreate = 6   // FSCONFIG_CMD_CREATE
	CloseRangeExec = 0x4 // CLOSE_RANGE_CLOEXEC, 5.11
)

// Options of prctl(2).
const (
	PRCapBSetDrop    = 24
	PRSetSecurebits  = 28
	PRSetNoNewPrivs  = 38 // 3.5
	PRCapAmbient     = 47 // 4.3
	PRCapAmbientUp   = 2  // PR_CAP_AMBIENT_RAISE
	PRCapAmbientNone = 4  // PR_CAP_AMBIENT_CLEAR_ALL
)

// Securebits (capabilities(7)) that a sandbox sets and locks: user id 0 means
// nothing, changing ids does not change capabilities, and no ambient
// capability can be raised.
const (
	SecNoRoot        = 0x3  // NOROOT and its lock
	SecNoSetuidFixup = 0xc  // NO_SETUID_FIXUP and its lock
	SecKeepCapsLock  = 0x20 // KEEP_CAPS off for good
	SecNoAmbient     = 0xc0 // NO_CAP_AMBIENT_RAISE and its lock
	SecAll           = SecNoRoot | SecNoSetuidFixup | SecKeepCapsLock | SecNoAmbient
)

// Resources of setrlimit(2).
const (
	RlimitCore    = 4
	RlimitNproc   = 6
	RlimitNofile  = 7
	RlimitMemlock = 8
)

// RlimInfinity is no limit.
const RlimInfinity = ^uint64(0)

// KeyctlJoinSession is KEYCTL_JOIN_SESSION_KEYRING (keyctl(2)).
const KeyctlJoinSession = 1

// File types of mknod(2).
const (
	ModeRegular = 0x8000
	ModeChar    = 0x2000
)

// Descriptor control (fcntl(2)).
const (
	FSetFD     = 2
	FSetFL     = 4
	OAsync     = 0x2000
	OReadWrite = 0x2
)

// Terminals (ioctl_tty(2)).
const (
	TiocSPTLock = 0x40045431 // TIOCSPTLCK
	TiocGPTPeer = 0x5441     // TIOCGPTPEER, 4.13
)

// Network devices (netdevice(7)).
const (
	SiocSIFFlags = 0x8914
	IffUp        = 0x1
	IffRunning   = 0x40
)
