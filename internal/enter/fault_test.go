package enter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/child"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// noCall is a number that no kernel gives to a system call: ENOSYS.
const noCall = 0xffff

// state is what a failed start must leave as it was, as far as it can be looked
// at between any two of many starts. A whole snapshot frames each test.
type state struct{ fds, mounts, children int }

func look(t *testing.T) state {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	children, err := sandboxtest.Children()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && !sandboxtest.OthersMount(f[4]) {
			n++
		}
	}
	return state{len(fds), n, len(children)}
}

// lookAgain looks until there is what there was before, for a few seconds: others
// mount and unmount on this machine, too.
func lookAgain(t *testing.T, before state) state {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if now := look(t); now == before || time.Now().After(end) {
			return now
		}
	}
}

// wantFailure starts a sandbox that must fail at one step, and returns the error.
func wantFailure(t *testing.T, a *attempt, step int) *StepError {
	t.Helper()
	b, err := Start(a.Request)
	if err != nil {
		a.served.Wait()
	} else {
		if _, e := finish(b); e != nil {
			t.Error(e)
		}
		words, e := a.words()
		t.Errorf("step %d was to fail; the workload ran and wrote %q (%v)", step, words, e)
		return &StepError{Err: errors.New("none")}
	}
	words, e := a.words()
	if e != nil {
		t.Errorf("step %d: something still holds the workload's descriptor: %v", step, e)
	}
	if words != "" {
		t.Errorf("step %d: the workload ran and wrote %q", step, words)
	}
	var s *StepError
	if !errors.As(err, &s) {
		t.Fatalf("step %d, %s: got %T %v, want a *StepError", step, a.Plan.Steps[step].Do.Call(), err, err)
	}
	if s.Index != step {
		t.Errorf("got a failure of step %d (%s %s: %v), want one of step %d (%s)", s.Index, s.Call, s.Step.Do, s.Err, step, a.Plan.Steps[step].Do)
	}
	return s
}

// TestEveryOperationCanFail makes each system call of the child fail in turn.
func TestEveryOperationCanFail(t *testing.T) {
	each(t, func(t *testing.T, s spec.Sandbox) {
		var steps []int // of each operation
		a := prepare(t, s, "echo ran >&3")
		a.edit = func(step, op int, _ *child.Op) { steps = append(steps, step) }
		if words, _, err := a.run(); err != nil || words != "ran\n" {
			t.Fatalf("without a fault: got %q, %v", words, err)
		}
		stride := 1
		if sandboxtest.Slow() > 1 {
			stride = 7
		}
		before, whole := look(t), snapshot(t)
		for op := 0; op < len(steps); op += stride {
			a := prepare(t, s, "echo ran >&3")
			if op%2 == 1 { // an init that waits for us, which must not hide why it is gone
				a.Meanwhile = func() {}
			}
			a.edit = func(_, n int, o *child.Op) {
				if n == op {
					o.Nr, o.Allow = noCall, 0
				}
			}
			if err := wantFailure(t, a, steps[op]); !errors.Is(err, syscall.ENOSYS) || err.Call == "" {
				t.Errorf("operation %d of step %d (%s): got %q, %v; want the call and %v", op, steps[op], a.Plan.Steps[steps[op]].Do, err.Call, err.Err, syscall.ENOSYS)
			}
			if after := lookAgain(t, before); after != before {
				t.Fatalf("operation %d of step %d (%s): left %+v, before it was %+v", op, steps[op], a.Plan.Steps[steps[op]].Do, after, before)
			}
		}
		wantNothingLeft(t, whole)
		t.Logf("%d operations of %d steps, each failed", (len(steps)+stride-1)/stride, len(a.Plan.Steps))
	})
}

// failEarly repeats a start whose step fails while the parent tells the child to
// go on: the child's report must not get lost in the end of the socket.
func failEarly(t *testing.T, s spec.Sandbox, step func(p *plan.Plan, i int) int) {
	sandboxtest.Need(t, sandboxtest.Userns)
	times := 300
	if sandboxtest.Slow() > 1 || sandboxtest.Probe(sandboxtest.Long) != nil {
		times = 30
	}
	for i := range times {
		a := prepare(t, s, "echo ran >&3")
		if s.Name == held {
			a.Meanwhile = func() {} // the workload waits for one more word
		}
		want, done := step(a.Plan, i), false
		a.edit = func(step, op int, o *child.Op) {
			if step == want && !done {
				done, o.Nr = true, noCall
			}
		}
		if err := wantFailure(t, a, want); !errors.Is(err, syscall.ENOSYS) {
			t.Fatalf("attempt %d: got %v, want %v", i, err, syscall.ENOSYS)
		}
	}
}

