package pid1

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// workloadEnv makes this binary a workload instead of a run of tests.
const workloadEnv = "PID1_TEST_WORKLOAD"

func TestMain(m *testing.M) {
	if what := os.Getenv(workloadEnv); what != "" {
		if err := workload(what); err != nil {
			fmt.Println("error:", err)
			os.Exit(99)
		}
		os.Exit(0)
	}
	sandboxtest.Main(m)
}

// workload is what the tests run under the init: each prints what it finds.
func workload(what string) error {
	kind, arg, _ := strings.Cut(what, " ")
	switch kind {
	case "exit":
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		os.Exit(n)
	case "fds":
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err
		}
		for _, e := range list {
			if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
				fmt.Println(e.Name(), to)
			}
		}
	case "signals":
		return signals()
	case "state":
		status, err := os.ReadFile("/proc/self/status")
		fmt.Printf("%s\npid %d ppid %d args %q env %q\n", status, os.Getpid(), os.Getppid(), os.Args, os.Environ())
		pgid, _, _ := syscall.RawSyscall(syscall.SYS_GETPGID, 0, 0, 0)
		fmt.Println("pgid", pgid)
		return err
	case "spy":
		return spy()
	case "call":
		nr, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		_, _, e := syscall.RawSyscall6(uintptr(nr), 0, 0, 0, 0, 0, 0)
		fmt.Println("errno", int(e))
	}
	return nil
}

// signals prints what arrives, until SIGUSR2.
func signals() error {
	c := make(chan os.Signal, 32)
	signal.Notify(c, forwarded...)
	fmt.Println("ready")
	for s := range c {
		fmt.Println(int(s.(syscall.Signal)))
		if s == syscall.SIGUSR2 {
			return nil
		}
	}
	return nil
}

// spy tries to look into its parent, which is the init. The proc file system is
// the outer one, so the parent's number there stands in our own status.
func spy() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, after, _ := strings.Cut(string(status), "\nPPid:\t")
	parent, _, _ := strings.Cut(after, "\n")
	for _, who := range []string{parent, "self"} {
		for _, name := range []string{"environ", "maps", "exe", "cwd", "ns/mnt"} {
			path, err := "/proc/"+who+"/"+name, error(nil)
			if name == "environ" || name == "maps" {
				_, err = os.ReadFile(path)
			} else {
				_, err = os.Readlink(path)
			}
			fmt.Println(strings.Replace(who, parent, "init", 1), name, "denied:", errors.Is(err, fs.ErrPermission), err)
		}
		f, err := os.OpenFile("/proc/"+who+"/mem", os.O_RDWR, 0)
		fmt.Println(strings.Replace(who, parent, "init", 1), "mem", "denied:", errors.Is(err, fs.ErrPermission), err)
		if err == nil {
			f.Close()
		}
	}
	_, err = os.Readlink("/proc/" + parent + "/fd/3") // the status socket
	fmt.Println("init fd denied:", errors.Is(err, fs.ErrPermission), err)
	_, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, syscall.PTRACE_ATTACH, 1, 0, 0, 0, 0)
	fmt.Println("init ptrace denied:", e == syscall.EPERM, e)
	return nil
}

// forwarded are the signals that an init must pass on.
var forwarded = []os.Signal{
	syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1,
	syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGUSR2,
}

// box is a running init with its workload.
type box struct {
	*exec.Cmd
	status kernel.FD
	out    *bufio.Reader
	stdin  io.WriteCloser

	statusName string // of the init's end, as /proc/PID/fd shows it
}

type setup struct {
	config   Config
	paths    []string // candidates; none: this test binary
	args     []string
	workload string   // of this test binary
	orphan   bool     // close the other end of the status socket before the start
	exit     *os.File // where a detached init says the exit
}

