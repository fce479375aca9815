package learn

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/policy/landlock"
)

// trees are the parts of the sandbox that hold programs and their libraries and
// settings: what is read in them depends on versions, so each is read as a whole.
var trees = [...]string{"/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/opt"}

// crowds are directories whose files have names that mean nothing in another run.
var crowds = [...]string{"/proc", "/dev/pts", "/dev/shm", "/dev/mqueue"}

// many is the number of files or directories from which on their parent stands
// for them, manyPrograms that of programs: which ones a job executes varies least
// and says most.
const (
	many         = 4
	manyPrograms = 16
)

// Landlock makes the rules over files for the job. Rights to make, remove and
// rename belong to directories that existed before the job, as do files that it
// made, whatever they were called: temporary names are never in a rule.
func (r *Record) Landlock() landlock.Config {
	g := &ground{made: map[string]bool{}, rules: map[string]*landlock.PathRule{}, seen: map[string]*Evidence{}}
	for i := range r.Paths {
		if r.Paths[i].Made {
			g.made[r.Paths[i].Path] = true
		}
	}
	ioctl := slices.ContainsFunc(r.Calls, func(u Used) bool { return u.Name == "ioctl" })
	for i := range r.Paths {
		g.path(&r.Paths[i], ioctl)
	}
	for _, class := range classes {
		g.gather(class)
	}
	g.widen()
	g.add(guide, false, landlock.ReadFile, Evidence{})
	c := landlock.Default()
	for _, name := range slices.Sorted(maps.Keys(g.rules)) {
		rule := g.rules[name]
		if rule.Allow &^= g.above(name); rule.Allow == 0 {
			continue
		}
		rule.Why = g.seen[name].String()
		if name == guide {
			rule.Why = "tells programs what they may do"
		}
		c.Rules = append(c.Rules, *rule)
	}
	return c
}

// guide is in every sandbox.
const guide = "/run/nucleus/policy.md"

// classes are the rights that are gathered apart: many files that are read say
// nothing about what may be executed.
var classes = [...]landlock.Access{
	landlock.ReadFile, landlock.ReadDir, landlock.Execute, landlock.WriteFile | landlock.Truncate | landlock.IoctlDev, landlock.ResolveUnix,
}

// ground is a set of rules in the making.
type ground struct {
	made  map[string]bool
	rules map[string]*landlock.PathRule
	seen  map[string]*Evidence
}

// path adds what was done with one path.
func (g *ground) path(p *Path, ioctl bool) {
	const entries = landlock.Create | landlock.MakeDevice | landlock.Remove | landlock.Refer
	self, parent := p.Access&^entries, p.Access&entries
	if parent != 0 {
		in := path.Dir(p.Path)
		if p.Below && !p.Made {
			in = p.Path
		}
		g.add(g.standing(in), true, parent, p.Evidence)
	}
	if self == 0 {
		return
	}
	if strings.HasPrefix(p.Path, "/dev/") && ioctl && self&(landlock.ReadFile|landlock.WriteFile) != 0 {
		self |= landlock.IoctlDev
	}
	at := g.standing(p.Path)
	dir := at != p.Path || p.Kind == Dir || p.Below
	for _, name := range crowds {
		if within(at, name) {
			at, dir = name, true
		}
	}
	const read = landlock.ReadFile | landlock.ReadDir
	for _, name := range trees {
		if within(at, name) && self&read != 0 {
			g.add(name, true, self&read, p.Evidence)
			self &^= read
		}
	}
	if self != 0 {
		g.add(at, dir, self, p.Evidence)
	}
}

// standing is the deepest part of a path that the job did not make itself.
func (g *ground) standing(name string) string {
	at := name
	for p := name; p != "/"; p = path.Dir(p) {
		if g.made[p] {
			at = path.Dir(p)
		}
	}
	return at
}

func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

func (g *ground) add(name string, dir bool, a landlock.Access, e Evidence) {
	rule := g.rules[name]
	if rule == nil {
		rule = &landlock.PathRule{Path: name, File: !dir}
		g.rules[name], g.seen[name] = rule, &Evidence{}
	}
	if dir {
		rule.File = false
	}
	rule.Allow |= a
	g.seen[name].add(e)
}

// gather puts a directory in the place of many rules beneath it, from the deepest
// on. The root never does.
func (g *ground) gather(class landlock.Access) {
	enough := many
	if class == landlock.Execute {
		enough = manyPrograms
	}
	for depth := g.depth(); depth > 1; depth-- {
		children := map[string][]string{}
		for name, rule := range g.rules {
			if strings.Count(name, "/") == depth && rule.Allow&class != 0 && !within(name, "/dev") {
				children[path.Dir(name)] = append(children[path.Dir(name)], name)
			}
		}
		for dir, names := range children {
			if len(names) < enough {
				continue
			}
			slices.Sort(names)
			for _, name := range names {
				g.add(dir, true, g.rules[name].Allow&class, *g.seen[name])
				g.rules[name].Allow &^= class
			}
		}
	}
}

func (g *ground) depth() (deepest int) {
	for name := range g.rules {
		deepest = max(deepest, strings.Count(name, "/"))
	}
	return deepest
}

// widen rounds rights up where one is no use without another that chance decides
// on: whoever makes files in a directory also reads, changes and removes them. The
// kernel lets files move only to where nothing more may be done with them, so
// directories between which they move have the same rights.
func (g *ground) widen() {
	var moving landlock.Access
	for _, rule := range g.rules {
		if rule.File {
			continue
		}
		if rule.Allow&landlock.MakeReg != 0 {
			rule.Allow |= landlock.Write | landlock.ReadFile | landlock.RemoveFile
		}
		if rule.Allow&landlock.MakeDir != 0 {
			rule.Allow |= landlock.ReadDir | landlock.RemoveDir
		}
		if rule.Allow&(landlock.MakeSym|landlock.MakeSock|landlock.MakeFifo) != 0 {
			rule.Allow |= landlock.RemoveFile
		}
		if rule.Allow&landlock.Refer != 0 {
			moving |= rule.Allow
		}
	}
	for _, rule := range g.rules {
		if rule.Allow&landlock.Refer != 0 {
			rule.Allow |= moving
		}
	}
}

// above are the rights that rules on directories above a path give already.
func (g *ground) above(name string) (a landlock.Access) {
	for p := name; p != "/"; {
		p = path.Dir(p)
		if rule := g.rules[p]; rule != nil {
			a |= rule.Allow
		}
	}
	return a
}
