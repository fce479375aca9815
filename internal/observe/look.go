package observe

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// process is the name of a thread (comm).
func process(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	name := clean(strings.TrimSuffix(string(b), "\n"))
	if strings.HasPrefix(name, "memfd:nucleus") { // it is about to execute the program
		return "nucleus"
	}
	return name
}

// Where the paths of a call are: descriptor of the directory (-1: the working
// directory) and path, twice.
type paths struct {
	dir, path       int
	dir2, path2     int
	change, execute bool
	flags           int // argument with the flags of open(2); 0: none
}

const none = -1

// pathsOf tells where a call's paths are.
func pathsOf(name string) (p paths, ok bool) {
	p = paths{dir: none, path: 0, dir2: none, path2: none}
	switch name {
	case "open":
		p.flags = 1
	case "openat":
		p.dir, p.path, p.flags = 0, 1, 2
	case "openat2", "newfstatat", "statx", "faccessat", "faccessat2", "readlinkat", "name_to_handle_at":
		p.dir, p.path = 0, 1
	case "execveat":
		p.dir, p.path, p.execute = 0, 1, true
	case "execve":
		p.execute = true
	case "stat", "lstat", "access", "readlink", "statfs", "chdir", "getxattr", "lgetxattr", "listxattr", "llistxattr", "inotify_add_watch":
	case "creat", "mkdir", "mknod", "rmdir", "unlink", "chmod", "chown", "lchown", "truncate", "utime", "utimes",
		"setxattr", "lsetxattr", "removexattr", "lremovexattr", "umount2", "chroot", "swapon", "swapoff", "acct":
		p.change = true
	case "mkdirat", "mknodat", "unlinkat", "fchmodat", "fchmodat2", "fchownat", "utimensat", "futimesat":
		p.dir, p.path, p.change = 0, 1, true
	case "rename", "link":
		p.path2, p.change = 1, true
	case "symlink", "mount":
		p.path, p.change = 1, true
	case "renameat", "renameat2", "linkat":
		p.dir, p.path, p.dir2, p.path2, p.change = 0, 1, 2, 3, true
	case "symlinkat":
		p.dir, p.path, p.change = 1, 2, true
	default:
		return p, false
	}
	if name == "inotify_add_watch" {
		p.path = 1
	}
	return p, true
}

// arguments reads what c's arguments lead to.
func arguments(c *Call) {
	switch c.Name {
	case "connect", "bind":
		c.Addr = address(c.Pid, c.Args[1], c.Args[2])
		return
	case "sendto":
		if c.Args[4] != 0 {
			c.Addr = address(c.Pid, c.Args[4], c.Args[5])
		}
		return
	}
	p, ok := pathsOf(c.Name)
	if !ok {
		return
	}
	c.raw = filePath(c, p.dir, p.path)
	c.Path = tidy(c.raw)
	if p.path2 != none {
		c.raw2 = filePath(c, p.dir2, p.path2)
		c.Second = tidy(c.raw2)
	}
	c.Change, c.Exec = p.change, p.execute
	if p.flags > 0 {
		c.Change = c.Args[p.flags]&(syscall.O_WRONLY|syscall.O_RDWR|syscall.O_CREAT|syscall.O_TRUNC) != 0
	}
}

// filePath is a path argument as an absolute path of the sandbox, as it was
// written: symbolic links and dots stay.
func filePath(c *Call, dir, arg int) string {
	name, ok := text(c.Pid, c.Args[arg])
	switch {
	case !ok, name == "": // unreadable, or a descriptor alone (AT_EMPTY_PATH)
		return ""
	case path.IsAbs(name):
		return name
	}
	link := "cwd"
	if dir != none && int32(c.Args[dir]) != atFDCWD {
		link = "fd/" + strconv.Itoa(int(int32(c.Args[dir])))
	}
	return absolute(c.Pid, link, name)
}

// absolute puts a process's directory before a path.
func absolute(pid int, link, name string) string {
	base, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/" + link)
	if err != nil || !path.IsAbs(base) {
		return name
	}
	return base + "/" + name
}

// tidy is a path without dots, harmless to print.
func tidy(name string) string {
	if name == "" {
		return ""
	}
	return clean(path.Clean(name))
}

const atFDCWD = -100

// pathMax is the longest path, with the zero byte (PATH_MAX).
const pathMax = 4096

// text reads a string of another process.
func text(pid int, at uint64) (string, bool) {
	const page = 4096
	var s []byte
	for len(s) < pathMax {
		b := make([]byte, min(256, int(page-at%page))) // a read stops at a page that is not there
		n, err := kernel.ReadMemory(pid, at, b)
		if err != nil || n == 0 {
			return "", false
		}
		if end := bytes.IndexByte(b[:n], 0); end >= 0 {
			return string(append(s, b[:end]...)), true
		}
		s, at = append(s, b[:n]...), at+uint64(n)
	}
	return "", false
}

// address reads a struct sockaddr.
func address(pid int, at, size uint64) string {
	b := make([]byte, min(size, 128))
	if len(b) < 2 {
		return ""
	}
	if n, err := kernel.ReadMemory(pid, at, b); err != nil || n < len(b) {
		return ""
	}
	port := func() uint16 { return binary.BigEndian.Uint16(b[2:]) }
	switch family := binary.NativeEndian.Uint16(b); {
	case family == syscall.AF_INET && len(b) >= 8:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port()).String()
	case family == syscall.AF_INET6 && len(b) >= 24:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), port()).String()
	case family == syscall.AF_UNIX && len(b) > 2 && b[2] == 0:
		return clean("@" + string(b[3:]))
	case family == syscall.AF_UNIX && len(b) > 2:
		name, _, _ := bytes.Cut(b[2:], []byte{0})
		if !path.IsAbs(string(name)) {
			return tidy(absolute(pid, "cwd", string(name)))
		}
		return tidy(string(name))
	}
	return ""
}

// clean makes text of a workload harmless to print.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u202e' || r == '\u2066' || r == '\u2067' || r == '\u2068' || r == '\u202d' || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
}
