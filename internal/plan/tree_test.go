package plan

import (
	"errors"
	"testing"

	"github.com/nucleus-container/nucleus/spec"
)

// TestProcThatShowsLess: what is not in the host's /proc cannot be covered.
func TestProcThatShowsLess(t *testing.T) {
	h := loadHost(t, "debian12-hybrid-root")
	delete(h.Paths, "/proc/sys")
	for _, s := range []spec.Sandbox{{}, {Toolchain: true, Userns: spec.UsernsHost}} {
		_, err := Build(&s, h, Command{Name: "sh"})
		var u *Unsupported
		if !errors.As(err, &u) || u.Field != "proc" {
			t.Errorf("got %v, want a refusal because of proc", err)
		}
	}
}
