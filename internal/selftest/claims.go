package selftest

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/spec"
)

// Claim is a row of docs/SECURITY.md.
type Claim struct {
	ID   string
	Text string
	// NotProbed says why no program in a sandbox can show it; empty for the others.
	NotProbed string
	tries     func(*world) []try
}

// try is one attempt: a question to a probe in the sandbox, or a sandbox of its own.
type try struct {
	how   string
	ask   string
	want  string
	do    func(*world) (answer, skip string)
	skip  string                   // why it cannot be made here
	judge func(answer string) bool // instead of a comparison with want, which then is words

	with    control
	instead string // what the control asks, where that differs
}

// ask is an attempt by a question.
func ask(how, question, want string) try { return try{how: how, ask: question, want: want} }

// run is an attempt by a sandbox of its own.
func run(how, want string, do func(*world) (answer, skip string)) try {
	return try{how: how, want: want, do: do}
}

// against compares with the same question elsewhere, or with another.
func (t try) against(c control, instead ...string) try {
	t.with, t.instead = c, strings.Join(instead, "")
	return t
}

// unless leaves the attempt out for a reason, if there is one.
func (t try) unless(why string) try {
	if t.skip == "" {
		t.skip = why
	}
	return t
}

// Answers that are wanted often.
const (
	refused = "EROFS|EACCES|EPERM"
	absent  = "ENOENT"
)

// Reasons for which nothing can be shown from inside.
const (
	byLife  = "it is about sandboxes that outlive their starter; this table starts none"
	byTests = "it is about Nucleus itself, not about what the kernel lets a program do; the tests show it"
)

// Claims are the rows of docs/SECURITY.md.
func Claims() []Claim {
	return slices.Concat(boundaryClaims, privilegeClaims, limitClaims, otherClaims)
}

// hostUserns says that the host's users were asked for.
func (w *world) hostUserns() string {
	if w.plain.Userns == spec.UsernsHost {
		return "--userns host was asked for"
	}
	return ""
}

// foreignUser says that a directory of ours belongs to somebody else inside.
func (w *world) foreignUser() string {
	if w.plain.Userns == spec.UsernsHost && int(w.plain.User.UID) != os.Geteuid() {
		return "with --userns host our files are another user's"
	}
	return ""
}

// noWriting says why nothing can be made in a directory of ours.
func (w *world) noWriting() string { return cmp.Or(w.noShare, w.foreignUser()) }

// meant says that a host path was shown on purpose.
func (w *world) meant(path string) string {
	targets := []string{}
	for _, v := range w.plain.Volumes {
		targets = append(targets, v.Target)
	}
	for _, t := range targets {
		if path == t || strings.HasPrefix(path, strings.TrimSuffix(t, "/")+"/") {
			return path + " was shown on purpose"
		}
	}
	return ""
}

var boundaryClaims = []Claim{
	{ID: "namespaces", Text: "Its own user, pid, mount, net, uts, ipc and cgroup namespaces; time when asked for", tries: triesNamespaces},
	{ID: "ids", Text: "Root inside is not root outside; two sandboxes of root share no id", tries: triesIDs},
	{ID: "processes", Text: "No process of the host is seen, signalled or traced", tries: triesProcesses},
	{ID: "init", Text: "Process 1 cannot be seen, read, traced or ended from inside, and holds no host descriptor or memory", tries: triesInit},
	{ID: "files", Text: "Nothing of the host's file tree but what was named; the old root is gone", tries: triesFiles},
	{ID: "propagation", Text: "No mount of the sandbox appears on the host, nor the other way round, also where the host shares its mounts", tries: triesPropagation},
	{ID: "read-only", Text: "The root, /usr and its like cannot be changed, submounts included", tries: triesReadOnly},
	{ID: "landlock", Text: "Two layers say so: without the read-only mounts Landlock still refuses, and the other way round", tries: triesLandlock},
	{ID: "setuid", Text: "No set-user-id program or file capability is in force, and none can be left in a directory of the host's", tries: triesSetuid},
	{ID: "devices", Text: "No device but null zero full random urandom tty ptmx pts", tries: triesDevices},
	{ID: "noexec", Text: "Nothing in scratch space or a host directory can be executed unless `exec` was given", tries: triesNoExec},
	{ID: "proc", Text: "/proc shows no kernel memory, keys or timers, and cannot be used to change the kernel", tries: triesProc},
	{ID: "sockets", Text: "No unix socket of the host can be reached, by path or abstract name", tries: triesSockets},
	{ID: "network", Text: "No network but the sandbox's own loopback", tries: triesNetwork},
}

