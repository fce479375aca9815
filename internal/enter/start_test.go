package enter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/observe"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/rootfs"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// supervisorEnv makes this binary a program that starts a sandbox and waits.
const supervisorEnv = "ENTER_TEST_SUPERVISOR"

func TestMain(m *testing.M) {
	if os.Getenv(supervisorEnv) != "" {
		fmt.Println(supervisor())
		os.Exit(1)
	}
	sandboxtest.Main(m)
}

// kind is one kind of sandbox, with what it needs of the machine.
type kind struct {
	name string
	need []sandboxtest.Feature
	spec func(t testing.TB) spec.Sandbox
}

func box(s spec.Sandbox) func(testing.TB) spec.Sandbox {
	return func(testing.TB) spec.Sandbox { s.Toolchain = true; return s }
}

// kinds are the sandboxes that are started here: every step that a plan can
// have is in one of them.
var kinds = []kind{
	{"plain", []sandboxtest.Feature{sandboxtest.Userns}, box(spec.Sandbox{TimeNamespace: true, Tmpfs: []spec.Tmpfs{{Target: "/t"}}})},
	{"workspace", []sandboxtest.Feature{sandboxtest.Userns}, func(t testing.TB) spec.Sandbox {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return spec.Sandbox{Toolchain: true, Workspace: &spec.Bind{Source: dir}, Volumes: []spec.Volume{{Source: filepath.Join(dir, "file"), Target: "/f"}}}
	}},
	{"terminal", []sandboxtest.Feature{sandboxtest.Userns}, box(spec.Sandbox{Terminal: true})},
	{"limits", []sandboxtest.Feature{sandboxtest.Userns, sandboxtest.Cgroup}, box(spec.Sandbox{Limits: spec.Limits{Memory: 64 * spec.MiB, Pids: 20}})},
	{"watched", []sandboxtest.Feature{sandboxtest.Userns}, box(spec.Sandbox{Name: watched})},
	{"held", []sandboxtest.Feature{sandboxtest.Userns}, box(spec.Sandbox{Name: held})},
	{"strict agent", strict, box(spec.Sandbox{Mode: spec.ModeStrictAgent})},
	{"rootfs", []sandboxtest.Feature{sandboxtest.Userns}, func(t testing.TB) spec.Sandbox {
		return spec.Sandbox{Rootfs: &spec.Rootfs{Source: sandboxtest.Rootfs(t, "cat", "readlink", "sleep")}}
	}},
	{"production", strict, func(t testing.TB) spec.Sandbox {
		return spec.Sandbox{Mode: spec.ModeProduction, Rootfs: attested(t), Workspace: &spec.Bind{Source: t.TempDir()},
			Limits: spec.Limits{Memory: 64 * spec.MiB, MilliCPUs: 1000}}
	}},
	{"userns host", []sandboxtest.Feature{sandboxtest.Root}, box(spec.Sandbox{Userns: spec.UsernsHost})},
	{"policy", []sandboxtest.Feature{sandboxtest.Userns, sandboxtest.Landlock}, box(spec.Sandbox{Policy: &policy.Policy{
		Caps: &caps.Sets{Bounding: caps.Of(caps.NetBindService, caps.Kill), Inheritable: caps.Of(caps.NetBindService, caps.Kill),
			Permitted: caps.Of(caps.Kill), Effective: caps.Of(caps.Kill), Ambient: caps.Of(caps.Kill)},
		Landlock: &landlock.Config{
			HandleFS: landlock.All(landlock.Latest), HandleNet: landlock.BindTCP,
			Rules: []landlock.PathRule{{Path: "/", Allow: landlock.Read | landlock.Execute | landlock.Write, Why: "a test"}},
			Ports: []landlock.PortRule{{Port: 80, Allow: landlock.BindTCP, Why: "a test"}},
		},
	}})},
}

// watched is the name of the sandbox whose calls are observed.
const watched = "watched"

// held is the name of the sandbox that waits until it was asked about.
const held = "held"

// strict is what the stricter modes need of a machine.
var strict = []sandboxtest.Feature{sandboxtest.Userns, sandboxtest.Cgroup, sandboxtest.Landlock}

