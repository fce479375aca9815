package nucleus_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/internal/selftest"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// selfTest runs claims of the self-test, with this binary as its program and with
// a change to the plans of its sandboxes.
func selfTest(t *testing.T, s spec.Sandbox, change func(*nucleus.Cmd), only ...string) (*selftest.Table, error) {
	t.Helper()
	return selftest.Run(t.Context(), selftest.Options{
		Program: self, Args: []string{"probe"}, Sandbox: s, Only: only,
		Command: func(s *spec.Sandbox, name string, arg ...string) *nucleus.Cmd {
			c := nucleus.Command(s, name, arg...)
			if change != nil {
				change(c)
			}
			return c
		},
	})
}

// failures are the attempts of a table that failed.
func failures(table *selftest.Table) string {
	var b strings.Builder
	for _, l := range table.Lines {
		for _, try := range l.Tries {
			if try.Result == selftest.Failed {
				fmt.Fprintf(&b, "%s: %s (%s): got %s, want %s\n", l.ID, try.How, try.Ask, try.Answer, try.Want)
			}
		}
	}
	return b.String()
}

// refusing is the default policy without some calls.
func refusing(calls ...string) seccomp.Policy {
	return seccomp.Default().With(seccomp.Rule{Calls: calls, Do: seccomp.Errno("EPERM"), Why: "test"})
}

// TestSelftestIsGreen runs all claims, in each kind of sandbox.
func TestSelftestIsGreen(t *testing.T) {
	needSandbox(t)
	root, _ := hostileRoot(t)
	narrow, kept := refusing("landlock_create_ruleset", "memfd_create", "socketpair"), caps.Keep(caps.Of(caps.Chown))
	for _, tc := range []struct {
		name  string
		box   spec.Sandbox
		needs []sandboxtest.Feature
	}{
		{"nothing", spec.Sandbox{}, nil},
		{"toolchain", spec.Sandbox{Toolchain: true, TimeNamespace: true, Env: []string{"A=1"}}, nil},
		{"user", spec.Sandbox{Toolchain: true, User: spec.User{UID: 1000, GID: 1000}, Tmpfs: []spec.Tmpfs{{Target: "/x", Exec: true}}}, nil},
		{"host", spec.Sandbox{Toolchain: true, Userns: spec.UsernsHost}, []sandboxtest.Feature{sandboxtest.Root}},
		{"user of the host", spec.Sandbox{Userns: spec.UsernsHost, User: spec.User{UID: 1000, GID: 1000}}, []sandboxtest.Feature{sandboxtest.Root}},
		{"policy", spec.Sandbox{Policy: &policy.Policy{Seccomp: &narrow, Caps: &kept}}, nil},
		{"root of one's own", spec.Sandbox{Rootfs: &spec.Rootfs{Source: root}}, nil},
		{"limits", spec.Sandbox{Limits: spec.Limits{Memory: 100 * spec.MiB, Pids: 40}}, []sandboxtest.Feature{sandboxtest.Cgroup}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sandboxtest.Need(t, append(tc.needs, sandboxtest.Userns)...)
			table, err := selfTest(t, tc.box, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !table.Green {
				t.Errorf("not green:\n%s", failures(table))
			}
			tried, differ := 0, 0
			for _, l := range table.Lines {
				for _, try := range l.Tries {
					if try.Result != selftest.NotTried {
						tried++
					}
					if try.Differs {
						differ++
					}
				}
			}
			if tried < 200 || differ < 70 {
				t.Errorf("%d attempts, %d of which work without a sandbox: want at least 200 and 80", tried, differ)
			}
			t.Logf("%d attempts, %d of which work without a sandbox, in %v", tried, differ, table.Took)
		})
	}
}

