package host

import (
	"os"
	"testing"
)

func TestParseLockdown(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"[none] integrity confidentiality\n", "none"},
		{"none [integrity] confidentiality\n", "integrity"},
		{"none integrity [confidentiality]\n", "confidentiality"},
		{"[future]", "future"},
		{"", ""},
		{"none integrity confidentiality", ""},
		{"[none] [integrity]", ""},
		{"[none integrity]", ""},
		{"[]", ""},
	} {
		got, err := parseLockdown(tc.text)
		if got != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%q: got %q, %v; want %q", tc.text, got, err, tc.want)
		}
	}
}

// TestLockdown holds what the probe says to what there is.
func TestLockdown(t *testing.T) {
	state, why := Lockdown()
	if (state == "") == (why == "") {
		t.Errorf("got the state %q and the reason %q, want one of them", state, why)
	}
	if _, err := os.Stat(lockdownFile); err != nil && state != "" {
		t.Errorf("got the state %q without %s", state, lockdownFile)
	}
}
