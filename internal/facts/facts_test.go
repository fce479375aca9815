package facts

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// hybrid is a machine with both versions, where one hierarchy is denied and one
// belongs to the service manager.
var hybrid = Cgroup{Mode: CgroupHybrid, Hierarchies: []CgroupHierarchy{
	{Version: 1, Mount: "/c/pids", Own: "/c/pids", Parent: "/c/pids", Via: CgroupMkdir, Controllers: []string{"pids"}},
	{Version: 1, Mount: "/c/blkio", Own: "/c/blkio", Why: "not yours", Controllers: []string{"blkio"}},
	{Version: 2, Mount: "/c/u", Own: "/c/u/x", Via: CgroupScope, Controllers: []string{"memory", "cpu"}},
}}

func TestCgroupQuestions(t *testing.T) {
	for _, tc := range []struct {
		controller        string
		mount             string
		v1, scoped, known bool
	}{
		{"pids", "/c/pids", true, false, true},
		{"blkio", "/c/blkio", true, false, true},
		{"memory", "/c/u", false, true, true},
		{"io", "", false, false, false},
	} {
		h, ok := hybrid.For(tc.controller)
		if ok != tc.known || h.Mount != tc.mount || hybrid.V1(tc.controller) != tc.v1 || hybrid.Scoped(tc.controller) != tc.scoped {
			t.Errorf("%s: got %+v %t, version 1 %t, scope %t", tc.controller, h, ok, hybrid.V1(tc.controller), hybrid.Scoped(tc.controller))
		}
	}
	if h, ok := hybrid.Unified(); !ok || h.Mount != "/c/u" {
		t.Errorf("unified: got %+v %t", h, ok)
	}
	if _, ok := (Cgroup{Mode: CgroupV1, Hierarchies: hybrid.Hierarchies[:2]}).Unified(); ok {
		t.Error("unified: got one on a machine without")
	}
	if got, want := hybrid.String(), "hybrid: pids by mkdir; blkio denied (not yours); memory,cpu by systemd"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (Cgroup{Mode: CgroupNone}).String(); got != "none" {
		t.Errorf("got %q, want none", got)
	}
}

func TestFreezer(t *testing.T) {
	v1 := CgroupHierarchy{Version: 1, Mount: "/c/freezer", Parent: "/c/freezer", Via: CgroupMkdir, Controllers: []string{Freezer}}
	u := CgroupHierarchy{Version: 2, Mount: "/c/u", Own: "/c/u/x", Parent: "/c/u", Via: CgroupMkdir}
	no1, no2, plain := v1, u, u
	no1.Parent, no1.Via, no1.Why = "", CgroupDenied, "not yours"
	no2.Parent, no2.Via, no2.Why = "", CgroupDenied, "not yours either"
	plain.Parent, plain.Via, plain.Why, plain.Plain, plain.Controllers = "", CgroupDenied, "full", "/c/u/x", []string{"memory"}
	for _, tc := range []struct {
		name    string
		have    []CgroupHierarchy
		version int
		parent  string
	}{
		{"both", []CgroupHierarchy{v1, u}, 2, "/c/u"},
		{"version 2 is not ours", []CgroupHierarchy{v1, no2}, 1, "/c/freezer"},
		{"neither is ours", []CgroupHierarchy{no1, no2}, 2, ""},
		{"version 1 is not ours", []CgroupHierarchy{no1}, 1, ""},
		{"without controllers", []CgroupHierarchy{plain}, 2, "/c/u/x"},
		{"none", nil, 0, ""},
	} {
		h, ok := Cgroup{Hierarchies: tc.have}.For(Freezer)
		if ok != (tc.version != 0) || h.Version != tc.version || h.Parent != tc.parent || (h.Via == CgroupDenied) != (tc.parent == "") {
			t.Errorf("%s: got %+v %t, want version %d below %q", tc.name, h, ok, tc.version, tc.parent)
		}
	}
	if h, ok := (Cgroup{Hierarchies: []CgroupHierarchy{u, v1}}).Legacy(Freezer); !ok || h.Version != 1 {
		t.Errorf("version 1: got %+v %t", h, ok)
	}
	if h, ok := (Cgroup{Hierarchies: []CgroupHierarchy{plain}}).Legacy("memory"); ok {
		t.Errorf("version 1: got %+v", h)
	}
	if got, want := (Cgroup{Mode: CgroupHybrid, Hierarchies: []CgroupHierarchy{u}}).String(), "hybrid: freezer by mkdir"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPrivileged(t *testing.T) {
	const all = 1<<41 - 1
	for _, tc := range []struct {
		name string
		host Host
		want bool
	}{
		{"root", Host{CapEff: all}, true},
		{"root with just enough", Host{CapEff: 1<<CapSetgid | 1<<CapSetuid | 1<<CapSysAdmin}, true},
		{"root in a container", Host{CapEff: 0xa80425fb}, false},
		{"root without setuid", Host{CapEff: all &^ (1 << CapSetuid)}, false},
		{"root without setgid", Host{CapEff: all &^ (1 << CapSetgid)}, false},
		{"user with capabilities", Host{UID: 1000, CapEff: all}, false},
		{"user", Host{UID: 1000}, false},
	} {
		if got := tc.host.Privileged(); got != tc.want {
			t.Errorf("%s: got %t, want %t", tc.name, got, tc.want)
		}
	}
}

func TestJSONKeepsEverything(t *testing.T) {
	h := Host{
		Kernel: "6.1", Arch: "amd64", UID: 1, GID: 2, CapEff: 3, LastCap: 4, LandlockABI: 5, NoFile: 6, Memlock: 1<<64 - 1, Cgroup: hybrid,
		Paths: map[string]Path{"/l": {Kind: Symlink, Target: "t"}, "/f": {Kind: File, UID: 7, GID: 8, Size: 9, Real: "/r"}},
	}
	h.Cgroup.Systemd = &CgroupSystemd{User: true, Socket: "s", Delegated: "d"}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var back Host
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&back); err != nil || !reflect.DeepEqual(h, back) {
		t.Errorf("got %+v (%v), want %+v", back, err, h)
	}
}
