package kernel

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// How OpenAt resolves a path (openat2, 5.6).
const (
	InRoot       = unix.RESOLVE_IN_ROOT       // the directory is the root, for "/", ".." and links
	Beneath      = unix.RESOLVE_BENEATH       // what leads out of the directory is EXDEV
	NoSymlinks   = unix.RESOLVE_NO_SYMLINKS   // a link on the way is ELOOP
	NoMagicLinks = unix.RESOLVE_NO_MAGICLINKS // so are those of proc, which lead anywhere
	NoCrossing   = unix.RESOLVE_NO_XDEV       // a mount on the way is EXDEV
)

// More flags for Open and OpenAt.
const (
	WriteOnly = unix.O_WRONLY
	Exclusive = unix.O_EXCL
	Directory = unix.O_DIRECTORY
	NonBlock  = unix.O_NONBLOCK
	NoTTY     = unix.O_NOCTTY
)

// movedTries bounds how often OpenAt asks again. The kernel gives up on a path
// with ".." while anything on the machine is renamed; who renames without end
// must not keep us here as long.
const movedTries = 1000

// OpenAt opens path below dir with O_CLOEXEC (openat2). EAGAIN says that
// directories were moved the whole time.
func OpenAt(dir FD, path string, flags int, mode uint32, resolve uint64) (FD, error) {
	how := &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(mode)
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(int(dir), path, how)
		again := errors.Is(err, unix.EAGAIN) && flags&unix.O_NONBLOCK == 0 && try < movedTries
		if !again && !errors.Is(err, unix.EINTR) {
			return FD(fd), err
		}
	}
}

// Reopen opens what f names once more, with other flags: f may be one of
// O_PATH. It is the same file whatever has become of its name.
func Reopen(f FD, flags int) (FD, error) { return Open(own(f), flags, 0) }

// own is the path of a descriptor of this process. The thread's own directory
// is used: the first thread, whose proc/self is, may have other rights.
func own(f FD) string { return "/proc/thread-self/fd/" + strconv.Itoa(int(f)) }

// FileStat looks at an open file, also one of O_PATH.
func FileStat(f FD) (st Stat, err error) {
	err = retry(func() error { return unix.Fstat(int(f), &st) })
	return st, err
}

// FileSystem returns the magic number of the file system that an open file is on.
func FileSystem(f FD) (int64, error) {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(int(f), &st) })
	return int64(st.Type), err
}

// Unordinary reports whether a file system holds no files of anybody: its files
// are a way to talk to the kernel.
func Unordinary(magic int64) bool {
	switch magic {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.NSFS_MAGIC, unix.BINFMTFS_MAGIC,
		unix.EFIVARFS_MAGIC, unix.PSTOREFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, resctrlFS, unix.XENFS_SUPER_MAGIC,
		unix.PIPEFS_MAGIC, unix.SOCKFS_MAGIC, unix.ANON_INODE_FS_MAGIC, configFS, mqueueFS:
		return true
	}
	return false
}

// Magic numbers that x/sys does not have (configfs, resctrl, mqueue).
const (
	configFS  = 0x62656570
	resctrlFS = 0x07655821
	mqueueFS  = 0x19800202
)