// find is the number of the step that does something of a kind.
func find[A plan.Action](p *plan.Plan) int {
	return slices.IndexFunc(p.Steps, func(s plan.Step) bool { _, ok := s.Do.(A); return ok })
}

// TestFailureBeforeTheGate: the step just before the wait, or the wait itself.
func TestFailureBeforeTheGate(t *testing.T) {
	failEarly(t, spec.Sandbox{Toolchain: true}, func(p *plan.Plan, i int) int { return find[plan.Wait](p) - i%2 })
}

// TestFailureAfterTheHold: what fails as soon as the child is let on, while the
// parent lets the workload start.
func TestFailureAfterTheHold(t *testing.T) {
	failEarly(t, spec.Sandbox{Toolchain: true, Name: held}, func(p *plan.Plan, _ int) int { return find[plan.Hold](p) + 1 })
}

// broken stands for a step that nobody knows how to perform.
type broken struct{ plan.Action }

// TestEveryStepCanFail makes each step fail before it does anything, the ones
// of the parent too; those before it are done and must be undone.
func TestEveryStepCanFail(t *testing.T) {
	each(t, func(t *testing.T, s spec.Sandbox) {
		before, whole := look(t), snapshot(t)
		n := len(prepareAndDrop(t, s).Steps)
		for i := range n {
			a := prepare(t, s, "echo ran >&3")
			switch a.Plan.Steps[i].Where {
			case plan.Clone:
				c := a.Plan.Steps[i].Do.(plan.CloneInto)
				c.Flags |= 0x10000 // CLONE_THREAD, without what it needs: EINVAL
				a.Plan.Steps[i].Do = c
			case plan.Init:
				continue // TestInitFails
			default:
				a.Plan.Steps[i].Do = broken{a.Plan.Steps[i].Do}
			}
			wantFailure(t, a, i)
			if after := lookAgain(t, before); after != before {
				t.Fatalf("step %d (%s): left %+v, before it was %+v", i, a.Plan.Steps[i].Do, after, before)
			}
		}
		wantNothingLeft(t, whole)
	})
}

func prepareAndDrop(t *testing.T, s spec.Sandbox) *plan.Plan {
	t.Helper()
	a := prepare(t, s, "")
	if _, err := a.words(); err != nil {
		t.Fatal(err)
	}
	return a.Plan
}

// replace changes the first step of a type.
func replace[A plan.Action](a *attempt, f func(A) A) (at int) {
	for i, s := range a.Plan.Steps {
		if do, ok := s.Do.(A); ok {
			a.Plan.Steps[i].Do = f(do)
			return i
		}
	}
	return -1
}

// TestRealFailures has the kernel refuse what a step asks for.
func TestRealFailures(t *testing.T) {
	for _, tc := range []struct {
		name string
		kind string
		edit func(*attempt) int
		want error
	}{
		{"a host directory is gone", "workspace", func(a *attempt) int {
			return replace(a, func(h plan.HostTree) plan.HostTree { h.Source = "/gone"; return h })
		}, fs.ErrNotExist},
		{"a tree is gone", "workspace", func(a *attempt) int {
			return replace(a, func(h plan.OpenTree) plan.OpenTree { h.Source += "/gone"; return h })
		}, fs.ErrNotExist},
		{"a file to copy is gone", "plain", func(a *attempt) int {
			return replace(a, func(h plan.CopyFile) plan.CopyFile { h.Source += "/gone"; return h })
		}, nil},
		{"a map of nobody", "plain", func(a *attempt) int {
			return replace(a, func(w plan.WriteMap) plan.WriteMap { w.Count = 0; return w })
		}, syscall.EINVAL},
		{"a controller that is not there", "limits", func(a *attempt) int {
			return replace(a, func(c plan.CgroupCreate) plan.CgroupCreate { c.Controllers = []string{"nothing"}; return c })
		}, nil},
		{"a value that is none", "limits", func(a *attempt) int {
			return replace(a, func(c plan.CgroupWrite) plan.CgroupWrite { c.Value = "many"; return c })
		}, syscall.EINVAL},
		{"a file system that does not exist", "plain", func(a *attempt) int {
			return replace(a, func(n plan.NewMount) plan.NewMount { n.Type = "nothing"; return n })
		}, syscall.ENODEV},
		{"a working directory that is not there", "plain", func(a *attempt) int {
			return replace(a, func(plan.Chdir) plan.Chdir { return plan.Chdir{Dir: "/nowhere"} })
		}, fs.ErrNotExist},
		{"a descriptor that nobody made", "plain", func(a *attempt) int {
			return replace(a, func(m plan.MoveMount) plan.MoveMount { m.From = "nothing"; return m })
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var k kind
			for _, k = range kinds {
				if k.name == tc.kind {
					break
				}
			}
			sandboxtest.Need(t, k.need...)
			before := snapshot(t)
			a := prepare(t, k.spec(t), "echo ran >&3")
			at := tc.edit(a)
			if at < 0 { // this plan does without the step, as one of an ordinary user or of a scope
				if _, err := a.words(); err != nil {
					t.Error(err)
				}
				t.Log("the plan has no such step here")
				return
			}
			if a.Plan.Steps[at].Where == plan.Host && reflect.TypeOf(a.Plan.Steps[at].Do) == reflect.TypeFor[plan.CgroupWrite]() && scoped(a) {
				at = gateOf(a) // the service manager makes the group there
			}
			if err := wantFailure(t, a, at); tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			wantNothingLeft(t, before)
		})
	}
}

