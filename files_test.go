package nucleus_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/spec"
)

const (
	readOnly = plan.Attr(abi.MountAttrReadOnly)
	noSuid   = plan.Attr(abi.MountAttrNoSuid)
	noDev    = plan.Attr(abi.MountAttrNoDev)
	noExec   = plan.Attr(abi.MountAttrNoExec)
)

// writableRoot leaves the sandbox's own root writable.
func writableRoot() control {
	return change("without read-only root", func(a *plan.SetAttr) bool {
		if a.Path != "/" {
			return false
		}
		a.Attr &^= readOnly
		return true
	})
}

// TestRootIsReadOnly: two walls, the mount and Landlock.
func TestRootIsReadOnly(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Landlock)
	FailsWithout(t, func(a *attempt) error {
		var lines []line
		for _, dir := range []string{"", "/etc", "/var", "/run", "/dev"} {
			lines = append(lines, line{"open new " + dir + "/new", refused}, line{"mkdir " + dir + "/new.d", refused})
		}
		lines = append(lines, line{"open w /etc/passwd", refused}, line{"remove /etc/passwd", refused}, line{"rename /etc/passwd /tmp/passwd", refused + "|EXDEV"})
		return a.want(&spec.Sandbox{}, lines...)
	},
		writableRoot().holds(),
		without(plan.Landlock{}).holds(),
		together(writableRoot(), without(plan.Landlock{})),
	)
}

// TestReadOnlyVolume writes to a directory that its own owner mounts read-only,
// so that nothing but the mount and Landlock stands in the way: both do.
func TestReadOnlyVolume(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Landlock)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "old"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	FailsWithout(t, func(a *attempt) error {
		s := &spec.Sandbox{Volumes: []spec.Volume{{Source: dir, Target: "/vol"}}, Context: &spec.Bind{Source: dir}}
		var lines []line
		for _, at := range []string{"/vol", "/context"} {
			lines = append(lines, line{"open w " + at + "/old", refused}, line{"open new " + at + "/new", refused},
				line{"remove " + at + "/old", refused}, line{"mkdir " + at + "/d", refused}, line{"read " + at + "/old", "ok:old"})
		}
		return a.want(s, lines...)
	},
		clearAttr("read-only", readOnly).holds(),
		without(plan.Landlock{}).holds(),
		together(clearAttr("read-only", readOnly), without(plan.Landlock{})),
	)
}

// TestToolchainIsReadOnly writes to the host's /usr as a root that could. The
// question opens a file for writing and changes nothing.
func TestToolchainIsReadOnly(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root, sandboxtest.Landlock, sandboxtest.Program("/usr/bin/env"))
	const file = "/usr/lib/os-release"
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	FailsWithout(t, func(a *attempt) error {
		// Root, and no capability: what root owns it may write.
		return a.want(&spec.Sandbox{Toolchain: true, Userns: spec.UsernsHost}, line{"open w " + file, refused}, line{"open r " + file, "ok"})
	},
		clearAttr("read-only", readOnly).holds(),
		without(plan.Landlock{}).holds(),
		together(clearAttr("read-only", readOnly), without(plan.Landlock{})),
	)
}

// TestSubmounts: a mount below a mounted directory is as read-only as that. A
// remount of the top alone leaves it writable.
func TestSubmounts(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root, sandboxtest.Landlock)
	privately(t, func() {
		top := t.TempDir()
		for _, dir := range []string{top + "/sub", "/usr/games"} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("sub", dir, "tmpfs", 0, "mode=1777"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			if err := os.WriteFile(dir+"/file", nil, 0o666); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir+"/file", 0o666); err != nil {
				t.Fatal(err)
			}
		}
		flat := change("without recursion", func(a *plan.SetAttr) bool { was := a.Recursive; a.Recursive = false; return was })
		FailsWithout(t, func(a *attempt) error {
			return a.want(&spec.Sandbox{Toolchain: true}, line{"open new /usr/games/new", refused}, line{"open w /usr/games/file", refused}, line{"open r /usr/games/file", "ok"})
		}, flat.holds(), without(plan.Landlock{}).holds(), together(flat, without(plan.Landlock{})))
		for _, userns := range []spec.Userns{spec.UsernsPrivate, spec.UsernsHost} {
			s := &spec.Sandbox{Userns: userns, Volumes: []spec.Volume{{Source: top, Target: "/vol"}}}
			a := &attempt{TB: t, edit: without(plan.Landlock{}).edit}
			if err := a.want(s, line{"open new /vol/sub/new", refused}, line{"open w /vol/sub/file", refused}, line{"open r /vol/sub/file", "ok"}); err != nil {
				t.Errorf("userns %q: %v", userns, err)
			}
		}
	})
}

