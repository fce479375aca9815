// Package cgroup is a sandbox's control group as a handle: create it, write
// limits, put processes in, ask what happened, end it, remove it.
//
// It decides nothing: which controllers and values comes from package plan,
// where the group goes from package facts. It touches no group but the ones it
// made, and of those above only cgroup.subtree_control.
//
//	g, err := cgroup.Create(host.Cgroup, "nucleus-7f3a", []string{"memory"})
//	if err != nil { ... }
//	defer g.Remove()
//	err = g.Write("memory", "memory.max", "536870912")
//
// A process gets into the group in one of three ways; [Group.Dir], [Group.Enter]
// and [Group.Add] say which. They may all be used in turn, each does nothing
// where it does not apply:
//
//   - version 2: born there, by clone3 with Dir;
//   - version 1: its parent's thread is in the group while it clones (Enter);
//   - a systemd scope: put in afterwards (Add).
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/facts"
)

// Prefix starts the name of every group that is ours.
const Prefix = "nucleus-"

// Group is one sandbox's group: a directory in each hierarchy that is needed.
// It is for one goroutine at a time.
type Group struct {
	name   string
	parts  []*part
	scope  *scope  // made by a service manager; parts is empty until Add
	holder *holder // keeps the scope; or nil
}

// Place is one directory of a group, as it is recorded and opened again.
type Place struct {
	Version     int      `json:"version"`
	Path        string   `json:"path"`
	Controllers []string `json:"controllers"`
	// Holder is the process that keeps a scope of systemd alive; see [Group.Detach].
	Holder *Holder `json:"holder,omitempty"`
}

// part is a Place that is open.
type part struct {
	Place
	dir  *os.File // O_PATH; of the group
	home *os.File // version 1: the directory of the group that we are in
}

// Create makes the group name with the given controllers below the groups that
// this process may create in; [facts.Freezer] counts as one. A group of that name
// is an error, unless it is empty. If a part fails, the parts before it are
// removed again.
func Create(c facts.Cgroup, name string, controllers []string) (*Group, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	g := &Group{name: name}
	for _, controller := range controllers {
		if err := g.create(c, controller); err != nil {
			return nil, errors.Join(err, g.Remove())
		}
	}
	return g, nil
}

// checkName keeps a name inside one directory and recognisably ours.
func checkName(name string) error {
	if !strings.HasPrefix(name, Prefix) || strings.ContainsAny(name, "/\n") || len(name) > 255 {
		return fmt.Errorf("control group name %q: want %sID", name, Prefix)
	}
	return nil
}

// create makes the part that has controller, unless another controller has
// brought it along: hierarchies of version 1 may be mounted together.
func (g *Group) create(c facts.Cgroup, controller string) error {
	h, ok := c.For(controller)
	if !ok {
		return fmt.Errorf("control group controller %s: %w", controller, errors.ErrUnsupported)
	}
	switch h.Via {
	case facts.CgroupDenied:
		return fmt.Errorf("create %s with controller %s: %s: %w", g.name, controller, h.Why, errors.ErrUnsupported)
	case facts.CgroupScope:
		if g.scope == nil {
			g.scope = newScope(*c.Systemd, h, g.name)
		}
		if controller != facts.Freezer { // every group of version 2 has it
			g.scope.controllers = append(g.scope.controllers, controller)
		}
		return nil
	}
	return g.mkdir(h, controller)
}

// mkdir makes the part that has controller below the hierarchy's parent.
func (g *Group) mkdir(h facts.CgroupHierarchy, controller string) error {
	have := h.Controllers
	if h.Version == 2 {
		have = slices.Clone(h.Enabled)
		if controller != facts.Freezer && !slices.Contains(have, controller) {
			if err := enable(h.Parent, controller); err != nil {
				return err
			}
			have = append(have, controller)
		}
	}
	path := filepath.Join(h.Parent, g.name)
	for _, p := range g.parts {
		if p.Path == path {
			p.Controllers = union(p.Controllers, have)
			return nil
		}
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return fmt.Errorf("create control group: %w", err)
	}
	p, err := openPart(Place{Version: h.Version, Path: path, Controllers: have})
	if err != nil {
		return errors.Join(err, syscall.Rmdir(path))
	}
	g.parts = append(g.parts, p)
	if h.Version == 1 {
		p.home, err = openDir(h.Own)
	}
	return err
}

