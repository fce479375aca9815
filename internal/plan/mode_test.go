package plan

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// brokenRows lists the rows that do not hold.
func brokenRows(t testing.TB, err error) (ids []string) {
	t.Helper()
	if err == nil {
		return nil
	}
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var b *Broken
		if !errors.As(e, &b) {
			t.Fatalf("got %T %v, want a *Broken", e, e)
		}
		if text := b.Error(); b.Found == "" || strings.Contains(text, "\n") || !strings.HasPrefix(text, b.Mode.String()+": "+b.Invariant.ID+": ") {
			t.Errorf("got %q, want one line with mode, row and what was found", text)
		}
		ids = append(ids, b.Invariant.ID)
	}
	return ids
}

// sound is a sandbox that every mode accepts, with the plan of it.
func sound(t testing.TB) subject {
	t.Helper()
	p0 := testSpecs["production"]
	s := &p0
	h := loadHost(t, "rhel10-root")
	p, err := Build(s, h, Command{Name: "sh"})
	if err != nil {
		t.Fatal(err)
	}
	return subject{s, h, p}
}

// edit changes the first step of a type in a plan.
func edit[A Action](t testing.TB, p *Plan, change func(A) A) {
	t.Helper()
	for i := range p.Steps {
		if a, ok := p.Steps[i].Do.(A); ok {
			p.Steps[i].Do = change(a)
			return
		}
	}
	t.Fatal("the plan has no such step")
}

// remove takes the steps of a type out of a plan.
func remove[A Action](p *Plan) {
	p.Steps = slices.DeleteFunc(p.Steps, func(s Step) bool { _, ok := s.Do.(A); return ok })
}

