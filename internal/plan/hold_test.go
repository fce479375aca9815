package plan

import (
	"reflect"
	"slices"
	"testing"
)

// TestHeld: a sandbox that is held is the same sandbox, with one step more, at the
// only place where what is read back is what the program gets.
func TestHeld(t *testing.T) {
	for _, m := range mutants {
		base := mutantBase(t, m.host, m.spec)
		s := testSpecs[m.spec]
		if find[Hold](base) != nil {
			continue // TestHeldForItsMounts
		}
		p, err := Build(&s, loadHost(t, m.host), Command{Name: "sh", Hold: true})
		if err != nil {
			t.Fatal(err)
		}
		at := index[Hold](p)
		if at < 0 || at+1 != index[ExecInit](p) {
			t.Fatalf("%s on %s: it is held at step %d, process 1 is executed at %d", m.spec, m.host, at, index[ExecInit](p))
		}
		held := p.Steps[at]
		rest := slices.Delete(slices.Clone(p.Steps), at, at+1)
		if !reflect.DeepEqual(rest, base.Steps) {
			t.Errorf("%s on %s: it differs in more than that it is held", m.spec, m.host)
		}
		for _, kind := range []int{index[DropCaps](p), index[NoNewPrivs](p), index[Landlock](p)} {
			if kind < 0 { // no Landlock there
				continue
			}
			early := &Plan{Steps: slices.Insert(slices.Clone(rest), kind, held), Weakened: p.Weakened, Mode: p.Mode}
			if early.Check() == nil {
				t.Errorf("%s on %s: held before step %d is not noticed", m.spec, m.host, kind)
			}
		}
	}
}
