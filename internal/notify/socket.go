package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Inside is where the sandbox's end of a [Socket] is shown: a bind mount of the
// socket's file. The program finds it in NOTIFY_SOCKET.
const Inside = "/run/nucleus/notify"

// maxPath is the longest name of a unix socket (sizeof sun_path, with its end).
const maxPath = 107

// sendTimeout bounds how long a busy service manager can hold us up.
const sendTimeout = 5 * time.Second

// Send sends a datagram to a service manager's socket, as NOTIFY_SOCKET names
// it: an absolute path, or @ and a name of the abstract kind.
func Send(path string, datagram []byte) (err error) {
	if !strings.HasPrefix(path, "/") && (!strings.HasPrefix(path, "@") || path == "@") {
		return fmt.Errorf("NOTIFY_SOCKET %q is neither an absolute path nor @name", path)
	}
	if len(path) > maxPath || strings.ContainsRune(path, 0) {
		return fmt.Errorf("NOTIFY_SOCKET %q is no name of a socket", path)
	}
	fd, err := socket(0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, syscall.Close(fd)) }()
	// It blocks while the queue is full: READY=1 must not get lost.
	tv := syscall.NsecToTimeval(int64(sendTimeout))
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &tv); err != nil {
		return os.NewSyscallError("setsockopt SO_SNDTIMEO", err)
	}
	for {
		err := syscall.Sendto(fd, datagram, syscall.MSG_NOSIGNAL, &syscall.SockaddrUnix{Name: path})
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return &os.PathError{Op: "notify", Path: path, Err: err}
		}
	}
}

func socket(flags int) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|flags, 0)
	return fd, os.NewSyscallError("socket", err)
}

// Socket is where the programs of one sandbox speak. One goroutine at a time
// receives; any may close it.
type Socket struct {
	path string
	file *os.File
	rate bucket
}

// Listen makes the socket. Its directory must be the caller's alone, mode 0700:
// the socket itself may be written to by everybody, because the sandbox's users
// are not ours, and is shown to nobody but the sandbox. A socket that is left of
// a keeper that was killed is replaced.
func Listen(path string) (_ *Socket, err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := checkPrivate(dir); err != nil {
		return nil, err
	}
	// A state directory may be deep, and a socket's name is short. The kernel
	// follows this name to the directory that was checked.
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	if st, err := os.Lstat(short); err == nil && st.Mode().Type() == os.ModeSocket {
		if err := os.Remove(short); err != nil {
			return nil, err
		}
	}
	fd, err := socket(syscall.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	s := &Socket{path: path, file: os.NewFile(uintptr(fd), path), rate: newBucket()}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: short}); err != nil {
		return nil, errors.Join(&os.PathError{Op: "bind", Path: path, Err: err}, s.file.Close())
	}
	if err := os.Chmod(short, 0o666); err != nil { // bind obeys the umask
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// checkPrivate refuses a directory that others can enter.
func checkPrivate(dir *os.File) error {
	st, err := dir.Stat()
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: others than us can enter it: it must be our own, with mode 0700", dir.Name())
	}
	return nil
}

// Receive waits for a datagram, without a thread. What is no message at all comes
// as one that has only Dropped. It fails when ctx ends or the socket is closed.
//
// Descriptors that come with a datagram are not taken: without room for them the
// kernel closes them. That answers sd_notify_barrier(3), too: the program waits
// until the descriptor that it sent has been closed.
//
// A program that floods the socket would make us work outside of the sandbox's
// limits. It is let in [burst] times, and then [perSecond] times a second; the
// kernel lets it wait, or fail, when the queue is full.
func (s *Socket) Receive(ctx context.Context) (Message, error) {
	if err := s.rate.wait(ctx); err != nil {
		return Message{}, err
	}
	conn, err := s.file.SyscallConn()
	if err != nil {
		return Message{}, err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = s.file.SetReadDeadline(time.Unix(1, 0)) // fails only if it is closed: then the read fails as well
	})
	defer func() {
		if !stop() {
			<-interrupted
			_ = s.file.SetReadDeadline(time.Time{})
		}
	}()
	var b [MaxDatagram]byte
	n := 0
	if e := conn.Read(func(fd uintptr) bool {
		// MSG_TRUNC: n is the datagram's length even if that is more than fits (3.4).
		for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
			n, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_DONTWAIT|syscall.MSG_TRUNC)
		}
		return !errors.Is(err, syscall.EAGAIN)
	}); e != nil {
		// Waiting ends early for two reasons only; os.File names the other one
		// with an error of its own here, which nobody can compare with.
		if err = os.ErrClosed; errors.Is(e, os.ErrDeadlineExceeded) {
			return Message{}, context.Cause(ctx)
		}
	}
	switch {
	case err != nil:
		return Message{}, &os.PathError{Op: "receive", Path: s.path, Err: err}
	case n > len(b):
		return Message{Dropped: []string{fmt.Sprintf("(%d bytes)", n)}}, nil
	}
	m, err := Parse(b[:n])
	if err != nil {
		m = Message{Dropped: []string{"(zero byte)"}}
	}
	return m, nil
}

// Close removes the socket and wakes up who waits in Receive.
func (s *Socket) Close() error {
	err := os.Remove(s.path)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, s.file.Close())
}

// How often a program is listened to.
const (
	burst     = 64
	perSecond = 20
)

// bucket holds tokens: one is taken for each datagram, one is added from time to time.
type bucket struct {
	tokens int
	filled time.Time // up to when tokens have been added
}

func newBucket() bucket { return bucket{tokens: burst} }

// take takes a token, or says how long there will be none.
func (b *bucket) take(now time.Time) time.Duration {
	const each = time.Second / perSecond
	if added := now.Sub(b.filled) / each; added > 0 {
		b.filled = b.filled.Add(added * each)
		b.tokens = int(min(time.Duration(b.tokens)+added, burst))
		if b.tokens == burst {
			b.filled = now
		}
	}
	if b.tokens == 0 {
		return b.filled.Add(each).Sub(now)
	}
	b.tokens--
	return 0
}

// wait takes a token, as soon as there is one.
func (b *bucket) wait(ctx context.Context) error {
	for {
		pause := b.take(time.Now())
		if pause <= 0 {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}