// violations break each row of the table of modes, in the ways that there are.
var violations = []struct {
	name  string
	rows  string // that do not hold any more
	spoil func(t testing.TB, s subject)
}{
	{"a weakening that nobody named", "named-weakenings", func(_ testing.TB, s subject) {
		s.plan.Weakened = append(s.plan.Weakened, Weakening{Feature: "limits.memory", Why: "it is not counted here"})
	}},
	{"a weakening that the kernel is blamed for", "named-weakenings", func(_ testing.TB, s subject) {
		s.plan.Weakened = append(s.plan.Weakened, Weakening{Feature: "limits.memory", Why: "it is not counted here", By: ByKernel})
	}},
	{"a weakening by another name", "named-weakenings", func(_ testing.TB, s subject) {
		s.plan.Weakened = append(s.plan.Weakened, Weakening{Feature: "policy.landlock", Why: noLandlock, By: spec.DegradeLandlock})
	}},
	{"a weakening that a policy names", "no-dangerous-policy", func(_ testing.TB, s subject) {
		s.plan.Weakened = append(s.plan.Weakened, Weakening{Feature: "policy.caps", Why: "CAP_X is dangerous", By: ByPolicy})
	}},
	{"a feature that may be degraded", "no-degraded", func(_ testing.TB, s subject) { s.spec.Degrade = []string{spec.DegradeCgroup} }},
	{"the host's users", "own-user-namespace", func(_ testing.TB, s subject) { s.spec.Userns = spec.UsernsHost }},
	{"any number of tasks", "bounded-tasks", func(_ testing.TB, s subject) { s.spec.Limits.Pids = spec.Unlimited }},
	{"the host's network", "explicit-dns no-host-network", func(_ testing.TB, s subject) { s.spec.Network = "host" }},
	{"a network without DNS", "explicit-dns", func(_ testing.TB, s subject) { s.spec.Network = "nat" }},
	{"an older Landlock", "full-landlock", func(_ testing.TB, s subject) { s.host.LandlockABI = 5 }},
	{"no Landlock", "full-landlock", func(_ testing.TB, s subject) { s.host.LandlockABI = 0 }},
	{"no control group", "cgroup-limits", func(_ testing.TB, s subject) { remove[CgroupWrite](s.plan) }},
	{"a limit that is not written", "cgroup-limits", func(_ testing.TB, s subject) {
		s.plan.Steps = slices.DeleteFunc(s.plan.Steps, func(st Step) bool { return st.Because == "limits.milli_cpus" })
	}},
	{"a limit that nobody planned", "cgroup-limits", func(_ testing.TB, s subject) { s.spec.Limits.IO = []spec.IOLimit{{Major: 8, ReadBPS: 1}} }},
	{"no memory limit", "memory-limit", func(_ testing.TB, s subject) { s.spec.Limits.Memory = 0 }},
	{"no processor limit", "cpu-limit", func(_ testing.TB, s subject) { s.spec.Limits.MilliCPUs = 0 }},
	{"an executable workspace", "no-writable-code", func(_ testing.TB, s subject) { s.spec.Workspace = &spec.Bind{Exec: true} }},
	{"an executable tmpfs", "no-writable-code", func(_ testing.TB, s subject) { s.spec.Tmpfs = []spec.Tmpfs{{Target: "/x", Exec: true}} }},
	{"a volume for everything", "no-writable-code", func(_ testing.TB, s subject) {
		s.spec.Volumes = []spec.Volume{{Target: "/x", Exec: true}, {Target: "/y", Writable: true}, {Target: "/z", Exec: true, Writable: true}}
	}},
	{"a directory by two names", "no-writable-code", func(_ testing.TB, s subject) {
		s.host.Paths["w"], s.host.Paths["x"] = facts.Path{Kind: facts.Dir, Real: "/srv/w"}, facts.Path{Kind: facts.Dir, Real: "/srv/w/x"}
		s.spec.Volumes = []spec.Volume{{Source: "w", Target: "/w", Writable: true}, {Source: "x", Target: "/x", Exec: true}}
	}},
	{"a part of the root", "no-writable-code", func(_ testing.TB, s subject) {
		root := s.host.Paths[s.spec.Rootfs.Source].Real
		s.host.Paths["w"] = facts.Path{Kind: facts.Dir, Real: root + "/bin"}
		s.spec.Workspace = &spec.Bind{Source: "w"}
	}},
	{"a rule for everything", "write-xor-execute", func(t testing.TB, s subject) {
		edit(t, s.plan, func(l Landlock) Landlock {
			l.Rules.Rules = append(slices.Clone(l.Rules.Rules), landlock.PathRule{Path: "/x", Allow: landlock.Write | landlock.Execute})
			return l
		})
	}},
	{"a rule that inherits the rest", "write-xor-execute", func(t testing.TB, s subject) {
		edit(t, s.plan, func(l Landlock) Landlock {
			l.Rules.Rules = append(slices.Clone(l.Rules.Rules), landlock.PathRule{Path: "/usr/share", Allow: landlock.WriteFile})
			return l
		})
	}},
	{"a policy for everything", "write-xor-execute", func(_ testing.TB, s subject) {
		rules := landlock.Ruleset{HandleFS: landlock.All(landlock.Latest), Rules: []landlock.PathRule{{Path: "/x", Allow: landlock.Write | landlock.Execute}}}
		s.plan.Steps = append(s.plan.Steps, Step{Child, "x", Landlock{Rules: rules, Narrow: true}})
	}},
	{"a policy that nobody pinned", "pinned-policies", func(_ testing.TB, s subject) {
		s.spec.Policy = &policy.Policy{Sources: []policy.Source{{Kind: policy.KindProfile, Path: "go"}, {Kind: policy.KindPolicy, Path: "a", Pinned: true}, {Kind: policy.KindSeccomp, Path: "b"}}}
	}},
	{"everything is recorded", "no-trace", func(_ testing.TB, s subject) {
		s.plan.Steps = append(s.plan.Steps, Step{Child, "x", Listen{Level: seccomp.Everything}})
	}},
	{"no rules", "write-xor-execute", func(_ testing.TB, s subject) { remove[Landlock](s.plan) }},
	{"a proc that hides nothing", "hidden-processes", func(t testing.TB, s subject) {
		edit(t, s.plan, func(n NewMount) NewMount { n.Options = nil; return n })
	}},
	{"a proc that shows all to the program's group", "hidden-processes", func(t testing.TB, s subject) {
		edit(t, s.plan, func(n NewMount) NewMount { n.Options = []string{"hidepid=invisible", "gid=0"}; return n })
	}},
	{"no proc", "hidden-processes mount-audit", func(_ testing.TB, s subject) { remove[NewMount](s.plan) }},
	{"no audit", "mount-audit", func(_ testing.TB, s subject) { remove[Hold](s.plan) }},
	{"an audit of other mounts", "mount-audit", func(t testing.TB, s subject) {
		edit(t, s.plan, func(h Hold) Hold { h.Mounts = h.Mounts[1:]; return h })
	}},
	{"the host's programs", "immutable-root", func(_ testing.TB, s subject) { s.spec.Toolchain = true }},
	{"no root", "immutable-root attested-root", func(_ testing.TB, s subject) { s.spec.Rootfs = nil }},
	{"a root that nobody compares", "attested-root", func(_ testing.TB, s subject) { remove[Attest](s.plan) }},
	{"another root that is compared", "attested-root", func(t testing.TB, s subject) {
		edit(t, s.plan, func(a Attest) Attest { a.Source = "/elsewhere"; return a })
	}},
}

