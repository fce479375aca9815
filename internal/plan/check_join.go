package plan

import "github.com/nucleus-container/nucleus/internal/abi"

// mustJoin are the kinds of step that every plan to join has exactly once.
var mustJoin = [...]kind{
	kMakeInit, kClone, kSession, kStdio, kClose, kJoin, kSecurebits, kSetIDs, kBounding, kAmbient, kCaps, kNoNewPrivs, kExecInit, kSeccomp, kExec,
}

// neverJoin are the kinds that have no business there: they make a sandbox.
var neverJoin = [...]kind{
	kReserveIDs, kCgroupCreate, kCgroupWrite, kHostTree, kWriteMap, kPrivate, kNewMount, kMountFS, kSetAttr, kMoveMount, kAttest, kShow, kUnmount, kCgroupNS, kPivot,
	kHostname, kLoopback, kDeadline, kHold,
}

// beforeJoin are pairs: every step of the first kind comes before any of the second.
var beforeJoin = [...][2]kind{
	{kStdio, kClose}, {kSession, kJoin}, {kClose, kJoin}, {kWait, kJoin}, {kJoin, kSecurebits}, {kSecurebits, kSetIDs}, {kJoin, kFile}, {kJoin, kTerminal},
	{kJoin, kRlimit}, {kSetIDs, kTerminal}, {kSetIDs, kCaps}, {kBounding, kCaps}, {kAmbient, kCaps}, {kRlimit, kCaps}, {kCaps, kLandlock},
	{kNoNewPrivs, kLandlock}, {kNoNewPrivs, kExecInit}, {kLandlock, kExecInit}, {kTerminal, kLandlock}, {kJoin, kAmbient}, {kAmbient, kKeep}, {kKeep, kSecurebits}, {kLandlock, kNarrow}, {kNarrow, kExecInit},
}

// joinAll are the namespaces that every sandbox has.
const joinAll = uint64(abi.CloneNewPID | abi.CloneNewNS | abi.CloneNewNet | abi.CloneNewUTS | abi.CloneNewIPC | abi.CloneNewCgroup)

// join checks a plan that joins a sandbox: nothing of the caller's comes in,
// nothing of the sandbox is left out.
func (c *check) join() {
	c.order(mustJoin[:], beforeJoin[:])
	for _, k := range neverJoin {
		if c.first[k] >= 0 {
			c.bad("step %d (%T) makes a sandbox, in a plan to join one", c.first[k], c.plan.Steps[c.first[k]].Do)
		}
	}
	if c.joins&joinAll != joinAll {
		c.bad("it stays outside of namespaces of the sandbox: %s", bitNames(joinAll&^c.joins, cloneFlagNames))
	}
	if !c.init.Joined {
		c.bad("the parent of the program takes itself for process 1")
	}
	c.groupsUsed()
}

// life checks that the sandbox ends with its supervisor, unless it is to go on
// without one.
func (c *check) life() {
	if c.init.Detached == (c.first[kLifeline] >= 0) {
		c.bad("it is detached: %t; it has a lifeline: %t", c.init.Detached, c.first[kLifeline] >= 0)
	}
	if c.first[kDeadline] >= 0 && !c.init.Detached {
		c.bad("there is a deadline and a supervisor to keep it")
	}
	if c.first[kLifeline] != c.last[kLifeline] || c.first[kLifeline] > c.first[kExecInit] {
		c.bad("the lifeline must come once, before process 1")
	}
	if c.init.Detached && c.first[kWait] < 0 && c.first[kJoin] < 0 {
		c.bad("the child of a detached sandbox does not wait until it is known who it is")
	}
}
