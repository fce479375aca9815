package selftest

import (
	"testing"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// TestUnderPolicy: what is wanted follows the policy that was given.
func TestUnderPolicy(t *testing.T) {
	rule := func(do seccomp.Action, calls ...string) seccomp.Rule {
		return seccomp.Rule{Calls: calls, Do: do, Why: "test"}
	}
	filter := seccomp.Default().With(rule(seccomp.Allow, "keyctl"), rule(seccomp.Errno("ENOSYS"), "bpf"), rule(seccomp.KillProcess, "kcmp"),
		rule(seccomp.Errno("EPERM"), "memfd_create", "socketpair"), rule(seccomp.Errno("EPERM"), "clone"))
	w := &world{plain: spec.Sandbox{Policy: &policy.Policy{Seccomp: &filter, Landlock: &landlock.Config{}}}}
	for _, tc := range []struct {
		ask, want string
		wants     string
		skipped   bool
	}{
		{"call keyctl 0 -3 0", "EPERM", "EPERM", true},
		{"call bpf 5 z:128 128", "EPERM", "ENOSYS", false},
		{"call kcmp 2 2 0 0 0", "EPERM", "EPERM", true},
		{"call clone 17", "ok", "ok", true},
		{"call socketpair 2 1 0 z:8", "EAFNOSUPPORT", "EPERM", false},
		{"call socket 1 1 0", "ok", "ok", false},
		{"call ioctl 0 0xffffffff00005412 z:8", "EPERM", "EPERM", false},
		{"call 4000", "ENOSYS", "ENOSYS", false},
		{"memory exit7", "exit 7", "exit 7", true},
		{"kill 1 9", "ok", "ok", false},
		{"open new {rw}/made", "ok", "ok", true},
		{"open new {ro}/made", "EROFS", "EROFS", false},
		{"env", "ok:", "ok:", false},
	} {
		got := w.underPolicy(ask("try", tc.ask, tc.want))
		if got.want != tc.wants || (got.skip != "") != tc.skipped {
			t.Errorf("%s: got %s, skipped because %q; want %s, skipped %v", tc.ask, got.want, got.skip, tc.wants, tc.skipped)
		}
	}
	if got := (&world{}).underPolicy(ask("try", "call keyctl 0 -3 0", "EPERM")); got.skip != "" || got.want != "EPERM" {
		t.Errorf("without a policy: got %+v", got)
	}
}
