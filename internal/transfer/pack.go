package transfer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
)

// mostHoles is how much of a file may be holes for it to be put into an archive,
// where holes are zeros: a file of exabytes costs a sandbox nothing.
const mostHoles = 64 << 30

// archive is a sink that writes an archive.
type archive struct {
	c     *copier
	w     *tar.Writer
	links map[identity]string // files with several names, by the first of them
}

// pack writes what src names as an archive.
func (c *copier) pack(from *end, src string, out io.Writer) error {
	s, err := c.source(from, src)
	if err != nil {
		return err
	}
	defer s.close()
	a := &archive{c: c, w: tar.NewWriter(out), links: map[identity]string{}}
	w := &walk{c: c, from: from, to: a}
	if s.content {
		err = w.fill(s.node, "", 0)
	} else {
		err = w.copy(s.node, s.base, s.base, 0)
	}
	if err != nil {
		return err
	}
	return a.w.Close()
}

// header writes the head of an entry. Nothing in it is anything but the copied
// file's name, permissions and time: no owner, no device, no setuid.
func (a *archive) header(h tar.Header, n *node) error {
	h.Mode, h.ModTime = int64(a.c.mode(n.st.Mode)), modified(n)
	if err := a.w.WriteHeader(&h); err != nil {
		return &fatal{fmt.Errorf("write the archive: %w", err)}
	}
	return nil
}

func (a *archive) enter(_, rel string, n *node) error {
	return a.header(tar.Header{Typeflag: tar.TypeDir, Name: rel + "/"}, n)
}

func (a *archive) leave(*node) error { return nil }

func (a *archive) symlink(_, rel, target string, n *node) error {
	return a.header(tar.Header{Typeflag: tar.TypeSymlink, Name: rel, Linkname: target}, n)
}

func (a *archive) file(_, rel string, c *content) error {
	if c.st.Nlink > 1 {
		if first, ok := a.links[c.identity()]; ok {
			return a.header(tar.Header{Typeflag: tar.TypeLink, Name: rel, Linkname: first}, c.node)
		}
		a.links[c.identity()] = rel
	}
	if holes := c.st.Size - c.st.Blocks*512; holes > mostHoles {
		delete(a.links, c.identity())
		return fmt.Errorf("%d of its %d bytes are a hole, which an archive would be filled with; copy it as a file", holes, c.st.Size)
	}
	if err := a.header(tar.Header{Typeflag: tar.TypeReg, Name: rel, Size: c.st.Size}, c.node); err != nil {
		return err
	}
	at := int64(0)
	_, err := c.pour(func(b []byte, off int64) error {
		if err := a.zeros(off - at); err != nil {
			return err
		}
		at = off + int64(len(b))
		return a.write(b)
	})
	var all *fatal
	if errors.As(err, &all) || a.c.ctx.Err() != nil {
		return err
	}
	// What was announced must come, also of a file that cannot be read any more.
	if zerr := a.zeros(c.st.Size - at); zerr != nil {
		return zerr
	}
	return err
}

func (a *archive) write(b []byte) error {
	if _, err := a.w.Write(b); err != nil {
		return &fatal{fmt.Errorf("write the archive: %w", err)}
	}
	return nil
}

// zeros writes a hole.
func (a *archive) zeros(n int64) error {
	for block := (*[64 << 10]byte)(nil); n > 0; {
		if err := a.c.ctx.Err(); err != nil {
			return err
		}
		if block == nil {
			block = new([64 << 10]byte)
		}
		part := block[:min(n, int64(len(block)))]
		if err := a.write(part); err != nil {
			return err
		}
		n -= int64(len(part))
	}
	return nil
}
