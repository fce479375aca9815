package plan

import (
	"fmt"
	"reflect"

	"github.com/nucleus-container/nucleus/internal/abi"
)

// Check verifies the invariants that make a plan safe, whatever the Spec. It is
// the security review as code, and runs on every plan before it is used. An
// error means that Nucleus has a bug; the plan must not be performed.
func (p *Plan) Check() error {
	c := &check{plan: p, first: map[string]int{}, last: map[string]int{}, fds: map[FD]bool{}}
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
	first map[string]int // of each kind of action
	last  map[string]int
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
var rank = map[Where]int{Host: 1, Clone: 2, Gate: 3, Child: 4, Init: 5}

func (c *check) step(i int, s Step) {
	kind := reflect.TypeOf(s.Do).Name()
	if _, ok := c.first[kind]; !ok {
		c.first[kind] = i
	}
	c.last[kind] = i
	if s.Because == "" {
		c.bad("step %d (%s) has no reason", i, kind)
	}
	if rank[s.Where] < rank[c.place] {
		c.bad("step %d (%s) is performed by %s after one by %s", i, kind, s.Where, c.place)
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

// order checks what must be there and what comes before what.
func (c *check) order() {
	n := len(c.plan.Steps) - 1
	for _, kind := range []string{"CloneInto", "CloseInherited", "Private", "PivotRoot", "Securebits", "SetIDs", "DropBounding",
		"ClearAmbient", "DropCaps", "NoNewPrivs", "ExecInit", "Seccomp", "Exec", "MakeInit"} {
		if _, ok := c.first[kind]; !ok {
			c.bad("it has no %s step", kind)
		} else if c.first[kind] != c.last[kind] {
			c.bad("it has more than one %s step", kind)
		}
	}
	if c.err != nil {
		return
	}
	if c.first["Exec"] != n || c.first["Seccomp"] != n-1 {
		c.bad("seccomp and then exec must be the last steps")
	}
	before := func(a, b string) {
		if ia, ok := c.last[a]; ok {
			if ib, ok := c.first[b]; ok && ia > ib {
				c.bad("%s (step %d) must come before %s (step %d)", a, ia, b, ib)
			}
		}
	}
	for _, pair := range [][2]string{
		{"CloseInherited", "Private"}, {"Private", "PivotRoot"}, {"Wait", "SetIDs"}, {"Securebits", "SetIDs"},
		{"NewMount", "PivotRoot"}, {"PivotRoot", "MoveMount"}, {"PivotRoot", "Landlock"}, {"MoveMount", "DropCaps"},
		{"MountFS", "DropCaps"}, {"SetAttr", "DropCaps"}, {"DropBounding", "DropCaps"}, {"ClearAmbient", "DropCaps"},
		{"SetIDs", "DropCaps"}, {"Hostname", "DropCaps"}, {"LoopbackUp", "DropCaps"}, {"Rlimit", "DropCaps"}, {"DropCaps", "Landlock"},
		{"NoNewPrivs", "Landlock"}, {"NoNewPrivs", "ExecInit"}, {"Landlock", "ExecInit"}, {"OpenTerminal", "Landlock"},
	} {
		before(pair[0], pair[1])
	}
	if _, gated := c.first["WriteMap"]; gated {
		if _, waits := c.first["Wait"]; !waits {
			c.bad("ids are mapped but the child does not wait for it")
		}
	}
	if _, grouped := c.first["CgroupAdd"]; grouped {
		if _, waits := c.first["Wait"]; !waits {
			c.bad("the child does not wait to be in its control group")
		}
	}
}
