package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/facts"
)

// Cgroup finds out which control groups this process could create. It reads
// /proc/self/cgroup and /proc/self/mountinfo once and tries nothing: it is part
// of every start.
func Cgroup() (facts.Cgroup, error) {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return facts.Cgroup{Mode: facts.CgroupNone}, nil // a kernel without control groups
	}
	if err != nil {
		return facts.Cgroup{}, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return facts.Cgroup{}, err
	}
	return cgroupProbe{root: "/", uid: os.Geteuid()}.run(groups, mounts), nil
}

// cgroupProbe is one look at the machine. Tests give it a root of their own.
type cgroupProbe struct {
	root string // where /run, /proc and the mounts are looked up
	uid  int
}

// knownControllers are those that we can use, by their names in either version.
var knownControllers = []string{"memory", "pids", "cpu", "io", "blkio", "cpuset", "freezer"}

// run joins what is mounted with where we are, and asks about each place.
func (p cgroupProbe) run(groups, mounts []byte) facts.Cgroup {
	c := facts.Cgroup{Mode: facts.CgroupNone}
	var v1, v2 bool
	for _, g := range parseGroups(groups) {
		m, ok := findCgroupMount(mounts, g)
		if !ok {
			continue
		}
		h := facts.CgroupHierarchy{Version: g.version, Mount: m.place, Controllers: g.controllers}
		own, inside := m.translate(g.path)
		h.Own = own
		if g.version == 2 {
			v2 = true
			p.unified(&c, &h, inside)
		} else {
			v1 = true
			p.legacy(&h, inside)
		}
		c.Hierarchies = append(c.Hierarchies, h)
	}
	switch {
	case v1 && v2:
		c.Mode = facts.CgroupHybrid
	case v1:
		c.Mode = facts.CgroupV1
	case v2:
		c.Mode = facts.CgroupV2
	}
	p.swap(&c)
	return c
}

// ownGroup is a line of /proc/self/cgroup.
type ownGroup struct {
	version     int
	names       string   // as the kernel wrote them, for finding the mount
	controllers []string // those that we know
	path        string
}

// parseGroups reads the lines that are of use: hierarchies of version 1 with a
// controller that we know, and the unified one.
func parseGroups(data []byte) []ownGroup {
	var all []ownGroup
	for line := range strings.Lines(string(data)) {
		part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(part) != 3 {
			continue
		}
		g := ownGroup{version: 1, names: part[1], path: part[2]}
		if part[0] == "0" && part[1] == "" {
			g.version = 2
		} else if g.controllers = known(strings.Split(part[1], ",")); len(g.controllers) == 0 {
			continue
		}
		all = append(all, g)
	}
	return all
}

// known keeps the controllers that we know, in a fixed order.
func known(have []string) []string {
	var out []string
	for _, c := range knownControllers {
		if slices.Contains(have, c) {
			out = append(out, c)
		}
	}
	return out
}

// cgroupMount is where a hierarchy is mounted, and which group is the top of
// what can be seen there.
type cgroupMount struct{ top, place string }

// findCgroupMount finds the first mount of g's hierarchy.
func findCgroupMount(mounts []byte, g ownGroup) (cgroupMount, bool) {
	want := []byte(" - cgroup ")
	if g.version == 2 {
		want = []byte(" - cgroup2 ")
	}
	for len(mounts) > 0 {
		line, rest, _ := bytes.Cut(mounts, []byte("\n"))
		mounts = rest
		before, after, ok := bytes.Cut(line, want)
		if !ok {
			continue
		}
		left, right := strings.Fields(string(before)), strings.Fields(string(after))
		if len(left) < 6 || len(right) < 2 {
			continue
		}
		if g.version == 1 && !containsAll(strings.Split(right[1], ","), strings.Split(g.names, ",")) {
			continue
		}
		return cgroupMount{top: unescape(left[3]), place: unescape(left[4])}, true
	}
	return cgroupMount{}, false
}

// containsAll reports whether every element of want is in have.
func containsAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(have, w) })
}

// unescape undoes mountinfo's octal escapes of blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// translate turns a group's path into a directory. The second result is false
// if the group lies above what this mount shows.
func (m cgroupMount) translate(path string) (string, bool) {
	below, err := filepath.Rel(m.top, path)
	if err != nil || !filepath.IsLocal(below) || strings.HasPrefix(path, "/..") {
		return m.place, false
	}
	return filepath.Join(m.place, below), true
}

// hidden says that the group we are in cannot be named.
func hidden(h *facts.CgroupHierarchy) {
	h.Why = "the group that we are in is outside what is mounted at " + h.Mount
	h.Fix = "mount the hierarchy in this cgroup namespace"
}

// denied says that a directory cannot be made.
func denied(h *facts.CgroupHierarchy, err error) {
	h.Via, h.Parent = facts.CgroupDenied, ""
	h.Why = fmt.Sprintf("may not create a group below %s: %v", h.Own, err)
	switch {
	case errors.Is(err, syscall.EROFS):
		h.Fix = "mount " + h.Mount + " writable"
	case errors.Is(err, fs.ErrPermission):
		h.Fix = "run as root, or have " + h.Own + " delegated to this user"
	}
}

// legacy fills in a hierarchy of version 1: any group may have children there.
func (p cgroupProbe) legacy(h *facts.CgroupHierarchy, inside bool) {
	if !inside {
		hidden(h)
		return
	}
	if err := p.writable(h.Own); err != nil {
		denied(h, err)
		return
	}
	h.Via, h.Parent = facts.CgroupMkdir, h.Own
}

// Access modes of access(2).
const (
	accessExists = 0
	accessWrite  = 2
)

// Flags of faccessat(2): ask about the effective ids.
const atEaccess = 0x200

// writable asks the kernel, which knows about ids, mounts and namespaces.
func (p cgroupProbe) writable(dir string) error {
	return syscall.Faccessat(-1, filepath.Join(p.root, dir), accessWrite, atEaccess)
}

// exists reports whether there is such a file.
func (p cgroupProbe) exists(path string) bool {
	return syscall.Access(filepath.Join(p.root, path), accessExists) == nil
}

// swap finds out whether the kernel accounts for it; if not, whether there is any.
func (p cgroupProbe) swap(c *facts.Cgroup) {
	h, ok := c.For("memory")
	switch {
	case !ok:
	case h.Version == 1:
		c.SwapAccounting = p.exists(h.Own + "/memory.memsw.limit_in_bytes")
	default:
		// The root group has no such file; there a kernel is taken to have it.
		c.SwapAccounting = !p.exists(h.Own+"/memory.max") || p.exists(h.Own+"/memory.swap.max")
	}
	if c.SwapAccounting {
		c.Swap = true
		return
	}
	data, err := os.ReadFile(filepath.Join(p.root, "/proc/swaps"))
	c.Swap = err != nil && !errors.Is(err, fs.ErrNotExist) || bytes.Count(data, []byte("\n")) > 1
}
