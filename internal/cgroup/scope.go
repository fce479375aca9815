package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/internal/facts"
)

const (
	scopeSuffix = ".scope"
	// leafName is the sandbox's group in its scope, holderName that of the
	// process that keeps the scope alive.
	leafName, holderName = "sandbox", "holder"
	// scopeTime is how long a manager may take to make a scope.
	scopeTime = 20 * time.Second
)

// scope is a group that a service manager makes around a process, because the
// tree belongs to it and may be changed only by asking (systemd's "single
// writer" rule), or because we may not move a process from the session's part
// of the tree to the user's own.
type scope struct {
	manager     manager
	mount       string
	unit        string
	controllers []string
	later       []Write
	made        bool
}

// newScope prepares for a scope; nothing is asked for yet, because a scope
// exists only around a process.
func newScope(m facts.CgroupSystemd, h facts.CgroupHierarchy, name string) *scope {
	return &scope{manager: manager(m), mount: h.Mount, unit: name + scopeSuffix}
}

// makeScope asks for the scope with pid in it, gives pid a group of its own
// below the scope's, and makes the writes that were waiting.
func (g *Group) makeScope(pid int) (err error) {
	s := g.scope
	if g.holder, err = startHolder(s.unit); err != nil {
		return err
	}
	if err := s.manager.startScope(s.unit, pid, g.holder.Pid); err != nil {
		return fmt.Errorf("ask systemd for %s: %w", s.unit, err)
	}
	dir, err := groupOf(s.mount, pid)
	if err != nil {
		return err
	}
	if filepath.Base(dir) != s.unit {
		return fmt.Errorf("systemd started %s but process %d is in %s", s.unit, pid, dir)
	}
	if err := s.split(dir, pid, g.holder.Pid); err != nil {
		return err
	}
	leaf, err := openPart(Place{Version: 2, Path: filepath.Join(dir, leafName), Controllers: s.controllers})
	if err != nil {
		return err
	}
	g.parts, s.made = append(g.parts, leaf), true
	for _, w := range s.later {
		if err := g.Write(w.Controller, w.File, w.Value); err != nil {
			return err
		}
	}
	return nil
}

// attach puts one more process into the sandbox's group.
func (s *scope) attach(pid int) error {
	if err := s.manager.attach(s.unit, leafName, pid); err != nil {
		return fmt.Errorf("ask systemd to put process %d into %s: %w", pid, s.unit, err)
	}
	return nil
}

// split moves both processes out of the scope's own group, which may not hold
// any once groups below it have controllers.
func (s *scope) split(dir string, pid, holder int) error {
	for _, leaf := range []struct {
		name string
		pid  int
	}{{leafName, pid}, {holderName, holder}} {
		path := filepath.Join(dir, leaf.name)
		if err := os.Mkdir(path, 0o755); err != nil {
			return fmt.Errorf("create control group: %w", err)
		}
		if err := writeFile(filepath.Join(path, "cgroup.procs"), strconv.Itoa(leaf.pid)); err != nil {
			return err
		}
	}
	for _, c := range s.controllers {
		if err := enable(dir, c); err != nil {
			return err
		}
	}
	return nil
}

// groupOf is the directory of a process's version 2 group.
func groupOf(mount string, pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Join(mount, path), nil
		}
	}
	return "", fmt.Errorf("process %d is in no version 2 group", pid)
}
