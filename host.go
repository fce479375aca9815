package nucleus

import (
	"encoding/json"
	"fmt"
	"iter"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/spec"
)

// Host is what this machine can do. It is data: it can be saved as JSON,
// compared, and given to NewPlan elsewhere.
type Host struct{ facts facts.Host }

// MarshalJSON prints the facts.
func (h *Host) MarshalJSON() ([]byte, error) { return json.Marshal(h.facts) }

// UnmarshalJSON reads what MarshalJSON printed.
func (h *Host) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &h.facts) }

// Probe asks the kernel what this machine can do for a sandbox: the facts that
// its plan needs.
func Probe(s *spec.Sandbox) (*Host, error) {
	if err := s.Validate(); err != nil {
		return nil, invalid(err)
	}
	return probe(s, false)
}

func probe(s *spec.Sandbox, detach bool) (*Host, error) {
	asks := plan.AsksOf(s)
	asks.Cgroup = asks.Cgroup || detach
	f, err := host.Probe(asks.System, asks.Cgroup)
	if err != nil {
		return nil, &Error{Stage: StageProbe, Step: -1, Op: "ask", Object: "the kernel", Err: err}
	}
	if asks.Lockdown {
		f.Lockdown, f.LockdownWhy = host.Lockdown()
	}
	for _, name := range asks.Sources {
		if err := host.Source(f, name); err != nil {
			return nil, &Error{Stage: StageResolve, Step: -1, Op: "find", Object: name, Err: invalidError{err}}
		}
	}
	if asks.Rootfs != "" {
		if err := host.Rootfs(f, asks.Rootfs); err != nil {
			return nil, &Error{Stage: StageResolve, Step: -1, Op: "read", Object: "rootfs", Err: invalidError{err}}
		}
	}
	return &Host{facts: *f}, nil
}

// NewPlan returns the plan of a sandbox that runs a program on a machine. It is
// pure: it asks nobody and changes nothing.
func NewPlan(s *spec.Sandbox, h *Host, name string, arg ...string) (*Plan, error) {
	return newPlan(s, h, plan.Command{Name: name, Args: arg})
}

func newPlan(s *spec.Sandbox, h *Host, c plan.Command) (*Plan, error) {
	if err := s.Validate(); err != nil {
		return nil, invalid(err)
	}
	p, err := plan.Build(s, &h.facts, c)
	if err != nil {
		return nil, planError(err)
	}
	return &Plan{plan: p, host: h}, nil
}

// Plan is the ordered list of kernel operations that makes a sandbox.
type Plan struct {
	plan *plan.Plan
	host *Host
}

// Step is one operation of a plan: who performs it, the kernel call, its
// object, and the field of the description that caused it.
type Step struct{ Where, Call, Object, Because string }

// String prints the plan, a step a line.
func (p *Plan) String() string { return p.plan.String() }

// MarshalJSON prints the plan as {"steps": [...], "weakened": [...]}.
func (p *Plan) MarshalJSON() ([]byte, error) { return p.plan.MarshalJSON() }

// Steps iterates over the steps in order.
func (p *Plan) Steps() iter.Seq2[int, Step] {
	return func(yield func(int, Step) bool) {
		for i, s := range p.plan.Steps {
			if !yield(i, Step{string(s.Where), s.Do.Call(), s.Do.String(), s.Because}) {
				return
			}
		}
	}
}

// Weakened lists what this machine cannot enforce, and why.
func (p *Plan) Weakened() []string {
	var out []string
	for _, w := range p.plan.Weakened {
		out = append(out, fmt.Sprintf("%s: %s", w.Feature, w.Why))
	}
	return out
}
