package kernel

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Clone3 reports whether clone3 (5.3) gets through to the kernel: nil, or the
// error that the kernel or a seccomp filter around us answers with. An empty
// argument is refused before anything happens.
func Clone3() error { return refused(unix.SYS_CLONE3) }

// MountSetattr is the same for mount_setattr (5.12).
func MountSetattr() error { return refused(unix.SYS_MOUNT_SETATTR) }

// refused makes a call with nothing but zeros, whose size is too small for
// every version of its argument. EINVAL says so and means that there is such a call.
func refused(call uintptr) error {
	_, _, errno := unix.Syscall6(call, 0, 0, 0, 0, 0, 0)
	if errno == unix.EINVAL {
		return nil
	}
	if errno == 0 {
		return errors.New("an empty argument was accepted")
	}
	return errno
}

// PidFD reports whether pidfd_open (5.3) works.
func PidFD() error {
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
