package seccomp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const dirty = 0xdeadbeef << 32 // upper bits that the kernel ignores in an int

// A probe is a call that the default policy must answer in one way.
type probe struct {
	name string
	call string
	args [6]uint64
	want Action
}

const (
	eperm  = Action("EPERM")
	enosys = Action("ENOSYS")
)

// refusals are the families of kernel surface that the default removes, each with
// the call that a program or an exploit makes.
var refusals = []probe{
	{"AF_ALG", "socket", [6]uint64{38, 5, 0}, "EAFNOSUPPORT"},
	{"AF_ALG dirty", "socket", [6]uint64{dirty | 38, 5, 0}, "EAFNOSUPPORT"},
	{"AF_RXRPC", "socket", [6]uint64{33, 2, 2}, "EAFNOSUPPORT"},
	{"NETLINK_XFRM", "socket", [6]uint64{16, 3, 6}, "EAFNOSUPPORT"},
	{"NETLINK_NETFILTER", "socket", [6]uint64{16, 3, 12}, "EAFNOSUPPORT"},
	{"NETLINK_AUDIT", "socket", [6]uint64{16, 3, 9}, "EAFNOSUPPORT"},
	{"NETLINK_KOBJECT_UEVENT", "socket", [6]uint64{16, 3, 15}, "EAFNOSUPPORT"},
	{"AF_PACKET", "socket", [6]uint64{17, 3, 0x300}, "EAFNOSUPPORT"},
	{"AF_VSOCK", "socket", [6]uint64{40, 1, 0}, "EAFNOSUPPORT"},
	{"AF_TIPC", "socket", [6]uint64{30, 5, 0}, "EAFNOSUPPORT"},
	{"AF_KEY", "socket", [6]uint64{15, 3, 2}, "EAFNOSUPPORT"},
	{"AF_XDP", "socket", [6]uint64{44, 3, 0}, "EAFNOSUPPORT"},
	{"AF_CAN", "socket", [6]uint64{29, 3, 1}, "EAFNOSUPPORT"},
	{"AF_BLUETOOTH", "socket", [6]uint64{31, 3, 1}, "EAFNOSUPPORT"},
	{"AF_NFC", "socket", [6]uint64{39, 3, 0}, "EAFNOSUPPORT"},
	{"AF_SMC", "socket", [6]uint64{43, 1, 0}, "EAFNOSUPPORT"},
	{"AF_QIPCRTR", "socket", [6]uint64{42, 2, 0}, "EAFNOSUPPORT"},
	{"AF_TIPC pair", "socketpair", [6]uint64{30, 5, 0}, "EAFNOSUPPORT"},
	{"raw IPv4", "socket", [6]uint64{2, 3, 1}, "EPROTONOSUPPORT"},
	{"raw IPv6", "socket", [6]uint64{10, 3, 58}, "EPROTONOSUPPORT"},
	{"SOCK_PACKET", "socket", [6]uint64{2, 10, 0}, "EPROTONOSUPPORT"},
	{"SCTP stream", "socket", [6]uint64{2, 1, 132}, "EPROTONOSUPPORT"},
	{"SCTP seqpacket", "socket", [6]uint64{10, 5, 0}, "EPROTONOSUPPORT"},
	{"DCCP", "socket", [6]uint64{2, 6, 0}, "EPROTONOSUPPORT"},
	{"MPTCP", "socket", [6]uint64{2, 1, 262}, "EPROTONOSUPPORT"},
	{"L2TP", "socket", [6]uint64{2, 2, 115}, "EPROTONOSUPPORT"},
	{"kernel TLS", "setsockopt", [6]uint64{3, 6, 31}, "ENOPROTOOPT"},
	{"io_uring_setup", "io_uring_setup", [6]uint64{}, enosys},
	{"io_uring_enter", "io_uring_enter", [6]uint64{}, enosys},
	{"io_uring_register", "io_uring_register", [6]uint64{}, enosys},
	{"chmod u+s", "chmod", [6]uint64{0, 0o4755}, eperm},
	{"fchmod u+s", "fchmod", [6]uint64{3, 0o6755}, eperm},
	{"fchmodat u+s", "fchmodat", [6]uint64{3, 0, 0o4755}, eperm},
	{"fchmodat2 u+s dirty", "fchmodat2", [6]uint64{3, 0, dirty | 0o4000, 0}, eperm},
	{"clone NEWUSER", "clone", [6]uint64{0x10000011}, eperm},
	{"clone NEWUSER dirty", "clone", [6]uint64{dirty | 0x10000011}, eperm},
	{"clone NEWNS", "clone", [6]uint64{0x20011}, eperm},
	{"clone NEWNET", "clone", [6]uint64{0x40000011}, eperm},
	{"clone NEWPID", "clone", [6]uint64{0x20000011}, eperm},
	{"clone NEWIPC", "clone", [6]uint64{0x8000011}, eperm},
	{"clone NEWUTS", "clone", [6]uint64{0x4000011}, eperm},
	{"clone NEWCGROUP", "clone", [6]uint64{0x2000011}, eperm},
	{"clone3", "clone3", [6]uint64{}, enosys},
	{"unshare", "unshare", [6]uint64{0x10000000}, eperm},
	{"setns", "setns", [6]uint64{}, eperm},
	{"TIOCSTI", "ioctl", [6]uint64{0, 0x5412}, eperm},
	{"TIOCSTI dirty", "ioctl", [6]uint64{0, dirty | 0x5412}, eperm},
	{"TIOCSTI bit 32", "ioctl", [6]uint64{0, 1<<32 | 0x5412}, eperm},
	{"TIOCLINUX", "ioctl", [6]uint64{0, 0x541c}, eperm},
	{"TIOCLINUX dirty", "ioctl", [6]uint64{0, dirty | 0x541c}, eperm},
	{"TIOCSETD", "ioctl", [6]uint64{0, 0x5423}, eperm},
	{"block device", "mknodat", [6]uint64{0, 0, 0x61b0}, eperm},
	{"block device dirty", "mknodat", [6]uint64{0, 0, dirty | 0x61b0}, eperm},
	{"character device", "mknodat", [6]uint64{0, 0, 0x21b0}, eperm},
	{"PR_SET_MM", "prctl", [6]uint64{35}, eperm},
	{"PER_LINUX32", "personality", [6]uint64{8}, eperm},
	{"UNAME26 and PER_LINUX32", "personality", [6]uint64{0x20008}, eperm},
	{"ADDR_NO_RANDOMIZE", "personality", [6]uint64{0x40000}, eperm},
	{"READ_IMPLIES_EXEC", "personality", [6]uint64{0x400000}, eperm},
}

