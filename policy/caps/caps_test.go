package caps_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/policy/caps"
)

func TestNumbers(t *testing.T) {
	// Spot checks against linux/capability.h, at both ends of each word and at
	// the places where a row would slip.
	for _, tt := range []struct {
		cap  caps.Cap
		no   uint8
		name string
	}{
		{caps.Chown, 0, "CAP_CHOWN"},
		{caps.Setuid, 7, "CAP_SETUID"},
		{caps.NetAdmin, 12, "CAP_NET_ADMIN"},
		{caps.SysAdmin, 21, "CAP_SYS_ADMIN"},
		{caps.Mknod, 27, "CAP_MKNOD"},
		{caps.Setfcap, 31, "CAP_SETFCAP"},
		{caps.MACOverride, 32, "CAP_MAC_OVERRIDE"},
		{caps.AuditRead, 37, "CAP_AUDIT_READ"},
		{caps.CheckpointRestore, 40, "CAP_CHECKPOINT_RESTORE"},
	} {
		if uint8(tt.cap) != tt.no || tt.cap.String() != tt.name {
			t.Errorf("got %d %s, want %d %s", tt.cap, tt.cap, tt.no, tt.name)
		}
	}
	if n := len(caps.All.Caps()); n != 41 || caps.Last != caps.CheckpointRestore {
		t.Errorf("got %d capabilities up to %s, want 41 up to CAP_CHECKPOINT_RESTORE", n, caps.Last)
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, list string
		want       caps.Set
		err        string
	}{
		{"empty", "", 0, ""},
		{"prefix", "CAP_CHOWN", caps.Of(caps.Chown), ""},
		{"bare and lower", "net_bind_service", caps.Of(caps.NetBindService), ""},
		{"mixed case prefix", "Cap_Kill", caps.Of(caps.Kill), ""},
		{"separators", "chown, kill\tsetuid", caps.Of(caps.Chown, caps.Kill, caps.Setuid), ""},
		{"twice", "kill,CAP_KILL", caps.Of(caps.Kill), ""},
		{"unknown", "chown,CAP_FLY", 0, `"CAP_FLY"`},
		{"double prefix", "CAP_CAP_KILL", 0, `"CAP_CAP_KILL"`},
		{"no wildcard", "ALL", 0, `"ALL"`},
		{"no number", "CAP_21", 0, `"CAP_21"`},
	} {
		got, err := caps.Parse(tt.list)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: got error %v, want one that names %s", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%s: got %s, %v, want %s", tt.name, got, err, tt.want)
		}
	}
}

func TestEveryNameRoundTrips(t *testing.T) {
	for _, c := range caps.All.Caps() {
		got, err := caps.ParseCap(strings.ToLower(c.String()))
		if err != nil || got != c {
			t.Errorf("%s: got %s, %v", c, got, err)
		}
	}
	got, err := caps.Parse(caps.All.String())
	if err != nil || got != caps.All {
		t.Errorf("all: got %s, %v", got, err)
	}
}

func TestSets(t *testing.T) {
	s := caps.Of(caps.Chown, caps.Kill)
	for _, tt := range []struct {
		name string
		got  caps.Set
		want caps.Set
	}{
		{"with", s.With(caps.Setuid), caps.Of(caps.Chown, caps.Kill, caps.Setuid)},
		{"without", s.Without(caps.Kill), caps.Of(caps.Chown)},
		{"without absent", s.Without(caps.BPF), s},
		{"diff", s.Diff(caps.Of(caps.Chown, caps.BPF)), caps.Of(caps.Kill)},
		{"original unchanged", s, caps.Of(caps.Chown, caps.Kill)},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, tt.got, tt.want)
		}
	}
	if !s.Has(caps.Kill) || s.Has(caps.BPF) || s.Has(64) || s.Has(255) {
		t.Error("Has disagrees with the members")
	}
	if got := caps.Set(0).String(); got != "none" {
		t.Errorf("empty set: got %q, want none", got)
	}
}

func TestFromHex(t *testing.T) {
	s, err := caps.FromHex("00000000a80425fb\n")
	if err != nil {
		t.Fatal(err)
	}
	if s.Hex() != "00000000a80425fb" || !s.Has(caps.Setfcap) || s.Has(caps.SysAdmin) {
		t.Errorf("got %s (%s)", s, s.Hex())
	}
	future, err := caps.FromHex("0000020000000000")
	if err != nil || future.String() != "CAP_41" {
		t.Errorf("a bit of a newer kernel: got %s, %v, want CAP_41", future, err)
	}
	for _, bad := range []string{"", "xyz", "-1", "10000000000000000"} {
		if s, err := caps.FromHex(bad); err == nil {
			t.Errorf("%q: got %s, want an error", bad, s)
		}
	}
}

func TestDangerous(t *testing.T) {
	d := caps.Dangerous()
	for _, c := range []caps.Cap{caps.SysAdmin, caps.SysModule, caps.NetAdmin, caps.BPF, caps.DACReadSearch} {
		if !d.Has(c) || !strings.Contains(caps.Explain(c), "is dangerous") {
			t.Errorf("%s is not called dangerous", c)
		}
	}
	for _, c := range []caps.Cap{caps.NetBindService, caps.Kill} {
		if d.Has(c) || strings.Contains(caps.Explain(c), "is dangerous") {
			t.Errorf("%s is called dangerous", c)
		}
	}
}

func Example() {
	keep, err := caps.Parse("net_bind_service, CAP_CHOWN")
	fmt.Println(keep, err)
	fmt.Println(caps.All.Diff(keep).Has(caps.SysAdmin))
	// Output:
	// CAP_CHOWN,CAP_NET_BIND_SERVICE <nil>
	// true
}
