package selftest

import (
	"slices"
	"strings"
	"testing"
)

func TestClaimsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Claims() {
		if seen[c.ID] || c.ID == "" || strings.Trim(c.ID, "abcdefghijklmnopqrstuvwxyz-") != "" {
			t.Errorf("%q: want an id of its own, of small letters", c.ID)
		}
		seen[c.ID] = true
		if (c.tries == nil) == (c.NotProbed == "") {
			t.Errorf("%s: want probes, or the reason why there are none", c.ID)
		}
		if c.tries == nil {
			continue
		}
		for _, try := range c.tries(&world{}) {
			if try.how == "" || (try.ask == "") == (try.do == nil) || try.want == "" || try.ask == "" && try.with != none {
				t.Errorf("%s: %+v: want words, a question or a function, and what is wanted", c.ID, try)
			}
		}
	}
}

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		want, got string
		yes       bool
	}{
		{"ok", "ok", true}, {"ok", "ok:", false}, {"EPERM|EACCES", "EACCES", true}, {"EPERM|EACCES", "EPER", false},
		{"!ok:x", "ok:y", true}, {"!ok:x", "ok:x", false}, {"!ok:x", "", false}, {"ok:*", "ok:long", true}, {"ok:*|ENOENT", "ENOENT", true}, {"ok:*", "EPERM", false}, {"ok:", "ok:", true},
		{"EPERM", "", false},
	} {
		if got := matches(tc.want, tc.got); got != tc.yes {
			t.Errorf("matches(%q, %q): got %v", tc.want, tc.got, got)
		}
	}
}

// TestEveryRefusedCallIsTried: what the policy always refuses is in the table
// once, with the policy's answer.
func TestEveryRefusedCallIsTried(t *testing.T) {
	var tried []string
	for _, c := range slices.Concat(callRows, alwaysRefused()) {
		name, _, _ := strings.Cut(c.call, " ")
		tried = append(tried, name)
	}
	for _, name := range []string{"mount", "io_uring_setup", "clone3", "bpf", "ptrace", "keyctl", "kexec_load", "swapoff", "acct", "quotactl", "mount_setattr", "pidfd_getfd", "move_pages", "delete_module"} {
		if !slices.Contains(tried, name) {
			t.Errorf("%s is not tried", name)
		}
	}
	if len(alwaysRefused()) < 60 {
		t.Errorf("%d calls are always refused: want more than 60", len(alwaysRefused()))
	}
}

func TestPrint(t *testing.T) {
	table := &Table{Kernel: "9.9", Lines: []Line{
		{ID: "a", Claim: "A holds", Result: OK, Tries: []Try{
			{How: "try it", Ask: "x", Want: "EPERM", Answer: "EPERM", Result: OK, Control: "outside", ControlAnswer: "ok", Differs: true},
			{How: "try it", Ask: "y", Want: "EPERM", Answer: "EPERM", Result: OK, Control: "outside", ControlAnswer: "EPERM"},
			{How: "try more", Result: NotTried, Why: "it rains"},
		}},
		{ID: "b", Claim: "B holds", Result: Failed, Tries: []Try{{How: "try it", Ask: "z", Want: "EPERM", Answer: "ok:got\nin", Result: Failed}}},
		{ID: "c", Claim: "C holds", Result: NotTried, Why: "nobody can"},
	}}
	want := `ok      A holds
        try it (2 times): EPERM (without the sandbox: ok)
        try more: not tried: it rains
FAILED  B holds
        try it: got in (no control)
          FAILED: z: got ok:got in, want EPERM

not tried, because nobody can:
        C holds

3 claims: 1 ok, 1 failed, 1 not tried. 9.9, 0 ms.
`
	if got := table.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
