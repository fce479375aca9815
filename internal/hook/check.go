package hook

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/spec"
)

// maxLinks is how many symbolic links are followed (MAXSYMLINKS of the kernel).
const maxLinks = 40

// Check reports why a program must not be run as a hook by user uid. It must be
// an executable, regular file without the set-user-ID and set-group-ID bits. It,
// and every directory on the way to it, must belong to root or to that user, and
// must not be writable by anybody else: not even with the sticky bit of /tmp.
//
// An attacker would put a program of his own where a hook is expected. He could
// replace the file, any directory above it, or what a symbolic link leads
// through, so the way is walked as the kernel walks it, link by link, and each
// directory is judged when it is entered; a path is never judged by its text. An
// access control list cannot hide a writer: its mask shows as the group's bits.
func Check(h spec.Hook, uid int) error {
	p, err := find(h.Path, uid)
	if err != nil {
		return err
	}
	return p.file.Close()
}

// program is a file that has been found fit to run.
type program struct {
	file *os.File // opened with O_PATH
	path string   // its only name: no link in it
}

// name is what to execute, so that it is the file that was checked.
//
// For a program in machine code that is the descriptor itself. A script cannot be
// run that way: its interpreter opens what it is given by name, after the
// descriptor has been closed on exec; left open, the script would find
// /proc/self/fd/3 instead of itself in $0. It is run by the name without
// links, which the check has shown that only root and the user himself can
// change the meaning of.
func (p *program) name() (string, error) {
	fd := fmt.Sprintf("/proc/self/fd/%d", p.file.Fd())
	f, err := os.Open(fd)
	if errors.Is(err, os.ErrPermission) {
		return fd, nil // executable but not readable: no script
	}
	if err != nil {
		return "", err
	}
	var magic [4]byte
	_, err = io.ReadFull(f, magic[:])
	if err := errors.Join(ignoreEnd(err), f.Close()); err != nil {
		return "", err
	}
	if string(magic[:]) == "\x7fELF" {
		return fd, nil
	}
	return p.path, nil
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// find walks to the program and opens it.
func find(path string, uid int) (*program, error) {
	p, err := walk(path, uid)
	if err != nil {
		return nil, &Error{Path: path, Err: err}
	}
	return p, nil
}

func walk(path string, uid int) (_ *program, err error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("it is not an absolute path")
	}
	w := walker{uid: uid}
	defer func() { err = errors.Join(err, w.leave()) }()
	if err := w.enterRoot(); err != nil {
		return nil, err
	}
	w.push(path)
	for len(w.rest) > 0 {
		name := w.rest[0]
		w.rest = w.rest[1:]
		file, err := w.step(name)
		if err != nil {
			return nil, err
		}
		if file != nil {
			return &program{file, filepath.Join(w.path, name)}, nil
		}
	}
	return nil, fmt.Errorf("%s is a directory", w.path)
}

// walker is on its way.
type walker struct {
	uid   int
	dir   *os.File // the directory that was reached
	path  string   // its name, without links
	rest  []string // the names to come
	links int
}

func (w *walker) leave() error {
	if w.dir == nil {
		return nil
	}
	err := w.dir.Close()
	w.dir = nil
	return err
}

func (w *walker) enterRoot() error {
	root, err := os.OpenFile("/", kernel.PathOnly, 0)
	if err != nil {
		return err
	}
	return w.enter(root, "/")
}

// enter takes ownership of dir, and makes it the one that was reached.
func (w *walker) enter(dir *os.File, path string) error {
	err := w.leave()
	w.dir, w.path = dir, path
	st, e := dir.Stat()
	if e != nil {
		return errors.Join(err, e)
	}
	return errors.Join(err, w.judge(path, st))
}

// push puts the names of a path before those that are still to come.
func (w *walker) push(path string) {
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	w.rest = append(names, w.rest...)
}

// step goes through one name: into a directory, to where a link points, or to
// the program, which it returns.
func (w *walker) step(name string) (*os.File, error) {
	path := filepath.Join(w.path, name) // of "..": the directory above, because w.path has no links
	fd, err := syscall.Openat(int(w.dir.Fd()), name, kernel.PathOnly|kernel.NoFollow|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(fd), path)
	st, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	switch {
	case st.IsDir():
		return nil, w.enter(file, path)
	case st.Mode().Type() == os.ModeSymlink:
		return nil, errors.Join(file.Close(), w.follow(name, path))
	case len(w.rest) > 0:
		return nil, errors.Join(fmt.Errorf("%s is not a directory", path), file.Close())
	}
	if err := w.judgeProgram(path, st); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// follow goes where a link points to. Nobody but those that are trusted could
// have changed it since: its directory has been judged.
func (w *walker) follow(name, path string) error {
	if w.links++; w.links > maxLinks {
		return &os.PathError{Op: "follow", Path: path, Err: syscall.ELOOP}
	}
	target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d/%s", w.dir.Fd(), name))
	if err != nil {
		return err
	}
	w.push(target)
	if filepath.IsAbs(target) {
		return w.enterRoot()
	}
	return nil
}

func (w *walker) judgeProgram(path string, st os.FileInfo) error {
	switch mode := st.Mode(); {
	case !mode.IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case mode&(os.ModeSetuid|os.ModeSetgid) != 0:
		return fmt.Errorf("%s has the set-user-ID or set-group-ID bit: it would run as somebody else", path)
	case mode.Perm()&0o111 == 0:
		return fmt.Errorf("%s is not executable; chmod +x it", path)
	}
	return w.judge(path, st)
}

// judge says who but root and the user could change a file or directory.
func (w *walker) judge(path string, st os.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return fmt.Errorf("%s has no owner", path)
	case sys.Uid != 0 && int(sys.Uid) != w.uid && w.uid == 0:
		return fmt.Errorf("%s belongs to user %d, and must belong to root", path, sys.Uid)
	case sys.Uid != 0 && int(sys.Uid) != w.uid:
		return fmt.Errorf("%s belongs to user %d, and must belong to root or to user %d", path, sys.Uid, w.uid)
	case st.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("%s can be written to by everybody (mode %04o)", path, st.Mode().Perm())
	case st.Mode().Perm()&0o020 != 0:
		return fmt.Errorf("%s can be written to by group %d (mode %04o)", path, sys.Gid, st.Mode().Perm())
	}
	return nil
}
