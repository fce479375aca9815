package host

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/rootfs"
)

// maxEntries bounds the top of a root: each entry is a mount.
const maxEntries = 256

// Rootfs looks at the top of a directory that becomes a root, and at the parts
// of the Nix store that it names. Nothing in it is followed.
func Rootfs(h *facts.Host, source string) error {
	if h.Paths[source].Kind != facts.Dir {
		return fmt.Errorf("%s is not a directory", source)
	}
	dir, err := rootfs.Open(h.Paths[source].Real)
	if err != nil {
		return err
	}
	h.Rootfs = &facts.Rootfs{}
	h.Rootfs.Entries, err = entries(dir)
	if err == nil {
		h.Rootfs.Store, err = storeParts(dir)
	}
	if err = errors.Join(err, dir.Close()); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	return nil
}

// entries lists a directory.
func entries(dir kernel.FD) ([]facts.Entry, error) {
	d, err := kernel.Reopen(dir, kernel.ReadOnly|kernel.Directory)
	if err != nil {
		return nil, err
	}
	var out []facts.Entry
	buf := make([]byte, 16<<10)
	for err == nil {
		var names []string
		if names, err = kernel.Names(d, buf); len(names) == 0 {
			break
		}
		for _, name := range names {
			if strings.HasPrefix(name, rootfs.Reserved) {
				continue
			}
			var e facts.Entry
			if e, err = entryAt(d, name); err != nil {
				break
			}
			out = append(out, e)
		}
		if len(out) > maxEntries {
			err = fmt.Errorf("there are more than %d names at its top", maxEntries)
		}
	}
	slices.SortFunc(out, func(a, b facts.Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, errors.Join(err, d.Close())
}

// entryAt says what has a name in a directory.
func entryAt(dir kernel.FD, name string) (facts.Entry, error) {
	e := facts.Entry{Name: name, Kind: facts.Other}
	f, err := kernel.OpenAt(dir, name, kernel.PathOnly|kernel.NoFollow, 0, kernel.Beneath|kernel.NoSymlinks|kernel.NoMagicLinks)
	if err != nil {
		return e, fmt.Errorf("look at %q: %w", name, err)
	}
	st, err := kernel.FileStat(f)
	switch st.Mode & kernel.ModeType {
	case kernel.ModeDir:
		e.Kind = facts.Dir
	case kernel.ModeRegular:
		e.Kind = facts.File
	case kernel.ModeChar:
		e.Kind = facts.Device
	case kernel.ModeLink:
		e.Kind = facts.Symlink
		if err == nil {
			e.Target, err = kernel.LinkTarget(f)
		}
	}
	return e, errors.Join(err, f.Close())
}

// storeParts looks at the parts of the store that a root names.
func storeParts(dir kernel.FD) ([]facts.Entry, error) {
	names, err := rootfs.ReadStorePaths(dir)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	store, err := rootfs.Open(rootfs.Store)
	if err != nil {
		return nil, err
	}
	var out []facts.Entry
	for _, name := range names {
		e, lerr := entryAt(store, name)
		if lerr != nil {
			err = fmt.Errorf("%s, which %s names: %w", rootfs.Store, rootfs.StoreName, lerr)
			break
		}
		out = append(out, e)
	}
	return out, errors.Join(err, store.Close())
}
