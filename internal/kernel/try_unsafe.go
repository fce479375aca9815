package kernel

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Arg is an argument of a system call that is tried: Bytes, if there are any, are
// passed by their address, and Value is passed as it is otherwise.
type Arg struct {
	Value uint64
	Bytes []byte
}

// Try makes a system call for the sake of the kernel's answer: package probe asks
// which calls a sandbox refuses. A call that makes a process makes one that ends
// at once.
func Try(nr uint32, args ...Arg) error {
	var raw [6]uintptr
	var pin runtime.Pinner
	defer pin.Unpin()
	for i, a := range args[:min(len(args), len(raw))] {
		raw[i] = uintptr(a.Value)
		if len(a.Bytes) > 0 {
			pin.Pin(&a.Bytes[0])
			// SAFETY: the bytes are pinned until after the call, so the address stays theirs.
			raw[i] = uintptr(unsafe.Pointer(&a.Bytes[0]))
		}
	}
	r, _, errno := unix.RawSyscall6(uintptr(nr), raw[0], raw[1], raw[2], raw[3], raw[4], raw[5])
	if r == 0 && errno == 0 && (nr == unix.SYS_CLONE || nr == unix.SYS_CLONE3) {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0) // the child: it has nothing of the Go runtime
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// LandlockLayers stacks Landlock domains on the calling thread until the kernel
// refuses one more, and returns how many it took: 16 is the kernel's limit, so
// fewer say that there was a domain before. The caller has locked the thread, and
// throws it away.
func LandlockLayers() (n int, err error) {
	handled := [1]uint64{unix.LANDLOCK_ACCESS_FS_EXECUTE}
	// SAFETY: the array lives until after the call, which copies it.
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), unsafe.Sizeof(handled), 0)
	if errno != 0 {
		return 0, errno
	}
	defer unix.Close(int(fd))
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	for n = 0; n < 64; n++ {
		if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno == unix.E2BIG {
			return n, nil
		} else if errno != 0 {
			return n, errno
		}
	}
	return n, nil
}
