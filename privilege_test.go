package nucleus_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

const noCaps = "ok:0000000000000000"

func capLines(sets ...string) (out []line) {
	for _, s := range sets {
		out = append(out, line{"status Cap" + s, noCaps})
	}
	return out
}

// identities are the users and namespaces in which privileges are looked at.
func identities(t *testing.T, each func(t *testing.T, s *spec.Sandbox)) {
	for _, id := range []struct {
		name   string
		uid    uint32
		userns spec.Userns
		needs  []sandboxtest.Feature
	}{
		{"root", 0, spec.UsernsPrivate, nil},
		{"user", 1000, spec.UsernsPrivate, nil},
		{"root of the host", 0, spec.UsernsHost, []sandboxtest.Feature{sandboxtest.Root}},
		{"user of the host", 1000, spec.UsernsHost, []sandboxtest.Feature{sandboxtest.Root}},
	} {
		t.Run(id.name, func(t *testing.T) {
			sandboxtest.Need(t, append(id.needs, sandboxtest.Userns)...)
			each(t, &spec.Sandbox{User: spec.User{UID: id.uid, GID: id.uid}, Userns: id.userns})
		})
	}
}

// TestCapabilities: none in any of the five sets. For root three steps each
// suffice to keep the first two sets empty.
func TestCapabilities(t *testing.T) {
	needSandbox(t)
	identities(t, func(t *testing.T, s *spec.Sandbox) {
		FailsWithout(t, func(a *attempt) error { return a.want(s, capLines("Bnd")...) }, without(plan.DropBounding{}))
		var controls []control
		if s.User.UID == 0 { // only root gets capabilities by executing a program
			controls = []control{
				without(plan.DropCaps{}).holds(), without(plan.Securebits{}).holds(), without(plan.DropBounding{}).holds(),
				together(without(plan.DropCaps{}), without(plan.Securebits{})).holds(),
				without(plan.DropCaps{}, plan.Securebits{}, plan.DropBounding{}),
			}
		}
		FailsWithout(t, func(a *attempt) error { return a.want(s, capLines("Prm", "Eff", "Inh", "Amb")...) }, controls...)
	})
}

// TestInheritedCapabilities starts sandboxes from a process whose inheritable and
// ambient sets are not empty, as a service manager may make one.
func TestInheritedCapabilities(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	const env = "NUCLEUS_TEST_AMBIENT"
	if os.Getenv(env) == "" {
		again(t, &syscall.SysProcAttr{AmbientCaps: []uintptr{unix.CAP_NET_BIND_SERVICE, unix.CAP_CHOWN}}, env+"=1")
		return
	}
	s := &spec.Sandbox{Userns: spec.UsernsHost, User: spec.User{UID: 1000, GID: 1000}}
	FailsWithout(t, func(a *attempt) error { return a.want(s, capLines("Prm", "Eff", "Inh", "Bnd", "Amb")...) },
		without(plan.DropCaps{}),
		without(plan.ClearAmbient{}).holds(), // a capability that is not permitted is not ambient either
	)
	FailsWithout(t, func(a *attempt) error { return a.want(s, capLines("Amb")...) },
		without(plan.DropCaps{}).holds(),
		without(plan.DropCaps{}, plan.ClearAmbient{}),
	)
}

