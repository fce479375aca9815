package observe

import (
	"errors"
	"path"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Place is what a path leads to at the moment of a call. It is asked for with a
// descriptor that opens nothing, below the sandbox's own root.
type Place struct {
	Real     string // the path, with symbolic links followed; empty: unknown
	Kind     Kind   // what is there
	ReadOnly bool   // on a mount that cannot be written to
	NoExec   bool   // on a mount from which nothing is executed
}

// Kind is the kind of a file.
type Kind string

// The kinds of files. Nothing is where no file is.
const (
	Nothing Kind = ""
	File    Kind = "file"
	Dir     Kind = "dir"
	Link    Kind = "link"
	Other   Kind = "other" // devices, pipes, sockets
)

// view looks at the files of a sandbox.
type view struct{ root kernel.FD }

// newView opens the root of a process.
func newView(pid int) (*view, error) {
	root, err := kernel.Open("/proc/"+strconv.Itoa(pid)+"/root", kernel.PathOnly, 0)
	if err != nil {
		return nil, err
	}
	return &view{root}, nil
}

// look says what is at an absolute path. Where nothing is, it says where it would be.
func (v *view) look(name string, follow bool) Place {
	if !path.IsAbs(name) {
		return Place{}
	}
	if name == "/proc" || strings.HasPrefix(name, "/proc/") {
		return Place{Real: name, Kind: Other} // its links mean each process something else
	}
	flags := kernel.PathOnly
	if !follow {
		flags |= kernel.NoFollow
	}
	p, err := v.place(name, flags)
	if err == nil || !kernel.NotExist(err) || name == "/" {
		return p
	}
	parent, base := path.Split(strings.TrimRight(name, "/"))
	dir, err := v.place(parent, kernel.PathOnly)
	if err != nil || base == "." || base == ".." {
		return Place{}
	}
	dir.Real, dir.Kind = path.Join(dir.Real, base), Nothing
	return dir
}

func (v *view) place(name string, flags int) (p Place, err error) {
	fd, err := kernel.OpenAt(v.root, "."+name, flags, 0, kernel.InRoot|kernel.NoMagicLinks)
	if err != nil {
		return Place{}, err
	}
	defer func() { _ = fd.Close() }() // it was only looked at
	st, err := kernel.FileStat(fd)
	if err != nil {
		return Place{}, err
	}
	p.Real, err = kernel.PathOf(fd)
	if err != nil || !path.IsAbs(p.Real) {
		return Place{}, errors.Join(err, errors.New("no path leads there"))
	}
	space, err := kernel.SpaceOf(fd)
	if err != nil {
		return Place{}, err
	}
	p.ReadOnly, p.NoExec = space.ReadOnly, space.NoExec
	switch st.Mode & kernel.ModeType {
	case kernel.ModeRegular:
		p.Kind = File
	case kernel.ModeDir:
		p.Kind = Dir
	case kernel.ModeLink:
		p.Kind = Link
	default:
		p.Kind, p.ReadOnly = Other, false // a device is written to wherever its name is
	}
	return p, nil
}

// head returns the beginning of a regular file.
func (v *view) head(name string, most int) []byte {
	at, err := kernel.OpenAt(v.root, "."+name, kernel.PathOnly, 0, kernel.InRoot|kernel.NoMagicLinks)
	if err != nil {
		return nil
	}
	defer func() { _ = at.Close() }() // as above
	if st, err := kernel.FileStat(at); err != nil || st.Mode&kernel.ModeType != kernel.ModeRegular {
		return nil // opening a pipe or device would do something
	}
	fd, err := kernel.Reopen(at, kernel.ReadOnly)
	if err != nil {
		return nil
	}
	defer func() { _ = fd.Close() }() // as above
	b := make([]byte, most)
	n, err := kernel.ReadAt(fd, b, 0)
	if err != nil {
		return nil
	}
	return b[:n]
}

// interpreters are the files that the kernel executes with a program: its
// loader, or what the first line of a script names, with the loader of that.
func (v *view) interpreters(name string) (all []string) {
	for range 5 { // the kernel's own bound for scripts
		b := v.head(name, 4096)
		loader := loaderOf(b)
		if loader == "" {
			loader = scriptOf(b)
		}
		if !path.IsAbs(loader) {
			return all
		}
		name = path.Clean(loader)
		all = append(all, name)
	}
	return all
}

// scriptOf is the interpreter of a script.
func scriptOf(b []byte) string {
	rest, ok := strings.CutPrefix(string(b[:min(len(b), 256)]), "#!")
	if !ok {
		return ""
	}
	line, _, _ := strings.Cut(rest, "\n")
	words := strings.Fields(line)
	if len(words) == 0 {
		return ""
	}
	return clean(words[0])
}

// loaderOf is the interpreter of an ELF program of 64 bits whose headers are at
// the beginning of the file.
func loaderOf(b []byte) string {
	const header, programHeader, interp = 64, 56, 3
	if len(b) < header || string(b[:4]) != "\x7fELF" || b[4] != 2 || b[5] != 1 {
		return ""
	}
	at, count := little(b[32:40]), little(b[56:58])
	for i := range min(count, 64) {
		start := at + i*programHeader
		if start > uint64(len(b)) || uint64(len(b))-start < programHeader {
			return ""
		}
		h := b[start : start+programHeader]
		if little(h[:4]) != interp {
			continue
		}
		off, size := little(h[8:16]), little(h[32:40])
		if off > uint64(len(b)) || size > uint64(len(b))-off {
			return ""
		}
		return clean(strings.TrimRight(string(b[off:off+size]), "\x00"))
	}
	return ""
}

// little reads a little-endian number.
func little(b []byte) (n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	return n
}

// seen is what explanations need of a place.
func (p Place) seen() Seen {
	if p.Real == "" {
		return Seen{}
	}
	return Seen{Asked: true, Exists: p.Kind != Nothing, Parent: true, Real: p.Real, ReadOnly: p.ReadOnly, NoExec: p.NoExec, Special: p.Kind == Other}
}
