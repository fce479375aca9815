package plan

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// Plan is the ordered list of steps that makes a sandbox.
type Plan struct {
	Steps    []Step
	Weakened []Weakening
	Mode     spec.Mode // whose invariants it keeps
	Kept     Kept
	// Places are where host files or memory appear, in the order in which they
	// are mounted. They explain the steps and are none.
	Places []Place
}

// Place is a directory or file of the sandbox that is not the root's own.
type Place struct {
	Path     string
	File     bool // not a directory
	Host     bool // it shows files of the host
	Writable bool
	Exec     bool
	Because  string // the field of the Spec; "root" is scratch space
}

// Kept is what a description's policy says, apart from the steps that carry it
// out: Check holds the one against the other. The zero value keeps nothing.
type Kept struct {
	Caps   caps.Sets `json:"caps"`
	Narrow bool      `json:"narrow,omitempty"` // Landlock rules on top of those that follow from the mounts
}

// Weakening is something that this machine cannot enforce, and why.
type Weakening struct {
	Feature string `json:"feature"`
	Why     string `json:"why"`
	// By is what lets it pass: a feature that the Spec's Degrade names, or
	// ByKernel.
	By string `json:"by,omitempty"`
}

// ByKernel lets a weakening pass that no program can do anything about on this
// kernel, as this user. Which these are is a row of the table of modes.
const ByKernel = "kernel"

// ByPolicy lets a weakening pass that the Spec's policy asks for by name: a
// dangerous capability, a call of the always-refused list.
const ByPolicy = "policy"

// Command is the program to run.
type Command struct {
	Name  string   // looked up in the sandbox's PATH unless it has a slash
	Arg0  string   // what the program is told its name is; empty: Name
	Args  []string // without that
	Extra int      // descriptors passed on beyond 0, 1 and 2

	// Detach lets the sandbox outlive this program. Track are the controllers
	// whose groups it gets for that, with or without limits.
	Detach bool
	Track  []string
	// Joinable says that other programs may join the sandbox.
	Joinable bool
	// Hold holds the sandbox when it is complete, so that it can be asked about
	// before the program runs.
	Hold bool
	// Observe has the supervisor see calls, as much as the level says; 0: none.
	Observe seccomp.Level
}

// Unsupported is the error for a Spec that this machine cannot carry out.
type Unsupported struct {
	Field string // of the Spec
	Why   string
	Fix   string // what a person can do; empty rather than vague
}

func (u *Unsupported) Error() string { return u.Why }

// scratchDir is where the new root is mounted before it becomes the root. It
// only has to exist: nothing below it is looked at afterwards.
var scratchDirs = []string{"/tmp", "/run", "/mnt", "/proc"}

// builder collects the steps of one plan.
type builder struct {
	spec  *spec.Sandbox
	host  *facts.Host
	cmd   Command
	steps []Step
	weak  []Weakening
	errs  []error

	program seccomp.Program // the workload's filter

	ranged bool              // ids are a range that root reserved
	owned  bool              // a user namespace of its own
	dirs   map[string]bool   // directories that exist in the new root so far
	files  map[string]bool   // and files that something is mounted on
	mounts []mountPoint      // everything that will be mounted, in order
	links  map[string]string // symlinks made in the new root
}

// mountPoint is a place where host files or memory appear, for Landlock and ordering.
type mountPoint struct {
	path     string
	file     bool // not a directory
	host     bool // shows files of the host
	writable bool
	exec     bool
	within   bool // another one's Landlock rule is about it as well
	because  string
}

// Build makes the plan of a sandbox on a machine. The Spec must be valid. The
// error, if any, joins an *Unsupported for every part that cannot be done here,
// or a *Broken for every row of the Spec's mode that does not hold.
func Build(s *spec.Sandbox, h *facts.Host, c Command) (*Plan, error) {
	if err := judge(subject{spec: s, host: h}, Asked, Machine); err != nil {
		return nil, err
	}
	b := &builder{spec: s, host: h, cmd: c, dirs: map[string]bool{"/": true}, files: map[string]bool{}, links: map[string]string{}, steps: make([]Step, 0, 192)}
	b.owned = s.Userns != spec.UsernsHost
	b.ranged = b.owned && h.Privileged()
	if !b.owned && !h.Privileged() {
		b.fail("userns", "only root can keep the host's user namespace", "leave out --userns host")
	}
	b.demands()
	b.policy()
	limits := b.limits()
	b.prepare(limits)
	b.clone(limits)
	b.detach()
	b.identity(limits)
	b.root()
	b.furnish()
	b.confine(limits)
	if len(b.errs) > 0 {
		return nil, errors.Join(b.errs...)
	}
	p := &Plan{Steps: b.steps, Weakened: b.weak, Mode: s.Mode, Places: b.places(), Kept: Kept{Caps: s.Policy.Kept(), Narrow: s.Policy != nil && s.Policy.Landlock != nil}}
	if err := p.Check(); err != nil {
		return nil, err
	}
	if err := judge(subject{s, h, p}, Planned, Kernel); err != nil {
		return nil, err
	}
	return p, nil
}