// refusedWhole are calls that are refused whatever their arguments.
const refusedWhole = `keyctl add_key request_key bpf perf_event_open userfaultfd ptrace process_vm_readv
	process_vm_writev kcmp pidfd_getfd process_mrelease open_by_handle_at name_to_handle_at
	mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick open_tree open_tree_attr
	move_mount mount_setattr init_module finit_module delete_module kexec_load
	kexec_file_load reboot swapon swapoff acct quotactl quotactl_fd clock_settime settimeofday
	adjtimex clock_adjtime sethostname setdomainname syslog vhangup move_pages
	migrate_pages fanotify_init fanotify_mark`

// permissions are what everyday programs do and a filter has broken before.
var permissions = []probe{
	{"thread", "clone", [6]uint64{0x3d0f00}, Allow},
	{"fork by clone", "clone", [6]uint64{0x1200011}, Allow},
	{"vfork by clone, SIGCHLD", "clone", [6]uint64{0x4111}, Allow},
	{"local socket", "socket", [6]uint64{1, 1 | 0x80000, 0}, Allow},
	{"local seqpacket", "socket", [6]uint64{1, 5, 0}, Allow},
	{"TCP", "socket", [6]uint64{2, 1 | 0x80800, 6}, Allow},
	{"TCP over IPv6", "socket", [6]uint64{10, 1, 0}, Allow},
	{"UDP", "socket", [6]uint64{2, 2 | 0x80000, 0}, Allow},
	{"UDP over IPv6", "socket", [6]uint64{10, 2, 17}, Allow},
	{"ping", "socket", [6]uint64{2, 2, 1}, Allow},
	{"ping over IPv6", "socket", [6]uint64{10, 2, 58}, Allow},
	{"getifaddrs", "socket", [6]uint64{16, 3 | 0x80000, 0}, Allow},
	{"socketpair", "socketpair", [6]uint64{1, 1, 0}, Allow},
	{"TCP_NODELAY", "setsockopt", [6]uint64{3, 6, 1}, Allow},
	{"SO_REUSEADDR", "setsockopt", [6]uint64{3, 1, 2}, Allow},
	{"option 31 of another level", "setsockopt", [6]uint64{3, 1, 31}, Allow},
	{"TCGETS", "ioctl", [6]uint64{0, 0x5401}, Allow},
	{"TIOCSPGRP", "ioctl", [6]uint64{0, 0x5410}, Allow},
	{"TIOCSCTTY", "ioctl", [6]uint64{0, 0x540e}, Allow},
	{"FIONREAD", "ioctl", [6]uint64{0, 0x541b}, Allow},
	{"chmod 777", "fchmodat2", [6]uint64{0, 0, 0o777}, Allow},
	{"chmod g+s", "fchmodat", [6]uint64{0, 0, 0o2775}, Allow},
	{"chmod +t", "fchmod", [6]uint64{0, 0o1777}, Allow},
	{"chmod of upper bits", "fchmod", [6]uint64{0, 1<<32 | 0o755}, Allow},
	{"mkfifo", "mknodat", [6]uint64{0, 0, 0x11a4}, Allow},
	{"regular file", "mknodat", [6]uint64{0, 0, 0x81a4}, Allow},
	{"regular file by default", "mknodat", [6]uint64{0, 0, 0x1a4}, Allow},
	{"socket file", "mknodat", [6]uint64{0, 0, 0xc1a4}, Allow},
	{"PR_SET_NAME", "prctl", [6]uint64{15}, Allow},
	{"PR_SET_NO_NEW_PRIVS", "prctl", [6]uint64{38}, Allow},
	{"personality query", "personality", [6]uint64{0xffffffff}, Allow},
	{"personality of setarch", "personality", [6]uint64{0}, Allow},
	{"UNAME26", "personality", [6]uint64{0x20000}, Allow},
}

