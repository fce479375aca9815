package child

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// noCall is a number that no kernel gives to a system call.
const noCall = 0xffff

// outcome is what became of one child.
type outcome struct {
	report *Report // nil: it sent none
	status syscall.WaitStatus
}

// do starts a child with the given operations and waits for it.
func do(t testing.TB, flags uint64, ops ...Op) outcome {
	t.Helper()
	o, err := perform(flags, func(a *Arena) []Op { return ops })
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// perform is do for any goroutine; layout may put data into the arena.
func perform(flags uint64, layout func(*Arena) []Op) (o outcome, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return o, err
	}
	defer syscall.Close(fds[0])
	a, err := NewArena(64, 16<<10)
	if err != nil {
		return o, errors.Join(err, syscall.Close(fds[1]))
	}
	for _, op := range layout(a) {
		a.Op(op)
	}
	if a.Full() {
		return o, errors.Join(errors.New("the arena is full"), syscall.Close(fds[1]), a.Free())
	}
	if err := a.Seal(); err != nil {
		return o, errors.Join(err, syscall.Close(fds[1]), a.Free())
	}
	runtime.LockOSThread()
	p, errno := Start(a, How{Flags: flags}, fds[1], -1)
	runtime.UnlockOSThread()
	err = syscall.Close(fds[1])
	if errno != 0 {
		return o, errors.Join(fmt.Errorf("clone3: %w", errno), err, a.Free())
	}
	var b [16]byte
	n, readErr := syscall.Read(fds[0], b[:])
	_, waitErr := syscall.Wait4(p.Pid, &o.status, 0, nil)
	if n == ReportSize {
		o.report = &Report{int32(binary.NativeEndian.Uint32(b[:])), int32(binary.NativeEndian.Uint32(b[4:]))}
	} else if n != 0 {
		err = errors.Join(err, fmt.Errorf("a report of %d bytes", n))
	}
	return o, errors.Join(err, readErr, waitErr, syscall.Close(p.PidFD), a.Free())
}

func exit(code uintptr) Op { return Op{Nr: syscall.SYS_EXIT_GROUP, Arg: [6]uintptr{code}} }

func (o outcome) want(t *testing.T, report *Report, exit int) {
	t.Helper()
	if (o.report == nil) != (report == nil) || report != nil && *o.report != *report || !o.status.Exited() || o.status.ExitStatus() != exit {
		t.Errorf("got report %v and status %#x, want report %v and exit code %d", o.report, int(o.status), report, exit)
	}
}

func TestOperationsRun(t *testing.T) {
	do(t, 0, Op{Nr: syscall.SYS_GETPID}, Op{Nr: syscall.SYS_GETUID}, exit(42)).want(t, nil, 42)
}

func TestListWithoutExecEnds(t *testing.T) {
	do(t, 0, Op{Nr: syscall.SYS_GETPID}).want(t, nil, 125)
	do(t, 0).want(t, nil, 125)
}

// TestEveryOperationCanFail makes each of a list of operations fail in turn.
func TestEveryOperationCanFail(t *testing.T) {
	const n = 12
	for i := range n {
		ops := make([]Op, n)
		for j := range ops {
			ops[j] = Op{Nr: syscall.SYS_GETPID}
		}
		ops[i].Nr = noCall
		do(t, 0, append(ops, exit(0))...).want(t, &Report{int32(i), int32(syscall.ENOSYS)}, 125)
	}
}

func TestNothingRunsAfterAFailure(t *testing.T) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fds[0])
	defer syscall.Close(fds[1])
	write := func(a *Arena) Op {
		return Op{Nr: syscall.SYS_WRITE, Arg: [6]uintptr{uintptr(fds[1]), a.String("x"), 1}}
	}
	for _, tc := range []struct {
		name string
		nr   uintptr
		want int
	}{{"after a success", syscall.SYS_GETPID, 1}, {"after a failure", noCall, 0}} {
		_, err := perform(0, func(a *Arena) []Op { return []Op{{Nr: tc.nr}, write(a), exit(0)} })
		if err != nil {
			t.Fatal(err)
		}
		var b [8]byte
		if n, _ := syscall.Read(fds[0], b[:]); max(n, 0) != tc.want {
			t.Errorf("%s: the next operation wrote %d bytes, want %d", tc.name, max(n, 0), tc.want)
		}
	}
}

