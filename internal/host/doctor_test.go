package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/facts"
)

// tree makes a directory that plays a machine's files.
func tree(t *testing.T, files map[string]string) examiner {
	t.Helper()
	m := examiner{root: t.TempDir()}
	for name, content := range files {
		path := filepath.Join(m.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestUsernsRestriction(t *testing.T) {
	denied := errors.New("making one: operation not permitted")
	user, root := &facts.Host{UID: 1000}, &facts.Host{CapEff: 1<<41 - 1}
	for _, tc := range []struct {
		name       string
		files      map[string]string
		who        *facts.Host
		value, fix string
	}{
		{"Debian's old switch", map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, user, "unprivileged_userns_clone is 0", "kernel.unprivileged_userns_clone=1"},
		{"no namespaces allowed", map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"}, user, "max_user_namespaces is 0", "user.max_user_namespaces=15000"},
		{"Ubuntu", map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, user, "AppArmor", "apparmor_parser -r /etc/apparmor.d/nucleus"},
		{"in a container", map[string]string{"/.dockerenv": ""}, user, "container around us", "docker run --security-opt seccomp=unconfined"},
		{"under a filter", map[string]string{"/proc/self/status": "Name:\tx\nSeccomp:\t2\n"}, user, "container around us", "seccomp=unconfined"},
		{"no reason to be seen", nil, user, "not permitted", "CONFIG_USER_NS"},
		{"root has a way out", map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"}, root, "max_user_namespaces is 0", "--userns host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := tree(t, tc.files).userns(tc.who, denied)
			if f.Status != Missing || !strings.Contains(f.Value, tc.value) || !strings.Contains(f.Fix, tc.fix) {
				t.Errorf("got %+v, want a value with %q and a fix with %q", f, tc.value, tc.fix)
			}
		})
	}
	if f := tree(t, nil).userns(user, nil); f.Status != OK || f.Fix != "" {
		t.Errorf("where it works: got %+v", f)
	}
}

func TestProcFinding(t *testing.T) {
	const own = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
	for mounts, want := range map[string]Status{
		own: OK,
		own + "23 22 0:22 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n": OK,
		own + "23 22 0:5 /null /proc/kcore rw - devtmpfs udev rw\n":              Weaker,
	} {
		if f := tree(t, map[string]string{"/proc/self/mountinfo": mounts}).proc(); f.Status != want {
			t.Errorf("%s: got %+v, want %s", mounts, f, want)
		}
	}
}

func TestLandlockFinding(t *testing.T) {
	m := tree(t, map[string]string{"/sys/kernel/security/lsm": "capability,yama\n"})
	if f := m.landlock(0); f.Status != Missing || !strings.Contains(f.Fix, "lsm=landlock,capability,yama") {
		t.Errorf("without: got %+v", f)
	}
	lost := -1
	for abi := 10; abi >= 1; abi-- {
		f := m.landlock(abi)
		n := strings.Count(f.Value, "; ")
		if n < lost || (n > 0) != (f.Status == Weaker) || (n > 0) != (f.Fix != "") {
			t.Errorf("ABI %d: got %+v; the one above lost %d", abi, f, lost)
		}
		lost = n
	}
	if lost < 3 {
		t.Errorf("ABI 1 loses %d things, want every later level named", lost)
	}
}

func TestCgroupFindings(t *testing.T) {
	find := func(c facts.Cgroup, name string) Finding {
		for _, f := range cgroupFindings(c) {
			if f.Name == name {
				return f
			}
		}
		t.Fatalf("no finding %s", name)
		return Finding{}
	}
	v2 := facts.Cgroup{Mode: facts.CgroupV2, Swap: true, Systemd: &facts.CgroupSystemd{User: true}, Hierarchies: []facts.CgroupHierarchy{
		{Version: 2, Mount: "/sys/fs/cgroup", Own: "/sys/fs/cgroup/a", Via: facts.CgroupScope, Controllers: []string{"memory", "pids"}}}}
	if f := find(v2, "cgroup.memory"); f.Status != OK || !strings.Contains(f.Value, "systemd") {
		t.Errorf("memory: got %+v", f)
	}
	if f := find(v2, "cgroup.cpu"); f.Status != Weaker || !strings.Contains(f.Fix, "Delegate=cpu") {
		t.Errorf("cpu that nobody delegated: got %+v", f)
	}
	if f := find(v2, "cgroup.swap"); f.Status != Weaker || f.Fix == "" {
		t.Errorf("swap: got %+v", f)
	}
	v1 := facts.Cgroup{Mode: facts.CgroupV1, SwapAccounting: true, Hierarchies: []facts.CgroupHierarchy{
		{Version: 1, Mount: "/c/blkio", Own: "/c/blkio", Via: facts.CgroupMkdir, Parent: "/c/blkio", Controllers: []string{"blkio"}},
		{Version: 1, Mount: "/c/pids", Own: "/c/pids", Why: "may not", Fix: "be root", Controllers: []string{"pids"}}}}
	if f := find(v1, "cgroup.io"); f.Status != OK || !strings.Contains(f.Value, "v1") {
		t.Errorf("io: got %+v", f)
	}
	if f := find(v1, "cgroup.pids"); f.Status != Weaker || f.Fix == "" || !strings.Contains(f.Enables, "rlimit") {
		t.Errorf("pids: got %+v", f)
	}
	if f := find(facts.Cgroup{Mode: facts.CgroupNone}, "cgroup"); !strings.Contains(f.Fix, "mount -t cgroup2") {
		t.Errorf("none: got %+v", f)
	}
}

func TestUserFinding(t *testing.T) {
	m := examiner{}
	if f := m.user(&facts.Host{UID: 0, CapEff: 0}); !strings.Contains(f.Value, "CAP_SYS_ADMIN") {
		t.Errorf("root without capabilities: got %+v", f)
	}
	if f := m.user(&facts.Host{UID: 0, CapEff: 1<<41 - 1}); !strings.Contains(f.Enables, "range of ids") {
		t.Errorf("root: got %+v", f)
	}
}

func TestSubidsFinding(t *testing.T) {
	m := tree(t, map[string]string{
		"/etc/passwd": "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n",
		"/etc/subuid": "bob:100000:65536\nann:200000:65536\n",
	})
	if f := m.subids(1000); !strings.Contains(f.Value, "65536 ids from 200000 on") {
		t.Errorf("got %+v", f)
	}
	if f := m.subids(1001); !strings.Contains(f.Value, "none") {
		t.Errorf("got %+v", f)
	}
}

func TestCallFinding(t *testing.T) {
	if f := call("clone3", syscall.ENOSYS, "x"); f.Status != Missing || !strings.Contains(f.Fix, "clone3") {
		t.Errorf("got %+v", f)
	}
	if f := call("clone3", nil, "x"); f.Status != OK || f.Fix != "" {
		t.Errorf("got %+v", f)
	}
}

// TestExamine asks this machine: every finding says what it is good for, and
// what is missing says how to get it.
func TestExamine(t *testing.T) {
	h, err := Probe([]string{"/usr"}, true)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range Examine(h) {
		if seen[f.Name] || f.Name == "" || f.Value == "" || f.Enables == "" || strings.ContainsAny(f.Value+f.Fix, "\n") {
			t.Errorf("got %+v", f)
		}
		if f.Status == Missing && f.Fix == "" {
			t.Errorf("no fix: %+v", f)
		}
		seen[f.Name] = true
	}
	for _, name := range []string{"userns", "clone3", "mount_setattr", "landlock", "seccomp", "cgroup.memory", "proc", "limits", "systemd"} {
		if !seen[name] {
			t.Errorf("no finding %s", name)
		}
	}
}

func TestAuditFinding(t *testing.T) {
	for name, row := range map[string]struct {
		abi  int
		on   bool
		err  error
		want Status
		fix  string
	}{
		"old Landlock": {6, true, nil, Info, ""},
		"not for us":   {7, false, os.ErrPermission, Info, "root"},
		"off":          {7, false, nil, Info, "auditctl -e 1"},
		"on":           {7, true, nil, OK, ""},
	} {
		f := audit(row.abi, func() (bool, error) { return row.on, row.err })
		if f.Status != row.want || f.Value == "" || !strings.Contains(f.Fix, row.fix) || (f.Fix == "") != (row.fix == "") {
			t.Errorf("%s: got %+v, want %s, fix %q", name, f, row.want, row.fix)
		}
	}
}
