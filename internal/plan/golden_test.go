package plan

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

var update = flag.Bool("update", false, "write the goldens; read them before you commit them")

// loadHost reads the facts of a recorded machine. The sources that specs of
// these tests name are added: they lie in the home of an ordinary user.
func loadHost(t testing.TB, name string) *facts.Host {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/host", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	h := new(facts.Host)
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(h); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for name, p := range testSources {
		h.Paths[name] = p
	}
	h.Rootfs = testRoot()
	return h
}

// testRoot is a root that somebody has made with bad intentions.
func testRoot() *facts.Rootfs {
	dir, link := facts.Dir, facts.Symlink
	return &facts.Rootfs{
		Entries: []facts.Entry{
			{Name: "bin", Kind: link, Target: "usr/bin"}, {Name: "data", Kind: link, Target: "/proc/1/root"}, {Name: "dev", Kind: link, Target: "/etc"},
			{Name: "etc", Kind: dir}, {Name: "fifo", Kind: facts.Other}, {Name: "home", Kind: link, Target: "/"}, {Name: "init", Kind: facts.File},
			{Name: "nix", Kind: link, Target: "/etc"}, {Name: "proc", Kind: link, Target: "../../../proc"}, {Name: "root", Kind: link, Target: "/etc"},
			{Name: "run", Kind: facts.File}, {Name: "sys", Kind: link, Target: "/"}, {Name: "tmp", Kind: link, Target: "/etc"},
			{Name: "usr", Kind: dir}, {Name: "var", Kind: link, Target: "etc"}, {Name: "workspace", Kind: link, Target: "/usr"},
		},
		Store: []facts.Entry{
			{Name: "00000000000000000000000000000000-glibc", Kind: dir}, {Name: "11111111111111111111111111111111-env", Kind: link, Target: "/nix/store/00000000000000000000000000000000-glibc"},
			{Name: "22222222222222222222222222222222-script", Kind: facts.File},
		},
	}
}

var testSources = map[string]facts.Path{
	"/srv/rootfs":        {Kind: facts.Dir, Real: "/srv/roots/one"},
	".":                  {Kind: facts.Dir, UID: 1000, GID: 1000, Real: "/home/ada/project"},
	"/home/ada/docs":     {Kind: facts.Dir, UID: 1000, GID: 1000, Real: "/home/ada/docs"},
	"/srv/data":          {Kind: facts.Dir, UID: 33, GID: 44, Real: "/mnt/disk1/data"}, // a link on the host
	"/home/ada/cache":    {Kind: facts.Dir, UID: 1000, GID: 1000, Real: "/home/ada/cache"},
	"/home/ada/app.conf": {Kind: facts.File, UID: 1000, GID: 1000, Size: 120, Real: "/home/ada/app.conf"},
	"/home/ada/tools":    {Kind: facts.Dir, UID: 1000, GID: 1000, Real: "/home/ada/tools"},
}

