package host

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
)

// Finding is one fact about a machine that matters to sandboxes.
type Finding struct {
	Name    string `json:"name"`
	Status  Status `json:"status"`
	Value   string `json:"value"`   // what there is
	Enables string `json:"enables"` // what it is good for, or what is lost without it
	Fix     string `json:"fix,omitempty"`
}

// Status is what a finding means.
type Status string

// Statuses.
const (
	OK      Status = "ok"
	Weaker  Status = "weaker"  // sandboxes start, with less
	Missing Status = "missing" // sandboxes do not start, or a flag is refused
	Info    Status = "info"
)

// Examine looks at everything that a sandbox may meet on this machine. It tries
// what can be tried without leaving a trace and changes nothing.
func Examine(h *facts.Host) []Finding {
	m := examiner{}
	all := []Finding{
		{"kernel", Info, h.Kernel + " " + h.Arch, "what follows was tried, not read off this number", ""},
		m.user(h),
		m.container(),
		m.userns(h, tryUserns()),
		call("clone3", kernel.Clone3(), "every start"),
		call("mount_setattr", kernel.MountSetattr(), "read-only host directories, and idmapped ones for root"),
		m.pidfd(),
		m.timens(),
		m.seccomp(),
		m.landlock(h.LandlockABI),
		audit(h.LandlockABI, kernel.AuditEnabled),
		m.proc(),
		m.devices(),
		m.terminals(),
	}
	all = append(all, cgroupFindings(h.Cgroup)...)
	return append(all, m.systemd(h.UID), m.subids(h.UID), m.limits(h))
}

// examiner reads files. Tests give it a root of their own.
type examiner struct{ root string }

