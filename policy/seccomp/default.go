package seccomp

import (
	"slices"
	"strings"
)

// Default returns the policy of a sandbox that asks for nothing special: an
// allow-list that is wide enough for compilers, package managers, language
// runtimes, databases, git and a shell with job control.
//
// It refuses with an error and never by killing, because programs probe: a call
// that fails is an answer, a dead process is a riddle. A refusal is EPERM, except
// that ENOSYS answers where programs have a fallback for an older kernel. Every
// call in the table is named by a rule, so each refusal has its own reason; the
// default action is for calls that a later table adds.
func Default() Policy {
	return Policy{
		Default: Errno("EPERM"),
		Unknown: Errno("ENOSYS"),
		Rules: slices.Concat(
			fileRules(), modeRules(), memoryRules(), processRules(), cloneRules(), timeRules(),
			identityRules(), ipcRules(), socketRules(), deviceRules(),
			selfRules(), primitiveRules(), hostRules(), mountRules(), fallbackRules(),
		),
	}
}

func fileRules() []Rule {
	return []Rule{
		{
			Calls: names(`read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek
				open openat openat2 creat close close_range dup dup2 dup3 pipe pipe2 fcntl flock
				ftruncate truncate fallocate fsync fdatasync sync syncfs sync_file_range
				fadvise64 readahead sendfile copy_file_range splice tee vmsplice umask`),
			Do:  Allow,
			Why: "reading and writing files; what may be opened is decided by the sandbox's root and by Landlock",
		},
		{
			Calls: names(`stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2
				getdents getdents64 getcwd chdir fchdir readlink readlinkat`),
			Do:  Allow,
			Why: "asking about files shows nothing that the sandbox's root does not hold",
		},
		{
			Calls: names(`mkdir mkdirat rmdir rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat
				chown fchown lchown fchownat
				utime utimes utimensat futimesat file_getattr file_setattr`),
			Do:  Allow,
			Why: "changing names, owners and times; the kernel limits owners to the sandbox's ids",
		},
		{
			Calls: names(`getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat
				setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat`),
			Do:  Allow,
			Why: "tar, cp -a and package managers copy extended attributes; trusted and security ones need capabilities",
		},
		{
			Calls: names("select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4"),
			Do:    Allow,
			Why:   "waiting for descriptors",
		},
		{
			Calls: names("inotify_init inotify_init1 inotify_add_watch inotify_rm_watch"),
			Do:    Allow,
			Why:   "editors, build tools and tail -f watch files that they may read anyway",
		},
		{
			Calls: names("io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents"),
			Do:    Allow,
			Why:   "the old asynchronous I/O of databases; unlike io_uring it makes no other kind of call",
		},
	}
}

const setUID = 0o4000 // S_ISUID

// modeRules keep a program from leaving something in a directory of the host's
// that runs there as its owner. What gives a file its mode when it is made needs
// no rule: it is empty then, and the kernel takes the bit away when somebody
// without CAP_FSETID writes to it (file_remove_privs). The group's bit is left:
// directories have it, and what copies them sets it.
func modeRules() []Rule {
	const why = "changing modes, but for making what runs as its owner"
	return []Rule{
		{Calls: names("chmod fchmod"), When: []Cond{bits(1, setUID, 0)}, Do: Allow, Why: why},
		{Calls: names("fchmodat fchmodat2"), When: []Cond{bits(2, setUID, 0)}, Do: Allow, Why: why},
		{
			Calls: names("chmod fchmod fchmodat fchmodat2"),
			Do:    Errno("EPERM"),
			Why:   "a set-user-ID file in a directory of the host's runs there as its owner, whoever starts it",
		},
	}
}

func memoryRules() []Rule {
	return []Rule{
		{
			Calls: names(`brk mmap munmap mremap mprotect madvise process_madvise msync mincore mseal remap_file_pages
				mlock mlock2 munlock mlockall munlockall memfd_create memfd_secret map_shadow_stack
				pkey_alloc pkey_free pkey_mprotect membarrier`),
			Do:  Allow,
			Why: "a process arranges its own memory, and JIT compilers need pages that are written and then executed",
		},
		{
			Calls: names("mbind get_mempolicy set_mempolicy set_mempolicy_home_node"),
			Do:    Allow,
			Why:   "the JVM, databases and numactl place their own memory; cpuset limits the nodes",
		},
	}
}