// TestNoExec: what the workload can write it cannot execute, unless asked. The
// mount and Landlock both refuse.
func TestNoExec(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Landlock)
	work := t.TempDir()
	lines := func(want string) (out []line) {
		for _, dir := range []string{"/tmp", "/root", "/dev/shm", "/workspace", "/scratch"} {
			out = append(out, line{"elf " + dir + "/prog exit7", want})
		}
		return out
	}
	box := func(exec bool) *spec.Sandbox {
		return &spec.Sandbox{Workspace: &spec.Bind{Source: work, Exec: exec}, Tmpfs: []spec.Tmpfs{{Target: "/scratch", Exec: exec}}}
	}
	FailsWithout(t, func(a *attempt) error { return a.want(box(false), lines("EACCES")...) },
		clearAttr("noexec", noExec).holds(),
		without(plan.Landlock{}).holds(),
		together(clearAttr("noexec", noExec), without(plan.Landlock{})),
	)
	t.Run("by a loader", func(t *testing.T) {
		FailsWithout(t, func(a *attempt) error {
			return a.want(box(false), line{"mapexec /tmp/lib", "EPERM"}, line{"mapexec /workspace/lib", "EPERM"})
		}, clearAttr("noexec", noExec))
	})
	t.Run("asked for", func(t *testing.T) {
		s := box(true)
		s.Tmpfs = append(s.Tmpfs, spec.Tmpfs{Target: "/tmp", Exec: true}, spec.Tmpfs{Target: "/root", Exec: true}, spec.Tmpfs{Target: "/dev/shm", Exec: true})
		if err := (&attempt{TB: t}).want(s, lines("exit 7")...); err != nil {
			t.Error(err)
		}
	})
}

// TestNoDevices opens device nodes that lie in volumes.
func TestNoDevices(t *testing.T) {
	needSandbox(t)
	t.Run("file", func(t *testing.T) {
		sandboxtest.Need(t, sandboxtest.User) // root translates owners, which devtmpfs cannot
		FailsWithout(t, func(a *attempt) error {
			return a.want(&spec.Sandbox{Volumes: []spec.Volume{{Source: "/dev/zero", Target: "/zero", Writable: true}}},
				line{"exists /zero", "ok"}, line{"open r /zero", "EACCES"}, line{"open w /zero", "EACCES"})
		}, clearAttr("nodev", noDev))
	})
	t.Run("directory", func(t *testing.T) {
		sandboxtest.Need(t, sandboxtest.Root)
		dir := plainDir(t)
		if err := unix.Mknod(dir+"/full", unix.S_IFCHR|0o666, 1<<8|7); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir+"/full", 0o666); err != nil {
			t.Fatal(err)
		}
		FailsWithout(t, func(a *attempt) error {
			return a.want(&spec.Sandbox{Workspace: &spec.Bind{Source: dir}}, line{"exists /workspace/full", "ok"}, line{"open r /workspace/full", "EACCES"})
		}, clearAttr("nodev", noDev))
	})
}

