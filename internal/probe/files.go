package probe

import (
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// askFiles answers questions about files and mounts.
func askFiles(verb string, a []string) (string, bool) {
	switch verb {
	case "open":
		return open(word(a, 0), word(a, 1)), true
	case "read":
		return read(word(a, 0)), true
	case "readat": // a file below a directory that is open
		f, err := kernel.OpenAt(kernel.FD(number(word(a, 0))), word(a, 1), syscall.O_RDONLY|syscall.O_CLOEXEC, 0, 0)
		if err == nil {
			err = f.Close()
		}
		return verdict(err), true
	case "access": // bits of access(2)
		return verdict(kernel.MayAccess(word(a, 1), uint32(number(word(a, 0))))), true
	case "kind":
		info, err := os.Stat(word(a, 0))
		if err != nil {
			return verdict(err), true
		}
		return "ok:" + info.Mode().Type().String()[:1], true
	case "exists":
		_, err := os.Lstat(word(a, 0))
		return verdict(err), true
	case "readlink":
		return content(os.Readlink(word(a, 0))), true
	case "ls":
		return list(word(a, 0)), true
	case "mkdir":
		return verdict(syscall.Mkdir(word(a, 0), 0o755)), true
	case "chmod":
		return verdict(syscall.Chmod(word(a, 0), 0o600)), true
	case "mknod":
		return mknod(word(a, 0)), true
	case "fill":
		return fill(word(a, 0), int(number(word(a, 1)))), true
	case "mounts":
		return mounts(word(a, 0)), true
	}
	return "", false
}

func open(mode, path string) string {
	flags := map[string]int{
		"tmp": kernel.TmpFile | syscall.O_WRONLY, // leaves no trace
		"r":   syscall.O_RDONLY, "w": syscall.O_WRONLY, "rw": syscall.O_RDWR, "new": syscall.O_CREAT | syscall.O_EXCL | syscall.O_WRONLY,
	}[mode]
	fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0o644)
	if err == nil {
		err = syscall.Close(fd)
	}
	return verdict(err)
}

// read is the beginning of a file.
func read(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return verdict(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 16<<10))
	return content(strings.TrimSpace(string(b)), err)
}

func list(path string) string {
	entries, err := os.ReadDir(path)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return content(strings.Join(names, " "), err)
}

// mknod makes a null device, and removes it.
func mknod(path string) string {
	const null = 1<<8 | 3
	err := syscall.Mknod(path, syscall.S_IFCHR|0o666, null)
	if err == nil {
		err = os.Remove(path)
	}
	return verdict(err)
}

// fill writes so many MiB, and removes them.
func fill(path string, mib int) string {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return verdict(err)
	}
	block := make([]byte, 1<<20)
	for range mib {
		if _, err = f.Write(block); err != nil {
			break
		}
	}
	_ = f.Close() // what matters has been written, or not
	_ = os.Remove(path)
	return verdict(err)
}

// mount is a line of mountinfo.
type mount struct{ target, kind, options, tags string }

func readMounts() ([]mount, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []mount
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if len(f) < 6 || len(kind) < 1 {
			continue
		}
		all = append(all, mount{target: strings.ReplaceAll(f[4], `\040`, " "), kind: kind[0], options: f[5], tags: strings.Join(f[6:], " ")})
	}
	return all, nil
}

// mounts lists the mounts for which something is true: that they propagate, or
// that they lack an option, but for single devices and for covers of /proc.
func mounts(what string) string {
	all, err := readMounts()
	var found []string
	for _, m := range all {
		device := strings.HasPrefix(m.target, "/dev/") && m.kind != "tmpfs" && m.kind != "devpts"
		cover := strings.HasPrefix(m.target, "/proc/")
		var yes bool
		switch what {
		case "propagate":
			yes = strings.Contains(m.tags, "shared:") || strings.Contains(m.tags, "master:")
		case "all":
			yes = !device && !cover
		default: // without an option
			yes = !device && !cover && !slices.Contains(strings.Split(m.options, ","), what)
		}
		if yes {
			found = append(found, m.target)
		}
	}
	slices.Sort(found)
	return content(strings.Join(found, " "), err)
}
