package plan

import (
	"fmt"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// Watchable is an error if a sandbox of this description cannot be watched on
// this machine.
//
// A filter with a listener is installed before process 1 is executed, so it also
// decides about the calls that hand over the listener, and about those of process
// 1. A policy of one's own need not allow them: its filter alone is installed after them.
// The first would wait for an answer that nobody gives.
func Watchable(s *spec.Sandbox, h *facts.Host) error {
	if h.SeccompFlags == 0 {
		return &Unsupported{Field: "observe", Why: "this kernel has no listeners for seccomp filters (SECCOMP_FILTER_FLAG_NEW_LISTENER, Linux 5.0)", Fix: "use --explain=off"}
	}
	if s.Policy == nil || s.Policy.Seccomp == nil {
		return nil
	}
	arch := seccomp.AMD64
	if h.Arch == "arm64" {
		arch = seccomp.ARM64
	}
	for _, c := range startCalls() {
		nr, ok := arch.Number(c.name)
		if a := s.Policy.Seccomp.Decide(arch, nr, c.args); ok && a != seccomp.Allow && a != seccomp.Log {
			return &Unsupported{
				Field: "observe", Why: fmt.Sprintf("a sandbox can only be watched if its policy allows what process 1 needs, and it refuses %s", c.name),
				Fix: "use --explain=off, or allow it",
			}
		}
	}
	return nil
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
