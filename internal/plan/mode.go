package plan

import (
	"errors"
	"slices"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/spec"
)

// When says against what a row of the table of modes is checked.
type When string

// The moments, in order. What fails at any of them: no workload has run.
const (
	Asked   When = "asked"   // the description, before anything is planned
	Machine When = "machine" // the machine, before anything is planned
	Planned When = "planned" // the finished plan
	Kernel  When = "kernel"  // what the kernel says of the sandbox, before its program runs
)

// Invariant is one row of the table of modes: something that holds in From and
// in every mode that demands more, or the sandbox does not start.
type Invariant struct {
	ID   string    `json:"id"`
	From spec.Mode `json:"from"`
	When When      `json:"when"`
	What string    `json:"what"`
	Why  string    `json:"why"`
	Fix  string    `json:"fix"` // what a person does about a row that does not hold

	// found is what there is instead; empty: it holds.
	found func(subject) string
}

// subject is what rows look at.
type subject struct {
	spec *spec.Sandbox
	host *facts.Host
	plan *Plan // nil for rows that are Asked or about the Machine
}

// Broken is a row of the Spec's mode that does not hold.
type Broken struct {
	Mode      spec.Mode
	Invariant Invariant
	Found     string
}

func (b *Broken) Error() string {
	return b.Mode.String() + ": " + b.Invariant.ID + ": " + b.Found
}

// judge checks the rows that apply to a Spec's mode at some moments. The error
// joins a *Broken for each that does not hold.
func judge(s subject, when ...When) error {
	var errs []error
	for i := range invariants {
		row := &invariants[i]
		if !slices.Contains(when, row.When) || !s.spec.Mode.Demands(row.From) {
			continue
		}
		if found := row.found(s); found != "" {
			errs = append(errs, &Broken{s.spec.Mode, *row, found})
		}
	}
	return errors.Join(errs...)
}

// JudgeAsked checks the rows of a Spec's mode that are about the Spec alone, for
// those who change what a sandbox was made of.
func JudgeAsked(s *spec.Sandbox) error { return judge(subject{spec: s}, Asked) }

// Invariants is the table of modes.
func Invariants() []Invariant { return slices.Clone(invariants[:]) }

