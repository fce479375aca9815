package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Check verifies the invariants that make a plan safe, whatever the Spec. It is
// the security review as code, and runs on every plan before it is used. An
// error means that Nucleus has a bug; the plan must not be performed.
func (p *Plan) Check() error {
	c := &check{plan: p, fds: make(map[FD]mountState, 64), staged: map[string]bool{}}
	for k := range c.first {
		c.first[k], c.last[k] = -1, -1
	}
	for i, s := range p.Steps {
		c.step(i, s)
	}
	if c.first[kJoin] >= 0 {
		c.join()
	} else {
		c.order(must[:], before[:])
		c.ids()
		c.groups()
		c.attached()
	}
	c.life()
	c.policy()
	if c.err != nil {
		return fmt.Errorf("this is a bug in nucleus: the plan is unsafe: %w", c.err)
	}
	return nil
}

type check struct {
	plan  *Plan
	first [kinds]int // position of each kind of action, or -1
	last  [kinds]int
	fds   map[FD]mountState
	place Where
	err   error

	reserved bool              // a map uses the reserved range
	grouped  bool              // a control group is made
	within   bool              // the child gets into it
	cgroupNS bool              // the child has a cgroup namespace
	terminal [2]bool           // the init expects one; one is made
	limited  [16]bool          // resources with a limit
	sealed   bool              // the root is read-only
	covered  bool              // so are the kernel's settings
	scratch  string            // where the new root is mounted
	staged   map[string]bool   // stages that a tree is mounted on
	filters  [2][]seccomp.Insn // as MakeInit and Seccomp have them
	init     MakeInit
	passes   bool // process 1's filter leaves the policy to another
	listens  bool // which is there
	kept     Kept // what steps keep and narrow
	loud     bool // the last Landlock step leaves the audit log to the sandbox
	caps     [3]caps.Set
	joins    uint64 // namespaces that are entered
}

// mountState is what has been done to a mount that a plan makes.
type mountState int

const (
	mountUnknown  mountState = iota
	mountMade                // without attributes of its own
	mountSafe                // no set-user-id program is in force
	mountAttached            // it is in the tree
)

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
	kReserveIDs
	kOwnPipes
	kCgroupCreate
	kCgroupWrite
	kHostTree
	kMakeInit
	kClone
	kWriteMap
	kCgroupAdd
	kSession
	kStdio
	kClose
	kPrivate
	kNewMount
	kMountFS
	kSetAttr
	kMoveMount
	kWait
	kCgroupNS
	kPivot
	kFile // makes or enters something by a path of the new root
	kSecurebits
	kSetIDs
	kHostname
	kLoopback
	kRlimit
	kKeep
	kBounding
	kAmbient
	kCaps
	kNoNewPrivs
	kLandlock
	kNarrow
	kTerminal
	kLifeline
	kDeadline
	kCgroupJoin
	kJoin
	kHold
	kListen
	kAttest
	kShow
	kUnmount
	kExecInit
	kSeccomp
	kExec
	kinds
)