// allowedWhole are the calls whose absence broke shells, tar, git, PostgreSQL,
// node and the C libraries elsewhere, and newer ones that they now try first.
const allowedWhole = `rt_sigtimedwait statfs fchown fchownat setpgid getpgid utimensat getxattr setxattr setitimer
	openat2 inotify_init1 memfd_create setuid setgid setgroups getpriority setpriority ioprio_set
	sched_get_priority_max sched_setscheduler membarrier mincore recvmmsg sendmmsg syncfs timer_create
	epoll_pwait2 pidfd_open pidfd_send_signal getsid tkill capget prlimit64 sysinfo execveat statx faccessat2
	close_range rseq landlock_create_ruleset landlock_restrict_self seccomp futex_waitv shmget semop msgsnd
	mq_open mbind set_mempolicy get_mempolicy mseal copy_file_range restart_syscall setxattrat file_getattr
	pkey_alloc io_submit clock_gettime getrandom`

func (q probe) on(t *testing.T, a Arch) (Data, bool) {
	t.Helper()
	if !Known(q.call) {
		t.Fatalf("%s: no call %s", q.name, q.call)
	}
	nr, ok := a.Number(q.call)
	return Data{NR: nr, Arch: a.AuditArch(), Args: q.args}, ok
}

func whole(calls string, want Action) []probe {
	var probes []probe
	for _, call := range names(calls) {
		ones := [6]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
		probes = append(probes, probe{call, call, [6]uint64{}, want}, probe{call + " with ones", call, ones, want})
	}
	return probes
}

func TestDefaultAnswers(t *testing.T) {
	probes := slices.Concat(refusals, permissions, whole(refusedWhole, eperm), whole(allowedWhole, Allow),
		whole("fork vfork open stat arch_prctl getpgrp pause utimes time", Allow), whole("iopl ioperm modify_ldt", eperm))
	for _, a := range []Arch{AMD64, ARM64} {
		p := DefaultProgram(a)
		for _, q := range probes {
			if d, ok := q.on(t, a); ok {
				if got := p.Eval(d); got != q.want {
					t.Errorf("%s %s: got %s, want %s", a, q.name, got, q.want)
				}
			}
		}
	}
}

// Each refusal is there because a rule says so: with the rules that refuse the
// call turned into permissions, the compiled answer flips.
func TestRefusalsComeFromTheirRules(t *testing.T) {
	for _, q := range append(whole(refusedWhole, eperm), refusals...) {
		p := Default()
		for i, r := range p.Rules {
			if slices.Contains(r.Calls, q.call) && r.Do != Allow {
				p.Rules[i].Do = Allow
			}
		}
		for _, a := range []Arch{AMD64, ARM64} {
			if d, ok := q.on(t, a); ok {
				if got := compiled(t, p, a).Eval(d); got != Allow {
					t.Errorf("%s %s: got %s without its rule, so another line refuses it", a, q.name, got)
				}
			}
		}
	}
}

