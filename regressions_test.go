package nucleus_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// Attacks on sandboxes that worked on others, each of which has a row in
// docs/REGRESSIONS.md. What other tests already try is not tried here again.

// TestProgramsOfTheHostCannotBeWritten: a script whose interpreter is
// /proc/self/exe makes the runtime of careless sandboxes run itself inside, where
// its file can be reached and written (CVE-2019-5736). A second program looks for
// one in /proc all the time, while others join.
func TestProgramsOfTheHostCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/entry", "#!/proc/self/exe\n")
	if err := os.Chmod(dir+"/entry", 0o755); err != nil {
		t.Fatal(err)
	}
	s := &spec.Sandbox{Toolchain: true, Volumes: []spec.Volume{{Source: dir, Target: "/work", Exec: true}}}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	l := detach(t, s, out, "sh", "-c", `while :; do for f in /proc/[0-9]*/exe /proc/self/exe; do
		p=$(readlink $f 2>/dev/null); case "$p" in ''|/usr/*|/bin/*) ;; *) echo "found $f: $p";; esac
		( echo x >> $f ) 2>/dev/null && echo "wrote $f"; done; done`)
	p := open(t, l)
	for range 10 {
		if err := p.Command("/work/entry").Run(); err == nil {
			t.Error("a script whose interpreter is /proc/self/exe: got no error")
		}
		if err := p.Command("true").Run(); err != nil {
			t.Error(err)
		}
	}
	if got, err := os.ReadFile(out.Name()); err != nil || len(got) > 0 {
		t.Errorf("the sandbox says %q, %v; want nothing", got, err)
	}
	c := nucleus.Command(s, "/work/entry")
	if err := c.Run(); err == nil {
		t.Error("as the program itself: got no error")
	}
}

// TestJoinedDirectory: a working directory by a descriptor that the runtime may
// hold, for a program that joins (CVE-2024-21626), and what it inherits.
func TestJoinedDirectory(t *testing.T) {
	dir := t.TempDir()
	leak, err := unix.Open("/", unix.O_DIRECTORY, 0) // inheritable, as careless programs leave it
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	l := detach(t, withProbe(&spec.Sandbox{Toolchain: true, Workspace: &spec.Bind{Source: dir}}), nil, "sleep", "60")
	p := open(t, l)
	for fd := range 32 {
		c := p.Command(probePath, "cwd")
		c.Dir = fmt.Sprintf("/proc/self/fd/%d", fd)
		var e *nucleus.Error
		if err := c.Run(); !errors.As(err, &e) || e.Op != "chdir" {
			t.Errorf("joining with the directory %s: got %v, want a failed chdir", c.Dir, err)
		}
	}
	c := p.Command(probePath, "fds", "cwd")
	if err := (&attempt{TB: t}).wantCmd(c, line{"fds", "ok:0 1 2"}, line{"cwd", "ok:/workspace"}); err != nil {
		t.Error(err)
	}
}

