package enter

import (
	"encoding/binary"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/child"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/policy/caps"
)

// System calls newer than the generic table's split have one number everywhere
// (Linux 5.2 and later).
const (
	sysOpenTree      = 428
	sysMoveMount     = 429
	sysFSOpen        = 430
	sysFSConfig      = 431
	sysFSMount       = 432
	sysCloseRange    = 436
	sysMountSetattr  = 442
	sysLandlockNew   = 444
	sysLandlockAdd   = 445
	sysLandlockApply = 446
)

// atFDCWD is AT_FDCWD (-100) as an argument.
const atFDCWD = ^uintptr(99)

// kindConsole is the message that carries the terminal's other end. It is below pid1's kinds.
const kindConsole = -4

// kindListener is the message that carries a filter's listener.
const kindListener = -9

// kindHeld is the message of a child that waits for what is read back about it.
const kindHeld = -10

// opInfo says what an operation is, for the words about its failure.
type opInfo struct {
	step int
	call string
}

// encoder lays out a plan's child steps. It knows what every descriptor of the
// child will be: the child's table is a private copy, everything not named is
// closed first, and the kernel always gives the lowest free number. The
// operations check it: a descriptor with another number is an error.
type encoder struct {
	*child.Arena
	info  []opInfo
	step  int
	used  map[int]bool    // descriptors of the child
	named map[plan.FD]int // host trees at first, then what the steps make
	stdio []int           // sources of descriptors 0, 1, 2, ...
	state int             // the status socket
	init  int             // process 1's image
	kept  []int           // more descriptors that stay: the exit's, and of the sandbox to join
	exit  int             // where a detached process 1 says the exit, or 0
	into  int             // pidfd of the sandbox to join
	argv  []string
	envv  []string
	edit  func(step, op int, o *child.Op)
	err   error
}

// op and its neighbours are not inlined: their callers would need stacks of
// several pages, which a start from a fresh process pays for.
//
//go:noinline
func (e *encoder) op(call string, nr uintptr, args ...uintptr) {
	o := child.Op{Nr: nr}
	copy(o.Arg[:], args)
	e.put(call, &o)
}

//go:noinline
func (e *encoder) put(call string, o *child.Op) {
	if e.edit != nil {
		e.edit(e.step, len(e.info), o)
	}
	e.info = append(e.info, opInfo{e.step, call})
	e.Op(*o)
}

// open adds an operation whose result is a descriptor, and returns its number.
//
//go:noinline
func (e *encoder) open(call string, nr uintptr, args ...uintptr) int {
	fd := 3
	for e.used[fd] {
		fd++
	}
	e.used[fd] = true
	o := child.Op{Nr: nr, Want: uintptr(fd)}
	copy(o.Arg[:], args)
	e.put(call, &o)
	return fd
}

func (e *encoder) close(fd int) {
	delete(e.used, fd)
	e.op("close", syscall.SYS_CLOSE, uintptr(fd))
}

func (e *encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
}

func (e *encoder) fd(name plan.FD) uintptr {
	fd, ok := e.named[name]
	if !ok {
		e.fail("this is a bug in nucleus: step %d uses descriptor %q before it exists", e.step, name)
	}
	return uintptr(fd)
}

func (e *encoder) words(v ...uint64) uintptr {
	b := make([]byte, 0, 8*len(v))
	for _, x := range v {
		b = binary.NativeEndian.AppendUint64(b, x)
	}
	return e.Data(b)
}

// encode adds the operations of one step.
func (e *encoder) encode(i int, a plan.Action) {
	e.step = i
	switch a := a.(type) {
	case plan.OpenTree, plan.SetAttr, plan.MoveMount, plan.NewMount, plan.MountFS, plan.Private, plan.PivotRoot, plan.Show, plan.Unmount:
		e.mount(a)
	case plan.Mkdir, plan.MakeLink, plan.Touch, plan.WriteFile, plan.CopyFile, plan.Chdir, plan.Umask:
		e.file(a)
	case plan.Securebits, plan.SetIDs, plan.KeepCaps, plan.DropBounding, plan.ClearAmbient, plan.DropCaps, plan.NoNewPrivs, plan.Landlock, plan.Rlimit, plan.Keyring:
		e.confine(a)
	case plan.NewSession, plan.Stdio, plan.CloseInherited, plan.Wait, plan.NewCgroupNS, plan.Hostname, plan.LoopbackUp, plan.OpenTerminal, plan.Lifeline, plan.Deadline, plan.JoinNamespaces, plan.Hold, plan.Listen, plan.ExecInit:
		e.process(a)
	default:
		e.fail("this is a bug in nucleus: no encoding for step %d, %T", i, a)
	}
}

