package host

import (
	"fmt"
	"os"
	"strings"

	"github.com/nucleus-container/nucleus/internal/facts"
)

// limitFlags are the controllers that sandboxes use, and for which flags.
var limitFlags = []struct{ name, v1, enables string }{
	{"memory", "memory", "--memory, --memory-swap"},
	{"pids", "pids", "--pids"},
	{"cpu", "cpu", "--cpus, --cpu-weight"},
	{"io", "blkio", "--io-limit"},
}

// cgroupFindings says for each controller whether its limits can be enforced.
func cgroupFindings(c facts.Cgroup) []Finding {
	all := []Finding{{"cgroup", Info, c.String(), "limits on a sandbox as a whole", ""}}
	if c.Mode == facts.CgroupNone {
		all[0].Fix = "mount -t cgroup2 none /sys/fs/cgroup"
	}
	for _, l := range limitFlags {
		f := Finding{Name: "cgroup." + l.name, Status: OK, Enables: l.enables}
		h, ok := c.For(l.name)
		if !ok {
			h, ok = c.For(l.v1)
		}
		switch {
		case !ok:
			f.Status, f.Value = Weaker, "no hierarchy that we can see has this controller"
			f.Fix = absent(c, l.name)
		case h.Via == facts.CgroupDenied:
			f.Status, f.Value, f.Fix = Weaker, h.Why, denial(h)
		case h.Via == facts.CgroupScope:
			f.Value = fmt.Sprintf("v%d, in a scope that systemd makes", h.Version)
		default:
			f.Value = fmt.Sprintf("v%d, below %s", h.Version, h.Parent)
		}
		if f.Status == Weaker {
			f.Enables += " are refused without it"
			if l.name == "pids" {
				f.Enables = "--pids is refused without it; the default limit becomes a rlimit"
			}
		}
		all = append(all, f)
	}
	return append(all, swapFinding(c))
}

// denial is what to do about a group that is somebody else's. In version 1 a
// directory may simply be given away; in version 2 the service manager does it.
func denial(h facts.CgroupHierarchy) string {
	if h.Version == 1 && os.Geteuid() != 0 && strings.Contains(h.Why, "permission denied") {
		return fmt.Sprintf("sudo mkdir -p %[1]s/u%[2]d && sudo chown -R %[2]d %[1]s/u%[2]d && echo $$ | sudo tee %[1]s/u%[2]d/cgroup.procs", h.Own, os.Geteuid())
	}
	return h.Fix
}

// absent is what to do about a controller that nobody gave us.
func absent(c facts.Cgroup, name string) string {
	if c.Systemd != nil && c.Systemd.User {
		return "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu io memory pids\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload, then log in again"
	}
	if h, ok := c.Unified(); ok && c.Mode == facts.CgroupV2 {
		return fmt.Sprintf("echo +%s | sudo tee %s/cgroup.subtree_control, and so on down to %s", name, h.Mount, h.Own)
	}
	return "boot a kernel that has it, without cgroup_disable=" + name
}

func swapFinding(c facts.Cgroup) Finding {
	f := Finding{"cgroup.swap", OK, "counted", "--memory-swap; --memory bounds swap as well", ""}
	switch {
	case c.SwapAccounting:
	case !c.Swap:
		f.Status, f.Value = Info, "not counted, and the machine has none"
	default:
		f.Status, f.Value = Weaker, "not counted, and the machine has some: a sandbox can use it beyond --memory"
		f.Fix = "boot with swapaccount=1, or switch swap off: sudo swapoff -a"
	}
	return f
}

// systemd says whether a service manager is there to make groups for us.
func (m examiner) systemd(uid uint32) Finding {
	f := Finding{Name: "systemd", Status: Info, Value: "does not run", Enables: "limits for ordinary users, through a scope of their own"}
	if !m.exists("/run/systemd/system") {
		return f
	}
	f.Value = "runs"
	if uid == 0 {
		return f
	}
	run := os.Getenv("XDG_RUNTIME_DIR")
	if run == "" {
		run = fmt.Sprintf("/run/user/%d", uid)
	}
	if m.exists(run + "/systemd/private") {
		f.Status, f.Value = OK, "runs, and so does this user's own"
		return f
	}
	f.Status, f.Value = Weaker, "runs, but not one for this user: no "+strings.TrimSuffix(run, "/")+"/systemd/private"
	f.Fix = fmt.Sprintf("sudo loginctl enable-linger %d, and set XDG_RUNTIME_DIR=/run/user/%d", uid, uid)
	return f
}
