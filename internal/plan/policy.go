package plan

import (
	"fmt"
	"slices"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// landlock plans the second opinion about files: the same rules as the mounts,
// kept by another part of the kernel, which no mount can change any more.
//
// TCP is not handled: the sandbox's network namespace holds its own loopback
// device and nothing else, so a port rule would only forbid a program to talk
// to itself.
//
// Any Landlock at all counts in agent mode: what later versions added is
// reported as weaker where it is missing, and the mounts and the other layers
// enforce it without Landlock. The stricter modes have a row about it.
func (b *builder) landlock() {
	cfg := landlock.Default().With(b.rules()...)
	rules, lost, err := cfg.Downgrade(b.host.LandlockABI)
	switch {
	case err != nil:
		b.errs = append(b.errs, fmt.Errorf("this is a bug in nucleus: %w", err))
		return
	case b.belowMinABI():
		return
	case rules.Empty() && !b.mayDegrade(spec.DegradeLandlock):
		b.fail("policy.landlock", noLandlock,
			"enable it (CONFIG_SECURITY_LANDLOCK, and landlock in the lsm= boot parameter), or accept less with --allow-degraded landlock")
		return
	case rules.Empty():
		b.weaken("policy.landlock", noLandlock, spec.DegradeLandlock)
		return
	}
	b.lost(lost)
	narrowed := b.spec.Policy != nil && b.spec.Policy.Landlock != nil
	b.child("policy.landlock", Landlock{Rules: rules, Log: b.landlockLog(!narrowed)})
	if narrowed {
		b.narrow(*b.spec.Policy.Landlock)
	}
}

// landlockLog says what Landlock writes into the machine's audit log: what it
// refuses if somebody reads that here, and nothing at all for the domains that
// programs in the sandbox make for themselves. They could fill the log by having
// themselves refused things. The kernel takes what is restricted after the last
// domain for theirs.
func (b *builder) landlockLog(last bool) (flags uint32) {
	if b.host.LandlockABI < abi.LandlockLogs {
		return 0
	}
	if b.cmd.Observe != 0 && b.host.AuditLog {
		flags |= abi.LandlockRestrictSelfLogNewExecOn
	}
	if last {
		flags |= abi.LandlockRestrictSelfLogSubdomainsOff
	}
	return flags
}

// lost reports what the kernel cannot enforce, once.
func (b *builder) lost(lost []landlock.Lost) {
	for _, l := range lost {
		if w := (Weakening{"policy.landlock", l.String(), ByKernel}); !slices.Contains(b.weak, w) {
			b.weak = append(b.weak, w)
		}
	}
}

// belowMinABI refuses a kernel that a policy does not want, whatever may be degraded.
func (b *builder) belowMinABI() bool {
	p := b.spec.Policy
	if p == nil || p.Landlock == nil || p.Landlock.MinABI <= b.host.LandlockABI {
		return false
	}
	b.fail("policy.landlock", fmt.Sprintf("the policy demands Landlock ABI %d (min_abi), and this kernel has %d", p.Landlock.MinABI, b.host.LandlockABI), "use a newer kernel")
	return true
}

// narrow plans the Landlock rules of a policy. The kernel allows what both these
// and the ones from the mounts allow.
func (b *builder) narrow(cfg landlock.Config) {
	rules, lost, err := cfg.Downgrade(b.host.LandlockABI)
	if err != nil {
		b.fail("policy.landlock", err.Error(), "")
		return
	}
	b.lost(lost)
	// Rights over ports are handled only by a policy that names them.
	if net := cfg.HandleNet &^ rules.HandleNet; net != 0 {
		why := fmt.Sprintf("the policy refuses %s, which this kernel's Landlock (ABI %d) cannot", net, b.host.LandlockABI)
		if !b.mayDegrade(spec.DegradeLandlock) {
			b.fail("policy.landlock", why, "use a newer kernel, or accept less with --allow-degraded landlock")
			return
		}
		b.weaken("policy.landlock", why, spec.DegradeLandlock)
	}
	if rules.Empty() {
		b.fail("policy.landlock", "this kernel can enforce nothing of the policy's Landlock rules", "use a newer kernel")
		return
	}
	b.child("policy.landlock", Landlock{Rules: rules, Narrow: true, Log: b.landlockLog(true)})
}

// policy settles what the description's policy asks for: the filter, and what
// of the rest this machine cannot do.
func (b *builder) policy() {
	b.program = seccomp.DefaultProgram(b.arch())
	p := b.spec.Policy
	if p == nil {
		return
	}
	for i, e := range p.Egress {
		if e.Allow {
			b.fail(fmt.Sprintf("policy.egress[%d]", i), "the sandbox has no network, so nothing can be allowed there: "+e.String(), "leave the rule out")
		}
	}
	if p.Caps != nil {
		b.mayKeep(*p.Caps)
	}
	if p.Seccomp == nil {
		return
	}
	if err := p.Seccomp.Listens(); err != nil {
		b.fail("policy.seccomp", err.Error(), "")
		return
	}
	program, err := p.Seccomp.Compile(b.arch())
	if err != nil {
		b.fail("policy.seccomp", err.Error(), "")
		return
	}
	b.program = program
	for _, d := range p.Seccomp.Dangerous() {
		b.weaken("policy.seccomp", fmt.Sprintf("%s is allowed, which %s", d.Call, d.Why), ByPolicy)
	}
}

// mayKeep checks that capabilities can be kept, and says what they give away.
func (b *builder) mayKeep(s caps.Sets) {
	if newer := s.Any() >> (b.host.LastCap + 1); newer != 0 {
		b.fail("policy.caps", fmt.Sprintf("this kernel has no capability beyond %s", caps.Cap(b.host.LastCap)), "")
	}
	if missing := s.Any().Diff(caps.Set(b.host.CapEff)); !b.owned && missing != 0 {
		b.fail("policy.caps", fmt.Sprintf("this process has no %s to leave to a sandbox in the host's user namespace", missing), "leave out --userns host")
	}
	for _, c := range (s.Any() & caps.Dangerous()).Caps() {
		b.weaken("policy.caps", caps.Explain(c)+"; the policy keeps it", ByPolicy)
	}
}

// keep plans that capabilities survive the execution of a program. It is done
// before the securebits lock the ambient set, and every exec is behind them.
func (b *builder) keep(s caps.Sets, owned bool) {
	if s.Inheritable|s.Ambient == 0 {
		return
	}
	held := caps.Set(b.host.CapEff)
	if owned { // its maker holds every one in a new user namespace, and so does who joins
		held = 1<<(b.host.LastCap+1) - 1
	}
	b.child("policy.caps", ClearAmbient{}, KeepCaps{Held: held, Inheritable: s.Inheritable, Ambient: s.Ambient})
}

// drop plans that all other capabilities go.
func (b *builder) drop(s caps.Sets, last int) {
	b.child("policy", DropBounding{Last: last, Keep: s.Bounding})
	if s.Inheritable|s.Ambient == 0 {
		b.child("policy", ClearAmbient{})
	}
	b.child("policy", DropCaps{Keep: s.Permitted, Inheritable: s.Inheritable}, NoNewPrivs{})
}

const noLandlock = "this kernel has no Landlock"

// rules are what a sandbox may do with its files.
func (b *builder) rules() []landlock.PathRule {
	const change = landlock.Write | landlock.Create | landlock.Remove | landlock.Refer
	rules := []landlock.PathRule{
		{Path: "/", Allow: landlock.Read | landlock.ResolveUnix, Why: "everything in the sandbox's root was put there to be read"},
		{Path: "/proc", Allow: landlock.WriteFile | landlock.Truncate, Why: "a process may change its own attributes"},
		{Path: "/dev", Allow: landlock.WriteFile | landlock.Truncate | landlock.IoctlDev, Why: "null, terminals and the like are written to"},
	}
	for _, m := range b.mounts {
		if m.within {
			continue
		}
		var allow landlock.Access
		if m.exec {
			allow |= landlock.Execute
		}
		if m.writable {
			allow |= change | landlock.IoctlDev
		}
		if m.file {
			allow &= landlock.FileRights
		}
		if allow == 0 {
			continue
		}
		rules = append(rules, landlock.PathRule{Path: m.path, File: m.file, Allow: allow, Why: "mounted so by " + m.because})
	}
	return rules
}

// probeable are the host paths that a plan for s looks at, but for those that
// the user names.
func probeable(s *spec.Sandbox) []string {
	var out []string
	for _, l := range [][]string{scratchDirs, DevicePaths(), MaskedPaths, ReadOnlyPaths} {
		out = append(out, l...)
	}
	if s.Userns == spec.UsernsHost {
		out = append(out, RootMaskedPaths...)
	}
	if s.Toolchain {
		for _, l := range [][]string{ToolchainDirs, EtcDirs, EtcFiles} {
			out = append(out, l...)
		}
	}
	return out
}

// Asks is what Build must know about the host for a Spec.
type Asks struct {
	System  []string // paths of everyone's
	Sources []string // paths that the Spec names
	Cgroup  bool     // control groups: asking costs a tenth of a start
	Rootfs  string   // one of Sources, whose top Build must know
	// Lockdown is the state of the kernel's lockdown.
	Lockdown bool
}

// AsksOf says what Build must know about the host for s.
func AsksOf(s *spec.Sandbox) Asks {
	a := Asks{System: probeable(s), Lockdown: s.Lockdown != spec.LockdownAny}
	a.Cgroup = s.Limits.NeedsCgroup() || s.Userns == spec.UsernsHost || s.Mode.Demands(spec.ModeStrictAgent)
	if s.Rootfs != nil {
		a.Rootfs = s.Rootfs.Source
		a.Sources = append(a.Sources, a.Rootfs)
	}
	if s.Context != nil {
		a.Sources = append(a.Sources, s.Context.Source)
	}
	if s.Workspace != nil {
		a.Sources = append(a.Sources, s.Workspace.Source)
	}
	for _, v := range s.Volumes {
		a.Sources = append(a.Sources, v.Source)
	}
	return a
}

// Exec is the plan's last step.
func (p *Plan) Exec() Exec {
	e, _ := p.Steps[len(p.Steps)-1].Do.(Exec)
	return e
}