// TestFileCapabilities executes a file that has capabilities.
func TestFileCapabilities(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	file := plainDir(t) + "/capable"
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o755); err != nil {
		t.Fatal(err)
	}
	// struct vfs_cap_data, revision 2: CAP_CHOWN and CAP_NET_BIND_SERVICE permitted.
	// Not effective: the kernel does not execute a file whose effective
	// capabilities it cannot give.
	value := []byte{0, 0, 0, 2, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(file, "security.capability", value, 0); err != nil {
		t.Fatal(err)
	}
	s := &spec.Sandbox{Userns: spec.UsernsHost, User: spec.User{UID: 1000, GID: 1000}, Volumes: []spec.Volume{{Source: file, Target: probePath, Exec: true}}}
	privs := together(without(plan.NoNewPrivs{}), without(plan.Landlock{}), withoutSeccomp())
	all := together(privs, clearAttr("nosuid", noSuid), without(plan.DropBounding{}))
	FailsWithout(t, func(a *attempt) error {
		lines := capLines("Prm", "Eff")
		return a.wantCmd(a.command(s, probePath, questions(lines)...), lines...)
	},
		privs.holds(), clearAttr("nosuid", noSuid).holds(), without(plan.DropBounding{}).holds(),
		together(privs, clearAttr("nosuid", noSuid)).holds(),
		all,
	)
}

// TestPrivilegeFlags: user id 0 means nothing, and executing gains nothing.
func TestPrivilegeFlags(t *testing.T) {
	needSandbox(t)
	identities(t, func(t *testing.T, s *spec.Sandbox) {
		bits := without(plan.Securebits{})
		if s.User.UID != 0 && s.Userns == spec.UsernsHost {
			bits = bits.needed() // changing ids would drop the capabilities that later steps need
		}
		FailsWithout(t, func(a *attempt) error {
			return a.want(s, line{fmt.Sprint("prctl ", unix.PR_GET_SECUREBITS), "ok:239"}) // all, locked, but keep_caps itself
		}, bits)
		FailsWithout(t, func(a *attempt) error {
			return a.want(s, line{fmt.Sprint("prctl ", unix.PR_GET_NO_NEW_PRIVS), "ok:1"}, line{"status NoNewPrivs", "ok:1"})
		}, without(plan.NoNewPrivs{}).needed(), together(without(plan.NoNewPrivs{}), without(plan.Landlock{}), withoutSeccomp()))
		FailsWithout(t, func(a *attempt) error { return a.want(s, line{"status Seccomp", "ok:2"}) }, withoutSeccomp())
	})
}

// TestKeyring: a sandbox of root has a session keyring of its own. (The filter
// refuses keyctl, so it is lifted to look.)
func TestKeyring(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	FailsWithout(t, func(a *attempt) error {
		// A keyring belongs to a thread: this one clones, and ends with the goroutine.
		runtime.LockOSThread()
		ours, err := unix.KeyctlJoinSessionKeyring("nucleus-test")
		if err != nil {
			return err
		}
		open := attempt{TB: a.TB, edit: func(p *plan.Plan) int {
			withoutSeccomp().edit(p)
			if a.edit == nil {
				return 1
			}
			return a.edit(p)
		}}
		err = open.want(&spec.Sandbox{}, line{"keyring", fmt.Sprint("!ok:", ours)}, line{"keyring", "!ENOSYS"})
		a.changed += open.changed
		return err
	}, without(plan.Keyring{}))
}

// TestDescriptors leaves many descriptors without close-on-exec around,
// directories among them, as careless programs do.
func TestDescriptors(t *testing.T) {
	needSandbox(t)
	var opened []int
	defer func() {
		for _, fd := range opened {
			_ = unix.Close(fd)
		}
	}()
	open := func(fd int, err error) int {
		if err != nil {
			t.Fatal(err)
		}
		opened = append(opened, fd)
		return fd
	}
	for i := range 20 {
		dir := open(unix.Open("/", unix.O_DIRECTORY, 0))
		open(unix.Open("/etc/passwd", unix.O_RDONLY, 0))
		open(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0))
		open(unix.FcntlInt(uintptr(dir), unix.F_DUPFD, 300+10*i))
	}
	lines := []line{{"fds", "ok:0 1 2"}}
	FailsWithout(t, func(a *attempt) error {
		if err := a.want(&spec.Sandbox{}, lines...); err != nil {
			return err
		}
		for fd := 3; fd < 16; fd++ { // CVE-2024-21626: the working directory by a descriptor
			a := &attempt{TB: t}
			err := a.want(&spec.Sandbox{Workdir: fmt.Sprintf("/proc/self/fd/%d", fd)}, line{"exists /etc/os-release", absent}, line{"cwd", "!ok:(unreachable)"}, line{"exists ../../../../../../usr", absent})
			if err != nil && a.refused == nil {
				return err
			}
		}
		return nil
	},
		without(plan.CloseInherited{}).needed(), // the steps know what each descriptor will be
	)
}