func (e *encoder) mount(a plan.Action) {
	switch a := a.(type) {
	case plan.Private:
		e.op("mount", syscall.SYS_MOUNT, e.String("none"), e.String("/"), 0, abi.MSRec|abi.MSPrivate, 0)
	case plan.OpenTree:
		flags := uintptr(abi.OpenTreeNew | abi.AtNoFollow | syscall.O_CLOEXEC)
		if a.Recursive {
			flags |= abi.AtRecursive
		}
		e.named[a.As] = e.open("open_tree", sysOpenTree, atFDCWD, e.String(a.Source), flags)
	case plan.SetAttr:
		flags, at, path := uintptr(0), atFDCWD, e.String(a.Path)
		if a.FD != "" {
			flags, at = abi.AtEmptyPath, e.fd(a.FD)
		}
		if a.Recursive {
			flags |= abi.AtRecursive
		}
		e.op("mount_setattr", sysMountSetattr, at, path, flags, e.words(uint64(a.Attr), 0, 0, 0), 32)
	case plan.MoveMount:
		e.op("move_mount", sysMoveMount, e.fd(a.From), e.String(""), atFDCWD, e.String(a.To), abi.MoveMountFromEmpty)
	case plan.NewMount:
		fs := uintptr(e.open("fsopen", sysFSOpen, e.String(a.Type), abi.FSOpenCloexec))
		for _, kv := range a.Options {
			key, value, _ := cut(kv)
			e.op("fsconfig", sysFSConfig, fs, abi.FSConfigString, e.String(key), e.String(value), 0)
		}
		e.op("fsconfig", sysFSConfig, fs, abi.FSConfigCreate, 0, 0, 0)
		e.named[a.As] = e.open("fsmount", sysFSMount, fs, abi.FSMountCloexec, uintptr(a.Attr))
	case plan.MountFS:
		e.op("mount", syscall.SYS_MOUNT, e.String(a.Type), e.String(a.Target), e.String(a.Type), uintptr(a.Flags), e.String(a.Data))
	case plan.Show:
		fd := e.open("open_tree", sysOpenTree, atFDCWD, e.String(a.Source), uintptr(abi.OpenTreeNew|abi.AtNoFollow|syscall.O_CLOEXEC|abi.AtRecursive))
		e.op("move_mount", sysMoveMount, uintptr(fd), e.String(""), atFDCWD, e.String(a.Target), abi.MoveMountFromEmpty)
		e.close(fd)
	case plan.Unmount:
		e.op("umount2", syscall.SYS_UMOUNT2, e.String(a.Path), abi.MntDetach|abi.UmountNoFollow)
		e.op("rmdir", syscall.SYS_UNLINKAT, atFDCWD, e.String(a.Path), abi.AtRemoveDir)
	case plan.PivotRoot:
		dot := e.String(".")
		e.op("chdir", syscall.SYS_CHDIR, e.String(a.Path))
		e.op("pivot_root", syscall.SYS_PIVOT_ROOT, dot, dot)
		e.op("umount2", syscall.SYS_UMOUNT2, dot, abi.MntDetach)
		e.op("chdir", syscall.SYS_CHDIR, e.String("/"))
	}
}

