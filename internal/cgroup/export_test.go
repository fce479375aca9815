package cgroup

import "time"

// KillBelow is what Kill does where the kernel cannot.
var KillBelow = killBelow

// FreezeWithin is Freeze with another limit, for a test that has to wait for it.
func (g *Group) FreezeWithin(limit time.Duration) error { return g.setFrozen(true, limit) }