// line is the content of a small file, empty if it cannot be read.
func (m examiner) line(path string) string {
	b, err := os.ReadFile(m.root + path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (m examiner) exists(path string) bool {
	_, err := os.Lstat(m.root + path)
	return err == nil
}

func (m examiner) user(h *facts.Host) Finding {
	f := Finding{Name: "user", Status: OK, Value: fmt.Sprintf("uid %d, gid %d", h.UID, h.GID)}
	switch {
	case h.Privileged():
		f.Enables = "each sandbox gets a range of ids that no other uses"
	case h.UID == 0:
		have := caps.Set(h.CapEff)
		need := caps.Of(caps.Cap(facts.CapSetuid), caps.Cap(facts.CapSetgid), caps.Cap(facts.CapSysAdmin))
		f.Value += ", without " + need.Diff(have).String()
		f.Enables = "as for an ordinary user: the sandbox's one id is this user"
	default:
		f.Enables = "the sandbox's one id is this user"
	}
	return f
}

// container finds what we are in, by the marks that it leaves.
func (m examiner) container() Finding {
	f := Finding{Name: "container", Status: Info, Value: "none", Enables: "nothing around us is in the way"}
	for _, mark := range [][2]string{{"/.dockerenv", "docker"}, {"/run/.containerenv", "podman"}, {"/run/systemd/container", "systemd-nspawn or alike"}} {
		if m.exists(mark[0]) {
			f.Value = mark[1]
		}
	}
	if ids := strings.Fields(m.line("/proc/self/uid_map")); f.Value == "none" && len(ids) > 2 && ids[2] != "4294967295" {
		f.Value = "a user namespace"
	}
	if f.Value != "none" {
		f.Enables = "its seccomp profile and its masked /proc decide what works; see userns and proc"
	}
	if m.filtered() {
		f.Value += ", seccomp filter around us"
	}
	return f
}

// filtered reports whether a seccomp filter was put on this process.
func (m examiner) filtered() bool {
	return strings.Contains(m.line("/proc/self/status"), "\nSeccomp:\t2")
}

func call(name string, err error, enables string) Finding {
	f := Finding{Name: name, Status: OK, Value: "works", Enables: enables}
	if err != nil {
		f.Status, f.Value = Missing, "fails: "+err.Error()
		f.Fix = "use Linux 5.14 or newer; inside a container, start that with a seccomp profile that lets " + name + " through: docker run --security-opt seccomp=unconfined"
	}
	return f
}

func (m examiner) pidfd() Finding {
	f := Finding{Name: "pidfd", Status: OK, Value: "works", Enables: "signals reach the sandbox and nobody else"}
	if err := kernel.PidFD(); err != nil {
		f.Status, f.Value, f.Fix = Missing, "fails: "+err.Error(), "use Linux 5.14 or newer"
	}
	return f
}

func (m examiner) timens() Finding {
	f := Finding{Name: "time-namespace", Status: OK, Value: "works", Enables: "--time-namespace"}
	if !m.exists("/proc/self/ns/time") {
		f.Status, f.Value, f.Fix = Weaker, "the kernel has none", "use a kernel with CONFIG_TIME_NS"
	}
	return f
}

func (m examiner) seccomp() Finding {
	f := Finding{Name: "seccomp", Status: OK, Enables: "an allow-list of system calls"}
	actions := m.line("/proc/sys/kernel/seccomp/actions_avail")
	if actions == "" {
		f.Status, f.Value, f.Fix = Missing, "the kernel has none", "use a kernel with CONFIG_SECCOMP_FILTER"
		return f
	}
	f.Value = "filter"
	if strings.Contains(actions, "user_notif") {
		f.Value += ", user notification"
	}
	return f
}

// landlock says what is lost below the newest version, level by level.
func (m examiner) landlock(abi int) Finding {
	f := Finding{Name: "landlock", Status: OK, Value: fmt.Sprintf("ABI %d", abi), Enables: "a second wall around files"}
	if abi < 1 {
		f.Status, f.Value = Missing, "none"
		f.Fix = "use a kernel with CONFIG_SECURITY_LANDLOCK and boot it with landlock in lsm=" + m.lsm() + ", or accept to be without: nucleus run --allow-degraded landlock"
		return f
	}
	_, lost, err := landlock.Default().Downgrade(abi)
	if err != nil {
		f.Status, f.Value = Missing, err.Error()
		return f
	}
	need := 0
	for _, l := range lost {
		f.Value += "; " + l.String()
		need = max(need, l.NeedABI)
	}
	if need > 0 {
		f.Status, f.Fix = Weaker, fmt.Sprintf("boot a kernel with Landlock ABI %d or newer", need)
	}
	return f
}

// audit says whether what Landlock refuses can be had from the kernel.
func audit(landlockABI int, enabled func() (bool, error)) Finding {
	f := Finding{Name: "audit", Status: Info, Enables: "--explain tells what Landlock refused as the kernel wrote it down, in the place of what follows from its rules"}
	on, err := enabled()
	switch {
	case landlockABI < abi.LandlockLogs:
		f.Value = fmt.Sprintf("Landlock writes nothing into it before ABI %d", abi.LandlockLogs)
	case err != nil:
		f.Value, f.Fix = "cannot be read by us: "+err.Error(), "it is for root, outside of containers"
	case !on:
		f.Value, f.Fix = "off", "auditctl -e 1, of the package auditd, which costs every system call of the machine a little"
	default:
		f.Status, f.Value = OK, "on"
	}
	return f
}

// lsm is the list of security modules that runs, with landlock in front.
func (m examiner) lsm() string {
	if have := m.line("/sys/kernel/security/lsm"); have != "" {
		return "landlock," + have
	}
	return "landlock,..."
}

// proc finds what lies over parts of /proc: the kernel lets a user namespace
// have a proc of its own only if it would show no more than the one around it.
func (m examiner) proc() Finding {
	f := Finding{Name: "proc", Status: OK, Value: "nothing lies over it", Enables: "a /proc of the sandbox's own"}
	var over []string
	for line := range strings.Lines(m.line("/proc/self/mountinfo")) {
		if field := strings.Fields(line); len(field) > 4 && strings.HasPrefix(field[4], "/proc/") && field[4] != "/proc/sys/fs/binfmt_misc" {
			over = append(over, field[4])
		}
	}
	if len(over) == 0 {
		return f
	}
	f.Status, f.Value = Weaker, "covered: "+strings.Join(over, " ")
	f.Enables = "a sandbox with a user namespace of its own cannot have a /proc while it would show more than this one"
	f.Fix = "start the container around with docker run --security-opt systempaths=unconfined, or podman run --security-opt unmask=ALL"
	return f
}

// devices tries those that a sandbox gets from the host.
func (m examiner) devices() Finding {
	f := Finding{Name: "devices", Status: OK, Value: "/dev/{null,zero,full,random,urandom,tty}", Enables: "/dev in the sandbox"}
	var bad []string
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		info, err := os.Stat(m.root + "/dev/" + name)
		if err != nil || info.Mode().Type() != fs.ModeDevice|fs.ModeCharDevice {
			bad = append(bad, "/dev/"+name)
		}
	}
	if len(bad) > 0 {
		f.Status, f.Value = Missing, "no device: "+strings.Join(bad, " ")
		f.Fix = "mount a devtmpfs at /dev, or make them with mknod(1)"
	}
	return f
}

func (m examiner) terminals() Finding {
	f := Finding{Name: "terminals", Status: OK, Value: "/dev/ptmx, /dev/pts", Enables: "-t for this terminal; the sandbox has a devpts of its own"}
	if !m.exists("/dev/ptmx") || !m.exists("/dev/pts") {
		f.Status, f.Value, f.Fix = Info, "none on the host", "mount -t devpts devpts /dev/pts"
	}
	return f
}

func (m examiner) subids(uid uint32) Finding {
	f := Finding{Name: "subids", Status: Info, Value: "none for this user", Enables: "nothing yet: a sandbox of an ordinary user has one id"}
	if uid == 0 {
		f.Value, f.Enables = "not needed by root", "root takes ranges that nobody else has"
		return f
	}
	name := strconv.Itoa(int(uid))
	for line := range strings.Lines(m.line("/etc/passwd")) {
		if p := strings.Split(line, ":"); len(p) > 2 && p[2] == name {
			name = p[0]
			break
		}
	}
	for line := range strings.Lines(m.line("/etc/subuid")) {
		if p := strings.Split(strings.TrimSpace(line), ":"); len(p) == 3 && (p[0] == name || p[0] == strconv.Itoa(int(uid))) {
			f.Value = fmt.Sprintf("%s ids from %s on", p[2], p[1])
			if _, err := exec.LookPath("newuidmap"); err != nil {
				f.Value += ", but no newuidmap"
			}
		}
	}
	return f
}

func (m examiner) limits(h *facts.Host) Finding {
	part := []string{fmt.Sprintf("open files %d", h.NoFile)}
	if h.Memlock > 1<<62 {
		part = append(part, "locked memory unlimited")
	} else {
		part = append(part, fmt.Sprintf("locked memory %d bytes", h.Memlock))
	}
	for _, name := range []string{"kernel/pid_max", "kernel/threads-max", "user/max_user_namespaces", "user/max_pid_namespaces", "user/max_mnt_namespaces", "user/max_net_namespaces"} {
		part = append(part, name+" "+m.line("/proc/sys/"+name))
	}
	return Finding{"limits", Info, strings.Join(part, ", "), "how many sandboxes there can be at once, and what they may raise theirs to", ""}
}
