package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/spec"
)

// Mounted is a mount as a plan leaves it.
type Mounted struct {
	Path string `json:"path"`
	// Type is the file system's; empty: one of the host's, whatever it is.
	Type string `json:"type,omitempty"`
	// Own says that it shows the memory file system that is the root.
	Own bool `json:"own,omitempty"`
	// Tree says that the host's mounts below it came with it.
	Tree bool `json:"tree,omitempty"`
	// Attr is what it must have at least, and every mount of its tree too.
	Attr Attr `json:"attr"`
}

// Mounts are all mounts of the sandbox that p makes, in order.
func (p *Plan) Mounts() []Mounted { return mountsOf(p.Steps) }

// mountsOf follows every mount from where it comes from to its place. It is
// another way through the steps than Check's, and asks what will be there.
func mountsOf(steps []Step) []Mounted {
	m := &mounting{fds: map[FD]*Mounted{}, links: map[string]string{}}
	for _, s := range steps {
		m.step(s.Do)
	}
	return m.all
}

type mounting struct {
	fds     map[FD]*Mounted
	links   map[string]string
	all     []Mounted
	pivoted bool
}

func (m *mounting) step(a Action) {
	switch a := a.(type) {
	case HostTree:
		m.fds[a.As] = &Mounted{Tree: true, Attr: a.Attr}
	case OpenTree:
		m.fds[a.As] = m.source(a)
	case NewMount:
		m.fds[a.As] = &Mounted{Type: a.Type, Attr: a.Attr}
	case SetAttr:
		if of := m.fds[a.FD]; of != nil {
			of.Attr |= a.Attr
		} else if i := m.at(a.Path); i >= 0 && a.FD == "" {
			m.all[i].Attr |= a.Attr
		}
	case MoveMount:
		if of := m.fds[a.From]; of != nil {
			m.mount(a.To, *of)
		}
	case MountFS:
		m.mountFS(a)
	case PivotRoot:
		m.pivoted = true
	case MakeLink:
		m.links[a.Path] = a.Target
	case Show:
		if i := m.at(path.Dir(a.Source)); i >= 0 {
			m.mount(a.Target, m.all[i])
		}
	case Unmount:
		if i := m.at(a.Path); i >= 0 {
			m.all = slices.Delete(m.all, i, i+1)
		}
	}
}

// source is what a cloned mount shows: of the host before the root changes, of
// the sandbox after.
func (m *mounting) source(a OpenTree) *Mounted {
	if !m.pivoted {
		return &Mounted{Tree: a.Recursive}
	}
	for at := m.real(a.Source); ; at = path.Dir(at) {
		if i := m.at(at); i >= 0 {
			return &Mounted{Type: m.all[i].Type, Own: m.all[i].Own, Tree: a.Recursive && m.all[i].Tree}
		}
		if at == "/" {
			return &Mounted{}
		}
	}
}

func (m *mounting) mountFS(a MountFS) {
	of := Mounted{Type: a.Type}
	for _, f := range []struct {
		flag uint64
		attr Attr
	}{{abi.MSNoSuid, Attr(abi.MountAttrNoSuid)}, {abi.MSNoDev, Attr(abi.MountAttrNoDev)}, {abi.MSNoExec, noExec}} {
		if a.Flags&f.flag != 0 {
			of.Attr |= f.attr
		}
	}
	if !m.pivoted { // it becomes the root
		of.Own = true
		m.all = append(m.all, withPath(of, "/"))
		return
	}
	m.mount(a.Target, of)
}

func (m *mounting) mount(at string, of Mounted) { m.all = append(m.all, withPath(of, m.real(at))) }

func withPath(of Mounted, at string) Mounted {
	of.Path = at
	return of
}

// at is the index of the mount on top at a path, or -1.
func (m *mounting) at(p string) int {
	for i := len(m.all) - 1; i >= 0; i-- {
		if m.all[i].Path == p {
			return i
		}
	}
	return -1
}

