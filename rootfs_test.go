package nucleus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// hostileRoot makes a root in which everything that could be taken for the
// sandbox's own leads to the host, or would if it were followed there. secret
// is a file of the host.
func hostileRoot(t *testing.T) (dir, secret string) {
	t.Helper()
	dir, secret = t.TempDir(), filepath.Join(t.TempDir(), "secret")
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	must(os.WriteFile(secret, []byte("of the host"), 0o644))
	for _, d := range []string{"etc", "usr/share/doc", "var/tmp"} {
		must(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	must(os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("of the root"), 0o644))
	must(os.WriteFile(filepath.Join(dir, "etc/private"), []byte("owner"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "top"), []byte("a file"), 0o644))
	host := filepath.Dir(secret)
	for _, name := range []string{"proc", "dev", "sys", "tmp", "run", "root", "home", "workspace", "away"} {
		must(os.Symlink(host, filepath.Join(dir, name)))
	}
	must(os.Symlink("../../../../../../../.."+host, filepath.Join(dir, "up")))
	must(os.Symlink(host, filepath.Join(dir, "etc/away")))
	must(os.Symlink("/usr/share", filepath.Join(dir, "etc/share")))
	must(os.Symlink("/proc/1/root"+host, filepath.Join(dir, "magic")))
	must(os.WriteFile(filepath.Join(dir, ".nucleus-rootfs-note"), []byte("about it"), 0o644))
	return dir, secret
}

// TestRootfs: a root of one's own is shown read-only, and nothing in it leads to
// the host or takes the place of what the sandbox furnishes.
func TestRootfs(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Landlock)
	dir, secret := hostileRoot(t)
	work := t.TempDir()
	name := filepath.Base(secret)
	FailsWithout(t, func(a *attempt) error {
		lines := []line{
			{"read /etc/passwd", "ok:of the root"}, {"read /etc/private", "ok:owner"}, {"read /top", "ok:a file"},
			{"open new /etc/new", refused}, {"open w /etc/passwd", refused}, {"remove /etc/passwd", refused}, {"mkdir /new", refused},
			{"open new /usr/share/new", refused}, {"open w /top", refused}, {"open new /var/tmp/new", refused},
			{"open new /tmp/new", "ok"}, {"open new /root/new", "ok"}, {"open new /workspace/new" + fmt.Sprint(len(a.Name())), "ok|EEXIST"},
			{"read " + secret, "ENOENT"}, {"exists /sys", "ENOENT"}, {"ls /run", "ok:nucleus"},
			{"exists /.nucleus-rootfs", "ENOENT"}, {"exists /.nucleus-rootfs-note", "ENOENT"},
			{"readlink /proc/self/exe", "ok:/probe"}, {"readlink /dev/fd", "ok:/proc/self/fd"},
		}
		for _, link := range []string{"/proc", "/dev", "/tmp", "/run", "/root", "/home", "/workspace", "/away", "/up", "/etc/away", "/magic"} {
			lines = append(lines, line{"read " + link + "/" + name, "ENOENT|EACCES"})
		}
		return a.want(&spec.Sandbox{Rootfs: &spec.Rootfs{Source: dir}, Workspace: &spec.Bind{Source: work}}, lines...)
	},
		clearAttr("read-only", readOnly).holds(),
		without(plan.Landlock{}).holds(),
		together(clearAttr("read-only", readOnly), without(plan.Landlock{})),
		without(plan.Unmount{}),
	)
}

// TestRootfsOwners: started by root, ids on disk are the same inside.
func TestRootfsOwners(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Root)
	dir, _ := hostileRoot(t)
	for name, id := range map[string]int{"etc/passwd": 7, "top": 65535, "usr": 70000} {
		if err := os.Chown(filepath.Join(dir, name), id, id); err != nil {
			t.Fatal(err)
		}
	}
	a := &attempt{TB: t}
	err := a.want(&spec.Sandbox{Rootfs: &spec.Rootfs{Source: dir}}, line{"stat /etc/passwd", "ok:100644 7 7"}, line{"stat /etc/private", "ok:100600 0 0"},
		line{"stat /usr", "ok:40755 65534 65534"})
	if err != nil {
		t.Error(err)
	}
	err = a.want(&spec.Sandbox{Rootfs: &spec.Rootfs{Source: dir}, User: spec.User{UID: 7, GID: 7}}, line{"read /etc/private", "EACCES"}, line{"chmod /etc/passwd", refused})
	if err != nil {
		t.Error(err)
	}
}