// invariants are what modes demand, the least demanding mode first.
var invariants = [...]Invariant{
	{ID: "named-weakenings", From: spec.ModeAgent, When: Planned, found: foundWeakened,
		What: "nothing is weaker than described, but what --allow-degraded names and two limits of kernels: supplementary groups of ordinary users, and rights that a newer Landlock has",
		Why:  "what is not enforced must have been accepted by name; the two limits cannot be lifted by any program, other layers keep what they are about, and the Report names them",
		Fix:  "fix what the line names (nucleus doctor says how), or accept it in agent mode with --allow-degraded"},

	{ID: "no-degraded", From: spec.ModeStrictAgent, When: Asked, found: foundDegraded,
		What: "--allow-degraded is not given",
		Why:  "whoever demands this mode cannot be talked out of it by another flag",
		Fix:  "leave out --allow-degraded"},
	{ID: "no-dangerous-policy", From: spec.ModeStrictAgent, When: Planned, found: foundDangerous,
		What: "the policy keeps no dangerous capability and allows no call of the always-refused list",
		Why:  "each of them is a way out of the sandbox or into kernel code that has often been exploited",
		Fix:  "leave the capability or the call out of the policy, and --allow-dangerous-syscall"},
	{ID: "own-user-namespace", From: spec.ModeStrictAgent, When: Asked, found: foundHostUserns,
		What: "the sandbox has a user namespace of its own",
		Why:  "with the host's, root inside is root outside as soon as one other layer fails",
		Fix:  "leave out --userns host"},
	{ID: "bounded-tasks", From: spec.ModeStrictAgent, When: Asked, found: foundUnboundedTasks,
		What: "the number of tasks is bounded",
		Why:  "a fork bomb stops the whole machine, and with it whoever could end the sandbox",
		Fix:  "give a number to --pids, or leave it out for 512"},
	{ID: "explicit-dns", From: spec.ModeStrictAgent, When: Asked, found: foundNetworkWithoutDNS,
		What: "there is no network, or its DNS servers are named",
		Why:  "a resolver that nobody chose is a way out that nobody looks at",
		Fix:  "leave out the network"},
	{ID: "full-landlock", From: spec.ModeStrictAgent, When: Machine, found: foundOldLandlock,
		What: "the kernel has Landlock ABI 6 (Linux 6.12) or newer",
		Why:  "ABI 6 is the first with every right that changes a file (truncate is ABI 3, device ioctl ABI 5) and both scopes: the second wall is whole. Later ones add logs, and the refusal of sockets in shared directories",
		Fix:  "boot Linux 6.12 or newer, with landlock in lsm="},
	{ID: "no-trace", From: spec.ModeStrictAgent, When: Planned, found: foundTrace,
		What: "no calls are recorded but those that explain a refusal: what the policy refuses, and files if --explain asks",
		Why:  "whoever records what a program does in order to allow it later must not do so where it counts",
		Fix:  "learn in agent mode, then run under what was learnt"},
	{ID: "cgroup-limits", From: spec.ModeStrictAgent, When: Planned, found: foundNoCgroup,
		What: "every limit that is asked for, and the one on tasks in any case, is kept by a control group",
		Why:  "a limit per process can be multiplied by processes, and one that nobody writes down is none",
		Fix:  "make control groups usable; nucleus doctor says how"},

	{ID: "immutable-root", From: spec.ModeProduction, When: Asked, found: foundHostRoot,
		What: "the root is a directory made for it (--rootfs), read-only",
		Why:  "the host's programs change with the host, and nobody has looked at them for this sandbox",
		Fix:  "give --rootfs DIR"},
	{ID: "attested-root", From: spec.ModeProduction, When: Planned, found: foundUnattestedRoot,
		What: "the root is compared with its manifest before anything starts",
		Why:  "what nobody has compared may have been changed since somebody looked at it",
		Fix:  "write the manifest with nucleus rootfs attest DIR, and give --verify-rootfs-attestation, or --rootfs-sha256 with the digest that it printed"},
	{ID: "pinned-policies", From: spec.ModeProduction, When: Asked, found: foundUnpinned,
		What: "every policy file was read with the sha256 that was demanded of it",
		Why:  "who can change a file that nobody compares decides what the sandbox may do",
		Fix:  "give the digest beside the file, by the flag of the same name that ends in -sha256"},
	{ID: "memory-limit", From: spec.ModeProduction, When: Asked, found: foundNoMemory,
		What: "memory is bounded by --memory",
		Why:  "what is not bounded takes the machine down with it",
		Fix:  "give --memory SIZE"},
	{ID: "cpu-limit", From: spec.ModeProduction, When: Asked, found: foundNoCPU,
		What: "processor time is bounded by --cpus",
		Why:  "the same, of processors",
		Fix:  "give --cpus N"},
	{ID: "no-host-network", From: spec.ModeProduction, When: Asked, found: foundHostNetwork,
		What: "the network is not the host's",
		Why:  "the host's network reaches its own services, and names abstract sockets of everyone",
		Fix:  "choose another network, or none"},
	{ID: "no-writable-code", From: spec.ModeProduction, When: Asked, found: foundWritableCode,
		What: "no workspace, volume or tmpfs is both writable and executable, nor is a directory writable at one place and executable at another, or part of the root",
		Why:  "whoever gets in could bring programs of their own, and leave them there",
		Fix:  "leave out exec there, or rw"},
	{ID: "write-xor-execute", From: spec.ModeProduction, When: Planned, found: foundWriteAndExecute,
		What: "no file can be both written and executed by the Landlock rules, neither those of the mounts nor a policy's, with what parent directories allow",
		Why:  "the same as no-writable-code, as the second wall has it",
		Fix:  "mount nothing writable below something executable, nor the other way round"},
	{ID: "mount-audit", From: spec.ModeProduction, When: Kernel, found: foundNoAudit,
		What: "every mount and submount is read back from the kernel and is as planned: place, kind, read-only, nosuid, nodev, noexec; none is missing, none is there besides",
		Why:  "what was asked for is not what is there when a kernel, a link or a race had another opinion",
		Fix:  "see what the line names: a mount that somebody made below a directory that is shown, or a link in a volume's place"},
	{ID: "hidden-processes", From: spec.ModeProduction, When: Planned, found: foundShownProcesses,
		What: "/proc shows the program no process of another user of the sandbox (hidepid)",
		Why:  "command lines and environments hold secrets",
		Fix:  "this is a bug in Nucleus: report it"},
}
