package enter

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/child"
	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Page starts a program of one page (package logger) that is to outlive this
// one: outside of every sandbox, in a session and with descriptors of its own.
// fds become its descriptors 0, 1, 2 and so on; they are not closed here. The
// descriptor of the process belongs to the caller.
func Page(name string, image []byte, fds []int) (pid int, pidfd kernel.FD, err error) {
	var held undoStack
	defer func() { err = errors.Join(err, held.run()) }()
	file, err := kernel.SealedImage(name, image)
	if err != nil {
		return 0, kernel.None, err
	}
	held.push(func() error { return file.Close() })
	ours, theirs, err := kernel.SocketPair()
	if err != nil {
		return 0, kernel.None, err
	}
	held.push(func() error { return theirs.Close() })
	status, err := kernel.NewWaitable(ours, "status")
	if err != nil {
		return 0, kernel.None, err
	}
	held.push(status.Close)
	sources := append([]int{int(file), int(theirs)}, fds...)
	for i, fd := range sources {
		n, dup, err := above(fd, len(fds))
		if err != nil {
			return 0, kernel.None, err
		}
		if dup {
			held.push(kernel.FD(n).Close)
		}
		sources[i] = n
	}
	arena, err := pageArena(name, sources[0], sources[2:])
	if err != nil {
		return 0, kernel.None, err
	}
	held.push(arena.Free)
	runtime.LockOSThread()
	p, errno := child.Start(arena, child.How{}, sources[1], -1)
	runtime.UnlockOSThread()
	if errno != 0 {
		return 0, kernel.None, errno
	}
	if err := theirs.Close(); err != nil { // now only the child has it, until it executes
		return 0, kernel.None, err
	}
	theirs = kernel.None
	if err := pageRuns(name, status); err != nil {
		_, _, rerr := kernel.Reap(p.Pid)
		return 0, kernel.None, errors.Join(err, rerr, kernel.FD(p.PidFD).Close())
	}
	return p.Pid, kernel.FD(p.PidFD), nil
}

// pageArena lays out the few steps to the program.
func pageArena(name string, image int, fds []int) (*child.Arena, error) {
	a, err := child.NewArena(len(fds)+6, 256+len(name))
	if err != nil {
		return nil, err
	}
	op := func(nr uintptr, args ...uintptr) {
		o := child.Op{Nr: nr}
		copy(o.Arg[:], args)
		a.Op(o)
	}
	op(syscall.SYS_SETSID)
	op(syscall.SYS_CHDIR, a.String("/")) // nobody's directory is kept from being unmounted
	for to, from := range fds {
		op(syscall.SYS_DUP3, uintptr(from), uintptr(to), 0)
	}
	op(sysCloseRange, uintptr(len(fds)), uintptr(^uint32(0)), abi.CloseRangeExec)
	op(syscallExecveat, uintptr(image), a.String(""), a.Strings([]string{name}), a.Strings(nil), abi.AtEmptyPath)
	if a.Full() {
		return nil, errors.Join(errors.New("this is a bug in nucleus: the page's steps do not fit"), a.Free())
	}
	if err := a.Seal(); err != nil {
		return nil, errors.Join(err, a.Free())
	}
	return a, nil
}

// pageRuns waits until the program is executed, which closes the socket, or
// until the child says what failed.
func pageRuns(name string, status *kernel.Waitable) error {
	var b [8]byte
	n, _, err := status.Receive(b[:], true)
	switch {
	case kernel.IsErrno(err, kernel.ECONNRESET), err == nil && n == 0:
		return nil
	case err != nil:
		return fmt.Errorf("start %s: %w", name, err)
	}
	return fmt.Errorf("start %s: %w", name, syscall.Errno(b[4]))
}
