// Package transfer copies files between a running sandbox and the host. The
// sandbox is the enemy of both: while its files are copied it may exchange a
// directory for a link, offer a pipe that never ends, a device, a file of
// exabytes, a tree without a bottom.
//
//	root, err := process.Root()
//	res, err := transfer.Out(ctx, root, "/tmp/result", ".", transfer.Options{UID: uid, GID: gid})
//
// Three things hold whatever it does. A path in the sandbox is resolved by the
// kernel, within the sandbox's root. A tree is walked by descriptors, and nothing
// that has a name is looked up again by it. And what is done in the sandbox is
// done with the rights of the sandbox's user and none of the caller's, so that
// copying can do nothing to a directory of the host that is mounted there which
// the sandbox could not do itself.
//
// Not its business: which sandbox, whether it runs, and words on a terminal.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Options say how to copy. The zero value acts as a root without capabilities
// in the sandbox.
type Options struct {
	// Archive keeps permissions and times as they are; otherwise permissions are
	// subject to the caller's umask. Never kept are owners, extended attributes,
	// and the bits setuid, setgid and sticky.
	Archive bool
	// UID and GID are the host's numbers of the sandbox's user, who does what is
	// done in the sandbox and owns what is made there. A caller without the right
	// to become others can only name itself.
	UID, GID uint32
	// MaxFiles bounds what is copied: a sandbox can make files faster than they
	// can be copied. Zero is DefaultMaxFiles.
	MaxFiles int64
	// Warn is told what failed, and Skip what is left out because it is no file:
	// one line each, with names quoted. Without Skip, Warn is told both.
	Warn, Skip func(string)
	// Progress is told how many bytes were copied so far.
	Progress func(bytes int64)

	weak weakness
}

// DefaultMaxFiles is the number of files that are copied unless Options say more.
const DefaultMaxFiles = 4 << 20

// maxDepth is how many directories may lie in each other. Each holds two
// descriptors while it is copied.
const maxDepth = 400

// weakness switches protections off. Only tests can, to show that they would
// see it.
type weakness uint

const (
	weakRoot  weakness = 1 << iota // paths in the sandbox are resolved from the host's root
	weakLinks                      // links below a directory are followed
	weakUser                       // the caller's rights hold in the sandbox
	weakKind                       // whatever has a name is opened and read
	weakMode                       // setuid, setgid and sticky are copied
	weakFS                         // every file system is one for files
	weakName                       // names in archives are believed, and copied as they come
)

// Result is what was copied.
type Result struct {
	Files   int64 // files, directories and links
	Bytes   int64
	Skipped int64 // what is no file: pipes, sockets, devices, other file systems
	Failed  int64 // what should have been copied and was not; Warn was told why
}

// Out copies a file or directory of the sandbox with the given root to the host,
// as the caller, with docker cp's rules for where it goes:
//
//	source      dst is a directory   dst does not exist            dst is a file
//	file        in it, by its name   dst, if its directory exists  replaced
//	directory   in it, by its name   dst, if its directory exists  error
//	dir/.       its content          the same                      error
//
// A link is copied as a link, and only followed where a slash follows it. If
// the context is done before the end, files that were copied whole stay.
func Out(ctx context.Context, root *os.File, src, dst string, o Options) (Result, error) {
	c := newCopier(ctx, o)
	err := c.between(root, func(box, host *end) error { return c.copy(box, src, host, dst) })
	return c.res, err
}

// In copies a file or directory of the host into the sandbox with the given
// root, by the same rules as Out.
func In(ctx context.Context, src string, root *os.File, dst string, o Options) (Result, error) {
	c := newCopier(ctx, o)
	err := c.between(root, func(box, host *end) error { return c.copy(host, src, box, dst) })
	return c.res, err
}

// OutTar writes a file or directory of the sandbox to w as an archive. Its names
// are relative, without "..", each there once, and never below a link. All
// belongs to user 0.
func OutTar(ctx context.Context, root *os.File, src string, w io.Writer, o Options) (Result, error) {
	c := newCopier(ctx, o)
	err := c.between(root, func(box, _ *end) error { return c.pack(box, src, w) })
	return c.res, err
}

// InTar unpacks an archive below an existing directory of the sandbox. Nothing
// in it can lead out of that directory. What is wrong with one of its entries
// fails that entry.
func InTar(ctx context.Context, r io.Reader, root *os.File, dst string, o Options) (Result, error) {
	c := newCopier(ctx, o)
	err := c.between(root, func(box, _ *end) error { return c.unpack(r, box, dst) })
	return c.res, err
}

// copier is one copy.
type copier struct {
	ctx  context.Context
	o    Options
	res  Result
	made *identity // the directory that is made first: it is not copied into itself
	away []identity
	buf  []byte
}

func newCopier(ctx context.Context, o Options) *copier {
	if o.MaxFiles == 0 {
		o.MaxFiles = DefaultMaxFiles
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.Skip == nil {
		o.Skip = o.Warn
	}
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	return &copier{ctx: ctx, o: o, buf: make([]byte, 1<<20)}
}

// between opens both ends, and closes them.
func (c *copier) between(root *os.File, f func(box, host *end) error) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	box, err := openSandbox(root, c.o)
	if err != nil {
		return err
	}
	defer box.close()
	for _, dir := range apart {
		if n, err := box.resolve(dir, kernel.PathOnly|kernel.NoFollow); err == nil {
			c.away = append(c.away, n.identity())
			n.close()
		}
	}
	return f(box, &end{root: kernel.None, weak: c.o.weak})
}