// real is where a path leads to by the links that the plan makes.
func (m *mounting) real(p string) string {
	b := builder{links: m.links}
	return b.real(path.Clean(p))
}

// AuditMounts compares what the kernel says is mounted with what a plan leaves,
// and says what is missing, what is there besides, and what lacks a restriction.
// Unless it is strict, a link inside a volume may have led what is mounted below
// that volume to another place of the sandbox.
func AuditMounts(want []Mounted, found []facts.Mount, strict bool) []string {
	var wrong []string
	used, led := make([]bool, len(found)), 0
	own := deviceOf(found, "/")
	for _, w := range want {
		best, lacks := -1, ""
		for i, f := range found {
			if used[i] || f.Target != w.Path {
				continue
			}
			what := w.lacks(f, own)
			if best < 0 || what == "" {
				best, lacks = i, what
			}
			if what == "" {
				break
			}
		}
		switch {
		case best < 0 && !strict && treeOf(want, w.Path).Tree:
			led++
			continue
		case best < 0:
			wrong = append(wrong, fmt.Sprintf("nothing is mounted at %q", w.Path))
			continue
		case lacks != "":
			wrong = append(wrong, fmt.Sprintf("%q %s", w.Path, lacks))
		}
		used[best] = true
	}
	for i, f := range found {
		switch {
		case used[i]:
		case led > 0 && f.Device != own && missing(noSuidDev, f) == "":
			led--
		default:
			wrong = append(wrong, extra(want, f, own)...)
		}
	}
	return wrong
}

// treeOf is the innermost tree of the host that a path is in, or none.
func treeOf(want []Mounted, at string) (tree Mounted) {
	for _, w := range want {
		if w.Tree && strings.HasPrefix(at, w.Path+"/") && len(w.Path) >= len(tree.Path) {
			tree = w
		}
	}
	return tree
}

// lacks says what a mount of the kernel's is not.
func (w Mounted) lacks(f facts.Mount, own string) string {
	switch {
	case w.Own && f.Device != own:
		return "is not of the sandbox's own memory"
	case !w.Own && f.Device == own:
		return "is of the sandbox's own memory"
	case w.Type != "" && f.Type != w.Type:
		return fmt.Sprintf("is %s, not %s", f.Type, w.Type)
	}
	if missing := missing(w.Attr, f); missing != "" {
		return "is mounted without " + missing
	}
	return ""
}

// missing names the restrictions that a mount lacks.
func missing(want Attr, f facts.Mount) string {
	has := strings.Split(f.Options, ",")
	var out []string
	for _, name := range strings.Split((want &^ abi.MountAttrIDMap).String(), ",") {
		if name != "" && !slices.Contains(has, name) {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
}

// extra says what is wrong with a mount that the plan does not name: it may have
// come with a tree of the host, and must be held to what that is held to.
func extra(want []Mounted, f facts.Mount, own string) []string {
	tree := treeOf(want, f.Target)
	if !tree.Tree || f.Device == own {
		return []string{fmt.Sprintf("something is mounted at %q (%s), which the plan does not name", f.Target, f.Type)}
	}
	if missing := missing(tree.Attr, f); missing != "" {
		return []string{fmt.Sprintf("%q, which came with %s, is mounted without %s", f.Target, tree.Path, missing)}
	}
	return nil
}

func deviceOf(found []facts.Mount, at string) string {
	for _, f := range found {
		if f.Target == at {
			return f.Device
		}
	}
	return ""
}

// hold plans the wait for those who want to know what the kernel enforces, and
// the audit of the mounts in production.
func (b *builder) hold() {
	switch {
	case b.spec.Mode.Demands(spec.ModeProduction):
		b.child("mode", Hold{Mounts: mountsOf(b.steps)})
	case b.cmd.Hold:
		b.child("audit", Hold{})
	}
}
