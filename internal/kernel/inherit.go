package kernel

import "golang.org/x/sys/unix"

// InheritedWritable reports whether a descriptor that this program was started
// with can be written to. One that this program has opened itself, as Go's
// runtime does, is closed when it executes another: such a one is EBADF here.
func InheritedWritable(fd int) (bool, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		return false, err
	}
	if own&unix.FD_CLOEXEC != 0 {
		return false, unix.EBADF
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	mode := flags & unix.O_ACCMODE
	return mode == unix.O_WRONLY || mode == unix.O_RDWR, err
}