func (b *builder) add(w Where, because string, a Action) {
	b.steps = append(b.steps, Step{w, because, a})
}

func (b *builder) child(because string, actions ...Action) {
	for _, a := range actions {
		b.add(Child, because, a)
	}
}

func (b *builder) fail(field, why, fix string) {
	b.errs = append(b.errs, &Unsupported{Field: field, Why: why, Fix: fix})
}

// weaken notes what is not enforced, and by what feature of Degrade that may be.
func (b *builder) weaken(feature, why, by string) {
	b.weak = append(b.weak, Weakening{feature, why, by})
}

func (b *builder) mayDegrade(feature string) bool { return slices.Contains(b.spec.Degrade, feature) }

// limitPlan is what control groups will do for a sandbox.
type limitPlan struct {
	controllers []string
	writes      []CgroupWrite
	born        bool     // the child is born in the group
	late        []string // controllers whose group is made around the child
	nproc       uint64   // RLIMIT_NPROC, or 0
}

// limits decides which control groups are used. The default limit on tasks makes
// none: RLIMIT_NPROC does it. Since Linux 5.14 the kernel counts that per user
// and user namespace (user_namespaces(7)), so in a namespace of its own it
// bounds the sandbox and nothing else, and the workload cannot raise it.
func (b *builder) limits() limitPlan {
	var l limitPlan
	want := b.spec.Limits
	ask := want
	// RLIMIT_NPROC does not bind the host's root, and a stricter mode wants a
	// limit that no process can be missed by.
	if ask.Pids == 0 && (!b.owned || b.spec.Mode.Demands(spec.ModeStrictAgent)) {
		ask.Pids = spec.DefaultPids
	}
	if ask.NeedsCgroup() {
		controllers, writes, missing := LimitWrites(b.host.Cgroup, ask)
		for _, m := range missing {
			if !b.mayDegrade(spec.DegradeCgroup) {
				b.fail(m.Field, m.Why, m.Fix)
				continue
			}
			b.weaken(m.Field, m.Why, spec.DegradeCgroup)
		}
		l.controllers, l.writes = controllers, writes
	}
	for _, c := range b.cmd.Track {
		if !slices.Contains(l.controllers, c) {
			l.controllers = append(l.controllers, c)
		}
	}
	if pids := want.EffectivePids(); pids != 0 && b.owned && !slices.ContainsFunc(l.writes, func(w CgroupWrite) bool { return w.Controller == "pids" }) {
		l.nproc = pids + ownTasks
	}
	for _, c := range l.controllers {
		if b.host.Cgroup.Scoped(c) {
			l.late = append(l.late, c)
		} else {
			l.born = true
		}
	}
	return l
}

// ownTasks is the number of our own tasks that a limit on tasks counts: process 1.
const ownTasks = 1

// prepare plans what happens before the clone.
func (b *builder) prepare(l limitPlan) {
	if r := b.spec.Rootfs; r != nil && b.host.Rootfs == nil {
		b.fail("rootfs", "nothing is known of "+r.Source, "")
		return
	}
	if b.ranged {
		b.add(Host, "userns", ReserveIDs{Count: rangeSize, Lasting: b.cmd.Detach})
		b.add(Host, "user", OwnPipes{UID: b.spec.User.UID, GID: b.spec.User.GID})
	}
	if len(l.controllers) > 0 {
		b.add(Host, "limits", CgroupCreate{Controllers: l.controllers})
		for _, w := range l.writes {
			b.add(Host, w.Because, w)
		}
	}
	b.add(Host, "sandbox", MakeInit{Filter: b.initFilter(), Terminal: b.spec.Terminal, Detached: b.cmd.Detach})
	b.rootTree()
	if b.host.Privileged() {
		for _, v := range b.volumes() {
			b.hostTree(v)
		}
	}
}

// rangeSize is the number of ids that a sandbox started by root has.
const rangeSize = 65536

func (b *builder) arch() seccomp.Arch {
	if b.host.Arch == "arm64" {
		return seccomp.ARM64
	}
	return seccomp.AMD64
}

// filter is the workload's, which policy has made.
func (b *builder) filter() seccomp.Program { return b.program }