func TestWantAndAllow(t *testing.T) {
	uid := uintptr(os.Getuid())
	for _, tc := range []struct {
		name   string
		op     Op
		report *Report
	}{
		{"the result that is wanted", Op{Nr: syscall.SYS_GETPPID, Want: uintptr(os.Getpid())}, nil},
		{"another result", Op{Nr: syscall.SYS_GETPPID, Want: uintptr(os.Getpid()) + 1}, &Report{0, int32(syscall.EPIPE)}},
		{"any result", Op{Nr: syscall.SYS_GETUID}, nil},
		{"result 0 where one is wanted", Op{Nr: syscall.SYS_SETSID, Want: 1 << 30}, &Report{0, int32(syscall.EPIPE)}},
		{"the errno that is allowed", Op{Nr: noCall, Allow: uintptr(syscall.ENOSYS)}, nil},
		{"another errno", Op{Nr: noCall, Allow: uintptr(syscall.EPERM)}, &Report{0, int32(syscall.ENOSYS)}},
		{"an errno, although a result is wanted", Op{Nr: noCall, Want: uid + 1}, &Report{0, int32(syscall.ENOSYS)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code := 0
			if tc.report != nil {
				code = 125
			}
			do(t, 0, tc.op, exit(0)).want(t, tc.report, code)
		})
	}
}