// TestSetuid executes a file that belongs to root and has its set-user-id bit.
// The host's user namespace is kept: in a private one such a file's owner is
// nobody whom the sandbox could become.
func TestSetuid(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	dir := plainDir(t)
	program := dir + "/setuid"
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	body := func(userns spec.Userns) func(a *attempt) error {
		return func(a *attempt) error {
			s := &spec.Sandbox{Userns: userns, User: spec.User{UID: 1000, GID: 1000}, Volumes: []spec.Volume{{Source: program, Target: probePath, Exec: true}}}
			return a.wantCmd(a.command(s, probePath, "ids"), line{"ids", "ok:1000 1000 1000 1000 []"})
		}
	}
	// Without no_new_privs the kernel takes no filter and no Landlock rules from
	// a process without capabilities.
	privs := together(without(plan.NoNewPrivs{}), without(plan.Landlock{}), withoutSeccomp())
	FailsWithout(t, body(spec.UsernsHost),
		clearAttr("nosuid", noSuid).holds(),
		privs.holds(),
		without(plan.NoNewPrivs{}).needed(),
		together(clearAttr("nosuid", noSuid), privs),
	)
	t.Run("private", func(t *testing.T) {
		FailsWithout(t, body(spec.UsernsPrivate), together(clearAttr("nosuid", noSuid), privs).holds())
	})
}

// TestProcMasks: the files that the OCI runtimes cover are empty.
func TestProcMasks(t *testing.T) {
	needSandbox(t)
	unmask := remove("masks", func(s plan.Step) bool {
		a, ok := s.Do.(plan.MoveMount)
		return ok && strings.HasPrefix(string(a.From), "mask ")
	})
	for _, userns := range []spec.Userns{spec.UsernsPrivate, spec.UsernsHost} {
		t.Run("userns "+string(userns), func(t *testing.T) {
			masked := slices.Clone(plan.MaskedPaths)
			if userns == spec.UsernsHost {
				sandboxtest.Need(t, sandboxtest.Root)
				masked = append(masked, plan.RootMaskedPaths...)
			}
			FailsWithout(t, func(a *attempt) error {
				var lines []line
				for _, p := range masked {
					switch st, err := os.Stat(p); {
					case err != nil:
						lines = append(lines, line{"read " + p, "ok:|ENOENT"})
					case st.IsDir():
						lines = append(lines, line{"ls " + p, "ok:"}, line{"open new " + p + "/x", refused})
					default:
						lines = append(lines, line{"read " + p, "ok:"})
					}
				}
				return a.want(&spec.Sandbox{Userns: userns}, lines...)
			}, unmask)
		})
	}
}

// TestProcIsReadOnly opens settings that belong to the sandbox's root, or to the
// host's where that is the same, and writes nothing.
func TestProcIsReadOnly(t *testing.T) {
	needSandbox(t)
	writable := remove("read-only /proc", func(s plan.Step) bool {
		a, ok := s.Do.(plan.MoveMount)
		return ok && strings.HasPrefix(string(a.From), "ro ")
	})
	t.Run("private", func(t *testing.T) {
		FailsWithout(t, func(a *attempt) error {
			// The IPC settings belong to the namespace's root since 6.11.
			return a.want(&spec.Sandbox{}, line{"open w /proc/sys/kernel/shmmax", refused}, line{"open w /proc/sys/fs/mqueue/msg_max", refused}, line{"open w /proc/sys/net/ipv4/ip_forward", refused}, line{"open w /proc/sys/kernel/hostname", refused},
				line{"open w /proc/sys/kernel/core_pattern", refused}, line{"open w /proc/sysrq-trigger", refused + "|ENOENT"},
				line{"open w /proc/sys/user/max_user_namespaces", refused}, line{"open r /proc/sys/net/ipv4/ip_forward", "ok"})
		}, writable)
	})
	t.Run("host", func(t *testing.T) {
		sandboxtest.Need(t, sandboxtest.Root)
		FailsWithout(t, func(a *attempt) error {
			return a.want(&spec.Sandbox{Userns: spec.UsernsHost}, line{"open w /proc/sysrq-trigger", refused + "|ENOENT"}, line{"open w /proc/sys/kernel/core_pattern", refused},
				line{"open w /proc/sys/kernel/modprobe", refused + "|ENOENT"}, line{"open w /proc/irq/default_smp_affinity", refused + "|ENOENT"})
		}, writable)
	})
	// Remounting is not possible any more, by the old interface or the new one.
	if err := (&attempt{TB: t}).want(&spec.Sandbox{},
		line{fmt.Sprintf("call %d s:none s:/proc/sys s: 0x1020 0", unix.SYS_MOUNT), "EPERM"},
		line{fmt.Sprintf("call %d -100 s:/proc/sys 0 z:32 32", unix.SYS_MOUNT_SETATTR), "EPERM"}); err != nil {
		t.Error(err)
	}
}

