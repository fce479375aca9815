package transfer

import (
	"errors"
	"fmt"
	"os"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// sink takes what a walk finds. A directory is entered, filled and left. Names
// are single parts of a path, rel the whole path from where the walk began.
type sink interface {
	enter(name, rel string, n *node) error
	leave(n *node) error
	file(name, rel string, c *content) error
	symlink(name, rel, target string, n *node) error
}

// walk goes through a tree by its descriptors.
type walk struct {
	c    *copier
	from *end
	to   sink
}

// copy copies one thing, and what is in it.
func (w *walk) copy(n *node, name, rel string, depth int) error {
	if err := w.c.count(); err != nil {
		return err
	}
	if why := w.c.special(w.from, n); why != "" {
		w.c.skip(rel, why)
		return nil
	}
	switch {
	case n.is(kernel.ModeDir):
		return w.directory(n, name, rel, depth)
	case n.is(kernel.ModeLink):
		target, err := kernel.LinkTarget(n.fd)
		if err != nil {
			return err
		}
		err = w.to.symlink(name, rel, target, n)
		return w.done(err)
	}
	fd, err := w.from.read(n)
	if err != nil {
		if errors.Is(err, kernel.EAGAIN) {
			err = errors.New("a program holds a lease on it, and would have to give it up first")
		}
		return fmt.Errorf("open%s: %w", w.from.where(), err)
	}
	err = w.to.file(name, rel, &content{c: w.c, from: w.from, fd: fd, node: n})
	return w.done(errors.Join(err, fd.Close()))
}

func (w *walk) done(err error) error {
	if err == nil {
		w.c.res.Files++
	}
	return err
}

func (w *walk) directory(n *node, name, rel string, depth int) error {
	switch {
	case w.c.made != nil && *w.c.made == n.identity():
		w.c.skip(rel, "where the copy is made")
		return nil
	case depth >= maxDepth:
		return fmt.Errorf("it lies in more than %d directories", maxDepth)
	}
	if err := w.to.enter(name, rel, n); err != nil {
		return err
	}
	err := w.fill(n, rel, depth+1)
	err = errors.Join(err, w.to.leave(n))
	return w.done(err)
}

// fill copies what is in a directory.
func (w *walk) fill(n *node, rel string, depth int) error {
	dir, err := w.from.list(n)
	if err != nil {
		return fmt.Errorf("open%s: %w", w.from.where(), err)
	}
	defer dir.Close()
	buf := make([]byte, 16<<10)
	// Who renames while we read can make a name come twice: first as a link,
	// then as a directory. Nothing of ours is led astray, but what unpacks our
	// archive could be.
	seen := map[string]bool{}
	for {
		var names []string
		err := w.from.do(func() (err error) { names, err = kernel.Names(dir, buf); return err })
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if !seen[name] || w.c.o.weak&weakName != 0 {
				seen[name] = true
				path := join(rel, name)
				if err := w.c.fail(path, w.visit(dir, name, path, depth)); err != nil {
					return err
				}
			}
		}
	}
}

func (w *walk) visit(dir kernel.FD, name, rel string, depth int) error {
	n, err := w.from.look(dir, name)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("it was removed while its directory was copied")
	}
	if err != nil {
		return err
	}
	defer n.close()
	return w.copy(n, name, rel, depth)
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// content is a file's, open for reading.
type content struct {
	c    *copier
	from *end
	fd   kernel.FD
	*node
}

// pour reads a file, hole by hole, and calls put with each part. It returns
// where the file ends. Of a file in the sandbox that grows meanwhile, as much is
// read as there was: it might grow forever.
func (s *content) pour(put func(b []byte, off int64) error) (size int64, err error) {
	size = s.st.Size
	for off := int64(0); off < size; {
		var start, end int64
		err := s.from.do(func() (err error) { start, end, err = kernel.Extent(s.fd, off, size); return err })
		if err != nil {
			return off, err
		}
		if off, err = s.part(start, end, put); err != nil {
			return off, err
		}
		if off < end {
			s.c.o.Warn(fmt.Sprintf("a file of %d bytes shrank to %d while it was copied", size, off))
			return off, nil
		}
	}
	if s.from.inside() {
		return size, nil
	}
	return s.part(size, maxSize, put) // it may have grown, or be one of proc that has no size
}

const maxSize = 1<<63 - 1

// part reads from off to end, or to the file's end.
func (s *content) part(off, end int64, put func(b []byte, off int64) error) (int64, error) {
	for off < end {
		if err := s.c.ctx.Err(); err != nil {
			return off, err
		}
		b := s.c.buf[:min(int64(len(s.c.buf)), end-off)]
		n := 0
		err := s.from.do(func() (err error) { n, err = kernel.ReadAt(s.fd, b, off); return err })
		if err != nil {
			return off, fmt.Errorf("read: %w", err)
		}
		if n == 0 {
			return off, nil
		}
		if err := put(b[:n], off); err != nil {
			return off, err
		}
		off += int64(n)
		s.c.res.Bytes += int64(n)
		s.c.o.Progress(s.c.res.Bytes)
	}
	return off, nil
}
