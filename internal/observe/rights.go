package observe

import (
	"encoding/binary"
	"path"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/policy/landlock"
)

// Flags that package syscall does not have on every architecture.
const (
	openPath      = 0x200000 // O_PATH
	openTemporary = 0x400000 // the bit of O_TMPFILE that is its own
	removeDir     = 0x200    // AT_REMOVEDIR

	flagsThatMatter = syscall.O_ACCMODE | syscall.O_CREAT | syscall.O_EXCL | syscall.O_TRUNC | syscall.O_DIRECTORY | syscall.O_NOFOLLOW | openPath | openTemporary
)

// rights fills in what a call needs over the files that it names, as Landlock
// counts it, and where those are. It looks at the files as they are now, before
// the call is answered.
func (r *Recorder) rights(c *Call) {
	if v := r.files(c.Pid); v != nil {
		v.rights(c)
	}
}

// needs is what a call itself needs: a learned policy is to allow cutting whatever is
// open for writing, and the kernel asks for that right when something is cut.
func (v *view) needs(c *Call) {
	v.rights(c)
	opens := strings.HasPrefix(c.Name, "open") || c.Name == "creat"
	if opens && (c.flags&syscall.O_TRUNC == 0 || c.At.Kind == Nothing) {
		c.Access &^= landlock.Truncate
	}
}

func (v *view) rights(c *Call) {
	switch c.Name {
	case "open", "openat", "openat2", "creat":
		v.open(c, c.flags)
	case "execve", "execveat":
		v.execute(c)
	case "truncate":
		v.use(c, landlock.Truncate, true)
	case "mkdir", "mkdirat":
		v.make(c, landlock.MakeDir)
	case "symlink", "symlinkat":
		v.make(c, landlock.MakeSym)
	case "mknod":
		v.make(c, nodeRight(c.Args[1]))
	case "mknodat":
		v.make(c, nodeRight(c.Args[2]))
	case "bind", "connect":
		v.socket(c)
	case "unlink":
		v.use(c, landlock.RemoveFile, false)
	case "rmdir":
		v.use(c, landlock.RemoveDir, false)
	case "unlinkat":
		right := landlock.RemoveFile
		if c.Args[2]&removeDir != 0 {
			right = landlock.RemoveDir
		}
		v.use(c, right, false)
	case "rename", "renameat", "renameat2", "link", "linkat":
		v.move(c, strings.HasPrefix(c.Name, "rename"))
	}
}

// openFlags are the flags of a call that opens a file.
func openFlags(c *Call) uint64 {
	switch c.Name {
	case "open":
		return c.Args[1]
	case "openat":
		return c.Args[2]
	case "creat":
		return syscall.O_WRONLY | syscall.O_CREAT | syscall.O_TRUNC
	default:
		return 0
	case "openat2":
	}
	var how [8]byte // openat2: the first word of struct open_how
	if n, err := kernel.ReadMemory(c.Pid, c.Args[2], how[:]); err != nil || n < len(how) {
		return openPath
	}
	return binary.NativeEndian.Uint64(how[:])
}

func (v *view) open(c *Call, flags uint64) {
	create := flags&syscall.O_CREAT != 0
	c.At = v.look(c.raw, flags&syscall.O_NOFOLLOW == 0 && !(create && flags&syscall.O_EXCL != 0))
	if flags&openPath != 0 || c.At.Kind == Nothing && !create {
		return
	}
	mode := flags & syscall.O_ACCMODE
	if mode != syscall.O_WRONLY {
		c.Access |= landlock.ReadFile
		if flags&openTemporary == 0 && (c.At.Kind == Dir || flags&syscall.O_DIRECTORY != 0) {
			c.Access = landlock.ReadDir
		}
	}
	if mode != syscall.O_RDONLY {
		c.Access |= landlock.Write // with Truncate, which the kernel remembers from now on for ftruncate
	}
	if flags&syscall.O_TRUNC != 0 {
		c.Access |= landlock.Truncate
	}
	if c.At.Kind == Nothing {
		c.Access |= landlock.MakeReg
	}
	c.blocked()
}

// blocked takes back what a mount does not allow, and says so.
func (c *Call) blocked() {
	const changes = landlock.Write | landlock.Create | landlock.Remove | landlock.MakeDevice | landlock.Refer
	switch {
	case c.Access&changes != 0 && c.At.ReadOnly:
		c.Access, c.Access2, c.Blocked = 0, 0, "EROFS"
	case c.Access&landlock.Execute != 0 && c.At.NoExec:
		c.Access, c.Blocked = 0, "EACCES"
	}
}

// use is about a file that must be there.
func (v *view) use(c *Call, right landlock.Access, follow bool) {
	if c.At = v.look(c.raw, follow); c.At.Kind != Nothing {
		c.Access = right
		c.blocked()
	}
}

// make is about a file that must not be there.
func (v *view) make(c *Call, right landlock.Access) {
	if c.At = v.look(c.raw, false); c.At.Kind == Nothing {
		c.Access = right
		c.blocked()
	}
}

func (v *view) execute(c *Call) {
	v.use(c, landlock.Execute|landlock.ReadFile, true)
	if c.Access != 0 {
		for _, name := range v.interpreters(c.raw) {
			if p := v.look(name, true); p.Kind == File {
				c.Interpreters = append(c.Interpreters, p.Real)
			}
		}
	}
}

// socket is about local sockets that have a name in the file system.
func (v *view) socket(c *Call) {
	if !strings.HasPrefix(c.Addr, "/") {
		return
	}
	c.Path, c.raw = c.Addr, c.Addr
	if c.Name == "bind" {
		v.make(c, landlock.MakeSock)
		return
	}
	v.use(c, landlock.ResolveUnix, true)
}

// move is about files that get another name, or one more.
func (v *view) move(c *Call, removes bool) {
	c.At, c.At2 = v.look(c.raw, false), v.look(c.raw2, false)
	if c.At.Kind == Nothing {
		return
	}
	c.Access2 = landlock.MakeReg
	switch c.At.Kind {
	case Dir:
		c.Access2 = landlock.MakeDir
	case Link:
		c.Access2 = landlock.MakeSym
	}
	remove := func(k Kind) landlock.Access {
		switch k {
		case Nothing:
			return 0
		case Dir:
			return landlock.RemoveDir
		}
		return landlock.RemoveFile
	}
	if removes {
		c.Access = remove(c.At.Kind)
		c.Access2 |= remove(c.At2.Kind)
	}
	if path.Dir(c.At.Real) != path.Dir(c.At2.Real) {
		c.Access |= landlock.Refer
		c.Access2 |= landlock.Refer
	}
	c.blocked()
}

// nodeRight is the right to make a file of a mode.
func nodeRight(mode uint64) landlock.Access {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFIFO:
		return landlock.MakeFifo
	case syscall.S_IFSOCK:
		return landlock.MakeSock
	case syscall.S_IFCHR:
		return landlock.MakeChar
	case syscall.S_IFBLK:
		return landlock.MakeBlock
	}
	return landlock.MakeReg
}