// attested is a root with its manifest.
func attested(t testing.TB) *spec.Rootfs {
	dir := sandboxtest.Rootfs(t, "cat", "readlink", "sleep")
	m, err := rootfs.Attest(context.Background(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, rootfs.ManifestName), m.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return &spec.Rootfs{Source: dir, Attested: true, SHA256: m.SHA256()}
}

// attempt is a start in preparation: its workload writes to a pipe of its own.
type attempt struct {
	Request
	ran   *os.File // where the workload's words arrive
	stdio []*os.File

	served sync.WaitGroup // by who answers for a listener
}

// prepare makes the request for a sandbox that runs a shell script. The
// script's descriptor 3 is the pipe.
func prepare(t testing.TB, s spec.Sandbox, script string) *attempt {
	t.Helper()
	a, err := request(&s, script)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func request(s *spec.Sandbox, script string) (*attempt, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	asks := plan.AsksOf(s)
	h, err := host.Probe(asks.System, asks.Cgroup)
	if err != nil {
		return nil, err
	}
	for _, src := range asks.Sources {
		if err := host.Source(h, src); err != nil {
			return nil, err
		}
	}
	c := plan.Command{Name: "/bin/sh", Args: []string{"-c", script}, Extra: 1}
	if s.Name == watched {
		host.Listeners(h)
		c.Observe = seccomp.Everything
	}
	c.Hold = s.Name == held
	if asks.Rootfs != "" {
		if err := host.Rootfs(h, asks.Rootfs); err != nil {
			return nil, err
		}
	}
	p, err := plan.Build(s, h, c)
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, null.Close())
	}
	a := &attempt{ran: r, stdio: []*os.File{null, w}}
	fd := int(null.Fd())
	a.Request = Request{Plan: p, Host: h, Name: fmt.Sprintf("test-%d-%d", os.Getpid(), serial()), Stdio: []int{fd, fd, fd, int(w.Fd())}}
	for _, st := range p.Steps {
		if l, ok := st.Do.(plan.Listen); ok {
			a.Listener = func(fd kernel.FD) {
				a.served.Go(func() { observe.New(l.Policy, l.Program.Arch, 100, observe.Job).Serve(fd) })
			}
		}
	}
	return a, nil
}

var serials struct {
	sync.Mutex
	n int
}

func serial() int {
	serials.Lock()
	defer serials.Unlock()
	serials.n++
	return serials.n
}

// words closes our end of the pipe and returns what the workload wrote. That the
// reading ends shows that no process holds the other end any more.
func (a *attempt) words() (string, error) {
	var errs []error
	for _, f := range a.stdio {
		errs = append(errs, f.Close())
	}
	errs = append(errs, a.ran.SetReadDeadline(time.Now().Add(10*time.Second*sandboxtest.Slow())))
	b, err := io.ReadAll(a.ran)
	return string(b), errors.Join(append(errs, err, a.ran.Close())...)
}

// finish waits for a sandbox to end and lets go of it.
func finish(b *Sandbox) (syscall.WaitStatus, error) {
	w, _, err := kernel.Reap(b.Pid)
	return syscall.WaitStatus(w), errors.Join(err, b.Console.Close(), b.Close())
}

// run starts a sandbox, waits for it and returns what it wrote.
func (a *attempt) run() (string, syscall.WaitStatus, error) {
	b, err := Start(a.Request)
	if err != nil {
		words, e := a.words()
		return words, 0, errors.Join(err, e)
	}
	status, err := finish(b)
	a.served.Wait()
	words, e := a.words()
	return words, status, errors.Join(err, e)
}

// each runs a test for every kind of sandbox that is possible here.
func each(t *testing.T, f func(t *testing.T, s spec.Sandbox)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			sandboxtest.Need(t, k.need...)
			f(t, k.spec(t))
		})
	}
}

func TestWorkloadRuns(t *testing.T) {
	each(t, func(t *testing.T, s spec.Sandbox) {
		words, status, err := prepare(t, s, "echo ran >&3; exit 7").run()
		if err != nil || words != "ran\n" || status.ExitStatus() != 7 {
			t.Errorf("got %q, exit %d, %v; want ran, 7", words, status.ExitStatus(), err)
		}
	})
}

// TestMeanwhile: the workload does not run before what is done meanwhile is done.
func TestMeanwhile(t *testing.T) {
	each(t, func(t *testing.T, s spec.Sandbox) {
		a, calls := prepare(t, s, "echo ran >&3; exit 7"), 0
		a.Meanwhile = func() {
			calls++
			if err := a.ran.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				t.Error(err)
			}
			var b [4]byte
			if n, err := a.ran.Read(b[:]); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the workload says %q (%v) before it may", b[:n], err)
			}
		}
		words, status, err := a.run()
		if err != nil || words != "ran\n" || status.ExitStatus() != 7 || calls != 1 {
			t.Errorf("got %q, exit %d, %v after %d calls; want ran, 7 after one", words, status.ExitStatus(), err, calls)
		}
	})
}

