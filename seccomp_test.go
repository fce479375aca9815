package nucleus_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/spec"
)

// refusedCalls are what the default filter refuses. For a row with differs the
// kernel would answer otherwise without the filter, on any machine: those prove
// that the filter is there. The others are refused by the kernel too, at least
// on some machines, as long as there are no capabilities.
var refusedCalls = []struct {
	name    string
	call    string
	want    string
	differs bool
}{
	{"clone3", fmt.Sprint(unix.SYS_CLONE3, " z:64 64"), "ENOSYS", true},
	{"clone newuser", fmt.Sprint(unix.SYS_CLONE, " 0x10000011"), "EPERM", true},
	{"clone newuser, dirty", fmt.Sprint(unix.SYS_CLONE, " 0x700000010000011"), "EPERM", true},
	{"clone newns", fmt.Sprint(unix.SYS_CLONE, " 0x20011"), "EPERM", false},
	{"clone newpid", fmt.Sprint(unix.SYS_CLONE, " 0x20000011"), "EPERM", false},
	{"clone newnet", fmt.Sprint(unix.SYS_CLONE, " 0x40000011"), "EPERM", false},
	{"clone newcgroup", fmt.Sprint(unix.SYS_CLONE, " 0x2000011"), "EPERM", false},
	{"unshare newuser", fmt.Sprint(unix.SYS_UNSHARE, " 0x10000000"), "EPERM", true},
	{"unshare nothing", fmt.Sprint(unix.SYS_UNSHARE, " 0"), "EPERM", true},
	{"unshare newns", fmt.Sprint(unix.SYS_UNSHARE, " 0x20000"), "EPERM", false},
	{"setns", fmt.Sprint(unix.SYS_SETNS, " -1 0"), "EPERM", true},

	{"io_uring_setup", fmt.Sprint(unix.SYS_IO_URING_SETUP, " 8 z:120"), "ENOSYS", true},
	{"io_uring_enter", fmt.Sprint(unix.SYS_IO_URING_ENTER, " -1 0 0 0 0 0"), "ENOSYS", true},
	{"io_uring_register", fmt.Sprint(unix.SYS_IO_URING_REGISTER, " -1 0 0 0"), "ENOSYS", true},

	{"mount", fmt.Sprint(unix.SYS_MOUNT, " s:none s:/tmp s:tmpfs 0 0"), "EPERM", false},
	{"remount", fmt.Sprint(unix.SYS_MOUNT, " s:none s:/ s: 0x1020 0"), "EPERM", false},
	{"mount cgroup", fmt.Sprint(unix.SYS_MOUNT, " s:none s:/tmp s:cgroup 0 s:rdma"), "EPERM", false},
	{"umount2", fmt.Sprint(unix.SYS_UMOUNT2, " s:/tmp 2"), "EPERM", false},
	{"pivot_root", fmt.Sprint(unix.SYS_PIVOT_ROOT, " s:/tmp s:/tmp"), "EPERM", false},
	{"chroot", fmt.Sprint(unix.SYS_CHROOT, " s:/tmp"), "EPERM", false},
	{"fsopen", fmt.Sprint(unix.SYS_FSOPEN, " s:tmpfs 0"), "EPERM", false},
	{"fsconfig", fmt.Sprint(unix.SYS_FSCONFIG, " -1 0 0 0 0"), "EPERM", true},
	{"fsmount", fmt.Sprint(unix.SYS_FSMOUNT, " -1 0 0"), "EPERM", false},
	{"fspick", fmt.Sprint(unix.SYS_FSPICK, " -100 s:/ 0"), "EPERM", false},
	{"open_tree", fmt.Sprint(unix.SYS_OPEN_TREE, " -100 s:/ 0x80000"), "EPERM", true},
	{"open_tree clone", fmt.Sprint(unix.SYS_OPEN_TREE, " -100 s:/ 0x80001"), "EPERM", false},
	{"move_mount", fmt.Sprint(unix.SYS_MOVE_MOUNT, " -100 s:/tmp -100 s:/root 0"), "EPERM", false},
	{"mount_setattr", fmt.Sprint(unix.SYS_MOUNT_SETATTR, " -100 s:/tmp 0 z:32 32"), "EPERM", false},
	{"statmount", "457 z:24 z:512 512 0", "ENOSYS", false},
	{"listmount", "458 z:24 z:512 64 0", "ENOSYS", false},

	{"ptrace", fmt.Sprint(unix.SYS_PTRACE, " 16 999999 0 0"), "EPERM", true},
	{"ptrace seize init", fmt.Sprint(unix.SYS_PTRACE, " 0x4206 1 0 0"), "EPERM", false},
	{"process_vm_readv", fmt.Sprint(unix.SYS_PROCESS_VM_READV, " 999999 0 0 0 0 0"), "EPERM", true},
	{"process_vm_writev", fmt.Sprint(unix.SYS_PROCESS_VM_WRITEV, " 999999 0 0 0 0 0"), "EPERM", true},
	{"kcmp", fmt.Sprint(unix.SYS_KCMP, " 2 2 0 0 0"), "EPERM", true},
	{"pidfd_getfd", fmt.Sprint(unix.SYS_PIDFD_GETFD, " -1 0 0"), "EPERM", true},
	{"bpf", fmt.Sprint(unix.SYS_BPF, " 5 z:128 128"), "EPERM", false},
	{"perf_event_open", fmt.Sprint(unix.SYS_PERF_EVENT_OPEN, " z:128 0 -1 -1 0"), "EPERM", false},
	{"userfaultfd", fmt.Sprint(unix.SYS_USERFAULTFD, " 1"), "EPERM", true},
	{"keyctl", fmt.Sprint(unix.SYS_KEYCTL, " 0 -3 0"), "EPERM", true},
	{"add_key", fmt.Sprint(unix.SYS_ADD_KEY, " s:user s:nucleus s:x 1 -2"), "EPERM", true},
	{"request_key", fmt.Sprint(unix.SYS_REQUEST_KEY, " s:user s:nucleus-none 0 0"), "EPERM", true},
	{"open_by_handle_at", fmt.Sprint(unix.SYS_OPEN_BY_HANDLE_AT, " -100 z:128 0"), "EPERM", false},
	{"name_to_handle_at", fmt.Sprint(unix.SYS_NAME_TO_HANDLE_AT, " -100 s:/ z:8 z:8 0"), "EPERM", true},
	{"move_pages", fmt.Sprint(unix.SYS_MOVE_PAGES, " 0 0 0 0 0 0"), "EPERM", true},
	{"migrate_pages", fmt.Sprint(unix.SYS_MIGRATE_PAGES, " 0 8 z:8 z:8"), "EPERM", true},
	{"fanotify_init", fmt.Sprint(unix.SYS_FANOTIFY_INIT, " 0x200 0"), "EPERM", true},

	{"init_module", fmt.Sprint(unix.SYS_INIT_MODULE, " z:8 8 s:"), "EPERM", false},
	{"finit_module", fmt.Sprint(unix.SYS_FINIT_MODULE, " 0 s: 0"), "EPERM", false},
	{"delete_module", fmt.Sprint(unix.SYS_DELETE_MODULE, " s:nucleus-none 0"), "EPERM", false},
	{"kexec_load", fmt.Sprint(unix.SYS_KEXEC_LOAD, " 0 0 0 0"), "EPERM", false},
	{"reboot", fmt.Sprint(unix.SYS_REBOOT, " 0 0 0 0"), "EPERM", false},
	{"swapoff", fmt.Sprint(unix.SYS_SWAPOFF, " s:/nucleus-none"), "EPERM", false},
	{"acct", fmt.Sprint(unix.SYS_ACCT, " s:/nucleus-none"), "EPERM", false},
	{"quotactl", fmt.Sprint(unix.SYS_QUOTACTL, " 0x80000100 0 0 0"), "EPERM", true},
	{"sethostname", fmt.Sprint(unix.SYS_SETHOSTNAME, " s:x 1"), "EPERM", false},
	{"syslog", fmt.Sprint(unix.SYS_SYSLOG, " 10 0 0"), "EPERM", false},
	{"clock_settime", fmt.Sprint(unix.SYS_CLOCK_SETTIME, " 0 z:16"), "EPERM", false},
	{"adjtimex", fmt.Sprint(unix.SYS_ADJTIMEX, " z:208"), "EPERM", true},
	{"personality", fmt.Sprint(unix.SYS_PERSONALITY, " 0x40000"), "EPERM", true},
	{"prctl set_mm", fmt.Sprint(unix.SYS_PRCTL, " 35 1 0 0 0"), "EPERM", false},
	{"mknod", fmt.Sprint(unix.SYS_MKNODAT, " -100 s:/tmp/null 0x21b6 0x103"), "EPERM", false},

	{"TIOCSTI", fmt.Sprint(unix.SYS_IOCTL, " 0 0x5412 s:x"), "EPERM", true},
	{"TIOCSTI, dirty", fmt.Sprint(unix.SYS_IOCTL, " 0 0x100005412 s:x"), "EPERM", true},
	{"TIOCSTI, dirtier", fmt.Sprint(unix.SYS_IOCTL, " 0 0xffffffff00005412 s:x"), "EPERM", true},
	{"TIOCLINUX", fmt.Sprint(unix.SYS_IOCTL, " 0 0x541c s:x"), "EPERM", true},
	{"TIOCLINUX, dirty", fmt.Sprint(unix.SYS_IOCTL, " 0 0xdead0000541c s:x"), "EPERM", true},
	{"TIOCSETD", fmt.Sprint(unix.SYS_IOCTL, " 0 0x5423 z:4"), "EPERM", true},

	{"AF_PACKET", fmt.Sprint(unix.SYS_SOCKET, " 17 3 0"), "EAFNOSUPPORT", true},
	{"AF_ALG", fmt.Sprint(unix.SYS_SOCKET, " 38 5 0"), "EAFNOSUPPORT", false},
	{"AF_ALG, dirty", fmt.Sprint(unix.SYS_SOCKET, " 0x100000026 5 0"), "EAFNOSUPPORT", false},
	{"AF_VSOCK", fmt.Sprint(unix.SYS_SOCKET, " 40 1 0"), "EAFNOSUPPORT", false},
	{"AF_KEY", fmt.Sprint(unix.SYS_SOCKET, " 15 3 2"), "EAFNOSUPPORT", false},
	{"AF_CAN", fmt.Sprint(unix.SYS_SOCKET, " 29 3 1"), "EAFNOSUPPORT", false},
	{"AF_TIPC", fmt.Sprint(unix.SYS_SOCKET, " 30 1 0"), "EAFNOSUPPORT", false},
	{"AF_BLUETOOTH", fmt.Sprint(unix.SYS_SOCKET, " 31 3 0"), "EAFNOSUPPORT", false},
	{"AF_RXRPC", fmt.Sprint(unix.SYS_SOCKET, " 33 2 2"), "EAFNOSUPPORT", false},
	{"AF_QIPCRTR", fmt.Sprint(unix.SYS_SOCKET, " 42 2 0"), "EAFNOSUPPORT", false},
	{"AF_SMC", fmt.Sprint(unix.SYS_SOCKET, " 43 1 0"), "EAFNOSUPPORT", false},
	{"AF_XDP", fmt.Sprint(unix.SYS_SOCKET, " 44 3 0"), "EAFNOSUPPORT", false},
	{"netlink netfilter", fmt.Sprint(unix.SYS_SOCKET, " 16 3 12"), "EAFNOSUPPORT", true},
	{"netlink xfrm", fmt.Sprint(unix.SYS_SOCKET, " 16 3 6"), "EAFNOSUPPORT", true},
	{"netlink audit", fmt.Sprint(unix.SYS_SOCKET, " 16 3 9"), "EAFNOSUPPORT", true},
	{"netlink generic", fmt.Sprint(unix.SYS_SOCKET, " 16 3 16"), "EAFNOSUPPORT", true},
	{"raw", fmt.Sprint(unix.SYS_SOCKET, " 2 3 1"), "EPROTONOSUPPORT", true},
	{"raw v6", fmt.Sprint(unix.SYS_SOCKET, " 10 3 58"), "EPROTONOSUPPORT", true},
	{"SCTP", fmt.Sprint(unix.SYS_SOCKET, " 2 1 132"), "EPROTONOSUPPORT", false},
	{"MPTCP", fmt.Sprint(unix.SYS_SOCKET, " 2 1 262"), "EPROTONOSUPPORT", false},
	{"socketpair inet", fmt.Sprint(unix.SYS_SOCKETPAIR, " 2 1 0 z:8"), "EAFNOSUPPORT", true},
	{"TCP_ULP", fmt.Sprint(unix.SYS_SETSOCKOPT, " -1 6 31 s:tls 3"), "ENOPROTOOPT", true},

	{"cachestat", "451 0 z:16 z:40 0", "ENOSYS", false},
	{"a number from the future", "4000", "ENOSYS", false},

	// Allowed, so that a filter that refuses everything fails too.
	{"netlink route", fmt.Sprint(unix.SYS_SOCKET, " 16 3 0"), "ok", false},
	{"unix", fmt.Sprint(unix.SYS_SOCKET, " 1 1 0"), "ok", false},
	{"tcp", fmt.Sprint(unix.SYS_SOCKET, " 2 0x80801 6"), "ok", false},
	{"clone", fmt.Sprint(unix.SYS_CLONE, " 17"), "ok", false},
	{"TCGETS", fmt.Sprint(unix.SYS_IOCTL, " 0 0x5401 z:64"), "ENOTTY", false},
}