func TestExtraFiles(t *testing.T) {
	needSandbox(t)
	for _, terminal := range []bool{false, true} {
		var files []*os.File
		for i := range 3 {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			fmt.Fprintf(w, "file %d", i)
			w.Close()
			files = append(files, r)
		}
		lines := []line{{"fds", "ok:0 1 2 3 4 5"}, {"readfd 3", "ok:file 0"}, {"readfd 4", "ok:file 1"}, {"readfd 5", "ok:file 2"}}
		a := &attempt{TB: t}
		c := a.probe(&spec.Sandbox{Terminal: terminal}, questions(lines)...)
		c.ExtraFiles = files
		if err := a.wantCmd(c, lines...); err != nil {
			t.Errorf("terminal %v: %v", terminal, err)
		}
	}
}

// TestEnvironment: a few constants and what was given; nothing of ours.
func TestEnvironment(t *testing.T) {
	needSandbox(t)
	t.Setenv("NUCLEUS_SECRET", "token")
	t.Setenv("PATH", os.Getenv("PATH")+":/opt/secret")
	t.Setenv("LC_ALL", "de_DE")
	FailsWithout(t, func(a *attempt) error {
		answers, err := a.ask(&spec.Sandbox{Env: []string{"A=1", "A=2", "TERM=x", "EMPTY="}}, "env")
		if err != nil {
			return err
		}
		got := strings.Split(strings.TrimPrefix(answers[0], "ok:"), "\n")
		slices.Sort(got)
		want := []string{"A=2", "EMPTY=", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=x", "USER=root"}
		if !slices.Equal(got, want) {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		return nil
	}, change("with ours", func(a *plan.Exec) bool { a.Env = append(a.Env, os.Environ()...); return true }))
}

func TestLoaderVariablesAreRefused(t *testing.T) {
	for _, kv := range []string{"LD_PRELOAD=/x", "LD_LIBRARY_PATH=/x", "LD_AUDIT=x", "GLIBC_TUNABLES=x", "GCONV_PATH=/x", "LOCPATH=/x", "NLSPATH=/x", "=x", "A", "1A=x", "A-B=x", "A=\x00"} {
		var e *nucleus.Error
		c := nucleus.Command(&spec.Sandbox{}, "x")
		c.Env = []string{kv}
		if err := c.Start(); !errors.As(err, &e) || !errors.Is(err, nucleus.ErrInvalid) || e.Because != "env" {
			t.Errorf("%q: got %v, want an invalid env", kv, err)
		}
	}
}

// TestResourceLimits looks at the limits of a process. A limit that this machine
// has by itself says nothing about the step, so its control is left out, and logged.
func TestResourceLimits(t *testing.T) {
	needSandbox(t)
	var nofile, own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &nofile); err != nil {
		t.Fatal(err)
	}
	memlock := uint64(spec.DefaultMemlock)
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &own); err != nil {
		t.Fatal(err)
	}
	memlock = min(memlock, own.Max)
	for _, tc := range []struct {
		name     string
		resource int
		question string
		want     string
	}{
		{"RLIMIT_CORE", unix.RLIMIT_CORE, fmt.Sprint("rlimit ", unix.RLIMIT_CORE), "ok:0 0"},
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, "nofile /bin/pause", fmt.Sprintf("ok:%d %d", min(1024, nofile.Max), nofile.Max)},
		{"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK, fmt.Sprint("rlimit ", unix.RLIMIT_MEMLOCK), fmt.Sprintf("ok:%d %d", memlock, memlock)},
		{"RLIMIT_NPROC", unix.RLIMIT_NPROC, fmt.Sprint("rlimit ", unix.RLIMIT_NPROC), "ok:513 513"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := unix.Getrlimit(tc.resource, &own); err != nil {
				t.Fatal(err)
			}
			var controls []control
			if fmt.Sprintf("ok:%d %d", int64(own.Cur), int64(own.Max)) != tc.want {
				controls = append(controls, remove(tc.name, func(s plan.Step) bool { r, ok := s.Do.(plan.Rlimit); return ok && r.Name == tc.name }))
			} else {
				t.Logf("%s is %s here without a sandbox: nothing to remove", tc.name, tc.want)
			}
			FailsWithout(t, func(a *attempt) error {
				return a.want(&spec.Sandbox{Tmpfs: []spec.Tmpfs{{Target: "/bin", Exec: true}}}, line{tc.question, tc.want})
			}, controls...)
		})
	}
	t.Run("memlock", func(t *testing.T) {
		a := &attempt{TB: t}
		if err := a.want(&spec.Sandbox{Limits: spec.Limits{Memlock: 16 * spec.KiB}}, line{"mlock 16384", "ok"}, line{"mlock 65536", "ENOMEM|EAGAIN|EPERM"}); err != nil {
			t.Error(err)
		}
	})
}

