package plan

import (
	"fmt"

	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// passName names the filter of a process 1 whose sandbox is observed: the policy
// is in force already, by the filter with the listener.
const passName = "pass (the policy is in force since the listener)"

// initFilter is what process 1 installs for the workload: the policy, or where
// the listener's filter holds it already, one that allows it to answer. The
// kernel gives the strictest answer of all filters, and an error is stricter than
// asking a listener (seccomp(2)).
func (b *builder) initFilter() seccomp.Program {
	if b.cmd.Observe == 0 {
		return b.filter()
	}
	return seccomp.Pass(b.arch())
}

func (b *builder) initPolicy() string {
	if b.cmd.Observe == 0 {
		return b.spec.Policy.Name()
	}
	return passName
}

// listen plans the filter with a listener.
func (b *builder) listen() {
	if b.cmd.Observe == 0 {
		return
	}
	if err := Watchable(b.spec, b.host); err != nil {
		b.errs = append(b.errs, err)
		return
	}
	if b.cmd.Detach {
		b.fail("observe", "nobody would be there to see what a detached sandbox is refused", "use --explain=off")
		return
	}
	policy, prog := seccomp.Default(), seccomp.ObservedProgram(b.arch())
	own := b.spec.Policy != nil && b.spec.Policy.Seccomp != nil
	if own {
		policy = *b.spec.Policy.Seccomp
	}
	if own || b.cmd.Observe != seccomp.Refusals {
		var err error
		if prog, err = policy.Observed(b.cmd.Observe).Compile(b.arch()); err != nil {
			b.errs = append(b.errs, fmt.Errorf("this is a bug in nucleus: %w", err))
			return
		}
	}
	b.child("policy.seccomp", Listen{Name: b.spec.Policy.Name(), Level: b.cmd.Observe, Policy: policy, Program: prog, Plain: b.filter(), Flags: b.host.SeccompFlags})
}
