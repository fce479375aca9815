package selftest

import (
	"runtime"

	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// arch is this machine's.
func arch() seccomp.Arch {
	if runtime.GOARCH == "arm64" {
		return seccomp.ARM64
	}
	return seccomp.AMD64
}

// alwaysRefused are the calls that the policy refuses whatever their arguments
// are, with nothing but zeros for those.
func alwaysRefused() []callRow {
	var out []callRow
	// Without a filter the first two end whoever makes them, and the third gives
	// its caller a debugger; a line that fails must not take the others with it.
	decided := map[string]bool{"uprobe": true, "uretprobe": true, "ptrace": true}
	for _, r := range seccomp.Default().Rules {
		for _, name := range r.Calls {
			if _, ok := arch().Number(name); !ok || decided[name] {
				continue
			}
			decided[name] = true // a call of which some are allowed is none of these
			if r.Do != seccomp.Allow && len(r.When) == 0 {
				out = append(out, callRow{"make every call that is always refused", name + " 0 0 0 0 0 0", string(r.Do), none})
			}
		}
	}
	return out
}

// foreign are calls by the other interfaces of this machine's kernel.
func foreign() []try {
	if arch() != seccomp.AMD64 {
		return nil
	}
	const how = "make calls by the kernel's other interfaces"
	return []try{
		ask(how, "memory int80", "SIGSYS|SIGSEGV").against(outside), // the latter where the kernel has no such interface
		ask(how, "memory x32", "SIGSYS").against(outside),
		ask(how, "memory socketcall", "SIGSYS|ENOEXEC").against(outside),
		ask("run a program from memory, which is allowed", "memory exit7", "exit 7"),
	}
}
