package learn

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// families are calls that do the same by several names. Which one a program makes
// depends on its C library and on the machine, so one stands for all.
var families = [...]string{
	"stat lstat fstat newfstatat statx access faccessat faccessat2 readlink readlinkat",
	"open openat openat2 creat",
	"execve execveat",
	"fork vfork clone clone3",
	"pipe pipe2", "eventfd eventfd2", "epoll_create epoll_create1", "signalfd signalfd4", "inotify_init inotify_init1",
	"getdents getdents64", "accept accept4", "sendmmsg recvmmsg", "statfs fstatfs", "getcwd chdir fchdir",
	"mkdir mkdirat", "unlink unlinkat rmdir", "rename renameat renameat2", "link linkat", "symlink symlinkat",
	"mknod mknodat", "chmod fchmod fchmodat fchmodat2", "chown fchown lchown fchownat",
	"utime utimes utimensat futimesat", "truncate ftruncate fallocate", "fsync fdatasync sync_file_range",
	"getrlimit setrlimit prlimit64", "getuid geteuid getgid getegid getresuid getresgid getgroups getppid getpgid getpgrp getsid",
	"kill tkill tgkill", "setpgid setsid", "getxattr lgetxattr fgetxattr", "listxattr llistxattr flistxattr",
	"setxattr lsetxattr fsetxattr", "sched_getaffinity sched_setaffinity", "sched_getparam sched_getscheduler",
	"setitimer getitimer alarm", "timer_create timer_settime timer_gettime timer_getoverrun timer_delete",
	"timerfd_create timerfd_settime timerfd_gettime", "pidfd_open pidfd_send_signal", "mlock mlock2 munlock",
	"sendfile copy_file_range splice tee", "socket getsockname getpeername getsockopt shutdown",
	"uname sysinfo", "getrusage times",
}

// always are calls that a sandbox could not start a program without.
var always = []string{"execve", "execveat"}

// narrowed are the calls of which only the kinds that were seen are allowed:
// their arguments are the same in every run.
var narrowed = []string{"socket", "socketpair", "personality", "mknod", "mknodat"}

// wordAt is the argument that the first recorded word of a call was, where that
// is not the first.
func wordAt(call string) int {
	switch call {
	case "ioctl", "setsockopt", "mknod":
		return 1
	case "mknodat":
		return 2
	}
	return 0
}

// Rule is a rule with what it is there for.
type Rule struct {
	seccomp.Rule
	Evidence string
}

// Seccomp makes the smallest policy of system calls for the job. It is the given
// one, which was in force, without what the job did not use; rules keep their
// order, so nothing is allowed that the base refuses. Calls that went on though
// the base refuses them, under a policy that is not known here, are named.
func (r *Record) Seccomp(base seccomp.Policy) (rules []Rule, beyond []string) {
	used, siblings := r.used()
	allowed := map[string]bool{}
	for _, rule := range base.Rules {
		if rule.Do != seccomp.Allow && rule.Do != seccomp.Log {
			rules = append(rules, Rule{Rule: rule})
			continue
		}
		basic, twin := rule, rule
		basic.Calls, twin.Calls = nil, nil
		for _, name := range rule.Calls {
			switch u := used[name]; {
			case u != nil:
				allowed[name] = true
				if one := rule; r.seen(u, rule) {
					one.Calls = []string{name}
					rules = append(rules, Rule{one, evidence(u)})
				}
			case slices.Contains(seccomp.Basic(), name):
				basic.Calls = append(basic.Calls, name)
			case siblings[name] != "" && !slices.Contains(narrowed, name):
				twin.Calls = append(twin.Calls, name)
			}
		}
		if len(basic.Calls) > 0 {
			rules = append(rules, Rule{basic, "every program makes these"})
		}
		if len(twin.Calls) > 0 {
			rules = append(rules, Rule{twin, "other names of calls that were made: " + origins(twin.Calls, siblings)})
		}
	}
	more, beyond := r.beyond(allowed)
	return append(more, prune(rules, base.Default)...), beyond
}

// beyond is what another policy than the base let pass.
func (r *Record) beyond(allowed map[string]bool) (rules []Rule, names []string) {
	for i := range r.Calls {
		u := &r.Calls[i]
		if allowed[u.Name] || !seccomp.Known(u.Name) {
			continue
		}
		names = append(names, u.Name)
		rules = append(rules, Rule{seccomp.Rule{
			Calls: []string{u.Name}, Do: seccomp.Allow, Why: "the policy that was in force while learning allows it; the default one does not",
		}, evidence(u)})
	}
	return rules, names
}