// testSpecs are the sandboxes that goldens are made of.
var testSpecs = map[string]spec.Sandbox{
	"default": {Toolchain: true},
	"empty":   {},
	"work": {
		Name: "agent_1", Toolchain: true, Context: &spec.Bind{Source: "/home/ada/docs"}, Workspace: &spec.Bind{Source: ".", Exec: true},
		Env: []string{"LANG=de_DE.UTF-8", "TOKEN=x"},
	},
	"volumes": {Toolchain: true, Volumes: []spec.Volume{
		{Source: "/home/ada/cache", Target: "/data/cache", Writable: true},
		{Source: "/srv/data", Target: "/data"},
		{Source: "/home/ada/app.conf", Target: "/etc/app/app.conf"},
		{Source: "/home/ada/tools", Target: "/opt/tools", Exec: true},
	}},
	"tmpfs": {Toolchain: true, Scratch: 64 * spec.MiB, Tmpfs: []spec.Tmpfs{
		{Target: "/tmp", Size: spec.GiB, Exec: true}, {Target: "/var/cache/x"},
	}},
	"user1000":   {Toolchain: true, User: spec.User{UID: 1000, GID: 1000, Name: "ada"}, Workspace: &spec.Bind{Source: "."}, Workdir: "/workspace/src"},
	"usernshost": {Toolchain: true, Userns: spec.UsernsHost, Workspace: &spec.Bind{Source: "."}},
	"terminal":   {Toolchain: true, Terminal: true, Hostname: "box.example", TimeNamespace: true},
	"limits": {Toolchain: true, Limits: spec.Limits{
		Memory: 512 * spec.MiB, MemorySwap: spec.GiB, MilliCPUs: 1500, CPUWeight: 50, Pids: 64, Memlock: 32 * spec.KiB,
		IO: []spec.IOLimit{{Major: 8, ReadBPS: 1 << 20}},
	}},
	"rootfs": {Rootfs: &spec.Rootfs{Source: "/srv/rootfs"}, Workspace: &spec.Bind{Source: "."}, User: spec.User{UID: 1000, GID: 1000},
		Volumes: []spec.Volume{{Source: "/home/ada/docs", Target: "/etc/app"}, {Source: "/srv/data", Target: "/opt/data"}}},
	"production": {Rootfs: &spec.Rootfs{Source: "/srv/rootfs", Attested: true, SHA256: strings.Repeat("5a", 32)}, Mode: spec.ModeProduction,
		Workspace: &spec.Bind{Source: "."}, Limits: spec.Limits{Memory: 512 * spec.MiB, MilliCPUs: 1000}},
	"memory":     {Toolchain: true, Limits: spec.Limits{Memory: 512 * spec.MiB}},
	"degrade":    {Toolchain: true, Degrade: []string{spec.DegradeLandlock, spec.DegradeCgroup}, Limits: spec.Limits{Memory: 512 * spec.MiB}},
	"nopids":     {Toolchain: true, Limits: spec.Limits{Pids: spec.Unlimited}},
	"policy":     {Toolchain: true, Policy: testPolicy},
	"policyhost": {Toolchain: true, Userns: spec.UsernsHost, Policy: testPolicy},
}

// testPolicy has every part that a plan carries out.
var testPolicy = &policy.Policy{
	Seccomp: &seccomp.Policy{Default: seccomp.Allow, Rules: []seccomp.Rule{
		{Calls: []string{"mkdir", "mkdirat"}, Do: seccomp.Errno("EPERM"), Why: "no directories"},
		{Calls: seccomp.RefusedNames(), Do: seccomp.Errno("ENOSYS"), Why: "dangerous"},
	}},
	Caps: &caps.Sets{
		Bounding: caps.Of(caps.NetBindService, caps.Chown, caps.Mknod), Inheritable: caps.Of(caps.NetBindService, caps.Chown),
		Permitted: caps.Of(caps.NetBindService), Effective: caps.Of(caps.NetBindService), Ambient: caps.Of(caps.NetBindService),
	},
	Landlock: &landlock.Config{
		HandleFS: landlock.All(landlock.Latest), HandleNet: landlock.BindTCP | landlock.ConnectTCP,
		Rules: []landlock.PathRule{
			{Path: "/usr", Allow: landlock.Read | landlock.Execute, Why: "programs"},
			{Path: "/tmp", Allow: landlock.Read | landlock.Write | landlock.Create, Why: "scratch"},
		},
		Ports:  []landlock.PortRule{{Port: 80, Allow: landlock.BindTCP, Why: "the server"}},
		MinABI: 2,
	},
}

var goldens = []struct{ host, spec string }{
	{"debian12-hybrid-root", "default"},
	{"debian12-hybrid-root", "empty"},
	{"debian12-hybrid-root", "work"},
	{"debian12-hybrid-root", "volumes"},
	{"debian12-hybrid-root", "tmpfs"},
	{"debian12-hybrid-root", "user1000"},
	{"debian12-hybrid-root", "usernshost"},
	{"debian12-hybrid-root", "terminal"},
	{"debian12-hybrid-root", "limits"},
	{"debian13-rootless", "default"},
	{"debian13-rootless", "work"},
	{"debian13-rootless", "volumes"},
	{"debian13-rootless", "user1000"},
	{"debian13-rootless", "usernshost"},
	{"debian13-rootless", "terminal"},
	{"debian13-rootless", "memory"},
	{"debian13-rootless", "limits"},
	{"rhel10-root", "default"},
	{"rhel10-root", "limits"},
	{"nixos-rootless", "default"},
	{"nixos-rootless", "memory"},
	{"ubuntu2404-rootless", "default"},
	{"ubuntu2404-rootless", "memory"},
	{"ubuntu2404-rootless", "degrade"},
	{"docker-root", "default"},
	{"docker-root", "usernshost"},
	{"debian12-hybrid-root", "policy"},
	{"debian12-hybrid-root", "policyhost"},
	{"debian13-rootless", "policy"},
	{"ubuntu2404-rootless", "policy"},
	{"oldkernel-v1-root", "policy"},
	{"debian12-hybrid-root", "rootfs"},
	{"debian12-hybrid-root", "production"},
	{"debian13-rootless", "rootfs"},
	{"debian13-rootless", "production"},
	{"oldkernel-v1-root", "production"},
	{"oldkernel-v1-root", "default"},
	{"oldkernel-v1-root", "degrade"},
	{"oldkernel-v1-root", "nopids"},
}

