// Package child is the code that runs between clone and exec, and the one way
// into a sandbox.
//
// # What happens here
//
// [Start] makes a process with clone3. The new process shares this program's
// memory (CLONE_VM) until it executes another program, but it has a stack of
// its own and nothing else to write to. It does not run Go code as Go knows it:
// it runs [run], a loop over a list of system calls that was laid out, with all
// their arguments, before it existed. When one fails it reports which and why
// in eight bytes and exits; the last one is an execve.
//
// # Why not vfork, why not fork
//
// A plain fork copies the caller's page tables: 16 ms for a Go program with a
// heap of 1 GiB. CLONE_VFORK avoids that and suspends the calling thread until
// the child executes; a child that waits for its parent (so that the parent can
// write its id maps, or put it in a control group) then blocks the garbage
// collector for ever, because the suspended thread can never be stopped. With
// CLONE_VM alone neither happens: no page table is copied, and the calling
// thread goes on at once, as ordinary Go code that the scheduler knows about.
//
// # Why that is safe
//
// The child can touch memory only through run, and run writes only to its own
// stack, which is not Go memory:
//
//  1. This package imports syscall and unsafe; nothing else.
//  2. run calls syscall.RawSyscall6 and nothing else. That is checked on the
//     machine code, in four kinds of build, by TestRunCallsOnlyRawSyscall6. So
//     there is no stack growth, no write barrier, no bounds check that could
//     panic, no instrumentation.
//  3. Everything that run reads was mapped by [NewArena], not allocated by Go,
//     and is read-only from before the clone until the child is gone from this
//     address space; the memory management unit enforces it.
//  4. The caller's signals are blocked over the clone and stay blocked in the
//     child; CLONE_CLEAR_SIGHAND drops Go's handlers. No Go signal handler can
//     run there. (The child's program unblocks them when it is ready.)
//  5. The assembly calls run by its address and not by its name. A call by name
//     goes through a wrapper of the compiler's, which a -race build instruments
//     although run is marked norace.
//
// Two facts of the shared memory are the caller's duty. "Dumpable" belongs to
// the address space: a child that changes its user id clears it for us, and the
// caller puts it back ([internal/enter] does). And the out-of-memory killer
// kills every process that shares a victim's memory: a memory limit so small
// that setting up the sandbox exceeds it would take the caller along, so
// spec.MinMemory keeps limits above that.
//
// The sandbox cannot see the child while it shares our memory: it is alone in
// its process namespace, and what it executes first is the init (package pid1),
// in memory of its own.
//
// A change in this package carries a fresh disassembly in its commit message.
package child

import (
	"syscall"
	"unsafe"
)

// Op is one system call, ready to be made.
type Op struct {
	Nr    uintptr
	Arg   [6]uintptr
	Want  uintptr // if not zero, the result that the call must have; another one is EPIPE
	Allow uintptr // an errno that is not an error, or 0
}

const opSize = unsafe.Sizeof(Op{})

// Report is what a child says before it gives up: which operation failed, and how.
// It is sent as is, eight bytes in host order.
type Report struct {
	Index int32
	Errno int32
}

// ReportSize is the size of a Report in bytes.
const ReportSize = int(unsafe.Sizeof(Report{}))

// cloneArgs is struct clone_args of linux/sched.h, as of 5.7 (88 bytes).
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

const (
	cloneVM           = 0x100
	clonePidFD        = 0x1000
	cloneClearSighand = 0x1_0000_0000
	cloneIntoCgroup   = 0x2_0000_0000
)

// clone3Run issues clone3. The parent returns; the child calls entry, which is
// run's address, on the stack named in args and never returns.
func clone3Run(args *cloneArgs, size, entry uintptr, ops unsafe.Pointer, n, errfd uintptr) (pid, errno uintptr)

// work is what run is given. The array keeps it out of registers in both of
// Go's calling conventions, so that the assembly needs to know neither.
type work struct {
	ops      unsafe.Pointer
	n, errfd uintptr
	_        [2]uintptr
}