// TestNoSys: no /sys, no cgroup file system, no debugfs.
func TestNoSys(t *testing.T) {
	needSandbox(t)
	FailsWithout(t, func(a *attempt) error {
		return a.want(&spec.Sandbox{Toolchain: true}, line{"exists /sys", absent}, line{"exists /boot", absent}, line{"exists /host", absent})
	}, together(insert[plan.OpenTree]("with /sys", plan.OpenTree{Source: "/sys", Recursive: true, As: "test"}),
		insert[plan.MakeLink]("mounted", plan.Mkdir{Path: "/sys", Mode: 0o755}, plan.MoveMount{From: "test", To: "/sys"})))
}

// TestDev: a /dev that works for every user, and has nothing else.
func TestDev(t *testing.T) {
	needSandbox(t)
	for _, uid := range []uint32{0, 1000} {
		t.Run(fmt.Sprintf("uid %d", uid), func(t *testing.T) {
			FailsWithout(t, func(a *attempt) error {
				return a.want(&spec.Sandbox{User: spec.User{UID: uid, GID: uid}},
					line{"write /dev/null x", "ok"}, line{"write /dev/zero x", "ok"}, line{"write /dev/full x", "ENOSPC"}, line{"read /dev/null", "ok:"},
					line{"open r /dev/random", "ok"}, line{"open r /dev/urandom", "ok"}, line{"open rw /dev/tty", "ENXIO"},
					line{"open rw /dev/ptmx", "ok"}, line{"open new /dev/shm/x", "ok"}, line{"open rw /dev/stdin", "!ENOENT"}, line{"readlink /dev/fd", "ok:/proc/self/fd"},
					line{"ls /dev", "ok:fd full null ptmx pts random shm stderr stdin stdout tty urandom zero|ok:.empty fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"},
					line{"ls /dev/shm", "ok:x"})
			},
				remove("/dev/null", mountAt("/dev/null")), remove("/dev/pts", mountAt("/dev/pts")), remove("/dev/shm", mountAt("/dev/shm")),
				insert[plan.MakeLink]("with one more", plan.Mkdir{Path: "/dev/mem", Mode: 0o755}))
		})
	}
}

// TestTmp: everybody's, and bounded.
func TestTmp(t *testing.T) {
	needSandbox(t)
	FailsWithout(t, func(a *attempt) error {
		answers, err := a.ask(&spec.Sandbox{User: spec.User{UID: 1000, GID: 1000}}, "stat /tmp", "stat /dev/shm", "stat /home/user", "open new /tmp/x", "open new /home/user/x", "open new /var/tmp/y")
		if err != nil {
			return err
		}
		var errs []error
		for i, want := range []string{"ok:41777 ", "ok:41777 ", "ok:40700 1000 1000"} {
			if !strings.HasPrefix(answers[i], want) {
				errs = append(errs, fmt.Errorf("answer %d: got %s, want %s", i, answers[i], want))
			}
		}
		for i, got := range answers[3:] {
			if got != "ok" {
				errs = append(errs, fmt.Errorf("new file %d: got %s, want ok", i, got))
			}
		}
		return errors.Join(errs...)
	}, change("with another mode", func(a *plan.Mkdir) bool {
		was := a.Mode
		if a.Path == "/tmp" {
			a.Mode = 0o755
		}
		return a.Mode != was
	}))
}

