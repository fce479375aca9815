package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Write writes one control file. In a scope that does not exist yet, the write
// happens in Add, before the process is let into the group.
func (g *Group) Write(controller, file, value string) error {
	if strings.Contains(file, "/") {
		return fmt.Errorf("write %s=%s: not the name of a control file", file, value)
	}
	if g.scope != nil && !g.scope.made {
		g.scope.later = append(g.scope.later, Write{controller, file, value})
		return nil
	}
	p := g.with(controller)
	if p == nil {
		return fmt.Errorf("write %s=%s: the group %s has no controller %s", file, value, g.name, controller)
	}
	return p.write(file, value)
}

// write writes a control file below the directory that we hold, so that nothing
// put in its place can be written to instead.
func (p *part) write(file, value string) error {
	return writeAt(int(p.dir.Fd()), p.Path, file, value)
}

// writeAt writes file below dirfd, which is the directory dir. A signal may
// interrupt the write, which then changed nothing: a limit of memory in v1 is
// refused so while a signal is pending, SA_RESTART or not (mem_cgroup_resize_max
// in mm/memcontrol-v1.c).
func writeAt(dirfd int, dir, file, value string) error {
	fd, err := openat(dirfd, file, syscall.O_WRONLY)
	if err == nil {
		_, err = syscall.Write(fd, []byte(value))
		for err == syscall.EINTR {
			_, err = syscall.Write(fd, []byte(value))
		}
		syscall.Close(fd)
	}
	if err == nil {
		return nil
	}
	path := filepath.Join(dir, file)
	return fmt.Errorf("write %s=%s in %s: %w", filepath.Base(path), value, filepath.Dir(path), err)
}

// writeFile is writeAt by path.
func writeFile(path, value string) error { return writeAt(atCWD, "", path, value) }

// atCWD is AT_FDCWD, which means for openat that the path says it all.
const atCWD = -100

// openat opens a control file. A signal may interrupt it: Go's preemption does.
func openat(dirfd int, file string, flags int) (int, error) {
	for {
		fd, err := syscall.Openat(dirfd, file, flags|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0)
		if err != syscall.EINTR {
			return fd, err
		}
	}
}

// read reads a control file whole.
func (p *part) read(file string) (string, error) {
	fd, err := openat(int(p.dir.Fd()), file, syscall.O_RDONLY)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: filepath.Join(p.Path, file), Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(p.Path, file))
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

// number reads a file that holds one number; "max" is the largest.
func (p *part) number(file string) (uint64, error) {
	s, err := p.read(file)
	if err != nil {
		return 0, err
	}
	if s == "max" {
		return ^uint64(0), nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", filepath.Join(p.Path, file), err)
	}
	return n, nil
}

// errNoKey is a file that lacks the line that was looked for.
var errNoKey = errors.New("no such line")

// keyed reads one line "key number" of a file.
func (p *part) keyed(file, key string) (uint64, error) {
	s, err := p.read(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(s) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == key {
			return strconv.ParseUint(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("read %s from %s: %w", key, filepath.Join(p.Path, file), errNoKey)
}
