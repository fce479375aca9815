package plan

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/spec"
)

// joints are the programs that join sandboxes of these tests.
var joints = []struct {
	name, host, spec string
	joint            Joint
}{
	{"root", "debian12-hybrid-root", "default", Joint{Cgroup: true}},
	{"root-terminal", "debian12-hybrid-root", "terminal", Joint{Terminal: true, Cgroup: true}},
	{"root-user", "debian12-hybrid-root", "work", Joint{User: &SetIDs{UID: 33, GID: 44}, Env: []string{"LANG=C", "X=y"}, Dir: "/tmp"}},
	{"root-detached", "rhel10-root", "limits", Joint{Command: Command{Detach: true}, Cgroup: true}},
	{"usernshost", "debian12-hybrid-root", "usernshost", Joint{}},
	{"rootless", "debian13-rootless", "work", Joint{}},
	{"policy", "debian12-hybrid-root", "policy", Joint{}},
	{"policy-usernshost", "debian12-hybrid-root", "policyhost", Joint{}},
	{"policy-rootless", "debian13-rootless", "policy", Joint{}},
	{"rootless-scope", "debian13-rootless", "memory", Joint{Cgroup: true, Scoped: true}},
}

// joinPlan makes the plan of one of them, with a policy that has been on disk.
func joinPlan(t *testing.T, i int) (*Plan, Policy) {
	t.Helper()
	c := joints[i]
	b, err := json.Marshal(mutantBase(t, c.host, c.spec).Policy())
	if err != nil {
		t.Fatal(err)
	}
	var pol Policy
	if err := json.Unmarshal(b, &pol); err != nil {
		t.Fatal(err)
	}
	j := c.joint
	j.Name, j.Args = "sh", []string{"-c", "true"}
	p, err := Join(pol, loadHost(t, c.host), j)
	if err != nil {
		t.Fatal(err)
	}
	return p, pol
}

func TestJoinGoldens(t *testing.T) {
	for i, c := range joints {
		t.Run(c.name, func(t *testing.T) {
			p, _ := joinPlan(t, i)
			got := p.String()
			file := filepath.Join("testdata/plan", "join-"+c.name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s differs (-update writes it):\n%s", file, firstDifference(got, string(want)))
			}
		})
	}
}

// TestJoinKeepsThePolicy compares what confines a program that joins with what
// confines the sandbox's own.
func TestJoinKeepsThePolicy(t *testing.T) {
	for i, c := range joints {
		base := mutantBase(t, c.host, c.spec)
		p, _ := joinPlan(t, i)
		for _, same := range []struct {
			name      string
			got, want any
		}{
			{"filter", find[Seccomp](p).Program.Insns, find[Seccomp](base).Program.Insns},
			{"bounding set", find[DropBounding](p), find[DropBounding](base)},
			{"file rules", find[Landlock](p).Rules.Rules, find[Landlock](base).Rules.Rules},
			{"file rights", find[Landlock](p).Rules.HandleFS, find[Landlock](base).Rules.HandleFS},
			{"limits", rlimits(p), rlimits(base)},
			{"capabilities kept", p.Kept, base.Kept},
			{"capabilities raised", find[KeepCaps](p), find[KeepCaps](base)},
			{"capabilities dropped", find[DropCaps](p), find[DropCaps](base)},
			{"narrower files", narrowed(p), narrowed(base)},
			{"groups kept", find[SetIDs](p).KeepGroups, find[SetIDs](base).KeepGroups},
		} {
			if !reflect.DeepEqual(same.got, same.want) {
				t.Errorf("%s: %s: got %v, want %v", c.name, same.name, same.got, same.want)
			}
		}
		flags := find[CloneInto](base).Flags
		if find[NewCgroupNS](base) != nil {
			flags |= abi.CloneNewCgroup
		}
		if got := find[JoinNamespaces](p).Flags; got != flags {
			t.Errorf("%s: it joins %#x, the sandbox has %#x", c.name, got, flags)
		}
		if got, want := find[CloneInto](p).Copy, flags&abi.CloneNewTime != 0; got != want {
			t.Errorf("%s: a copy of our memory: %t, want %t", c.name, got, want)
		}
	}
}