func kindOf(a Action) kind {
	switch a.(type) {
	case ReserveIDs:
		return kReserveIDs
	case OwnPipes:
		return kOwnPipes
	case NewSession:
		return kSession
	case CgroupCreate:
		return kCgroupCreate
	case CgroupWrite:
		return kCgroupWrite
	case HostTree:
		return kHostTree
	case Attest:
		return kAttest
	case Show:
		return kShow
	case Unmount:
		return kUnmount
	case MakeInit:
		return kMakeInit
	case CloneInto:
		return kClone
	case WriteMap:
		return kWriteMap
	case CgroupAdd:
		return kCgroupAdd
	case Stdio:
		return kStdio
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
	case NewCgroupNS:
		return kCgroupNS
	case PivotRoot:
		return kPivot
	case Mkdir, MakeLink, Touch, WriteFile, CopyFile, Chdir:
		return kFile
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
	switch a := a.(type) {
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
	case KeepCaps:
		return kKeep
	case DropBounding:
		return kBounding
	case ClearAmbient:
		return kAmbient
	case DropCaps:
		return kCaps
	case NoNewPrivs:
		return kNoNewPrivs
	case Landlock:
		if a.Narrow {
			return kNarrow
		}
		return kLandlock
	case OpenTerminal:
		return kTerminal
	case Lifeline:
		return kLifeline
	case Deadline:
		return kDeadline
	case CgroupJoin:
		return kCgroupJoin
	case JoinNamespaces:
		return kJoin
	case Hold:
		return kHold
	case Listen:
		return kListen
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
	c.mounts(i, s.Do)
	c.stages(i, s.Do)
	switch a := s.Do.(type) {
	case WriteMap:
		c.reserved = c.reserved || a.Reserved
	case CgroupCreate, CgroupJoin:
		c.grouped = true
	case JoinNamespaces:
		c.joins = a.Flags
	case CloneInto:
		c.within = c.within || a.Cgroup
		c.cgroupNS = a.Flags&abi.CloneNewCgroup != 0
	case CgroupAdd:
		c.within = true
	case NewCgroupNS:
		c.cgroupNS = true
	case MakeInit:
		c.terminal[0] = a.Terminal
		c.init = a
		c.filters[0] = a.Filter.Insns
	case OpenTerminal:
		c.terminal[1] = true
	case Listen:
		c.listens = len(a.Program.Insns) > 0 && len(a.Plain.Insns) > 0
	case Seccomp:
		c.filters[1], c.passes = a.Program.Insns, a.Name == passName
	case KeepCaps, DropBounding, DropCaps, Landlock:
		c.keeps(a)
	case SetIDs:
		if max(a.UID, a.GID) > maxID { // among them the one that means no change
			c.bad("step %d sets ids that no sandbox has: %d, %d", i, a.UID, a.GID)
		}
	case Rlimit:
		if a.Resource >= 0 && a.Resource < len(c.limited) {
			c.limited[a.Resource] = true
		}
	}
}

// mounts follows each mount from where it is made to where it is attached.
func (c *check) mounts(i int, a Action) {
	switch a := a.(type) {
	case OpenTree:
		c.fds[a.As] = mountMade
		if inert(a) {
			c.fds[a.As] = mountSafe
		}
	case NewMount:
		c.fds[a.As] = mountSafe
		c.attr(i, a.Attr, false)
	case HostTree:
		c.fds[a.As] = mountSafe
		c.attr(i, a.Attr, false)
	case SetAttr:
		c.attr(i, a.Attr, true)
		switch {
		case a.FD == "" && c.first[kPivot] < 0:
			c.bad("step %d changes the host's %s", i, a.Path)
		case a.FD == "":
			c.sealed = c.sealed || a.Path == "/" && a.Attr&readOnly != 0
		case c.fds[a.FD] == mountUnknown:
			c.bad("step %d uses %q before it exists", i, a.FD)
		default:
			c.fds[a.FD] = mountSafe
		}
	case MoveMount:
		switch c.fds[a.From] {
		case mountUnknown:
			c.bad("step %d uses %q before it exists", i, a.From)
		case mountMade:
			c.bad("step %d attaches %q, where set-user-id programs are in force", i, a.From)
		case mountAttached:
			c.bad("step %d attaches %q again", i, a.From)
		}
		c.fds[a.From] = mountAttached
		c.covered = c.covered || a.To == "/proc/sys"
	case MountFS:
		if a.Flags&abi.MSNoSuid == 0 {
			c.bad("step %d mounts %s without nosuid", i, a.Target)
		}
		if c.first[kPivot] < 0 {
			if c.scratch != "" {
				c.bad("step %d mounts %s before the new root is the root", i, a.Target)
			}
			c.scratch = a.Target
		}
	case PivotRoot:
		if a.Path != c.scratch {
			c.bad("step %d makes %s the root, where nothing is mounted", i, a.Path)
		}
	}
}

// stages follows trees to where they are taken apart, and away from there.
func (c *check) stages(i int, a Action) {
	switch a := a.(type) {
	case MoveMount:
		if slices.Contains(stages[:], a.To) {
			c.staged[a.To] = true
		}
	case Hold:
		if len(a.Mounts) > 0 && !slices.Equal(a.Mounts, mountsOf(c.plan.Steps)) {
			c.bad("step %d expects other mounts than the plan makes", i)
		}
	case Show:
		if stage, _ := path.Split(a.Source); !c.staged[path.Clean(stage)] {
			c.bad("step %d shows %s, where no tree is staged", i, a.Source)
		}
	case Unmount:
		if !c.staged[a.Path] {
			c.bad("step %d unmounts %s, which is no stage", i, a.Path)
		}
		delete(c.staged, a.Path)
	}
}

// inert reports whether a mount shows one device and nothing else: there are
// no programs in it.
func inert(a OpenTree) bool {
	return !a.Recursive && strings.HasPrefix(a.Source, "/dev/") && slices.Contains(devices, a.Source[len("/dev/"):])
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

// maxID is the last id of a sandbox.
const maxID = 65534

// must are the kinds of step that every plan has exactly once.
var must = [...]kind{
	kMakeInit, kClone, kSession, kStdio, kClose, kPrivate, kPivot, kSecurebits, kSetIDs, kHostname, kBounding, kAmbient, kCaps,
	kNoNewPrivs, kExecInit, kSeccomp, kExec,
}

// before are pairs: every step of the first kind comes before any of the second.
var before = [...][2]kind{
	{kReserveIDs, kHostTree}, {kReserveIDs, kOwnPipes}, {kSession, kExecInit}, {kCgroupCreate, kCgroupWrite}, {kStdio, kClose},
	{kClose, kPrivate}, {kPrivate, kPivot}, {kWait, kSetIDs}, {kWait, kCgroupNS}, {kSecurebits, kSetIDs}, {kNewMount, kPivot}, {kPivot, kMoveMount},
	{kPivot, kFile}, {kPivot, kTerminal}, {kPivot, kLandlock}, {kMoveMount, kCaps}, {kMountFS, kCaps}, {kUnmount, kCaps}, {kAttest, kHostTree}, {kSetAttr, kCaps}, {kBounding, kCaps}, {kAmbient, kCaps},
	{kSetIDs, kCaps}, {kHostname, kCaps}, {kLoopback, kCaps}, {kRlimit, kCaps}, {kCaps, kLandlock}, {kNoNewPrivs, kLandlock},
	{kNoNewPrivs, kExecInit}, {kLandlock, kExecInit}, {kTerminal, kLandlock}, {kNoNewPrivs, kListen}, {kLandlock, kListen}, {kListen, kExecInit}, {kAmbient, kKeep}, {kKeep, kSecurebits}, {kLandlock, kNarrow}, {kNarrow, kExecInit},
	// What is read back while it holds must be what the program gets.
	{kCaps, kHold}, {kNoNewPrivs, kHold}, {kLandlock, kHold}, {kNarrow, kHold}, {kRlimit, kHold}, {kHold, kListen}, {kHold, kExecInit},
}

// order checks what must be there and what comes before what.
func (c *check) order(must []kind, before [][2]kind) {
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
	if n := len(c.plan.Steps) - 1; c.first[kExec] != n || c.first[kSeccomp] != n-1 || c.first[kExecInit] != n-2 {
		c.bad("process 1, seccomp and then exec must be the last steps")
	}
	for _, p := range before {
		if c.last[p[0]] >= 0 && c.first[p[1]] >= 0 && c.last[p[0]] > c.first[p[1]] {
			c.bad("%s (step %d) must come before %s (step %d)", name(p[0]), c.last[p[0]], name(p[1]), c.first[p[1]])
		}
	}
}

// ids checks that a map waits and is not the host's.
func (c *check) ids() {
	if c.first[kWriteMap] >= 0 && c.first[kWait] < 0 {
		c.bad("ids are mapped but the child does not wait for it")
	}
	if c.reserved && c.first[kReserveIDs] < 0 {
		c.bad("ids of a reserved range are mapped but none is reserved")
	}
}

// groupsUsed checks that limits bind the child.
func (c *check) groupsUsed() {
	if c.first[kCgroupAdd] >= 0 && c.first[kWait] < 0 {
		c.bad("the child does not wait to be in its control group")
	}
	if c.within && !c.grouped {
		c.bad("the child gets into a control group that nobody has opened")
	}
	if c.grouped && !c.within {
		c.bad("there is a control group and the child is not in it")
	}
}

// groups checks that limits bind the child, and that it does not see where.
func (c *check) groups() {
	c.groupsUsed()
	if c.first[kCgroupWrite] >= 0 && !c.grouped {
		c.bad("limits are written to a control group that is not made")
	}
	if !c.cgroupNS {
		c.bad("the child sees the host's control groups")
	}
}

// keeps notes what a step leaves to the workload.
func (c *check) keeps(a Action) {
	switch a := a.(type) {
	case KeepCaps:
		c.caps[0], c.caps[1] = a.Inheritable, a.Ambient
	case DropBounding:
		c.kept.Caps.Bounding = a.Keep
	case DropCaps:
		c.kept.Caps.Permitted, c.kept.Caps.Effective, c.kept.Caps.Inheritable = a.Keep, a.Keep, a.Inheritable
	case Landlock:
		c.kept.Narrow = c.kept.Narrow || a.Narrow
		c.loud = a.Rules.ABI >= abi.LandlockLogs && a.Log&abi.LandlockRestrictSelfLogSubdomainsOff == 0
	}
}

// asked checks that nothing is kept that the policy does not name, that what it
// names is kept in full, and that its own rules are there.
func (c *check) asked() {
	want := c.plan.Kept
	// Lowering the other sets lowers what is ambient with them, so that is the
	// one which a step before must have raised, and nothing else.
	c.kept.Caps.Ambient = c.caps[1]
	if c.kept.Caps != want.Caps || c.caps[0] != want.Caps.Inheritable {
		c.bad("capabilities are kept (%s; raised: %s) that differ from the policy's (%s)", c.kept.Caps, c.caps[0], want.Caps)
	}
	if err := want.Caps.Validate(); err != nil {
		c.bad("capabilities: %v", err)
	}
	if c.first[kKeep] != c.last[kKeep] || c.first[kNarrow] != c.last[kNarrow] {
		c.bad("capabilities are raised, or files narrowed, more than once")
	}
	if c.first[kNarrow] >= 0 && c.first[kLandlock] < 0 {
		c.bad("the policy's rules about files stand alone")
	}
	told := slices.ContainsFunc(c.plan.Weakened, func(w Weakening) bool { return w.Why == noLandlock })
	if want.Narrow != c.kept.Narrow && !(want.Narrow && told) {
		c.bad("rules about files: the policy has some: %t; a step has: %t", want.Narrow, c.kept.Narrow)
	}
}

// policy checks what confines the workload.
func (c *check) policy() {
	c.asked()
	for _, r := range []int{abi.RlimitNofile, abi.RlimitCore, abi.RlimitMemlock} {
		if !c.limited[r] {
			c.bad("resource %d has the caller's limit", r)
		}
	}
	if len(c.filters[0]) == 0 || !slices.Equal(c.filters[0], c.filters[1]) {
		c.bad("the filter in process 1's image is not the one that the plan names")
	}
	if c.passes != c.listens {
		c.bad("process 1's filter leaves the policy to a listener's: %t; there is one: %t", c.passes, c.listens)
	}
	if c.terminal[0] != c.terminal[1] {
		c.bad("process 1 is to have a terminal: %t; one is made: %t", c.terminal[0], c.terminal[1])
	}
	if c.first[kLandlock] < 0 && !slices.ContainsFunc(c.plan.Weakened, func(w Weakening) bool { return w.Why == noLandlock }) {
		c.bad("it lacks Landlock and does not say so")
	}
	if c.loud {
		c.bad("Landlock domains of the sandbox's programs may fill the machine's audit log")
	}
}

// attached checks that every mount that was made has its place, such as those
// that cover others, and that nothing can be added to the root.
func (c *check) attached() {
	for fd, state := range c.fds {
		if state != mountAttached {
			c.bad("%q is made and not attached", fd)
		}
	}
	for stage := range c.staged {
		c.bad("all of the tree at %s stays visible", stage)
	}
	if !c.covered {
		c.bad("the kernel's settings in /proc/sys are not covered")
	}
	if !c.sealed {
		c.bad("the root stays writable")
	}
}
