package learn

import (
	"path"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/policy/landlock"
)

// crowd is the number of files of one directory from which on a record names the
// directory in their place.
const crowd = 12

// Compact makes a record one that people can read: what is beneath a directory
// that the job made is part of that directory, and where many files of one
// directory were used alike, the directory stands for them. The policy that
// follows from the record stays the same or, for files that were only read,
// becomes what it would with a few files more.
func (r *Record) Compact() {
	r.intoMade()
	for _, alike := range []func(*Path) bool{
		func(p *Path) bool { return p.Access == 0 && !p.Made },
		func(p *Path) bool { return p.Access != 0 && p.Access&^landlock.Read == 0 && !p.Made && p.By == "" },
		func(p *Path) bool { return p.Made && !p.Below && p.By == "" },
	} {
		r.crowds(alike)
	}
	slices.SortStableFunc(r.Paths, func(a, b Path) int { return strings.Compare(a.Path, b.Path) })
	r.index = nil
}

// intoMade adds what is beneath a directory that was made to it.
func (r *Record) intoMade() {
	top := map[string]int{}
	for i, p := range r.Paths {
		if p.Made && (p.Kind == Dir || p.Access&landlock.MakeDir != 0) {
			top[p.Path] = i
		}
	}
	out := make([]bool, len(r.Paths))
	for i, p := range r.Paths {
		into := -1
		for d := path.Dir(p.Path); d != "/"; d = path.Dir(d) {
			if j, ok := top[d]; ok {
				into = j
			}
		}
		if into < 0 {
			continue
		}
		m := &r.Paths[into]
		count := m.Count
		m.Access |= p.Access
		m.Below, m.Made, m.Count = true, true, count+p.Count
		out[i] = true
	}
	r.drop(out)
}

func (r *Record) drop(out []bool) {
	kept := r.Paths[:0]
	for i, p := range r.Paths {
		if !out[i] {
			kept = append(kept, p)
		}
	}
	r.Paths, r.index = kept, nil
}

// crowds puts directories in the place of many files in them that are alike.
func (r *Record) crowds(alike func(*Path) bool) {
	for depth := r.depth(); depth > 1; depth-- {
		children := map[string][]int{}
		for i := range r.Paths {
			if p := &r.Paths[i]; strings.Count(p.Path, "/") == depth && alike(p) && !strings.HasPrefix(p.Path, "/dev/") {
				children[path.Dir(p.Path)] = append(children[path.Dir(p.Path)], i)
			}
		}
		out := make([]bool, len(r.Paths))
		var stand []Path
		for dir, members := range children {
			if len(members) < crowd {
				continue
			}
			p := Path{Path: dir, Kind: Dir, Below: true}
			for _, i := range members {
				p.Access |= r.Paths[i].Access
				p.Count += r.Paths[i].Count
				if p.First == "" {
					p.First = r.Paths[i].First
				}
				out[i] = true
			}
			stand = append(stand, p)
		}
		slices.SortFunc(stand, func(a, b Path) int { return strings.Compare(a.Path, b.Path) })
		r.drop(out)
		for _, p := range stand {
			r.addPath(p)
		}
	}
}

func (r *Record) depth() (deepest int) {
	for _, p := range r.Paths {
		deepest = max(deepest, strings.Count(p.Path, "/"))
	}
	return deepest
}