func processRules() []Rule {
	return []Rule{
		{
			Calls: names(`fork vfork execve execveat exit exit_group wait4 waitid set_tid_address restart_syscall
				getpid getppid gettid getpgid getpgrp getsid setpgid setsid
				getrlimit setrlimit prlimit64 getrusage times uname sysinfo getcpu getrandom
				getpriority setpriority ioprio_get ioprio_set`),
			Do:  Allow,
			Why: "starting, grouping and measuring processes; limits can be lowered and, without capabilities, not raised",
		},
		{
			Calls: names(`kill tkill tgkill pidfd_open pidfd_send_signal pause sigaltstack
				rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigsuspend rt_sigreturn
				rt_sigqueueinfo rt_tgsigqueueinfo`),
			Do:  Allow,
			Why: "signals reach only processes of the sandbox's own pid namespace",
		},
		{
			Calls: names(`futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list
				rseq rseq_slice_yield`),
			Do:  Allow,
			Why: "locks of the C library and of language runtimes",
		},
		{
			Calls: names(`sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam
				sched_getscheduler sched_setscheduler sched_getattr sched_setattr
				sched_get_priority_max sched_get_priority_min sched_rr_get_interval`),
			Do:  Allow,
			Why: "scheduling of its own threads; real-time classes need a limit or a capability that the sandbox lacks",
		},
	}
}

// Every CLONE_NEW flag that clone takes. CLONE_NEWTIME shares its bit with the
// exit signal there, so only clone3 and unshare can ask for it.
const cloneNamespaces = 0x7e020000

func cloneRules() []Rule {
	return []Rule{
		{
			Calls: names("clone"),
			When:  []Cond{bits(0, cloneNamespaces, 0)},
			Do:    Allow,
			Why:   "threads and processes that stay in the sandbox's namespaces",
		},
		{
			Calls: names("clone unshare setns"),
			Do:    Errno("EPERM"),
			Why:   "a user namespace gives its creator every capability inside, and with it the kernel's code for mounts, nf_tables and traffic control (CVE-2022-0185, CVE-2024-1086)",
		},
		{
			Calls: names("clone3"),
			Do:    Errno("ENOSYS"),
			Why:   "its flags lie behind a pointer where a filter cannot read them; the C library falls back to clone",
		},
	}
}

func timeRules() []Rule {
	return []Rule{
		{
			Calls: names(`time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep alarm getitimer setitimer
				timer_create timer_settime timer_gettime timer_getoverrun timer_delete
				timerfd_create timerfd_settime timerfd_gettime`),
			Do:  Allow,
			Why: "reading the time and waiting",
		},
		{
			Calls: names("clock_settime settimeofday adjtimex clock_adjtime"),
			Do:    Errno("EPERM"),
			Why:   "the clock is the host's; whether adjtimex only reads lies behind a pointer where a filter cannot see it",
		},
	}
}

func identityRules() []Rule {
	return []Rule{
		{
			Calls: names(`getuid geteuid getgid getegid getresuid getresgid getgroups capget
				setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset`),
			Do:  Allow,
			Why: "changing identity needs capabilities over the ids of the sandbox's user namespace and reaches none outside it",
		},
	}
}

func ipcRules() []Rule {
	return []Rule{
		{
			Calls: names(`shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
				mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr`),
			Do:  Allow,
			Why: "System V and POSIX queues, semaphores and shared memory of the sandbox's own IPC namespace (PostgreSQL needs them)",
		},
	}
}

// Socket families, types and protocols, as in socket(2).
const (
	afUnix    = 1
	afInet    = 2
	afInet6   = 10
	afNetlink = 16

	sockStream   = 1
	sockDgram    = 2
	sockTypeMask = 0xf // above it: SOCK_CLOEXEC, SOCK_NONBLOCK

	netlinkRoute = 0

	solTCP = 6
	tcpULP = 31
)

