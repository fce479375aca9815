package kernel

import (
	"errors"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrnoName names an error as the tables of errnos do: "EPERM". It is empty for
// an error that is none of the kernel's.
func ErrnoName(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	return unix.ErrnoName(errno)
}

// SignalName names a signal: "SIGSYS".
func SignalName(s syscall.Signal) string { return unix.SignalName(s) }

// RouteTo asks for the way to an address, and sends nothing: it connects a
// datagram socket.
func RouteTo(to netip.AddrPort) error {
	if to.Addr().Is4() {
		return connect(unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}
	return connect(unix.AF_INET6, unix.SOCK_DGRAM, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
}

// ReachTCP connects to an address, waits at most so many milliseconds, and hangs up.
func ReachTCP(to netip.AddrPort, wait int) error {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	n := 0
	err = retry(func() (e error) {
		n, e = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, wait)
		return e
	})
	switch {
	case err != nil:
		return err
	case n == 0:
		return unix.ETIMEDOUT
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = syscall.Errno(code)
	}
	return err
}

// TmpFile is the flag that makes a file without a name in a directory.
const TmpFile = unix.O_TMPFILE

// MayAccess asks whether this process may use a file so: bits of access(2).
func MayAccess(path string, bits uint32) error { return unix.Faccessat(unix.AT_FDCWD, path, bits, 0) }

// ReachUnix connects to a unix socket, by its path or, after an @, its abstract
// name, and hangs up. Nothing is sent.
func ReachUnix(name string) error {
	return connect(unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: name})
}

func connect(family, kind int, to unix.Sockaddr) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Connect(fd, to), unix.Close(fd))
}

// ListenAt listens on a unix socket at a path or, after an @, an abstract
// name, until it is closed. Nobody accepts.
func ListenAt(name string) (FD, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return None, err
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: name}), unix.Listen(fd, 64)); err != nil {
		return None, errors.Join(err, unix.Close(fd))
	}
	return FD(fd), nil
}

// IsOpen reports whether a number is an open descriptor.
func IsOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

// Inheritable returns a copy of a descriptor that every program inherits which is
// started from now on.
func Inheritable(f FD) (FD, error) {
	fd, err := unix.FcntlInt(uintptr(f), unix.F_DUPFD, 100)
	return FD(fd), err
}

// ReadLimit returns a resource limit, soft and hard.
func ReadLimit(resource int) (soft, hard uint64, err error) {
	var l unix.Rlimit
	err = unix.Getrlimit(resource, &l)
	return l.Cur, l.Max, err
}

// PrctlGet returns what a prctl that asks for a number answers.
func PrctlGet(option int) (int, error) { return unix.PrctlRetInt(option, 0, 0, 0, 0) }

// WorkingDir is the working directory as the kernel names it: one outside the
// root begins with "(unreachable)".
func WorkingDir() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n-1]), nil
}

// FillPipe fills a pipe, so that whoever writes to it next waits.
func FillPipe(w FD) error {
	if err := unix.SetNonblock(int(w), true); err != nil {
		return err
	}
	for {
		if _, err := unix.Write(int(w), make([]byte, 4096)); errors.Is(err, unix.EAGAIN) {
			return unix.SetNonblock(int(w), false)
		} else if err != nil {
			return err
		}
	}
}