// prune leaves refusals out that the default action makes as well, unless they
// are exceptions from a rule behind them.
func prune(rules []Rule, otherwise seccomp.Action) (out []Rule) {
	for i, rule := range rules {
		if rule.Do != otherwise {
			out = append(out, rule)
			continue
		}
		var calls []string
		for _, name := range rule.Calls {
			if slices.ContainsFunc(rules[i+1:], func(r Rule) bool { return r.Do != otherwise && slices.Contains(r.Calls, name) }) {
				calls = append(calls, name)
			}
		}
		if rule.Calls = calls; len(calls) > 0 {
			out = append(out, rule)
		}
	}
	return out
}

// used returns the calls that were made, and those that do the same as one of them.
func (r *Record) used() (used map[string]*Used, siblings map[string]string) {
	used, siblings = map[string]*Used{}, map[string]string{}
	for i := range r.Calls {
		used[r.Calls[i].Name] = &r.Calls[i]
	}
	have := func(name string) bool { return used[name] != nil || slices.Contains(always, name) }
	for _, f := range families {
		names := strings.Fields(f)
		i := slices.IndexFunc(names, have)
		if i < 0 {
			continue
		}
		for _, name := range names {
			if used[name] == nil {
				siblings[name] = names[i]
			}
		}
	}
	return used, siblings
}

func origins(calls []string, siblings map[string]string) string {
	var from []string
	for _, name := range calls {
		if s := siblings[name]; !slices.Contains(from, s) {
			from = append(from, s)
		}
	}
	return strings.Join(from, " ")
}

// seen reports whether a rule that allows a call is needed for what was seen of
// it. A rule about calls that are not told apart by kinds always is.
func (r *Record) seen(u *Used, rule seccomp.Rule) bool {
	if len(rule.When) == 0 || len(u.Values) == 0 || len(u.Values) >= maxValues || !slices.Contains(narrowed, u.Name) {
		return true
	}
	nr, ok := r.Arch.Number(u.Name)
	if !ok {
		return true
	}
	rule.Calls = []string{u.Name}
	alone := seccomp.Policy{Default: seccomp.Errno("EPERM"), Rules: []seccomp.Rule{rule}}
	return slices.ContainsFunc(u.Values, func(v []uint64) bool {
		var args [6]uint64
		copy(args[wordAt(u.Name):], v)
		return alone.Decide(r.Arch, nr, args) == rule.Do
	})
}

// evidence says what a rule is there for.
func evidence(u *Used) string {
	text := u.Evidence.String()
	if len(u.Values) == 0 || len(u.Values) >= maxValues {
		return text
	}
	var kinds []string
	for _, v := range u.Values {
		kinds = append(kinds, meaning(u.Name, v))
		if len(kinds) == 8 && len(u.Values) > 8 {
			kinds = append(kinds, fmt.Sprintf("%d more", len(u.Values)-8))
			break
		}
	}
	return text + ": " + strings.Join(kinds, ", ")
}

// String says how often and by whom first.
func (e Evidence) String() string {
	times := fmt.Sprintf("%d times", e.Count)
	if e.Count == 1 {
		times = "once"
	}
	if e.First == "" {
		return "used " + times
	}
	return "used " + times + ", first by " + e.First
}

// meaning puts the words of a call into words.
func meaning(call string, v []uint64) string {
	name := func(n uint64, known map[uint64]string) string {
		if s, ok := known[n]; ok {
			return s
		}
		return fmt.Sprintf("%#x", n)
	}
	if (call == "socket" || call == "socketpair") && len(v) == 3 {
		return name(v[0], map[uint64]string{1: "unix", 2: "inet", 10: "inet6", 16: "netlink", 17: "packet"}) + " " +
			name(v[1], map[uint64]string{1: "stream", 2: "datagram", 3: "raw", 5: "seqpacket"}) + " " + fmt.Sprint(v[2])
	}
	var parts []string
	for _, n := range v {
		parts = append(parts, fmt.Sprintf("%#x", n))
	}
	return strings.Join(parts, " ")
}
