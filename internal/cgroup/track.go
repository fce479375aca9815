package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Trackable are the controllers of a group that watches a sandbox without
// limiting it: those that can be had here without an error. Nobody asked for
// them, so the lack of one must not keep a sandbox from starting.
func Trackable(c facts.Cgroup) []string {
	var all []string
	for _, name := range []string{"memory", "cpu", "pids", "io", "blkio", facts.Freezer} {
		if h, ok := c.For(name); ok && available(h, name) {
			all = append(all, name)
		}
	}
	return all
}

// available reports whether a group with controller can be made. A parent that
// holds processes cannot switch one on; the real root group can.
func available(h facts.CgroupHierarchy, controller string) bool {
	if h.Via != facts.CgroupMkdir {
		return h.Via == facts.CgroupScope
	}
	if h.Version == 1 || controller == facts.Freezer {
		return true
	}
	for _, c := range h.Enabled {
		if c == controller {
			return true
		}
	}
	if _, err := os.Lstat(filepath.Join(h.Parent, "cgroup.type")); errors.Is(err, os.ErrNotExist) {
		return true
	}
	procs, err := os.ReadFile(filepath.Join(h.Parent, "cgroup.procs"))
	return err == nil && len(procs) == 0
}

// Ours are the groups named like ours below every group in which this process may
// make some, whoever made them: what is left of a sandbox that nobody remembers
// can be opened and removed. A group without a process may also be one that is
// just being made, so whoever removes it must know that no start is under way.
func Ours(c facts.Cgroup) ([]Place, error) {
	var all []Place
	var errs []error
	for _, h := range c.Hierarchies {
		var found []Place
		var err error
		switch {
		case h.Via == facts.CgroupScope && c.Systemd != nil:
			found, err = ourScopes(c.Systemd.Delegated)
		case h.Via == facts.CgroupMkdir:
			found, err = ourGroups(h, h.Parent)
		}
		all, errs = append(all, found...), append(errs, err)
		if h.Plain != "" {
			found, err = ourGroups(h, h.Plain)
			all, errs = append(all, found...), append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

// ourGroups are the groups of ours below parent.
func ourGroups(h facts.CgroupHierarchy, parent string) ([]Place, error) {
	var all []Place
	err := eachOurs(parent, "", func(path string) {
		all = append(all, Place{Version: h.Version, Path: path, Controllers: controllersOf(h, path)})
	})
	return all, err
}

// controllersOf are the controllers of a group: in version 2 it says so itself.
func controllersOf(h facts.CgroupHierarchy, path string) []string {
	if h.Version == 1 {
		return h.Controllers
	}
	data, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}

// ourScopes are the scopes of ours in the slices in which a manager starts them:
// the system's, a user's, and a user's before systemd 247.
func ourScopes(delegated string) ([]Place, error) {
	var all []Place
	var errs []error
	for _, slice := range []string{"system.slice", "app.slice", ""} {
		errs = append(errs, eachOurs(filepath.Join(delegated, slice), scopeSuffix, func(path string) {
			leaf := filepath.Join(path, leafName)
			all = append(all, Place{Version: 2, Path: leaf,
				Controllers: controllersOf(facts.CgroupHierarchy{Version: 2}, leaf), Holder: findHolder(path)})
		}))
	}
	return all, errors.Join(errs...)
}

// findHolder finds the process that holds a scope, or nil.
func findHolder(scope string) *Holder {
	data, err := os.ReadFile(filepath.Join(scope, holderName, "cgroup.procs"))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return nil
	}
	start, err := kernel.StartTime(pid)
	if err != nil {
		return nil
	}
	return &Holder{Pid: pid, Start: start}
}

// eachOurs calls f for every directory of ours in dir, which need not exist.
func eachOurs(dir, suffix string, f func(path string)) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return gone(err)
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), Prefix) && strings.HasSuffix(e.Name(), suffix) {
			f(filepath.Join(dir, e.Name()))
		}
	}
	return nil
}