// apart are the directories of a sandbox that hold no files of anybody.
var apart = []string{"/proc", "/dev", "/sys"}

// copy copies from one end to the other.
func (c *copier) copy(from *end, src string, to *end, dst string) error {
	s, err := c.source(from, src)
	if err != nil {
		return err
	}
	defer s.close()
	p, err := to.destination(dst, s)
	if err != nil {
		return err
	}
	defer p.close()
	if to.inside() && c.isApart(p.node) {
		return fmt.Errorf("%s in the sandbox is no place for files", quote(dst))
	}
	t := &tree{c: c, to: to, stack: []level{{node: p.node}}, links: map[identity]link{}}
	w := &walk{c: c, from: from, to: t}
	defer t.close()
	if p.name == "" {
		if n := p.node.identity(); n == s.identity() {
			return fmt.Errorf("%s and %s are the same directory", quote(src), quote(dst))
		}
		id := p.node.identity()
		c.made = &id
		return w.fill(s.node, "", 0)
	}
	err = w.copy(s.node, p.name, p.name, 0)
	var all *fatal
	if err != nil && !errors.As(err, &all) && c.ctx.Err() == nil {
		err = fmt.Errorf("copy %s to %s: %w", quote(src), quote(dst), err)
	}
	return err
}

// source is what is to be copied.
type source struct {
	*node
	base    string // its name
	content bool   // not the directory, but what is in it
	path    string // as it was given, for words
}

// source finds what a path names.
func (c *copier) source(from *end, src string) (*source, error) {
	if src == "" {
		return nil, errors.New("the path is empty")
	}
	s := &source{path: src}
	full := path.Join("/", src)
	if !from.inside() {
		abs, err := filepath.Abs(src)
		if err != nil {
			return nil, err
		}
		full = abs
	}
	s.base = path.Base(full)
	s.content = s.base == "/" || src == "." || strings.HasSuffix(src, "/.")
	n, err := from.resolve(src, kernel.PathOnly|kernel.NoFollow)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", quote(src), from.where(), err)
	}
	s.node = n
	if (s.content || strings.HasSuffix(src, "/")) && !n.is(kernel.ModeDir) {
		n.close()
		return nil, fmt.Errorf("%s%s: %w", quote(src), from.where(), kernel.ENOTDIR)
	}
	if why := c.special(from, n); why != "" {
		n.close()
		return nil, fmt.Errorf("%s%s is %s, and cannot be copied", quote(src), from.where(), why)
	}
	return s, nil
}

// special says what a node is if it is neither file, directory nor link; "" if
// it is one of those.
func (c *copier) special(from *end, n *node) string {
	switch {
	case c.o.weak&weakKind != 0:
	case n.is(kernel.ModeDir), n.is(kernel.ModeRegular), n.is(kernel.ModeLink):
	default:
		return n.kind()
	}
	if !from.inside() || c.o.weak&weakFS != 0 {
		return ""
	}
	switch {
	case kernel.Unordinary(n.magic):
		return "part of a file system of the kernel's own"
	case n.is(kernel.ModeDir) && c.isApart(n):
		return "a directory of devices or of the kernel's own files"
	}
	return ""
}

func (c *copier) isApart(n *node) bool {
	if kernel.Unordinary(n.magic) {
		return true
	}
	for _, id := range c.away {
		if id == n.identity() {
			return true
		}
	}
	return false
}

// skip leaves something out that is no file.
func (c *copier) skip(name, what string) {
	c.res.Skipped++
	c.o.Skip(fmt.Sprintf("%s is left out: it is %s", quote(name), what))
}

// fail tells of an error that concerns one file, and returns one that concerns all.
func (c *copier) fail(name string, err error) error {
	if err == nil || c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	var all *fatal
	if errors.As(err, &all) {
		return err
	}
	if kernel.IsErrno(err, kernel.ENOSPC, kernel.EDQUOT, kernel.EMFILE, kernel.ENFILE) {
		return &fatal{fmt.Errorf("%s: %w", quote(name), err)}
	}
	c.res.Failed++
	c.o.Warn(fmt.Sprintf("%s: %v", quote(name), err))
	return nil
}

// fatal is an error after which nothing more can be copied.
type fatal struct{ error }

func (f *fatal) Unwrap() error { return f.error }

// count counts one more thing that was found.
func (c *copier) count() error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if c.res.Files+c.res.Skipped+c.res.Failed >= c.o.MaxFiles {
		return &fatal{fmt.Errorf("there are more than %d files", c.o.MaxFiles)}
	}
	return nil
}

// mode is the permissions that a copy gets.
func (c *copier) mode(mode uint32) uint32 {
	if c.o.weak&weakMode != 0 {
		return mode & 0o7777
	}
	return mode & 0o777
}

// quote makes a name harmless to print: the sandbox may have chosen it.
func quote(s string) string {
	const longest = 200
	if len(s) > longest {
		return strconv.Quote(s[:longest]) + "..."
	}
	return strconv.Quote(s)
}
