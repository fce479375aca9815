package transfer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// end is one end of a copy: the host, where we are the caller, or the sandbox,
// where we are its user.
type end struct {
	root kernel.FD // of the sandbox; None: this is the host
	weak weakness
	work chan func()
	done chan struct{}
}

// openSandbox starts a thread with the rights of the sandbox's user.
func openSandbox(root *os.File, o Options) (*end, error) {
	e := &end{root: kernel.None, weak: o.weak, work: make(chan func()), done: make(chan struct{})}
	conn, err := root.SyscallConn()
	if err != nil {
		return nil, err
	}
	var st kernel.Stat
	if cerr := conn.Control(func(fd uintptr) {
		if e.root, err = kernel.DupAbove(int(fd), 3); err == nil {
			st, err = kernel.FileStat(e.root)
		}
	}); cerr != nil {
		return nil, cerr
	}
	if err == nil && st.Mode&kernel.ModeType != kernel.ModeDir {
		err = kernel.ENOTDIR
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the sandbox's root: %w", err), e.root.Close())
	}
	ready := make(chan error)
	go e.serve(o, ready)
	if err := <-ready; err != nil {
		<-e.done
		return nil, errors.Join(fmt.Errorf("act as user %d and group %d, the sandbox's: %w", o.UID, o.GID, err), e.root.Close())
	}
	return e, nil
}

// serve does what it is told on a thread with the rights of the sandbox's user.
func (e *end) serve(o Options, ready chan<- error) {
	runtime.LockOSThread()
	if kernel.ThreadID() == os.Getpid() {
		// The first thread cannot end before the program, and stands for all of it
		// in proc. While we hold it another thread is found.
		defer runtime.UnlockOSThread()
		go e.serve(o, ready)
		<-e.done
		return
	}
	// Never unlocked: the thread ends with the goroutine, and its rights with it.
	defer close(e.done)
	if o.weak&weakUser == 0 {
		if err := kernel.ActAs(o.UID, o.GID); err != nil {
			ready <- err
			return
		}
	}
	ready <- nil
	for f := range e.work {
		f()
	}
}

// inside reports whether this end is the sandbox.
func (e *end) inside() bool { return e.work != nil }

// where says which end it is, for words.
func (e *end) where() string {
	if e.inside() {
		return " in the sandbox"
	}
	return ""
}

// do calls f with the rights of this end.
func (e *end) do(f func() error) error {
	if !e.inside() {
		return f()
	}
	back := make(chan error)
	e.work <- func() { back <- f() }
	return <-back
}

func (e *end) close() {
	close(e.work)
	<-e.done
	_ = e.root.Close() // a directory: nothing can be lost
}

// identity is which file it is, whatever its name.
type identity struct{ dev, ino uint64 }

// node is something in a file system, held by a descriptor that opens nothing.
type node struct {
	fd    kernel.FD
	st    kernel.Stat
	magic int64 // of the file system
}

func (n *node) is(kind uint32) bool { return n.st.Mode&kernel.ModeType == kind }
func (n *node) identity() identity  { return identity{uint64(n.st.Dev), n.st.Ino} }
func (n *node) close()              { _ = n.fd.Close() } // nothing was written by it

func (n *node) kind() string {
	switch n.st.Mode & kernel.ModeType {
	case kernel.ModePipe:
		return "a named pipe"
	case kernel.ModeSocket:
		return "a socket"
	}
	return "a device"
}

// hold looks at what was opened with O_PATH. It takes over the descriptor.
func hold(fd kernel.FD) (*node, error) {
	n := &node{fd: fd}
	var err error
	if n.st, err = kernel.FileStat(fd); err == nil {
		n.magic, err = kernel.FileSystem(fd)
	}
	if err != nil {
		return nil, errors.Join(err, fd.Close())
	}
	return n, nil
}