func (e *encoder) file(a plan.Action) {
	switch a := a.(type) {
	case plan.Mkdir:
		e.op("mkdir", syscall.SYS_MKDIRAT, atFDCWD, e.String(a.Path), uintptr(a.Mode))
	case plan.MakeLink:
		e.op("symlink", syscall.SYS_SYMLINKAT, e.String(a.Target), atFDCWD, e.String(a.Path))
	case plan.Touch:
		e.op("mknod", syscall.SYS_MKNODAT, atFDCWD, e.String(a.Path), abi.ModeRegular|0o444, 0)
	case plan.WriteFile:
		e.write(a.Path, a.Mode, []byte(a.Data))
	case plan.CopyFile:
		content, err := kernel.ReadFile(a.Source, plan.MaxCopy)
		if err != nil {
			e.fail("read %s: %w", a.Source, err)
		}
		e.write(a.Path, 0o644, content)
	case plan.Chdir:
		e.op("chdir", syscall.SYS_CHDIR, e.String(a.Dir))
	case plan.Umask:
		e.op("umask", syscall.SYS_UMASK, uintptr(a.Mask))
	}
}

func (e *encoder) write(path string, mode uint32, data []byte) {
	fd := e.open("open", syscall.SYS_OPENAT, atFDCWD, e.String(path), syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY|syscall.O_CLOEXEC, uintptr(mode))
	if len(data) > 0 {
		e.put("write", &child.Op{Nr: syscall.SYS_WRITE, Arg: [6]uintptr{uintptr(fd), e.Data(data), uintptr(len(data))}, Want: uintptr(len(data))})
	}
	e.close(fd)
}

func (e *encoder) prctl(args ...uintptr) { e.op("prctl", syscall.SYS_PRCTL, args...) }

func (e *encoder) confine(a plan.Action) {
	switch a := a.(type) {
	case plan.Securebits:
		e.prctl(abi.PRSetSecurebits, abi.SecAll)
	case plan.SetIDs:
		switch {
		case a.See && !a.KeepGroups:
			e.op("setgroups", syscall.SYS_SETGROUPS, 1, e.Data(binary.NativeEndian.AppendUint32(nil, plan.SeeGroup)))
		case !a.KeepGroups:
			e.op("setgroups", syscall.SYS_SETGROUPS, 0, 0)
		}
		g, u := uintptr(a.GID), uintptr(a.UID)
		e.op("setresgid", syscall.SYS_SETRESGID, g, g, g)
		e.op("setresuid", syscall.SYS_SETRESUID, u, u, u)
	case plan.DropBounding:
		for c := range a.Last + 1 {
			if !a.Keep.Has(caps.Cap(c)) {
				e.prctl(abi.PRCapBSetDrop, uintptr(c))
			}
		}
	case plan.KeepCaps:
		e.capset(a.Held, a.Held, a.Inheritable)
		for _, c := range a.Ambient.Caps() {
			e.prctl(abi.PRCapAmbient, abi.PRCapAmbientUp, uintptr(c), 0, 0)
		}
	case plan.ClearAmbient:
		e.prctl(abi.PRCapAmbient, abi.PRCapAmbientNone)
	case plan.DropCaps:
		e.capset(a.Keep, a.Keep, a.Inheritable)
	case plan.NoNewPrivs:
		e.prctl(abi.PRSetNoNewPrivs, 1)
	case plan.Keyring:
		e.put("keyctl", &child.Op{Nr: syscall.SYS_KEYCTL, Arg: [6]uintptr{abi.KeyctlJoinSession}, Allow: uintptr(syscall.ENOSYS)})
	case plan.Rlimit:
		e.op("prlimit64", syscall.SYS_PRLIMIT64, 0, uintptr(a.Resource), e.words(a.Soft, a.Hard), 0)
	case plan.Landlock:
		e.landlock(a)
	}
}

// capset replaces three of the sets; what is ambient shrinks with them.
func (e *encoder) capset(effective, permitted, inheritable caps.Set) {
	const version3 = 0x20080522
	low := func(a, b caps.Set) uint64 { return uint64(uint32(a)) | uint64(uint32(b))<<32 }
	// struct __user_cap_data_struct[2]: three words of the low halves, then of the high ones.
	e.op("capset", syscall.SYS_CAPSET, e.words(version3),
		e.words(low(effective, permitted), low(inheritable, effective>>32), low(permitted>>32, inheritable>>32)))
}

