package denial

import (
	"net/netip"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// act is how people say what a refused system call does, and what they can do
// where no flag allows it.
type act struct {
	calls, what, otherwise string
	minor                  bool // programs usually go on without
}

const (
	noNamespaces = "nothing inside can make namespaces; run what needs them (containers, a browser's own sandbox: --no-sandbox) without them"
	noMounts     = "mounts are made before the program starts: -v SRC:DST, --tmpfs DST"
)

// acts is in the order of the kernel's subjects.
func acts() []act {
	return []act{
		{"mount fsopen fsmount fsconfig fspick move_mount open_tree open_tree_attr mount_setattr", "mount a file system", noMounts, false},
		{"umount umount2", "unmount a file system", noMounts, false},
		{"pivot_root chroot", "change its root directory", "a sandbox has its own root already", false},
		{"clone clone3 unshare", "make namespaces of its own", noNamespaces, false},
		{"setns", "enter another namespace", noNamespaces, false},
		{"ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd", "look into another process", "debug outside of the sandbox", false},
		{"bpf", "load a BPF program", "", false},
		{"perf_event_open", "measure with the kernel's counters", "", true},
		{"io_uring_setup io_uring_enter io_uring_register", "use io_uring", "programs fall back to other calls", true},
		{"userfaultfd", "handle page faults itself", "", true},
		{"keyctl add_key request_key", "use the kernel's keys", "", true},
		{"init_module finit_module delete_module", "load or remove a kernel module", "load it on the host", false},
		{"kexec_load kexec_file_load reboot", "restart the machine", "", false},
		{"settimeofday clock_settime clock_adjtime adjtimex", "set the clock", "--time-namespace gives clocks of its own, which cannot be set either", false},
		{"sethostname setdomainname", "set the host name", "--hostname NAME sets it beforehand", false},
		{"swapon swapoff acct quotactl quotactl_fd syslog vhangup", "administer the machine", "", false},
		{"mknod mknodat", "make a device", "the devices of a sandbox are in /dev", false},
		{"personality", "change how programs are executed", "", true},
		{"modify_ldt", "use 16-bit code", "", true},
		{"open_by_handle_at name_to_handle_at", "open a file by its number", "", false},
		{"fanotify_init fanotify_mark", "watch whole file systems", "inotify works", false},
		{"lookup_dcookie nfsservctl uselib ustat sysfs _sysctl", "use an old interface", "", true},
		{"ioctl", "control a terminal or device", "", false},
		{"prctl", "change itself that way", "", true},
		{"seccomp", "listen to another filter", "without --explain and --learn it may", true},
	}
}

// refused explains what the filter refused.
func (j *Judge) refused(d Denial, c Call) Denial {
	d.Layer, d.Errno, d.Rule = Seccomp, c.Refused, "the system call "+c.Name+" is refused"
	if c.Rule != "" {
		d.Rule += ": " + c.Rule
	}
	d.What, d.Object = "make the system call "+c.Name, c.Path
	for _, a := range acts() {
		if hasWord(a.calls, c.Name) {
			d.What, d.Otherwise, d.Minor = a.what, a.otherwise, a.minor
			break
		}
	}
	if c.Name == "socket" || c.Name == "socketpair" {
		d = socket(d, c)
	}
	d.Allow = j.through(c)
	if never := j.hostOnly(c); never != "" {
		d.Allow, d.Otherwise = "", strings.TrimSuffix("nothing allows it: "+never+"; "+d.Otherwise, "; ")
	}
	d.Say = "The sandbox refuses the system call " + c.Name + " for good; do it another way, or say that it is needed."
	return d
}

// through is what lets a call through the filter, and then past the kernel's own
// question for a capability.
func (j *Judge) through(c Call) string {
	if strings.HasPrefix(c.Name, "call ") { // a number without a name
		return ""
	}
	allow := "--seccomp-profile FILE that allows " + c.Name
	if own := j.owners(c); own != "" {
		allow = own
	}
	if p := j.spec.Policy; seccomp.AlwaysRefused(c.Name) && (p == nil || !slices.Contains(p.Dangerous, c.Name)) {
		allow += ", with --allow-dangerous-syscall " + c.Name
	}
	if need, ok := alsoNeeds(c); ok && !j.holds(uint(need)) {
		allow += ", and --caps-policy FILE that keeps " + strings.TrimPrefix(need.String(), "CAP_")
	}
	return allow
}

// owners says what to change in a policy of the run's own, in which a call must be
// allowed by every part: the strictest answer counts. Without any, the default decides.
func (j *Judge) owners(c Call) string {
	if j.spec.Policy == nil || j.spec.Policy.Seccomp == nil {
		return ""
	}
	rule := "a first [[seccomp.rules]]: { calls = " + list(c.Name) + `, do = "allow" }`
	var parts, profiles []string
	for _, s := range j.spec.Policy.Sources {
		at := Clean(s.Path)
		others := c.Rule != "" && !strings.Contains(c.Rule, s.Path) && !strings.HasPrefix(c.Rule, "no rule allows it")
		switch s.Kind {
		case policy.KindPolicy:
			if others { // a profile's words
				rule = "leave what refuses " + c.Name + " out of extends"
			}
			parts = append(parts, "in "+at+", "+rule)
		case policy.KindSeccomp:
			parts = append(parts, "in "+at+", a rule that allows "+c.Name)
		case policy.KindProfile:
			profiles = append(profiles, "--profile "+at)
		}
	}
	without := strings.Join(profiles, " and ")
	switch {
	case len(parts)+len(profiles) == 0:
		return "in the policy, " + rule
	case len(parts) == 0 && !defaultAllows(c):
		return "--seccomp-profile FILE that allows " + c.Name + ", in the place of " + without
	case len(profiles) > 0:
		parts = append(parts, "leave out "+without)
	}
	return strings.Join(parts, ", and ")
}

// defaultAllows reports whether a call is one that the default policy allows.
func defaultAllows(c Call) bool {
	arch, err := seccomp.ParseArch(runtime.GOARCH)
	nr, ok := arch.Number(c.Name)
	return err == nil && ok && seccomp.Default().Decide(arch, nr, c.Args) == seccomp.Allow
}

// alsoNeeds is the capability that the kernel asks for once the filter allows a
// call. It counts in the sandbox's own user namespace.
func alsoNeeds(c Call) (caps.Cap, bool) {
	const newUser, packet, xdp = 0x10000000, 17, 44
	switch c.Name {
	case "sethostname", "setdomainname":
		return caps.SysAdmin, true
	case "unshare", "clone":
		return caps.SysAdmin, c.Args[0]&newUser == 0
	case "chroot":
		return caps.SysChroot, true
	case "socket":
		return caps.NetRaw, c.Args[0] == packet || c.Args[0] == xdp || raw(c)
	}
	return 0, false
}

// hostOnly says why a call works for nobody in a sandbox, whatever it holds there;
// empty: it may.
func (j *Judge) hostOnly(c Call) string {
	const kind, char, block = 0o170000, 0o020000, 0o060000
	mode := uint64(0)
	switch c.Name {
	case "settimeofday", "clock_settime", "swapon", "swapoff", "acct", "syslog", "init_module", "finit_module", "delete_module":
		return "the kernel asks for rights over the whole machine, which no sandbox has"
	case "mount", "umount2", "pivot_root", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "open_tree_attr", "mount_setattr":
		if len(j.layers) > 0 {
			return "Landlock, which confines every sandbox, forbids all changes of mounts"
		}
	case "mknod":
		mode = c.Args[1] & kind
	case "mknodat":
		mode = c.Args[2] & kind
	}
	if mode == char || mode == block {
		return "the kernel lets only the host's root make devices"
	}
	return ""
}

// raw reports whether a call makes a raw socket.
func raw(c Call) bool { return (c.Args[0] == 2 || c.Args[0] == 10) && c.Args[1]&0xf == 3 }

// families names the kinds of sockets that people ask for.
func families() map[uint64]string {
	return map[uint64]string{
		2: "IPv4", 10: "IPv6", 16: "netlink", 17: "packet", 38: "AF_ALG (the kernel's cryptography)", 40: "vsock", 29: "CAN", 31: "Bluetooth", 44: "XDP",
	}
}

func socket(d Denial, c Call) Denial {
	family, ok := families()[c.Args[0]]
	if !ok {
		family = "family " + strconv.FormatUint(c.Args[0], 10)
	}
	d.What, d.Otherwise = "make a socket ("+family+")", "TCP, UDP and unix sockets work inside"
	switch {
	case raw(c):
		d.What = "make a raw socket (" + family + ")"
	case c.Args[0] == 16, c.Args[0] == 38: // auditing of su and login; OpenSSL's engines
		d.Minor = true
	}
	return d
}

func hasWord(words, w string) bool {
	for f := range strings.FieldsSeq(words) {
		if f == w {
			return true
		}
	}
	return false
}

const noNetwork = "the sandbox has no network but its own loopback"

// connect explains where a program wanted to go. The call goes on: in a network
// namespace with nothing but a loopback device it cannot arrive.
func (j *Judge) connect(d Denial, c Call) (Denial, bool) {
	d.Layer, d.Inferred = Network, true
	at, err := netip.ParseAddrPort(c.Addr)
	if err != nil {
		return j.unixSocket(d, c)
	}
	loopback := at.Addr().IsLoopback() || at.Addr().IsUnspecified()
	if at.Port() != 53 && at.Port() != 0 { // these are hardly TCP
		if d, ok := j.port(d, landlock.ConnectTCP, at); ok {
			if !loopback {
				d.Allow, d.Otherwise = "", "and behind it "+noNetwork+"; no flag changes that in this version"
			}
			return d, true
		}
	}
	d.Otherwise = "no flag gives a sandbox a network in this version; fetch what it needs outside, and show it with -v or --context"
	switch {
	case at.Port() == 53:
		d.What, d.Object, d.Rule, d.Errno = "resolve a host name", "", noNetwork+", so there is no name server", "EAI_AGAIN"
		if !loopback {
			d.Object = "at " + c.Addr
		}
		d.Say = "There is no network and no name resolution in this sandbox; it is not an outage. Work with local files, or say what has to be fetched."
	case loopback:
		return d, false // a server inside may answer
	default:
		d.What, d.Object, d.Rule, d.Errno = "connect to", c.Addr, noNetwork, "ENETUNREACH"
		d.Say = "There is no network in this sandbox; it is not an outage and trying again does not help. Work with local files, or say what has to be fetched."
	}
	return d, true
}

// unixSocket explains a connection to a socket of the host. Some are probed by
// the C library in every program.
func (j *Judge) unixSocket(d Denial, c Call) (Denial, bool) {
	if !path.IsAbs(c.Addr) || c.Seen.Exists {
		return d, false
	}
	if _, ok := j.host.has(c.Addr); !ok {
		return d, false
	}
	if p, ok := j.place(c.Addr); ok && p.Host && p.Because == "toolchain" {
		return d, false
	}
	d = j.missing(d, c.Addr, c.Addr, "rw")
	d.What = "connect to the socket"
	for _, probe := range []string{"nscd", "systemd", "dbus", "/dev/log", "journal"} {
		d.Minor = d.Minor || strings.Contains(c.Addr, probe)
	}
	if strings.Contains(c.Addr, "docker") || strings.Contains(c.Addr, "containerd") || strings.Contains(c.Addr, "podman") {
		d.Otherwise, d.Allow = "who reaches this socket is root on the host, or may become it: run what needs it outside", ""
	}
	return d, true
}

// bind explains a port that a rule forbids or that takes a capability.
func (j *Judge) bind(d Denial, c Call) (Denial, bool) {
	at, err := netip.ParseAddrPort(c.Addr)
	const netBindService = 10
	if d, ok := j.port(d, landlock.BindTCP, at); ok && err == nil {
		return d, true
	}
	if err != nil && c.Seen.Asked { // a local socket
		d.What, d.Object = "make the socket", c.Addr
		return j.ruled(d, c)
	}
	if err != nil || at.Port() == 0 || at.Port() >= 1024 || j.holds(netBindService) {
		return d, false
	}
	d.Layer, d.Inferred, d.Errno = Capability, true, "EACCES"
	d.What, d.Object, d.Rule = "listen on", c.Addr, "ports below 1024 take the capability CAP_NET_BIND_SERVICE, and the sandbox has none"
	d.Allow, d.Otherwise = "--caps-policy FILE that keeps NET_BIND_SERVICE", "listen on a port from 1024 on"
	d.Say = "Ports below 1024 cannot be listened on in this sandbox; use one from 1024 on."
	return d, true
}

// chown explains giving a file away.
func (j *Judge) chown(d Denial, c Call) (Denial, bool) {
	arg := 1
	if c.Name == "fchownat" {
		arg = 2
	}
	const chown, unchanged = 0, 0xffffffff
	uid := uint32(c.Args[arg])
	if uid == unchanged || uid == j.spec.User.UID || c.Seen.Asked && !c.Seen.Exists {
		return d, false
	}
	d.What, d.Object, d.Say = "give away", c.Path, "Files cannot be given to other users in this sandbox; leave their owner as it is."
	d.Otherwise = "unpack archives with --no-same-owner; --user UID runs as that user from the start"
	p, ok := j.place(real(c, c.Path))
	switch {
	case !j.maps(uid):
		d.Layer, d.Inferred, d.Errno, d.Rule = Capability, true, "EINVAL", "the sandbox has no user "+strconv.FormatUint(uint64(uid), 10)+" to whom a file could belong"
		return d, true
	case ok && p.Host && j.translates():
		d.Layer, d.Inferred, d.Errno, d.Rule = Capability, true, "EOVERFLOW", "files of the host belong to one user in the sandbox, whose id is translated"
		return d, true
	case j.holds(chown):
		return d, false
	}
	d.Layer, d.Inferred, d.Errno = Capability, true, "EPERM"
	d.Rule = "changing a file's owner takes the capability CAP_CHOWN, and the sandbox has none"
	d.Allow = "--caps-policy FILE that keeps CHOWN"
	return d, true
}

// translates reports whether files of the host have another owner in the sandbox.
func (j *Judge) translates() bool {
	return slices.ContainsFunc(j.plan.Steps, func(s plan.Step) bool { t, ok := s.Do.(plan.HostTree); return ok && t.IDMap })
}

// maps reports whether the sandbox has a user id.
func (j *Judge) maps(uid uint32) bool {
	some := false
	if j.plan == nil {
		return true
	}
	for _, s := range j.plan.Steps {
		m, ok := s.Do.(plan.WriteMap)
		if !ok || m.File != "uid_map" {
			continue
		}
		if some = true; uid >= m.Inside && uid-m.Inside < m.Count {
			return true
		}
	}
	return !some
}

// holds reports whether programs have a capability.
func (j *Judge) holds(n uint) bool { return j.spec.Policy.Kept().Ambient&(1<<n) != 0 }
