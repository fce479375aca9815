package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// fullABI is the least Landlock of the stricter modes. The row full-landlock
// says why.
const fullABI = 6

// kernelLimits are the weakenings that pass in every mode, because no program
// can do anything about them. Landlock as such is not one of them: a kernel that
// lacks it weakens by DegradeLandlock.
var kernelLimits = [...]string{"user.groups", "policy.landlock"}

func foundWeakened(s subject) string {
	var out []string
	for _, w := range s.plan.Weakened {
		limit := w.By == ByKernel && slices.Contains(kernelLimits[:], w.Feature)
		named := w.By == ByPolicy // the row no-dangerous-policy is about these
		if !limit && !named && !slices.Contains(s.spec.Degrade, w.By) {
			out = append(out, w.Feature+" is not enforced: "+w.Why)
		}
	}
	return strings.Join(out, "; ")
}

func foundDangerous(s subject) string {
	var out []string
	for _, w := range s.plan.Weakened {
		if w.By == ByPolicy {
			out = append(out, w.Why)
		}
	}
	return strings.Join(out, "; ")
}

func foundDegraded(s subject) string {
	if len(s.spec.Degrade) == 0 {
		return ""
	}
	return strings.Join(s.spec.Degrade, ", ") + " may be degraded"
}

func foundHostUserns(s subject) string {
	if s.spec.Userns == spec.UsernsPrivate {
		return ""
	}
	return "the user namespace is the " + string(s.spec.Userns) + "'s"
}

func foundUnboundedTasks(s subject) string {
	if s.spec.Limits.EffectivePids() != 0 {
		return ""
	}
	return "the number of tasks is not bounded"
}

// There is one network so far, and it has no use for names.
func foundNetworkWithoutDNS(s subject) string {
	if s.spec.Network == spec.NetworkNone {
		return ""
	}
	return fmt.Sprintf("the network is %q, and no DNS server is named", s.spec.Network)
}

func foundHostNetwork(s subject) string {
	if s.spec.Network != "host" {
		return ""
	}
	return "the network is the host's"
}

func foundOldLandlock(s subject) string {
	switch abi := s.host.LandlockABI; {
	case abi >= fullABI:
		return ""
	case abi > 0:
		return fmt.Sprintf("this kernel has Landlock ABI %d", abi)
	}
	return noLandlock
}

