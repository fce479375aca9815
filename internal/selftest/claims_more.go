package selftest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/policy/caps"
)

var privilegeClaims = []Claim{
	{ID: "capabilities", Text: "No capability in any of five sets, whatever is executed", tries: triesCapabilities},
	{ID: "policy-caps", Text: "A policy keeps the capabilities that it names and no other, in each of the five sets, and they work", tries: triesPolicyCaps},
	{ID: "policy-rules", Text: "A policy's own filter and Landlock rules are enforced; the latter only narrow, and what joins has all of it", tries: triesPolicyRules},
	{ID: "dangerous", Text: "No policy allows a call of the always-refused list unless its user names it", tries: triesDangerous},
	{ID: "policy-files", Text: "A policy file means what its author reads, or is refused: unknown, doubled and misspelled parts, links, pipes, other digests", NotProbed: byTests},
	{ID: "filters", Text: "A compiled filter answers as its rules and as the text that it was read from", NotProbed: byTests},
	{ID: "profiles", Text: "A profile allows nothing that the default policy refuses", NotProbed: byTests},
	{ID: "no-new-privs", Text: "no_new_privs, and user id 0 means nothing", tries: triesPrivileges},
	{ID: "seccomp", Text: "System calls that programs do not need are refused, with errnos that they understand; 32-bit and x32 calls end the process", tries: triesSeccomp},
	{ID: "keys", Text: "No key that the kernel holds for others can be found or read", tries: triesKeys},
	{ID: "terminal", Text: "Terminal input cannot be faked", tries: triesTerminal},
	{ID: "descriptors", Text: "No descriptor is inherited that was not passed on", tries: triesDescriptors},
	{ID: "environment", Text: "The environment is made up; the loader cannot be steered", tries: triesEnvironment},
	{ID: "streams", Text: "Standard streams can be opened by name, whoever made the pipes", tries: triesStreams},
}

var limitClaims = []Claim{
	{ID: "limits", Text: "No core dump, bounded locked memory, descriptors and tasks", tries: triesLimits},
	{ID: "memory", Text: "Limits that are asked for are enforced or refused", tries: triesMemory},
	{ID: "scratch", Text: "Scratch memory is bounded", tries: triesScratch},
	{ID: "links", Text: "A symbolic link in a volume, or one that is swapped during the start, leads nowhere outside", tries: triesLinks},
	{ID: "owner", Text: "Files written to a workspace belong to its owner, on the host too", tries: triesOwner},
	{ID: "end", Text: "When Nucleus is killed, the sandbox ends; when the program ends, so do its daemons", tries: triesEnd},
}

