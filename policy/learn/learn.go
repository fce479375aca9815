// Package learn holds what a program was seen to do in a sandbox, as a record
// that people can read, and makes the smallest policy from it under which the
// same job runs again. It is pure: who watches a program is package nucleus.
//
//	r := learn.New(learn.Job{Command: []string{"make"}, Arch: seccomp.AMD64})
//	r.Add(learn.Call{Name: "openat", Count: 3, Process: "cc1"})
//	p, notes := r.Policy()
//
// A record tells what happened, not what should: a program that was hostile while
// it was watched has made a record of that. What was refused was refused while
// learning too, and is never part of the policy.
package learn

import (
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Version is the version of the record's form.
const Version = 1

// Job is what was watched.
type Job struct {
	Command []string
	Arch    seccomp.Arch
	UID     uint32   // in the sandbox
	GID     uint32   // in the sandbox
	Held    caps.Set // capabilities that the sandbox's policy kept
	Began   time.Time
	Ended   time.Time
	End     string // how it ended, in words
}

// Call is a system call, or several that differ only in when they were made.
type Call struct {
	Name    string
	Count   int
	Process string // the first that made it
	Refused string // the errno with which the policy refused it; empty: it went on
	Rule    string // why it did
	Blocked string // the errno of a mount that does not allow it
	Words   []uint64
	Addr    string

	Path, Second Use
	Interpreters []string // files that the kernel executes with Path
}

// Use is what a call needs of a file.
type Use struct {
	Asked  string // the path as the program gave it, absolute
	Path   string // with links followed; empty: not known
	Kind   Kind
	Access landlock.Access
}

// Kind is the kind of a file. The zero value is none: it did not exist.
type Kind string

// The kinds of files.
const (
	File  Kind = "file"
	Dir   Kind = "dir"
	Link  Kind = "link"
	Other Kind = "other"
)

// Record is what was seen of a job. It is made by New or Parse.
type Record struct {
	Job
	Jobs     int // that it is about: more than one after Merge
	Lost     int // calls that were not remembered
	Calls    []Used
	Paths    []Path
	Nets     []Net
	Caps     []Cap
	Refusals []Refusal

	index map[string]int
}

// Evidence is how often something was seen and who did it first.
type Evidence struct {
	Count int
	First string
}

func (e *Evidence) add(o Evidence) {
	if e.Count == 0 || e.First == "" {
		e.First = o.First
	}
	e.Count += o.Count
}

// Used is a system call that went on, with the values of the arguments that say
// what kind of call it is.
type Used struct {
	Name string
	Evidence
	Values [][]uint64
}

// Path is a file that was used.
type Path struct {
	Path   string
	Kind   Kind
	Access landlock.Access // rights that it took; none: it was only asked about
	Made   bool            // it did not exist before
	Below  bool            // it stands for files beneath it
	By     string          // the program that it was executed for
	Evidence
}

// Net is an address that was connected to or bound.
type Net struct {
	Call, Address string
	Evidence
}

// Cap is a capability that a call needs if it is to succeed. That is inferred
// from the call: the kernel does not tell.
type Cap struct {
	Cap  caps.Cap
	Call string
	Evidence
}

// Refusal is something that was refused.
type Refusal struct {
	Call, Errno, By, Why, Object string // By: "policy" or "mount"
	Evidence
}

// New returns a record of nothing.
func New(j Job) *Record { return &Record{Job: j, Jobs: 1, index: map[string]int{}} }

// at returns the place of a thing in its list, and whether it is new there.
func (r *Record) at(next int, parts ...string) (int, bool) {
	if r.index == nil {
		r.reindex()
	}
	key := strings.Join(parts, "\x00")
	if i, ok := r.index[key]; ok {
		return i, false
	}
	r.index[key] = next
	return next, true
}

// Bounds of a record: a hostile program decides what is in it.
const (
	maxValues = 64
	maxList   = 20_000
)

// Add adds a call.
func (r *Record) Add(c Call) {
	e := Evidence{c.Count, c.Process}
	if c.Refused != "" || c.Blocked != "" {
		x := Refusal{Call: c.Name, Errno: c.Refused, By: "policy", Why: c.Rule, Object: object(&c), Evidence: e}
		if c.Blocked != "" {
			x.Errno, x.By, x.Why = c.Blocked, "mount", "the mount does not allow it"
		}
		r.refuse(x)
	}
	if c.Refused != "" {
		return
	}
	r.use(Used{Name: c.Name, Evidence: e, Values: values(c.Words)})
	r.infer(&c, e)
	if c.Addr != "" && (c.Name == "connect" || c.Name == "bind" || c.Name == "sendto") {
		r.net(Net{c.Name, c.Addr, e})
	}
	r.path(c.Path, "", e)
	r.path(c.Second, "", e)
	for _, name := range c.Interpreters {
		r.path(Use{Asked: name, Path: name, Kind: File, Access: landlock.Execute | landlock.ReadFile}, c.Path.Asked, e)
	}
}

func values(words []uint64) [][]uint64 {
	if len(words) == 0 {
		return nil
	}
	return [][]uint64{words}
}

// object is what a call was about.
func object(c *Call) string {
	if c.Path.Asked != "" {
		return c.Path.Asked
	}
	return c.Addr
}

func (r *Record) refuse(x Refusal) {
	if i, isNew := r.at(len(r.Refusals), "refusal", x.Call, x.Errno, x.By, x.Object); !isNew {
		if i < len(r.Refusals) {
			r.Refusals[i].add(x.Evidence)
		}
		return
	}
	r.keep(len(r.Refusals), func() { r.Refusals = append(r.Refusals, x) })
}

// keep adds to a list unless it is long enough.
func (r *Record) keep(length int, add func()) {
	if length >= maxList {
		r.Lost++
		return
	}
	add()
}

func (r *Record) use(u Used) {
	i, isNew := r.at(len(r.Calls), "call", u.Name)
	if isNew {
		r.Calls = append(r.Calls, u)
		return
	}
	r.Calls[i].add(u.Evidence)
	for _, v := range u.Values {
		known := slices.ContainsFunc(r.Calls[i].Values, func(w []uint64) bool { return slices.Equal(v, w) })
		if !known && len(r.Calls[i].Values) < maxValues {
			r.Calls[i].Values = append(r.Calls[i].Values, v)
		}
	}
}

func (r *Record) net(n Net) {
	if i, isNew := r.at(len(r.Nets), "net", n.Call, n.Address); !isNew {
		if i < len(r.Nets) {
			r.Nets[i].add(n.Evidence)
		}
		return
	}
	r.keep(len(r.Nets), func() { r.Nets = append(r.Nets, n) })
}

// made are the rights to make something in a directory.
const made = landlock.Create | landlock.MakeDevice

func (r *Record) path(u Use, by string, e Evidence) {
	name := u.Path
	if name == "" {
		name = u.Asked
	}
	if name == "" || name[0] != '/' {
		return
	}
	if plain := writable(name); plain != name { // a name that cannot be written down: its directory stands for it
		p := Path{Path: plain, Kind: Dir, Access: u.Access, Below: true, By: by, Evidence: e}
		r.addPath(p)
		return
	}
	r.addPath(Path{Path: name, Kind: u.Kind, Access: u.Access, Made: u.Access&made != 0, By: by, Evidence: e})
}

// writable is the part of a path that is text which can be shown.
func writable(name string) string {
	for p := name; ; p = path.Dir(p) {
		odd := func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }
		if !strings.ContainsFunc(p, odd) {
			return p
		}
	}
}