// swapping exchanges a directory with a symbolic link as fast as it can, until
// the test ends what it does meanwhile.
func swapping(t *testing.T, one, other string, meanwhile func()) {
	t.Helper()
	var stop atomic.Bool
	var racer sync.WaitGroup
	racer.Go(func() {
		for !stop.Load() {
			if err := unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	meanwhile()
	stop.Store(true)
	racer.Wait()
}

// TestDestinationRace swaps the place itself on which something is mounted, in a
// directory that the sandbox shares, with a link to the host's files
// (CVE-2021-30465). TestLinkRace swaps a directory above it.
func TestDestinationRace(t *testing.T) {
	needSandbox(t)
	victim, work, other := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, victim+"/secret", "secret")
	write(t, work+"/place/empty", "")
	write(t, other+"/marker", "other")
	if err := os.Symlink(victim, work+"/link"); err != nil {
		t.Fatal(err)
	}
	before := snapshotTree(t, victim)
	started, refusals := 0, 0
	swapping(t, work+"/place", work+"/link", func() {
		for range max(20, 200/int(sandboxtest.Slow())) {
			s := &spec.Sandbox{Workspace: &spec.Bind{Source: work}, Volumes: []spec.Volume{{Source: other, Target: "/workspace/place", Writable: true}}}
			a := &attempt{TB: t}
			err := a.want(s, line{"read /workspace/place/secret", "!ok:secret"}, line{"read /workspace/link/secret", "!ok:secret"}, line{"exists " + victim, absent}, line{"status CapEff", noCaps})
			switch {
			case a.refused != nil:
				refusals++
			case err != nil:
				t.Error(err)
			default:
				started++
			}
		}
	})
	t.Logf("%d started, %d refused", started, refusals)
	if after := snapshotTree(t, victim); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("the host's files changed: got %q, want %q", after, before)
	}
	if started+refusals == 0 {
		t.Error("nothing was tried")
	}
}

// TestSourceRace swaps a volume's source with a link to another directory. Which
// of the two it finds is the business of who can change the directory above; what
// it mounts is one of them, whole, and as the description says; or the link as it
// is, which inside leads to nothing.
func TestSourceRace(t *testing.T) {
	needSandbox(t)
	top, elsewhere := t.TempDir(), t.TempDir()
	write(t, top+"/source/which", "own")
	write(t, elsewhere+"/which", "other")
	if err := os.Symlink(elsewhere, top+"/link"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	swapping(t, top+"/source", top+"/link", func() {
		for range max(20, 200/int(sandboxtest.Slow())) {
			a := &attempt{TB: t}
			answers, err := a.ask(&spec.Sandbox{Volumes: []spec.Volume{{Source: top + "/source", Target: "/v"}}}, "read /v/which", "open new /v/new", "ls /v", "exists "+elsewhere)
			switch {
			case a.refused != nil:
				seen["refused"]++
			case err != nil:
				t.Error(err)
			case strings.Join(answers, " ") == "ENOENT ENOENT ENOENT ENOENT":
				seen["a link that leads nowhere"]++
			case answers[0] != "ok:own" && answers[0] != "ok:other", answers[1] == "ok", answers[2] != "ok:which", answers[3] != absent:
				t.Errorf("got %q, want one of the directories, read-only", answers)
			default:
				seen[answers[0]]++
			}
		}
	})
	t.Log(seen)
}

// TestRemount tries to make read-only volumes writable by the old calls and the
// new ones (CVE-2026-46695), as layer after layer is taken away.
func TestRemount(t *testing.T) {
	needSandbox(t)
	dir := t.TempDir()
	write(t, dir+"/file", "")
	s := &spec.Sandbox{Volumes: []spec.Volume{{Source: dir, Target: "/v"}}}
	layers := together(withoutSeccomp(), without(plan.Landlock{}))
	all := together(layers, without(plan.DropCaps{}, plan.Securebits{}, plan.DropBounding{}))
	for _, tc := range []struct{ name, call string }{
		{"remount", fmt.Sprintf("call %d s:none s:/v s: 0x102e 0", unix.SYS_MOUNT)},
		{"bind and remount", fmt.Sprintf("call %d s:/v s:/v s: 0x1000 0", unix.SYS_MOUNT)},
		{"mount_setattr", fmt.Sprintf("call %d -100 s:/v 0 x:00000000000000000100000000000000 32", unix.SYS_MOUNT_SETATTR)},
		{"open_tree", fmt.Sprintf("call %d -100 s:/v 0x80001", unix.SYS_OPEN_TREE)},
		{"fspick", fmt.Sprintf("call %d -100 s:/v 0", unix.SYS_FSPICK)},
		{"unmount", fmt.Sprintf("call %d s:/v 2", unix.SYS_UMOUNT2)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			FailsWithout(t, func(a *attempt) error {
				defer os.Remove(dir + "/new")
				return a.want(s, line{tc.call, "EPERM"}, line{"open w /v/file", refused}, line{"open new /v/new", refused})
			},
				withoutSeccomp().holds(),
				layers.holds(),
				all,
			)
		})
	}
}

// TestSocketFamilies opens a socket of every family that the kernel knows, and
// of some that it does not, with clean and dirty upper bits.
func TestSocketFamilies(t *testing.T) {
	needSandbox(t)
	allowed := map[int]bool{unix.AF_UNIX: true, unix.AF_INET: true, unix.AF_INET6: true, unix.AF_NETLINK: true}
	FailsWithout(t, func(a *attempt) error {
		var lines []line
		for family := range 64 {
			if allowed[family] {
				continue
			}
			for _, number := range []int{family, 1<<32 | family} {
				for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_SEQPACKET} {
					lines = append(lines, line{fmt.Sprintf("call %d %#x %d 0", unix.SYS_SOCKET, number, kind), "EAFNOSUPPORT"})
				}
			}
		}
		return a.want(&spec.Sandbox{}, lines...)
	}, withoutSeccomp())
}