// TestGoldens compares plans with what a person has read. A machine on which a
// sandbox is refused has the refusal as its golden.
func TestGoldens(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.host+"/"+g.spec, func(t *testing.T) {
			s := testSpecs[g.spec]
			got := render(t, &s, loadHost(t, g.host))
			file := filepath.Join("testdata/plan", g.host+"-"+g.spec+".txt")
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

func render(t *testing.T, s *spec.Sandbox, h *facts.Host) string {
	t.Helper()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	p, err := Build(s, h, Command{Name: "sh", Args: []string{"-c", "true"}})
	if err != nil {
		return refusal(t, err)
	}
	rules := ""
	if ll := find[Landlock](p); ll != nil {
		rules = ll.Rules.String()
	}
	for _, st := range p.Steps {
		if ll, ok := st.Do.(Landlock); ok && ll.Narrow {
			rules += "narrowed to\n" + ll.Rules.String()
		}
	}
	e := p.Exec()
	return p.String() + rules + fmt.Sprintf("paths  %s\nargs   %q\nenv    %s\n", strings.Join(e.Paths, " "), e.Args, strings.Join(e.Env, " "))
}

func refusal(t *testing.T, err error) string {
	t.Helper()
	var out strings.Builder
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	for _, e := range joined.Unwrap() {
		var u *Unsupported
		var row *Broken
		if errors.As(e, &row) {
			fmt.Fprintf(&out, "refused %s\n   fix: %s\n", row, row.Invariant.Fix)
			continue
		}
		if !errors.As(e, &u) {
			t.Fatalf("%T: %v", e, e)
		}
		fmt.Fprintf(&out, "refused %s: %s\n   fix: %s\n", u.Field, u.Why, u.Fix)
	}
	return out.String()
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		a, b := "(end)", "(end)"
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, a, b)
		}
	}
	return "no difference by lines"
}

// TestPlansAreTheSameEverytime builds each twice.
func TestPlansAreTheSameEverytime(t *testing.T) {
	for _, g := range goldens {
		s := testSpecs[g.spec]
		if a, b := render(t, &s, loadHost(t, g.host)), render(t, &s, loadHost(t, g.host)); a != b {
			t.Errorf("%s on %s: %s", g.spec, g.host, firstDifference(a, b))
		}
	}
}

// TestPlanAsJSON checks that every step and weakening is in the JSON form.
func TestPlanAsJSON(t *testing.T) {
	for _, g := range goldens {
		s := testSpecs[g.spec]
		p, err := Build(&s, loadHost(t, g.host), Command{Name: "sh"})
		if err != nil {
			continue // TestGoldens has it
		}
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var back struct {
			Steps []struct {
				Where, Call, Object, Because string
				Args                         map[string]any
			}
			Weakened []Weakening
		}
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if len(back.Steps) != len(p.Steps) || len(back.Weakened) != len(p.Weakened) {
			t.Fatalf("%s on %s: %d steps and %d weakenings, want %d and %d", g.spec, g.host, len(back.Steps), len(back.Weakened), len(p.Steps), len(p.Weakened))
		}
		for i, st := range p.Steps {
			j := back.Steps[i]
			if j.Where != string(st.Where) || j.Call != st.Do.Call() || j.Object != st.Do.String() || j.Because != st.Because || j.Args == nil {
				t.Errorf("step %d: got %+v, want %v", i, j, st)
			}
		}
	}
}