func socketRules() []Rule {
	rules := []Rule{
		{
			Calls: names(`connect bind listen accept accept4 shutdown getsockname getpeername getsockopt
				sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg`),
			Do:  Allow,
			Why: "using a socket; which kinds exist is decided when one is made, where they lead by the network namespace",
		},
		{
			Calls: names("setsockopt"),
			When:  []Cond{is(1, solTCP), is(2, tcpULP)},
			Do:    Errno("ENOPROTOOPT"),
			Why:   "upper-layer protocols put kernel TLS into the socket, a source of use-after-free bugs; TLS libraries go on without",
		},
		{
			Calls: names("setsockopt"),
			Do:    Allow,
			Why:   "options of sockets that the sandbox may make",
		},
		{
			Calls: names("socketpair"),
			When:  []Cond{is(0, afUnix)},
			Do:    Allow,
			Why:   "a pair of connected local sockets",
		},
		{
			Calls: names("socket"),
			When:  []Cond{is(0, afUnix)},
			Do:    Allow,
			Why:   "local sockets; the files that name them are under the sandbox's root",
		},
		{
			Calls: names("socket"),
			When:  []Cond{is(0, afNetlink), is(2, netlinkRoute)},
			Do:    Allow,
			Why:   "getifaddrs and ip read addresses and routes of the sandbox's own network namespace",
		},
	}
	for _, family := range []uint64{afInet, afInet6} {
		rules = append(rules, inetRules(family)...)
	}
	return append(rules,
		Rule{
			Calls: names("socket"),
			When:  []Cond{is(0, afInet)},
			Do:    Errno("EPROTONOSUPPORT"),
			Why:   "raw sockets need a capability; SCTP, DCCP, MPTCP and the rest load rarely used kernel code (CVE-2017-6074)",
		},
		Rule{Calls: names("socket"), When: []Cond{is(0, afInet6)}, Do: Errno("EPROTONOSUPPORT"), Why: "as for AF_INET"},
		Rule{
			Calls: names("socket socketpair"),
			Do:    Errno("EAFNOSUPPORT"),
			Why:   "every other family is kernel code that ordinary programs never use and exploits do: AF_ALG, AF_PACKET, AF_VSOCK, AF_RXRPC, AF_TIPC, netlink beyond routes",
		},
	)
}

func inetRules(family uint64) []Rule {
	var rules []Rule
	for _, s := range []struct {
		kind, protocol uint64
		why            string
	}{
		{sockStream, 0, "TCP, by default of the type"},
		{sockStream, 6, "TCP, asked for by number"},
		{sockDgram, 0, "UDP, by default of the type"},
		{sockDgram, 17, "UDP, asked for by number"},
		{sockDgram, 1, "ping without privilege (ICMP), for groups in net.ipv4.ping_group_range"},
		{sockDgram, 58, "ping without privilege (ICMPv6), for groups in net.ipv4.ping_group_range"},
	} {
		rules = append(rules, Rule{
			Calls: names("socket"),
			When:  []Cond{is(0, family), bits(1, sockTypeMask, s.kind), is(2, s.protocol)},
			Do:    Allow,
			Why:   s.why,
		})
	}
	return rules
}

// Requests of ioctl(2) on terminals, and file types of mknod(2).
const (
	tiocSTI   = 0x5412
	tiocLINUX = 0x541c
	tiocSETD  = 0x5423

	fileTypeMask = 0xf000
)

