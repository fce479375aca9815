package plan

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/spec"
)

// TestSecondOpinion applies to the plans that people have read.
func TestSecondOpinion(t *testing.T) {
	for _, g := range goldens {
		s, h := testSpecs[g.spec], loadHost(t, g.host)
		p, err := Build(&s, h, Command{Name: "sh"})
		if err != nil {
			continue // TestGoldens has it
		}
		for _, w := range secondOpinion(&s, h, p) {
			t.Errorf("%s on %s: %s", g.spec, g.host, w)
		}
	}
}

// harmless are the steps without which Check accepts a plan, and why that is no
// danger. It is the reason that counts: a step that keeps something away from
// the workload has no place here.
var harmless = map[reflect.Type]string{
	reflect.TypeFor[Umask]():         "files of the sandbox's own root or the workload's get other modes",
	reflect.TypeFor[OwnPipes]():      "less works: /dev/stdout cannot be opened where it is a pipe",
	reflect.TypeFor[OwnPipes]():      "less works: /dev/stdout cannot be opened",
	reflect.TypeFor[LoopbackUp]():    "less works: 127.0.0.1 does not",
	reflect.TypeFor[Keyring]():       "the filter refuses keyctl, add_key and request_key",
	reflect.TypeFor[Mkdir]():         "less is there; what needs it fails, and the start with it",
	reflect.TypeFor[MakeLink]():      "less is there",
	reflect.TypeFor[Touch]():         "the mount on it fails, and the start with it",
	reflect.TypeFor[WriteFile]():     "less is there",
	reflect.TypeFor[CopyFile]():      "less is there",
	reflect.TypeFor[Chdir]():         "the working directory is the new root, from pivot_root",
	reflect.TypeFor[MountFS]():       "the directory is the read-only root's",
	reflect.TypeFor[WriteMap]():      "an id that is not mapped cannot be taken: setresuid fails, and the start with it",
	reflect.TypeFor[DenySetgroups](): "the map of groups is refused, and the start fails",
	reflect.TypeFor[Show]():          "less is there",
	reflect.TypeFor[Hold]():          "a row of the table of modes; nobody else needs it to be safe",
	// These are about what the Spec asked for, which Check does not know:
	reflect.TypeFor[Attest]():      "a row of the table of modes, and the second opinion, hold plans to it",
	reflect.TypeFor[CgroupWrite](): "the second opinion holds plans to the limits that were asked for",
	reflect.TypeFor[Rlimit]():      "RLIMIT_NPROC only: as above. The others are caught",
}

// mutants are the plans that the tests below change.
var mutants = []struct{ host, spec string }{
	{"debian12-hybrid-root", "limits"}, {"debian12-hybrid-root", "volumes"}, {"debian12-hybrid-root", "usernshost"}, {"debian12-hybrid-root", "terminal"},
	{"debian13-rootless", "work"}, {"debian13-rootless", "memory"}, {"debian13-rootless", "terminal"}, {"rhel10-root", "limits"},
	{"oldkernel-v1-root", "degrade"}, {"nixos-rootless", "default"},
	{"debian12-hybrid-root", "policy"}, {"debian12-hybrid-root", "policyhost"}, {"debian13-rootless", "policy"},
	{"debian12-hybrid-root", "production"}, {"debian13-rootless", "rootfs"},
}

