package kernel

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags of seccomp(2) for a filter with a listener.
const (
	SeccompNewListener  = 1 << 3 // 5.0
	SeccompWaitKillable = 1 << 5 // a received notification outlasts signals that do not kill, 5.19
)

// SeccompFlags returns which of the flags for a filter with a listener this kernel
// has, 0 for none. It asks with a program at address 0, which no kernel loads.
func SeccompFlags() uint32 {
	for _, flags := range []uintptr{SeccompNewListener | SeccompWaitKillable, SeccompNewListener} {
		if _, _, e := unix.Syscall(unix.SYS_SECCOMP, 1, flags, 0); e == unix.EFAULT {
			return uint32(flags)
		}
	}
	return 0
}

// Notification is struct seccomp_notif of linux/seccomp.h: one call that waits
// for an answer.
type Notification struct {
	ID    uint64 // of the notification
	Pid   uint32 // of the thread, in our process namespace
	Flags uint32
	NR    int32 // of the call
	Arch  uint32
	IP    uint64
	Args  [6]uint64
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// ioctl requests of a listener (linux/seccomp.h), and the flag that lets a call go on.
const (
	notifReceive  = 0xc0502100
	notifSend     = 0xc0182101
	notifValid    = 0x40082102
	notifSetFlags = 0x40082104
	notifContinue = 1
	notifSyncWake = 1 // 6.6
)

// ErrNotifierGone says that who made the call is gone, or that nobody is left to make one.
var ErrNotifierGone = errors.New("nobody waits for an answer")

// Notifier is the descriptor on which calls wait for an answer. Its owner closes it.
type Notifier struct{ fd FD }

// NewNotifier takes ownership of a descriptor that seccomp(2) made.
func NewNotifier(fd FD) Notifier {
	flags := uint64(notifSyncWake)
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifSetFlags, uintptr(flags)) // faster, where the kernel has it
	return Notifier{fd}
}

// Close lets go: calls that wait, or would, fail with ENOSYS.
func (l Notifier) Close() error { return l.fd.Close() }

// Receive waits for the next call, in a thread of its own. ErrNotifierGone: the
// last task that has the filter is gone.
func (l Notifier) Receive(n *Notification) error {
	for {
		p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
		if err := retry(func() error { _, err := unix.Poll(p, -1); return err }); err != nil {
			return err
		}
		if p[0].Revents&unix.POLLIN == 0 {
			return ErrNotifierGone // POLLHUP, 5.9
		}
		*n = Notification{} // the kernel refuses one that is not empty
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), notifReceive, uintptr(unsafe.Pointer(n)))
		runtime.KeepAlive(n)
		switch e {
		case 0:
			return nil
		case unix.EINTR, unix.ENOENT: // it was killed meanwhile
		default:
			return e
		}
	}
}

// Refuse answers a call with an error.
func (l Notifier) Refuse(id uint64, e unix.Errno) error {
	return l.send(answer{id: id, err: -int32(e)})
}

// Continue lets the kernel perform a call. This is no decision about security:
// what a pointer leads to may have changed since it was looked at
// (seccomp_unotify(2)). It is for calls that the policy allows whatever their
// arguments point to.
func (l Notifier) Continue(id uint64) error {
	return l.send(answer{id: id, flags: notifContinue})
}

func (l Notifier) send(a answer) error {
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), notifSend, uintptr(unsafe.Pointer(&a)))
		runtime.KeepAlive(&a)
		switch e {
		case 0:
			return nil
		case unix.EINTR:
		case unix.ENOENT:
			return ErrNotifierGone
		default:
			return e
		}
	}
}

// Valid reports whether who made a call still waits: what was read about it
// before was about it, and not about another process of its number.
func (l Notifier) Valid(id uint64) bool {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), notifValid, uintptr(unsafe.Pointer(&id)))
	runtime.KeepAlive(&id)
	return e == 0
}

// ReadMemory reads from the memory of another process (process_vm_readv(2)), as
// much of b as there is before a page that it does not have.
func ReadMemory(pid int, at uint64, b []byte) (int, error) {
	local := unix.Iovec{Base: unsafe.SliceData(b)}
	local.SetLen(len(b))
	return unix.ProcessVMReadv(pid, []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
}
