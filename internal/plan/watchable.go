package plan

import (
	"slices"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Watchable is an error if a sandbox cannot be watched on this machine.
func Watchable(h *facts.Host) error {
	if h.SeccompFlags == 0 {
		return &Unsupported{Field: "observe", Why: "this kernel has no listeners for seccomp filters (SECCOMP_FILTER_FLAG_NEW_LISTENER, Linux 5.0)", Fix: "use --explain=off"}
	}
	return nil
}

// startRefused are the calls that a policy refuses and that come between its
// listener and the program: a filter with a listener is installed before process
// 1 is executed, so it also decides about the calls that hand over the listener,
// and about those of process 1. A policy of one's own need not allow them: its
// filter alone is installed after them.
func startRefused(p seccomp.Policy, arch seccomp.Arch) (names []string) {
	for _, c := range startCalls() {
		nr, ok := arch.Number(c.name)
		a := p.Decide(arch, nr, c.args)
		if ok && a != seccomp.Allow && a != seccomp.Log && !slices.Contains(names, c.name) {
			names = append(names, c.name)
		}
	}
	return names
}

type startCall struct {
	name string
	args [6]uint64 // that matter to policies
}

// startCalls are the calls between a filter with a listener and the workload's
// first instruction, and those of process 1 until the end.
func startCalls() []startCall {
	const (
		vforkFlags  = 0x4111 // CLONE_VM, CLONE_VFORK, SIGCHLD
		setDumpable = 4
		setPdeath   = 1
		setCTTY     = 0x540e
		setFD       = 2
	)
	calls := []startCall{
		{"clone", [6]uint64{vforkFlags}}, {"prctl", [6]uint64{setDumpable}}, {"prctl", [6]uint64{setPdeath}},
		{"ioctl", [6]uint64{1: setCTTY}}, {"fcntl", [6]uint64{1: setFD}}, {"seccomp", [6]uint64{1}},
	}
	for _, name := range [...]string{
		"sendmsg", "recvfrom", "close", "close_range", "execveat", "rt_sigprocmask", "getpid", "write", "rt_sigtimedwait", "kill", "wait4",
		"setpgid", "setsid", "execve", "exit_group",
	} {
		calls = append(calls, startCall{name: name})
	}
	return calls
}