// TestSeccomp makes every call with the filter and without.
func TestSeccomp(t *testing.T) {
	needSandbox(t)
	var qs []string
	for _, c := range refusedCalls {
		qs = append(qs, "call "+c.call)
	}
	for _, uid := range []uint32{0, 1000} {
		s := &spec.Sandbox{User: spec.User{UID: uid, GID: uid}}
		with, err := (&attempt{TB: t}).ask(s, qs...)
		if err != nil {
			t.Fatal(err)
		}
		without, err := (&attempt{TB: t, edit: withoutSeccomp().edit}).ask(s, qs...)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range refusedCalls {
			if with[i] != c.want {
				t.Errorf("%s: got %s, want %s", c.name, with[i], c.want)
			}
			if c.differs && without[i] == c.want {
				t.Errorf("%s: got %s without the filter too, want another answer", c.name, without[i])
			}
		}
	}
}

// TestForeignCalls makes calls by the other two interfaces of an amd64 kernel,
// whose numbers mean something else: they end the program. Where a kernel lacks
// one, it says so without the filter, and that is the end of the program too.
func TestForeignCalls(t *testing.T) {
	needSandbox(t)
	if runtime.GOARCH != "amd64" {
		return // there is nothing else to make a call by
	}
	s := &spec.Sandbox{Tmpfs: []spec.Tmpfs{{Target: "/bin", Exec: true}}}
	for _, program := range []string{"int80", "x32", "i386"} {
		t.Run(program, func(t *testing.T) {
			question := "elf /bin/" + program + " " + program
			without, err := (&attempt{TB: t, edit: withoutSeccomp().edit}).ask(s, question)
			if err != nil {
				t.Fatal(err)
			}
			if lacks := map[string]string{"int80": "SIGSEGV", "i386": "ENOEXEC"}[program]; without[0] == lacks {
				t.Logf("this kernel has no such calls: %s", lacks)
				if err := (&attempt{TB: t}).want(s, line{question, lacks}); err != nil {
					t.Error(err)
				}
				return
			}
			FailsWithout(t, func(a *attempt) error { return a.want(s, line{question, "SIGSYS"}) }, withoutSeccomp())
		})
	}
	if err := (&attempt{TB: t}).want(s, line{"elf /bin/native exit7", "exit 7"}); err != nil {
		t.Error(err)
	}
}

// TestSeccompIsInherited: a program that the workload starts has the filter too,
// and cannot take it off by another.
func TestSeccompIsInherited(t *testing.T) {
	needSandbox(t)
	FailsWithout(t, func(a *attempt) error {
		answers, err := a.ask(&spec.Sandbox{}, "run "+probePath+" status·Seccomp")
		if err != nil {
			return err
		}
		if !strings.Contains(answers[0], "ok:2") {
			return fmt.Errorf("the child's filter: got %s, want mode 2", answers[0])
		}
		return nil
	}, withoutSeccomp())
}