// narrowed is what a policy's own rules about files are; scopes are not joined.
func narrowed(p *Plan) (all []landlock.Ruleset) {
	for _, s := range p.Steps {
		if a, ok := s.Do.(Landlock); ok && a.Narrow {
			a.Rules.Scopes = 0
			all = append(all, a.Rules)
		}
	}
	return all
}

func rlimits(p *Plan) (all []Rlimit) {
	for _, s := range p.Steps {
		if r, ok := s.Do.(Rlimit); ok {
			all = append(all, r)
		}
	}
	return all
}

func TestJoinAsAnotherUser(t *testing.T) {
	pol := mutantBase(t, "debian13-rootless", "work").Policy()
	if _, err := Join(pol, loadHost(t, "debian13-rootless"), Joint{Command: Command{Name: "sh"}, User: &SetIDs{UID: 33}}); err == nil {
		t.Error("an ordinary user's sandbox has one user; another was taken")
	}
}

// joinHarmless are the steps without which Check accepts a plan to join.
var joinHarmless = map[reflect.Type]string{
	reflect.TypeFor[Umask]():    "files of the program get other modes",
	reflect.TypeFor[OwnPipes](): "less works: /dev/stdout cannot be opened",
	reflect.TypeFor[Keyring]():  "the filter refuses keyctl, add_key and request_key",
	reflect.TypeFor[Chdir]():    "the working directory is the sandbox's root, from setns",
	reflect.TypeFor[Rlimit]():   "RLIMIT_NPROC only; the others are caught",
}

func TestCheckCatchesMutationsOfJoins(t *testing.T) {
	for i, c := range joints {
		base, _ := joinPlan(t, i)
		for n, s := range base.Steps {
			p := &Plan{Kept: base.Kept, Weakened: base.Weakened, Steps: slices.Delete(slices.Clone(base.Steps), n, n+1)}
			r, limit := s.Do.(Rlimit)
			if p.Check() == nil && (joinHarmless[reflect.TypeOf(s.Do)] == "" || limit && r.Name != "RLIMIT_NPROC") {
				t.Errorf("%s: Check accepts the plan without %s %s", c.name, s.Do.Call(), s.Do)
			}
		}
		at := func(a Action) int {
			return slices.IndexFunc(base.Steps, func(s Step) bool { return reflect.TypeOf(s.Do) == reflect.TypeOf(a) })
		}
		for _, pair := range [][2]Action{
			{CloseInherited{}, JoinNamespaces{}}, {NewSession{}, JoinNamespaces{}}, {JoinNamespaces{}, Securebits{}}, {Securebits{}, SetIDs{}},
			{SetIDs{}, DropCaps{}}, {DropBounding{}, DropCaps{}}, {DropCaps{}, Landlock{}}, {NoNewPrivs{}, Landlock{}}, {Landlock{}, ExecInit{}},
			{JoinNamespaces{}, Chdir{}}, {Wait{}, JoinNamespaces{}}, {OpenTerminal{}, Landlock{}}, {JoinNamespaces{}, OpenTerminal{}}, {Lifeline{}, ExecInit{}},
		} {
			first, second := at(pair[0]), at(pair[1])
			if first < 0 || second < 0 {
				continue
			}
			if p := (&Plan{Kept: base.Kept, Weakened: base.Weakened, Steps: move(base.Steps, first, second)}); p.Check() == nil {
				t.Errorf("%s: Check accepts a %T behind a %T", c.name, pair[0], pair[1])
			}
		}
		changeJoin(t, c.name, base)
	}
}

