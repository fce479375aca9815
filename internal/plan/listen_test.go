package plan

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

func watched(t *testing.T, host, name string, l seccomp.Level) (*Plan, *facts.Host) {
	t.Helper()
	s, h := testSpecs[name], loadHost(t, host)
	h.SeccompFlags = 8
	p, err := Build(&s, h, Command{Name: "sh", Observe: l})
	if err != nil {
		t.Fatal(err)
	}
	return p, h
}

// TestWatchedDiffers: a sandbox that is watched is the same sandbox, but for who
// gives the policy's answers.
func TestWatchedDiffers(t *testing.T) {
	for _, m := range mutants {
		base := mutantBase(t, m.host, m.spec)
		for l := seccomp.Refusals; l <= seccomp.Everything; l++ {
			if l > seccomp.Files && testSpecs[m.spec].Mode.Demands(spec.ModeStrictAgent) {
				continue // TestRowsHold: these modes refuse it
			}
			if s := testSpecs[m.spec]; s.Policy != nil && s.Policy.Seccomp != nil {
				continue // TestWatchable: the policy refuses what process 1 needs
			}
			p, _ := watched(t, m.host, m.spec, l)
			listen := find[Listen](p)
			if listen == nil || listen.Level != l {
				t.Fatalf("%s on %s: no listener of level %d", m.spec, m.host, l)
			}
			if want, got := base.Policy(), p.Policy(); !reflect.DeepEqual(got, want) {
				t.Errorf("%s on %s: programs that join get another policy", m.spec, m.host)
			}
			alike := func(p *Plan) (out []Step) {
				for _, st := range p.Steps {
					switch x := st.Do.(type) {
					case MakeInit:
						x.Filter = seccomp.Program{}
						st.Do = x
					case Listen, Seccomp:
						continue
					}
					out = append(out, st)
				}
				return out
			}
			if !reflect.DeepEqual(alike(p), alike(base)) {
				t.Errorf("%s on %s: it differs in more than its filters:\n%s", m.spec, m.host, firstDifference(p.String(), base.String()))
			}
		}
	}
}

// TestWatchedIsChecked changes plans with a listener for the worse.
func TestWatchedIsChecked(t *testing.T) {
	base, _ := watched(t, "debian13-rootless", "work", seccomp.Refusals)
	at := index[Listen](base)
	with := func(change func(steps []Step) []Step) error {
		return (&Plan{Kept: base.Kept, Weakened: base.Weakened, Steps: change(slices.Clone(base.Steps))}).Check()
	}
	for name, change := range map[string]func([]Step) []Step{
		"no listener": func(s []Step) []Step { return slices.Delete(s, at, at+1) },
		"no program": func(s []Step) []Step {
			l := s[at].Do.(Listen)
			l.Program.Insns = nil
			s[at].Do = l
			return s
		},
		"nothing for programs that join": func(s []Step) []Step {
			l := s[at].Do.(Listen)
			l.Plain.Insns = nil
			s[at].Do = l
			return s
		},
		"before no_new_privs": func(s []Step) []Step { return move(s, at, index[NoNewPrivs](base)) },
		"before Landlock":     func(s []Step) []Step { return move(s, at, index[Landlock](base)) },
		"after process 1":     func(s []Step) []Step { return move(s, at, index[ExecInit](base)) },
		"two filters that decide": func(s []Step) []Step {
			f := s[len(s)-2].Do.(Seccomp)
			f.Name = "default"
			s[len(s)-2].Do = f
			return s
		},
	} {
		if with(change) == nil {
			t.Errorf("%s: Check accepts the plan", name)
		}
	}
	if err := with(func(s []Step) []Step { return s }); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// TestWatchedIsRefused: without listeners, or with nobody to listen.
func TestWatchedIsRefused(t *testing.T) {
	s, h := testSpecs["default"], loadHost(t, "debian13-rootless")
	if _, err := Build(&s, h, Command{Name: "sh", Observe: seccomp.Refusals}); err == nil || !strings.Contains(err.Error(), "no listeners") {
		t.Errorf("a kernel without listeners: got %v", err)
	}
	h.SeccompFlags = 8
	if _, err := Build(&s, h, Command{Name: "sh", Observe: seccomp.Refusals, Detach: true}); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("detached: got %v", err)
	}
}