// Without the rule that decides a probe, the answer is another one, or the rule
// is one of several that say the same and the test names them.
func TestEveryPermissionNeedsARule(t *testing.T) {
	for _, q := range append(whole(allowedWhole, Allow), permissions...) {
		p := Default()
		p.Rules = slices.DeleteFunc(p.Rules, func(r Rule) bool {
			return r.Do == Allow && slices.Contains(r.Calls, q.call)
		})
		if d, ok := q.on(t, ARM64); ok {
			if got := compiled(t, p, ARM64).Eval(d); got == Allow {
				t.Errorf("%s: still allowed without its rule", q.name)
			}
		}
	}
}

func TestForeignCallsKill(t *testing.T) {
	for _, tt := range []struct {
		name string
		arch Arch
		data Data
		want Action
	}{
		{"i386 on amd64", AMD64, Data{NR: 3, Arch: 0x40000003}, KillProcess},
		{"arm64 on amd64", AMD64, Data{NR: 63, Arch: ARM64.AuditArch()}, KillProcess},
		{"arm on arm64", ARM64, Data{NR: 3, Arch: 0x40000028}, KillProcess},
		{"no arch", AMD64, Data{NR: 0}, KillProcess},
		{"x32 read", AMD64, Data{NR: x32Bit, Arch: AMD64.AuditArch()}, KillProcess},
		{"x32 ptrace", AMD64, Data{NR: x32Bit | 521, Arch: AMD64.AuditArch()}, KillProcess},
		{"x32 and bit 31", AMD64, Data{NR: 3 << 30, Arch: AMD64.AuditArch()}, KillProcess},
		{"x32 number without its bit", AMD64, Data{NR: 521, Arch: AMD64.AuditArch()}, enosys},
		{"-1", AMD64, Data{NR: ^uint32(0), Arch: AMD64.AuditArch()}, enosys},
		{"bit 31 only", AMD64, Data{NR: 1 << 31, Arch: AMD64.AuditArch()}, enosys},
		{"bit 30 on arm64", ARM64, Data{NR: x32Bit, Arch: ARM64.AuditArch()}, enosys},
		{"a call of the future", AMD64, Data{NR: 480, Arch: AMD64.AuditArch()}, enosys},
		{"a hole in the table", AMD64, Data{NR: 400, Arch: AMD64.AuditArch()}, enosys},
		{"a hole on arm64", ARM64, Data{NR: 244, Arch: ARM64.AuditArch()}, enosys},
	} {
		if got := DefaultProgram(tt.arch).Eval(tt.data); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// No call of the native architecture ever kills, whatever its arguments.
func TestDefaultNeverKillsNativeCalls(t *testing.T) {
	for _, r := range Default().Rules {
		if r.Do == KillProcess {
			t.Errorf("rule kills: %s", r)
		}
	}
}

// Every call has been thought about: a rule names it, without conditions at the
// end, so the default action decides nothing that the table knows.
func TestDefaultNamesEveryCall(t *testing.T) {
	p := Default()
	for _, c := range calls {
		settled := slices.ContainsFunc(p.Rules, func(r Rule) bool {
			return len(r.When) == 0 && slices.Contains(r.Calls, c.name)
		})
		if !settled {
			t.Errorf("%s: no rule settles it", c.name)
		}
	}
}

func TestDefaultIsShort(t *testing.T) {
	for _, a := range []Arch{AMD64, ARM64} {
		p := DefaultProgram(a)
		checkProgram(t, p)
		if n := len(p.Insns); n > 256 {
			t.Errorf("%s: %d instructions, want at most 256", a, n)
		}
		worst, worstName, sum := 0, "", 0
		for _, q := range slices.Concat(refusals, permissions, whole(strings.Join(a.Names(), " "), "")) {
			d, ok := q.on(t, a)
			if !ok {
				continue
			}
			if _, steps := p.run(d); steps > worst {
				worst, worstName = steps, q.name
			}
		}
		for _, name := range a.Names() {
			nr, _ := a.Number(name)
			_, steps := p.run(Data{NR: nr, Arch: a.AuditArch()})
			sum += steps
		}
		if worst > 32 {
			t.Errorf("%s: %s executes %d instructions, want at most 32", a, worstName, worst)
		}
		t.Logf("%s: %d instructions, mean %.1f executed, at most %d (%s)", a, len(p.Insns), float64(sum)/float64(len(a.Names())), worst, worstName)
	}
}

func ExamplePolicy_Explain() {
	fmt.Print(Default().Explain("clone"))
	// Output:
	// clone (amd64 56, arm64 220):
	//   allow when int arg0 & 0x7e020000 == 0x0: threads and processes that stay in the sandbox's namespaces
	//   EPERM: a user namespace gives its creator every capability inside, and with it the kernel's code for mounts, nf_tables and traffic control (CVE-2022-0185, CVE-2024-1086)
}