func mutantBase(t *testing.T, host, spec string) *Plan {
	t.Helper()
	s := testSpecs[spec]
	p, err := Build(&s, loadHost(t, host), Command{Name: "sh"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCheckCatchesMutations changes real plans for the worse.
func TestCheckCatchesMutations(t *testing.T) {
	t.Run("step removed", checkSeesRemovals)
	t.Run("step moved", checkSeesMoves)
	t.Run("step changed", checkSeesChanges)
}

// checkSeesRemovals removes each step of real plans in turn.
func checkSeesRemovals(t *testing.T) {
	accepted := map[reflect.Type]bool{}
	for _, m := range mutants {
		base := mutantBase(t, m.host, m.spec)
		for i, s := range base.Steps {
			p := &Plan{Kept: base.Kept, Weakened: base.Weakened, Steps: slices.Delete(slices.Clone(base.Steps), i, i+1)}
			kind := reflect.TypeOf(s.Do)
			if p.Check() != nil {
				continue
			}
			accepted[kind] = true
			r, limit := s.Do.(Rlimit)
			fs, mount := s.Do.(MountFS)
			switch {
			case harmless[kind] == "":
				t.Errorf("%s on %s: Check accepts the plan without step %d: %s %s", m.spec, m.host, i, s.Do.Call(), s.Do)
			case limit && r.Name != "RLIMIT_NPROC", mount && i < index[PivotRoot](base):
				t.Errorf("%s on %s: Check accepts the plan without step %d: %s %s", m.spec, m.host, i, fs.Target, s.Do)
			}
		}
	}
	for kind := range harmless {
		if !accepted[kind] {
			t.Errorf("%v is called harmless, but Check catches it (or no plan here has it): remove the entry", kind)
		}
	}
}

// anyPlace are the steps whose place does not matter for what is kept away from
// the workload, and why. Elsewhere they either work or fail the start.
var anyPlace = map[reflect.Type]string{
	reflect.TypeFor[ReserveIDs]():    "before what uses the range, which Check sees to",
	reflect.TypeFor[OwnPipes]():      "after the range is reserved, which Check sees to",
	reflect.TypeFor[CgroupCreate]():  "before what is written to it, which Check sees to",
	reflect.TypeFor[CgroupWrite]():   "before the clone, as every host step",
	reflect.TypeFor[MakeInit]():      "before the clone, as every host step",
	reflect.TypeFor[Attest]():        "before host trees, which Check sees to",
	reflect.TypeFor[Show]():          "while its tree is staged, which Check sees to",
	reflect.TypeFor[Hold]():          "behind all that is read back, which Check sees to",
	reflect.TypeFor[Unmount]():       "while its tree is staged, which Check sees to; too early, what is to be shown fails the start",
	reflect.TypeFor[HostTree]():      "before the clone, as every host step",
	reflect.TypeFor[CgroupAdd]():     "before the gate opens",
	reflect.TypeFor[WriteMap]():      "before the gate opens; in the wrong order the kernel refuses it",
	reflect.TypeFor[DenySetgroups](): "before the gate opens; too late, the map of groups is refused",
	reflect.TypeFor[Umask]():         "modes of the sandbox's own files",
	reflect.TypeFor[OwnPipes]():      "before the clone, as every host step; after the range is reserved, which Check sees to",
	reflect.TypeFor[NewSession]():    "before process 1, which never leaves the session that it is in",
	reflect.TypeFor[Stdio]():         "before descriptors are closed, which Check sees to",
	reflect.TypeFor[OpenTree]():      "before its mount is used, which Check sees to; behind pivot_root the host's path is not there and the start fails",
	reflect.TypeFor[NewMount]():      "before pivot_root, which Check sees to",
	reflect.TypeFor[SetAttr]():       "before its mount is attached and capabilities are dropped, which Check sees to; a root that is read-only too early fails the start",
	reflect.TypeFor[MoveMount]():     "after pivot_root, which Check sees to; a place that is not there yet fails the start",
	reflect.TypeFor[MountFS]():       "one before pivot_root and where that wants it, the others after, which Check sees to",
	reflect.TypeFor[Mkdir]():         "after pivot_root, which Check sees to",
	reflect.TypeFor[MakeLink]():      "after pivot_root, which Check sees to",
	reflect.TypeFor[Touch]():         "after pivot_root, which Check sees to",
	reflect.TypeFor[WriteFile]():     "after pivot_root, which Check sees to",
	reflect.TypeFor[CopyFile]():      "after pivot_root, which Check sees to",
	reflect.TypeFor[Chdir]():         "after pivot_root, which Check sees to",
	reflect.TypeFor[OpenTerminal]():  "after pivot_root and before Landlock, which Check sees to",
	reflect.TypeFor[Wait]():          "before the user changes, which Check sees to",
	reflect.TypeFor[NewCgroupNS]():   "after the gate, which Check sees to",
	reflect.TypeFor[Securebits]():    "before the user changes, which Check sees to",
	reflect.TypeFor[SetIDs]():        "between securebits and dropping capabilities, which Check sees to; too early for a mount, the start fails",
	reflect.TypeFor[Hostname]():      "before capabilities are dropped, which Check sees to",
	reflect.TypeFor[LoopbackUp]():    "before capabilities are dropped, which Check sees to",
	reflect.TypeFor[Keyring]():       "the new keyring is empty whenever it is made",
	reflect.TypeFor[Rlimit]():        "before capabilities are dropped, which Check sees to",
	reflect.TypeFor[DropBounding]():  "before capabilities are dropped, which Check sees to",
	reflect.TypeFor[ClearAmbient]():  "before capabilities are dropped, which Check sees to",
	reflect.TypeFor[DropCaps]():      "after all that needs them, which Check sees to",
	reflect.TypeFor[NoNewPrivs]():    "before Landlock and process 1, which Check sees to",
	reflect.TypeFor[Lifeline]():      "before process 1, which Check sees to",
	reflect.TypeFor[PivotRoot]():     "what must be on one side of it is on that side, which Check sees to",
	reflect.TypeFor[Private]():       "before anything is mounted, which Check sees to",
}

// fixed are the steps that nothing may be swapped with unnoticed.
var fixed = []reflect.Type{
	reflect.TypeFor[CloneInto](), reflect.TypeFor[CloseInherited](), reflect.TypeFor[Landlock](),
	reflect.TypeFor[ExecInit](), reflect.TypeFor[Seccomp](), reflect.TypeFor[Exec](),
}

// rules of order, for checkSeesMoves: a step of the first kind behind one of
// the second must be noticed.
var rules = [][2]string{
	{"PivotRoot", "Mkdir"}, {"PivotRoot", "MakeLink"}, {"PivotRoot", "Touch"}, {"PivotRoot", "WriteFile"}, {"PivotRoot", "CopyFile"},
	{"PivotRoot", "MoveMount"}, {"PivotRoot", "Chdir"}, {"PivotRoot", "OpenTerminal"}, {"Private", "PivotRoot"}, {"CloseInherited", "Private"},
	{"Stdio", "CloseInherited"}, {"Wait", "SetIDs"}, {"Wait", "NewCgroupNS"}, {"Securebits", "SetIDs"}, {"SetIDs", "DropCaps"},
	{"DropBounding", "DropCaps"}, {"ClearAmbient", "DropCaps"}, {"Rlimit", "DropCaps"}, {"Hostname", "DropCaps"}, {"DropCaps", "Landlock"},
	{"NoNewPrivs", "Landlock"}, {"Landlock", "ExecInit"}, {"NoNewPrivs", "ExecInit"}, {"Lifeline", "ExecInit"}, {"ExecInit", "Seccomp"},
	{"Seccomp", "Exec"}, {"ReserveIDs", "HostTree"}, {"ReserveIDs", "OwnPipes"}, {"NewSession", "ExecInit"}, {"CgroupCreate", "CgroupWrite"}, {"MakeInit", "CloneInto"}, {"CloneInto", "WriteMap"},
	{"Attest", "HostTree"}, {"PivotRoot", "Show"}, {"PivotRoot", "Unmount"}, {"Show", "DropCaps"}, {"Unmount", "DropCaps"},
	{"WriteMap", "Wait"}, {"MoveMount", "DropCaps"}, {"SetAttr", "DropCaps"}, {"OpenTerminal", "Landlock"}, {"PivotRoot", "Landlock"},
	{"ClearAmbient", "KeepCaps"}, {"KeepCaps", "Securebits"},
}

// checkSeesMoves moves each step to every other place.
func checkSeesMoves(t *testing.T) {
	seen := map[[2]string]bool{}
	for _, m := range mutants {
		base := mutantBase(t, m.host, m.spec)
		kinds := make([]string, len(base.Steps))
		for i, s := range base.Steps {
			kinds[i] = reflect.TypeOf(s.Do).Name()
		}
		for from := range base.Steps {
			for to := range base.Steps {
				// Past steps of its own kind nothing changes for a rule.
				if from == to || kinds[from] == kinds[to] {
					continue
				}
				p := &Plan{Kept: base.Kept, Weakened: base.Weakened, Steps: move(base.Steps, from, to)}
				accepted := p.Check() == nil
				moved := move(kinds, from, to)
				for _, r := range rules {
					if kinds[from] != r[0] && kinds[from] != r[1] || seen[r] && !accepted || !broken(moved, r) || broken(kinds, r) {
						continue
					}
					seen[r] = true
					if accepted {
						t.Fatalf("%s on %s: Check accepts step %d (%s) at %d: a %s behind a %s", m.spec, m.host, from, kinds[from], to, r[0], r[1])
					}
				}
				kind := reflect.TypeOf(base.Steps[from].Do)
				switch {
				case !accepted:
				case slices.Contains(fixed, kind) && !onlyAnyPlace(base.Steps, from, to):
					t.Errorf("%s on %s: Check accepts %s at %d instead of %d", m.spec, m.host, kinds[from], to, from)
				case anyPlace[kind] == "" && !slices.Contains(fixed, kind):
					t.Errorf("%s on %s: Check accepts %v at %d instead of %d, and no reason is given", m.spec, m.host, kind, to, from)
				}
			}
		}
	}
	for _, r := range rules {
		if !seen[r] {
			t.Errorf("no plan here lets a %s be behind a %s", r[0], r[1])
		}
	}
}

// move returns a list with one element in another place.
func move[T any](list []T, from, to int) []T {
	return slices.Insert(slices.Delete(slices.Clone(list), from, from+1), to, list[from])
}

// broken reports whether some step of the rule's first kind is behind one of
// the second.
func broken(kinds []string, r [2]string) bool {
	second := slices.Index(kinds, r[1])
	return second >= 0 && slices.Contains(kinds[second:], r[0])
}

// onlyAnyPlace reports whether a moved step has passed only steps that may
// stand anywhere.
func onlyAnyPlace(steps []Step, from, to int) bool {
	for i := min(from, to); i <= max(from, to); i++ {
		if i != from && anyPlace[reflect.TypeOf(steps[i].Do)] == "" {
			return false
		}
	}
	return true
}

// checkSeesChanges changes fields of steps to something unsafe.
func checkSeesChanges(t *testing.T) {
	change := func(a Action) (out []Action) {
		switch a := a.(type) {
		case SetAttr:
			b := a
			b.Attr &^= noSuidDev
			out = append(out, b)
			if a.Path == "/" {
				c := a
				c.Attr &^= readOnly
				out = append(out, c)
			}
		case NewMount:
			a.Attr &^= noSuidDev
			out = append(out, a)
		case HostTree:
			a.Attr &^= noSuidDev
			out = append(out, a)
		case MountFS:
			a.Flags = 0
			out = append(out, a)
		case CloneInto:
			b := a
			b.Flags = 0
			out = append(out, b)
			if a.Cgroup {
				a.Cgroup = false
				out = append(out, a)
			}
		case MakeInit:
			b := a
			b.Filter.Insns = nil
			a.Terminal = !a.Terminal
			out = append(out, a, b)
		case Seccomp:
			a.Program.Insns = a.Program.Insns[1:]
			out = append(out, a)
		case KeepCaps:
			b, c := a, a
			b.Ambient, c.Inheritable = b.Ambient.With(caps.SysAdmin), c.Inheritable.With(caps.Kill)
			out = append(out, b, c, KeepCaps{Held: a.Held, Inheritable: a.Inheritable})
		case DropBounding:
			a.Keep = a.Keep.With(caps.SysAdmin)
			out = append(out, a, DropBounding{Last: a.Last, Keep: a.Keep.Without(caps.NetBindService, caps.SysAdmin).With(caps.Kill)})
		case DropCaps:
			b := a
			a.Keep, b.Inheritable = a.Keep.With(caps.SysAdmin), b.Inheritable.With(caps.Setpcap)
			out = append(out, a, b)
		case Landlock:
			b := a
			b.Narrow = !b.Narrow
			out = append(out, b)
			if a.Log != 0 { // the last one's
				a.Log = 0
				out = append(out, a)
			}
		case PivotRoot:
			a.Path = "/elsewhere"
			out = append(out, a)
		case MoveMount:
			b := a
			b.From = "nothing"
			out = append(out, b)
			if a.To == "/proc/sys" {
				a.To = "/elsewhere"
				out = append(out, a)
			}
		case SetIDs:
			a.UID = ^uint32(0)
			out = append(out, a)
		case Show:
			a.Source = "/tmp/elsewhere"
			out = append(out, a)
		case Unmount:
			a.Path = "/elsewhere"
			out = append(out, a)
		}
		return out
	}
	for _, m := range mutants {
		base := mutantBase(t, m.host, m.spec)
		for i, s := range base.Steps {
			for _, a := range change(s.Do) {
				p := &Plan{Kept: base.Kept, Weakened: base.Weakened, Steps: slices.Clone(base.Steps)}
				p.Steps[i].Do = a
				if c, ok := s.Do.(CloneInto); ok && !c.Cgroup && find[NewCgroupNS](base) != nil {
					continue // its flags are the second opinion's business
				}
				if p.Check() == nil {
					t.Errorf("%s on %s: Check accepts %+v instead of %+v", m.spec, m.host, a, s.Do)
				}
			}
			p := &Plan{Kept: base.Kept, Weakened: base.Weakened, Steps: slices.Clone(base.Steps)}
			p.Steps[i].Because = ""
			if p.Check() == nil {
				t.Errorf("%s on %s: Check accepts step %d without a reason", m.spec, m.host, i)
			}
		}
	}
}

// TestSecondOpinionCanFail removes steps and expects the second opinion to
// notice at least what Check notices.
func TestSecondOpinionCanFail(t *testing.T) {
	for _, m := range mutants {
		s, h := testSpecs[m.spec], loadHost(t, m.host)
		base := mutantBase(t, m.host, m.spec)
		for i, st := range base.Steps {
			switch st.Do.(type) {
			case Hold, NewSession, Hostname, Securebits, ClearAmbient, Stdio, MountFS:
				continue // these it takes Check's word for, or does not know
			}
			p := &Plan{Kept: base.Kept, Weakened: base.Weakened, Steps: slices.Delete(slices.Clone(base.Steps), i, i+1)}
			if p.Check() != nil && len(secondOpinion(&s, h, p)) == 0 {
				t.Errorf("%s on %s: the second opinion accepts the plan without %s %s", m.spec, m.host, st.Do.Call(), st.Do)
			}
		}
	}
}

// FuzzBuild makes random descriptions and machines. A plan is refused in words,
// or it passes Check and the second opinion.
func FuzzBuild(f *testing.F) {
	for seed := range uint64(400) {
		f.Add(seed)
	}
	hosts := make([]*facts.Host, 0, 8)
	for _, name := range []string{"debian12-hybrid-root", "debian13-rootless", "docker-root", "nixos-rootless", "oldkernel-v1-root", "rhel10-root", "ubuntu2404-rootless"} {
		hosts = append(hosts, loadHost(f, name))
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		s, h := randomSpec(r), randomHost(r, hosts)
		if err := s.Validate(); err != nil {
			return // such as two volumes in one place
		}
		p, err := Build(&s, h, Command{Name: "prog", Args: []string{"x"}, Extra: r.IntN(3)})
		if err != nil {
			var u *Unsupported
			var row *Broken
			if !errors.As(err, &u) && !errors.As(err, &row) || strings.Contains(err.Error(), "bug in nucleus") {
				t.Fatalf("spec %+v: %v", s, err)
			}
			return
		}
		if err := p.Check(); err != nil {
			t.Fatalf("spec %+v: %v", s, err)
		}
		for _, w := range secondOpinion(&s, h, p) {
			t.Errorf("%s", w)
		}
		if t.Failed() {
			t.Logf("%+v on uid %d\n%s", s, h.UID, p)
		}
	})
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func maybe(r *rand.Rand) bool { return r.IntN(3) == 0 }

// targets are places that people choose, and places that they should not.
var targets = []string{
	"/data", "/data/cache", "/data/cache/deep", "/opt/tools", "/srv", "/tmp", "/tmp/x", "/tmp/x/y", "/var/tmp", "/var/lib/x", "/var/cache", "/run/x",
	"/home", "/home/ada", "/root", "/root/.cache", "/etc/app", "/etc/hosts", "/etc/ssl/certs", "/etc/resolv.conf", "/usr/local", "/usr/share/x",
	"/nix/store/x", "/workspace/sub", "/context/sub", "/dev/shm", "/etc", "/usr", "/a/./b", "/a//c", "/mnt",
}

func randomSpec(r *rand.Rand) spec.Sandbox {
	sources := []string{".", "/home/ada/docs", "/srv/data", "/home/ada/cache", "/home/ada/app.conf", "/home/ada/tools"}
	s := spec.Sandbox{
		Toolchain: !maybe(r), Terminal: maybe(r), TimeNamespace: maybe(r),
		Userns: pick(r, spec.UsernsPrivate, spec.UsernsPrivate, spec.UsernsHost),
		User:   pick(r, spec.User{}, spec.User{UID: 1000, GID: 1000}, spec.User{UID: 65534, Name: "x.y"}, spec.User{GID: 7}),
		Name:   pick(r, "", "a", "a_b.c"), Hostname: pick(r, "", "h", "h.example"), Workdir: pick(r, "", "/tmp", "/workspace/x"),
		Mode:    pick(r, spec.ModeAgent, spec.ModeAgent, spec.ModeStrictAgent, spec.ModeProduction),
		Scratch: pick(r, 0, spec.MiB), Env: pick(r, nil, []string{"PATH=/x:", "A=b"}, []string{"HOME=/h", "HOME=/g"}),
	}
	if maybe(r) {
		s.Toolchain, s.Rootfs = false, &spec.Rootfs{Source: "/srv/rootfs", Attested: maybe(r)}
	}
	if maybe(r) {
		s.Context = &spec.Bind{Source: pick(r, sources...), Exec: maybe(r)}
	}
	if maybe(r) {
		s.Workspace = &spec.Bind{Source: pick(r, sources...), Exec: maybe(r)}
	}
	for range r.IntN(4) {
		s.Volumes = append(s.Volumes, spec.Volume{Source: pick(r, sources...), Target: pick(r, targets...), Writable: maybe(r), Exec: maybe(r)})
	}
	for range r.IntN(3) {
		s.Tmpfs = append(s.Tmpfs, spec.Tmpfs{Target: pick(r, targets...), Size: pick(r, 0, spec.MiB), Exec: maybe(r)})
	}
	if maybe(r) {
		s.Limits = spec.Limits{
			Memory: pick(r, 0, 64*spec.MiB), MilliCPUs: pick[uint64](r, 0, 10, 1500), CPUWeight: pick[uint64](r, 0, 1, 10000),
			Pids: pick[int64](r, 0, -1, 1, 4194304), Memlock: pick(r, 0, 4*spec.KiB, spec.TiB),
		}
		if maybe(r) {
			s.Limits.IO = []spec.IOLimit{{Major: 8, WriteIOPS: 7}}
		}
	}
	for _, d := range []string{spec.DegradeCgroup, spec.DegradeLandlock} {
		if maybe(r) {
			s.Degrade = append(s.Degrade, d)
		}
	}
	return s
}

// randomHost changes a recorded machine here and there.
func randomHost(r *rand.Rand, hosts []*facts.Host) *facts.Host {
	h := *pick(r, hosts...)
	h.Arch = pick(r, "amd64", "amd64", "arm64")
	h.LandlockABI = pick(r, h.LandlockABI, r.IntN(10))
	h.LastCap = pick(r, 40, 41, 37)
	if maybe(r) {
		h.CapEff = r.Uint64()
	}
	if maybe(r) {
		h.NoFile, h.Memlock = pick[uint64](r, 0, 100, 1<<40), pick(r, 0, 4096, ^uint64(0))
	}
	if maybe(r) {
		h.Cgroup = pick(r, hosts...).Cgroup
	}
	h.Paths = map[string]facts.Path{}
	names := make([]string, 0, len(h.Paths))
	base := pick(r, hosts...).Paths
	for name := range base {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p := base[name]
		if _, mine := testSources[name]; !mine && r.IntN(20) == 0 {
			switch r.IntN(3) {
			case 0:
				continue // it is not there
			case 1:
				if !strings.HasPrefix(name, "/dev/") && !strings.HasPrefix(name, "/proc") {
					p = facts.Path{Kind: facts.Symlink, Target: pick(r, "/elsewhere", "../up", path.Base(name)+".d")}
				}
			case 2:
				p.Kind = facts.Other
			}
		}
		h.Paths[name] = p
	}
	return &h
}

func TestUnsupportedSaysWhy(t *testing.T) {
	for _, g := range goldens {
		s := testSpecs[g.spec]
		_, err := Build(&s, loadHost(t, g.host), Command{Name: "sh"})
		if err == nil {
			continue
		}
		var u *Unsupported
		var row *Broken
		if errors.As(err, &row) {
			continue // TestRowsHold has it
		}
		if !errors.As(err, &u) || u.Field == "" || u.Why == "" {
			t.Errorf("%s on %s: got %v (%T), want the field and the reason", g.spec, g.host, err, err)
		}
	}
}

func TestCandidatesFollowThePath(t *testing.T) {
	for _, tc := range []struct{ name, path, want string }{
		{"sh", "/a:/b", "/a/sh /b/sh"}, {"sh", ":/b:", "sh /b/sh sh"}, {"./sh", "/a", "./sh"}, {"/bin/sh", "/a", "/bin/sh"}, {"sh", "/a/../b", "/b/sh"},
	} {
		b := builder{cmd: Command{Name: tc.name}}
		if got := strings.Join(b.candidates([]string{"X=y", "PATH=" + tc.path}), " "); got != tc.want {
			t.Errorf("%s in %s: got %s, want %s", tc.name, tc.path, got, tc.want)
		}
	}
}

// TestListsNameNoSecret holds the lists of host files to what must not be in them.
func TestListsNameNoSecret(t *testing.T) {
	for _, p := range slices.Concat(ToolchainDirs, EtcDirs, EtcFiles, DevicePaths()) {
		for _, secret := range []string{
			"/etc/shadow", "/etc/gshadow", "/etc/passwd", "/etc/group", "/etc/ssh", "/etc/machine-id", "/etc/sudoers", "/etc/krb5.keytab", "/etc/ssl/private",
			"/etc/pki/tls/private", "/root", "/home", "/var", "/run", "/boot", "/proc", "/sys", "/dev/mem", "/dev/kmsg", "/dev/kvm",
		} {
			if p == secret || strings.HasPrefix(p, secret+"/") || strings.HasPrefix(secret, p+"/") {
				t.Errorf("%s would show %s", p, secret)
			}
		}
	}
	if got := fmt.Sprint(ToolchainDirs[0], EtcDirs[0]); got == "" {
		t.Error("the lists are empty")
	}
}
