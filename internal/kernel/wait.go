package kernel

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Waitable is a descriptor that a goroutine can wait for without occupying a
// thread. It owns the descriptor.
type Waitable struct {
	file *os.File
	conn syscall.RawConn
}

// NewWaitable takes ownership of f, also when it fails.
func NewWaitable(f FD, name string) (*Waitable, error) {
	if err := unix.SetNonblock(int(f), true); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	w := &Waitable{file: f.File(name)}
	var err error
	if w.conn, err = w.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, w.file.Close())
	}
	return w, nil
}

// Close closes the descriptor. A nil Waitable is not an error.
func (w *Waitable) Close() error {
	if w == nil {
		return nil
	}
	return w.file.Close()
}

// when calls try whenever the descriptor may be ready, until it does not say EAGAIN.
func (w *Waitable) when(try func(fd int) error) error {
	var err error
	if e := w.conn.Read(func(fd uintptr) bool {
		err = retry(func() error { return try(int(fd)) })
		return !errors.Is(err, unix.EAGAIN)
	}); e != nil {
		return e
	}
	return err
}

// Receive reads one message of at most len(b) bytes, and at most one
// descriptor that came with it (else None), from a socket. n is 0 when the other
// end is closed. Without wait, EAGAIN says that there is no message.
func (w *Waitable) Receive(b []byte, wait bool) (n int, passed FD, err error) {
	var oob [24]byte // CMSG_SPACE of one descriptor
	oobn := 0
	try := func(fd int) (e error) {
		n, oobn, _, _, e = unix.Recvmsg(fd, b, oob[:], unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		return e
	}
	if wait {
		err = w.when(try)
	} else {
		err = w.now(try)
	}
	if err != nil || oobn == 0 {
		return n, None, err
	}
	passed, err = rights(oob[:oobn])
	return n, passed, err
}

func (w *Waitable) now(try func(fd int) error) error {
	var err error
	if e := w.conn.Control(func(fd uintptr) { err = retry(func() error { return try(int(fd)) }) }); e != nil {
		return e
	}
	return err
}

// rights returns the descriptor of a control message, or None.
func rights(oob []byte) (FD, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return None, err
	}
	passed := None
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return passed, err
		}
		for _, fd := range fds {
			passed = FD(fd)
		}
	}
	return passed, nil
}

// Send writes one message to a socket that has room.
func (w *Waitable) Send(b []byte) error {
	return w.now(func(fd int) error { return unix.Sendto(fd, b, unix.MSG_NOSIGNAL, nil) })
}

// HangUp tells the other end of a socket that nothing will come any more. What
// it says can still be received.
func (w *Waitable) HangUp() error {
	return w.now(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// SignalPid sends a signal to the process of a pidfd (5.1).
func SignalPid(pidfd FD, sig int) error {
	return unix.PidfdSendSignal(int(pidfd), unix.Signal(sig), nil, 0)
}

// Reap waits for a child to end and reaps it. Status is as of wait4; the usage
// is the process's and its reaped children's.
func Reap(pid int) (status unix.WaitStatus, usage unix.Rusage, err error) {
	err = retry(func() error {
		_, e := unix.Wait4(pid, &status, 0, &usage)
		return e
	})
	return status, usage, err
}

// ThreadID returns the number of the calling thread; it is the process's for the first.
func ThreadID() int { return unix.Gettid() }
