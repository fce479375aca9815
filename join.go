package nucleus

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/enter"

	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/spec"
)

// Command returns the Cmd to run another program in the sandbox, which Open has
// found. The program gets all of its namespaces, is born in its control group,
// and has exactly its policy; if any of that cannot be had, Start fails.
//
// Of the Cmd's Sandbox only Env, Workdir, Terminal and Timeout count; As chooses
// another user of the sandbox. With Detach, nobody follows the program.
func (p *Process) Command(name string, arg ...string) *Cmd {
	c := Command(&spec.Sandbox{}, name, arg...)
	c.into = p
	if p.policy == nil && c.Err == nil {
		c.Err = &Error{Stage: StageValidate, Step: -1, Op: "join", Object: "sandbox", Err: errors.Join(errNotOpened, ErrInvalid)}
	}
	return c
}

var errNotOpened = errors.New("only a sandbox that was found by Open can be joined")

// joinPlan plans a program that joins.
func (c *Cmd) joinPlan() (*Plan, error) {
	s := c.full()
	if c.As != nil {
		s.User = *c.As
	}
	if err := s.Validate(); err != nil {
		return nil, invalid(err)
	}
	h, err := c.into.host()
	if err != nil {
		return nil, err
	}
	j := plan.Joint{Command: c.command(), Env: append(append([]string(nil), c.Sandbox.Env...), c.Env...), Dir: c.full().Workdir, Terminal: c.Sandbox.Terminal}
	if c.As != nil {
		j.User = &plan.SetIDs{UID: c.As.UID, GID: c.As.GID}
	}
	for _, g := range c.into.id.Groups {
		j.Cgroup = true
		j.Scoped = j.Scoped || strings.HasSuffix(filepath.Dir(g.Path), ".scope")
	}
	p, err := plan.Join(*c.into.policy, &h.facts, j)
	if err != nil {
		return nil, planError(err)
	}
	return &Plan{plan: p, host: h}, nil
}

// host asks once what the kernel can do for programs that join.
func (p *Process) host() (*Host, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.facts != nil {
		return p.facts, nil
	}
	f, err := host.Probe(nil, len(p.id.Groups) > 0)
	if err != nil {
		return nil, &Error{Stage: StageProbe, Step: -1, Op: "ask", Object: "the kernel", Err: err}
	}
	p.facts = &Host{facts: *f}
	return p.facts, nil
}

// intoRequest is what a program needs to get into the sandbox.
func (p *Process) intoRequest() (*enter.Into, error) {
	o, ok := p.life.(*other)
	if !ok {
		return nil, os.ErrProcessDone
	}
	if err := p.made(); err != nil {
		return nil, &Error{Stage: StageEnter, Step: -1, Op: "join", Object: "sandbox", Err: err}
	}
	into := &enter.Into{PidFD: o.pidfd, IDBase: p.idBase}
	if len(p.id.Groups) == 0 {
		return into, nil
	}
	h, err := p.host()
	if err != nil {
		return nil, err
	}
	g, err := cgroup.Open(h.facts.Cgroup, p.id.Groups)
	if err != nil {
		return nil, err
	}
	if len(g.Places()) != len(p.id.Groups) {
		return nil, errors.Join(&Error{Stage: StageEnter, Step: -1, Op: "cgroup.join", Object: "sandbox", Err: os.ErrProcessDone}, g.Close())
	}
	into.Group = g
	return into, nil
}
