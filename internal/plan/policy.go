package plan

import (
	"fmt"

	"github.com/nucleus-container/nucleus/policy/landlock"
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
	case rules.Empty() && !b.mayDegrade(spec.DegradeLandlock):
		b.fail("policy.landlock", noLandlock,
			"enable it (CONFIG_SECURITY_LANDLOCK, and landlock in the lsm= boot parameter), or accept less with --allow-degraded landlock")
		return
	case rules.Empty():
		b.weaken("policy.landlock", noLandlock, spec.DegradeLandlock)
		return
	}
	for _, l := range lost {
		b.weaken("policy.landlock", l.String(), ByKernel)
	}
	b.child("policy.landlock", Landlock{Rules: rules})
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
	// Lockdown is the state of the kernel's lockdown.
	Lockdown bool
}

// AsksOf says what Build must know about the host for s.
func AsksOf(s *spec.Sandbox) Asks {
	a := Asks{System: probeable(s), Lockdown: s.Lockdown != spec.LockdownAny}
	a.Cgroup = s.Limits.NeedsCgroup() || s.Userns == spec.UsernsHost || s.Mode.Demands(spec.ModeStrictAgent)
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
