package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// StartTime returns when a process began, in clock ticks since the boot: field
// 22 of /proc/PID/stat (proc_pid_stat(5)). With the number of the process and
// the boot it identifies a process: no two have all three.
// The error is os.ErrProcessDone if there is no such process, or only its corpse.
func StartTime(pid int) (uint64, error) {
	b, err := ReadFile("/proc/"+strconv.Itoa(pid)+"/stat", 4096)
	if NotExist(err) || IsErrno(err, unix.ESRCH) {
		return 0, os.ErrProcessDone
	}
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses that may hold anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("process %d: stat has %d fields", pid, len(fields)+2)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// OpenProcess opens the process that has this number and start time. What is
// sent through the descriptor cannot reach another process: the number is
// compared after it was opened. os.ErrProcessDone says that it has ended.
func OpenProcess(pid int, start uint64) (FD, error) {
	if pid <= 0 {
		return None, os.ErrProcessDone
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if IsErrno(err, unix.ESRCH, unix.EINVAL) { // EINVAL: a thread has the number
		return None, os.ErrProcessDone
	}
	if err != nil {
		return None, fmt.Errorf("open process %d: %w", pid, err)
	}
	now, err := StartTime(pid)
	if err == nil && now != start {
		err = os.ErrProcessDone
	}
	if err != nil {
		return None, errors.Join(err, FD(fd).Close())
	}
	return FD(fd), nil
}

// BootID names the time since the last boot.
func BootID() (string, error) {
	b, err := ReadFile("/proc/sys/kernel/random/boot_id", 64)
	return strings.TrimSpace(string(b)), err
}

// SignalProcess sends a signal through a pidfd; os.ErrProcessDone if it has ended.
func SignalProcess(pidfd FD, sig int) error {
	err := SignalPid(pidfd, sig)
	if IsErrno(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// NewProcessWait returns a Waitable for a pidfd, which it duplicates: it is
// readable when the process has ended (5.3).
func NewProcessWait(pidfd FD) (*Waitable, error) {
	fd, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return NewWaitable(FD(fd), "process")
}

// Ended waits until the process of a NewProcessWait has ended, or the Waitable
// is closed (os.ErrClosed). No thread waits meanwhile.
func (w *Waitable) Ended() error {
	return w.when(func(fd int) error {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		if err == nil && n == 0 {
			return unix.EAGAIN
		}
		return err
	})
}

// Executes reports whether a process executes the memfd of that name, such as
// SealedImage makes; one that we may not look into does not. A process that has done so never goes back.
// The caller holds a pidfd, and asks it afterwards whether that still lives.
func Executes(pid int, name string) (bool, error) {
	exe, err := Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if NotExist(err) || IsErrno(err, unix.ESRCH) {
		return false, os.ErrProcessDone
	}
	if IsErrno(err, unix.EACCES) || IsErrno(err, unix.EPERM) {
		// One that changes its ids cannot be looked into (PR_SET_DUMPABLE) until it
		// executes something.
		return false, nil
	}
	return exe == "/memfd:"+name+" (deleted)", err
}