func scoped(a *attempt) bool { return gateOf(a) >= 0 }

func gateOf(a *attempt) int {
	for i, s := range a.Plan.Steps {
		if _, ok := s.Do.(plan.CgroupAdd); ok {
			return i
		}
	}
	return -1
}

// TestInitFails has process 1 unable to start the workload.
func TestInitFails(t *testing.T) {
	each(t, func(t *testing.T, s spec.Sandbox) {
		before := snapshot(t)
		for _, tc := range []struct {
			name string
			edit func(*plan.Plan)
			want syscall.Errno
		}{
			{"no such program", func(p *plan.Plan) { setPaths(p, "/nowhere/x", "/neither/y") }, syscall.ENOENT},
			{"a directory", func(p *plan.Plan) { setPaths(p, "/usr") }, syscall.EACCES},
			{"not a program", func(p *plan.Plan) { setPaths(p, "/etc/passwd", "/bin/sh") }, syscall.EACCES},
			{"a filter that is none", func(p *plan.Plan) {
				for i, s := range p.Steps {
					if m, ok := s.Do.(plan.MakeInit); ok {
						m.Filter.Insns = []seccomp.Insn{{Code: 0xffff}}
						p.Steps[i].Do = m
					}
				}
			}, syscall.EINVAL},
		} {
			a := prepare(t, s, "echo ran >&3")
			tc.edit(a.Plan)
			if tc.name == "not a program" {
				// /etc/passwd may not be executed; the shell behind it would be.
				setPaths(a.Plan, "/etc/passwd")
			}
			step := len(a.Plan.Steps) - 1
			if tc.want == syscall.EINVAL {
				step-- // seccomp
			}
			if err := wantFailure(t, a, step); !errors.Is(err, tc.want) {
				t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
			}
		}
		wantNothingLeft(t, before)
	})
}

func setPaths(p *plan.Plan, paths ...string) {
	last := &p.Steps[len(p.Steps)-1]
	e := last.Do.(plan.Exec)
	e.Paths = paths
	last.Do = e
}

// TestBadDescriptor asks for a descriptor that is not open.
func TestBadDescriptor(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	before := snapshot(t)
	a := prepare(t, spec.Sandbox{Toolchain: true}, "echo ran >&3")
	a.Stdio[1] = 1 << 20
	stdio := -1
	for i, s := range a.Plan.Steps {
		switch s.Do.(type) {
		case plan.OwnPipes, plan.Stdio: // root's pipes change owner first
			if stdio < 0 {
				stdio = i
			}
		}
	}
	if err := wantFailure(t, a, stdio); !errors.Is(err, syscall.EBADF) {
		t.Errorf("got %v, want %v", err, syscall.EBADF)
	}
	wantNothingLeft(t, before)
}

// TestPlansFitTheirArena compares what was set aside with what was used.
func TestPlansFitTheirArena(t *testing.T) {
	each(t, func(t *testing.T, s spec.Sandbox) {
		long := strings.Repeat("x", 3000)
		s.Env = append(s.Env, "A="+long)
		for i := range 100 {
			s.Tmpfs = append(s.Tmpfs, spec.Tmpfs{Target: fmt.Sprintf("/many/%d/%s/%s", i, long[:100], long[:100])})
		}
		words, _, err := prepare(t, s, "echo ran >&3").run()
		if err != nil || words != "ran\n" {
			t.Errorf("got %q, %v", words, err)
		}
	})
}
