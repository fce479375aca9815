package transfer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// tree is a sink that makes files below a directory. It holds a descriptor of
// each directory that it is in. A hostile tree may bring a link first and then,
// in a second copy, a directory of that name with a file in it: the directory is
// opened without following a link, so the file does not go where the link leads.
type tree struct {
	c     *copier
	to    *end
	stack []level
	links map[identity]link // files with several names, by what they were copied from
}

// level is a directory that is being filled.
type level struct {
	*node
	made bool
	mode uint32 // it gets when it is full
}

// link is a file that was copied, by its path below the first directory.
type link struct {
	rel string
	id  identity
}

func (t *tree) top() *level { return &t.stack[len(t.stack)-1] }

// close lets go of the directories below the first, which is the caller's.
func (t *tree) close() {
	for len(t.stack) > 1 {
		t.pop()
	}
}

func (t *tree) pop() {
	t.top().close()
	t.stack = t.stack[:len(t.stack)-1]
}

// enter makes a directory, or enters the one that there is.
func (t *tree) enter(name, _ string, n *node) error {
	l, err := t.directory(t.top().fd, name, t.c.mode(n.st.Mode))
	if err != nil {
		return err
	}
	if l.made && t.c.made == nil {
		id := l.identity()
		t.c.made = &id
	}
	t.stack = append(t.stack, *l)
	return nil
}

// directory makes a directory that its owner may fill, or finds it.
func (t *tree) directory(dir kernel.FD, name string, mode uint32) (*level, error) {
	l := &level{}
	err := t.to.do(func() error { return kernel.MakeDir(dir, name, mode|0o700) })
	if err != nil && !errors.Is(err, kernel.EEXIST) {
		return nil, fmt.Errorf("make the directory%s: %w", t.to.where(), err)
	}
	l.made = err == nil
	fd, err := t.to.open(dir, name, kernel.PathOnly|kernel.Directory, 0)
	if kernel.IsErrno(err, kernel.ENOTDIR, kernel.ELOOP) {
		return nil, fmt.Errorf("something is there%s that is not a directory", t.to.where())
	}
	if err == nil {
		l.node, err = hold(fd)
	}
	if err != nil {
		return nil, fmt.Errorf("open the directory%s: %w", t.to.where(), err)
	}
	if t.to.inside() && t.c.isApart(l.node) {
		l.close()
		return nil, errors.New("it is no place for files in the sandbox")
	}
	// What the umask left; a directory that is set-group-ID by inheritance stays so.
	l.mode = l.st.Mode & 0o7777 &^ (0o700 &^ mode)
	if t.c.o.Archive {
		l.mode = l.st.Mode&0o7000 | mode
	}
	return l, nil
}

// leave finishes a directory when it is full.
func (t *tree) leave(n *node) error {
	defer t.pop()
	return t.to.do(func() error { return t.finish(t.top(), modified(n)) })
}

// finish sets a directory's mode and time.
func (t *tree) finish(l *level, when time.Time) error {
	var errs []error
	if keep := t.c.o.Archive; (l.made || keep) && l.st.Mode&0o7777 != l.mode {
		errs = append(errs, kernel.SetMode(l.fd, l.mode))
	}
	if t.c.o.Archive {
		errs = append(errs, kernel.SetModified(l.fd, ".", when))
	}
	return errors.Join(errs...)
}

func modified(n *node) time.Time { return time.Unix(n.st.Mtim.Unix()) }