// TestSelftestFindsWhatIsMissing takes steps out of the plans of the self-test's
// sandboxes: the line of the claim has to turn.
func TestSelftestFindsWhatIsMissing(t *testing.T) {
	needSandbox(t)
	noNet := together(withoutNamespace("net", abi.CloneNewNet), without(plan.LoopbackUp{}))
	noLandlock := without(plan.Landlock{})
	writable := clearAttr("read-only", plan.Attr(abi.MountAttrReadOnly))
	executable := clearAttr("noexec", plan.Attr(abi.MountAttrNoExec))
	visible := change("without hidepid", func(a *plan.NewMount) bool { a.Options = nil; return true })
	dropped := func(prefix string) control {
		return remove(prefix, func(s plan.Step) bool {
			a, ok := s.Do.(plan.MoveMount)
			return ok && strings.HasPrefix(string(a.From), prefix)
		})
	}
	rlimit := func(name string) control {
		return remove(name, func(s plan.Step) bool { r, ok := s.Do.(plan.Rlimit); return ok && r.Name == name })
	}
	privs := together(without(plan.NoNewPrivs{}), noLandlock, withoutSeccomp())
	root := []sandboxtest.Feature{sandboxtest.Root}
	for _, tc := range []struct {
		claim string
		box   spec.Sandbox
		control
		needs []sandboxtest.Feature
	}{
		{"namespaces", spec.Sandbox{}, withoutNamespace("ipc", abi.CloneNewIPC), nil},
		{"namespaces", spec.Sandbox{}, withoutNamespace("cgroup", abi.CloneNewCgroup), nil},
		{"namespaces", spec.Sandbox{TimeNamespace: true}, withoutNamespace("time", abi.CloneNewTime), nil},
		{"ids", spec.Sandbox{}, change("with the host's ids", func(a *plan.WriteMap) bool {
			*a = plan.WriteMap{File: a.File, Count: 1<<32 - 1}
			return true
		}), root},
		{"processes", spec.Sandbox{}, visible, nil},
		{"init", spec.Sandbox{}, visible, nil},
		{"files", spec.Sandbox{}, together(insert[plan.OpenTree]("with a host directory", plan.OpenTree{Source: "/var", As: "test"}),
			insert[plan.MakeLink]("mounted", plan.Mkdir{Path: "/host", Mode: 0o755}, plan.MoveMount{From: "test", To: "/host"})), nil},
		{"read-only", spec.Sandbox{}, together(writable, noLandlock), nil},
		{"read-only", spec.Sandbox{}, writable.holds(), nil},
		{"landlock", spec.Sandbox{}, noLandlock, []sandboxtest.Feature{sandboxtest.Landlock}},
		{"setuid", spec.Sandbox{}, clearAttr("nosuid", noSuid), nil},
		{"setuid", spec.Sandbox{}, privs, nil},
		{"devices", spec.Sandbox{}, insert[plan.MakeLink]("with one more", plan.Mkdir{Path: "/dev/mem", Mode: 0o755}), nil},
		{"devices", spec.Sandbox{}, clearAttr("nodev", noDev), nil},
		{"noexec", spec.Sandbox{}, together(executable, noLandlock), nil},
		{"noexec", spec.Sandbox{}, executable.holds(), []sandboxtest.Feature{sandboxtest.Landlock}},
		{"proc", spec.Sandbox{}, dropped("mask "), root}, // an ordinary user's own keys are not secret
		{"proc", spec.Sandbox{}, together(dropped("ro "), noLandlock), nil},
		{"sockets", spec.Sandbox{}, together(noNet, noLandlock), nil},
		{"capabilities", spec.Sandbox{}, without(plan.DropBounding{}), nil},
		{"no-new-privs", spec.Sandbox{}, without(plan.Securebits{}), nil},
		{"no-new-privs", spec.Sandbox{}, privs, nil},
		{"seccomp", spec.Sandbox{}, withoutSeccomp(), nil},
		{"terminal", spec.Sandbox{}, withoutSeccomp(), nil},
		{"descriptors", spec.Sandbox{}, without(plan.CloseInherited{}).needed(), nil},
		{"environment", spec.Sandbox{}, change("with a variable", func(a *plan.Exec) bool { a.Env = append(a.Env, "SECRET=1"); return true }), nil},
		{"streams", spec.Sandbox{}, without(plan.OwnPipes{}), root},
		{"limits", spec.Sandbox{}, rlimit("RLIMIT_CORE"), nil},
		{"limits", spec.Sandbox{}, rlimit("RLIMIT_NPROC"), nil},
		{"memory", spec.Sandbox{}, unlimited("limits.memory"), []sandboxtest.Feature{sandboxtest.Cgroup}},
		{"scratch", spec.Sandbox{}, change("unbounded", func(a *plan.MountFS) bool {
			was := a.Data
			a.Data = strings.Replace(a.Data, "size=1048576", "size=10485760", 1)
			return a.Data != was
		}), nil},
		{"owner", spec.Sandbox{}, change("for another owner", func(a *plan.HostTree) bool { a.ToUID += 7; return true }), root},
		{"report", spec.Sandbox{}, without(plan.DropBounding{}), nil},
		{"keys", spec.Sandbox{}, withoutSeccomp(), nil},
		{"policy-caps", spec.Sandbox{}, without(plan.DropBounding{}), nil},
		{"policy-rules", spec.Sandbox{}, withoutSeccomp(), nil},
		{"policy-rules", spec.Sandbox{}, noLandlock, []sandboxtest.Feature{sandboxtest.Landlock}},
		{"guide", spec.Sandbox{}, together(writable, noLandlock), nil},
		{"join", spec.Sandbox{}, without(plan.DropBounding{}), nil}, // of the sandbox, not of who joins
	} {
		t.Run(tc.claim+"/"+tc.name, func(t *testing.T) {
			sandboxtest.Need(t, append(slices.Clone(tc.needs), sandboxtest.Userns)...)
			tc.box.Timeout = patience()
			changed := 0
			table, err := selfTest(t, tc.box, func(c *nucleus.Cmd) { c.EditPlan(func(p *plan.Plan) { changed += tc.edit(p) }) }, tc.claim)
			switch {
			case changed == 0:
				t.Fatalf("the control changes no step (%v)", err)
			case tc.then == needed && err == nil:
				t.Errorf("got a table, want no sandbox:\n%s", table)
			case tc.then == needed:
			case err != nil:
				t.Fatalf("got no table: %v", err)
			case tc.then == holds && !table.Green:
				t.Errorf("want a second wall to hold:\n%s", failures(table))
			case tc.then == breaks && (table.Green || table.Lines[0].Result != selftest.Failed):
				t.Errorf("the line is green without what it is about:\n%s", table)
			}
		})
	}
}

