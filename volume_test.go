package nucleus_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestVolumes: files and directories, by links and by relative names.
func TestVolumes(t *testing.T) {
	needSandbox(t)
	dir := t.TempDir()
	write(t, dir+"/real/file", "content")
	for link, target := range map[string]string{"link": "real", "filelink": "real/file", "chain": "link"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	s := &spec.Sandbox{
		Context: &spec.Bind{Source: "link"},
		Volumes: []spec.Volume{
			{Source: dir + "/chain", Target: "/chain"}, {Source: dir + "/filelink", Target: "/deep/er/file"},
			{Source: "./real/file", Target: "/rw", Writable: true}, {Source: dir + "/real", Target: "/outer"},
			{Source: dir + "/real/file", Target: "/outer/file"}, // it must exist there, and does
			{Source: dir + "/real", Target: "/tmp"},             // instead of the sandbox's own
		},
	}
	if err := (&attempt{TB: t}).want(s, line{"read /context/file", "ok:content"}, line{"read /chain/file", "ok:content"}, line{"read /deep/er/file", "ok:content"},
		line{"read /outer/file", "ok:content"}, line{"write /deep/er/file x", refused}, line{"write /rw CONTENT", "ok"}, line{"read /tmp/file", "ok:CONTENT"},
		line{"open new /tmp/x", refused}, line{"ls /context/..", "ok:chain context deep dev etc outer probe proc root run rw tmp var"}); err != nil {
		t.Error(err)
	}
	for _, bad := range []struct {
		source, target string
		is             error
	}{{dir + "/none", "/x", nucleus.ErrInvalid}, {dir + "/real/file/x", "/x", nucleus.ErrInvalid}, {dir, "/outer/none", os.ErrNotExist}} {
		s := &spec.Sandbox{Volumes: []spec.Volume{{Source: dir + "/real", Target: "/outer"}, {Source: bad.source, Target: bad.target}}}
		if err := nucleus.Command(s, "x").Run(); !errors.Is(err, bad.is) {
			t.Errorf("%s on %s: got %v, want %v", bad.source, bad.target, err, bad.is)
		}
	}
	if _, err := os.Stat(dir + "/real/none"); err == nil {
		t.Error("a failed start made a directory on the host")
	}
}

// TestWorkspaceOwner: what the sandbox of root makes in a directory belongs to
// the directory's owner, under whatever name the sandbox knows it; other owners'
// files stay closed. The parent is private: the directory is opened by
// descriptor before the sandbox has another user.
func TestWorkspaceOwner(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	private := filepath.Join(t.TempDir(), "private")
	dir := private + "/work"
	write(t, dir+"/mine", "mine")
	write(t, dir+"/other", "secret")
	for _, c := range []struct {
		path     string
		uid, gid int
		mode     os.FileMode
	}{{dir, 1234, 1235, 0o700}, {dir + "/mine", 1234, 1235, 0o600}, {dir + "/other", 4321, 4321, 0o600}, {private, 0, 0, 0o700}} {
		if err := errors.Join(os.Chown(c.path, c.uid, c.gid), os.Chmod(c.path, c.mode)); err != nil {
			t.Fatal(err)
		}
	}
	for _, uid := range []uint32{0, 1000} {
		FailsWithout(t, func(a *attempt) error {
			s := &spec.Sandbox{User: spec.User{UID: uid, GID: uid}, Workspace: &spec.Bind{Source: dir}}
			err := a.want(s, line{"open new new", "ok"}, line{"mkdir new.d", "ok"}, line{"read mine", "ok:mine"}, line{"write mine MINE", "ok"}, line{"write mine mine", "ok"},
				line{"stat new", fmt.Sprintf("ok:100644 %d %d", uid, uid)}, line{"stat other", "ok:100600 65534 65534"}, line{"read other", "EACCES"},
				line{"chown new 5", "EPERM|EINVAL|EOVERFLOW"}, line{"chmod other", "EPERM|EOVERFLOW"}, line{"remove other", "ok|EPERM|EOVERFLOW"})
			var st, st2 unix.Stat_t
			if e := errors.Join(unix.Stat(dir+"/new", &st), unix.Stat(dir+"/new.d", &st2)); e == nil && (st.Uid != 1234 || st.Gid != 1235 || st2.Uid != 1234) {
				err = errors.Join(err, fmt.Errorf("on the host: got owner %d:%d and %d, want 1234:1235", st.Uid, st.Gid, st2.Uid))
			}
			_ = os.Remove(dir + "/new")
			_ = os.Remove(dir + "/new.d")
			write(t, dir+"/other", "secret")
			return errors.Join(err, os.Chown(dir+"/other", 4321, 4321), os.Chmod(dir+"/other", 0o600))
		}, change("without translation", func(a *plan.HostTree) bool { a.IDMap = false; return true }).needed())
	}
}

// TestWorkspaceOfUser: rootless, the workspace's files are the caller's.
func TestWorkspaceOfUser(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.User)
	dir := t.TempDir()
	for _, uid := range []uint32{0, 1000} {
		s := &spec.Sandbox{User: spec.User{UID: uid, GID: uid}, Workspace: &spec.Bind{Source: dir}}
		if err := (&attempt{TB: t}).want(s, line{"open new new", "ok"}, line{"stat new", fmt.Sprintf("ok:100644 %d %d", uid, uid)}); err != nil {
			t.Error(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(dir+"/new", &st); err != nil || int(st.Uid) != os.Getuid() || int(st.Gid) != os.Getgid() {
			t.Errorf("on the host: got %d:%d, %v, want %d:%d", st.Uid, st.Gid, err, os.Getuid(), os.Getgid())
		}
		if err := os.Remove(dir + "/new"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPropagation: a directory whose mounts the host shares, as systemd has them
// all, is not shared with the sandbox. What is mounted inside does not appear
// outside, nor the other way round.
func TestPropagation(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	privately(t, func() {
		dir, other := t.TempDir(), t.TempDir()
		mount := func(source, target, fs string, flags uintptr) {
			t.Helper()
			if err := unix.Mount(source, target, fs, flags, ""); err != nil {
				t.Fatal(err)
			}
		}
		mount("shared", dir, "tmpfs", 0)
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		mount("", dir, "", unix.MS_SHARED)
		write(t, dir+"/sub/file", "sub")
		write(t, dir+"/late/file", "late")
		write(t, other+"/marker", "")
		before, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for _, userns := range []spec.Userns{spec.UsernsPrivate, spec.UsernsHost} {
			s := &spec.Sandbox{Userns: userns, Workspace: &spec.Bind{Source: dir}, Volumes: []spec.Volume{{Source: other, Target: "/workspace/sub"}}}
			c := (&attempt{TB: t}).command(withProbe(s), probePath, "signals")
			out := started(t, c, "ready")
			now, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil || string(now) != string(before) {
				t.Errorf("userns %q: the host's mounts became, %v,\n%s", userns, err, now)
			}
			mount("late", dir+"/late", "tmpfs", 0)
			inside, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.Process.Pid()))
			if err != nil || strings.Contains(string(inside), " late ") || strings.Contains(string(inside), "shared:") || strings.Contains(string(inside), "master:") {
				t.Errorf("userns %q: inside, %v,\n%s", userns, err, inside)
			}
			if err := unix.Unmount(dir+"/late", 0); err != nil {
				t.Error(err)
			}
			if err := c.Process.Kill(); err != nil {
				t.Error(err)
			}
			_ = c.Wait()
			drained(t, out)
		}
	})
}

// TestHostUserns: the way out keeps the host's ids, without any capability, and
// is reported.
func TestHostUserns(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	dir := t.TempDir()
	s := &spec.Sandbox{Userns: spec.UsernsHost, Workspace: &spec.Bind{Source: dir}}
	if !asRoot() {
		if err := nucleus.Command(s, "x").Run(); !errors.Is(err, nucleus.ErrUnsupported) {
			t.Errorf("as an ordinary user: got %v, want unsupported", err)
		}
		return
	}
	ours, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	lines := append(capLines("Prm", "Eff", "Bnd"), line{"readlink /proc/self/ns/user", "ok:" + ours}, line{"ids", "ok:0 0 0 0 []"},
		line{"open new new", "ok"}, line{"stat new", "ok:100644 0 0"}, line{"open w /etc/passwd", refused}, line{"exists /etc/shadow", absent},
		line{"chown new 5", "EPERM"}, line{fmt.Sprint("call ", unix.SYS_SETHOSTNAME, " s:x 1"), "EPERM"}, line{"open r /proc/kmsg", "!EPERM"}, line{"read /proc/kallsyms", "ok:"})
	if err := (&attempt{TB: t}).want(s, lines...); err != nil {
		t.Error(err)
	}
}

// snapshotTree is every name below dir with its mode and content.
func snapshotTree(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		entry := path + " " + info.Mode().String()
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			entry += " " + string(b)
		}
		all = append(all, entry)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestHostileLinks: a volume holds symbolic links that lead to the host, to the
// sandbox's own files and through proc; another volume's place is below them. The
// start may fail; it may not touch the host, and what it shows is inside.
func TestHostileLinks(t *testing.T) {
	needSandbox(t)
	victim, hostile, other := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, victim+"/sub/secret", "secret")
	write(t, other+"/marker", "other")
	links := map[string]string{
		"abs": victim, "up": "../../../../../../../.." + victim, "etc": "/etc", "self": "/proc/self/root", "init": "/proc/1/root",
		"cwd": "/proc/self/cwd", "fd": "/proc/self/fd/3", "loop": "loop", "root": "/", "usr": "/usr", "proc": "/proc", "dev": "/dev",
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(hostile, name)); err != nil {
			t.Fatal(err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	before := append(append(snapshotTree(t, victim), snapshotTree(t, hostile)...), snapshotTree(t, other)...)
	for name := range links {
		for _, below := range []string{"", "/sub", "/new"} {
			for _, workspace := range []bool{true, false} {
				s := &spec.Sandbox{Volumes: []spec.Volume{{Source: other, Target: "/workspace/" + name + below, Writable: true}}}
				if workspace {
					s.Workspace = &spec.Bind{Source: hostile}
				} else {
					s.Volumes = append(s.Volumes, spec.Volume{Source: hostile, Target: "/workspace"})
				}
				a := &attempt{TB: t}
				err := a.want(s, line{"exists " + victim, absent}, line{"exists /proc/self/root" + victim, absent},
					line{"read /workspace/" + name + below + "/secret", "!ok:secret"}, line{"read /workspace/" + name + "/sub/secret", "!ok:secret"},
					line{"cwd", "!ok:(unreachable)"}, line{"status CapEff", noCaps}, line{"status NoNewPrivs", "ok:1"})
				if err != nil && a.refused == nil {
					t.Errorf("%s%s, workspace %v: %v", name, below, workspace, err)
				}
			}
		}
	}
	after := append(append(snapshotTree(t, victim), snapshotTree(t, hostile)...), snapshotTree(t, other)...)
	if !slices.Equal(before, after) {
		t.Errorf("the host's files changed: got %q, want %q", after, before)
	}
	if now, err := os.ReadFile("/proc/self/mountinfo"); err != nil || string(now) != string(mounts) {
		t.Errorf("the host's mounts changed: %v\n%s", err, now)
	}
}

// TestLinkRace swaps a directory for a link to the host as fast as it can, while
// sandboxes start that mount a volume on it.
func TestLinkRace(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Long)
	victim, work, other := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, victim+"/d/secret", "secret")
	write(t, work+"/place/d/empty", "")
	write(t, other+"/marker", "other")
	if err := os.Symlink(victim, work+"/link"); err != nil {
		t.Fatal(err)
	}
	before := snapshotTree(t, victim)
	stop, swaps := make(chan struct{}), 0
	var racer sync.WaitGroup
	racer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, work+"/place", unix.AT_FDCWD, work+"/link", unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
			swaps++
		}
	})
	started, failed := 0, 0
	for range max(20, 300/int(sandboxtest.Slow())) {
		s := &spec.Sandbox{Workspace: &spec.Bind{Source: work}, Volumes: []spec.Volume{{Source: other, Target: "/workspace/place/d", Writable: true}}}
		a := &attempt{TB: t}
		err := a.want(s, line{"read /workspace/place/d/secret", "!ok:secret"}, line{"read /workspace/link/d/secret", "!ok:secret"}, line{"exists " + victim, absent}, line{"open new /workspace/place/d/x", "!"}, line{"status CapEff", noCaps})
		switch {
		case a.refused != nil:
			failed++
		case err != nil:
			t.Error(err)
		default:
			started++
		}
	}
	close(stop)
	racer.Wait()
	t.Logf("%d started, %d refused, %d swaps", started, failed, swaps)
	if after := snapshotTree(t, victim); !slices.Equal(before, after) {
		t.Errorf("the host's files changed: got %q, want %q", after, before)
	}
	if started == 0 || failed == 0 {
		t.Logf("the race was never close: %d started, %d refused", started, failed)
	}
}

// TestReadableIsDecidedByOwner: a file that only root may read, in a directory that
// root's sandbox shows to a user who is not its owner.
func TestReadableIsDecidedByOwner(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	dir := t.TempDir()
	write(t, dir+"/secret", "secret")
	if err := errors.Join(os.Chown(dir, 1234, 1234), os.Chmod(dir, 0o755), os.Chmod(dir+"/secret", 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := (&attempt{TB: t}).want(&spec.Sandbox{Context: &spec.Bind{Source: dir}}, line{"read /context/secret", "EACCES"}, line{"ls /context", "ok:secret"}); err != nil {
		t.Error(err)
	}
}