// TestRootfsIsVerified: a root that is not what its manifest says starts nothing.
func TestRootfsIsVerified(t *testing.T) {
	needSandbox(t)
	dir, _ := hostileRoot(t)
	if err := os.Remove(filepath.Join(dir, ".nucleus-rootfs-note")); err != nil {
		t.Fatal(err)
	}
	m, err := nucleus.AttestRootfs(context.Background(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, nucleus.RootfsManifest), m.Text, 0o644); err != nil {
		t.Fatal(err)
	}
	s := &spec.Sandbox{Rootfs: &spec.Rootfs{Source: dir, Attested: true, SHA256: m.SHA256}}
	ask := line{"read /etc/passwd", "ok:of the root"}
	if err := (&attempt{TB: t}).want(s, ask); err != nil {
		t.Errorf("as it was attested: %v", err)
	}
	other := *s
	other.Rootfs = &spec.Rootfs{Source: dir, SHA256: strings.Repeat("0", 64)}
	if err := (&attempt{TB: t}).want(&other, ask); err == nil {
		t.Error("it starts by a manifest with another digest")
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/added"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	a := &attempt{TB: t}
	err = a.want(s, ask)
	var step *nucleus.Error
	if !errors.As(err, &step) || step.Op != "rootfs.verify" || !strings.Contains(err.Error(), "etc/added") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a file was added: got %v", err)
	}
	FailsWithout(t, func(a *attempt) error {
		err := a.want(s, ask)
		if a.refused != nil && strings.Contains(a.refused.Error(), "etc/added") {
			a.refused = nil
			return nil
		}
		return errors.Join(err, errors.New("it was not compared"))
	}, without(plan.Attest{}))
	if err := nucleus.VerifyRootfs(context.Background(), dir, "", m.SHA256, nil); err == nil {
		t.Error("it is called what it was")
	}
}

// TestRootfsStore: the parts of a Nix store that a root names are shown, and no
// others.
func TestRootfsStore(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Root)
	const store = "/nix/store"
	var made []string
	for _, d := range []string{"/nix", store} {
		if os.Mkdir(d, 0o755) == nil {
			made = append(made, d)
		}
	}
	t.Cleanup(func() {
		for _, d := range slices.Backward(made) {
			_ = os.Remove(d)
		}
	})
	part := func(digit, name string) string {
		p := store + "/" + strings.Repeat(digit, 32) + "-nucleus-test-" + name
		t.Cleanup(func() { _ = os.RemoveAll(p) })
		return p
	}
	one, two, file, none := part("0", "one"), part("1", "two"), part("2", "file"), part("3", "none")
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(one+"/bin", 0o755), os.WriteFile(one+"/bin/x", []byte("x"), 0o755), os.Symlink(one, two), os.WriteFile(file, []byte("file"), 0o444), os.Mkdir(none, 0o755),
		os.Symlink("/etc", filepath.Join(dir, "nix")), os.Symlink(one+"/bin", filepath.Join(dir, "bin")),
		os.WriteFile(filepath.Join(dir, ".nucleus-rootfs-store-paths"), []byte(two+"\n"+one+"\n"+file+"\n"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	base := func(p string) string { return filepath.Base(p) }
	err := (&attempt{TB: t}).want(&spec.Sandbox{Rootfs: &spec.Rootfs{Source: dir}},
		line{"read " + one + "/bin/x", "ok:x"}, line{"read " + two + "/bin/x", "ok:x"}, line{"read " + file, "ok:file"}, line{"read /bin/x", "ok:x"},
		line{"ls " + store, "ok:" + base(one) + " " + base(two) + " " + base(file)}, line{"open new " + one + "/new", refused}, line{"mkdir " + store + "/new", refused},
		line{"exists /.nucleus-rootfs-store", "ENOENT"})
	if err != nil {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := (&attempt{TB: t}).want(&spec.Sandbox{Rootfs: &spec.Rootfs{Source: dir}}, line{"cwd", "ok:/"}); err == nil || !strings.Contains(err.Error(), base(file)) {
		t.Errorf("a part is missing: got %v", err)
	}
}

// production is a sandbox of that mode, with a root that is attested.
func production(t *testing.T) *spec.Sandbox {
	t.Helper()
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Landlock, sandboxtest.Cgroup)
	dir, _ := hostileRoot(t)
	m, err := nucleus.AttestRootfs(context.Background(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, nucleus.RootfsManifest), m.Text, 0o644); err != nil {
		t.Fatal(err)
	}
	return &spec.Sandbox{Mode: spec.ModeProduction, Rootfs: &spec.Rootfs{Source: dir, SHA256: m.SHA256}, Workspace: &spec.Bind{Source: t.TempDir()},
		Limits: spec.Limits{Memory: 64 * spec.MiB, MilliCPUs: 1000}}
}

// TestProduction: it starts, and the Report says what was confirmed.
func TestProduction(t *testing.T) {
	s := production(t)
	c := nucleus.Command(withProbe(s), probePath, "hang")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	r, err := c.Process.Report()
	if err != nil || !strings.Contains(r.String(), "production: ") {
		t.Errorf("got %v\n%s", err, r)
	}
	if err := c.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = c.Wait()
}

// TestMountAudit changes what a plan mounts after it was decided what should be
// there: the kernel says otherwise, and the program does not run. Without the
// step it would.
func TestMountAudit(t *testing.T) {
	s := production(t)
	changes := map[string]func(*plan.Plan) int{
		"a mount more": func(p *plan.Plan) int {
			return insertBefore[plan.SetAttr](p, func(a plan.SetAttr) bool { return a.Path == "/" },
				plan.Mkdir{Path: "/more", Mode: 0o755}, plan.MountFS{Type: "tmpfs", Target: "/more", Flags: 2 | 4 | 8, Data: "size=65536"})
		},
		"a mount more below the root's": func(p *plan.Plan) int {
			return insertBefore[plan.SetAttr](p, func(a plan.SetAttr) bool { return a.Path == "/" },
				plan.MountFS{Type: "tmpfs", Target: "/usr/share", Flags: 2 | 4 | 8, Data: "size=65536"})
		},
		"a mask less": func(p *plan.Plan) int {
			return remove("a mask", func(s plan.Step) bool {
				m, ok := s.Do.(plan.MoveMount)
				return ok && m.To == "/proc/timer_list"
			}).edit(p)
		},
		"a writable root": clearAttr("read-only", readOnly).edit,
		"a part less": func(p *plan.Plan) int {
			return remove("a part", func(s plan.Step) bool {
				m, ok := s.Do.(plan.Show)
				return ok && m.Target == "/etc"
			}).edit(p)
		},
		"the whole tree": without(plan.Unmount{}).edit,
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			a := &attempt{TB: t, edit: change}
			err := a.want(s, line{"cwd", "ok:/workspace"})
			var step *nucleus.Error
			if a.changed == 0 || !errors.As(err, &step) || !strings.Contains(err.Error(), "does not confirm the mounts") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v after %d changes", err, a.changed)
			}
			a = &attempt{TB: t, edit: func(p *plan.Plan) int { return change(p) * without(plan.Hold{}).edit(p) }}
			if err := a.want(s, line{"cwd", "ok:/workspace"}); err != nil {
				t.Errorf("without the audit: %v", err)
			}
		})
	}
}