// resolve finds what a path names that a person wrote. A sandbox that plants a
// link to /etc/shadow, or exchanges a directory for one while we look, leads us
// to its own /etc/shadow: the kernel resolves every part of the path as if the
// sandbox's root were ours, and refuses the links of proc, which lead anywhere.
func (e *end) resolve(name string, flags int) (n *node, err error) {
	err = e.do(func() error {
		var fd kernel.FD
		var err error
		if !e.inside() {
			fd, err = kernel.Open(name, flags, 0)
		} else {
			how := uint64(kernel.InRoot | kernel.NoMagicLinks)
			if e.weak&weakRoot != 0 {
				how = 0
			}
			if name = strings.TrimLeft(name, "/"); name == "" {
				name = "."
			}
			fd, err = kernel.OpenAt(e.root, name, flags, 0, how)
		}
		if err != nil {
			return err
		}
		n, err = hold(fd)
		return err
	})
	return n, err
}

// open opens a name in a directory, or a path below it that we made. No link is
// followed, be it the last part or on the way.
func (e *end) open(dir kernel.FD, name string, flags int, mode uint32) (fd kernel.FD, err error) {
	how := uint64(kernel.Beneath | kernel.NoSymlinks | kernel.NoMagicLinks)
	if flags |= kernel.NoFollow; e.weak&weakLinks != 0 {
		how, flags = 0, flags&^kernel.NoFollow
	}
	err = e.do(func() error {
		fd, err = kernel.OpenAt(dir, name, flags, mode, how)
		return err
	})
	return fd, err
}

// look finds what has a name in a directory.
func (e *end) look(dir kernel.FD, name string) (n *node, err error) {
	fd, err := e.open(dir, name, kernel.PathOnly, 0)
	if err != nil {
		return nil, err
	}
	return hold(fd)
}

// list opens a directory to read its names.
func (e *end) list(n *node) (fd kernel.FD, err error) {
	return e.open(n.fd, ".", kernel.ReadOnly|kernel.Directory, 0)
}

// read opens a file to read it. A pipe would wait for a writer and a device may
// do anything when it is opened, so this is for what is known to be a file, and
// opens that and nothing that has its name now. A file under a lease says EAGAIN
// rather than that we wait for its holder.
func (e *end) read(n *node) (fd kernel.FD, err error) {
	err = e.do(func() error {
		fd, err = kernel.Reopen(n.fd, kernel.ReadOnly|kernel.NonBlock|kernel.NoTTY)
		return err
	})
	return fd, err
}

// place is where a copy goes: a name in a directory, or without one the
// directory itself.
type place struct {
	*node
	name string
}

// destination finds the place that a path names for what is copied.
func (e *end) destination(dst string, s *source) (*place, error) {
	if dst == "" {
		return nil, errors.New("the path of the destination is empty")
	}
	isDir := s.is(kernel.ModeDir)
	bad := func(err error) error { return fmt.Errorf("%s%s: %w", quote(dst), e.where(), err) }
	n, err := e.resolve(dst, kernel.PathOnly)
	switch {
	case err == nil && n.is(kernel.ModeDir) && s.content:
		return &place{node: n}, nil
	case err == nil && n.is(kernel.ModeDir):
		return &place{node: n, name: s.base}, nil
	case err == nil:
		regular := n.is(kernel.ModeRegular)
		n.close()
		if isDir {
			return nil, fmt.Errorf("%s%s is not a directory, and %s is one", quote(dst), e.where(), quote(s.path))
		}
		if !regular {
			return nil, fmt.Errorf("%s%s is not a file, and is not replaced by one", quote(dst), e.where())
		}
	case !errors.Is(err, os.ErrNotExist):
		return nil, bad(err)
	case strings.HasSuffix(dst, "/") && !isDir:
		return nil, fmt.Errorf("the directory %s%s does not exist", quote(dst), e.where())
	}
	dir, name := path.Split(strings.TrimRight(dst, "/"))
	if name == "" || name == "." || name == ".." {
		return nil, bad(os.ErrNotExist)
	}
	if dir == "" {
		dir = "."
	}
	if n, err = e.resolve(dir, kernel.PathOnly|kernel.Directory); err != nil {
		return nil, fmt.Errorf("the directory of %s%s: %w", quote(dst), e.where(), err)
	}
	return &place{node: n, name: name}, nil
}
