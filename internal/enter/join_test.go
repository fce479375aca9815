package enter

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/child"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// host is a sandbox that programs of a test join.
type joinable struct {
	box    *Sandbox
	policy plan.Policy
	facts  *attempt
}

// startJoinable starts a sandbox that sleeps.
func startJoinable(t *testing.T, s spec.Sandbox) *joinable {
	t.Helper()
	a := prepare(t, s, "exec 3>&-; exec sleep 600")
	b, err := json.Marshal(a.Plan.Policy())
	if err != nil {
		t.Fatal(err)
	}
	j := &joinable{facts: a}
	if err := json.Unmarshal(b, &j.policy); err != nil {
		t.Fatal(err)
	}
	if j.box, err = Start(a.Request); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kernel.SignalPid(j.box.PidFD, int(syscall.SIGKILL)); err != nil {
			t.Error(err)
		}
		if _, err := finish(j.box); err != nil {
			t.Error(err)
		}
		if _, err := a.words(); err != nil {
			t.Error(err)
		}
	})
	return j
}

// join prepares a program that joins the sandbox.
func (j *joinable) join(t *testing.T, terminal bool, script string) *attempt {
	t.Helper()
	a := prepare(t, spec.Sandbox{Toolchain: true}, script) // for its descriptors
	p, err := plan.Join(j.policy, a.Host, plan.Joint{
		Command: plan.Command{Name: "/bin/sh", Args: []string{"-c", script}, Extra: 1}, Terminal: terminal, Cgroup: j.box.Group != nil,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.Plan = p
	a.Into = &Into{PidFD: j.box.PidFD, IDBase: j.box.IDBase, Group: j.box.Group}
	return a
}

// TestEveryOperationOfAJoinCanFail makes each system call on the way into a
// sandbox fail in turn: the program does not run, in no part of it.
func TestEveryOperationOfAJoinCanFail(t *testing.T) {
	for _, tc := range []struct {
		name     string
		spec     spec.Sandbox
		terminal bool
	}{
		{"plain", spec.Sandbox{Toolchain: true}, false},
		{"time namespace", spec.Sandbox{Toolchain: true, TimeNamespace: true}, false},
		{"terminal", spec.Sandbox{Toolchain: true}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sandboxtest.Need(t, sandboxtest.Userns)
			j := startJoinable(t, tc.spec)
			var steps []int
			a := j.join(t, tc.terminal, "echo ran >&3")
			a.edit = func(step, op int, _ *child.Op) { steps = append(steps, step) }
			if words, _, err := a.run(); err != nil || words != "ran\n" {
				t.Fatalf("without a fault: got %q, %v", words, err)
			}
			stride := 1
			if sandboxtest.Slow() > 1 {
				stride = 5
			}
			before := look(t)
			for op := 0; op < len(steps); op += stride {
				a := j.join(t, tc.terminal, "echo ran >&3")
				a.edit = func(_, n int, o *child.Op) {
					if n == op {
						o.Nr, o.Allow = noCall, 0
					}
				}
				if err := wantFailure(t, a, steps[op]); !errors.Is(err, syscall.ENOSYS) || err.Call == "" {
					t.Errorf("operation %d of step %d: got %q, %v; want the call and %v", op, steps[op], err.Call, err.Err, syscall.ENOSYS)
				}
				if after := lookAgain(t, before); after != before {
					t.Fatalf("operation %d of step %d (%s): left %+v, before it was %+v", op, steps[op], a.Plan.Steps[steps[op]].Do, after, before)
				}
			}
			t.Logf("%d operations, each failed", len(steps))
		})
	}
}

// TestJoinIsAllOrNothing leaves namespaces out of the one system call that
// enters them: the plan is refused before anything happens.
func TestJoinIsAllOrNothing(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	j := startJoinable(t, spec.Sandbox{Toolchain: true})
	for bit := range 64 {
		ns := uint64(1) << bit
		if j.policy.Namespaces&ns == 0 {
			continue
		}
		pol := j.policy
		pol.Namespaces &^= ns
		_, err := plan.Join(pol, j.facts.Host, plan.Joint{Command: plan.Command{Name: "sh"}})
		if user := ns == 0x10000000; user == (err != nil) { // without it the plan is one for --userns host
			t.Errorf("without namespace %#x: %v", ns, err)
		}
	}
}

// TestPage starts a program outside of every sandbox, and lets it fail.
func TestPage(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := look(t)
	if _, _, err := Page("bad", []byte("no program"), []int{int(f.Fd())}); !errors.Is(err, syscall.ENOEXEC) {
		t.Errorf("got %v, want %v", err, syscall.ENOEXEC)
	}
	if after := lookAgain(t, before); after != before {
		t.Errorf("left %+v, before it was %+v", after, before)
	}
}