var allMoments = []When{Asked, Machine, Planned, Kernel}

// TestRowsHold violates each row of each mode, and expects that row to say so:
// in the modes that have it, and in no other.
func TestRowsHold(t *testing.T) {
	violated := map[string]bool{}
	for _, v := range violations {
		t.Run(v.name, func(t *testing.T) {
			for _, m := range spec.Modes() {
				s := sound(t)
				s.spec.Mode = m
				v.spoil(t, s)
				var want []string
				for _, row := range Invariants() {
					ours := slices.Contains(strings.Fields(v.rows), row.ID)
					if ours && m.Demands(row.From) {
						want = append(want, row.ID)
						violated[row.ID] = true
					}
				}
				if got := brokenRows(t, judge(s, allMoments...)); !slices.Equal(got, want) {
					t.Errorf("%s: got %q, want %q", m, got, want)
				}
			}
		})
	}
	for _, row := range Invariants() {
		if !violated[row.ID] {
			t.Errorf("no test violates the row %s", row.ID)
		}
	}
}

// TestRowsAreExplained holds the table to what is said of it.
func TestRowsAreExplained(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range Invariants() {
		if seen[row.ID] || row.What == "" || row.Why == "" || row.Fix == "" || row.found == nil || !slices.Contains(allMoments, row.When) || !slices.Contains(spec.Modes(), row.From) {
			t.Errorf("the row %+v lacks something, or is there twice", row)
		}
		seen[row.ID] = true
	}
}

// TestModesJudgeBuilds has Build refuse what a mode does not accept.
func TestModesJudgeBuilds(t *testing.T) {
	build := func(host string, change func(*spec.Sandbox, *facts.Host)) error {
		s, h := *sound(t).spec, loadHost(t, host)
		s.Mode, s.Rootfs, s.Toolchain = spec.ModeStrictAgent, nil, true
		change(&s, h)
		_, err := Build(&s, h, Command{Name: "sh"})
		return err
	}
	if err := build("rhel10-root", func(*spec.Sandbox, *facts.Host) {}); err != nil {
		t.Errorf("a sound sandbox: %v", err)
	}
	if err := build("debian13-rootless", func(s *spec.Sandbox, _ *facts.Host) { s.Limits = spec.Limits{} }); err != nil {
		t.Errorf("an ordinary user's, with the default limits: %v", err)
	}
	if got := brokenRows(t, build("rhel10-root", func(s *spec.Sandbox, h *facts.Host) { s.Userns, h.LandlockABI = spec.UsernsHost, 5 })); !slices.Equal(got, []string{"own-user-namespace", "full-landlock"}) {
		t.Errorf("got %q", got)
	}
	// A limit that cannot be kept is said by its own name, in every mode.
	var u *Unsupported
	if err := build("rhel10-root", func(_ *spec.Sandbox, h *facts.Host) { h.Cgroup = facts.Cgroup{} }); !errors.As(err, &u) || u.Field != "limits.memory" {
		t.Errorf("without control groups: got %v", err)
	}
}

// TestUnboundedHostUser: root's own tasks are bounded by a control group or not
// at all, and that is not left unsaid.
func TestUnboundedHostUser(t *testing.T) {
	s, h := spec.Sandbox{Toolchain: true, Userns: spec.UsernsHost}, loadHost(t, "rhel10-root")
	h.Cgroup = facts.Cgroup{Mode: facts.CgroupNone}
	var u *Unsupported
	if _, err := Build(&s, h, Command{Name: "sh"}); !errors.As(err, &u) || u.Field != "limits.pids" {
		t.Errorf("got %v, want limits.pids to be unsupported", err)
	}
	s.Degrade = []string{spec.DegradeCgroup}
	p, err := Build(&s, h, Command{Name: "sh"})
	if err != nil || !slices.ContainsFunc(p.Weakened, func(w Weakening) bool { return w.Feature == "limits.pids" && w.By == spec.DegradeCgroup }) {
		t.Errorf("got %+v, %v; want a weakening by that name", p, err)
	}
	s.Degrade, s.Limits.Pids = nil, spec.Unlimited
	if _, err := Build(&s, h, Command{Name: "sh"}); err != nil {
		t.Errorf("without a limit on tasks: %v", err)
	}
}

