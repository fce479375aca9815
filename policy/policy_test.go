package policy_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

func TestValidate(t *testing.T) {
	digest := strings.Repeat("aB", 32)
	wide := &seccomp.Policy{Default: seccomp.Allow}
	bpf := seccomp.Default().With(seccomp.Rule{Calls: []string{"bpf"}, When: []seccomp.Cond{{Op: seccomp.Eq, Width: 32}}, Do: seccomp.Log, Why: "x"})
	newer, logged := seccomp.Default(), seccomp.Default()
	newer.Unknown, logged.Unknown = seccomp.Allow, seccomp.Log
	clone := seccomp.Default().With(seccomp.Rule{Calls: []string{"clone"}, Do: seccomp.Allow, Why: "x"})
	for _, tt := range []struct {
		name   string
		policy *policy.Policy
		err    string
	}{
		{"none", nil, ""},
		{"empty", &policy.Policy{}, ""},
		{"allows everything", &policy.Policy{Seccomp: wide}, "kexec_load is allowed, which is always refused"},
		{"allows one sometimes", &policy.Policy{Seccomp: &bpf}, "bpf is allowed"},
		{"allows one that is named", &policy.Policy{Seccomp: &bpf, Dangerous: []string{"bpf"}}, ""},
		{"allows another", &policy.Policy{Seccomp: &bpf, Dangerous: []string{"keyctl"}}, "bpf is allowed"},
		{"clone with namespaces", &policy.Policy{Seccomp: &clone}, "clone is allowed"},
		{"allows what is not known", &policy.Policy{Seccomp: &newer}, "unknown is allowed, which is always refused: it stands for every call that Nucleus does not know"},
		{"logs what is not known", &policy.Policy{Seccomp: &logged}, "unknown is allowed"},
		{"allows what is not known, by name", &policy.Policy{Seccomp: &newer, Dangerous: []string{seccomp.Unlisted}}, ""},
		{"names what needs no name", &policy.Policy{Dangerous: []string{"read"}}, `"read" is not on the list`},
		{"capabilities", &policy.Policy{Caps: &caps.Sets{Permitted: 1}}, "caps: permitted"},
		{"files", &policy.Policy{Landlock: &landlock.Config{MinABI: 99}}, "landlock: no Landlock ABI 99"},
		{"source", &policy.Policy{Sources: []policy.Source{{Kind: policy.KindCaps, Path: "/x", SHA256: digest, Pinned: true}}}, ""},
		{"source without a digest", &policy.Policy{Sources: []policy.Source{{Kind: policy.KindCaps, Path: "/x", Pinned: true}}}, "not a SHA-256"},
		{"source of no kind", &policy.Policy{Sources: []policy.Source{{Kind: "x", Path: "/x"}}}, `"x"`},
		{"source without a path", &policy.Policy{Sources: []policy.Source{{Kind: policy.KindCaps}}}, "no path"},
		{"egress", &policy.Policy{Egress: []policy.Egress{{}}}, "egress[0]"},
	} {
		err := tt.policy.Validate()
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.err)
		}
	}
}

func TestEgress(t *testing.T) {
	for _, tt := range []struct {
		rule policy.Egress
		ok   bool
	}{
		{policy.Egress{Host: "example.com", Ports: []uint16{443}, Protocol: "tcp"}, true},
		{policy.Egress{Host: "*.example.com"}, true},
		{policy.Egress{CIDR: "10.0.0.0/8"}, true},
		{policy.Egress{CIDR: "fd00::/8"}, true},
		{policy.Egress{}, true},
		{policy.Egress{CIDR: "10.0.0.1/8"}, false},
		{policy.Egress{CIDR: "10.0.0.1"}, false},
		{policy.Egress{Host: "Example.com"}, false},
		{policy.Egress{Host: "example.com."}, false},
		{policy.Egress{Host: "example..com"}, false},
		{policy.Egress{Host: "exa\x00mple.com"}, false},
		{policy.Egress{Host: "127.0.0.1"}, false},
		{policy.Egress{Host: "127.1"}, false},
		{policy.Egress{Host: "0x7f.0x1"}, false},
		{policy.Egress{Host: "::1"}, false},
		{policy.Egress{Host: "a.*.com"}, false},
		{policy.Egress{Host: "*."}, false},
		{policy.Egress{Host: "a.com", CIDR: "10.0.0.0/8"}, false},
		{policy.Egress{Protocol: "sctp"}, false},
		{policy.Egress{Ports: []uint16{0}}, false},
	} {
		tt.rule.Why = "a test"
		if err := tt.rule.Validate(); (err == nil) != tt.ok {
			t.Errorf("%v: got %v", tt.rule, err)
		}
	}
	if (policy.Egress{}).Validate() == nil {
		t.Error("a rule without a reason was taken")
	}
}

// TestAsJSON: the record of a sandbox holds the policy whole.
func TestAsJSON(t *testing.T) {
	s := seccomp.Default().With(seccomp.Rule{Calls: []string{"read"}, When: []seccomp.Cond{{Arg: 2, Op: seccomp.MaskedEq, Value: 1 << 63, Mask: ^uint64(0), Width: 64}}, Do: seccomp.Trap, Why: "x"})
	k := caps.Keep(caps.Of(caps.Kill))
	l := landlock.Default().With(landlock.PathRule{Path: "/usr", Allow: landlock.Read, Why: "x"})
	want := &policy.Policy{
		Seccomp: &s, Caps: &k, Landlock: &l, Dangerous: []string{"bpf"},
		Egress:  []policy.Egress{{Host: "a.b", Ports: []uint16{1}, Protocol: "tcp", Why: "x"}},
		Sources: []policy.Source{{Kind: policy.KindPolicy, Path: "p", SHA256: strings.Repeat("0", 64), Pinned: true}},
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := new(policy.Policy)
	if err := json.Unmarshal(b, got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\n got %+v\nwant %+v", b, got, want)
	}
}