// TestEtc: the sandbox's own accounts, and none of the host's secrets.
func TestEtc(t *testing.T) {
	needSandbox(t)
	FailsWithout(t, func(a *attempt) error {
		var lines []line
		for _, f := range []string{"shadow", "shadow-", "gshadow", "sudoers", "ssh", "machine-id", "security", "krb5.keytab", "ssl/private", "crontab", "fstab", "hostid", "mtab", "passwd-", "subuid", "NetworkManager", "systemd"} {
			lines = append(lines, line{"exists /etc/" + f, absent})
		}
		lines = append(lines, line{"read /etc/passwd", "ok:root:x:0:0:root:/:/bin/sh\nme:x:1000:100::/home/me:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
			line{"exists /var/lib", absent}, line{"exists /root", absent}, line{"exists /home/me", "ok"}, line{"ls /home", "ok:me"})
		return a.want(&spec.Sandbox{Toolchain: true, User: spec.User{UID: 1000, GID: 100, Name: "me"}}, lines...)
	},
		insert[plan.WriteFile]("with a shadow file", plan.Touch{Path: "/etc/shadow"}),
		change("with another passwd", func(a *plan.WriteFile) bool { a.Data += "x"; return a.Path == "/etc/passwd" }))
}

// TestHostSockets: a socket of the host is reached neither by its file nor by
// its abstract name.
func TestHostSockets(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Landlock)
	dir := t.TempDir()
	abstract := fmt.Sprintf("@nucleus-test-%d", os.Getpid())
	for _, name := range []string{filepath.Join(dir, "s"), abstract} {
		l, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	known := []string{"/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/run/systemd/private",
		"/run/systemd/journal/socket", "/run/dbus/system_bus_socket", "/dev/log", "/tmp/tmux-0/default", "/tmp/.X11-unix/X0",
		fmt.Sprintf("/run/user/%d/bus", os.Getuid()), filepath.Join(dir, "s")}
	if agent := os.Getenv("SSH_AUTH_SOCK"); agent != "" {
		known = append(known, agent)
	}
	t.Run("by file", func(t *testing.T) {
		FailsWithout(t, func(a *attempt) error {
			var lines []line
			for _, s := range known {
				lines = append(lines, line{"connect " + s, absent})
			}
			return a.want(&spec.Sandbox{Toolchain: true}, lines...)
		}, hostDir(dir))
	})
	noNet := together(withoutNamespace("net", abi.CloneNewNet), without(plan.LoopbackUp{}))
	t.Run("by abstract name", func(t *testing.T) {
		FailsWithout(t, func(a *attempt) error {
			return a.want(&spec.Sandbox{}, line{"connect " + abstract, "ECONNREFUSED|EPERM"})
		}, append([]control{together(noNet, without(plan.Landlock{}))}, scoped(noNet.holds())...)...)
	})
}

// hostDir shows a directory of the host at its own place.
func hostDir(dir string) control {
	var made []plan.Action
	for d := dir; d != "/"; d = filepath.Dir(d) {
		made = append(made, plan.Mkdir{Path: d, Mode: 0o755})
	}
	slices.Reverse(made)
	made = append(made, plan.MoveMount{From: "test", To: dir})
	// The sandbox's own /tmp would cover it.
	own := remove("/tmp", func(s plan.Step) bool {
		switch a := s.Do.(type) {
		case plan.Mkdir:
			return a.Path == "/tmp"
		case plan.MoveMount:
			return a.To == "/tmp"
		case plan.OpenTree:
			return a.Source == "/tmp"
		case plan.SetAttr:
			return a.FD == "scratch /tmp"
		}
		return false
	})
	return together(own, insert[plan.OpenTree]("with a host directory", plan.OpenTree{Source: dir, As: "test"}), insert[plan.MakeLink]("mounted", made...))
}

// scoped keeps controls that need Landlock's scopes, which came with ABI 6.
func scoped(controls ...control) []control {
	if landlockABI() < 6 {
		return nil
	}
	return controls
}

func landlockABI() int {
	abi, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1)
	if errno != 0 {
		return 0
	}
	return int(abi)
}

// TestSignalScope takes the process namespace away and leaves Landlock: a
// process of the same user outside is in sight, and not in reach.
func TestSignalScope(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.User, sandboxtest.Landlock)
	rules := change("its rule", func(a *plan.Landlock) bool {
		a.Rules.Rules = slices.DeleteFunc(slices.Clone(a.Rules.Rules), func(r landlock.PathRule) bool { return r.Path == "/proc" })
		return true
	})
	open := together(withoutNamespace("pid", abi.CloneNewPID), remove("proc", func(s plan.Step) bool { return s.Because == "proc" }), rules)
	FailsWithout(t, func(a *attempt) error {
		return a.want(&spec.Sandbox{}, line{fmt.Sprintf("kill %d 0", os.Getpid()), "ESRCH|EPERM"})
	}, append([]control{together(open, without(plan.Landlock{}))}, scoped(open.holds())...)...)
}
