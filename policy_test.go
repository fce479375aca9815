package nucleus_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

func keeping(c ...caps.Cap) *policy.Policy {
	k := caps.Keep(caps.Of(c...))
	return &policy.Policy{Caps: &k}
}

// setLines are the five sets as they must be read back.
func setLines(s caps.Sets) []line {
	return []line{
		{"status CapInh", "ok:" + s.Inheritable.Hex()}, {"status CapPrm", "ok:" + s.Permitted.Hex()}, {"status CapEff", "ok:" + s.Effective.Hex()},
		{"status CapBnd", "ok:" + s.Bounding.Hex()}, {"status CapAmb", "ok:" + s.Ambient.Hex()},
	}
}

// TestKeptCapabilities: what the policy keeps works, all five sets are the
// policy's, and the rest is gone.
func TestKeptCapabilities(t *testing.T) {
	needSandbox(t)
	identities(t, func(t *testing.T, s *spec.Sandbox) {
		s.Policy = keeping(caps.NetBindService)
		FailsWithout(t, func(a *attempt) error { return a.want(s, setLines(s.Policy.Kept())...) }, without(plan.KeepCaps{}))
		FailsWithout(t, func(a *attempt) error { return a.want(s, line{"listen tcp 127.0.0.1:80", "ok"}) }, without(plan.KeepCaps{}))
		if err := (&attempt{TB: t}).want(s,
			line{"mkdir /tmp/d", "ok"}, line{"chown /tmp/d 1", refused + "|EINVAL"}, // another capability
			line{fmt.Sprint("prctl ", unix.PR_GET_SECUREBITS), "ok:239"}, line{"status NoNewPrivs", "ok:1"},
			line{fmt.Sprint("call ", unix.SYS_PRCTL, " 47 2 0 0 0"), "EPERM"}, // PR_CAP_AMBIENT_RAISE of CAP_CHOWN
		); err != nil {
			t.Error(err)
		}
	})
}

// TestKeptChown: CAP_CHOWN over the ids of the sandbox.
func TestKeptChown(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root) // an ordinary user's sandbox has one id
	s := &spec.Sandbox{Policy: keeping(caps.Chown)}
	FailsWithout(t, func(a *attempt) error {
		return a.want(s, line{"mkdir /tmp/d", "ok"}, line{"chown /tmp/d 33", "ok"}, line{"listen tcp 127.0.0.1:80", "EACCES|EPERM"})
	}, without(plan.KeepCaps{}))
}

// TestOwnFilter: a profile replaces the default one, and is enforced.
func TestOwnFilter(t *testing.T) {
	needSandbox(t)
	own := seccomp.Default().With(seccomp.Rule{Calls: []string{"mkdir", "mkdirat"}, Do: seccomp.Errno("EXDEV"), Why: "a test"})
	s := &spec.Sandbox{Policy: &policy.Policy{Seccomp: &own}}
	FailsWithout(t, func(a *attempt) error { return a.want(s, line{"mkdir /tmp/d", "EXDEV"}) }, withoutSeccomp())
	wide := seccomp.Default().With(seccomp.Rule{Calls: []string{"keyctl"}, Do: seccomp.Errno("EUSERS"), Why: "a test"})
	s.Policy.Seccomp = &wide
	FailsWithout(t, func(a *attempt) error {
		return a.want(s, line{fmt.Sprint("call ", unix.SYS_KEYCTL, " 0 -3 0"), "EUSERS"})
	}, withoutSeccomp())
}

// TestOwnLandlock: the rules of a policy are kept on top of those of the mounts.
func TestOwnLandlock(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Landlock)
	s := &spec.Sandbox{Policy: &policy.Policy{Landlock: &landlock.Config{
		HandleFS: landlock.All(landlock.Latest),
		Rules: []landlock.PathRule{
			{Path: "/", Allow: landlock.Read | landlock.Execute, Why: "a test"},
			{Path: "/root", Allow: landlock.Create | landlock.Write, Why: "a test"},
			{Path: "/dev", Allow: landlock.Write | landlock.IoctlDev, Why: "a test"},
		},
	}}}
	narrow := remove("the policy's rules", func(s plan.Step) bool { a, ok := s.Do.(plan.Landlock); return ok && a.Narrow })
	mounts := remove("the mounts' rules", func(s plan.Step) bool { a, ok := s.Do.(plan.Landlock); return ok && !a.Narrow })
	FailsWithout(t, func(a *attempt) error {
		return a.want(s, line{"mkdir /tmp/d", "EACCES"}, line{"mkdir /root/d", "ok"}, line{"open new /tmp/f", "EACCES"}, line{"ls /tmp", "ok:"})
	}, narrow, mounts.holds())
	// The policy cannot widen: no file of the sandbox's root is written.
	s.Policy.Landlock.Rules = []landlock.PathRule{{Path: "/", Allow: landlock.All(landlock.Latest), Why: "a test"}}
	if err := (&attempt{TB: t}).want(s, line{"mkdir /d", refused}, line{"elf /tmp/x exit7", "EACCES"}); err != nil {
		t.Error(err)
	}
}

