package files

import (
	"bytes"
	"fmt"
	"path"
	"time"

	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/learn"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// MaxRecord is the size of the largest learning record that is read.
const MaxRecord = 16 << 20

// recordForm is a learning record as TOML has it.
type recordForm struct {
	Version int       `toml:"nucleus_learn"`
	Command []string  `toml:"command"`
	Arch    string    `toml:"arch"`
	UID     uint32    `toml:"uid"`
	GID     uint32    `toml:"gid"`
	Jobs    int       `toml:"jobs"`
	Began   time.Time `toml:"began"`
	Ended   time.Time `toml:"ended"`
	End     string    `toml:"end"`
	Kept    []string  `toml:"kept_capabilities"`
	Lost    int       `toml:"lost"`

	Refused []struct {
		Call, Object, Errno, By, Why, First string
		Count                               int
	} `toml:"refused"`
	Calls []struct {
		Name, First string
		Count       int
		Values      [][]uint64
	} `toml:"call"`
	Paths []struct {
		Path, Kind, For, First string
		Access                 []string
		Made, Below            bool
		Count                  int
	} `toml:"path"`
	Nets []struct {
		Call, Address, First string
		Count                int
	} `toml:"net"`
	Caps []struct {
		Name, Call, First string
		Inferred          bool
		Count             int
	} `toml:"capability"`
}

// ParseRecord reads a learning record, as strictly as a policy: one that was
// changed by hand must still say what a policy can be made from.
func ParseRecord(name string, data []byte) (*learn.Record, error) {
	if !bytes.HasPrefix(data, []byte(learn.Mark)) {
		return nil, fmt.Errorf("%s: it is no learning record: it does not begin with %q", name, learn.Mark)
	}
	d := document{name, data}
	var f recordForm
	if err := d.decode(&f); err != nil {
		return nil, err
	}
	if f.Version != learn.Version {
		return nil, fmt.Errorf("%s: it is a learning record of version %d, and %d is what is known here", name, f.Version, learn.Version)
	}
	r := learn.New(learn.Job{Command: f.Command, UID: f.UID, GID: f.GID, Began: f.Began, Ended: f.Ended, End: f.End})
	r.Jobs, r.Lost = f.Jobs, f.Lost
	var err error
	if r.Arch, err = seccomp.ParseArch(f.Arch); err != nil {
		return nil, d.value(f.Arch, err)
	}
	for _, name := range f.Kept {
		c, err := caps.ParseCap(name)
		if err != nil {
			return nil, d.value(name, err)
		}
		r.Held = r.Held.With(c)
	}
	return r, d.record(f, r)
}

// record reads the tables.
func (d document) record(f recordForm, r *learn.Record) error {
	for _, x := range f.Refused {
		r.Refusals = append(r.Refusals, learn.Refusal{Call: x.Call, Errno: x.Errno, By: x.By, Why: x.Why, Object: x.Object, Evidence: learn.Evidence{Count: x.Count, First: x.First}})
	}
	for i, c := range f.Calls {
		if !seccomp.Known(c.Name) {
			return d.element("call", i, fmt.Errorf("no system call is named %q", c.Name))
		}
		r.Calls = append(r.Calls, learn.Used{Name: c.Name, Values: c.Values, Evidence: learn.Evidence{Count: c.Count, First: c.First}})
	}
	for i, p := range f.Paths {
		if !path.IsAbs(p.Path) || path.Clean(p.Path) != p.Path {
			return d.element("path", i, fmt.Errorf("path %q is not absolute and clean", p.Path))
		}
		access, err := accessOf(p.Access)
		if err != nil {
			return d.element("path", i, err)
		}
		r.Paths = append(r.Paths, learn.Path{Path: p.Path, Kind: learn.Kind(p.Kind), Access: access, Made: p.Made, Below: p.Below, By: p.For, Evidence: learn.Evidence{Count: p.Count, First: p.First}})
	}
	for _, n := range f.Nets {
		r.Nets = append(r.Nets, learn.Net{Call: n.Call, Address: n.Address, Evidence: learn.Evidence{Count: n.Count, First: n.First}})
	}
	for i, c := range f.Caps {
		which, err := caps.ParseCap(c.Name)
		if err != nil {
			return d.element("capability", i, err)
		}
		r.Caps = append(r.Caps, learn.Cap{Cap: which, Call: c.Call, Evidence: learn.Evidence{Count: c.Count, First: c.First}})
	}
	return nil
}

// accessOf reads the words of a path in a record: rights, or ask, which needs none.
func accessOf(words []string) (a landlock.Access, err error) {
	for _, w := range words {
		if w == "ask" {
			continue
		}
		right, err := landlock.ParseAccess(w)
		if err != nil || right == 0 {
			return 0, fmt.Errorf("no file right is named %q", w)
		}
		a |= right
	}
	return a, nil
}
