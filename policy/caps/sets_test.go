package caps_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/policy/caps"
)

func TestSetsValidate(t *testing.T) {
	bind, kill := caps.Of(caps.NetBindService), caps.Of(caps.Kill)
	for _, tt := range []struct {
		name string
		sets caps.Sets
		err  string // part of it; empty: none
	}{
		{"nothing", caps.Sets{}, ""},
		{"one, in all five", caps.Keep(bind), ""},
		{"bounding only", caps.Sets{Bounding: bind}, ""},
		{"wider bounding and inheritable", caps.Sets{Bounding: bind | kill, Inheritable: bind | kill, Permitted: bind, Effective: bind, Ambient: bind}, ""},
		{"permitted without ambient", caps.Sets{Bounding: bind, Inheritable: bind, Permitted: bind}, "permitted: CAP_NET_BIND_SERVICE is not ambient"},
		{"effective without ambient", caps.Sets{Bounding: bind, Inheritable: bind, Effective: bind}, "effective: CAP_NET_BIND_SERVICE is not ambient"},
		{"ambient without effective", caps.Sets{Bounding: bind, Inheritable: bind, Permitted: bind, Ambient: bind}, "effective: CAP_NET_BIND_SERVICE is ambient"},
		{"ambient without inheritable", caps.Sets{Bounding: bind, Permitted: bind, Effective: bind, Ambient: bind}, "inheritable:"},
		{"inheritable beyond bounding", caps.Sets{Inheritable: kill}, "bounding:"},
		{"no name", caps.Sets{Bounding: 1 << 50}, "CAP_50 has no name"},
	} {
		err := tt.sets.Validate()
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.err)
		}
	}
}

func TestSetsAsJSON(t *testing.T) {
	want := caps.Sets{Bounding: caps.All | 1<<50, Ambient: caps.Of(caps.Kill)}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got caps.Sets
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("%s: got %v, %v", b, got, err)
	}
	for _, bad := range []string{`{"ambient":"CAP_FLY"}`, `{"ambient":""}`, `{"ambient":"CAP_64"}`, `{"ambient":3}`, `{"ambient":"CAP_KILL,"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s: want an error", bad)
		}
	}
}
