package nucleus

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/enter"
	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// tells reports whether somebody wants to know what happens.
func (c *Cmd) tells() bool { return c.Events != nil && c.into == nil }

// tell tells of events, in order.
func (c *Cmd) tell(all ...event.Body) error {
	if !c.tells() {
		return nil
	}
	for _, b := range all {
		if err := c.Events(b); err != nil {
			return &Error{Stage: StageSupervise, Step: -1, Op: "tell of", Object: b.Kind(), Err: err}
		}
	}
	return nil
}

// enterTold performs the plan and tells how that went.
func (c *Cmd) enterTold(p *Plan, fds []int) (*enter.Sandbox, error) {
	if err := c.tell(c.created()...); err != nil {
		return nil, err
	}
	box, err := c.enter(p, fds)
	if err == nil {
		return box, nil
	}
	err = stepError(p, err)
	last := notStarted(err)
	if c.ran {
		last = event.Ended{Reason: string(Signaled), Code: 128 + int(syscall.SIGKILL), Signal: "KILL", Detail: "ended by nucleus: " + err.Error(), Seconds: time.Since(c.started).Seconds()}
	}
	if told := c.tell(last); told != nil {
		return nil, errors.Join(err, told)
	}
	return nil, err
}

// created is what is known before anything is done.
func (c *Cmd) created() []event.Body {
	if !c.tells() {
		return nil
	}
	s := c.full()
	b := event.Created{Command: event.CommandOf(c.Args, c.HideArgs), Env: event.NamesOf(s.Env), Detached: c.Detach != nil,
		Mode: s.Mode.String(), Attested: s.Rootfs.Verified()}
	if s.Rootfs != nil {
		b.Rootfs = s.Rootfs.Source
	}
	if s.Workspace != nil {
		b.Workspace = s.Workspace.Source
	}
	out := []event.Body{b}
	if s.Policy != nil {
		for _, src := range s.Policy.Sources {
			out = append(out, event.PolicyLoaded{Policy: src.Kind, Path: src.Path, SHA256: src.SHA256, Pinned: src.Pinned})
		}
	}
	return out
}

// notStarted is the end of a sandbox whose program never ran.
func notStarted(err error) event.Body {
	b := event.NotStarted{Error: err.Error()}
	var step *Error
	if errors.As(err, &step) {
		b.Stage, b.Step = string(step.Stage), strings.TrimSpace(step.Op+" "+step.Object)
	}
	return b
}

// held is called while the finished sandbox waits: what the kernel says now is
// what the program will have.
func (c *Cmd) held(p *Plan, box *enter.Sandbox) error {
	proc, err := host.ReadProcess(box.Pid)
	if err != nil {
		return fmt.Errorf("read back what is enforced: %w", err)
	}
	self, err := host.ReadProcess(os.Getpid())
	if err != nil {
		return fmt.Errorf("read back what is enforced: %w", err)
	}
	r := &reporter{proc: proc, self: self, plan: p.plan, report: &Report{}}
	r.namespaces()
	r.identity()
	r.files()
	r.limits(&Process{group: box.Group})
	facts, err := r.events(box.Group)
	if err != nil {
		return err
	}
	if err := c.tell(facts...); err != nil {
		return err
	}
	return r.verdict()
}

// verdict is an error if the kernel says anything else than the plan.
func (r *reporter) verdict() error {
	if len(r.wrong) == 0 {
		return nil
	}
	return &Error{Stage: StageSupervise, Step: -1, Op: "verify", Object: "sandbox", Err: fmt.Errorf("the kernel does not confirm the plan: %s", strings.Join(r.wrong, "; "))}
}

// events says what the kernel said.
func (r *reporter) events(group *cgroup.Group) ([]event.Body, error) {
	st := r.proc.Status
	ns := event.Namespaces{Own: map[string]string{}, Evidence: event.Kernel}
	for kind, id := range r.proc.Namespaces {
		if id == r.self.Namespaces[kind] {
			ns.Shared = append(ns.Shared, kind)
		} else {
			ns.Own[kind] = id
		}
	}
	slices.Sort(ns.Shared)
	out := []event.Body{ns, event.Identity{UID: st["Uid"], GID: st["Gid"], UIDMap: r.proc.UIDMap, Evidence: event.Kernel}}
	limits, err := r.limitsOf(group)
	if err != nil {
		return nil, err
	}
	if len(limits) > 0 {
		out = append(out, event.Cgroup{Limits: limits, Evidence: event.Kernel})
	}
	out = append(out, r.mounts()...)
	out = append(out, event.Network{Devices: r.proc.Interfaces, Evidence: event.Kernel},
		event.Capabilities{Inheritable: st["CapInh"], Permitted: st["CapPrm"], Effective: st["CapEff"], Bounding: st["CapBnd"], Ambient: st["CapAmb"], Evidence: event.Kernel},
		event.NoNewPrivs{Set: st["NoNewPrivs"] == "1", Evidence: event.Kernel})
	ll := event.Landlock{Evidence: event.Accepted}
	for _, s := range r.plan.Steps {
		if a, ok := s.Do.(plan.Landlock); ok {
			ll.ABI, ll.Rules = a.Rules.ABI, ll.Rules+len(a.Rules.Rules)
		}
	}
	if ll.ABI > 0 {
		out = append(out, ll)
	}
	for _, w := range r.plan.Weakened {
		out = append(out, event.Weakened{Feature: w.Feature, Why: w.Why})
	}
	for _, w := range r.report.Weakened { // what reading back has found
		out = append(out, event.Weakened{Feature: w.What, Why: w.Why})
	}
	return out, nil
}

