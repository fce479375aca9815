package cgroup

import (
	"errors"
	"fmt"

	"github.com/nucleus-container/nucleus/internal/facts"
)

const scopeSuffix = ".scope"

// scope is a group that a service manager makes around a process.
type scope struct {
	manager facts.CgroupSystemd
	where   facts.CgroupHierarchy
	unit    string
	later   []write
	made    bool
}

// newScope prepares for a scope; nothing is asked for yet.
func newScope(m facts.CgroupSystemd, h facts.CgroupHierarchy, name string) *scope {
	return &scope{manager: m, where: h, unit: name + scopeSuffix}
}

// makeScope asks for the scope with pid in it.
func (g *Group) makeScope(pid int) error {
	return fmt.Errorf("start unit %s: %w", g.scope.unit, errors.ErrUnsupported)
}