func deviceRules() []Rule {
	rules := []Rule{
		{
			Calls: names("ioctl"),
			When:  []Cond{is(1, tiocSTI)},
			Do:    Errno("EPERM"),
			Why:   "TIOCSTI types into the terminal, so what it wrote runs in the caller's shell once the sandbox ends",
		},
		{
			Calls: names("ioctl"),
			When:  []Cond{is(1, tiocLINUX)},
			Do:    Errno("EPERM"),
			Why:   "TIOCLINUX pastes into a virtual console, with the effect of TIOCSTI (CVE-2023-28100)",
		},
		{
			Calls: names("ioctl"),
			When:  []Cond{is(1, tiocSETD)},
			Do:    Errno("EPERM"),
			Why:   "TIOCSETD loads line disciplines, old modules that a shell never needs (CVE-2017-2636)",
		},
		{
			Calls: names("ioctl"),
			Do:    Allow,
			Why:   "terminals, file attributes and devices; which devices exist is decided by the sandbox's /dev",
		},
	}
	for _, kind := range []struct {
		mode uint64
		why  string
	}{
		{0x0000, "a regular file, by default"},
		{0x8000, "a regular file"},
		{0x1000, "a FIFO"},
		{0xc000, "a local socket's name"},
	} {
		rules = append(rules,
			Rule{Calls: names("mknod"), When: []Cond{bits(1, fileTypeMask, kind.mode)}, Do: Allow, Why: kind.why},
			Rule{Calls: names("mknodat"), When: []Cond{bits(2, fileTypeMask, kind.mode)}, Do: Allow, Why: kind.why},
		)
	}
	return append(rules, Rule{
		Calls: names("mknod mknodat"),
		Do:    Errno("EPERM"),
		Why:   "a device node reaches a driver whatever directory it lies in",
	})
}

const (
	prSetMM = 35

	// Execution domains of personality(2).
	perLinux = 0x0
	perUname = 0x20000    // UNAME26
	perQuery = 0xffffffff // asks, changes nothing
)

// selfRules are about what a process may do to itself.
func selfRules() []Rule {
	rules := []Rule{
		{
			Calls: names("prctl"),
			When:  []Cond{is(0, prSetMM)},
			Do:    Errno("EPERM"),
			Why:   "PR_SET_MM moves the bounds from which /proc/PID/cmdline and environ are read, so that a process can hide what it is from those who list processes",
		},
		{
			Calls: names("prctl arch_prctl"),
			Do:    Allow,
			Why:   "names, death signals, no_new_privs and thread pointers of the process itself; what would widen its rights needs a capability",
		},
		{
			Calls: names("seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"),
			Do:    Allow,
			Why:   "a workload may confine itself further: the strictest filter's answer wins, and a listener of its own can loosen no refusal made here",
		},
		{
			Calls: names("uretprobe uprobe"),
			Do:    Allow,
			Why:   "the host's probes make these calls from inside the process they watch; made by anyone else they only raise SIGILL",
		},
	}
	for _, persona := range []struct {
		value uint64
		why   string
	}{
		{perLinux, "the ordinary execution domain"},
		{perUname, "uname reports 2.6, for very old programs"},
		{perQuery, "asks for the domain and changes nothing"},
	} {
		rules = append(rules, Rule{
			Calls: names("personality"), When: []Cond{is(0, persona.value)}, Do: Allow, Why: persona.why,
		})
	}
	return append(rules,
		Rule{
			Calls: names("personality"),
			Do:    Errno("EPERM"),
			Why:   "other domains switch off address randomisation, make data executable (READ_IMPLIES_EXEC) or announce a 32-bit system whose calls the filter kills",
		},
		Rule{
			Calls: names("modify_ldt"),
			Do:    Errno("EPERM"),
			Why:   "segments of 16-bit code: the kernel's handling of them was exploited (CVE-2015-3290) and only Wine and DOS emulators need it",
		},
	)
}

