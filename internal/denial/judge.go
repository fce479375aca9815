package denial

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/spec"
)

// Call is a system call that a listener saw.
type Call struct {
	Name    string
	Args    [6]uint64
	Refused string // the errno that the filter answered with; empty: the call went on
	Rule    string // why
	Path    string // absolute, in the sandbox
	Second  string
	Addr    string
	Change  bool
	Exec    bool
	Pid     int
	Process string
	Time    time.Time
	Count   int
	Seen    Seen
	Needs   [2]Need
}

// Seen is what the kernel said of a call's path, or of its second one if it has
// two, while its process waited.
type Seen struct {
	Asked    bool
	Exists   bool
	Parent   bool   // the directory that would hold it exists
	Real     string // where it leads to, if it or its directory exists
	ReadOnly bool   // the mount of it, or of its directory
	NoExec   bool
	Special  bool // a device, a pipe or a socket: writing to it changes no file system
}

// Host answers questions about the caller's machine. The zero value knows nothing.
type Host struct {
	// Has reports whether the caller sees a file there, and whether it is a directory.
	Has func(path string) (dir, ok bool)
	// Unreadable reports whether the caller may not read what is there.
	Unreadable func(path string) bool
	// Home is the caller's home directory.
	Home string
	// Path is the caller's search path.
	Path string
	// Dir is the caller's working directory.
	Dir string
}

func (h Host) has(p string) (dir, ok bool) {
	if h.Has == nil || !path.IsAbs(p) {
		return false, false
	}
	return h.Has(p)
}

// Judge collects the denials of one sandbox.
type Judge struct {
	spec   *spec.Sandbox
	plan   *plan.Plan // may be nil
	host   Host
	layers []plan.Landlock
	told   bool // the kernel reports what Landlock refuses
	all    []Denial
	at     map[key]int

	tried   []Denial // places where the program was looked for
	started bool     // it was in one of them
}

// key is what makes two denials one.
type key struct{ layer, what, object, rule string }

// New returns a Judge. A sandbox that is only known by its record has no plan.
func New(s *spec.Sandbox, p *plan.Plan, h Host) *Judge {
	j := &Judge{spec: s, plan: p, host: h, at: map[key]int{}}
	if p != nil {
		for _, step := range p.Steps {
			if l, ok := step.Do.(plan.Landlock); ok {
				j.layers = append(j.layers, l)
			}
		}
	}
	return j
}

// Denials returns what was collected, in the order in which it was first seen.
func (j *Judge) Denials() []Denial { return slices.Clone(j.all) }

// add keeps a denial, and counts another like one that there is.
func (j *Judge) add(d Denial) {
	d.Object, d.Process = Clean(d.Object), Clean(d.Process)
	d.Count = max(d.Count, 1)
	k := key{d.Layer, d.What, d.Object, d.Rule}
	if i, ok := j.at[k]; ok {
		j.all[i].Count += d.Count
		if d.Time.After(j.all[i].Time) {
			j.all[i].Time = d.Time
		}
		return
	}
	if len(j.all) >= Most {
		return
	}
	j.at[k] = len(j.all)
	j.all = append(j.all, d)
}

// starter is the name of who executes the program, who has none of its own.
const starter = "nucleus"

// Call judges one call.
func (j *Judge) Call(c Call) {
	d := Denial{Time: c.Time, Process: c.Process, Pid: c.Pid, Count: c.Count}
	start := c.Exec && c.Process == starter
	if start {
		d.Process = ""
	}
	var ok bool
	switch {
	case c.Refused != "":
		d, ok = j.refused(d, c), true
	case c.Name == "connect" || c.Name == "sendto":
		d, ok = j.connect(d, c)
	case c.Name == "bind":
		d, ok = j.bind(d, c)
	case strings.Contains(c.Name, "chown"):
		d, ok = j.chown(d, c)
		if !ok {
			d, ok = j.file(d, c)
		}
	case c.Path != "":
		d, ok = j.file(d, c)
	}
	switch {
	case ok && start && d.Layer == Missing: // it may be elsewhere in the search path
		j.tried = append(j.tried, d)
	case ok:
		j.add(d)
	case start && c.Seen.Exists:
		j.started = true
	}
}

// place is what the sandbox has at a path: the innermost mount.
func (j *Judge) place(p string) (plan.Place, bool) {
	var best plan.Place
	found := false
	if j.plan == nil {
		return best, false
	}
	for _, m := range j.plan.Places {
		if within(p, m.Path) && len(m.Path) >= len(best.Path) {
			best, found = m, true
		}
	}
	return best, found
}

func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// source is the host directory or file that a place of the Spec shows, as the
// user wrote it.
func (j *Judge) source(because string) string {
	switch {
	case because == "context" && j.spec.Context != nil:
		return j.spec.Context.Source
	case because == "workspace" && j.spec.Workspace != nil:
		return j.spec.Workspace.Source
	}
	if i, ok := index(because, "volumes"); ok && i < len(j.spec.Volumes) {
		return j.spec.Volumes[i].Source
	}
	return ""
}

// index reads NAME[I].
func index(because, name string) (int, bool) {
	rest, ok := strings.CutPrefix(because, name+"[")
	n, err := strconv.Atoi(strings.TrimSuffix(rest, "]"))
	return n, ok && err == nil
}
