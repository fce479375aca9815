// Package kernel holds typed wrappers of the system calls that Nucleus makes as
// an ordinary program. What happens between clone and exec is in package child;
// nothing else talks to the kernel except through the standard library.
//
// Every wrapper returns the bare errno: the caller knows what it was about.
package kernel

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// FD is an open descriptor, always close-on-exec. Its owner closes it.
type FD int

// None is no descriptor.
const None FD = -1

// Close closes the descriptor; None is not an error.
func (f FD) Close() error {
	if f < 0 {
		return nil
	}
	return unix.Close(int(f))
}

// File makes an *os.File of the descriptor and gives up ownership to it.
func (f FD) File(name string) *os.File { return os.NewFile(uintptr(f), name) }

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// SocketPair returns two connected SOCK_SEQPACKET sockets.
func SocketPair() (parent, child FD, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return None, None, err
	}
	return FD(p[0]), FD(p[1]), nil
}

// DupAbove returns a duplicate of fd numbered min or more.
func DupAbove(fd, min int) (FD, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, min)
	return FD(n), err
}

// Open opens a file with O_CLOEXEC.
func Open(path string, flags int, mode uint32) (FD, error) {
	fd := -1
	err := retry(func() (e error) { fd, e = unix.Open(path, flags|unix.O_CLOEXEC, mode); return e })
	return FD(fd), err
}

// Open flags.
const (
	ReadOnly  = unix.O_RDONLY
	ReadWrite = unix.O_RDWR
	Create    = unix.O_CREAT
	NoFollow  = unix.O_NOFOLLOW
	PathOnly  = unix.O_PATH
)

// WriteFile writes data to an existing file in one call, as files of proc want it.
func WriteFile(path string, data []byte) error {
	fd, err := Open(path, unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(int(fd), data)
	return errors.Join(err, fd.Close())
}

// ReadFile reads a whole file of at most max bytes; a longer one is EFBIG.
func ReadFile(path string, max int) ([]byte, error) {
	fd, err := Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	b, used := make([]byte, max+1), 0
	for used <= max {
		n := 0
		err = retry(func() (e error) { n, e = unix.Read(int(fd), b[used:]); return e })
		if err != nil || n == 0 {
			return b[:used], errors.Join(err, fd.Close())
		}
		used += n
	}
	return nil, errors.Join(unix.EFBIG, fd.Close())
}

// Seals of a memfd image: nothing about it can change any more.
const allSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// SealedImage returns a descriptor of an executable, immutable file in memory
// with the given content (memfd_create, 3.17).
func SealedImage(name string, content []byte) (FD, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // MFD_EXEC is 6.3; before it every memfd is executable
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return None, err
	}
	f := FD(fd)
	for len(content) > 0 && err == nil {
		var n int
		n, err = unix.Write(fd, content)
		content = content[max(n, 0):]
	}
	if err == nil {
		err = f.seal()
	}
	if err != nil {
		return None, errors.Join(err, f.Close())
	}
	return f, nil
}

// seal makes a file in memory immutable. Something in the kernel that holds a page of
// it for a moment, such as compaction, has the kernel wait a little and then say
// EBUSY (memfd_wait_for_pins in mm/memfd.c): it is asked again, for a second or two.
func (f FD) seal() (err error) {
	for range 50 {
		_, err = unix.FcntlInt(uintptr(f), unix.F_ADD_SEALS, allSeals)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// CloneTree returns a detached copy of the mount at the directory or file that
// fd names, with all mounts below it (open_tree, 5.2). It needs CAP_SYS_ADMIN.
func CloneTree(fd FD) (FD, error) {
	n, err := unix.OpenTree(int(fd), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	return FD(n), err
}

// SetMountAttr changes a detached mount and all below it (mount_setattr, 5.12).
// With a user namespace it also translates the owners of files through it. The
// tree becomes private: a clone of a shared mount, as systemd makes them all,
// would carry what is mounted below it back to the host.
func SetMountAttr(tree FD, set uint64, userns FD) error {
	attr := unix.MountAttr{Attr_set: set, Propagation: unix.MS_PRIVATE}
	if userns >= 0 {
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(userns)
	}
	return unix.MountSetattr(int(tree), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
}

// LockByte takes an exclusive lock on one byte of a file, for as long as the
// open file lives (open file description locks, 3.15). It does not wait:
// EAGAIN means that another holds it.
func LockByte(f FD, offset int64) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: offset, Len: 1}
	return unix.FcntlFlock(uintptr(f), unix.F_OFD_SETLK, &lock)
}

// Dumpable reports whether this process's memory may be read by its user.
func Dumpable() (bool, error) {
	v, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return v == 1, err
}

// SetDumpable makes this process's memory readable by its user.
func SetDumpable() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }

// Lstat looks at a path itself. A missing path is fs.ErrNotExist.
func Lstat(path string, st *unix.Stat_t) error {
	return retry(func() error { return unix.Lstat(path, st) })
}

// Stat is a file's status.
type Stat = unix.Stat_t

// OwnPipe changes the owner of an anonymous pipe; anything else is left alone.
func OwnPipe(f FD, uid, gid uint32) error {
	var fs unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(int(f), &fs) }); err != nil {
		return err
	}
	if fs.Type != unix.PIPEFS_MAGIC {
		return nil
	}
	return unix.Fchown(int(f), int(uid), int(gid))
}

// Readlink returns where a symbolic link points to. Links longer than a page
// do not exist (PATH_MAX).
func Readlink(path string) (string, error) {
	for size := 128; ; size *= 8 {
		b := make([]byte, size)
		n, err := unix.Readlink(path, b)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

// Kinds of files, of a mode.
const (
	ModeType    = unix.S_IFMT
	ModeDir     = unix.S_IFDIR
	ModeRegular = unix.S_IFREG
	ModeLink    = unix.S_IFLNK
	ModeChar    = unix.S_IFCHR
)

// Capabilities returns the effective set of the calling thread.
func Capabilities() (uint64, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, err
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

// HasCap reports whether the kernel knows capability n.
func HasCap(n int) bool {
	_, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
	return err == nil
}

// HardLimit returns the hard limit of a resource (abi.Rlimit*).
func HardLimit(resource int) (uint64, error) {
	var r unix.Rlimit
	err := unix.Prlimit(0, resource, nil, &r)
	return r.Max, err
}

// IsErrno reports whether err is one of the given errnos.
func IsErrno(err error, errnos ...unix.Errno) bool {
	for _, e := range errnos {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Errnos that callers decide upon.
const (
	EAGAIN = unix.EAGAIN
	ENOSYS = unix.ENOSYS
	ESRCH  = unix.ESRCH
	EINVAL = unix.EINVAL
	EPERM  = unix.EPERM
	EACCES = unix.EACCES
	ENOENT = unix.ENOENT

	ECONNRESET = unix.ECONNRESET
)

// SetWindowSize sets a terminal's size.
func SetWindowSize(f *os.File, rows, cols uint16) error {
	return withFD(f, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

func withFD(f *os.File, call func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := c.Control(func(fd uintptr) { inner = call(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// Uname returns the kernel's release.
func Uname() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// NotExist reports whether err says that a file is missing.
func NotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }
