package plan

import (
	"slices"
	"testing"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// TestWatchable: a policy that refuses what comes between the listener and the
// workload does not hold up the start, and is in force for the workload.
func TestWatchable(t *testing.T) {
	h := loadHost(t, "debian12-hybrid-root")
	h.SeccompFlags = 8
	if err := Watchable(h); err != nil {
		t.Errorf("a kernel with listeners: %v", err)
	}
	for _, c := range startCalls() {
		refuses := seccomp.Default()
		refuses.Rules = append([]seccomp.Rule{{Calls: []string{c.name}, Do: seccomp.Errno("EACCES"), Why: "a test"}}, slices.Clone(refuses.Rules)...)
		for l := seccomp.Refusals; l <= seccomp.Everything; l++ {
			p, err := Build(&spec.Sandbox{Policy: &policy.Policy{Seccomp: &refuses}}, h, Command{Name: "true", Observe: l})
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			first, then := find[Listen](p).Program, find[Seccomp](p).Program
			nr, _ := seccomp.AMD64.Number(c.name)
			d := seccomp.Data{NR: nr, Arch: seccomp.AMD64.AuditArch(), Args: c.args}
			if got := first.Eval(d); got != seccomp.Allow {
				t.Errorf("level %d: process 1 is answered %s to %s", l, got, c.name)
			}
			if got := then.Eval(d); got != "EACCES" {
				t.Errorf("level %d: the program is answered %s to %s", l, got, c.name)
			}
		}
	}
	h.SeccompFlags = 0
	if err := Watchable(h); err == nil {
		t.Error("a kernel without listeners is watched")
	}
}
