package plan

import (
	"strings"
	"testing"
)

// TestNamesForgeNoLine: a name that a rootfs holds neither begins a line of the
// plan nor reaches a terminal as anything but text.
func TestNamesForgeNoLine(t *testing.T) {
	for _, name := range []string{"a\nparent open_tree", "\x1b[2K", "\u009b2K", "\r", "\x7f", "\u202e", "\u2028", "\xff"} {
		p := &Plan{
			Steps:    []Step{{Where: "child", Because: "rootfs " + name, Do: MakeLink{Path: "/lib", Target: name}}},
			Weakened: []Weakening{{Feature: "x", Why: name}},
		}
		got := p.String()
		if strings.Contains(got, name) || strings.Count(got, "\n") != 2 {
			t.Errorf("%q: got %q, want two lines without it", name, got)
		}
	}
	p := &Plan{Steps: []Step{{Where: "child", Because: "rootfs", Do: MakeLink{Path: "/lib", Target: "usr/lib grün"}}}}
	if got := p.String(); !strings.Contains(got, "/lib -> usr/lib grün ") {
		t.Errorf("got %q, want the name as it is", got)
	}
}