// TestExec executes a program, and looks at the state that it begins in.
func TestExec(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Program("cat"))
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o, err := perform(0, func(a *Arena) []Op {
		return []Op{
			{Nr: syscall.SYS_DUP3, Arg: [6]uintptr{w.Fd(), 1, 0}, Want: 1},
			{Nr: syscall.SYS_EXECVE, Arg: [6]uintptr{a.String(cat), a.Strings([]string{"cat", "/proc/self/status"}), a.Strings([]string{"A=b"})}},
		}
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	o.want(t, nil, 0)
	var b [4096]byte
	n, _ := r.Read(b[:])
	for _, want := range []string{"SigCgt:\t0000000000000000", "SigBlk:\tfffffffffffbfeff"} {
		if !strings.Contains(string(b[:n]), want) {
			t.Errorf("got\n%s, want a line %q: no handler of ours, every signal blocked", b[:n], want)
		}
	}
}

func TestExecOfNothing(t *testing.T) {
	o, err := perform(0, func(a *Arena) []Op {
		return []Op{{Nr: syscall.SYS_EXECVE, Arg: [6]uintptr{a.String("/nonexistent"), a.Strings(nil), a.Strings(nil)}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	o.want(t, &Report{0, int32(syscall.ENOENT)}, 125)
}

func TestCloneFails(t *testing.T) {
	const cloneFS = 0x200 // together with a new mount namespace: refused
	_, err := perform(cloneFS|0x20000, func(*Arena) []Op { return []Op{exit(0)} })
	if !errors.Is(err, syscall.EINVAL) {
		t.Errorf("got %v, want %v", err, syscall.EINVAL)
	}
}

func TestNewNamespace(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	const user, pid = 0x10000000, 0x20000000
	do(t, user|pid, Op{Nr: syscall.SYS_GETPID, Want: 1}, exit(0)).want(t, nil, 0)
}

// TestSealed checks that no one can change what a child is about to do: the
// arena is read-only but for the stack, and a write to it faults.
func TestSealed(t *testing.T) {
	a, err := NewArena(4, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Free()
	a.Op(exit(0))
	at := a.String("data") - a.base()
	if got := permissions(t, a.base()+stackSize); got != "rw-p" {
		t.Errorf("before Seal: got %s, want rw-p", got)
	}
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		name string
		off  uintptr
		want string
	}{{"stack, first byte", 0, "rw-p"}, {"stack, last byte", stackSize - 1, "rw-p"}, {"operations", stackSize, "r--p"}, {"data", at, "r--p"}, {"end", uintptr(len(a.mem)) - 1, "r--p"}} {
		if got := permissions(t, a.base()+p.off); got != p.want {
			t.Errorf("%s: got %s, want %s", p.name, got, p.want)
		}
		if faults := writeFaults(&a.mem[p.off]); faults != (p.want == "r--p") {
			t.Errorf("%s: a write faults: %t", p.name, faults)
		}
	}
}

func writeFaults(b *byte) (faults bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { faults = recover() != nil }()
	*b = 1
	return false
}

// permissions are those of the mapping at an address.
func permissions(t *testing.T, addr uintptr) string {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		var lo, hi uintptr
		var perm string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &lo, &hi, &perm); n == 3 && lo <= addr && addr < hi {
			return perm
		}
	}
	return "unmapped"
}

func TestArenaSaysWhenItIsFull(t *testing.T) {
	a, err := NewArena(2, 8)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Free()
	room := len(a.mem) - a.off
	a.Data(make([]byte, room))
	if a.Full() {
		t.Error("full when all fits")
	}
	if got := a.String(""); got != 0 || !a.Full() {
		t.Errorf("one byte too many: got address %#x and Full %t, want 0 and true", got, a.Full())
	}
	b, err := NewArena(2, 8)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	for i := range 3 {
		if b.Full() {
			t.Errorf("full after %d of 2 operations", i)
		}
		b.Op(exit(0))
	}
	if !b.Full() || b.Len() != 3 {
		t.Errorf("3 of 2 operations: got Full %t and Len %d", b.Full(), b.Len())
	}
}

func TestArenaLayout(t *testing.T) {
	a, err := NewArena(1, 200)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Free()
	a.String("odd")
	list := a.Strings([]string{"one", "", "three"})
	if list%8 != 0 {
		t.Errorf("a list of addresses at %#x: not aligned", list)
	}
	at := func(addr uintptr) []byte { return a.mem[addr-a.base():] }
	for i, want := range []string{"one", "", "three"} {
		p := uintptr(binary.NativeEndian.Uint64(at(list + uintptr(i)*8)))
		if got := string(at(p)[:len(want)+1]); got != want+"\x00" {
			t.Errorf("string %d: got %q, want %q and a zero byte", i, got, want)
		}
	}
	if end := binary.NativeEndian.Uint64(at(list + 3*8)); end != 0 {
		t.Errorf("the list ends with %#x, want 0", end)
	}
	if size := unsafe.Sizeof(cloneArgs{}); size != 88 {
		t.Errorf("clone_args has %d bytes, want 88", size)
	}
}

// TestSignalMaskComesBack checks that the caller's thread blocks after Start
// what it blocked before.
func TestSignalMaskComesBack(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mask := func(how uintptr, set *uint64) (old uint64) {
		_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, how, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
		if e != 0 {
			t.Fatal(e)
		}
		return old
	}
	const setMask = 2
	odd := uint64(1) << (syscall.SIGUSR2 - 1)
	before := mask(setMask, &odd)
	defer mask(setMask, &before)
	do(t, 0, exit(0)).want(t, nil, 0)
	if got := mask(setMask, &odd); got != odd {
		t.Errorf("after a start: mask %#x, want %#x", got, odd)
	}
	if _, err := perform(0x200|0x20000, func(*Arena) []Op { return nil }); err == nil {
		t.Error("the clone was to fail")
	}
	if got := mask(setMask, &odd); got != odd {
		t.Errorf("after a failed start: mask %#x, want %#x", got, odd)
	}
}

func TestPidFDIsClosedOnExec(t *testing.T) {
	a, err := NewArena(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Free()
	a.Op(exit(0))
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	p, errno := Start(a, How{}, -1, -1)
	runtime.UnlockOSThread()
	if errno != 0 {
		t.Fatal(errno)
	}
	flags, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(p.PidFD), syscall.F_GETFD, 0)
	if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("got flags %#x (%v), want close-on-exec", flags, errno)
	}
	if _, err := syscall.Wait4(p.Pid, nil, 0, nil); err != nil {
		t.Error(err)
	}
	if err := syscall.Close(p.PidFD); err != nil {
		t.Error(err)
	}
}

// TestStartsDuringGarbageCollection starts children all the time while the Go
// runtime does what a child that shares its memory could disturb: collecting
// garbage, moving stacks, making and parking threads, delivering signals.
func TestStartsDuringGarbageCollection(t *testing.T) {
	before := countFDs(t)
	length := 3 * time.Second
	if sandboxtest.Probe(sandboxtest.Long) != nil {
		length = time.Second / 2
	}
	deadline := time.Now().Add(length)
	var starts atomic.Int64
	var wg sync.WaitGroup
	spin := func(f func() error) {
		wg.Go(func() {
			for time.Now().Before(deadline) {
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3 {
		spin(func() error {
			n := starts.Add(1)
			fail := n%3 == 0
			o, err := perform(0, func(a *Arena) []Op {
				if fail {
					return []Op{{Nr: syscall.SYS_GETPID}, {Nr: noCall}, exit(0)}
				}
				return []Op{{Nr: syscall.SYS_GETPID}, {Nr: syscall.SYS_SETSID}, exit(3)}
			})
			switch {
			case err != nil:
				return err
			case fail && (o.report == nil || *o.report != Report{1, int32(syscall.ENOSYS)} || o.status.ExitStatus() != 125),
				!fail && (o.report != nil || o.status.ExitStatus() != 3):
				return fmt.Errorf("start %d: got report %v and status %#x", n, o.report, int(o.status))
			}
			return nil
		})
	}
	var sum atomic.Int64
	spin(func() error { runtime.GC(); time.Sleep(time.Millisecond); return nil })
	spin(func() error {
		grown := make(chan int)
		go func() { grown <- grow(500) }()
		sum.Add(int64(<-grown))
		return nil
	})
	spin(func() error { return syscall.Kill(os.Getpid(), syscall.SIGURG) })
	wg.Wait()
	t.Logf("%d starts in %v", starts.Load(), length)
	if after := countFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// grow makes a stack of some hundred kilobytes.
func grow(n int) int {
	var frame [64]int
	frame[n%64] = n
	if n == 0 {
		return 0
	}
	return grow(n-1) + frame[n%64]
}

func countFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
