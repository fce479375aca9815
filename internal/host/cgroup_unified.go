package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/facts"
)

// unified fills in the hierarchy of version 2. Three things decide there: who
// may write, who is meant to (systemd wants each group to have one writer), and
// that a group with processes in it cannot hand controllers to groups below it.
func (p cgroupProbe) unified(c *facts.Cgroup, h *facts.CgroupHierarchy, inside bool) {
	if !inside {
		hidden(h)
		return
	}
	h.Controllers = p.controllers(h.Own)
	if len(h.Controllers) == 0 && len(c.Hierarchies) > 0 {
		// A hybrid machine: every controller is elsewhere, and groups here
		// are free of rules. They are of no use for limits, but can be
		// frozen and killed at once.
		if err := p.writable(h.Own); err != nil {
			denied(h, err)
			return
		}
		h.Via, h.Parent = facts.CgroupMkdir, h.Own
		return
	}
	managed := p.exists("/run/systemd/system")
	if p.top(h.Own) {
		if err := p.writable(h.Own); err != nil {
			denied(h, err)
			return
		}
		p.below(h, h.Own)
		return
	}
	// Our own group has at least ourselves in it. The one above it is empty
	// but for groups, if it may be ours at all.
	above := filepath.Dir(h.Own)
	if h.Own != h.Mount && !p.top(above) && p.writable(above) == nil && (!managed || p.delegated(above)) {
		p.below(h, above)
		return
	}
	if managed && p.askSystemd(c, h) {
		return
	}
	h.Why = fmt.Sprintf("%s holds processes, so it cannot give controllers to a group below it", h.Own)
	h.Fix = "move every process in it to a group below it, or start nucleus from a group made for it, such as: systemd-run --scope -p Delegate=yes"
	if err := p.writable(h.Own); err != nil {
		denied(h, err)
	} else {
		h.Plain = h.Own
	}
	h.Controllers = nonNil(h.Controllers, p.controllers(above))
}

// nonNil is the first of two lists that has anything.
func nonNil(a, b []string) []string {
	if len(a) > 0 {
		return a
	}
	return b
}

// below makes dir the place for groups.
func (p cgroupProbe) below(h *facts.CgroupHierarchy, dir string) {
	h.Via, h.Parent = facts.CgroupMkdir, dir
	h.Controllers = p.controllers(dir)
	h.Enabled = known(strings.Fields(p.read(dir + "/cgroup.subtree_control")))
}

// top reports whether dir is the real root of the hierarchy, which has no
// cgroup.type and may hold processes and have groups below it.
func (p cgroupProbe) top(dir string) bool { return !p.exists(dir + "/cgroup.type") }

// controllers are those that groups below dir can have.
func (p cgroupProbe) controllers(dir string) []string {
	return known(strings.Fields(p.read(dir + "/cgroup.controllers")))
}

// read is the content of a control file, empty if it cannot be read.
func (p cgroupProbe) read(path string) string {
	data, err := slurp(p.root + path)
	if err != nil {
		return ""
	}
	return string(data)
}

// delegated reports whether systemd has given a group away: it marks those
// with an extended attribute, trusted. for root (v240) and user. for others (v251).
func (p cgroupProbe) delegated(dir string) bool {
	var b [8]byte
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := syscall.Getxattr(p.root+dir, name, b[:]); err == nil && string(b[:n]) == "1" {
			return true
		}
	}
	return false
}

// askSystemd fills in how a service manager makes a group for us.
func (p cgroupProbe) askSystemd(c *facts.Cgroup, h *facts.CgroupHierarchy) bool {
	s := facts.CgroupSystemd{Socket: "/run/systemd/private", Delegated: h.Mount}
	if p.uid != 0 {
		run := os.Getenv("XDG_RUNTIME_DIR")
		if run == "" {
			run = fmt.Sprintf("/run/user/%d", p.uid)
		}
		s = facts.CgroupSystemd{
			User:      true,
			Socket:    run + "/systemd/private",
			Delegated: fmt.Sprintf("%s/user.slice/user-%d.slice/user@%d.service", h.Mount, p.uid, p.uid),
		}
	}
	if p.writable(s.Socket) != nil || p.namespaced() {
		return false
	}
	c.Systemd = &s
	h.Via, h.Parent, h.Controllers = facts.CgroupScope, "", p.controllers(s.Delegated)
	return true
}

// namespaced reports whether process 1 is seen and is not systemd: we are in a
// process namespace where our process numbers mean nothing to the manager whose
// socket is here.
func (p cgroupProbe) namespaced() bool {
	b, err := os.ReadFile(p.root + "/proc/1/comm")
	return err == nil && string(b) != "systemd\n"
}