var otherClaims = []Claim{
	{ID: "join", Text: "A program that joins gets all of the sandbox's namespaces or does not run, and is confined as the sandbox's own", tries: triesJoin},
	{ID: "join-limits", Text: "What joins counts against the sandbox's limits", NotProbed: byLife},
	{ID: "join-end", Text: "What joins ends with who waits for it, or with the sandbox", tries: triesJoinEnd},
	{ID: "detached", Text: "A detached sandbox runs only if it can be found again, and holds nothing of its starter", NotProbed: byLife},
	{ID: "pid-reuse", Text: "No signal reaches a foreign process: number, start time and boot must match, and it goes through a descriptor", NotProbed: byLife},
	{ID: "state", Text: "The state directory is its owner's alone; a record of another version or owner is not touched", NotProbed: byTests},
	{ID: "records", Text: "Whatever is killed at whatever moment, names and records stay in order", NotProbed: byTests},
	{ID: "copy", Text: "Copying cannot be led outside, and does on the host only what the sandbox's user could do itself", NotProbed: byLife},
	{ID: "logs", Text: "Output cannot fill a disk beyond its limit, nor can a full disk hold up the program", NotProbed: byLife},
	{ID: "log-writer", Text: "What writes logs can do nothing else", NotProbed: byLife},
	{ID: "lists", Text: "What the sandbox writes to a terminal list reaches yours as text: names and commands send it no commands", NotProbed: byTests},
	{ID: "hooks", Text: "A hook is a program that only its owner or root can change, and is executed as it was checked", NotProbed: byTests},
	{ID: "notify", Text: "What a program says to sd_notify is parsed, bounded and cleaned before it is passed on", NotProbed: byTests},
	{ID: "detached-plan", Text: "A detached sandbox differs from another in its life alone", NotProbed: byTests},
	{ID: "guide", Text: "What a sandbox says about itself to its programs cannot be changed from inside, and names no path of the host but those inside", tries: triesGuide},
	{ID: "learning", Text: "Learning weakens nothing: the policy in force is the same, what it refuses is refused, and a learned policy allows nothing that it refused", NotProbed: byTests},
	{ID: "denials", Text: "What a sandbox refuses is explained in words that its programs cannot forge or flood", NotProbed: byTests},
	{ID: "steps", Text: "Every step of a plan can fail: it is named, the workload does not run, nothing is left", NotProbed: byTests},
	{ID: "order", Text: "Every plan keeps the order that makes it safe", NotProbed: byTests},
	{ID: "root", Text: "A root of one's own (`--rootfs`) is read-only, and nothing in it leads to the host or takes the place of what the sandbox furnishes", NotProbed: byTests},
	{ID: "mount-audit", Text: "In production, every mount and submount is read back from the kernel before the program can run, and is as planned", NotProbed: byTests},
	{ID: "attestation", Text: "A root that is not what its manifest says starts nothing; every single change is found", NotProbed: byTests},
	{ID: "mode", Text: "A mode's demands hold, or nothing starts; only what was named may be weaker", tries: triesModes},
	{ID: "child", Text: "Between clone and exec nothing runs but system calls that were decided before", NotProbed: byTests},
	{ID: "events", Text: "What an event says is enforced was read from the kernel while the program was held, or says that it cannot be; what the kernel does not confirm, or the audit log does not take, never runs", NotProbed: byTests},
	{ID: "audit-log", Text: "Whatever is changed, dropped, moved, doubled or put into an audit log is found, with its line", NotProbed: byTests},
	{ID: "audit-place", Text: "No sandbox can change its audit log or hold up who writes to it; what reads events cannot hold up a sandbox, nor does the sandbox get its descriptor", NotProbed: byTests},
	{ID: "audit-quiet", Text: "Programs in a sandbox cannot fill the machine's audit log with what Landlock domains of their own refuse them", NotProbed: byTests},
	{ID: "event-secrets", Text: "Values of environment variables are in no event, audit record or log line, nor are keys for a collector printed", NotProbed: byTests},
	{ID: "report", Text: "What the Report says was read from the kernel, and it is an error where that contradicts the plan", tries: triesReport},
}

func triesCapabilities(w *world) []try {
	var out []try
	kept := w.kept()
	for _, s := range []struct {
		name string
		want caps.Set
	}{{"Inh", kept.Inheritable}, {"Prm", kept.Permitted}, {"Eff", kept.Effective}, {"Bnd", kept.Bounding}, {"Amb", kept.Ambient}} {
		out = append(out, ask("read the five sets", "status Cap"+s.name, "ok:"+s.want.Hex()).against(outside))
	}
	return append(out, ask("use one: mount", "call mount s:none s:/tmp s:tmpfs 0 0", "EPERM").against(namespaces))
}

func triesPrivileges(*world) []try {
	const getSecurebits = 27
	return []try{
		ask("read no_new_privs", "status NoNewPrivs", "ok:1").against(outside),
		ask("read the securebits: all are set and locked", fmt.Sprint("prctl ", getSecurebits), fmt.Sprint("ok:", abi.SecAll)).against(outside),
	}
}

// callRow is a call that is refused, with its arguments.
type callRow struct {
	how, call, want string
	with            control
}

