package files

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/profiles"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// TestFormat: what is written is read back as it was.
func TestFormat(t *testing.T) {
	data, err := os.ReadFile("../../internal/cli/testdata/policy/policy.toml")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := ParsePolicy("policy.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	def := seccomp.Default()
	odd := seccomp.Policy{Default: seccomp.KillThread, Rules: []seccomp.Rule{
		{Calls: []string{"read"}, When: []seccomp.Cond{{Arg: 5, Op: seccomp.Gt, Value: ^uint64(0), Width: 64}, {Op: seccomp.MaskedEq, Mask: 0xf0, Value: 0x10, Width: 32}}, Do: seccomp.Trap, Why: "a \"why\"\nof two\\lines, \x1b[31m, é, \x7f"},
	}}
	sets := caps.Sets{Bounding: caps.All}
	for name, want := range map[string]*policy.Policy{
		"nothing": {}, "the default": {Seccomp: &def}, "an odd one": {Seccomp: &odd},
		"a whole one": {Seccomp: whole.Seccomp, Caps: whole.Caps, Landlock: whole.Landlock, Egress: whole.Egress},
		"bounding":    {Caps: &sets},
		"files": {Landlock: &landlock.Config{HandleFS: landlock.All(landlock.Latest), HandleNet: landlock.BindUDP, MinABI: 10,
			Rules: []landlock.PathRule{{Path: "/f", File: true, Allow: landlock.ReadFile | landlock.Execute, Why: "x"}, {Path: "/d", Allow: landlock.All(landlock.Latest), Why: "y"}},
			Ports: []landlock.PortRule{{Port: 0, Allow: landlock.BindUDP, Why: "z"}}}},
		"network": {Egress: []policy.Egress{{Allow: true, Host: "*.example.com", Ports: []uint16{80, 443}, Protocol: "tcp", Why: "x"}}},
	} {
		out := Format(want)
		got, err := ParsePolicy("f", out)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%s\n got %+v\nwant %+v", name, out, got, want)
		}
		if strings.ContainsAny(string(out), "\x1b\x7f") {
			t.Errorf("%s: control characters are written out", name)
		}
	}
	for _, name := range profiles.Names() {
		p, err := profiles.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParsePolicy("f", Format(&policy.Policy{Seccomp: &p.Seccomp}))
		if err != nil || !reflect.DeepEqual(*got.Seccomp, p.Seccomp) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
