package nucleus

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/spec"
)

// Report says what is enforced on a running program. Every line but those that
// say otherwise was read back from the kernel, not from the description.
type Report struct {
	Enforced []Enforced     `json:"enforced"`
	Weakened []WeakenedFact `json:"weakened"`
}

// Enforced is one thing that holds.
type Enforced struct {
	What string `json:"what"`
	How  string `json:"how"`
}

// WeakenedFact is one thing that this machine could not enforce, and why.
type WeakenedFact struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// String prints the report, a line each.
func (r *Report) String() string {
	var b strings.Builder
	for _, e := range r.Enforced {
		fmt.Fprintf(&b, "enforced  %-16s %s\n", e.What, e.How)
	}
	for _, w := range r.Weakened {
		fmt.Fprintf(&b, "WEAKENED  %-16s %s\n", w.What, w.Why)
	}
	return b.String()
}

// Report asks the kernel what is enforced on the program. It fails with
// os.ErrProcessDone if the program has ended, with ErrUnsupported for a sandbox
// that was found by Open, and with an *Error if the kernel
// says anything else than the plan.
func (p *Process) Report() (*Report, error) {
	if p.plan == nil {
		return nil, fmt.Errorf("a sandbox that was found by Open has no plan to compare with: %w", ErrUnsupported)
	}
	var proc, self *host.Process
	err := p.life.Alive(func(pid int) error {
		child, err := host.Child(pid, p.workload)
		if err != nil {
			return err
		}
		if proc, err = host.ReadProcess(child); err != nil {
			return err
		}
		self, err = host.ReadProcess(os.Getpid())
		return err
	})
	if err != nil {
		return nil, err
	}
	r := &reporter{proc: proc, self: self, plan: p.plan.plan, report: &Report{Weakened: []WeakenedFact{}}}
	r.mode()
	r.namespaces()
	r.identity()
	r.files()
	r.policy()
	r.limits(p)
	for _, w := range p.plan.plan.Weakened {
		r.report.Weakened = append(r.report.Weakened, WeakenedFact{w.Feature, w.Why})
	}
	if len(r.wrong) > 0 {
		return r.report, &Error{Stage: StageSupervise, Step: -1, Op: "verify", Object: "sandbox", Err: fmt.Errorf("the kernel does not confirm the plan: %s", strings.Join(r.wrong, "; "))}
	}
	return r.report, nil
}

type reporter struct {
	proc, self *host.Process
	plan       *plan.Plan
	report     *Report
	wrong      []string
}

func (r *reporter) add(what, format string, args ...any) {
	r.report.Enforced = append(r.report.Enforced, Enforced{what, fmt.Sprintf(format, args...)})
}

// want notes what the kernel should have said.
func (r *reporter) want(ok bool, format string, args ...any) {
	if !ok {
		r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
	}
}

// mode says which rows were checked before the program could run.
func (r *reporter) mode() {
	held := 0
	for _, row := range plan.Invariants() {
		if r.plan.Mode.Demands(row.From) {
			held++
		}
	}
	r.add("mode", "%s: %d invariant(s) held when it started (nucleus modes lists them)", r.plan.Mode, held)
}

func (r *reporter) namespaces() {
	var own []string
	for _, ns := range []string{"user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time"} {
		if r.proc.Namespaces[ns] != r.self.Namespaces[ns] {
			own = append(own, ns)
		}
	}
	r.add("namespaces", "its own: %s", strings.Join(own, ", "))
	for _, ns := range []string{"pid", "mnt", "net", "uts", "ipc", "cgroup"} {
		r.want(slices.Contains(own, ns), "it shares the %s namespace", ns)
	}
	r.want(slices.Equal(r.proc.Interfaces, []string{"lo"}), "its network devices are %v", r.proc.Interfaces)
	r.add("network", "none but its own loopback device")
}