// mounts tells of the root and of every mount, and whether they are as planned.
func (r *reporter) mounts() []event.Body {
	var out []event.Body
	audit := event.MountAudit{Passed: len(r.wrong) == 0, Mounts: len(r.proc.Mounts), Writable: []string{}, Wrong: r.wrong, Evidence: event.Kernel}
	for _, m := range r.proc.Mounts {
		ro := slices.Contains(strings.Split(m.Options, ","), "ro")
		if m.Target == "/" {
			out = append(out, event.RootSwitched{FS: m.Type, ReadOnly: ro, Evidence: event.Kernel})
		}
		if !ro {
			audit.Writable = append(audit.Writable, m.Target)
		}
	}
	for _, m := range r.proc.Mounts {
		out = append(out, event.Mounted{Target: m.Target, FS: m.Type, Options: m.Options, Evidence: event.Kernel})
	}
	return append(out, audit)
}

// limitsOf reads the limits back.
func (r *reporter) limitsOf(group *cgroup.Group) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range r.plan.Steps {
		if a, ok := s.Do.(plan.CgroupWrite); ok {
			got, err := group.Read(a.Controller, a.File)
			if err != nil {
				return nil, fmt.Errorf("read back what is enforced: %w", err)
			}
			out[a.File] = strings.TrimSpace(got)
		}
	}
	return out, nil
}

// tellStarted tells of the filter, which is in force since the program was
// executed, and of that.
func (c *Cmd) tellStarted(p *Plan, box *enter.Sandbox) error {
	c.ran = true
	name, prog := filterOf(p.plan)
	f := event.Seccomp{Policy: name, SHA256: digest(prog), Instructions: len(prog.Insns), Evidence: event.Accepted}
	got, err := host.FiltersOf(box.Pid, box.WorkloadPid)
	switch {
	case err == nil && got.Mode != 2:
		return &Error{Stage: StageSupervise, Step: -1, Op: "verify", Object: "sandbox", Err: fmt.Errorf("the kernel does not confirm the plan: seccomp mode is %d", got.Mode)}
	case err == nil:
		f.Mode, f.Filters, f.Evidence = got.Mode, got.Count, event.Kernel
	}
	return c.tell(f, event.Started{Pid: box.Pid, Seconds: time.Since(c.started).Seconds()})
}

// filterOf is the filter that holds the policy.
func filterOf(p *plan.Plan) (string, seccomp.Program) {
	for _, s := range p.Steps {
		switch a := s.Do.(type) {
		case plan.Listen:
			return a.Name, a.Program
		case plan.Seccomp:
			return a.Name, a.Program
		}
	}
	return "", seccomp.Program{}
}

// digest is SHA-256 of a filter as the kernel takes it.
func digest(p seccomp.Program) string {
	b := make([]byte, 0, 8*len(p.Insns))
	for _, i := range p.Insns {
		b = append(binary.LittleEndian.AppendUint16(b, i.Code), i.JT, i.JF)
		b = binary.LittleEndian.AppendUint32(b, i.K)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// measure is called at the end, while there is still a control group.
func (c *Cmd) measure(group *cgroup.Group) func() {
	if !c.tells() || group == nil {
		return nil
	}
	return func() {
		// What cannot be read is not told: the sandbox has ended, whatever it used.
		if s, err := group.Stats(); err == nil {
			c.usage.MemoryPeak, c.usage.ReadBytes, c.usage.WriteBytes = s.MemoryPeak, s.ReadBytes, s.WriteBytes
		}
		if n, err := group.PidsDenied(); err == nil {
			c.usage.PidsDenied = n
		}
	}
}

// denied is what was refused, if somebody watched.
func (c *Cmd) denied() []event.Body {
	if c.Watch == nil {
		return nil
	}
	args := c.Args
	if c.HideArgs { // what would be inferred from an argument would tell it
		args = args[:min(1, len(args))]
	}
	var out []event.Body
	for _, d := range c.denials(args) {
		b := event.Denial{
			Source: d.Layer, What: strings.TrimSpace(d.What + " " + d.Object), Process: d.Process, Pid: d.Pid, Errno: d.Errno,
			Rule: d.Rule, Allow: d.Allow, Count: d.Count, Say: d.Say, Inferred: d.Inferred,
		}
		if !d.Time.IsZero() {
			b.Last = d.Time.UTC().Format(time.RFC3339Nano)
		}
		out = append(out, b)
	}
	return out
}

// tellEnd tells how it ended.
func (c *Cmd) tellEnd(kills uint64) error {
	if !c.tells() {
		return nil
	}
	o, u := c.Outcome, c.usage
	u.UserSeconds, u.SystemSeconds, u.MaxRSS, u.OOMKills = o.User.Seconds(), o.System.Seconds(), o.MaxRSS, kills
	end := event.Ended{Reason: string(o.Reason), Code: o.ExitCode(), Detail: o.Detail, Seconds: o.Ended.Sub(o.Started).Seconds(), Usage: &u}
	if o.Signal != 0 {
		end.Signal = spec.SignalName(int(o.Signal))
	}
	all := c.denied()
	if kills > 0 {
		all = append(all, event.OutOfMemory{Kills: kills})
	}
	if o.Reason == DeadlineExceeded {
		all = append(all, event.TimedOut{Timeout: c.Sandbox.Timeout.String()})
	}
	return c.tell(append(all, end)...)
}