// clone plans the clone and what the parent does while the child waits.
func (b *builder) clone(l limitPlan) {
	flags := uint64(abi.CloneNewPID | abi.CloneNewNS | abi.CloneNewNet | abi.CloneNewUTS | abi.CloneNewIPC)
	if len(l.late) == 0 {
		flags |= abi.CloneNewCgroup
	}
	if b.owned {
		flags |= abi.CloneNewUser
	}
	if b.spec.TimeNamespace {
		flags |= abi.CloneNewTime
	}
	b.add(Clone, "sandbox", CloneInto{Flags: flags, Cgroup: l.born})
	if len(l.late) > 0 {
		b.add(Gate, "limits", CgroupAdd{Controllers: l.late})
	}
	switch {
	case b.ranged:
		b.add(Gate, "userns", WriteMap{File: "uid_map", Count: rangeSize, Reserved: true})
		b.add(Gate, "userns", WriteMap{File: "gid_map", Count: rangeSize, Reserved: true})
	case b.owned:
		b.add(Gate, "userns", DenySetgroups{})
		b.add(Gate, "user", WriteMap{File: "uid_map", Inside: b.spec.User.UID, Outside: b.host.UID, Count: 1})
		b.add(Gate, "user", WriteMap{File: "gid_map", Inside: b.spec.User.GID, Outside: b.host.GID, Count: 1})
	}
}

// detach plans what needs no identity: leaving the caller's session,
// descriptors and mounts, and taking hold of what the new root will show.
func (b *builder) detach() {
	b.child("sandbox", Umask{}, NewSession{}, Stdio{Extra: b.cmd.Extra}, CloseInherited{}, Private{})
	if b.spec.Toolchain {
		b.toolchainSources()
	}
	b.rootSources()
	for _, d := range devices {
		if b.device(d) {
			b.child("dev", OpenTree{Source: "/dev/" + d, As: FD("dev/" + d)})
		}
	}
	if !b.host.Privileged() {
		for _, v := range b.volumes() {
			b.child(v.because, OpenTree{Source: v.source.Real, Recursive: true, As: v.fd},
				SetAttr{FD: v.fd, Attr: v.attr(), Recursive: true})
		}
	}
}

// identity plans the wait for the gate and becoming the sandbox's user, who
// from here on owns what is made, and holds every capability of the sandbox's
// own namespaces until they are dropped for good.
func (b *builder) identity(l limitPlan) {
	if b.owned || len(l.late) > 0 || b.cmd.Detach {
		b.child("sandbox", Wait{})
	}
	if len(l.late) > 0 {
		b.child("limits", NewCgroupNS{})
	}
	b.keep(b.spec.Policy.Kept(), b.owned)
	b.child("policy", Securebits{})
	b.child("user", SetIDs{UID: b.spec.User.UID, GID: b.spec.User.GID, KeepGroups: b.owned && !b.ranged})
	if b.owned && !b.ranged {
		b.weaken("user.groups", "the kernel does not let an ordinary user drop supplementary groups (user_namespaces(7)); files that they may read stay readable if they are mounted", ByKernel)
	}
	b.child("hostname", Hostname{Name: b.hostname()})
	b.child("network", LoopbackUp{})
	if b.host.Privileged() { // an ordinary user's keyrings have a quota that quick starts exhaust
		b.child("policy", Keyring{})
	}
}

func (b *builder) hostname() string {
	switch {
	case b.spec.Hostname != "":
		return b.spec.Hostname
	case b.spec.Name != "":
		return strings.NewReplacer("_", "-", ".", "-").Replace(b.spec.Name)
	}
	return "sandbox"
}

// root plans an empty root and the end of the host's. The proc file system is
// made first: the kernel refuses one where no other proc is visible.
func (b *builder) root() {
	at := ""
	for _, d := range scratchDirs {
		if b.host.Paths[d].Kind == facts.Dir {
			at = d
			break
		}
	}
	if at == "" {
		b.fail("root", "none of "+strings.Join(scratchDirs, " ")+" is a directory to mount on", "create /tmp")
		return
	}
	size := b.spec.Scratch
	if size == 0 {
		size = 256 * spec.MiB
	}
	b.child("proc", NewMount{Type: "proc", Options: b.procOptions(), Attr: noSuidDev | noExec, As: "proc"})
	b.child("root", MountFS{Type: "tmpfs", Target: at, Flags: abi.MSNoSuid | abi.MSNoDev, Data: fmt.Sprintf("mode=0755,size=%d,nr_inodes=%d", size, 65536)})
	b.child("root", PivotRoot{Path: at})
}