func triesNamespaces(w *world) []try {
	kinds := []string{"user", "pid", "mnt", "net", "uts", "ipc", "cgroup"}
	if w.plain.TimeNamespace {
		kinds = append(kinds, "time")
	}
	var out []try
	for _, kind := range kinds {
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		t := ask("compare its namespaces with ours", "readlink /proc/self/ns/"+kind, "!ok:"+ours).against(outside)
		if err != nil {
			t = t.unless(err.Error())
		}
		if kind == "user" {
			t = t.unless(w.hostUserns())
		}
		out = append(out, t)
	}
	return out
}

func triesIDs(w *world) []try {
	ours, _ := os.ReadFile("/proc/self/uid_map") // every process has one
	out := []try{
		ask("compare the map of its users with ours", "read /proc/self/uid_map", "!ok:"+strings.TrimSpace(string(ours))).against(outside).unless(w.hostUserns()),
	}
	two := run("compare the users of two sandboxes at the same time", "they differ", rangesDiffer).unless(w.hostUserns())
	if !w.root() {
		two = two.unless("an ordinary user has one id to give")
	}
	return append(out, two)
}

func triesProcesses(*world) []try {
	return []try{
		ask("count the processes of others in /proc", "processes", "ok:0").against(outside),
		ask("signal everybody else (signal 0)", "kill -1 0", "ESRCH|EPERM").against(outside),
		ask("read another's memory", "call process_vm_readv 1 0 0 0 0 0", "EPERM").against(outside),
		ask("attach to process 1 as a debugger", "call ptrace 0x4206 1 0 0", "EPERM"),
	}
}

func triesInit(*world) []try {
	var out []try
	for _, f := range []string{"mem", "environ", "maps", "status", "exe", "cwd", "root", "fd"} {
		t := ask("open its files in /proc", "open r /proc/1/"+f, "ENOENT|EACCES|EPERM")
		if f == "status" {
			t = t.against(outside)
		}
		out = append(out, t)
	}
	return append(out,
		ask("kill it: the kernel discards the signal, and it lives", "kill 1 9", "ok"),
		ask("stop it, likewise", "kill 1 19", "ok"),
		ask("take its descriptors", "call pidfd_getfd -1 0 0", "EPERM").against(outside),
		ask("write to its program", "open rw /proc/1/exe", "ENOENT|EACCES|EPERM"),
		ask("write to the program that runs", "open w /proc/self/exe", "EROFS|EACCES|EPERM|ETXTBSY"),
	)
}

func triesFiles(w *world) []try {
	secret := "{dir}/secret"
	return []try{
		ask("read a file that lies on the host", "read "+secret, absent).against(outside).unless(w.meant(w.dir)),
		ask("the same by way of other roots", "read /proc/self/root"+secret, absent).against(outside).unless(w.meant(w.dir)),
		ask("the same from above the root", "read /../../.."+secret, absent).against(outside).unless(w.meant(w.dir)),
		ask("read the host's password file", "open r /etc/shadow", absent).unless(w.meant("/etc/shadow")),
		ask("follow a link in a volume to the host", "read {ro}/link", absent).against(outside).unless(w.noShare).unless(w.meant(w.dir)),
		ask("look for the host's root", "readlink /proc/self/cwd", "ok:/*"),
		ask("look for /sys", "exists /sys", absent).against(outside).unless(w.meant("/sys")),
		{how: "look for mounts that the plan does not name", ask: "mounts all", want: "those of the plan", judge: w.mountsPlanned, with: outside},
	}
}