// TestServicesOfTheHost puts listeners where services of a host have their
// sockets, in a /run of this test's own: none is reached, and nobody hears of the
// attempt.
func TestServicesOfTheHost(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	privately(t, func() {
		if err := unix.Mount("test", "/run", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Unmount("/run", unix.MNT_DETACH) }()
		tmp := t.TempDir()
		var lines []line
		var heard atomic.Int32
		for _, path := range []string{"/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/run/systemd/private", "/run/systemd/journal/socket",
			"/run/dbus/system_bus_socket", "/run/user/0/bus", "/run/user/0/systemd/private", tmp + "/tmux-0/default", tmp + "/ssh/agent.1", tmp + "/X11/X0"} {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					heard.Add(1)
					_ = c.Close()
				}
			}()
			defer l.Close()
			if c, err := net.Dial("unix", path); err != nil {
				t.Fatalf("outside: %v", err)
			} else {
				_ = c.Close()
			}
			lines = append(lines, line{"connect " + path, absent}, line{"connect /proc/self/root" + path, absent}, line{"connect /var" + path, absent})
		}
		for deadline := time.Now().Add(patience()); heard.Load() != 11 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		}
		t.Setenv("SSH_AUTH_SOCK", tmp+"/ssh/agent.1")
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/0/bus")
		t.Setenv("DOCKER_HOST", "unix:///run/docker.sock")
		t.Setenv("TMUX", tmp+"/tmux-0/default,1,0")
		lines = append(lines, line{"env", "!"})
		answers, err := (&attempt{TB: t}).ask(&spec.Sandbox{Toolchain: true}, questions(lines)...)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range lines {
			if err := l.check(answers[i]); err != nil {
				t.Error(err)
			}
		}
		if env := answers[len(lines)-1]; strings.Contains(env, "SOCK") || strings.Contains(env, "DBUS") || strings.Contains(env, "DOCKER") || strings.Contains(env, "TMUX=") {
			t.Errorf("the environment names services: %s", env)
		}
		if n := heard.Load(); n != 11 {
			t.Errorf("the services heard of %d connections, want the 11 of this test", n)
		}
	})
}

// TestServiceManagerIsOutOfReach runs the programs by which one asks the host to
// run something, as far as they are installed.
func TestServiceManagerIsOutOfReach(t *testing.T) {
	needSandbox(t)
	tried := 0
	for _, args := range [][]string{
		{"systemd-run", "--quiet", "--wait", "true"}, {"systemd-run", "--user", "--quiet", "--wait", "true"}, {"systemctl", "is-system-running"},
		{"busctl", "list"}, {"dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.ListNames"},
		{"docker", "ps"}, {"at", "now"}, {"ssh-add", "-l"}, {"tmux", "list-sessions"},
	} {
		if _, err := exec.LookPath(args[0]); err != nil {
			continue
		}
		tried++
		var exit *nucleus.ExitError
		err := (&attempt{TB: t}).command(&spec.Sandbox{Toolchain: true}, args[0], args[1:]...).Run()
		if !errors.As(err, &exit) && !nucleus.NotFound(err) {
			t.Errorf("%q: got %v, want it to fail", args, err)
		}
	}
	t.Logf("%d such programs are installed", tried)
}