// foundNoCgroup asks again what must be written for the limits, and looks for
// each of it.
func foundNoCgroup(s subject) string {
	ask := s.spec.Limits
	if ask.Pids == 0 {
		ask.Pids = spec.DefaultPids
	}
	_, writes, missing := LimitWrites(s.host.Cgroup, ask)
	var out []string
	for _, m := range missing {
		out = append(out, m.Field)
	}
	for _, w := range writes {
		if !slices.ContainsFunc(s.plan.Steps, func(st Step) bool { return st.Do == Action(w) }) {
			out = append(out, w.Because)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return "no control group keeps " + strings.Join(slices.Compact(out), ", ")
}

func foundHostRoot(s subject) string {
	if s.spec.Rootfs != nil && !s.spec.Toolchain {
		return ""
	}
	return "the root is made of the host's directories"
}

func foundUnattestedRoot(s subject) string {
	for _, st := range s.plan.Steps {
		if a, ok := st.Do.(Attest); ok && s.spec.Rootfs != nil && a.Source == s.host.Paths[s.spec.Rootfs.Source].Real {
			return ""
		}
	}
	return "nothing compares the root with a manifest"
}

func foundNoMemory(s subject) string {
	if s.spec.Limits.Memory != 0 {
		return ""
	}
	return "memory is not bounded"
}

func foundNoCPU(s subject) string {
	if s.spec.Limits.MilliCPUs != 0 {
		return ""
	}
	return "processor time is not bounded"
}

func foundWritableCode(s subject) string {
	var out []string
	if w := s.spec.Workspace; w != nil && w.Exec {
		out = append(out, "/workspace")
	}
	for _, v := range s.spec.Volumes {
		if v.Writable && v.Exec {
			out = append(out, v.Target)
		}
	}
	for _, t := range s.spec.Tmpfs {
		if t.Exec {
			out = append(out, t.Target)
		}
	}
	out = append(out, shownTwice(s)...)
	if len(out) == 0 {
		return ""
	}
	return "writable and executable: " + strings.Join(out, ", ")
}

// shown is a directory of the host's and where the sandbox has it.
type shown struct {
	real, at    string
	write, exec bool
}

// shownBy are those that the user named, and those that a root needs.
func shownBy(s subject) (all []shown) {
	add := func(source, at string, write, exec bool) {
		if real := s.host.Paths[source].Real; real != "" {
			all = append(all, shown{real, at, write, exec})
		}
	}
	if c := s.spec.Context; c != nil {
		add(c.Source, "/context", false, c.Exec)
	}
	if w := s.spec.Workspace; w != nil {
		add(w.Source, "/workspace", true, w.Exec)
	}
	for _, v := range s.spec.Volumes {
		add(v.Source, v.Target, v.Writable, v.Exec)
	}
	if r := s.spec.Rootfs; r != nil {
		add(r.Source, "the root", false, true)
		if s.host.Rootfs != nil && len(s.host.Rootfs.Store) > 0 {
			all = append(all, shown{storeDir, storeDir, false, true})
		}
	}
	return all
}

// shownTwice finds what is written at one place and executed at another. Hard links
// and mounts of the host's, which are one file by two names, it does not know.
func shownTwice(s subject) (out []string) {
	all := shownBy(s)
	for _, w := range all {
		for _, e := range all {
			if w.write && e.exec && w.at != e.at && (inside(w.real, e.real) || inside(e.real, w.real)) {
				out = append(out, w.at+" as "+e.at)
			}
		}
	}
	return out
}

// inside reports whether a path is that of a directory, or below it.
func inside(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// A policy's rules can only narrow those of the mounts; one that says both is a
// mistake all the same, and would count when the mounts change.
func foundWriteAndExecute(s subject) string {
	found := "there are no Landlock rules"
	for _, st := range s.plan.Steps {
		if a, ok := st.Do.(Landlock); ok {
			rules := landlock.Config{HandleFS: a.Rules.HandleFS, Rules: a.Rules.Rules}
			if places := rules.WriteAndExecute(); len(places) > 0 {
				return "written and executed: " + strings.Join(places, ", ")
			}
			found = ""
		}
	}
	return found
}

func foundUnpinned(s subject) string {
	var out []string
	if s.spec.Policy != nil {
		for _, src := range s.spec.Policy.Sources {
			if src.Kind != policy.KindProfile && !src.Pinned { // profiles are part of the program
				out = append(out, src.Path)
			}
		}
	}
	if len(out) == 0 {
		return ""
	}
	return "nobody said what is in " + strings.Join(out, ", ")
}

func foundTrace(s subject) string {
	for _, st := range s.plan.Steps {
		if l, ok := st.Do.(Listen); ok && l.Level > seccomp.Files { // which --explain=files asks for
			return "every call is recorded"
		}
	}
	return ""
}

// foundNoAudit asks whether the kernel will be asked: its answer comes when the
// sandbox is held, and enter compares it.
func foundNoAudit(s subject) string {
	for _, st := range s.plan.Steps {
		if h, ok := st.Do.(Hold); ok && slices.Equal(h.Mounts, s.plan.Mounts()) {
			return ""
		}
	}
	return "nothing reads back what is mounted"
}

func foundShownProcesses(s subject) string {
	for _, st := range s.plan.Steps {
		n, ok := st.Do.(NewMount)
		if !ok || n.Type != "proc" {
			continue
		}
		if !slices.Contains(n.Options, "hidepid=invisible") {
			return "proc is mounted with " + strings.Join(n.Options, ",")
		}
		if slices.Contains(n.Options, fmt.Sprintf("gid=%d", s.spec.User.GID)) {
			return "proc shows everything to the program's own group"
		}
		return ""
	}
	return "the plan mounts no proc"
}

// demands are those of the Spec that are no mode's.
func (b *builder) demands() {
	if b.spec.Trust == spec.TrustUntrusted {
		b.fail("trust", "a program that is not trusted at all needs the gVisor tier, a kernel of the sandbox's own, which Nucleus does not have yet",
			"run it in a virtual machine, or say --trust-level trusted if the host's kernel may be shared with it")
	}
	b.lockdown()
}

// lockdown compares the kernel's word with what is demanded. Silence is a no.
func (b *builder) lockdown() {
	want, have := b.spec.Lockdown, spec.Lockdown(b.host.Lockdown)
	switch {
	case want == spec.LockdownAny, have == want, want == spec.LockdownIntegrity && have == spec.LockdownConfidentiality:
	case have == "":
		b.fail("lockdown", "it is not known whether the kernel is locked down: "+b.host.LockdownWhy, "mount securityfs at /sys/kernel/security, on a kernel with CONFIG_SECURITY_LOCKDOWN_LSM")
	default:
		b.fail("lockdown", fmt.Sprintf("the kernel's lockdown is %s, not %s", have, want), "boot with lockdown="+string(want))
	}
}
