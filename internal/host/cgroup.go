package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	groups, err := slurp("/proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return facts.Cgroup{Mode: facts.CgroupNone}, nil // a kernel without control groups
	}
	if err != nil {
		return facts.Cgroup{}, err
	}
	mounts, err := slurp("/proc/self/mountinfo")
	if err != nil {
		return facts.Cgroup{}, err
	}
	return cgroupProbe{uid: os.Geteuid()}.run(groups, mounts), nil
}

// slurp reads a file of the proc or cgroup file system. These make their
// content on each read, so few and large reads are cheap, and os.ReadFile's
// many small ones and its polling are not.
func slurp(path string) ([]byte, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	b := make([]byte, 0, 4096)
	for {
		n, err := syscall.Read(fd, b[len(b):cap(b)])
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return b, nil
		default:
			b = b[:len(b)+n]
		}
		if cap(b)-len(b) < 1024 {
			b = slices.Grow(b, cap(b))
		}
	}
}

// cgroupProbe is one look at the machine. Tests give it a root of their own.
type cgroupProbe struct {
	root string // before every path: where /run, /proc and the mounts are looked up
	uid  int
}

// knownControllers are those that we can use, by their names in either version.
var knownControllers = []string{"memory", "pids", "cpu", "io", "blkio", facts.Freezer}

// run joins what is mounted with where we are, and asks about each place.
func (p cgroupProbe) run(groups, mounts []byte) facts.Cgroup {
	c := facts.Cgroup{Mode: facts.CgroupNone}
	var v1, v2 bool
	mounted := cgroupMounts(mounts)
	for line := range strings.Lines(string(groups)) {
		h, m, path, ok := findGroup(line, mounted)
		if !ok {
			continue
		}
		own, inside := m.translate(path)
		h.Own = own
		if h.Version == 2 {
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

// findGroup reads a line of /proc/self/cgroup and finds the mount of its
// hierarchy. It passes over version 1 hierarchies without a controller that we know.
func findGroup(line string, mounted []cgroupMount) (h facts.CgroupHierarchy, m cgroupMount, path string, ok bool) {
	id, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
	names, path, ok := strings.Cut(rest, ":")
	if !ok {
		return h, m, "", false
	}
	h.Version = 2
	if id != "0" || names != "" {
		h.Version = 1
		if h.Controllers = known(strings.Split(names, ",")); len(h.Controllers) == 0 {
			return h, m, "", false
		}
	}
	for _, m = range mounted {
		if m.version == h.Version && (m.version == 2 || has(m.options, h.Controllers[0])) {
			h.Mount = m.place
			return h, m, path, true
		}
	}
	return h, m, "", false
}

// has reports whether name is an element of a list with commas.
func has(list, name string) bool {
	for e := range strings.SplitSeq(list, ",") {
		if e == name {
			return true
		}
	}
	return false
}

// known keeps the controllers that we know.
func known(have []string) []string {
	return slices.DeleteFunc(have, func(c string) bool { return !slices.Contains(knownControllers, c) })
}

// cgroupMount is where a hierarchy is mounted, and which group is the top of
// what can be seen there.
type cgroupMount struct {
	version    int
	top, place string
	options    string // of the file system: the controllers of version 1
}

// cgroupMounts finds the hierarchies in mountinfo (proc(5)). A machine may have
// thousands of mounts, so only the lines that matter are taken apart.
func cgroupMounts(mountinfo []byte) []cgroupMount {
	var all []cgroupMount
	mark := []byte(" - cgroup")
	for {
		at := bytes.Index(mountinfo, mark)
		if at < 0 {
			return all
		}
		begin := bytes.LastIndexByte(mountinfo[:at], '\n') + 1
		line, rest, _ := bytes.Cut(mountinfo[begin:], []byte("\n"))
		mountinfo = rest
		if m, ok := parseMount(string(line)); ok {
			all = append(all, m)
		}
	}
}

// parseMount takes one line apart: 36 35 98:0 ROOT PLACE ... - TYPE SOURCE OPTIONS.
func parseMount(line string) (cgroupMount, bool) {
	before, after, _ := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if len(left) < 6 || len(right) < 3 {
		return cgroupMount{}, false
	}
	m := cgroupMount{version: 1, top: unescape(left[3]), place: unescape(left[4]), options: right[2]}
	switch right[0] {
	case "cgroup2":
		m.version = 2
	case "cgroup":
	default:
		return cgroupMount{}, false
	}
	return m, true
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
// if the group lies outside what this mount shows.
func (m cgroupMount) translate(path string) (string, bool) {
	if m.top == "/" && !strings.HasPrefix(path, "/..") {
		if path == "/" {
			return m.place, true
		}
		return m.place + path, true
	}
	below, found := strings.CutPrefix(path, m.top)
	if !found || strings.HasPrefix(path, "/..") || below != "" && below[0] != '/' {
		return m.place, false
	}
	return m.place + below, true
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
	return syscall.Faccessat(-1, p.root+dir, accessWrite, atEaccess)
}

// exists reports whether there is such a file.
func (p cgroupProbe) exists(path string) bool {
	return syscall.Access(p.root+path, accessExists) == nil
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
	data, err := slurp(p.root + "/proc/swaps")
	c.Swap = err != nil && !errors.Is(err, fs.ErrNotExist) || bytes.Count(data, []byte("\n")) > 1
}
