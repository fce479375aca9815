package seccomp

import "testing"

// TestExample: what is given as allowed is, and what is never allowed has no example.
func TestExample(t *testing.T) {
	p := Default()
	for _, a := range []Arch{AMD64, ARM64} {
		for _, name := range a.Names() {
			args, ok := p.Example(a, name)
			nr, _ := a.Number(name)
			if ok && p.Decide(a, nr, args) != Allow {
				t.Errorf("%s: %v is refused", name, args)
			}
		}
		for name, want := range map[string]bool{"socket": true, "clone": true, "read": true, "unshare": false, "mount": false, "nothing": false} {
			if _, ok := p.Example(a, name); ok != want {
				t.Errorf("%s: got an example: %t", name, ok)
			}
		}
	}
}
