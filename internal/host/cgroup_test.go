package host

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// Mounts of the machines below, as the kernel prints them.
const (
	rootMount  = "24 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
	v2Mount    = rootMount + "30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	hybridMore = "31 24 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n" +
		"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n" +
		"35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
		"39 31 0:36 /box /sys/fs/cgroup/pids\\040here rw,relatime - cgroup cgroup rw,pids\n" +
		"40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n" +
		"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)

// machine is a directory that plays one.
type machine struct {
	uid            int
	groups, mounts string
	dirs           []string
	files          map[string]string
	delegated      []string
}

func (m machine) probe(t *testing.T) facts.Cgroup {
	t.Helper()
	root := t.TempDir()
	check := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	for _, d := range m.dirs {
		check(os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	for name, content := range m.files {
		check(os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		check(os.WriteFile(filepath.Join(root, name), []byte(content), 0o644))
	}
	for _, d := range m.delegated {
		check(syscall.Setxattr(filepath.Join(root, d), "user.delegate", []byte("1"), 0))
	}
	return cgroupProbe{root: root, uid: m.uid}.run([]byte(m.groups), []byte(m.mounts))
}

const (
	cg      = "/sys/fs/cgroup"
	session = cg + "/user.slice/user-1000.slice/session-3.scope"
	service = cg + "/user.slice/user-1000.slice/user@1000.service"
)

func TestCgroupV2AtTheTop(t *testing.T) {
	c := machine{
		groups: "0::/\n", mounts: v2Mount,
		files: map[string]string{cg + "/cgroup.controllers": "cpuset cpu io memory pids\n", cg + "/cgroup.subtree_control": "memory\n"},
	}.probe(t)
	want := facts.CgroupHierarchy{Version: 2, Mount: cg, Own: cg, Parent: cg, Via: facts.CgroupMkdir,
		Controllers: []string{"cpu", "io", "memory", "pids"}, Enabled: []string{"memory"}}
	if c.Mode != facts.CgroupV2 || len(c.Hierarchies) != 1 || !equal(c.Hierarchies[0], want) || !c.SwapAccounting {
		t.Errorf("got %+v, want %+v with swap accounting", c, want)
	}
}

func equal(a, b facts.CgroupHierarchy) bool {
	return a.Version == b.Version && a.Mount == b.Mount && a.Own == b.Own && a.Parent == b.Parent && a.Via == b.Via &&
		slices.Equal(a.Controllers, b.Controllers) && slices.Equal(a.Enabled, b.Enabled) && (a.Why == "") == (b.Why == "")
}

// A container: what looks like the top is a group with processes in it.
func TestCgroupV2InAContainer(t *testing.T) {
	c := machine{
		groups: "0::/\n", mounts: v2Mount,
		files: map[string]string{cg + "/cgroup.type": "domain\n", cg + "/cgroup.controllers": "memory pids\n"},
	}.probe(t)
	h := c.Hierarchies[0]
	if h.Via != facts.CgroupDenied || !strings.Contains(h.Why, "holds processes") || h.Fix == "" {
		t.Errorf("got %+v, want a refusal that says why and what to do", h)
	}
	if !slices.Equal(h.Controllers, []string{"memory", "pids"}) {
		t.Errorf("controllers: got %v, want what it could have", h.Controllers)
	}
	// A group without controllers may have processes above it.
	if f, ok := c.For(facts.Freezer); !ok || f.Via != facts.CgroupMkdir || f.Parent != cg || f.Why != "" || len(f.Controllers) != 0 {
		t.Errorf("freezer: got %+v, want a directory without controllers", f)
	}
}

// The same where the mount is not to be written: nothing can be made at all.
func TestCgroupV2ReadOnly(t *testing.T) {
	c := machine{groups: "0::/gone\n", mounts: v2Mount, files: map[string]string{cg + "/cgroup.type": "domain\n"}}.probe(t)
	if f, ok := c.For(facts.Freezer); !ok || f.Via != facts.CgroupDenied || f.Why == "" {
		t.Errorf("freezer: got %+v, want a refusal that says why", f)
	}
}

// A session of systemd, which wants to be asked.
func TestCgroupV2Session(t *testing.T) {
	for _, tt := range []struct {
		name string
		uid  int
		want facts.CgroupSystemd
	}{
		{"root", 0, facts.CgroupSystemd{Socket: "/run/systemd/private", Delegated: cg}},
		{"user", 1000, facts.CgroupSystemd{User: true, Socket: "/run/user/1000/systemd/private", Delegated: service}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("XDG_RUNTIME_DIR", "")
			m := machine{
				uid: tt.uid, groups: "0::/user.slice/user-1000.slice/session-3.scope\n", mounts: v2Mount,
				dirs: []string{"/run/systemd/system"},
				files: map[string]string{
					session + "/cgroup.type":                       "domain\n",
					cg + "/user.slice/user-1000.slice/cgroup.type": "domain\n",
					session + "/cgroup.controllers":                "memory pids\n",
					service + "/cgroup.controllers":                "cpu memory pids\n",
					cg + "/cgroup.controllers":                     "cpuset cpu io memory pids\n",
					tt.want.Socket:                                 "",
				},
			}
			c := m.probe(t)
			h := c.Hierarchies[0]
			if h.Via != facts.CgroupScope || c.Systemd == nil || *c.Systemd != tt.want {
				t.Fatalf("got %+v, %+v, want %+v", h, c.Systemd, tt.want)
			}
			want := []string{"cpu", "memory", "pids"}
			if tt.uid == 0 {
				want = []string{"cpu", "io", "memory", "pids"}
			}
			if !slices.Equal(h.Controllers, want) {
				t.Errorf("controllers: got %v, want %v", h.Controllers, want)
			}
			m.files["/proc/1/comm"] = "systemd\n"
			if h := m.probe(t).Hierarchies[0]; h.Via != facts.CgroupScope {
				t.Errorf("got %+v, although systemd is process 1", h)
			}
			m.files["/proc/1/comm"] = "sh\n"
			if h := m.probe(t).Hierarchies[0]; h.Via == facts.CgroupScope {
				t.Errorf("got %+v, although systemd would not know our process numbers", h)
			}
			delete(m.files, "/proc/1/comm")
			delete(m.files, tt.want.Socket)
			if h := m.probe(t).Hierarchies[0]; h.Via != facts.CgroupDenied || h.Why == "" {
				t.Errorf("without a manager: got %+v, want a refusal", h)
			}
		})
	}
}

// A service with Delegate= and DelegateSubgroup=: the group above ours is ours to divide.
func TestCgroupV2Delegated(t *testing.T) {
	own := cg + "/system.slice/ci.service/main"
	m := machine{
		groups: "0::/system.slice/ci.service/main\n", mounts: v2Mount,
		dirs: []string{"/run/systemd/system"},
		files: map[string]string{
			own + "/cgroup.type":                      "domain\n",
			filepath.Dir(own) + "/cgroup.type":        "domain\n",
			filepath.Dir(own) + "/cgroup.controllers": "memory pids\n",
			own + "/memory.max":                       "max\n",
			"/run/systemd/private":                    "",
		},
		delegated: []string{filepath.Dir(own)},
	}
	c := m.probe(t)
	h := c.Hierarchies[0]
	if h.Via != facts.CgroupMkdir || h.Parent != filepath.Dir(own) || h.Own != own || c.Systemd != nil {
		t.Errorf("got %+v, want a directory below %s", h, filepath.Dir(own))
	}
	if c.SwapAccounting {
		t.Error("swap accounting: got true, although our own group has no memory.swap.max")
	}
	m.delegated = nil
	if h := m.probe(t).Hierarchies[0]; h.Via != facts.CgroupScope {
		t.Errorf("not delegated: got %+v, want systemd to be asked", h)
	}
}

func TestCgroupHybrid(t *testing.T) {
	c := machine{
		groups: "9:name=systemd:/\n8:pids:/box/mine\n4:memory:/\n2:cpu,cpuacct:/gone\n1:net_cls:/\n0::/\n",
		mounts: rootMount + hybridMore,
		dirs:   []string{cg + "/unified", cg + "/pids here/mine"},
		files:  map[string]string{cg + "/memory/memory.memsw.limit_in_bytes": "1\n"},
	}.probe(t)
	if c.Mode != facts.CgroupHybrid || !c.SwapAccounting {
		t.Errorf("got %s, swap accounting %v, want hybrid with it", c.Mode, c.SwapAccounting)
	}
	for _, want := range []struct {
		controller, own string
		via             facts.CgroupVia
	}{
		{"pids", cg + "/pids here/mine", facts.CgroupMkdir},
		{"memory", cg + "/memory", facts.CgroupMkdir},
		{"cpu", cg + "/cpu,cpuacct/gone", facts.CgroupDenied},
	} {
		h, ok := c.For(want.controller)
		if !ok || h.Own != want.own || h.Via != want.via || h.Version != 1 {
			t.Errorf("%s: got %+v, want %+v", want.controller, h, want)
		}
	}
	if _, ok := c.For("io"); ok {
		t.Error("a controller that is not mounted was found")
	}
	if h, ok := c.Unified(); !ok || len(h.Controllers) != 0 || h.Why != "" {
		t.Errorf("unified: got %+v, want one without controllers", h)
	}
	if h, ok := c.For(facts.Freezer); !ok || h.Version != 2 || h.Parent != cg+"/unified" {
		t.Errorf("freezer: got %+v, want a directory in the unified hierarchy", h)
	}
}

// Where a group can be frozen: in version 2 without any controller, and in
// version 1 only where that is not to be had.
func TestCgroupFreezer(t *testing.T) {
	const (
		v1Mount = "36 31 0:33 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer\n"
		v1Line  = "5:freezer:/\n"
		v1Own   = cg + "/freezer"
		v2Own   = cg + "/unified"
	)
	for _, tt := range []struct {
		name   string
		groups string
		dirs   []string
		parent string // "": denied
	}{
		{"hybrid, both", v1Line + "0::/\n", []string{v1Own, v2Own}, v2Own},
		{"hybrid, not ours in version 2", v1Line + "0::/\n", []string{v1Own}, v1Own},
		{"hybrid, not ours in either", v1Line + "0::/\n", nil, ""},
		{"hybrid, no freezer of version 1", "4:memory:/\n0::/\n", []string{v2Own}, v2Own},
		{"version 1", v1Line, []string{v1Own}, v1Own},
		{"version 1, not ours", v1Line, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := machine{groups: tt.groups, mounts: rootMount + hybridMore + v1Mount, dirs: tt.dirs}.probe(t)
			h, ok := c.For(facts.Freezer)
			if !ok || h.Parent != tt.parent || (h.Via == facts.CgroupDenied) != (tt.parent == "") || (h.Why == "") == (tt.parent == "") {
				t.Errorf("got %+v, %v, want a directory below %q, or a reason", h, ok, tt.parent)
			}
		})
	}
	c := machine{groups: "4:memory:/\n", mounts: rootMount + hybridMore}.probe(t)
	if h, ok := c.For(facts.Freezer); ok {
		t.Errorf("neither is mounted: got %+v", h)
	}
}

// A cgroup namespace whose mount shows something else.
func TestCgroupOutsideTheMount(t *testing.T) {
	mounts := strings.ReplaceAll(v2Mount, "0:26 / ", "0:26 /docker/abc ")
	for path, own := range map[string]string{
		"/docker/abc":       cg,
		"/docker/abc/x":     cg + "/x",
		"/docker/abcdef":    "",
		"/docker":           "",
		"/../other.service": "",
	} {
		c := machine{groups: "0::" + path + "\n", mounts: mounts, dirs: []string{cg}}.probe(t)
		h := c.Hierarchies[0]
		if hiddenHere := strings.Contains(h.Why, "outside"); hiddenHere != (own == "") || own != "" && h.Own != own {
			t.Errorf("%s: got %+v, want own %q", path, h, own)
		}
	}
}

func TestCgroupNone(t *testing.T) {
	c := machine{groups: "1:memory:/\n0::/\n", mounts: rootMount}.probe(t)
	if c.Mode != facts.CgroupNone || len(c.Hierarchies) != 0 {
		t.Errorf("got %+v, want none", c)
	}
}

func TestSwapIsLookedUpWithoutAccounting(t *testing.T) {
	const header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	for swaps, want := range map[string]bool{header: false, header + "/dev/vdb partition 1 0 -2\n": true} {
		c := machine{groups: "4:memory:/\n", mounts: rootMount + hybridMore, dirs: []string{cg + "/memory"},
			files: map[string]string{"/proc/swaps": swaps}}.probe(t)
		if c.SwapAccounting || c.Swap != want {
			t.Errorf("got %+v, want swap %v", c, want)
		}
	}
}

// TestCgroupHere compares the probe with another reading of the same files.
func TestCgroupHere(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Cgroup)
	c, err := Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	if h, ok := c.For("pids"); !ok || h.Via == facts.CgroupDenied {
		t.Errorf("got %s, want a way to the pids controller", c)
	}
	for _, h := range c.Hierarchies {
		if fi, err := os.Stat(h.Own); err != nil || !fi.IsDir() {
			t.Errorf("our group %s: %v", h.Own, err)
		}
	}
}

// FuzzCgroupFiles feeds the probe what no kernel prints.
func FuzzCgroupFiles(f *testing.F) {
	f.Add([]byte("0::/\n"), []byte(v2Mount))
	f.Add([]byte("8:pids:/box/mine\n4:memory:/\n"), []byte(hybridMore))
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, groups, mounts []byte) {
		for _, h := range (cgroupProbe{root: root + "/"}).run(groups, mounts).Hierarchies {
			if h.Via == facts.CgroupMkdir && h.Parent == "" {
				t.Errorf("a group nowhere: %+v", h)
			}
		}
	})
}

func BenchmarkCgroup(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Cgroup(); err != nil {
			b.Fatal(err)
		}
	}
}