// TestMountAuditFindsLinks: where a link of the root leads a volume to another
// place than the one that was asked for, production does not go on.
func TestMountAuditFindsLinks(t *testing.T) {
	s := production(t)
	s.Volumes = []spec.Volume{{Source: t.TempDir(), Target: "/etc/share/doc"}}
	err := (&attempt{TB: t}).want(s, line{"cwd", "ok:/workspace"})
	if err == nil || !strings.Contains(err.Error(), `nothing is mounted at "/etc/share/doc"`) {
		t.Errorf("got %v", err)
	}
	s.Mode, s.Workspace = spec.ModeAgent, nil
	if err := (&attempt{TB: t}).want(s, line{"cwd", "ok:/"}, line{"open new /usr/share/doc/new", refused}); err != nil {
		t.Errorf("as an agent: %v", err)
	}
}

// insertBefore adds steps before the first of a type that matches.
func insertBefore[A plan.Action](p *plan.Plan, match func(A) bool, actions ...plan.Action) int {
	for i, s := range p.Steps {
		if a, ok := s.Do.(A); ok && match(a) {
			for k, more := range actions {
				p.Steps = slices.Insert(p.Steps, i+k, plan.Step{Where: s.Where, Because: s.Because, Do: more})
			}
			return len(actions)
		}
	}
	return 0
}

// TestRootfsSubmounts: what the host has mounted in a root comes with it, and is
// as read-only; no manifest speaks for it.
func TestRootfsSubmounts(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Root, sandboxtest.Landlock)
	dir, _ := hostileRoot(t)
	sub := filepath.Join(dir, "usr/share")
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(sub, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(filepath.Join(sub, "file"), []byte("of the mount"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := &spec.Sandbox{Rootfs: &spec.Rootfs{Source: dir}}
	FailsWithout(t, func(a *attempt) error {
		return a.want(s, line{"read /usr/share/file", "ok:of the mount"}, line{"open w /usr/share/file", refused}, line{"open new /usr/share/new", refused})
	},
		clearAttr("read-only", readOnly).holds(),
		together(clearAttr("read-only", readOnly), without(plan.Landlock{})),
	)
	if _, err := nucleus.AttestRootfs(context.Background(), dir, nil); err == nil || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("attested: got %v", err)
	}
	c := nucleus.Command(withProbe(s), probePath, "hang")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Process.Report(); err != nil {
		t.Errorf("%v\n%s", err, r)
	}
	if err := c.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = c.Wait()
}