// TestSelftestFindsAHostDirectory shows the directory of the self-test at its own
// place: its file, the link to it and the socket in it are then within reach.
func TestSelftestFindsAHostDirectory(t *testing.T) {
	needSandbox(t)
	dir, err := os.MkdirTemp("/tmp", "nucleus-test-") // short: there is a socket in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	shown := together(hostDir(dir), without(plan.Landlock{}))
	table, err := selfTest(t, spec.Sandbox{Timeout: patience()}, func(c *nucleus.Cmd) { c.EditPlan(func(p *plan.Plan) { shown.edit(p) }) }, "files", "links", "sockets")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range table.Lines {
		if l.Result != selftest.Failed {
			t.Errorf("%s: got %s, want it to fail:\n%s", l.ID, l.Result, table)
		}
	}
}

// TestSelftestFindsANetwork: where the host has a way to somewhere.
func TestSelftestFindsANetwork(t *testing.T) {
	needSandbox(t)
	noNet := together(withoutNamespace("net", abi.CloneNewNet), without(plan.LoopbackUp{}))
	table, err := selfTest(t, spec.Sandbox{}, func(c *nucleus.Cmd) { c.EditPlan(func(p *plan.Plan) { noNet.edit(p) }) }, "network")
	if err != nil {
		t.Fatal(err)
	}
	differs := slices.ContainsFunc(table.Lines[0].Tries, func(try selftest.Try) bool { return try.Differs })
	if table.Green == differs {
		t.Errorf("the host has another network: %v; with that network in the sandbox, the line:\n%s", differs, table)
	}
}

// TestSelftestFindsWhatDoesNotEnd: a timeout that is another than it should be.
func TestSelftestFindsWhatDoesNotEnd(t *testing.T) {
	needSandbox(t)
	table, err := selfTest(t, spec.Sandbox{}, func(c *nucleus.Cmd) { c.Sandbox.Timeout = 10 * time.Second * sandboxtest.Slow() / 10 }, "end")
	if err != nil {
		t.Fatal(err)
	}
	if table.Green {
		t.Errorf("green:\n%s", table)
	}
	// A supervisor whose program goes on without it.
	table, err = selftest.Run(t.Context(), selftest.Options{
		Program: self, Args: []string{"probe"}, Only: []string{"end"}, Patience: time.Second,
		Keep: []string{"sh", "-c", "(echo hanging; exec sleep 2) & wait"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(failures(table), "the sandbox goes on") {
		t.Errorf("a program that goes on: got\n%s", table)
	}
	time.Sleep(time.Second) // until that program has ended
}

// TestSelftestWhereMountsAreShared: where the host shares its mounts, the control
// says so, and the sandbox's are not tied to it; by the step about all mounts, and
// by how each volume is taken.
func TestSelftestWhereMountsAreShared(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	privately(t, func() {
		dir := t.TempDir()
		if err := errors.Join(unix.Mount("shared", dir, "tmpfs", 0, ""), unix.Mount("", dir, "", unix.MS_SHARED, "")); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
		t.Setenv("TMPDIR", dir)
		tied := without(plan.Private{})
		for _, intact := range []bool{true, false} {
			table, err := selfTest(t, spec.Sandbox{}, func(c *nucleus.Cmd) {
				if !intact {
					c.EditPlan(func(p *plan.Plan) { tied.edit(p) })
				}
			}, "propagation")
			if err != nil {
				t.Fatal(err)
			}
			if !table.Green || !table.Lines[0].Tries[0].Differs {
				t.Errorf("intact %v:\n%s", intact, table)
			}
		}
	})
}

// TestSelftestOfNothing: a claim that does not exist, a sandbox that cannot start.
func TestSelftestOfNothing(t *testing.T) {
	if _, err := selfTest(t, spec.Sandbox{}, nil, "peace"); err == nil {
		t.Error("an unknown claim: got no error")
	}
	if _, err := selfTest(t, spec.Sandbox{User: spec.User{UID: 1 << 31}}, nil); err == nil {
		t.Error("a wrong description: got a table")
	}
	needSandbox(t)
	mute := refusing("write", "clone")
	var e *nucleus.Error
	if _, err := selfTest(t, spec.Sandbox{Policy: &policy.Policy{Seccomp: &mute}}, nil); !errors.As(err, &e) || e.Because != "policy" || e.Hint == "" {
		t.Errorf("a policy under which no program can answer: got %v", err)
	}
}