// TestOwnPorts: port rules hold for the sandbox's own loopback device too.
func TestOwnPorts(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Landlock)
	s := &spec.Sandbox{Policy: &policy.Policy{Landlock: &landlock.Config{
		HandleNet: landlock.BindTCP | landlock.ConnectTCP,
		Ports:     []landlock.PortRule{{Port: 8080, Allow: landlock.BindTCP, Why: "a test"}},
	}}}
	if abi, _, _ := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); abi < 4 {
		if _, err := (&attempt{TB: t}).probe(s, "status CapEff").Plan(); err == nil {
			t.Error("this kernel knows no port rules; a policy of nothing else was taken")
		}
		return
	}
	narrow := remove("the policy's rules", func(s plan.Step) bool { a, ok := s.Do.(plan.Landlock); return ok && a.Narrow })
	FailsWithout(t, func(a *attempt) error {
		return a.want(s, line{"listen tcp 127.0.0.1:8080", "ok"}, line{"listen tcp 127.0.0.1:8081", "EACCES"})
	}, narrow)
}

// TestJoinedHasTheOwnPolicy: a program that joins has what the sandbox's own has.
func TestJoinedHasTheOwnPolicy(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Landlock)
	own := seccomp.Default().With(seccomp.Rule{Calls: []string{"mkdir", "mkdirat"}, Do: seccomp.Errno("EXDEV"), Why: "a test"})
	pol := keeping(caps.NetBindService)
	pol.Seccomp = &own
	pol.Landlock = &landlock.Config{HandleFS: landlock.All(landlock.Latest), Rules: []landlock.PathRule{
		{Path: "/", Allow: landlock.Read | landlock.Execute, Why: "a test"}, {Path: "/dev", Allow: landlock.Write | landlock.IoctlDev, Why: "a test"},
	}}
	lines := append(setLines(pol.Kept()),
		line{"listen tcp 127.0.0.1:80", "ok"}, line{"mkdir /tmp/d", "EXDEV"}, line{"open new /tmp/f", "EACCES"}, line{"ls /tmp", "ok:"})
	l := detach(t, withProbe(&spec.Sandbox{Toolchain: true, Policy: pol}), nil, "sleep", "60")
	p := open(t, l)
	join := func(a *attempt) error {
		c := p.Command(probePath, questions(lines)...)
		if a.edit != nil {
			c.EditPlan(func(p *plan.Plan) { a.changed += a.edit(p) })
		}
		return a.wantCmd(c, lines...)
	}
	FailsWithout(t, join, without(plan.KeepCaps{}), withoutSeccomp(),
		remove("the policy's rules", func(s plan.Step) bool { a, ok := s.Do.(plan.Landlock); return ok && a.Narrow }))
	if err := (&attempt{TB: t}).want(&spec.Sandbox{Policy: pol}, lines...); err != nil {
		t.Errorf("the sandbox's own program: %v", err)
	}
}

// TestReportOfPolicy: the report compares all five sets with the policy's.
func TestReportOfPolicy(t *testing.T) {
	needSandbox(t)
	s := &spec.Sandbox{Toolchain: true, Policy: keeping(caps.NetBindService)}
	s.Policy.Caps.Bounding = s.Policy.Caps.Bounding.With(caps.Kill)
	FailsWithout(t, func(a *attempt) error {
		c := a.command(s, "sleep", "60")
		if err := c.Start(); err != nil {
			a.refused = err
			return err
		}
		defer func() { _ = errors.Join(c.Process.Kill(), c.Wait()) }() // that it was killed is known
		r, err := c.Process.Report()
		if err == nil && !strings.Contains(r.String(), "ambient CAP_NET_BIND_SERVICE") {
			err = fmt.Errorf("the report does not name what is kept:\n%s", r)
		}
		return err
	}, without(plan.KeepCaps{}),
		change("a wider bounding set", func(a *plan.DropBounding) bool { a.Keep = a.Keep.With(caps.SysAdmin); return true }),
		change("an empty inheritable set", func(a *plan.DropCaps) bool { a.Inheritable = 0; return true }))
}
