package plan

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/policy"
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

// TestLandlockLog: what Landlock refuses is written down only for somebody who
// reads it, and what programs refuse themselves never is.
func TestLandlockLog(t *testing.T) {
	const on, quiet = abi.LandlockRestrictSelfLogNewExecOn, abi.LandlockRestrictSelfLogSubdomainsOff
	own := spec.Sandbox{Toolchain: true, Policy: &policy.Policy{Landlock: testPolicy.Landlock}}
	for _, row := range []struct {
		name      string
		box       spec.Sandbox
		abi       int
		watch     seccomp.Level
		readable  bool
		want      []uint32
		logged    string
		notLogged string
	}{
		{name: "nobody watches", abi: 7, readable: true, want: []uint32{quiet}, notLogged: "refusals logged"},
		{name: "nobody can read", abi: 7, watch: seccomp.Refusals, want: []uint32{quiet}, notLogged: "refusals logged"},
		{name: "watched", abi: 7, watch: seccomp.Refusals, readable: true, want: []uint32{on | quiet}, logged: "refusals logged, nested domains not logged"},
		{name: "an old kernel", abi: 6, watch: seccomp.Files, readable: true, want: []uint32{0}, notLogged: "logged"},
		{name: "own rules", box: own, abi: 8, watch: seccomp.Files, readable: true, want: []uint32{on, on | quiet}, logged: "refusals logged, nested domains not logged"},
		{name: "own rules, nobody watches", box: own, abi: 8, readable: true, want: []uint32{0, quiet}, notLogged: "refusals logged"},
	} {
		h := loadHost(t, "debian12-hybrid-root")
		h.SeccompFlags, h.LandlockABI, h.AuditLog = 8, row.abi, row.readable
		p, err := Build(&row.box, h, Command{Name: "sh", Observe: row.watch})
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		var got []uint32
		for _, s := range p.Steps {
			if a, ok := s.Do.(Landlock); ok {
				got = append(got, a.Log)
			}
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: got %b, want %b", row.name, got, row.want)
		}
		if text := p.String(); !strings.Contains(text, row.logged) || row.notLogged != "" && strings.Contains(text, row.notLogged) {
			t.Errorf("%s: want %q and not %q in\n%s", row.name, row.logged, row.notLogged, text)
		}
	}
}