// run executes n operations and never returns: the last one executes a program,
// or something failed. It may call only RawSyscall6.
//
//go:nosplit
//go:norace
//go:nocheckptr
func run(w work) {
	var rep Report
	for i := uintptr(0); i < w.n; i++ {
		// SAFETY: ops points to n operations in a read-only mapping that the
		// parent keeps until this process has left its memory.
		o := (*Op)(unsafe.Add(w.ops, i*opSize))
		v, _, e := syscall.RawSyscall6(o.Nr, o.Arg[0], o.Arg[1], o.Arg[2], o.Arg[3], o.Arg[4], o.Arg[5])
		if e == 0 && o.Want != 0 && v != o.Want {
			e = syscall.EPIPE
		}
		if e != 0 && uintptr(e) != o.Allow {
			rep.Index, rep.Errno = int32(i), int32(e)
			// SAFETY: rep is on this process's own stack.
			syscall.RawSyscall6(syscall.SYS_WRITE, w.errfd, uintptr(unsafe.Pointer(&rep)), unsafe.Sizeof(rep), 0, 0, 0)
			break
		}
	}
	for {
		syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 125, 0, 0, 0, 0, 0)
	}
}

// Process is a child that has been started.
type Process struct {
	Pid   int
	PidFD int // close-on-exec; owned by the caller
}

// How says what kind of process Start makes.
type How struct {
	Flags uint64 // CLONE_NEW*
	// Copy gives the process a copy of our memory instead of the memory itself.
	// It costs time in proportion to what we have; only a process that enters a
	// time namespace has to have it (setns(2): it must not share memory).
	Copy bool
}

// Start makes a process that performs the arena's operations. Reports go to descriptor errfd of the child. If cgroup is
// not negative it is a directory of a version 2 hierarchy that the child is born
// in (Linux 5.7). The arena must be kept until the child has executed a program or
// ended.
func Start(a *Arena, how How, errfd, cgroup int) (Process, syscall.Errno) {
	var pidfd int32
	args := &cloneArgs{
		flags:      how.Flags | cloneVM | clonePidFD | cloneClearSighand,
		pidFD:      uint64(uintptr(unsafe.Pointer(&pidfd))),
		exitSignal: uint64(syscall.SIGCHLD),
		stack:      uint64(a.base()),
		stackSize:  stackSize,
	}
	if how.Copy {
		args.flags &^= cloneVM
	}
	if cgroup >= 0 {
		args.flags |= cloneIntoCgroup
		args.cgroup = uint64(cgroup)
	}
	// SAFETY: a function value points to a word that is the function's address.
	entry := run
	pc := **(**uintptr)(unsafe.Pointer(&entry))
	pid, e := masked(args, pc, a.ops(), uintptr(a.n), uintptr(errfd))
	if e != 0 {
		return Process{PidFD: -1}, syscall.Errno(e)
	}
	return Process{Pid: int(pid), PidFD: int(pidfd)}, 0
}

// masked clones with all signals blocked. It needs no runtime.LockOSThread, which
// starts a thread: a goroutine changes threads only where it may be preempted,
// in the prologue of a function that can grow the stack or by a signal, and here
// is neither (TestRunCallsOnlyRawSyscall6).
//
//go:nosplit
//go:norace
//go:nocheckptr
func masked(args *cloneArgs, entry uintptr, ops unsafe.Pointer, n, errfd uintptr) (pid, errno uintptr) {
	all, old := ^uintptr(0), uintptr(0)
	// SAFETY: all and old live on this stack over the calls; the kernel copies them.
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	// SAFETY: args and the pidfd that it points to live on this goroutine's stack,
	// which cannot move during the call; ops point into the arena's mapping.
	pid, errno = clone3Run(args, unsafe.Sizeof(*args), entry, ops, n, errfd)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	return pid, errno
}