func (r *Record) addPath(p Path) {
	i, isNew := r.at(len(r.Paths), "path", p.Path)
	if isNew {
		r.keep(len(r.Paths), func() { r.Paths = append(r.Paths, p) })
		return
	}
	if i < len(r.Paths) {
		r.Paths[i].merge(p)
	}
}

func (p *Path) merge(o Path) {
	p.add(o.Evidence)
	p.Access |= o.Access
	p.Made = p.Made || o.Made
	p.Below = p.Below || o.Below
	if p.Kind == "" {
		p.Kind = o.Kind
	}
	if p.By == "" {
		p.By = o.By
	}
}

// reindex makes the index of a record that was read.
func (r *Record) reindex() {
	r.index = map[string]int{}
	for i, c := range r.Calls {
		r.index["call\x00"+c.Name] = i
	}
	for i, p := range r.Paths {
		r.index["path\x00"+p.Path] = i
	}
	for i, n := range r.Nets {
		r.index[strings.Join([]string{"net", n.Call, n.Address}, "\x00")] = i
	}
	for i, c := range r.Caps {
		r.index[strings.Join([]string{"cap", c.Cap.String(), c.Call}, "\x00")] = i
	}
	for i, x := range r.Refusals {
		r.index[strings.Join([]string{"refusal", x.Call, x.Errno, x.By, x.Object}, "\x00")] = i
	}
}

// Merge adds what another record of the same kind of machine holds.
func (r *Record) Merge(o *Record) {
	for _, u := range o.Calls {
		r.use(u)
	}
	for _, p := range o.Paths {
		r.addPath(p)
	}
	for _, n := range o.Nets {
		r.net(n)
	}
	for _, c := range o.Caps {
		r.needs(c)
	}
	for _, x := range o.Refusals {
		r.refuse(x)
	}
	r.Jobs, r.Lost, r.Held = r.Jobs+o.Jobs, r.Lost+o.Lost, r.Held|o.Held
	if o.Began.Before(r.Began) {
		r.Began = o.Began
	}
	if o.Ended.After(r.Ended) {
		r.Ended = o.Ended
	}
}
