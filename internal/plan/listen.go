package plan

import (
	"fmt"

	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// passName names the filter of a process 1 whose sandbox is observed: the policy
// is in force already, by the filter with the listener.
const passName = "pass (the policy is in force since the listener)"

// initFilter is what process 1 installs for the workload: the policy, or where
// the listener's filter holds it already, one that allows it to answer: the
// kernel gives the strictest answer of all filters, and an error is stricter than
// asking a listener (seccomp(2)). What the listener's filter had to allow to
// process 1 it decides as the policy does.
func (b *builder) initFilter() seccomp.Program {
	if b.cmd.Observe == 0 {
		return b.filter()
	}
	p, own := b.seccomp()
	if !own {
		return seccomp.Pass(b.arch())
	}
	_, then := p.Started(b.cmd.Observe, startRefused(p, b.arch()))
	return b.compiled(then)
}

// seccomp is the sandbox's policy about calls, and whether it is its own.
func (b *builder) seccomp() (p seccomp.Policy, own bool) {
	if b.spec.Policy != nil && b.spec.Policy.Seccomp != nil {
		return *b.spec.Policy.Seccomp, true
	}
	return seccomp.Default(), false
}

func (b *builder) compiled(p seccomp.Policy) seccomp.Program {
	prog, err := p.Compile(b.arch())
	if err != nil {
		b.errs = append(b.errs, fmt.Errorf("this is a bug in nucleus: %w", err))
	}
	return prog
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
	if err := Watchable(b.host); err != nil {
		b.errs = append(b.errs, err)
		return
	}
	if b.cmd.Detach {
		b.fail("observe", "nobody would be there to see what a detached sandbox is refused", "use --explain=off")
		return
	}
	p, own := b.seccomp()
	prog := seccomp.ObservedProgram(b.arch())
	if own || b.cmd.Observe != seccomp.Refusals {
		observed, _ := p.Started(b.cmd.Observe, startRefused(p, b.arch()))
		prog = b.compiled(observed)
	}
	b.child("policy.seccomp", Listen{Name: b.spec.Policy.Name(), Level: b.cmd.Observe, Policy: p, Program: prog, Plain: b.filter(), Flags: b.host.SeccompFlags})
}
