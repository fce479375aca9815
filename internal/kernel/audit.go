package kernel

import (
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Messages of the kernel's audit (linux/audit.h).
const (
	auditGet = 1000
	// AuditSyscall is the call in which what the other records of an event tell
	// happened, where audit rules have it written down.
	AuditSyscall = 1300
	// AuditLandlockAccess is an access that a Landlock domain refused (6.15).
	AuditLandlockAccess = 1423
	// AuditLandlockDomain is who made a domain, told once, with its first refusal (6.15).
	AuditLandlockDomain = 1424
)

const auditReaders = 1 // AUDIT_NLGRP_READLOG: who reads along, beside the one that owns the log (3.16)

// AuditEnabled reports whether the kernel's audit writes events. It is an error
// where that must not be asked: without CAP_AUDIT_CONTROL, in a user or process
// namespace of one's own, and without audit.
func AuditEnabled() (bool, error) {
	fd, err := auditSocket(0)
	if err != nil {
		return false, err
	}
	on, err := askAudit(fd)
	return on, errors.Join(err, fd.Close())
}

func auditSocket(groups uint32) (FD, error) {
	n, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_AUDIT)
	if err != nil {
		return None, err
	}
	if err := unix.Bind(n, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return None, errors.Join(err, FD(n).Close())
	}
	return FD(n), nil
}

// askAudit asks for struct audit_status, whose second word says whether it is on.
// The kernel answers before it returns from the question.
func askAudit(fd FD) (bool, error) {
	var ask [unix.SizeofNlMsghdr]byte
	binary.NativeEndian.PutUint32(ask[0:], uint32(len(ask)))
	binary.NativeEndian.PutUint16(ask[4:], auditGet)
	binary.NativeEndian.PutUint16(ask[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(int(fd), ask[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if err := retry(func() error { _, err := unix.Poll(p, 100); return err }); err != nil {
		return false, err
	}
	var b [256]byte
	n, _, err := unix.Recvfrom(int(fd), b[:], 0)
	switch {
	case err != nil:
		return false, err
	case n >= unix.SizeofNlMsghdr+4 && binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR:
		return false, unix.Errno(-int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])))
	case n < unix.SizeofNlMsghdr+8 || binary.NativeEndian.Uint16(b[4:]) != auditGet:
		return false, unix.EPROTO
	}
	return binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr+4:]) != 0, nil
}

// AuditLog reads along what the kernel's audit writes, as any number of programs
// may, and takes nothing from others (CAP_AUDIT_READ, 3.16). Its owner closes it.
type AuditLog struct{ f *os.File }

// OpenAuditLog begins to read along.
func OpenAuditLog() (*AuditLog, error) {
	fd, err := auditSocket(auditReaders)
	if err != nil {
		return nil, err
	}
	const room = 4 << 20                                                        // a burst of refusals; more than this is lost and said to be
	_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) // the room that there is will do
	return &AuditLog{fd.File("audit log")}, nil
}

// ErrAuditLost says that records came faster than they were read.
var ErrAuditLost = errors.New("records of the audit log were lost")

// Next waits for the next record. It fails with os.ErrDeadlineExceeded at the
// deadline, and with ErrAuditLost once where records are missing.
func (l *AuditLog) Next() (kind int, text string, err error) {
	var b [16 << 10]byte
	n, err := l.f.Read(b[:])
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return 0, "", ErrAuditLost
	case err != nil:
		return 0, "", err
	case n < unix.SizeofNlMsghdr:
		return 0, "", nil
	}
	for n > unix.SizeofNlMsghdr && b[n-1] == 0 {
		n--
	}
	return int(binary.NativeEndian.Uint16(b[4:])), string(b[unix.SizeofNlMsghdr:n]), nil
}

// SetDeadline bounds the wait.
func (l *AuditLog) SetDeadline(t time.Time) error { return l.f.SetReadDeadline(t) }

// Close ends it.
func (l *AuditLog) Close() error { return l.f.Close() }