// TestControlGroupIsTheTop checks that the sandbox does not see where in the
// host's hierarchies it is.
func TestControlGroupIsTheTop(t *testing.T) {
	each(t, func(t *testing.T, s spec.Sandbox) {
		words, _, err := prepare(t, s, "cat /proc/self/cgroup >&3").run()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(words) {
			if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) != 3 || f[2] != "/" {
				t.Errorf("the sandbox sees %q, want /", line)
			}
		}
	})
}

// TestStdioInAnyOrder gives the workload descriptors of ours whose numbers are
// those of others.
func TestStdioInAnyOrder(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {2, 2, 2}, {0, 0, 1}} {
		a := prepare(t, spec.Sandbox{Toolchain: true}, `for i in 0 1 2 3; do x=$(readlink /proc/$$/fd/$i); echo "$x" >&3; done`)
		copy(a.Stdio, order)
		var want []string
		for _, fd := range a.Stdio {
			name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, filepath.Base(name)) // the directories are not the sandbox's to see
		}
		words, _, err := a.run()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(words) {
			got = append(got, filepath.Base(strings.TrimSpace(line)))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("order %v: the workload has %q, want %q", order, got, want)
		}
	}
}

// TestManyAtOnce starts two hundred sandboxes, eight at a time.
func TestManyAtOnce(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	before := snapshot(t)
	all := 200
	if sandboxtest.Probe(sandboxtest.Long) != nil || sandboxtest.Slow() > 1 {
		all = 40
	}
	work := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range work {
				s := spec.Sandbox{Toolchain: true}
				if i%2 == 0 && sandboxtest.Probe(sandboxtest.Cgroup) == nil {
					s.Limits.Pids = 20
				}
				a, err := request(&s, fmt.Sprintf("echo %d >&3; exit %d", i, i%50))
				if err != nil {
					t.Error(err)
					continue
				}
				words, status, err := a.run()
				if err != nil || words != fmt.Sprintf("%d\n", i) || status.ExitStatus() != i%50 {
					t.Errorf("sandbox %d: got %q, exit %d, %v", i, words, status.ExitStatus(), err)
				}
			}
		})
	}
	for i := range all {
		work <- i
	}
	close(work)
	wg.Wait()
	wantNothingLeft(t, before)
}

// TestStaysDumpable starts sandboxes at once as root, each of which changes its
// user id while it shares our memory.
func TestStaysDumpable(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root, sandboxtest.Userns)
	dumpable := func() bool {
		v, err := kernel.Dumpable()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if !dumpable() {
		t.Fatal("not dumpable before the test")
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				a, err := request(&spec.Sandbox{Toolchain: true, User: spec.User{UID: 1000, GID: 1000}}, "exit 0")
				if err != nil {
					t.Error(err)
					return
				}
				if _, _, err := a.run(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if !dumpable() {
		t.Error("not dumpable any more: a debugger, and /proc/self as our user, are shut out")
	}
}

// supervisor is the other program of TestSupervisorIsKilled: descriptor 3 is the
// pipe that everything in its sandbox holds.
func supervisor() error {
	a, err := request(&spec.Sandbox{Toolchain: true}, "echo ready >&3; sleep 1000 & sleep 1000")
	if err != nil {
		return err
	}
	a.Stdio[3] = 3
	if _, err := Start(a.Request); err != nil {
		return err
	}
	for { // not select, which the runtime takes for a deadlock
		time.Sleep(time.Hour)
	}
}

// TestSupervisorIsKilled kills a program that has a sandbox and looks how long
// that lives on.
func TestSupervisorIsKilled(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), supervisorEnv+"=1")
	cmd.ExtraFiles = []*os.File{w}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second * sandboxtest.Slow())); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, 6)
	if _, err := io.ReadFull(r, ready); err != nil || string(ready) != "ready\n" {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		t.Fatalf("got %q, %v, want ready; it says: %s", ready, err, &out)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	_ = cmd.Wait() // it was killed
	if err := r.SetReadDeadline(killed.Add(time.Second * sandboxtest.Slow())); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("something of the sandbox lives on: %v", err)
	}
	t.Logf("gone after %v", time.Since(killed))
}

func snapshot(t *testing.T) sandboxtest.Snapshot {
	t.Helper()
	s, err := sandboxtest.TakeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantNothingLeft(t *testing.T, before sandboxtest.Snapshot) {
	t.Helper()
	for _, l := range before.Leaks() {
		t.Errorf("left behind: %s", l)
	}
}