// callRows are calls that the filter refuses because of their arguments, or with
// arguments that would do something. The controls are in namespaces of their own,
// and only of calls that do nothing to anybody else: a socket of an odd family would
// have the host's kernel load the module for it, for everyone and for good.
var callRows = []callRow{
	{"make namespaces", "clone3 z:64 64", "ENOSYS", namespaces},
	{"make namespaces", "clone 0x10000011", "EPERM", namespaces},
	{"make namespaces", "clone 0x700000010000011", "EPERM", namespaces},
	{"make namespaces", "clone 0x20011", "EPERM", namespaces},
	{"make namespaces", "clone 0x20000011", "EPERM", namespaces},
	{"make namespaces", "clone 0x40000011", "EPERM", namespaces},
	{"make namespaces", "clone 0x2000011", "EPERM", namespaces},
	{"make namespaces", "unshare 0x10000000", "EPERM", none},
	{"make namespaces", "unshare 0x20000", "EPERM", none},
	{"make namespaces", "unshare 0", "EPERM", namespaces},
	{"make namespaces", "setns -1 0", "EPERM", namespaces},
	{"use io_uring", "io_uring_setup 8 z:120", "ENOSYS", namespaces},
	{"use io_uring", "io_uring_enter -1 0 0 0 0 0", "ENOSYS", namespaces},
	{"use io_uring", "io_uring_register -1 0 0 0", "ENOSYS", namespaces},
	{"change mounts", "mount s:none s:/tmp s:tmpfs 0 0", "EPERM", namespaces},
	{"change mounts", "mount s:none s:/tmp s:cgroup2 0 0", "EPERM", none},
	{"change mounts", "umount2 s:/tmp 2", "EPERM", namespaces},
	{"change mounts", "pivot_root s:/tmp s:/tmp", "EPERM", none},
	{"change mounts", "chroot s:/tmp", "EPERM", none},
	{"change mounts", "fsopen s:tmpfs 0", "EPERM", namespaces},
	{"change mounts", "fsconfig -1 0 0 0 0", "EPERM", namespaces},
	{"change mounts", "fsmount -1 0 0", "EPERM", namespaces},
	{"change mounts", "fspick -100 s:/ 0", "EPERM", namespaces},
	{"change mounts", "open_tree -100 s:/ 0x80000", "EPERM", namespaces},
	{"change mounts", "move_mount -1 s:/tmp -1 s:/tmp 0", "EPERM", namespaces},
	{"look into kernel and processes", "ptrace 16 999999 0 0", "EPERM", namespaces},
	{"look into kernel and processes", "process_vm_writev 999999 0 0 0 0 0", "EPERM", namespaces},
	{"look into kernel and processes", "kcmp 2 2 0 0 0", "EPERM", namespaces},
	{"look into kernel and processes", "bpf 5 z:128 128", "EPERM", namespaces},
	{"look into kernel and processes", "perf_event_open z:128 0 -1 -1 0", "EPERM", namespaces},
	{"look into kernel and processes", "userfaultfd 1", "EPERM", namespaces},
	{"look into kernel and processes", "name_to_handle_at -100 s:/ z:8 z:8 0", "EPERM", namespaces},
	{"look into kernel and processes", "open_by_handle_at -100 z:128 0", "EPERM", none},
	{"look into kernel and processes", "fanotify_init 0x200 0", "EPERM", namespaces},
	{"use the kernel's keys", "keyctl 0 -3 0", "EPERM", namespaces},
	{"use the kernel's keys", "add_key s:user s:nucleus s:x 1 -2", "EPERM", namespaces},
	{"use the kernel's keys", "request_key s:user s:nucleus-none 0 0", "EPERM", namespaces},
	{"change the machine", "sethostname s:x 1", "EPERM", namespaces},
	{"change the machine", "syslog 10 0 0", "EPERM", none},
	{"change the machine", "clock_settime 0 z:16", "EPERM", none},
	{"change the machine", "reboot 0 0 0 0", "EPERM", none},
	{"change the machine", "init_module z:8 8 s:", "EPERM", none},
	{"change the machine", "kexec_load 0 0 0 0", "EPERM", none},
	{"change the machine", "personality 0x40000", "EPERM", namespaces},
	{"open sockets of other families", "socket 17 3 0", "EAFNOSUPPORT", none},
	{"open sockets of other families", "socket 38 5 0", "EAFNOSUPPORT", none},
	{"open sockets of other families", "socket 0x100000026 5 0", "EAFNOSUPPORT", none},
	{"open sockets of other families", "socket 16 3 12", "EAFNOSUPPORT", none},
	{"open sockets of other families", "socket 16 3 6", "EAFNOSUPPORT", none},
	{"open sockets of other families", "socket 16 3 16", "EAFNOSUPPORT", namespaces},
	{"open sockets of other families", "socketpair 2 1 0 z:8", "EAFNOSUPPORT", namespaces},
	{"open raw and odd sockets", "socket 2 3 1", "EPROTONOSUPPORT", namespaces},
	{"open raw and odd sockets", "socket 10 3 58", "EPROTONOSUPPORT", none},
	{"open raw and odd sockets", "socket 2 1 132", "EPROTONOSUPPORT", none},
	{"open raw and odd sockets", "socket 2 1 262", "EPROTONOSUPPORT", none},
	{"open raw and odd sockets", "setsockopt -1 6 31 s:tls 3", "ENOPROTOOPT", namespaces},
	{"use a call that no policy knows", "4000", "ENOSYS", none},
	{"do what programs need", "socket 16 3 0", "ok", none},
	{"do what programs need", "socket 1 1 0", "ok", none},
	{"do what programs need", "socket 2 0x80801 6", "ok", none},
	{"do what programs need", "clone 17", "ok", none},
}

