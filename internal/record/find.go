package record

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// minPrefix is how much of an id has to be given.
const minPrefix = 2

// Find returns the sandbox that ref is the name, the id or the beginning of the
// id of, in this order.
//
// ref may come from anybody. Nothing is looked up in the file system before it
// is known to be a name or hexadecimal digits: neither has a slash or begins
// with a dot.
func (d *Dir) Find(ref string) (*Entry, error) {
	if checkName(ref) == nil {
		if id := d.holder(ref); id != "" {
			return d.entry(id), nil
		}
	}
	if validID(ref) && d.entry(ref).there() {
		return d.entry(ref), nil
	}
	if len(ref) < minPrefix || len(ref) >= idLen || !isHex(ref) {
		return nil, fail(ErrNotFound, "no sandbox %.64q; nucleus ps -a lists them", ref)
	}
	ids, err := d.ids()
	if err != nil {
		return nil, err
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !strings.HasPrefix(id, ref) })
	switch len(ids) {
	case 0:
		return nil, fail(ErrNotFound, "no sandbox %q; nucleus ps -a lists them", ref)
	case 1:
		return d.entry(ids[0]), nil
	}
	return nil, d.ambiguous(ref, ids)
}

// ambiguous names the candidates, as far as they fit on a line or two.
func (d *Dir) ambiguous(ref string, ids []string) error {
	const most = 8
	slices.Sort(ids)
	var list []string
	for _, id := range ids[:min(len(ids), most)] {
		if c, err := d.entry(id).Config(); err == nil && c.Name != "" {
			id += " (" + c.Name + ")"
		}
		list = append(list, id)
	}
	if len(ids) > most {
		list = append(list, fmt.Sprintf("and %d more", len(ids)-most))
	}
	return fail(ErrAmbiguous, "%q is the beginning of more than one id: %s", ref, strings.Join(list, ", "))
}

// ids are the ids of all sandboxes, in no order.
func (d *Dir) ids() ([]string, error) {
	names, err := readDir(d.sandboxes())
	return slices.DeleteFunc(names, func(name string) bool { return !validID(name) }), err
}

// readDir is the names in a directory, in no order.
func readDir(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

// List returns all sandboxes, the oldest first.
func (d *Dir) List() ([]*Entry, error) {
	ids, err := d.ids()
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	all := make([]*Entry, 0, len(ids))
	made := make(map[string]time.Time, len(ids))
	for _, id := range ids {
		e := d.entry(id)
		if t, ok := e.made(); ok {
			all, made[id] = append(all, e), t
		}
	}
	slices.SortFunc(all, func(a, b *Entry) int { return older(made[a.id], made[b.id], a.id, b.id) })
	return all, nil
}

// made is when the sandbox was made; false if it is gone.
func (e *Entry) made() (time.Time, bool) {
	var st kernel.Stat
	if kernel.Lstat(e.Path(lockFile), &st) != nil && (kernel.Lstat(e.Path(""), &st) != nil || !e.there()) {
		return time.Time{}, false
	}
	return time.Unix(st.Mtim.Unix()).UTC(), true
}

func older(a, b time.Time, idA, idB string) int {
	if c := a.Compare(b); c != 0 {
		return c
	}
	return strings.Compare(idA, idB)
}

// Loaded is a sandbox with what its files say. With Err, either may be nil.
type Loaded struct {
	Entry  *Entry
	Config *Config
	Record *Record
	Err    error
}

// Load reads all sandboxes, the oldest first. One that is removed meanwhile is
// left out; one whose files cannot be read has an Err.
func (d *Dir) Load() ([]Loaded, error) {
	ids, err := d.ids()
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	all := make([]Loaded, len(ids))
	made := make([]time.Time, len(ids))
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 1+len(ids)/64) {
		wait.Go(func() {
			var buf []byte
			for i := int(next.Add(1)) - 1; i < len(ids); i = int(next.Add(1)) - 1 {
				all[i], buf = d.entry(ids[i]).load(buf)
				made[i] = all[i].made()
			}
		})
	}
	wait.Wait()
	order := make([]int, 0, len(ids))
	for i := range all {
		if !errors.Is(all[i].Err, ErrNotFound) {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return older(made[a], made[b], ids[a], ids[b]) })
	sorted := make([]Loaded, len(order))
	for to, from := range order {
		sorted[to] = all[from]
	}
	return sorted, nil
}

// load reads the sandbox's files. It returns the buffer that it used.
func (e *Entry) load(buf []byte) (Loaded, []byte) {
	l := Loaded{Entry: e}
	b, err := e.read(buf, configFile)
	if err == nil {
		buf = b
		l.Config, err = decodeConfig(e.id, e.Path(configFile), b)
	}
	if l.Err = err; errors.Is(err, ErrNotFound) {
		return l, buf
	}
	b, err = e.read(buf, recordFile)
	if err == nil {
		buf = b
		l.Record, err = decodeRecord(e.Path(recordFile), b)
	}
	if err != nil && (l.Err == nil || errors.Is(err, ErrNotFound)) {
		l.Err = err
	}
	return l, buf
}

func (l *Loaded) made() time.Time {
	if l.Config != nil {
		return l.Config.Created
	}
	t, _ := l.Entry.made()
	return t
}