// start runs the real image as process 1 of new user and process namespaces,
// as a user without capabilities there, on the far side of no_new_privs.
func start(t *testing.T, s setup) *box {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Userns)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if s.paths == nil {
		s.paths = []string{exe}
	}
	if s.args == nil {
		s.args = []string{"workload", "arg"}
	}
	s.config.StatusFD = 3
	image, err := kernel.SealedImage("test-init", Image(s.config))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	ours, theirs, err := kernel.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	patience := syscall.NsecToTimeval(int64(10 * time.Second * sandboxtest.Slow()))
	if err := syscall.SetsockoptTimeval(int(ours), syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &patience); err != nil {
		t.Fatal(err)
	}
	end := theirs.File("status")
	defer end.Close()
	b := &box{status: ours, Cmd: &exec.Cmd{
		Path:       fmt.Sprintf("/proc/self/fd/%d", image),
		Args:       append(append(append([]string{"init"}, s.paths...), ""), s.args...),
		Env:        []string{"A=b"},
		ExtraFiles: []*os.File{end},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getegid(), Size: 1}},
		},
	}}
	if s.exit != nil {
		b.ExtraFiles = append(b.ExtraFiles, s.exit)
	}
	if s.workload != "" {
		b.Env = append(b.Env, workloadEnv+"="+s.workload)
	}
	if s.orphan {
		b.hangUp(t)
	}
	out, err := b.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.out = bufio.NewReader(out)
	if b.stdin, err = b.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := startWithoutNewPrivs(b.Cmd); err != nil {
		t.Fatal(err)
	}
	// Whatever goes wrong, every wait of a test ends.
	watch := time.AfterFunc(10*time.Second*sandboxtest.Slow(), func() { _ = b.Process.Kill() })
	t.Cleanup(func() { watch.Stop(); b.finish(t) })
	// The plan does these in the child (plan.Lifeline).
	if b.statusName, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", end.Fd())); err != nil {
		t.Fatal(err)
	}
	const async = 0x2000
	for _, c := range [][2]uintptr{{syscall.F_SETFL, syscall.O_RDWR | async}} {
		if _, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, end.Fd(), c[0], c[1]); e != 0 {
			t.Fatal(e)
		}
	}
	return b
}

// startWithoutNewPrivs starts c from a thread that has given up new privileges,
// as a sandbox has; the thread ends with its goroutine.
func startWithoutNewPrivs(c *exec.Cmd) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		const setNoNewPrivs = 38
		if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0, 0, 0, 0); e != 0 {
			done <- e
			return
		}
		done <- c.Start()
	}()
	return <-done
}

// hangUp closes our end of the status socket.
func (b *box) hangUp(t *testing.T) {
	t.Helper()
	if err := b.status.Close(); err != nil {
		t.Error(err)
	}
	b.status = kernel.None
}

func (b *box) finish(t *testing.T) {
	if b.ProcessState == nil {
		_ = b.Process.Kill() // it may have ended by itself
		_ = b.Wait()
	}
	b.stdin.Close()
	if err := b.status.Close(); err != nil {
		t.Error(err)
	}
}

// message reads one message of the protocol.
func (b *box) message(t *testing.T) (kind, value int) {
	t.Helper()
	var m [16]byte
	n, err := syscall.Read(int(b.status), m[:])
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Read(int(b.status), m[:])
	}
	if err != nil || n != 8 {
		t.Fatalf("got a message of %d bytes (%v), want 8", n, err)
	}
	return int(int32(binary.NativeEndian.Uint32(m[:]))), int(int32(binary.NativeEndian.Uint32(m[4:])))
}

func (b *box) wantMessage(t *testing.T, kind, value int) {
	t.Helper()
	if k, v := b.message(t); k != kind || v != value {
		t.Errorf("got message %d, %d, want %d, %d", k, v, kind, value)
	}
}

// wantExit waits for the init and checks how it ended.
func (b *box) wantExit(t *testing.T, code int) {
	t.Helper()
	if _, err := io.ReadAll(b.out); err != nil {
		t.Error(err)
	}
	_ = b.Wait() // the code is looked at next
	if got := b.ProcessState.ExitCode(); got != code {
		t.Errorf("the init exits with %d (%v), want %d", got, b.ProcessState, code)
	}
}

func (b *box) line(t *testing.T) string {
	t.Helper()
	s, err := b.out.ReadString('\n')
	if err != nil {
		t.Fatalf("got %q: %v", s, err)
	}
	return strings.TrimSpace(s)
}

func TestExitCodeIsTheWorkloads(t *testing.T) {
	for _, code := range []int{0, 1, 7, 127, 255} {
		b := start(t, setup{workload: fmt.Sprint("exit ", code)})
		b.wantMessage(t, Started, 2)
		b.wantMessage(t, Ended, code<<8)
		b.wantExit(t, code)
	}
}

func TestSignalBecomesExitCode(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGALRM} {
		b := start(t, shell(t, fmt.Sprintf("kill -%d $$; sleep 1000", int(sig))))
		b.wantMessage(t, Started, 2)
		if k, v := b.message(t); k != Ended || syscall.WaitStatus(v).Signal() != sig {
			t.Errorf("%v: got message %d, %#x", sig, k, v)
		}
		b.wantExit(t, 128+int(sig))
	}
}

func TestWorkloadsState(t *testing.T) {
	b := start(t, setup{workload: "state", args: []string{"zero", "one", ""}})
	b.wantMessage(t, Started, 2)
	all, err := io.ReadAll(b.out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`pid 2 ppid 1 args ["zero" "one" ""] env ["A=b" "` + workloadEnv + `=state"]`, "pgid 2", "SigBlk:\t0000000000000000", "NoNewPrivs:\t1",
	} {
		if !strings.Contains(string(all), want) {
			t.Errorf("got\n%s\nwant %q in it", all, want)
		}
	}
	b.wantExit(t, 0)
}

