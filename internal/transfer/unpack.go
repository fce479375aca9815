package transfer

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// unpacker puts the entries of an archive below a directory. Who made the
// archive is not known: its names may lead upwards, or below a link that an
// earlier entry made. Each is resolved from the directory again, without going up
// and without following any link.
type unpacker struct {
	*tree
	late []lateDir
}

// lateDir is a directory whose mode and time are set when all is unpacked: it
// may be one that its owner cannot write.
type lateDir struct {
	name string
	id   identity
	mode uint32
	when time.Time
	made bool
}

func (c *copier) unpack(in io.Reader, to *end, dst string) error {
	if dst == "" {
		return errors.New("the path of the destination is empty")
	}
	n, err := to.resolve(dst, kernel.PathOnly|kernel.Directory)
	if err != nil {
		return fmt.Errorf("%s%s: %w", quote(dst), to.where(), err)
	}
	defer n.close()
	if c.isApart(n) {
		return fmt.Errorf("%s in the sandbox is no place for files", quote(dst))
	}
	u := &unpacker{tree: &tree{c: c, to: to, stack: []level{{node: n}}}}
	r := tar.NewReader(bufio.NewReaderSize(in, len(c.buf)))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return errors.Join(fmt.Errorf("read the archive: %w", err), u.finishAll())
		}
		if err := c.count(); err != nil {
			return err
		}
		if err := c.fail(h.Name, u.entry(h, r)); err != nil {
			return err
		}
	}
	return u.finishAll()
}

// errName is an entry's name that leads out of the archive.
var errName = errors.New("its name leads out of the archive")

// local makes a name relative. An absolute name loses its slash, as in tar(1);
// one that goes up is refused.
func (u *unpacker) local(name string) (string, error) {
	if u.c.o.weak&weakName != 0 {
		return name, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errName
		}
	}
	return path.Clean(strings.TrimLeft(name, "/")), nil
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name, err := u.local(h.Name)
	if err != nil {
		return err
	}
	mode := u.c.mode(uint32(h.Mode))
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		u.c.skip(h.Name, "a device or a pipe")
		return nil
	default:
		u.c.skip(h.Name, fmt.Sprintf("of the unknown kind %q", h.Typeflag))
		return nil
	}
	if name == "." {
		if h.Typeflag == tar.TypeDir { // the directory itself, which is there
			return nil
		}
		return errName
	}
	dir, err := u.parent(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.close()
	base := path.Base(name)
	switch h.Typeflag {
	case tar.TypeDir:
		err = u.dir(dir, base, name, mode, h.ModTime)
	case tar.TypeSymlink:
		err = u.link(dir.fd, base, h.Linkname, h.ModTime)
	case tar.TypeLink:
		err = u.hardlink(dir, base, h.Linkname)
	default:
		_, err = u.put(dir.fd, base, mode, h.ModTime, func(fd kernel.FD) error { return u.fill(fd, r) })
	}
	if err == nil {
		u.c.res.Files++
	}
	return err
}

// fill writes an entry's content.
func (u *unpacker) fill(fd kernel.FD, r io.Reader) error {
	for off := int64(0); ; {
		if err := u.c.ctx.Err(); err != nil {
			return err
		}
		n, rerr := r.Read(u.c.buf)
		if n > 0 {
			if err := u.to.do(func() error { return kernel.WriteAt(fd, u.c.buf[:n], off) }); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			off += int64(n)
			u.c.res.Bytes += int64(n)
			u.c.o.Progress(u.c.res.Bytes)
		}
		if rerr == io.EOF {
			return nil
		}
		if rerr != nil {
			return &fatal{fmt.Errorf("read the archive: %w", rerr)}
		}
	}
}

// parent opens the directory of an entry, and makes what is missing of it.
func (u *unpacker) parent(name string) (*node, error) {
	top := u.stack[0].fd
	open := func(name string) (*node, error) {
		fd, err := u.to.open(top, name, kernel.PathOnly|kernel.Directory, 0)
		if err != nil {
			return nil, err
		}
		return hold(fd)
	}
	n, err := open(name)
	if !errors.Is(err, os.ErrNotExist) || name == "." {
		if err != nil {
			err = fmt.Errorf("its directory: %w", err)
		}
		return n, err
	}
	above, err := u.parent(path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer above.close()
	l, err := u.directory(above.fd, path.Base(name), 0o755)
	if err != nil {
		return nil, err
	}
	return l.node, nil
}

func (u *unpacker) dir(dir *node, base, name string, mode uint32, when time.Time) error {
	l, err := u.directory(dir.fd, base, mode)
	if err != nil {
		return err
	}
	u.late = append(u.late, lateDir{name: name, id: l.identity(), mode: l.mode, when: when, made: l.made})
	l.close()
	return nil
}

// hardlink gives a file below the directory one more name.
func (u *unpacker) hardlink(dir *node, base, target string) error {
	to, err := u.local(target)
	if err != nil {
		return err
	}
	n, err := u.to.look(u.stack[0].fd, to)
	if err != nil {
		return fmt.Errorf("the file that it is a link of: %w", err)
	}
	defer n.close()
	if !n.is(kernel.ModeRegular) {
		return errors.New("it is a link of something that is not a file")
	}
	tmp := temporary()
	if err := u.to.do(func() error { return kernel.AddName(n.fd, dir.fd, tmp) }); err != nil {
		return fmt.Errorf("link%s: %w", u.to.where(), err)
	}
	return errors.Join(u.to.do(func() error { return kernel.Rename(dir.fd, tmp, base) }), u.drop(dir.fd, tmp))
}

// finishAll sets modes and times of directories, the deepest first.
func (u *unpacker) finishAll() error {
	for i := len(u.late) - 1; i >= 0; i-- {
		d := u.late[i]
		n, err := u.to.look(u.stack[0].fd, d.name)
		if err == nil && n.identity() == d.id {
			l := &level{node: n, made: d.made, mode: d.mode}
			err = u.to.do(func() error { return u.finish(l, d.when) })
		}
		if err == nil {
			n.close()
		}
		if err := u.c.fail(d.name, err); err != nil {
			return err
		}
	}
	return nil
}