func (r *reporter) identity() {
	uid, _, _ := strings.Cut(r.proc.Status["Uid"], "\t")
	if r.proc.Namespaces["user"] == r.self.Namespaces["user"] {
		r.report.Weakened = append(r.report.Weakened, WeakenedFact{"userns", "it shares the host's user namespace, as asked for: root inside is root outside (without capabilities)"})
	} else {
		r.add("identity", "user %s on the host (map: %s)", uid, r.proc.UIDMap)
	}
	kept := r.plan.Kept.Caps
	for set, want := range map[string]caps.Set{"CapInh": kept.Inheritable, "CapPrm": kept.Permitted, "CapEff": kept.Effective, "CapBnd": kept.Bounding, "CapAmb": kept.Ambient} {
		got, err := caps.FromHex(r.proc.Status[set])
		r.want(err == nil && got == want, "%s is %s, the policy says %s", set, r.proc.Status[set], want)
	}
	r.add("capabilities", "%s", kept)
	r.want(r.proc.Status["NoNewPrivs"] == "1", "no_new_privs is %q", r.proc.Status["NoNewPrivs"])
	r.add("no_new_privs", "executing a program cannot gain privileges")
}

func (r *reporter) files() {
	var writable []string
	for _, m := range r.proc.Mounts {
		opts := strings.Split(m.Options, ",")
		device := m.Type == "devtmpfs" || strings.HasPrefix(m.Target, "/dev/") && m.Type != "tmpfs" && m.Type != "devpts"
		if !slices.Contains(opts, "ro") && m.Type != "proc" && m.Type != "devpts" && !device && !strings.HasPrefix(m.Target, "/proc/") {
			writable = append(writable, m.Target)
		}
		r.want(device || strings.HasPrefix(m.Target, "/proc/") || slices.Contains(opts, "nosuid"), "%s is mounted without nosuid", m.Target)
		if m.Target == "/" {
			r.want(slices.Contains(opts, "ro"), "the root is writable")
			r.want(m.Type == "tmpfs", "the root is %s", m.Type)
		}
	}
	for _, w := range plan.AuditMounts(r.plan.Mounts(), r.proc.Mounts, r.plan.Mode.Demands(spec.ModeProduction)) {
		r.want(false, "%s", w)
	}
	r.add("files", "%d mounts, all nosuid; root read-only; writable: %s", len(r.proc.Mounts), strings.Join(writable, " "))
}

func (r *reporter) policy() {
	r.want(r.proc.Status["Seccomp"] == "2", "seccomp mode is %q", r.proc.Status["Seccomp"])
	filters, seen := r.filters(), false
	for _, s := range r.plan.Steps {
		switch a := s.Do.(type) {
		case plan.Listen:
			seen = true
			r.add("seccomp", "filter mode, %s filters; the %s policy, %d instructions, its refusals answered by who supervises", filters, a.Name, len(a.Program.Insns))
		case plan.Seccomp:
			if !seen {
				r.add("seccomp", "filter mode, %s filter(s); the %s policy, %d instructions", filters, a.Name, len(a.Program.Insns))
			}
		case plan.Landlock:
			r.add("landlock", "%s (accepted by the kernel, which offers no way to read them back)", a)
		}
	}
}

// filters is how many seccomp filters the program has, as the kernel counts them
// (5.9): ours, and those that we have ourselves.
func (r *reporter) filters() string {
	want := 0
	for _, s := range r.plan.Steps {
		switch s.Do.(type) {
		case plan.Listen, plan.Seccomp:
			want++
		}
	}
	text := r.proc.Status["Seccomp_filters"]
	own, err := strconv.Atoi(cmp.Or(r.self.Status["Seccomp_filters"], "0"))
	got, e := strconv.Atoi(text)
	if text != "" {
		r.want(err == nil && e == nil && got >= own+want, "it has %s seccomp filters, and is to have %d more than our %d", text, want, own)
	}
	return text
}

func (r *reporter) limits(p *Process) {
	for _, s := range r.plan.Steps {
		switch a := s.Do.(type) {
		case plan.CgroupWrite:
			got, err := p.group.Read(a.Controller, a.File)
			if err != nil {
				r.want(false, "%s cannot be read back: %v", a.File, err)
				continue
			}
			r.add(strings.TrimPrefix(a.Because, "limits."), "%s = %s (control group)", a.File, strings.TrimSpace(got))
		case plan.Rlimit:
			if a.Name == "RLIMIT_NPROC" {
				r.want(r.proc.MaxTasks == fmt.Sprint(a.Hard), "RLIMIT_NPROC is %s", r.proc.MaxTasks)
				r.add("pids", "%d tasks, by RLIMIT_NPROC, counted for this sandbox's user namespace alone", a.Hard-1)
			}
		}
	}
}
