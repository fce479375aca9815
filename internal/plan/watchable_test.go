package plan

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// TestWatchable: a policy that refuses what comes between the listener and the
// workload is an error, not a start that waits for ever.
func TestWatchable(t *testing.T) {
	h := loadHost(t, "debian12-hybrid-root")
	h.SeccompFlags = 8
	with := func(p seccomp.Policy) *spec.Sandbox { return &spec.Sandbox{Policy: &policy.Policy{Seccomp: &p}} }
	if err := Watchable(with(seccomp.Default()), h); err != nil {
		t.Errorf("the default policy: %v", err)
	}
	for _, c := range startCalls() {
		refuses := seccomp.Default()
		refuses.Rules = append([]seccomp.Rule{{Calls: []string{c.name}, Do: seccomp.Errno("EPERM"), Why: "a test"}}, slices.Clone(refuses.Rules)...)
		_, err := Build(with(refuses), h, Command{Name: "true", Observe: seccomp.Refusals})
		var u *Unsupported
		if !errors.As(err, &u) || u.Field != "observe" || !strings.Contains(u.Why, c.name) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
	h.SeccompFlags = 0
	if err := Watchable(&spec.Sandbox{}, h); err == nil {
		t.Error("a kernel without listeners is watched")
	}
}