func TestCandidates(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, content string, mode fs.FileMode) string {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(at, []byte(content), mode), os.Chmod(at, mode)); err != nil {
			t.Fatal(err)
		}
		return at
	}
	missing, below := filepath.Join(dir, "missing"), filepath.Join(file("file", "", 0o644), "x")
	denied, garbage := file("denied", "#!/bin/sh\n", 0o644), file("garbage", "\x00garbage", 0o755)
	for _, tc := range []struct {
		name  string
		paths []string
		errno syscall.Errno
	}{
		{"the first", []string{exe, missing}, 0},
		{"after missing ones", []string{missing, below, missing, exe}, 0},
		{"after one that may not be executed", []string{denied, exe}, 0},
		{"none is there", []string{missing, missing}, syscall.ENOENT},
		{"below a file", []string{below}, syscall.ENOENT},
		{"one may not be executed", []string{denied}, syscall.EACCES},
		{"one may not be executed, later ones are missing", []string{missing, denied, missing, below}, syscall.EACCES},
		{"a directory", []string{dir, missing}, syscall.EACCES},
		{"not a program: no further search", []string{garbage, exe}, syscall.ENOEXEC},
		{"none is given", []string{}, syscall.ENOENT},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := start(t, setup{paths: tc.paths, workload: "exit 5"})
			if tc.errno == 0 {
				b.wantMessage(t, Started, 2)
				b.wantMessage(t, Ended, 5<<8)
				b.wantExit(t, 5)
				return
			}
			b.wantMessage(t, NotStarted, -int(tc.errno))
			b.wantExit(t, 127)
		})
	}
}

func TestSignalsAreForwarded(t *testing.T) {
	b := start(t, setup{workload: "signals"})
	b.wantMessage(t, Started, 2)
	if got := b.line(t); got != "ready" {
		t.Fatalf("got %q, want ready", got)
	}
	for _, sig := range forwarded {
		if err := b.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if got, want := b.line(t), fmt.Sprint(int(sig.(syscall.Signal))); got != want {
			t.Errorf("%v: the workload got %s, want %s", sig, got, want)
		}
	}
	b.wantMessage(t, Ended, 0)
	b.wantExit(t, 0)
}

// shell returns a setup that runs a script.
func shell(t *testing.T, script string) setup {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Program("sh"))
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	return setup{paths: []string{sh}, args: []string{"sh", "-c", script}}
}

// TestOrphansAreReaped has the workload lose thirty children and checks that
// none of them stays, dead or alive. The init is held meanwhile, so that one
// SIGCHLD stands for many.
func TestOrphansAreReaped(t *testing.T) {
	b := start(t, shell(t, `read x; i=0; while [ $i -lt 30 ]; do (:& ) ; i=$((i+1)); done; echo done; read x`))
	b.wantMessage(t, Started, 2)
	if err := b.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := b.stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if got := b.line(t); got != "done" {
		t.Fatalf("got %q, want done", got)
	}
	eventually(t, "thirty orphans that have ended", func() (bool, string) {
		left := children(t, b.Process.Pid)
		return strings.Count(fmt.Sprint(left), "Z") == 30, fmt.Sprint(left)
	})
	if err := b.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only the workload is left", func() (bool, string) {
		left := children(t, b.Process.Pid)
		return len(left) == 1 && !strings.HasSuffix(left[0], "Z"), fmt.Sprint(left)
	})
	b.stdin.Close()
	b.wantMessage(t, Ended, 1<<8) // read at the end of a file
	b.wantExit(t, 1)
}

// children lists the children of a process with their states.
func children(t *testing.T, pid int) (list []string) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range strings.Fields(string(data)) {
		stat, err := os.ReadFile("/proc/" + c + "/stat")
		if err != nil {
			continue // it has just been reaped
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		list = append(list, c+" "+rest[:1])
	}
	return list
}

func eventually(t *testing.T, what string, f func() (bool, string)) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Second * sandboxtest.Slow()); ; time.Sleep(2 * time.Millisecond) {
		ok, got := f()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %s, want: %s", got, what)
		}
	}
}

// TestRestEndsWithTheWorkload checks that nothing outlives the workload.
func TestRestEndsWithTheWorkload(t *testing.T) {
	b := start(t, shell(t, `sleep 1000 & sleep 1000 & exit 3`))
	b.wantMessage(t, Started, 2)
	b.wantMessage(t, Ended, 3<<8)
	b.wantExit(t, 3) // and reads the output to its end, which the others held open
}
