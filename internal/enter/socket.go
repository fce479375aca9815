package enter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/child"
	"github.com/nucleus-container/nucleus/internal/kernel"
)

// kindSocket is the message that carries a socket of a sandbox's network.
const kindSocket = -5

// socketCalls name the steps of Socket, for the words about a failure.
var socketCalls = [...]string{"close_range", "close_range", "close_range", "setns", "socket", "sendmsg"}

// Socket opens an unconnected, non-blocking TCP socket of the given address
// family in the network of the sandbox whose process 1 pidfd names. namespaces
// says which of a user and a network namespace it has of its own
// (abi.CloneNew*). The descriptor belongs to the caller.
//
// A child joins the two and hands the socket out; it executes nothing. In its
// user namespace it has every right over that network, and it shares our memory:
// what is in the sandbox must not get at it. It is not in the sandbox's process
// namespace, so nobody there can see, signal or trace it, and it lives for six
// system calls.
func Socket(pidfd kernel.FD, namespaces uint64, family int) (socket kernel.FD, err error) {
	var held undoStack
	defer func() { err = errors.Join(err, held.run()) }()
	ours, theirs, err := kernel.SocketPair()
	if err != nil {
		return kernel.None, err
	}
	status, err := kernel.NewWaitable(ours, "status")
	if err != nil {
		return kernel.None, errors.Join(err, theirs.Close())
	}
	held.push(status.Close)
	held.push(theirs.Close)
	fds := [2]int{int(theirs), int(pidfd)}
	for i, fd := range fds {
		n, dup, err := above(fd, 1) // 0 is where the socket comes to be
		if err != nil {
			return kernel.None, err
		}
		if dup {
			held.push(kernel.FD(n).Close)
		}
		fds[i] = n
	}
	arena, err := socketArena(fds[0], fds[1], uintptr(namespaces&(abi.CloneNewUser|abi.CloneNewNet)), family)
	if err != nil {
		return kernel.None, err
	}
	held.push(arena.Free)
	ids := setup.enter(true) // a user namespace can cost us our dumpable flag, as a user id does
	held.push(ids.leave)
	runtime.LockOSThread()
	p, errno := child.Start(arena, child.How{}, fds[0], -1)
	runtime.UnlockOSThread()
	if errno != 0 {
		return kernel.None, errno
	}
	// It cannot wait for anything, so it has said what it will say when it is gone.
	_, _, err = kernel.Reap(p.Pid)
	if err = errors.Join(err, kernel.FD(p.PidFD).Close()); err != nil {
		return kernel.None, err
	}
	return socketSent(status)
}

// socketArena lays out the steps. The child's descriptors are a copy of ours, and
// one of them must be known beforehand: all but two are closed, so that the
// socket is 0.
func socketArena(state, pidfd int, flags uintptr, family int) (*child.Arena, error) {
	a, err := child.NewArena(len(socketCalls), 512)
	if err != nil {
		return nil, err
	}
	words := func(v ...uint64) uintptr {
		b := make([]byte, 0, 8*len(v))
		for _, x := range v {
			b = binary.NativeEndian.AppendUint64(b, x)
		}
		return a.Data(b)
	}
	low, high := uintptr(min(state, pidfd)), uintptr(max(state, pidfd))
	a.Op(child.Op{Nr: sysCloseRange, Arg: [6]uintptr{0, low - 1}})
	// Without a gap the range is the wrong way round, which is EINVAL.
	a.Op(child.Op{Nr: sysCloseRange, Arg: [6]uintptr{low + 1, high - 1}, Allow: uintptr(syscall.EINVAL)})
	a.Op(child.Op{Nr: sysCloseRange, Arg: [6]uintptr{high + 1, uintptr(^uint32(0))}})
	join := child.Op{Nr: sysSetns, Arg: [6]uintptr{uintptr(pidfd), flags}}
	if flags == 0 { // the host's network
		join = child.Op{Nr: syscall.SYS_GETPID}
	}
	a.Op(join)
	a.Op(child.Op{Nr: syscall.SYS_SOCKET, Arg: [6]uintptr{uintptr(family), syscall.SOCK_STREAM | syscall.SOCK_NONBLOCK | syscall.SOCK_CLOEXEC}})
	kind := int32(kindSocket)
	body := binary.NativeEndian.AppendUint64(nil, uint64(uint32(kind))) // the errno is 0
	iov := words(uint64(a.Data(body)), uint64(len(body)))
	control := words(20, uint64(syscall.SOL_SOCKET)|uint64(syscall.SCM_RIGHTS)<<32, 0) // struct cmsghdr, little endian; descriptor 0
	a.Op(child.Op{Nr: syscall.SYS_SENDMSG, Arg: [6]uintptr{uintptr(state), words(0, 0, uint64(iov), 1, uint64(control), 24, 0)}, Want: uintptr(len(body))})
	if a.Full() {
		return nil, errors.Join(errors.New("this is a bug in nucleus: the socket's steps do not fit"), a.Free())
	}
	if err := a.Seal(); err != nil {
		return nil, errors.Join(err, a.Free())
	}
	return a, nil
}

// socketSent takes what a child that is gone has sent.
func socketSent(status *kernel.Waitable) (kernel.FD, error) {
	var b [8]byte
	n, socket, err := status.Receive(b[:], false)
	if err != nil {
		return socket, fmt.Errorf("the socket's child was killed: %w", err)
	}
	op := int32(binary.NativeEndian.Uint32(b[:]))
	switch {
	case n == len(b) && op == kindSocket && socket != kernel.None:
		return socket, nil
	case n == len(b) && op >= 0 && int(op) < len(socketCalls):
		err = fmt.Errorf("%s: %w", socketCalls[op], syscall.Errno(binary.NativeEndian.Uint32(b[4:])))
	default:
		err = fmt.Errorf("this is a bug in nucleus: message %d of %d bytes from the socket's child", op, n)
	}
	return kernel.None, errors.Join(err, socket.Close())
}
