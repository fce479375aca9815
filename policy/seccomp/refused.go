package seccomp

import (
	"fmt"
	"slices"
	"strings"
)

// A Danger is a call of the always-refused list that a policy allows, and why
// the list has it.
type Danger struct{ Call, Why string }

// alwaysRefused are the calls that no policy allows unless its user names each
// by itself. They are ways into kernel code that belongs to the host as a whole
// or that has been exploited again and again; none is needed by a program that
// knows it is in a sandbox.
//
// Not on the list: ptrace, process_vm_readv, process_vm_writev and kcmp, which
// reach processes of the same sandbox only and which debuggers need (the default
// policy refuses them); chroot, sethostname, the clock, name_to_handle_at and
// fanotify_mark, which do nothing without a capability or another call; and
// modify_ldt, which the profiles of other engines allow. The default policy
// refuses all of these.
var alwaysRefused = [...]struct{ calls, why string }{
	{"init_module finit_module delete_module create_module kexec_load kexec_file_load reboot", "changes the kernel that all share"},
	{"iopl ioperm", "opens the hardware's ports"},
	{"swapon swapoff acct quotactl quotactl_fd nfsservctl", "is about the host as a whole"},
	{"bpf", "loads programs into the kernel"},
	{"perf_event_open", "counts and samples in the kernel, which has let whole hosts be read and taken over"},
	{"io_uring_setup io_uring_enter io_uring_register", "is a second table of system calls that no filter sees (CVE-2022-29582, CVE-2023-2598)"},
	{"userfaultfd", "holds the kernel still in the middle of a copy, which wins races for exploits"},
	{"keyctl add_key request_key", "reaches keyrings, which belong to users and not to sandboxes (CVE-2016-0728)"},
	{"open_by_handle_at", "opens files outside of the sandbox's root"},
	{"mount umount2 pivot_root fsopen fsconfig fsmount fspick open_tree open_tree_attr move_mount mount_setattr", "changes mounts, and with them what the sandbox shows and hides (CVE-2022-0185)"},
	{"unshare setns clone3", "makes or enters namespaces, where every capability opens kernel code again (CVE-2022-0185, CVE-2024-1086)"},
	{"pidfd_getfd", "takes descriptors out of other processes"},
	{"fanotify_init", "watches whole file systems, of which others have parts"},
	{"move_pages migrate_pages", "moves memory between nodes and tells where it lies"},
	{"syslog", "reads the kernel's log and its addresses"},
	{"lookup_dcookie uselib _sysctl sysfs ustat vserver", "is obsolete kernel code that nothing needs"},
}

// whyClone is about clone, which is judged by its flags.
const whyClone = "can make namespaces unless a rule looks at its flags, and a user namespace opens kernel code again (CVE-2022-0185, CVE-2024-1086)"

// Unlisted is the name under which a user allows that a policy lets the calls run
// that Nucleus does not know. It is no call's name.
const Unlisted = "unknown"

// whyUnlisted is about them.
const whyUnlisted = "stands for every call that Nucleus does not know, such as the next way into a newer kernel"

// AlwaysRefused reports whether the call is on the list of those that a policy
// may allow only if its user names it. clone is, for flags that make namespaces,
// and so is [Unlisted].
func AlwaysRefused(name string) bool { return WhyRefused(name) != "" }

// WhyRefused says why a call is on the list; empty if it is not.
func WhyRefused(name string) string {
	switch name {
	case "clone":
		return whyClone
	case Unlisted:
		return whyUnlisted
	}
	for _, r := range alwaysRefused {
		if slices.Contains(strings.Fields(r.calls), name) {
			return r.why
		}
	}
	return ""
}

// RefusedNames returns the calls of the list, sorted.
func RefusedNames() []string {
	all := []string{"clone"}
	for _, r := range alwaysRefused {
		all = append(all, strings.Fields(r.calls)...)
	}
	slices.Sort(all)
	return all
}

// Dangerous returns the calls of the always-refused list that p lets run for
// some arguments, sorted by name, and last those that Nucleus does not know.
func (p Policy) Dangerous() []Danger {
	var out []Danger
	all := p.decisions()
	for _, name := range RefusedNames() {
		runs := slices.ContainsFunc(all[name], func(r Rule) bool {
			return r.Do.Runs() && !(name == "clone" && r.withoutNamespaces())
		})
		if runs {
			out = append(out, Danger{name, WhyRefused(name)})
		}
	}
	if p.unknown().Runs() {
		out = append(out, Danger{Unlisted, whyUnlisted})
	}
	return out
}

// withoutNamespaces reports whether the conditions hold only for a clone that
// asks for no namespace.
func (r Rule) withoutNamespaces() bool {
	return slices.ContainsFunc(r.When, func(c Cond) bool {
		switch c.Op {
		case MaskedEq:
			return c.Arg == 0 && c.Mask&cloneNamespaces == cloneNamespaces && c.Value&cloneNamespaces == 0
		case Eq:
			return c.Arg == 0 && c.Value&cloneNamespaces == 0
		}
		return false
	})
}

// Runs reports whether a call may run after all: what a supervisor decides counts.
func (a Action) Runs() bool { return a == Allow || a == Log || a == UserNotify }

// Listens returns an error if an action of p cannot be carried out without somebody
// who listens.
func (p Policy) Listens() error {
	for i, r := range p.Rules {
		if r.Do == UserNotify {
			return fmt.Errorf("rules[%d] (%s) leaves the decision to a supervisor, and none listens", i, strings.Join(r.Calls, " "))
		}
	}
	if p.Default == UserNotify || p.unknown() == UserNotify {
		return fmt.Errorf("the default leaves the decision to a supervisor, and none listens")
	}
	return nil
}
