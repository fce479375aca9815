package facts

import (
	"slices"
	"strings"
)

// CgroupMode says how the control group hierarchies of a machine are mounted.
type CgroupMode string

const (
	// CgroupNone: no hierarchy with controllers is mounted where we can see it.
	CgroupNone CgroupMode = "none"
	// CgroupV2: the unified hierarchy alone.
	CgroupV2 CgroupMode = "v2"
	// CgroupV1: hierarchies of the first version alone.
	CgroupV1 CgroupMode = "v1"
	// CgroupHybrid: both. Each controller belongs to one hierarchy at a time.
	CgroupHybrid CgroupMode = "hybrid"
)

// Cgroup is what this process can do with control groups: for each hierarchy,
// below which group it may create one, and what that group could limit.
//
// Controllers carry the kernel's names: what is "io" in version 2 is "blkio"
// in version 1.
type Cgroup struct {
	Mode CgroupMode `json:"mode"`
	// Hierarchies lists the mounted hierarchies that have a controller that we
	// know how to use; and the unified one, also without any.
	Hierarchies []CgroupHierarchy `json:"hierarchies,omitempty"`
	// Systemd is the service manager to ask for a group. It is set only where
	// creating a directory ourselves is not possible or not polite.
	Systemd *CgroupSystemd `json:"systemd,omitempty"`
	// SwapAccounting: the kernel can limit swap for each group.
	SwapAccounting bool `json:"swap_accounting,omitempty"`
	// Swap: the machine has swap space in use. It is looked up only where
	// SwapAccounting is false and is true otherwise.
	Swap bool `json:"swap,omitempty"`
}

// CgroupVia says how a group comes into being in one hierarchy.
type CgroupVia string

const (
	// CgroupDenied: there is no way for us; Why says what stands against it.
	CgroupDenied CgroupVia = ""
	// CgroupMkdir: a directory below Parent.
	CgroupMkdir CgroupVia = "mkdir"
	// CgroupScope: the service manager in [Cgroup.Systemd] makes a transient scope.
	CgroupScope CgroupVia = "systemd"
)

// CgroupHierarchy is one mounted hierarchy, seen from this process.
type CgroupHierarchy struct {
	// Version is 1 or 2.
	Version int `json:"version"`
	// Mount is where the hierarchy is mounted.
	Mount string `json:"mount"`
	// Own is the directory of the group that this process is in.
	Own string `json:"own"`
	// Parent is the directory below which a group is created: Own, or on
	// version 2 the group above it where Own may not have children.
	Parent string `json:"parent,omitempty"`
	// Via says how a group is created; Why and Fix explain [CgroupDenied].
	Via CgroupVia `json:"via,omitempty"`
	Why string    `json:"why,omitempty"`
	Fix string    `json:"fix,omitempty"`
	// Controllers are the controllers that a group created in this way can have.
	Controllers []string `json:"controllers,omitempty"`
	// Enabled, version 2 only, are those that Parent already gives to its
	// children; the others must be written to its cgroup.subtree_control.
	Enabled []string `json:"enabled,omitempty"`
	// Plain, version 2 only, is where a group without controllers can be made
	// although Via says that one with controllers cannot.
	Plain string `json:"plain,omitempty"`
}

// Freezer is asked for like a controller: a group that can be frozen. In version
// 1 it is one. In version 2 every group can be frozen, killed at once and asked
// whether anybody is in it, without any controller.
const Freezer = "freezer"

// CgroupSystemd is a service manager that can be asked for a group.
type CgroupSystemd struct {
	// User: the manager of one user rather than of the system.
	User bool `json:"user,omitempty"`
	// Socket is where it listens for us: its own private socket.
	Socket string `json:"socket"`
	// Delegated is the directory of the group that belongs to the manager.
	Delegated string `json:"delegated,omitempty"`
}

// For finds the hierarchy that has controller. The second result is false
// where no mounted hierarchy has it. For [Freezer] it is the unified hierarchy
// wherever a group can be made there, and that of version 1 otherwise.
func (c Cgroup) For(controller string) (CgroupHierarchy, bool) {
	if controller == Freezer {
		return c.freezer()
	}
	for _, h := range c.Hierarchies {
		if slices.Contains(h.Controllers, controller) {
			return h, true
		}
	}
	return CgroupHierarchy{}, false
}

// freezer finds the hierarchy for a group that can be frozen.
func (c Cgroup) freezer() (CgroupHierarchy, bool) {
	u, unified := c.Unified()
	if u.Via == CgroupDenied && u.Plain != "" {
		u = CgroupHierarchy{Version: 2, Mount: u.Mount, Own: u.Own, Parent: u.Plain, Via: CgroupMkdir}
	}
	h, legacy := c.Legacy(Freezer)
	if unified && u.Via != CgroupDenied || !legacy || h.Via == CgroupDenied && unified {
		return u, unified
	}
	return h, true
}

// Legacy finds the hierarchy of version 1 that has controller.
func (c Cgroup) Legacy(controller string) (CgroupHierarchy, bool) {
	for _, h := range c.Hierarchies {
		if h.Version == 1 && slices.Contains(h.Controllers, controller) {
			return h, true
		}
	}
	return CgroupHierarchy{}, false
}

// V1 reports whether controller is in a hierarchy of version 1, where a child
// cannot be born into a group by clone3: its parent's thread must be in the
// group while it clones.
func (c Cgroup) V1(controller string) bool {
	h, ok := c.For(controller)
	return ok && h.Version == 1
}

// Scoped reports whether the service manager must make the group that has
// controller, around a process that exists already.
func (c Cgroup) Scoped(controller string) bool {
	h, ok := c.For(controller)
	return ok && h.Via == CgroupScope
}

// Unified finds the hierarchy of version 2, whether or not it has controllers.
func (c Cgroup) Unified() (CgroupHierarchy, bool) {
	for _, h := range c.Hierarchies {
		if h.Version == 2 {
			return h, true
		}
	}
	return CgroupHierarchy{}, false
}

// String is one line for a diagnosis: "hybrid: pids, memory by mkdir; io denied (…)".
func (c Cgroup) String() string {
	var b strings.Builder
	b.WriteString(string(c.Mode))
	sep := ": "
	for _, h := range c.Hierarchies {
		can := h.Controllers
		if len(can) == 0 && h.Version == 2 {
			can = []string{Freezer}
		}
		if len(can) == 0 && h.Why == "" {
			continue
		}
		b.WriteString(sep)
		sep = "; "
		b.WriteString(strings.Join(can, ","))
		switch h.Via {
		case CgroupDenied:
			b.WriteString(" denied (" + h.Why + ")")
		default:
			b.WriteString(" by " + string(h.Via))
		}
	}
	return b.String()
}
