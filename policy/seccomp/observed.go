package seccomp

import "slices"

// Level says how much of what a sandbox does a listener sees.
type Level int

// The levels. Each sees what the one before it sees.
const (
	// Refusals are the calls that a policy refuses, but for those whose refusal
	// is an ordinary answer that programs have a fallback for; and connect,
	// which tells where a program wanted to go. A program that is refused
	// nothing pays nothing.
	Refusals Level = iota + 1
	// Files adds the calls that name files, but for those that only ask about them.
	Files
	// Everything adds all other calls, but for those that every program makes
	// (see Basic).
	Everything
)

// secondListener is SECCOMP_FILTER_FLAG_NEW_LISTENER.
const secondListener = 1 << 3

// Observed returns p with notifications in the place of the refusals and of the
// permissions that a listener is to see. It allows nothing that p does not
// allow: who listens must answer a notification as p decides it.
//
// The kernel gives a task one listener (seccomp(2), EBUSY). That is what keeps a
// workload from becoming its own, so it is also a rule here.
func (p Policy) Observed(l Level) Policy {
	o, sees := Policy{Default: observed(p.Default), Unknown: p.Unknown}, l.sees()
	o.Rules = append(o.Rules, Rule{
		Calls: names("seccomp"), When: []Cond{bits(1, secondListener, secondListener)}, Do: Errno("EBUSY"),
		Why: "a second listener could answer what the first one is there to refuse",
	})
	for _, r := range p.Rules {
		if r.Do != Allow && r.Do != Log {
			r.Do = observed(r.Do)
			o.Rules = append(o.Rules, r)
			continue
		}
		seen, rest := r, r
		seen.Calls, rest.Calls = nil, nil
		for _, name := range r.Calls {
			if sees(name) {
				seen.Calls = append(seen.Calls, name)
			} else {
				rest.Calls = append(rest.Calls, name)
			}
		}
		if len(rest.Calls) > 0 {
			o.Rules = append(o.Rules, rest)
		}
		if len(seen.Calls) > 0 {
			seen.Do = UserNotify
			o.Rules = append(o.Rules, seen)
		}
	}
	return o
}

// Started splits p, as observed at a level, for a program that somebody starts who
// must make the named calls himself although p refuses them: observed allows
// them to both, without asking, and then, which is installed for the program
// alone, decides about them as p does. Together they allow nothing that p does
// not allow.
func (p Policy) Started(l Level, calls []string) (observed, then Policy) {
	observed = p.Observed(l)
	then = Policy{Default: Allow, Unknown: Allow}
	if len(calls) == 0 {
		return observed, then
	}
	// After the rule about second listeners, which holds for everyone.
	observed.Rules = slices.Insert(observed.Rules, 1, Rule{Calls: calls, Do: Allow, Why: "who starts the program makes them; the program's own filter decides for it"})
	for _, r := range p.Rules {
		r.Calls = slices.DeleteFunc(slices.Clone(r.Calls), func(name string) bool { return !slices.Contains(calls, name) })
		if len(r.Calls) > 0 {
			then.Rules = append(then.Rules, r)
		}
	}
	then.Rules = append(then.Rules, Rule{Calls: calls, Do: p.Default, Why: "no rule allows it"})
	return observed, then
}

// observed is the answer that lets a listener see a refusal.
func observed(a Action) Action {
	switch a {
	case Errno("ENOSYS"), Errno("ENOPROTOOPT"), KillProcess, KillThread, Trap, UserNotify, Allow, Log:
		return a
	}
	return UserNotify
}

// sees returns what says whether a call that is allowed is to be seen.
func (l Level) sees() func(name string) bool {
	switch l {
	case Files:
		files := fileCalls()
		return func(name string) bool { return name == "connect" || slices.Contains(files, name) }
	case Everything:
		basic := Basic()
		return func(name string) bool { return !slices.Contains(basic, name) }
	}
	return func(name string) bool { return name == "connect" }
}

// fileCalls name a file and use it.
func fileCalls() []string {
	return names(`open openat openat2 creat execve execveat mkdir mkdirat mknod mknodat rmdir unlink unlinkat
		rename renameat renameat2 link linkat symlink symlinkat chmod fchmodat fchmodat2 chown lchown fchownat
		truncate utime utimes utimensat futimesat chdir bind`)
}

// Basic returns the calls that no listener sees being allowed, because every
// program makes them, and often: using its descriptors, its memory, its locks and
// signals, and ending. A policy that was learned holds all of them.
func Basic() []string {
	return names(`read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek close close_range dup dup2 dup3 fcntl
		sendmsg recvmsg sendto recvfrom poll ppoll select pselect6 epoll_wait epoll_pwait epoll_pwait2 epoll_ctl
		mmap munmap mprotect mremap madvise brk futex rseq set_robust_list set_tid_address arch_prctl seccomp
		rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sigaltstack restart_syscall
		exit exit_group wait4 waitid tgkill sched_yield sched_getaffinity nanosleep clock_nanosleep clock_gettime
		gettimeofday time getpid gettid getrandom getcpu`)
}

// Pass returns a program for a, which ends processes that make foreign calls and
// allows all others: for where another filter decides.
func Pass(a Arch) Program {
	p, err := Policy{Default: Allow, Unknown: Allow}.Compile(a)
	if err != nil {
		return Program{}
	}
	return p
}