func TestDemands(t *testing.T) {
	for _, tc := range []struct {
		want spec.Lockdown
		have string
		ok   bool
	}{
		{spec.LockdownAny, "", true},
		{spec.LockdownIntegrity, "none", false},
		{spec.LockdownIntegrity, "integrity", true},
		{spec.LockdownIntegrity, "confidentiality", true},
		{spec.LockdownIntegrity, "", false},
		{spec.LockdownConfidentiality, "integrity", false},
		{spec.LockdownConfidentiality, "confidentiality", true},
		{spec.LockdownConfidentiality, "something new", false},
	} {
		s, h := spec.Sandbox{Toolchain: true, Lockdown: tc.want}, loadHost(t, "rhel10-root")
		h.Lockdown, h.LockdownWhy = tc.have, "no file"
		_, err := Build(&s, h, Command{Name: "sh"})
		var u *Unsupported
		if (err == nil) != tc.ok || err != nil && (!errors.As(err, &u) || u.Field != "lockdown" || u.Fix == "") {
			t.Errorf("%q where it is %q: got %v", tc.want, tc.have, err)
		}
		if asks := AsksOf(&s); asks.Lockdown != (tc.want != "") {
			t.Errorf("%q: asks for it: %t", tc.want, asks.Lockdown)
		}
	}
	for trust, ok := range map[spec.Trust]bool{spec.TrustUnsaid: true, spec.TrustTrusted: true, spec.TrustUntrusted: false} {
		s := spec.Sandbox{Toolchain: true, Trust: trust}
		_, err := Build(&s, loadHost(t, "rhel10-root"), Command{Name: "sh"})
		var u *Unsupported
		if (err == nil) != ok || err != nil && (!errors.As(err, &u) || u.Field != "trust" || u.Fix == "") {
			t.Errorf("trust %q: got %v", trust, err)
		}
	}
}

// TestProductionHidesFromJoiners: the one group of an ordinary user is the
// program's own, so no group may see everything.
func TestProductionHidesFromJoiners(t *testing.T) {
	for mode, want := range map[spec.Mode]string{spec.ModeStrictAgent: "hidepid=invisible,gid=1000", spec.ModeProduction: "hidepid=invisible"} {
		h := loadHost(t, "debian13-rootless")
		b := &builder{spec: &spec.Sandbox{User: spec.User{GID: 1000}, Mode: mode}, host: h, cmd: Command{Joinable: true}, owned: true}
		if got := strings.Join(b.procOptions(), ","); got != want {
			t.Errorf("%s: got %s, want %s", mode, got, want)
		}
	}
}

// TestStrictPlansMissNothing removes each step of plans of the stricter modes:
// Check or a row notices, or it is harmless, and for these modes less is.
func TestStrictPlansMissNothing(t *testing.T) {
	for _, m := range []spec.Mode{spec.ModeStrictAgent, spec.ModeProduction} {
		for _, host := range []string{"debian12-hybrid-root", "debian13-rootless"} {
			s, h := testSpecs["production"], loadHost(t, host)
			s.Mode = m
			base, err := Build(&s, h, Command{Name: "sh"})
			if err != nil {
				t.Fatal(err)
			}
			for i, st := range base.Steps {
				p := &Plan{Weakened: base.Weakened, Mode: m, Kept: base.Kept, Steps: slices.Delete(slices.Clone(base.Steps), i, i+1)}
				if p.Check() != nil || judge(subject{&s, h, p}, allMoments...) != nil {
					continue
				}
				switch st.Do.(type) {
				case CgroupWrite:
					t.Errorf("%s on %s: nobody misses %s", m, host, st.Do)
				case Attest, Hold:
					if m == spec.ModeProduction {
						t.Errorf("%s on %s: nobody misses %s", m, host, st.Do)
					}
				case MountFS, Show, MoveMount, SetAttr, OpenTree, Landlock, Seccomp:
					if _, ok := harmless[reflect.TypeOf(st.Do)]; !ok || m == spec.ModeProduction {
						t.Errorf("%s on %s: nobody misses %s %s", m, host, st.Do.Call(), st.Do)
					}
				default:
					if harmless[reflect.TypeOf(st.Do)] == "" {
						t.Errorf("%s on %s: nobody misses %s %s", m, host, st.Do.Call(), st.Do)
					}
				}
			}
		}
	}
}
