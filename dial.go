package nucleus

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/enter"
)

// DialTCP connects to an address in the network of a sandbox that was found by
// Open. The connection is the caller's: nothing of it is visible inside but its
// other end. Deadlines can be set on the file.
//
// Who answers is the sandbox: trust what comes no more than the program.
func (p *Process) DialTCP(ctx context.Context, to netip.AddrPort) (*os.File, error) {
	conn, err := p.dialTCP(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("connect to %v in the sandbox: %w", to, err)
	}
	return conn, nil
}

func (p *Process) dialTCP(ctx context.Context, to netip.AddrPort) (*os.File, error) {
	if p.policy == nil {
		return nil, errors.Join(errNotOpened, ErrInvalid)
	}
	o, ok := p.life.(*other)
	if !ok {
		return nil, os.ErrProcessDone
	}
	if err := p.made(); err != nil {
		return nil, err
	}
	ip := to.Addr().Unmap()
	if !ip.IsValid() || ip.Zone() != "" {
		return nil, fmt.Errorf("not an address without a zone: %w", ErrInvalid)
	}
	family, sa := syscall.AF_INET, syscall.Sockaddr(nil)
	if ip.Is4() {
		sa = &syscall.SockaddrInet4{Port: int(to.Port()), Addr: ip.As4()}
	} else {
		family, sa = syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(to.Port()), Addr: ip.As16()}
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	fd, err := enter.Socket(o.pidfd, p.policy.Namespaces, family)
	if err != nil {
		return nil, err
	}
	// Before the runtime's poller knows it: an unconnected socket is "ready" there.
	err = syscall.Connect(int(fd), sa)
	if err != nil && !errors.Is(err, syscall.EINPROGRESS) && !errors.Is(err, syscall.EINTR) {
		return nil, errors.Join(err, fd.Close())
	}
	conn := fd.File("connection to " + to.String())
	if err := connected(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// connected waits until a connection is made. Only a goroutine waits, no thread.
func connected(ctx context.Context, conn *os.File) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = conn.SetDeadline(time.Unix(1, 0)) // fails only if the descriptor cannot be waited for: then nobody waits
	})
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Write(func(fd uintptr) (done bool) {
		failure, done = connection(int(fd))
		return done
	})
	if !stop() {
		<-interrupted
		return context.Cause(ctx)
	}
	return errors.Join(err, failure)
}

// connection says what has come of an attempt to connect, if anything.
func connection(fd int) (err error, done bool) {
	code, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	switch {
	case err != nil:
		return err, true
	case code != 0:
		return syscall.Errno(code), true
	}
	// A poller may wake us for nothing: only a connection has another end.
	_, err = syscall.Getpeername(fd)
	return nil, err == nil
}