// mountsPlanned reports whether every mount is one that the plan makes, or comes
// with a host directory that it shows.
func (w *world) mountsPlanned(answer string) bool {
	list, ok := strings.CutPrefix(answer, "ok:")
	for m := range strings.FieldsSeq(list) {
		ok = ok && (m == "/" || slices.ContainsFunc(w.mounts, func(p string) bool { return m == p || strings.HasPrefix(m, p+"/") }))
	}
	return ok
}

func triesPropagation(*world) []try {
	return []try{ask("list the mounts that are tied to the host's", "mounts propagate", "ok:").against(outside)}
}

func triesReadOnly(w *world) []try {
	noTool := ""
	if !w.plain.Toolchain {
		noTool = "the host's programs are not there (--no-toolchain)"
	}
	return []try{
		ask("make a file in the root", "open new /nucleus-selftest", refused),
		ask("make a directory in the root", "mkdir /nucleus-selftest", refused),
		ask("make a file in /etc", "open new /etc/nucleus-selftest", refused),
		ask("make a file in /usr", "open new /usr/nucleus-selftest", refused).unless(noTool),
		ask("change a mode in /usr", "chmod /usr", refused).unless(noTool),
		ask("make a file in a read-only volume", "open new {ro}/new", refused).against(outside).unless(w.noShare),
		ask("write to a file of a read-only volume", "open w {ro}/note", refused).against(outside).unless(w.noShare),
		ask("make it writable by mount", "call mount s:none s:/ s: 0x1020 0", "EPERM"),
		ask("make it writable by mount_setattr", "call mount_setattr -100 s:/ 0 z:32 32", "EPERM").against(namespaces),
		ask("mount something over it", "call mount s:none s:/tmp s:tmpfs 0 0", "EPERM").against(namespaces),
		ask("the same by the newer calls", "call fsopen s:tmpfs 0", "EPERM").against(namespaces),
		ask("copy a mount", "call open_tree -100 s:/ 0x80001", "EPERM").against(namespaces),
		ask("make a file where that is allowed", "open new {rw}/made", "ok").unless(w.noWriting()),
	}
}

func triesLandlock(w *world) []try {
	no := w.weakened("policy.landlock: " + noLandlock)
	return []try{
		ask("read by a descriptor of a host directory that slipped in: no mount forbids it", fmt.Sprint("readat ", dirFD, " secret"), "EACCES").against(outside).unless(no),
		ask("count the Landlock domains that can still be stacked, of 16", "layers", "ok:15|ok:14").against(outside).unless(no),
	}
}

func triesSetuid(w *world) []try {
	out := []try{
		ask("list the mounts without nosuid", "mounts nosuid", "ok:").against(outside),
		ask("read no_new_privs", "status NoNewPrivs", "ok:1").against(outside),
	}
	out = append(out, ask("make a file one that runs as its owner", "call fchmodat -100 s:/tmp 0x9ff 0", "EPERM"))
	t := ask("run a set-user-id program of the host", "setuid /usr/bin/su", "ok:stayed|"+absent+"|EACCES|EPERM")
	name := setuidProgram()
	switch {
	case name == "":
		t = t.unless("there is none here")
	case !w.plain.Toolchain:
		t = t.unless("the host's programs are not there (--no-toolchain)")
	case w.root():
		t.ask = "setuid " + name
		t = t.against(outside, "setuid "+name+" 65534")
	default:
		t.ask = "setuid " + name
		t = t.against(outside)
	}
	return append(out, t)
}

// setuidProgram is a program of the host that becomes root and can print its help.
func setuidProgram() string {
	for _, p := range []string{"/usr/bin/su", "/usr/bin/mount", "/usr/bin/umount", "/usr/bin/passwd", "/usr/bin/sudo"} {
		if st, err := os.Stat(p); err == nil && st.Mode()&os.ModeSetuid != 0 {
			return p
		}
	}
	return ""
}

