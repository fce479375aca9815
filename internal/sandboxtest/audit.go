package sandboxtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// The kernel's audit system, as seen through a netlink socket. Only these
// numbers are needed, and syscall does not have them.
const (
	netlinkAudit  = 9
	auditGet      = 1000
	auditReadLog  = 1 << 0 // the multicast group of those who read the log
	auditLandlock = 7      // the ABI of Landlock that writes to the log, since 6.15
)

// probeAudit asks and listens, and changes nothing: the switch is the whole
// kernel's, and processes that were started while it was on keep its weight.
func probeAudit() error {
	abi, err := landlockABI()
	if err != nil {
		return err
	}
	if abi < auditLandlock {
		return fmt.Errorf("landlock ABI %d: its denials are logged since %d", abi, auditLandlock)
	}
	on, err := auditEnabled()
	if err != nil {
		return err
	}
	if !on {
		return errors.New("the kernel's audit is off")
	}
	fd, err := auditSocket(auditReadLog)
	if err != nil {
		return err
	}
	return syscall.Close(fd)
}

// auditSocket opens a socket in the multicast groups; reading waits for a moment
// only.
func auditSocket(groups uint32) (int, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkAudit)
	if err != nil {
		return -1, fmt.Errorf("audit socket: %w", err)
	}
	wait := syscall.NsecToTimeval(int64(5 * time.Second * Slow()))
	err = errors.Join(
		os.NewSyscallError("set timeout of audit socket", syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &wait)),
		os.NewSyscallError("bind audit socket", syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: groups})),
	)
	if err != nil {
		return -1, errors.Join(err, syscall.Close(fd))
	}
	return fd, nil
}

// auditEnabled needs CAP_AUDIT_CONTROL, although it only asks.
func auditEnabled() (bool, error) {
	fd, err := auditSocket(0)
	if err != nil {
		return false, err
	}
	defer syscall.Close(fd)
	if err := auditSend(fd, auditGet, nil); err != nil {
		return false, err
	}
	messages, err := auditRead(fd)
	if err != nil {
		return false, err
	}
	for _, m := range messages {
		switch {
		case m.Header.Type == syscall.NLMSG_ERROR && len(m.Data) >= 4:
			errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			return false, fmt.Errorf("ask for the state of audit: %w", errno)
		case m.Header.Type == auditGet && len(m.Data) >= 8: // struct audit_status: mask, enabled, ...
			return binary.NativeEndian.Uint32(m.Data[4:]) != 0, nil
		}
	}
	return false, errors.New("ask for the state of audit: no answer")
}

// auditSend sends one message to the kernel.
func auditSend(fd int, kind uint16, data []byte) error {
	m := binary.NativeEndian.AppendUint32(nil, uint32(syscall.NLMSG_HDRLEN+len(data)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, syscall.NLM_F_REQUEST)
	m = append(m, make([]byte, 8)...) // sequence and sender: there is one question
	err := syscall.Sendto(fd, append(m, data...), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK})
	return os.NewSyscallError("send to audit", err)
}

// auditRead returns what the next datagram holds.
func auditRead(fd int) ([]syscall.NetlinkMessage, error) {
	buf := make([]byte, 16<<10) // a record is shorter than 9 KiB
	for {
		n, _, err := syscall.Recvfrom(fd, buf, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read from audit: %w", err)
		}
		// The last message has no padding, without which the parser refuses it.
		return syscall.ParseNetlinkMessage(buf[:(n+syscall.NLMSG_ALIGNTO-1)&^(syscall.NLMSG_ALIGNTO-1)])
	}
}