// procOptions hides processes from those who may not trace them, but for the
// members of a group: programs that join. The sandbox of an ordinary user has one
// group, so there everyone sees everyone if programs may join; not in production,
// where such programs see themselves alone.
func (b *builder) procOptions() []string {
	const hide = "hidepid=invisible"
	switch {
	case !b.owned || b.ranged:
		return []string{hide, fmt.Sprintf("gid=%d", SeeGroup)}
	case b.cmd.Joinable && !b.spec.Mode.Demands(spec.ModeProduction):
		return []string{hide, fmt.Sprintf("gid=%d", b.spec.User.GID)}
	}
	return []string{hide}
}

// furnish plans what the new root shows. From here on every path is the
// sandbox's: whatever a volume contains, there is no host to be led to.
func (b *builder) furnish() {
	if b.spec.Toolchain {
		b.toolchain()
	}
	b.rootfs()
	b.etc()
	b.dev()
	b.proc()
	b.scratch()
	b.fill()
	b.guide()
	b.child("root", SetAttr{Path: "/", Attr: noSuidDev | readOnly})
	if b.spec.Terminal {
		b.child("terminal", OpenTerminal{})
	}
}

// asked is the reason for a working directory.
func asked(workdir string) string {
	if workdir == "" {
		return "sandbox"
	}
	return "workdir"
}

// confine plans the end: limits, capabilities, policy, and process 1.
func (b *builder) confine(l limitPlan) {
	lim := b.spec.Limits
	b.rlimits(l, lim)
	b.child("sandbox", Umask{Mask: 0o022})
	b.child(asked(b.spec.Workdir), Chdir{Dir: b.workdir()})
	b.drop(b.spec.Policy.Kept(), b.host.LastCap)
	b.landlock()
	switch {
	case !b.cmd.Detach:
		b.child("sandbox", Lifeline{})
	case b.spec.Timeout > 0:
		b.child("timeout", Deadline{After: min(b.spec.Timeout, timerMax)})
	}
	b.hold()
	b.listen()
	b.child("sandbox", ExecInit{})
	b.add(Init, "policy.seccomp", Seccomp{Name: b.initPolicy(), Program: b.initFilter()})
	env := b.environ()
	b.add(Init, "command", Exec{Paths: b.candidates(env), Args: append([]string{cmp.Or(b.cmd.Arg0, b.cmd.Name)}, b.cmd.Args...), Env: env})
}

func (b *builder) rlimits(l limitPlan, lim spec.Limits) {
	b.child("limits", Rlimit{Resource: abi.RlimitNofile, Name: "RLIMIT_NOFILE", Soft: min(1024, b.host.NoFile), Hard: b.host.NoFile})
	b.child("limits", Rlimit{Resource: abi.RlimitCore, Name: "RLIMIT_CORE"})
	memlock := lim.Memlock
	if memlock == 0 {
		memlock = min(spec.DefaultMemlock, spec.Bytes(b.host.Memlock))
	}
	if uint64(memlock) > b.host.Memlock {
		b.fail("limits.memlock", fmt.Sprintf("%v is more than this process may lock (%v)", memlock, spec.Bytes(b.host.Memlock)), "raise the hard limit with `ulimit -H -l`, as root")
	}
	b.child("limits.memlock", Rlimit{Resource: abi.RlimitMemlock, Name: "RLIMIT_MEMLOCK", Soft: uint64(memlock), Hard: uint64(memlock)})
	if l.nproc != 0 {
		b.child("limits.pids", Rlimit{Resource: abi.RlimitNproc, Name: "RLIMIT_NPROC", Soft: l.nproc, Hard: l.nproc})
	}
}

func (b *builder) workdir() string {
	switch {
	case b.spec.Workdir != "":
		return b.spec.Workdir
	case b.spec.Workspace != nil:
		return "/workspace"
	}
	return "/"
}

// defaultPath is the search path of a sandbox.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environ is the workload's whole environment: a few constants, then the Spec's.
func (b *builder) environ() []string {
	env := []string{"PATH=" + defaultPath, "HOME=" + b.home(), "LANG=C.UTF-8", "TERM=dumb", "USER=" + b.userName()}
	for _, kv := range b.spec.Env {
		key, _, _ := strings.Cut(kv, "=")
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, key+"=") })
		env = append(env, kv)
	}
	return env
}

// candidates are the paths that the command may be, in order.
func (b *builder) candidates(env []string) []string {
	if strings.Contains(b.cmd.Name, "/") {
		return []string{b.cmd.Name}
	}
	search := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	var out []string
	for _, dir := range strings.Split(search, ":") {
		if dir == "" {
			dir = "."
		}
		out = append(out, path.Join(dir, b.cmd.Name))
	}
	return out
}