func triesDevices(*world) []try {
	return []try{
		ask("list /dev", "ls /dev", "ok:fd full null ptmx pts random shm stderr stdin stdout tty urandom zero|ok:.empty fd full null ptmx pts random shm stderr stdin stdout tty urandom zero").against(outside),
		ask("make a device", "mknod {tmp}/null", "EPERM|EACCES").against(outside),
		ask("list the mounts on which devices work", "mounts nodev", "ok:/dev/pts|ok:").against(outside),
		ask("write to one that is there", "open w /dev/null", "ok"),
	}
}

func triesNoExec(w *world) []try {
	return []try{
		ask("write a program to /tmp and run it", "elf {tmp}/program exit7", "EACCES|EPERM").against(outside).unless(w.meant("/tmp")),
		ask("the same in a shared directory", "elf {rw}/program exit7", "EACCES|EPERM").against(outside).unless(w.noWriting()),
	}
}

func triesProc(w *world) []try {
	var out []try
	for _, f := range []string{"kcore", "keys", "timer_list", "interrupts", "sched_debug", "latency_stats"} {
		out = append(out, ask("read what is masked", "read /proc/"+f, "ok:|ENOENT|EACCES|EPERM").against(outside))
	}
	for _, f := range []string{"sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/net/ipv4/ip_forward", "sys/fs/mqueue/msg_max", "sysrq-trigger", "sys/user/max_user_namespaces"} {
		out = append(out, ask("open what changes the kernel", "open w /proc/"+f, refused+"|"+absent).against(outside))
	}
	return append(out, ask("make it writable", "call mount s:none s:/proc/sys s: 0x1020 0", "EPERM"))
}

func triesSockets(w *world) []try {
	out := []try{
		ask("connect to a socket of the host by its path", "connect {dir}/socket", absent).against(outside).unless(w.meant(w.dir)),
		ask("connect to one by its abstract name", "connect "+w.socket, "ECONNREFUSED|EPERM").against(outside),
	}
	for _, s := range knownSockets() {
		t := ask("connect to services that would act for it", "connect "+s, absent).unless(w.meant(s))
		out = append(out, t.against(outside))
	}
	return out
}

// knownSockets are the services whose clients can make them do anything.
func knownSockets() []string {
	uid := os.Getuid()
	known := []string{
		"/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/run/crio/crio.sock",
		"/run/systemd/private", "/run/systemd/journal/socket", "/run/dbus/system_bus_socket", "/run/snapd.socket", "/dev/log",
		fmt.Sprintf("/run/user/%d/bus", uid), fmt.Sprintf("/run/user/%d/systemd/private", uid), fmt.Sprintf("/run/user/%d/docker.sock", uid),
		fmt.Sprintf("/run/user/%d/wayland-0", uid), fmt.Sprintf("/tmp/tmux-%d/default", uid), "/tmp/.X11-unix/X0",
	}
	if agent := os.Getenv("SSH_AUTH_SOCK"); strings.HasPrefix(agent, "/") && len(agent) < 100 && !strings.ContainsAny(agent, " \n") {
		known = append(known, agent)
	}
	return known
}

func triesNetwork(*world) []try {
	out := []try{
		ask("list the network devices", "devices", "ok:lo").against(outside),
		ask("use the loopback device", "route 127.0.0.1:9", "ok"),
	}
	for _, to := range []string{"192.0.2.1:80", "[2001:db8::1]:80", "10.0.0.1:80", "8.8.8.8:53"} {
		out = append(out, ask("look for a way to elsewhere (nothing is sent)", "route "+to, "ENETUNREACH|EADDRNOTAVAIL").against(outside))
	}
	for _, to := range []string{"169.254.169.254:80", "[fd00:ec2::254]:80", "100.100.100.200:80", "168.63.129.16:80"} {
		out = append(out, ask("look for a way to a cloud's metadata (nothing is sent)", "route "+to, "ENETUNREACH|EADDRNOTAVAIL").against(outside))
	}
	return out
}