func (e *encoder) process(a plan.Action) {
	state := uintptr(e.state)
	switch a := a.(type) {
	case plan.NewSession:
		e.op("setsid", syscall.SYS_SETSID)
	case plan.Stdio:
		for to, from := range e.stdio {
			if to == from {
				e.op("fcntl", syscall.SYS_FCNTL, uintptr(to), abi.FSetFD, 0)
				continue
			}
			e.op("dup3", syscall.SYS_DUP3, uintptr(from), uintptr(to), 0)
		}
	case plan.CloseInherited:
		e.closeInherited()
	case plan.Wait:
		// Nothing to write to: ask for the length of the message (MSG_TRUNC),
		// which is 0 when the parent is gone.
		e.put("recvfrom", &child.Op{Nr: syscall.SYS_RECVFROM, Arg: [6]uintptr{state, 0, 0, syscall.MSG_TRUNC}, Want: 1})
	case plan.NewCgroupNS:
		e.op("unshare", syscall.SYS_UNSHARE, abi.CloneNewCgroup)
	case plan.Hostname:
		e.op("sethostname", syscall.SYS_SETHOSTNAME, e.String(a.Name), uintptr(len(a.Name)))
	case plan.LoopbackUp:
		fd := e.open("socket", syscall.SYS_SOCKET, syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
		ifreq := make([]byte, 40)
		copy(ifreq, "lo")
		binary.NativeEndian.PutUint16(ifreq[16:], abi.IffUp|abi.IffRunning)
		e.op("ioctl", syscall.SYS_IOCTL, uintptr(fd), abi.SiocSIFFlags, e.Data(ifreq))
		e.close(fd)
	case plan.OpenTerminal:
		e.terminal()
	case plan.Lifeline:
		e.op("fcntl", syscall.SYS_FCNTL, state, abi.FSetFL, abi.OAsync|abi.OReadWrite)
	case plan.Deadline:
		after := max(a.After, time.Microsecond) // 0 would be none
		sec, usec := uint64(after/time.Second), uint64(after%time.Second/time.Microsecond)
		e.op("setitimer", syscall.SYS_SETITIMER, 0, e.words(0, 0, sec, usec), 0) // ITIMER_REAL, once
	case plan.JoinNamespaces:
		e.op("setns", sysSetns, uintptr(e.into), uintptr(a.Flags))
	case plan.Hold:
		kind := int32(kindHeld)
		e.put("sendto", &child.Op{Nr: syscall.SYS_SENDTO, Arg: [6]uintptr{state, e.Data(binary.NativeEndian.AppendUint64(nil, uint64(uint32(kind)))), 8, syscall.MSG_NOSIGNAL}, Want: 8})
		e.put("recvfrom", &child.Op{Nr: syscall.SYS_RECVFROM, Arg: [6]uintptr{state, 0, 0, syscall.MSG_TRUNC}, Want: 1})
	case plan.Listen:
		e.listen(a)
	case plan.ExecInit:
		e.op("close_range", sysCloseRange, uintptr(len(e.stdio)), uintptr(^uint32(0)), abi.CloseRangeExec)
		e.op("fcntl", syscall.SYS_FCNTL, state, abi.FSetFD, 0)
		if e.exit > 0 {
			e.op("fcntl", syscall.SYS_FCNTL, uintptr(e.exit), abi.FSetFD, 0)
		}
		e.op("execveat", syscallExecveat, uintptr(e.init), e.String(""), e.Strings(e.argv), e.Strings(e.envv), abi.AtEmptyPath)
	}
}

// closeInherited closes the gaps between the descriptors that the plan names.
func (e *encoder) closeInherited() {
	keep := append([]int{e.state, e.init}, e.kept...)
	for _, fd := range e.named {
		keep = append(keep, fd)
	}
	slices.Sort(keep)
	next := len(e.stdio)
	for _, fd := range keep {
		if fd > next {
			e.op("close_range", sysCloseRange, uintptr(next), uintptr(fd-1), 0)
		}
		next = fd + 1
	}
	e.op("close_range", sysCloseRange, uintptr(next), uintptr(^uint32(0)), 0)
	for _, fd := range keep {
		e.used[fd] = true
	}
	for fd := range len(e.stdio) {
		e.used[fd] = true
	}
}

// landlock opens each path in the finished root and restricts the thread. The
// rule's structure holds the descriptor, which is known beforehand.
func (e *encoder) landlock(a plan.Landlock) {
	r := a.Rules
	attr := r.Attr()
	rules := e.open("landlock_create_ruleset", sysLandlockNew, e.Data(attr), uintptr(len(attr)), 0)
	for _, rule := range r.Rules {
		fd := e.open("open "+rule.Path, syscall.SYS_OPENAT, atFDCWD, e.String(rule.Path), 0x200000|syscall.O_CLOEXEC) // O_PATH
		attr := abi.LandlockPathBeneathAttr(uint64(rule.Allow), int32(fd))
		e.op("landlock_add_rule "+rule.Path, sysLandlockAdd, uintptr(rules), abi.LandlockRulePathBeneath, e.Data(attr[:]), 0)
		e.close(fd)
	}
	for _, rule := range r.Ports {
		attr := abi.LandlockNetPortAttr(uint64(rule.Allow), rule.Port)
		e.op(fmt.Sprintf("landlock_add_rule port %d", rule.Port), sysLandlockAdd, uintptr(rules), abi.LandlockRuleNetPort, e.Data(attr[:]), 0)
	}
	e.op("landlock_restrict_self", sysLandlockApply, uintptr(rules), uintptr(a.Log))
	e.close(rules)
}

// terminal opens a terminal of the sandbox's own devpts, sends the end that
// the supervisor keeps through the status socket, and keeps the other.
func (e *encoder) terminal() {
	const rdwrNoctty = syscall.O_RDWR | syscall.O_NOCTTY
	m := e.open("open /dev/ptmx", syscall.SYS_OPENAT, atFDCWD, e.String("/dev/ptmx"), rdwrNoctty|syscall.O_CLOEXEC)
	e.op("ioctl TIOCSPTLCK", syscall.SYS_IOCTL, uintptr(m), abi.TiocSPTLock, e.words(0))
	s := e.open("ioctl TIOCGPTPEER", syscall.SYS_IOCTL, uintptr(m), abi.TiocGPTPeer, rdwrNoctty)
	e.pass(kindConsole, m)
	for to := range 3 {
		e.op("dup3", syscall.SYS_DUP3, uintptr(s), uintptr(to), 0)
	}
	e.close(s)
	e.close(m)
}

// pass sends a descriptor through the status socket.
func (e *encoder) pass(kind int32, fd int) {
	body := binary.NativeEndian.AppendUint32(nil, uint32(kind))
	body = binary.NativeEndian.AppendUint32(body, 0)
	iov := e.words(uint64(e.Data(body)), uint64(len(body)))
	control := e.words(20, uint64(syscall.SOL_SOCKET)|uint64(syscall.SCM_RIGHTS)<<32, uint64(fd)) // struct cmsghdr, little endian
	e.put("sendmsg", &child.Op{Nr: syscall.SYS_SENDMSG, Arg: [6]uintptr{uintptr(e.state), e.words(0, 0, uint64(iov), 1, uint64(control), 24, 0)}, Want: uintptr(len(body))})
}

// listen installs a filter whose listener goes to the supervisor, which from then
// on answers for what it left to it. What follows here are calls that no listener
// sees, but the last: executing process 1 may have to wait for it.
func (e *encoder) listen(a plan.Listen) {
	const setModeFilter = 1
	prog := make([]byte, 0, 8*len(a.Program.Insns))
	for _, i := range a.Program.Insns {
		prog = binary.NativeEndian.AppendUint16(prog, i.Code)
		prog = append(prog, i.JT, i.JF)
		prog = binary.NativeEndian.AppendUint32(prog, i.K)
	}
	fd := e.open("seccomp", sysSeccomp, setModeFilter, uintptr(a.Flags), e.words(uint64(len(a.Program.Insns)), uint64(e.Data(prog)))) // struct sock_fprog
	e.pass(kindListener, fd)
	e.close(fd)
}

func cut(kv string) (key, value string, ok bool) {
	for i := range kv {
		if kv[i] == '=' {
			return kv[:i], kv[i+1:], true
		}
	}
	return kv, "", false
}

// above returns fd, or a duplicate of it that is numbered min or more; dup says
// that the caller has one more descriptor to close.
func above(fd, min int) (n int, dup bool, err error) {
	if fd >= min {
		return fd, false, nil
	}
	d, err := kernel.DupAbove(fd, min)
	return int(d), true, err
}
