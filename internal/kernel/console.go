package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ListenUnix makes a stream socket at a path and listens on it. Only our user
// can connect. What is at the path already is replaced if it is a socket.
func ListenUnix(path string) (l *Listener, err error) {
	dir, addr, err := socketAddress(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var st Stat
	if err := Lstat(path, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		if err := unix.Unlink(path); err != nil && !NotExist(err) {
			return nil, err
		}
	}
	n, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	fd := FD(n)
	// The mode of a socket that has no name yet is the mode of the file that it
	// gets: there is no moment at which others could connect.
	err = unix.Fchmod(n, 0o600)
	if err == nil {
		err = unix.Bind(n, addr)
	}
	if err == nil {
		err = unix.Listen(n, 16)
	}
	if err != nil {
		return nil, errors.Join(err, fd.Close())
	}
	w, err := NewWaitable(fd, path)
	if err != nil {
		return nil, err
	}
	return &Listener{w}, nil
}

// socketAddress names a socket by its directory, which is held open: the name
// itself may be longer than the 107 bytes that an address has room for.
func socketAddress(path string) (dir FD, addr *unix.SockaddrUnix, err error) {
	dir, err = Open(filepath.Dir(path), PathOnly|unix.O_DIRECTORY, 0)
	if err != nil {
		return None, nil, err
	}
	return dir, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))}, nil
}

// Listener is a unix socket that others connect to.
type Listener struct{ w *Waitable }

// Accept waits for a connection and says whose program made it (SO_PEERCRED). No
// thread waits meanwhile. The error is os.ErrClosed after Close.
func (l *Listener) Accept() (conn *os.File, uid uint32, err error) {
	n := -1
	err = l.w.when(func(fd int) (e error) {
		n, _, e = unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if errors.Is(e, unix.ECONNABORTED) { // it did not wait for us
			e = unix.EINTR
		}
		return e
	})
	if err != nil {
		return nil, 0, err
	}
	cred, err := unix.GetsockoptUcred(n, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, 0, errors.Join(err, FD(n).Close())
	}
	return FD(n).File("connection"), cred.Uid, nil
}

// Close wakes who accepts.
func (l *Listener) Close() error { return l.w.Close() }

// ConnectUnix connects to a stream socket at a path. Goroutines can wait for it,
// and its deadlines work.
func ConnectUnix(path string) (*os.File, error) {
	dir, addr, err := socketAddress(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	n, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = retry(func() error { return unix.Connect(n, addr) })
	if err == nil {
		err = unix.SetNonblock(n, true)
	}
	if err != nil {
		return nil, errors.Join(err, FD(n).Close())
	}
	return FD(n).File(path), nil
}

// SendFile sends a message and a descriptor with it (SCM_RIGHTS) through a
// connected socket that has room.
func SendFile(socket *os.File, message string, f *os.File) error {
	return withFD(f, func(fd int) error {
		return withFD(socket, func(s int) error {
			return retry(func() error { return unix.Sendmsg(s, []byte(message), unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL) })
		})
	})
}

// Pollable returns another descriptor of an open file for which goroutines can
// wait, no thread, and whose deadlines work. The open file does not block any
// more, for nobody who has it.
func Pollable(f *os.File) (*os.File, error) {
	n := -1
	err := withFD(f, func(fd int) (e error) {
		n, e = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return e
	})
	if err == nil {
		err = unix.SetNonblock(n, true)
	}
	if err != nil {
		return nil, errors.Join(err, FD(n).Close())
	}
	return FD(n).File(f.Name()), nil
}

// ReadReady reads what is there. EAGAIN says that there is nothing.
func ReadReady(f *os.File, b []byte) (n int, err error) {
	err = withFD(f, func(fd int) error {
		return retry(func() (e error) { n, e = unix.Read(fd, b); return e })
	})
	return max(n, 0), err
}

// WindowSize is a terminal's size.
func WindowSize(f *os.File) (rows, cols uint16, err error) {
	err = withFD(f, func(fd int) error {
		ws, e := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if e == nil {
			rows, cols = ws.Row, ws.Col
		}
		return e
	})
	return rows, cols, err
}

// TerminalGone is how the supervisor's end of a terminal says that nobody has the
// other end open.
const TerminalGone = syscall.EIO