// Names returns some names of a directory that is open for reading, in the
// directory's own order, without "." and "..". None: there are no more.
func Names(dir FD, buf []byte) (names []string, err error) {
	for len(names) == 0 {
		n := 0
		err := retry(func() (e error) { n, e = unix.ReadDirent(int(dir), buf); return e })
		if err != nil || n <= 0 {
			return nil, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	return names, nil
}

// LinkTarget returns where the symbolic link points to that f, of O_PATH, names.
func LinkTarget(f FD) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f), "", b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// MakeDir makes a directory in dir.
func MakeDir(dir FD, name string, mode uint32) error {
	return retry(func() error { return unix.Mkdirat(int(dir), name, mode) })
}

// MakeLink makes a symbolic link in dir.
func MakeLink(target string, dir FD, name string) error {
	return retry(func() error { return unix.Symlinkat(target, int(dir), name) })
}

// AddName gives the file that f names one more name, in dir.
func AddName(f, dir FD, name string) error {
	return retry(func() error { return unix.Linkat(unix.AT_FDCWD, own(f), int(dir), name, unix.AT_SYMLINK_FOLLOW) })
}

// Rename renames within a directory; what has the name is replaced.
func Rename(dir FD, from, to string) error {
	return retry(func() error { return unix.Renameat(int(dir), from, int(dir), to) })
}

// Unlink removes a name that is not a directory's.
func Unlink(dir FD, name string) error {
	return retry(func() error { return unix.Unlinkat(int(dir), name, 0) })
}

// SetMode changes the permissions of what f names, which must not be a link.
func SetMode(f FD, mode uint32) error {
	return retry(func() error { return unix.Chmod(own(f), mode) })
}

// SetModified sets when an entry of dir was last changed, and read; a link is not
// followed. "." is the directory.
func SetModified(dir FD, name string, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	return retry(func() error {
		return unix.UtimesNanoAt(int(dir), name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// SetSize cuts a file off, or lets it end with a hole.
func SetSize(f FD, size int64) error {
	return retry(func() error { return unix.Ftruncate(int(f), size) })
}

// ReadAt reads once, at an offset.
func ReadAt(f FD, b []byte, off int64) (n int, err error) {
	err = retry(func() (e error) { n, e = unix.Pread(int(f), b, off); return e })
	return n, err
}

// WriteAt writes all of b at an offset.
func WriteAt(f FD, b []byte, off int64) error {
	for len(b) > 0 {
		n := 0
		err := retry(func() (e error) { n, e = unix.Pwrite(int(f), b, off); return e })
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// Extent finds the next part of a file of this size, from off on, that is no hole.
// start is size if there is none. A file system without holes has one part.
func Extent(f FD, off, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case IsErrno(err, unix.EINVAL, unix.EOPNOTSUPP):
		return off, size, nil
	case err != nil:
		return 0, 0, err
	}
	end, err = unix.Seek(int(f), start, unix.SEEK_HOLE)
	if err != nil || end <= start { // it was changed meanwhile
		end = size
	}
	return min(start, size), min(end, size), nil
}

// ActAs lets the calling thread act on files as another user for good: with
// that user's rights, with no other group, and without any capability. Whoever
// may not become others can only be themselves, and keeps their groups.
//
// Precondition: the OS thread is locked and is discarded afterwards. The process
// is not dumpable any more if ids have changed (credentials(7)). Until the thread
// is gone nobody may change the ids of all threads (syscall.Setgroups and the
// like): Go ends the program where one of them is refused that.
func ActAs(uid, gid uint32) error {
	caps, err := Capabilities()
	if err != nil {
		return err
	}
	// The C library, and Go with it, would change every thread.
	if caps&(1<<unix.CAP_SETGID) != 0 {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			return errno
		}
	}
	for _, id := range []struct {
		set  func(int) (int, error)
		want uint32
	}{{unix.SetfsgidRetGid, gid}, {unix.SetfsuidRetUid, uid}} {
		// The call tells the id that was, never whether it could change it: -1 is nobody's.
		if _, err := id.set(int(id.want)); err != nil {
			return err
		}
		if now, err := id.set(-1); err != nil || uint32(now) != id.want {
			return errors.Join(unix.EPERM, err)
		}
	}
	// Since setfsuid(2) the kernel ignores those about files, unless securebits
	// say otherwise; what is left could still use reserved blocks or open by handle.
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		return err
	}
	if caps, err = Capabilities(); err == nil && caps != 0 {
		err = unix.EPERM
	}
	return err
}

// More errnos that callers decide upon.
const (
	EEXIST  = unix.EEXIST
	EISDIR  = unix.EISDIR
	ENOTDIR = unix.ENOTDIR
	ELOOP   = unix.ELOOP
	ENOSPC  = unix.ENOSPC
	EDQUOT  = unix.EDQUOT
	EMFILE  = unix.EMFILE
	ENFILE  = unix.ENFILE
	EBUSY   = unix.EBUSY
	EXDEV   = unix.EXDEV
)

// More kinds of files, of a mode.
const (
	ModePipe   = unix.S_IFIFO
	ModeSocket = unix.S_IFSOCK
)