// families are the numbers of the socket families that are not allowed: all but
// unix, inet, inet6 and netlink.
func families() []callRow {
	var out []callRow
	for family := range 46 {
		if !slices.Contains([]int{1, 2, 10, 16}, family) {
			out = append(out, callRow{"open sockets of other families", fmt.Sprintf("socket %d 3 0", family), "EAFNOSUPPORT", none})
		}
	}
	return out
}

func triesSeccomp(*world) []try {
	var out []try
	seen := map[string]bool{}
	for _, c := range slices.Concat(callRows, families(), alwaysRefused()) {
		if seen[c.call] {
			continue
		}
		seen[c.call] = true
		out = append(out, ask(c.how, "call "+c.call, c.want).against(c.with))
	}
	return append(out, foreign()...)
}

func triesKeys(*world) []try {
	return []try{
		ask("ask for the session's keyring", "call keyctl 0 -3 0", "EPERM").against(namespaces),
		ask("look for a key", "call request_key s:user s:nucleus-none 0 0", "EPERM").against(namespaces),
		ask("leave a key behind", "call add_key s:user s:nucleus s:x 1 -2", "EPERM").against(namespaces),
		ask("list keys", "read /proc/keys", "ok:|ENOENT|EACCES|EPERM").against(outside),
	}
}

func triesTerminal(*world) []try {
	var out []try
	for _, request := range []string{"0x5412", "0x100005412", "0xffffffff00005412", "0x541c", "0xdead0000541c", "0x5423"} {
		out = append(out, ask("TIOCSTI, TIOCLINUX and TIOCSETD, with dirty upper bits too", "call ioctl 0 "+request+" z:8", "EPERM").against(namespaces))
	}
	return append(out,
		ask("open the terminal that we have", "open rw /dev/tty", "ENXIO").against(outside),
		ask("ask about a terminal, which is allowed", "call ioctl 0 0x5401 z:64", "ENOTTY"))
}

func triesDescriptors(*world) []try {
	return []try{ask("list the open descriptors; 3 and 4 were passed on", "fds", fmt.Sprint("ok:0 1 2 ", imageFD, " ", dirFD)).against(outside)}
}

func triesEnvironment(w *world) []try {
	names := []string{"HOME", "LANG", "PATH", "TERM", "USER"}
	for _, kv := range w.plain.Env {
		name, _, _ := strings.Cut(kv, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	return []try{ask("list the variables", "env", "ok:"+strings.Join(slices.Compact(names), " ")).against(outside)}
}

func triesStreams(w *world) []try {
	return []try{ask("open standard output by its name", "open w /dev/stdout", "ok").unless(w.foreignUser())}
}

func triesLimits(w *world) []try {
	pids := w.plain.Limits.EffectivePids()
	tasks := ask("start processes until the kernel refuses", fmt.Sprintf("fork %d", pids+64), "EAGAIN after *")
	if pids == 0 {
		tasks = tasks.unless("--pids unlimited was asked for")
	} else if pids > 4096 {
		tasks = tasks.unless("the limit on tasks is too high to try")
	}
	return []try{
		ask("read the limit on core dumps", fmt.Sprint("limit ", abi.RlimitCore), "ok:0 0").against(outside),
		ask("read the limit on locked memory", fmt.Sprint("limit ", abi.RlimitMemlock), "!ok:-1 -1").against(outside),
		tasks,
	}
}

func triesMemory(*world) []try {
	return []try{run("use more memory than the limit", "out of memory: *", memoryBounded)}
}

func triesScratch(w *world) []try {
	return []try{run("write more to /tmp than it holds", "ENOSPC", scratchBounded).unless(w.meant("/tmp"))}
}

func triesLinks(w *world) []try {
	return []try{ask("follow a link in a volume to the host", "read {ro}/link", absent).against(outside).unless(w.noShare).unless(w.meant(w.dir))}
}

func triesOwner(w *world) []try {
	return []try{
		ask("make a file in a directory of ours", "open new {rw}/made-by", "ok").unless(w.noWriting()),
		run("see whose it is on the host", "the owner of the directory", ownerIs).unless(w.noWriting()),
	}
}

func triesEnd(*world) []try {
	return []try{
		run("kill the Nucleus that supervises it", "the sandbox has ended", supervisorKilled),
		run("leave a daemon behind", "all have ended", daemonsEnd),
		run("run longer than the timeout", "killed: it ran longer than its timeout of 50ms", timeoutEnds),
	}
}

func triesReport(w *world) []try {
	return []try{run("ask the kernel whether it confirms the plan", "it does", reportAgrees)}
}