// primitiveRules refuse what exploits are built from.
func primitiveRules() []Rule {
	return []Rule{
		{
			Calls: names("io_uring_setup io_uring_enter io_uring_register"),
			Do:    Errno("ENOSYS"),
			Why:   "a second system call table that no filter sees, and a steady source of kernel exploits (CVE-2022-29582, CVE-2023-2598); runtimes fall back to epoll",
		},
		{
			Calls: names("bpf perf_event_open"),
			Do:    Errno("EPERM"),
			Why:   "programs and counters in the kernel: they read other processes and have large verifier and interrupt code behind them",
		},
		{
			Calls: names("userfaultfd"),
			Do:    Errno("EPERM"),
			Why:   "it stops the kernel in the middle of a copy for as long as an exploit needs to win a race",
		},
		{
			Calls: names("ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_mrelease"),
			Do:    Errno("EPERM"),
			Why:   "reaching into another process: memory, descriptors, kernel addresses by comparison; a sandbox for debuggers allows it by a rule of its own",
		},
		{
			Calls: names("keyctl add_key request_key"),
			Do:    Errno("EPERM"),
			Why:   "kernel keyrings belong to a user and not to a sandbox, so they leak between sandboxes; request_key starts a host program (CVE-2016-0728)",
		},
		{
			Calls: names("open_by_handle_at name_to_handle_at"),
			Do:    Errno("EPERM"),
			Why:   "a file handle names an inode anywhere on the file system, outside the sandbox's root too",
		},
		{
			Calls: names("move_pages migrate_pages"),
			Do:    Errno("EPERM"),
			Why:   "moving pages between nodes tells where memory lies and helps in attacks on it",
		},
		{
			Calls: names("fanotify_init fanotify_mark"),
			Do:    Errno("EPERM"),
			Why:   "it watches whole file systems, which the sandbox may share with others; inotify does for programs",
		},
	}
}

// hostRules refuse what belongs to the host as a whole.
func hostRules() []Rule {
	return []Rule{
		{
			Calls: names("init_module finit_module delete_module kexec_load kexec_file_load reboot"),
			Do:    Errno("EPERM"),
			Why:   "the running kernel is the host's",
		},
		{
			Calls: names("iopl ioperm"),
			Do:    Errno("EPERM"),
			Why:   "I/O ports are the hardware's",
		},
		{
			Calls: names("swapon swapoff acct quotactl quotactl_fd"),
			Do:    Errno("EPERM"),
			Why:   "swap, accounting and quotas are kept for the host as a whole",
		},
		{
			Calls: names("sethostname setdomainname vhangup"),
			Do:    Errno("EPERM"),
			Why:   "names and terminals are set up before the workload starts and are not its to change",
		},
		{
			Calls: names("syslog"),
			Do:    Errno("EPERM"),
			Why:   "the kernel's log names other tenants' processes and kernel addresses",
		},
	}
}

func mountRules() []Rule {
	return []Rule{
		{
			Calls: names(`mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick
				open_tree open_tree_attr move_mount mount_setattr`),
			Do:  Errno("EPERM"),
			Why: "the sandbox's root was made before this filter was loaded; changing it would uncover what a mount hides, and parsing mount options has been exploited (CVE-2022-0185)",
		},
		{
			Calls: names("statmount listmount listns"),
			Do:    Errno("ENOSYS"),
			Why:   "they show mounts and namespaces past the masks over /proc; libmount falls back to mountinfo",
		},
	}
}

// fallbackRules answer as a kernel would that does not have the call.
func fallbackRules() []Rule {
	return []Rule{
		{
			Calls: names("lsm_get_self_attr lsm_set_self_attr lsm_list_modules"),
			Do:    Errno("ENOSYS"),
			Why:   "which security modules guard the host is the host's business; libraries fall back to /proc/self/attr",
		},
		{
			Calls: names("cachestat"),
			Do:    Errno("ENOSYS"),
			Why:   "it tells which pages of a shared file others have read; programs that use it do without",
		},
		{
			Calls: names(`_sysctl afs_syscall create_module epoll_ctl_old epoll_wait_old get_kernel_syms
				get_thread_area getpmsg lookup_dcookie nfsservctl putpmsg query_module security
				set_thread_area sysfs tuxcall uselib ustat vserver`),
			Do:  Errno("ENOSYS"),
			Why: "obsolete: removed from Linux, never in it, or unused for decades",
		},
	}
}

// is holds when an argument of C type int has the value.
func is(arg int, value uint64) Cond {
	return Cond{Arg: arg, Op: Eq, Value: value, Width: 32}
}

// bits holds when the masked bits of an argument of C type int have the value.
func bits(arg int, mask, value uint64) Cond {
	return Cond{Arg: arg, Op: MaskedEq, Mask: mask, Value: value, Width: 32}
}

// names splits a list of names that is written as one string.
func names(list string) []string { return strings.Fields(list) }