// TestSession: not the caller's session, no terminal to type into.
func TestSession(t *testing.T) {
	needSandbox(t)
	FailsWithout(t, func(a *attempt) error {
		return a.want(&spec.Sandbox{}, line{"sid", "ok:true"}, line{"open rw /dev/tty", "ENXIO"})
	}, without(plan.NewSession{}))
}

func TestUmaskAndDirectory(t *testing.T) {
	needSandbox(t)
	dir := t.TempDir()
	FailsWithout(t, func(a *attempt) error {
		return a.want(&spec.Sandbox{}, line{"umask", "ok:0022"}, line{"cwd", "ok:/"})
	}, remove("umask", func(s plan.Step) bool { u, ok := s.Do.(plan.Umask); return ok && u.Mask != 0 }))
	FailsWithout(t, func(a *attempt) error {
		return errors.Join(
			a.want(&spec.Sandbox{Workspace: &spec.Bind{Source: dir}}, line{"cwd", "ok:/workspace"}),
			a.want(&spec.Sandbox{Workspace: &spec.Bind{Source: dir}, Workdir: "/tmp"}, line{"cwd", "ok:/tmp"}))
	}, without(plan.Chdir{}))
	for _, bad := range []string{"/nowhere", "/proc/self/fd/0"} {
		c := nucleus.Command(&spec.Sandbox{Workdir: bad}, "x")
		var e *nucleus.Error
		if err := c.Run(); !errors.As(err, &e) || e.Op != "chdir" {
			t.Errorf("workdir %s: got %v, want a failed chdir", bad, err)
		}
	}
}

// TestStartLeavesUsAlone: a start changes nothing about the process that makes it. Clearing its
// dumpable flag for good, for one, would hide it from its debugger.
func TestStartLeavesUsAlone(t *testing.T) {
	needSandbox(t)
	look := func() string {
		dump, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		status, err2 := os.ReadFile("/proc/self/status")
		if err = errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		out := fmt.Sprint("dumpable ", dump, " umask ", unix.Umask(0o022), "\n")
		for l := range bytes.Lines(status) {
			for _, f := range []string{"Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn"} {
				if bytes.HasPrefix(l, []byte(f)) {
					out += string(l)
				}
			}
		}
		return out
	}
	unix.Umask(0o022)
	before := look()
	for range 3 {
		if err := (&attempt{TB: t}).want(&spec.Sandbox{}, line{"cwd", "ok:/"}); err != nil {
			t.Fatal(err)
		}
	}
	if after := look(); after != before {
		t.Errorf("got\n%s\nwant\n%s", after, before)
	}
}