// file copies a file, or gives a copy of it one more name: else a hundred names
// for one file would make a hundred files.
func (t *tree) file(name, rel string, c *content) error {
	several := c.st.Nlink > 1
	if first, ok := t.links[c.identity()]; ok && several && t.again(first, name) {
		return nil
	}
	id, err := t.put(t.top().fd, name, t.c.mode(c.st.Mode), modified(c.node), func(fd kernel.FD) error {
		sparse := c.st.Blocks*512 < c.st.Size
		if sparse { // before it is read: where there is no room for it, that ends here
			if err := t.to.do(func() error { return kernel.SetSize(fd, c.st.Size) }); err != nil {
				return err
			}
		}
		last := int64(0)
		size, err := c.pour(func(b []byte, off int64) error {
			last = off + int64(len(b))
			return t.to.do(func() error { return kernel.WriteAt(fd, b, off) })
		})
		if err == nil && (sparse || last < size) {
			err = t.to.do(func() error { return kernel.SetSize(fd, size) })
		}
		return err
	})
	if err == nil && several {
		t.links[c.identity()] = link{rel, id}
	}
	return err
}

// put makes a file: under another name first, so that nobody ever finds half of
// it, and nothing is left of it if we do not come to an end.
func (t *tree) put(dir kernel.FD, name string, mode uint32, when time.Time, fill func(kernel.FD) error) (id identity, err error) {
	tmp := temporary()
	fd, err := t.to.open(dir, tmp, kernel.WriteOnly|kernel.Create|kernel.Exclusive, mode)
	if err != nil {
		return id, fmt.Errorf("create%s: %w", t.to.where(), err)
	}
	if err = fill(fd); err == nil {
		err = t.to.do(func() error {
			st, err := kernel.FileStat(fd)
			id = identity{uint64(st.Dev), st.Ino}
			if err == nil && t.c.o.Archive {
				err = kernel.SetMode(fd, mode)
			}
			return err
		})
	}
	if err = errors.Join(err, fd.Close()); err != nil {
		return id, errors.Join(err, t.drop(dir, tmp))
	}
	return id, t.rename(dir, tmp, name, when)
}

// rename gives what was made its name, in place of what has it, and its time.
func (t *tree) rename(dir kernel.FD, tmp, name string, when time.Time) error {
	err := t.to.do(func() error {
		if t.c.o.Archive {
			if err := kernel.SetModified(dir, tmp, when); err != nil {
				return err
			}
		}
		return kernel.Rename(dir, tmp, name)
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kernel.EISDIR):
		err = fmt.Errorf("a directory is there%s", t.to.where())
	case errors.Is(err, kernel.EBUSY):
		err = fmt.Errorf("it is mounted by itself%s and cannot be replaced: %w", t.to.where(), err)
	default:
		err = fmt.Errorf("rename%s: %w", t.to.where(), err)
	}
	return errors.Join(err, t.drop(dir, tmp))
}

// drop removes what has become of a temporary name.
func (t *tree) drop(dir kernel.FD, tmp string) error {
	err := t.to.do(func() error { return kernel.Unlink(dir, tmp) })
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// temporary is a name that nobody has.
func temporary() string { return ".nucleus-cp-" + strconv.FormatUint(rand.Uint64(), 36) }

// again gives a file that was copied one more name. It reports whether it could:
// not every file system can, and the file may have been moved away meanwhile.
func (t *tree) again(first link, name string) bool {
	n, err := t.to.look(t.stack[0].fd, first.rel)
	if err != nil {
		return false
	}
	defer n.close()
	if n.identity() != first.id {
		return false
	}
	dir, tmp := t.top().fd, temporary()
	err = t.to.do(func() error { return kernel.AddName(n.fd, dir, tmp) })
	if err != nil {
		return false
	}
	err = t.to.do(func() error { return kernel.Rename(dir, tmp, name) })
	// Two names of one file are not renamed into each other.
	return errors.Join(err, t.drop(dir, tmp)) == nil
}

// symlink makes a link, wherever it may lead: it is not followed here.
func (t *tree) symlink(name, _, target string, n *node) error {
	return t.link(t.top().fd, name, target, modified(n))
}

func (t *tree) link(dir kernel.FD, name, target string, when time.Time) error {
	tmp := temporary()
	if err := t.to.do(func() error { return kernel.MakeLink(target, dir, tmp) }); err != nil {
		return fmt.Errorf("make the link%s: %w", t.to.where(), err)
	}
	return t.rename(dir, tmp, name, when)
}