// TestFalseProc gives Nucleus a /proc that is none, which takes what is written
// to it and does nothing (CVE-2019-16884, CVE-2025-52881): no sandbox, no program.
func TestFalseProc(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	privately(t, func() {
		if err := unix.Mount("test", "/proc", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Unmount("/proc", unix.MNT_DETACH) }()
		// What a start writes to, for every process that it could make.
		for pid := os.Getpid(); pid < os.Getpid()+200; pid++ {
			for _, f := range []string{"uid_map", "gid_map", "setgroups", "attr/current"} {
				write(t, fmt.Sprintf("/proc/%d/%s", pid, f), "")
			}
		}
		write(t, "/proc/sys/kernel/cap_last_cap", "40\n")
		write(t, "/proc/self/status", "CapEff:\t000001ffffffffff\n")
		var e *nucleus.Error
		if err := nucleus.Command(&spec.Sandbox{Toolchain: true}, "true").Run(); !errors.As(err, &e) {
			t.Errorf("on a /proc that is none: got %v, want no sandbox", err)
		} else {
			t.Log(err)
		}
	})
}

// TestFalseNull replaces the host's /dev/null, from which masks are made, with a
// file (CVE-2025-31133): nobody gets a sandbox whose masks show that.
func TestFalseNull(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	privately(t, func() {
		fake := filepath.Join(t.TempDir(), "null")
		write(t, fake, "not null")
		if err := unix.Mount(fake, "/dev/null", "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Unmount("/dev/null", unix.MNT_DETACH) }()
		c := (&attempt{TB: t}).command(withProbe(&spec.Sandbox{}), probePath, "read /proc/keys", "read /dev/null")
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		c.Stdin, c.Stdout = r, w
		err = c.Run()
		_ = w.Close()
		b := make([]byte, 4096)
		n, _ := r.Read(b)
		if err == nil && strings.Contains(string(b[:n]), "not null") {
			t.Errorf("got %s, want no sandbox or no such file", b[:n])
		}
		t.Logf("%v %s", err, b[:n])
	})
}

// TestPolicyIsOfTheStart changes the description's policy while the sandbox runs:
// what joins has the one that the sandbox was started with, and the sandbox
// cannot change what it is told.
func TestPolicyIsOfTheStart(t *testing.T) {
	strict := seccomp.Default()
	strict.Rules = append([]seccomp.Rule{{Calls: []string{"umask"}, Do: seccomp.Errno("ENOTTY"), Why: "test"}}, strict.Rules...)
	s := withProbe(&spec.Sandbox{Toolchain: true, Policy: &policy.Policy{Seccomp: &strict}})
	l := detach(t, s, nil, "sleep", "60")
	p := open(t, l)
	loose := seccomp.Default()
	s.Policy.Seccomp = &loose
	umask := fmt.Sprintf("call %d 18", unix.SYS_UMASK)
	lines := []line{{umask, "ENOTTY"}, {"open w /run/nucleus/policy.md", refused}, {"remove /run/nucleus/policy.md", refused}, {"rename /run/nucleus/policy.md /tmp/x", refused + "|EXDEV"}}
	if err := (&attempt{TB: t}).wantCmd(p.Command(probePath, questions(lines)...), lines...); err != nil {
		t.Error(err)
	}
}

// TestNumberIsUsedAgain gives another process the number of a sandbox that has
// ended: neither who held on to the sandbox nor who finds it again touches that.
func TestNumberIsUsedAgain(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	const env = "NUCLEUS_TEST_NUMBERS"
	if os.Getenv(env) == "" { // numbers can be chosen in a process namespace of one's own
		again(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}, env+"=1")
		return
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/proc", unix.MNT_DETACH) })
	l := detach(t, &spec.Sandbox{Toolchain: true}, nil, "sleep", "60")
	held := open(t, l)
	pid := l.id.Pid()
	time.Sleep(30 * time.Millisecond) // start times are in hundredths of a second
	if err := l.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	l.wait(t)
	_, _ = unix.Wait4(pid, nil, 0, nil) // we are process 1 here: it is ours to reap
	if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, pid-1), 0o644); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	if other.Process.Pid != pid {
		t.Fatalf("the other process has the number %d, want %d", other.Process.Pid, pid)
	}
	for name, err := range map[string]error{"kill by who held it": held.Kill(), "signal by who held it": held.Signal(syscall.SIGKILL), "kill by who started it": l.Process.Kill()} {
		if !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s: got %v, want %v", name, err, os.ErrProcessDone)
		}
	}
	if _, err := nucleus.Open(l.id); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("found again: got %v, want %v", err, os.ErrProcessDone)
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other process: %v", err)
	}
}