// changeJoin changes fields of steps to something unsafe.
func changeJoin(t *testing.T, name string, base *Plan) {
	t.Helper()
	for n, s := range base.Steps {
		var worse []Action
		switch a := s.Do.(type) {
		case JoinNamespaces:
			for _, ns := range []uint64{abi.CloneNewPID, abi.CloneNewNS, abi.CloneNewNet, abi.CloneNewUTS, abi.CloneNewIPC, abi.CloneNewCgroup} {
				worse = append(worse, JoinNamespaces{a.Flags &^ ns})
			}
		case MakeInit:
			b, c, d := a, a, a
			b.Joined, c.Detached, d.Filter.Insns = false, !a.Detached, nil
			worse = append(worse, b, c, d)
		case CloneInto:
			if a.Cgroup {
				a.Cgroup = false
				worse = append(worse, a)
			}
		}
		for _, a := range worse {
			p := &Plan{Kept: base.Kept, Weakened: base.Weakened, Steps: slices.Clone(base.Steps)}
			p.Steps[n].Do = a
			if p.Check() == nil {
				t.Errorf("%s: Check accepts %+v instead of %+v", name, a, s.Do)
			}
		}
	}
	for _, a := range []Action{MountFS{Type: "tmpfs", Target: "/x", Flags: abi.MSNoSuid}, WriteMap{File: "uid_map"}, Deadline{After: time.Second}, PivotRoot{Path: "/x"}} {
		at := index[JoinNamespaces](base) + 1
		p := &Plan{Kept: base.Kept, Weakened: base.Weakened, Steps: slices.Insert(slices.Clone(base.Steps), at, Step{Child, "x", a})}
		if p.Check() == nil {
			t.Errorf("%s: Check accepts a %T in a plan to join", name, a)
		}
	}
}

// TestDetachedDiffers: a detached sandbox is the same sandbox, but for its life.
func TestDetachedDiffers(t *testing.T) {
	for _, m := range mutants {
		s, h := testSpecs[m.spec], loadHost(t, m.host)
		s.Timeout = time.Hour
		a, err := Build(&s, h, Command{Name: "sh"})
		if err != nil {
			t.Fatal(err)
		}
		d, err := Build(&s, h, Command{Name: "sh", Detach: true})
		if err != nil {
			t.Fatal(err)
		}
		alike := func(p *Plan) (out []Step) {
			for _, st := range p.Steps {
				switch x := st.Do.(type) {
				case ReserveIDs:
					x.Lasting = false
					st.Do = x
				case MakeInit:
					x.Detached = false
					st.Do = x
				case Lifeline, Deadline, Wait:
					continue
				}
				out = append(out, st)
			}
			return out
		}
		if !reflect.DeepEqual(alike(a), alike(d)) {
			t.Errorf("%s on %s: a detached sandbox differs in more than its life:\n%s", m.spec, m.host, firstDifference(d.String(), a.String()))
		}
		if find[Lifeline](d) != nil || find[Deadline](d) == nil || find[Wait](d) == nil || !find[MakeInit](d).Detached {
			t.Errorf("%s on %s: it is not detached:\n%s", m.spec, m.host, d)
		}
		if r := find[ReserveIDs](d); r != nil && !r.Lasting {
			t.Errorf("%s on %s: its ids end with its starter", m.spec, m.host)
		}
		for _, kind := range []Action{Wait{}, Lifeline{}} {
			p := &Plan{Kept: d.Kept, Weakened: d.Weakened}
			for _, st := range d.Steps {
				if reflect.TypeOf(st.Do) != reflect.TypeOf(kind) {
					p.Steps = append(p.Steps, st)
				}
			}
			if kind == (Action(Lifeline{})) { // one too many
				p.Steps = slices.Insert(p.Steps, index[ExecInit](p), Step{Child, "x", Lifeline{}})
			}
			if p.Check() == nil {
				t.Errorf("%s on %s: Check accepts a detached plan with a wrong %T", m.spec, m.host, kind)
			}
		}
	}
}

// TestTrackedGroup: groups that only watch make no difference but for being there.
func TestTrackedGroup(t *testing.T) {
	s, h := spec.Sandbox{Toolchain: true}, loadHost(t, "debian12-hybrid-root")
	p, err := Build(&s, h, Command{Name: "sh", Detach: true, Track: []string{"memory", "pids"}})
	if err != nil {
		t.Fatal(err)
	}
	c := find[CgroupCreate](p)
	if c == nil || !slices.Equal(c.Controllers, []string{"memory", "pids"}) || !find[CloneInto](p).Cgroup {
		t.Errorf("the sandbox is not in its groups: %v", c)
	}
	if find[CgroupWrite](p) != nil {
		t.Error("a group that only watches has limits")
	}
	if !slices.ContainsFunc(rlimits(p), func(r Rlimit) bool { return r.Name == "RLIMIT_NPROC" }) {
		t.Error("the default limit on tasks is gone")
	}
}
