package profiles

import (
	"strings"

	"github.com/nucleus-container/nucleus/policy/seccomp"
)

func allow(calls, why string) seccomp.Rule {
	return seccomp.Rule{Calls: strings.Fields(calls), Do: seccomp.Allow, Why: why}
}

// start is what every program needs to be started, and to end.
func start() []seccomp.Rule {
	return []seccomp.Rule{
		allow("execve execveat exit exit_group", "a program is executed, and ends"),
		allow("arch_prctl prctl set_tid_address rseq set_robust_list get_robust_list futex restart_syscall uretprobe uprobe", "the C library sets up a thread"),
		allow("getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getpgrp getsid getrlimit prlimit64 getrusage times uname sysinfo getcpu getrandom sched_getaffinity sched_yield getpriority",
			"questions about itself and the machine"),
		allow("rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause kill tgkill tkill rt_sigqueueinfo rt_tgsigqueueinfo", "signals, to itself and in the sandbox"),
		allow("time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep alarm getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete", "the time, and waiting for it"),
		allow("poll ppoll select pselect6", "waiting for descriptors"),
	}
}

func memory() []seccomp.Rule {
	return []seccomp.Rule{
		allow("brk mmap munmap mremap mprotect madvise mincore msync", "memory of its own, and programs' code"),
	}
}

// Access modes and what makes or cuts a file, as openat(2) takes them; they are
// the same on both architectures.
const notReading = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000 // O_ACCMODE O_CREAT O_TRUNC O_APPEND __O_TMPFILE

// readFiles opens nothing for writing. Where a profile has writeFiles too, that
// decides.
func readFiles() []seccomp.Rule {
	reading := func(call string, arg int) seccomp.Rule {
		r := allow(call, "opening files to read them; which those are is decided by the sandbox's root")
		r.When = []seccomp.Cond{{Arg: arg, Op: seccomp.MaskedEq, Mask: notReading, Width: 32}}
		return r
	}
	return []seccomp.Rule{
		reading("open", 1), reading("openat", 2),
		allow("read readv pread64 preadv preadv2 write writev lseek close close_range dup dup2 dup3 fcntl", "descriptors that it has"),
		allow("stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 getdents getdents64 getcwd chdir fchdir readlink readlinkat fadvise64 readahead getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr",
			"questions about files"),
		allow("ioctl", "whether a descriptor is a terminal; devices are those of the sandbox's /dev"),
	}
}

func writeFiles() []seccomp.Rule {
	return []seccomp.Rule{
		allow("open openat openat2 creat pwrite64 pwritev pwritev2 ftruncate truncate fallocate fsync fdatasync sync syncfs sync_file_range flock umask copy_file_range sendfile splice tee",
			"writing files; which may be written is decided by mounts and Landlock"),
		allow("mkdir mkdirat rmdir rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat", "names in directories"),
		allow("chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr file_getattr file_setattr", "modes, owners, times and attributes of its files"),
	}
}

func processes() []seccomp.Rule {
	return []seccomp.Rule{
		allow("fork vfork clone wait4 waitid setpgid setsid setrlimit setpriority pipe pipe2", "starting programs, in the sandbox's namespaces"),
		allow("clone3", "answered as by an older kernel, so that libraries use clone"),
		allow("pidfd_open pidfd_send_signal", "signals without a race"),
	}
}

func threads() []seccomp.Rule {
	return []seccomp.Rule{
		allow("futex_waitv futex_wake futex_wait futex_requeue membarrier", "locks between threads"),
		allow("sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min sched_setaffinity sched_getattr sched_rr_get_interval", "where its threads run"),
	}
}

func waiting() []seccomp.Rule {
	return []seccomp.Rule{
		allow("epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime", "event loops"),
	}
}

// terminal is a block for people to read: ioctl is in readFiles.
func terminal() []seccomp.Rule {
	return []seccomp.Rule{allow("ioctl", "terminals and job control; the default policy refuses what would type for the user")}
}

func sockets() []seccomp.Rule {
	return []seccomp.Rule{
		allow("socket socketpair connect bind listen accept accept4 shutdown getsockname getpeername getsockopt setsockopt sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg",
			"local sockets and IP; where they lead is decided by the network namespace"),
	}
}

func memoryFiles() []seccomp.Rule {
	return []seccomp.Rule{
		allow("memfd_create", "files in memory: shared memory between processes, programs that are built and run"),
		allow("mlock munlock mlock2", "secrets that must not be swapped, within the limit"),
	}
}

func jit() []seccomp.Rule {
	return []seccomp.Rule{
		allow("pkey_alloc pkey_free pkey_mprotect", "a JIT compiler locks the pages that it does not write"),
		allow("mseal", "and makes those final that it has finished"),
	}
}

func watching() []seccomp.Rule {
	return []seccomp.Rule{
		allow("inotify_init inotify_init1 inotify_add_watch inotify_rm_watch", "build tools and development servers watch files"),
	}
}

func capabilitiesAsked() []seccomp.Rule {
	return []seccomp.Rule{allow("capget", "asks whether it may bind low ports, or has a sandbox of its own")}
}

func sharedMemory() []seccomp.Rule {
	return []seccomp.Rule{
		allow("shmget shmat shmdt shmctl semget semop semtimedop semctl", "System V shared memory and semaphores of the sandbox's own IPC namespace"),
		allow("memfd_create", "shared memory without a name"),
	}
}

func databaseFiles() []seccomp.Rule {
	return []seccomp.Rule{
		allow("io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents", "asynchronous reads and writes of a database"),
		allow("sync_file_range fdatasync", "flushing what has been written, in time"),
		allow("mlock munlock mlock2 get_mempolicy mbind set_mempolicy", "buffers that stay in memory, on nodes of their own"),
	}
}

func confining() []seccomp.Rule {
	return []seccomp.Rule{
		allow("seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self", "a browser confines its renderers further; that can only narrow"),
	}
}

func scheduling() []seccomp.Rule {
	return []seccomp.Rule{
		allow("sched_setscheduler sched_setparam sched_setattr ioprio_get ioprio_set", "threads for sound and pictures; real-time classes need a right that the sandbox lacks"),
	}
}