// union is a with what b has more.
func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// enable lets groups below parent have a controller.
func enable(parent, controller string) error {
	const file = "cgroup.subtree_control"
	err := writeFile(filepath.Join(parent, file), "+"+controller)
	switch {
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%w (the group holds processes: move them to a group below it first)", err)
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%w (the groups above do not give the controller to this one)", err)
	}
	return err
}

// Open opens a group that was made by another process, by what Places said
// there. Paths that are not ours by name or not on a control group file system
// are refused; a part that no longer exists is left out. Whoever has opened a
// group can do with it all that its maker can: read, limit, freeze, join, end.
// Close leaves it as it was.
func Open(c facts.Cgroup, places []Place) (*Group, error) {
	g := &Group{}
	for _, place := range places {
		err := g.open(c, place)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			g.close()
			return nil, err
		}
	}
	return g, nil
}

// open opens one part.
func (g *Group) open(c facts.Cgroup, place Place) error {
	g.name = filepath.Base(place.Path)
	unit := filepath.Base(filepath.Dir(place.Path))
	name, scoped := strings.CutSuffix(unit, scopeSuffix)
	if scoped = scoped && g.name == leafName; scoped {
		g.name = name
	}
	if err := checkName(g.name); err != nil {
		return err
	}
	if scoped && place.Holder != nil {
		// Also without a directory: Remove may have been killed halfway.
		g.holder = &holder{Holder: *place.Holder, unit: unit}
	}
	p, err := openPart(place)
	if err != nil {
		return err
	}
	g.parts = append(g.parts, p)
	if scoped && c.Systemd != nil {
		g.scope = &scope{manager: manager(*c.Systemd), unit: unit, made: true}
	}
	if place.Version == 1 && len(place.Controllers) > 0 {
		if h, ok := c.Legacy(place.Controllers[0]); ok {
			p.home, err = openDir(h.Own)
		}
	}
	return err
}

// Magic numbers of the two file systems (statfs(2)).
const (
	cgroupMagic  = 0x27e0eb
	cgroup2Magic = 0x63677270
)

const oPath = 0x200000 // O_PATH, which package syscall does not have

// openDir opens a directory for use as a starting point.
func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, oPath|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
}

// openPart opens a group's directory and makes sure that it is one.
func openPart(place Place) (*part, error) {
	dir, err := openDir(place.Path)
	if err != nil {
		return nil, err
	}
	var fs syscall.Statfs_t
	if err := syscall.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return nil, errors.Join(&os.PathError{Op: "statfs", Path: place.Path, Err: err}, dir.Close())
	}
	if int64(fs.Type) != cgroupMagic && int64(fs.Type) != cgroup2Magic {
		return nil, errors.Join(fmt.Errorf("%s is not a control group", place.Path), dir.Close())
	}
	return &part{Place: place, dir: dir}, nil
}

// close closes what the group holds open.
func (g *Group) close() {
	for _, p := range g.parts {
		p.dir.Close()
		if p.home != nil {
			p.home.Close()
		}
	}
	g.parts = nil
}

// Close lets go of the group and leaves it as it is. A scope of systemd that this
// process has made and not detached lives from then on only as long as there is a
// process in it.
func (g *Group) Close() error {
	g.close()
	return g.holder.release()
}

// Name is the group's name.
func (g *Group) Name() string { return g.name }

// Places says where the group is, for the record and for Open.
func (g *Group) Places() []Place {
	var all []Place
	for _, p := range g.parts {
		place := p.Place
		if g.holder != nil && filepath.Base(filepath.Dir(p.Path)) == g.holder.unit {
			h := g.holder.Holder
			place.Holder = &h
		}
		all = append(all, place)
	}
	return all
}

// Paths are the directories of the group.
func (g *Group) Paths() []string {
	var all []string
	for _, p := range g.parts {
		all = append(all, p.Path)
	}
	return all
}

// Dir is the directory of the version 2 part, for CLONE_INTO_CGROUP, or nil if
// there is none. It belongs to the group.
func (g *Group) Dir() *os.File {
	if p := g.v2(); p != nil && g.scope == nil {
		return p.dir
	}
	return nil
}

// v2 is the version 2 part, or nil.
func (g *Group) v2() *part {
	for _, p := range g.parts {
		if p.Version == 2 {
			return p
		}
	}
	return nil
}

// with is the part that has a controller, or nil.
func (g *Group) with(controller string) *part {
	if controller == facts.Freezer {
		return g.freezer()
	}
	for _, p := range g.parts {
		if slices.Contains(p.Controllers, controller) {
			return p
		}
	}
	return nil
}
