package plan

import (
	"fmt"

	"github.com/nucleus-container/nucleus/internal/abi"
)

// Check verifies the invariants that make a plan safe, whatever the Spec. It is
// the security review as code, and runs on every plan before it is used. An
// error means that Nucleus has a bug; the plan must not be performed.
func (p *Plan) Check() error {
	c := &check{plan: p, fds: make(map[FD]bool, 64)}
	for k := range c.first {
		c.first[k], c.last[k] = -1, -1
	}
	for i, s := range p.Steps {
		c.step(i, s)
	}
	c.order()
	if c.err != nil {
		return fmt.Errorf("this is a bug in nucleus: the plan is unsafe: %w", c.err)
	}
	return nil
}

type check struct {
	plan  *Plan
	first [kinds]int // position of each kind of action, or -1
	last  [kinds]int
	fds   map[FD]bool
	place Where
	err   error
}

func (c *check) bad(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// rank orders the places of a plan.
func rank(w Where) int {
	switch w {
	case Host:
		return 1
	case Clone:
		return 2
	case Gate:
		return 3
	case Child:
		return 4
	case Init:
		return 5
	}
	return 0
}

// kind is what the order of a plan is about.
type kind int

const (
	kOther kind = iota
	kMakeInit
	kClone
	kWriteMap
	kCgroupAdd
	kClose
	kPrivate
	kNewMount
	kMountFS
	kSetAttr
	kMoveMount
	kWait
	kPivot
	kSecurebits
	kSetIDs
	kHostname
	kLoopback
	kRlimit
	kBounding
	kAmbient
	kCaps
	kNoNewPrivs
	kLandlock
	kTerminal
	kExecInit
	kSeccomp
	kExec
	kinds
)

func kindOf(a Action) kind {
	switch a.(type) {
	case MakeInit:
		return kMakeInit
	case CloneInto:
		return kClone
	case WriteMap:
		return kWriteMap
	case CgroupAdd:
		return kCgroupAdd
	case CloseInherited:
		return kClose
	case Private:
		return kPrivate
	case NewMount:
		return kNewMount
	case MountFS:
		return kMountFS
	case SetAttr:
		return kSetAttr
	case MoveMount:
		return kMoveMount
	case Wait:
		return kWait
	case PivotRoot:
		return kPivot
	case Seccomp:
		return kSeccomp
	case Exec:
		return kExec
	case ExecInit:
		return kExecInit
	}
	return kindOfPolicy(a)
}

func kindOfPolicy(a Action) kind {
	switch a.(type) {
	case Securebits:
		return kSecurebits
	case SetIDs:
		return kSetIDs
	case Hostname:
		return kHostname
	case LoopbackUp:
		return kLoopback
	case Rlimit:
		return kRlimit
	case DropBounding:
		return kBounding
	case ClearAmbient:
		return kAmbient
	case DropCaps:
		return kCaps
	case NoNewPrivs:
		return kNoNewPrivs
	case Landlock:
		return kLandlock
	case OpenTerminal:
		return kTerminal
	}
	return kOther
}

func (c *check) step(i int, s Step) {
	k := kindOf(s.Do)
	if c.first[k] < 0 {
		c.first[k] = i
	}
	c.last[k] = i
	if s.Because == "" {
		c.bad("step %d (%T) has no reason", i, s.Do)
	}
	if rank(s.Where) < rank(c.place) {
		c.bad("step %d (%T) is performed by %s after one by %s", i, s.Do, s.Where, c.place)
	}
	c.place = s.Where
	switch a := s.Do.(type) {
	case OpenTree:
		c.fds[a.As] = true
	case NewMount:
		c.fds[a.As] = true
		c.attr(i, a.Attr, false)
	case HostTree:
		c.fds[a.As] = true
		c.attr(i, a.Attr, false)
	case SetAttr:
		if a.FD != "" && !c.fds[a.FD] {
			c.bad("step %d uses %q before it exists", i, a.FD)
		}
		c.attr(i, a.Attr, true)
	case MoveMount:
		if !c.fds[a.From] {
			c.bad("step %d uses %q before it exists", i, a.From)
		}
	case MountFS:
		if a.Flags&abi.MSNoSuid == 0 {
			c.bad("step %d mounts %s without nosuid", i, a.Target)
		}
	}
}

// attr checks that nothing is mounted with set-user-id programs in force.
func (c *check) attr(i int, a Attr, devices bool) {
	if a&abi.MountAttrNoSuid == 0 {
		c.bad("step %d leaves nosuid out", i)
	}
	if !devices && a&abi.MountAttrNoDev == 0 {
		c.bad("step %d leaves nodev out", i)
	}
}

// must are the kinds of step that every plan has exactly once.
var must = [...]kind{kMakeInit, kClone, kClose, kPrivate, kPivot, kSecurebits, kSetIDs, kBounding, kAmbient, kCaps, kNoNewPrivs, kExecInit, kSeccomp, kExec}

// before are pairs: every step of the first kind comes before any of the second.
var before = [...][2]kind{
	{kClose, kPrivate}, {kPrivate, kPivot}, {kWait, kSetIDs}, {kSecurebits, kSetIDs}, {kNewMount, kPivot}, {kPivot, kMoveMount},
	{kPivot, kLandlock}, {kMoveMount, kCaps}, {kMountFS, kCaps}, {kSetAttr, kCaps}, {kBounding, kCaps}, {kAmbient, kCaps},
	{kSetIDs, kCaps}, {kHostname, kCaps}, {kLoopback, kCaps}, {kRlimit, kCaps}, {kCaps, kLandlock}, {kNoNewPrivs, kLandlock},
	{kNoNewPrivs, kExecInit}, {kLandlock, kExecInit}, {kTerminal, kLandlock},
}

// order checks what must be there and what comes before what.
func (c *check) order() {
	name := func(k kind) string { return fmt.Sprintf("%T", c.plan.Steps[c.first[k]].Do) }
	for _, k := range must {
		if c.first[k] < 0 {
			c.bad("it lacks a step of kind %d", k)
		} else if c.first[k] != c.last[k] {
			c.bad("it has more than one step %s", name(k))
		}
	}
	if c.err != nil {
		return
	}
	if n := len(c.plan.Steps) - 1; c.first[kExec] != n || c.first[kSeccomp] != n-1 {
		c.bad("seccomp and then exec must be the last steps")
	}
	for _, p := range before {
		if c.last[p[0]] >= 0 && c.first[p[1]] >= 0 && c.last[p[0]] > c.first[p[1]] {
			c.bad("%s (step %d) must come before %s (step %d)", name(p[0]), c.last[p[0]], name(p[1]), c.first[p[1]])
		}
	}
	if c.first[kWriteMap] >= 0 && c.first[kWait] < 0 {
		c.bad("ids are mapped but the child does not wait for it")
	}
	if c.first[kCgroupAdd] >= 0 && c.first[kWait] < 0 {
		c.bad("the child does not wait to be in its control group")
	}
}
