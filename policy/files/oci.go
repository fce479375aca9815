package files

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Target is the machine and the sandbox that a seccomp profile is read for:
// groups of rules may be for some architectures, kernels or capabilities alone.
type Target struct {
	Arch   seccomp.Arch
	Kernel string   // release, such as 6.12.3
	Caps   caps.Set // the bounding set of the sandbox
}

// ParseSeccomp reads a seccomp profile in the form of the OCI runtime
// specification, with the extensions that moby and containerd write. path is for
// messages.
//
// Arguments are compared as libseccomp does, in all 64 bits. Rules of the same
// call that may disagree are an error unless the conditions tell them apart: the
// format does not say which wins, and engines differ.
func ParseSeccomp(path string, data []byte, to Target) (*seccomp.Policy, error) {
	n, err := parseJSON(path, data)
	if err != nil {
		return nil, err
	}
	p := &ociProfile{form: form{path: path}, to: to, native: true}
	p.read(n)
	if p.err != nil {
		return nil, p.err
	}
	return p.policy()
}

// ociProfile is a profile while it is read.
type ociProfile struct {
	form
	to     Target
	native bool // its architectures include ours
	def    ociAction
	errno  *uint64 // defaultErrnoRet
	groups []ociGroup
}

// ociAction is an action and the errno that goes with it.
type ociAction struct {
	node  node
	name  string
	errno *uint64
}

// ociGroup is one element of syscalls.
type ociGroup struct {
	node    node
	names   []string
	action  ociAction
	args    []seccomp.Cond
	comment string
	skip    bool // for another architecture, kernel or set of capabilities
}

func (p *ociProfile) read(n node) {
	p.object(n, "a profile", map[string]func(node){
		"defaultAction":   func(n node) { p.def.node, p.def.name = n, p.text(n, "defaultAction") },
		"defaultErrnoRet": func(n node) { p.errno = p.maybe(n, "defaultErrnoRet") },
		"defaultErrno":    func(n node) { p.text(n, "defaultErrno") }, // its name, which some write beside it
		"architectures":   func(n node) { p.architectures(p.texts(n, "architectures"), n) },
		"archMap":         p.archMap,
		"flags":           p.flags,
		"listenerPath": func(n node) {
			p.fail(n, "listenerPath hands decisions to another program, which cannot be believed from here")
		},
		"listenerMetadata": func(n node) { p.fail(n, "listenerMetadata needs a listener, and none is supported") },
		"syscalls":         func(n node) { p.list(n, "syscalls", p.group) },
	})
	if p.def.name == "" {
		p.fail(n, "defaultAction is missing")
	}
	p.def.errno = p.errno
	if !p.native {
		p.fail(n, "its architectures do not include %s, so every call would end the program", p.to.Arch)
	}
}

// maybe reads a number that null leaves out.
func (p *ociProfile) maybe(n node, what string) *uint64 {
	if n.value == nil {
		return nil
	}
	v := p.number(n, what, 16)
	return &v
}

// ociArches are the architectures that profiles name. Every one but ours is
// killed on sight, whatever the profile says.
const ociArches = ` SCMP_ARCH_NATIVE SCMP_ARCH_X86 SCMP_ARCH_X86_64 SCMP_ARCH_X32 SCMP_ARCH_ARM SCMP_ARCH_AARCH64 SCMP_ARCH_LOONGARCH64
	SCMP_ARCH_M68K SCMP_ARCH_MIPS SCMP_ARCH_MIPS64 SCMP_ARCH_MIPS64N32 SCMP_ARCH_MIPSEL SCMP_ARCH_MIPSEL64 SCMP_ARCH_MIPSEL64N32
	SCMP_ARCH_PARISC SCMP_ARCH_PARISC64 SCMP_ARCH_PPC SCMP_ARCH_PPC64 SCMP_ARCH_PPC64LE SCMP_ARCH_RISCV64 SCMP_ARCH_S390 SCMP_ARCH_S390X
	SCMP_ARCH_SH SCMP_ARCH_SHEB `

func (p *ociProfile) ours(name string) bool {
	return name == "SCMP_ARCH_NATIVE" || p.to.Arch == seccomp.AMD64 && name == "SCMP_ARCH_X86_64" || p.to.Arch == seccomp.ARM64 && name == "SCMP_ARCH_AARCH64"
}

func (p *ociProfile) architectures(names []string, n node) {
	for _, name := range names {
		if !slices.Contains(strings.Fields(ociArches), name) {
			p.fail(n, "no architecture is called %q", name)
		}
	}
	if len(names) > 0 {
		p.native = slices.ContainsFunc(names, p.ours)
	}
}

func (p *ociProfile) archMap(n node) {
	found := false
	p.list(n, "archMap", func(n node) {
		p.object(n, "an element of archMap", map[string]func(node){
			"architecture": func(n node) {
				name := p.text(n, "architecture")
				p.architectures([]string{name}, n)
				found = found || p.ours(name)
			},
			"subArchitectures": func(n node) { p.architectures(p.texts(n, "subArchitectures"), n) },
		})
	})
	p.native = found || n.value == nil
}

func (p *ociProfile) flags(n node) {
	p.list(n, "flags", func(n node) {
		switch f := p.text(n, "a flag"); f {
		case "SECCOMP_FILTER_FLAG_TSYNC": // one thread installs the filter, before there is another
		case "SECCOMP_FILTER_FLAG_LOG":
			p.fail(n, "%s is not supported: refusals are reported by Nucleus itself", f)
		case "SECCOMP_FILTER_FLAG_SPEC_ALLOW":
			p.fail(n, "%s switches off defences against speculative execution", f)
		case "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV":
			p.fail(n, "%s needs a listener, and none is supported", f)
		default:
			p.fail(n, "no filter flag is called %q", f)
		}
	})
}

func (p *ociProfile) group(n node) {
	g := ociGroup{node: n}
	p.object(n, "a group of syscalls", map[string]func(node){
		"name":     func(n node) { g.names = append(g.names, p.text(n, "name")) },
		"names":    func(n node) { g.names = append(g.names, p.texts(n, "names")...) },
		"action":   func(n node) { g.action.node, g.action.name = n, p.text(n, "action") },
		"errnoRet": func(n node) { g.action.errno = p.maybe(n, "errnoRet") },
		"errno":    func(n node) { p.text(n, "errno") }, // its name, which some write beside it
		"comment":  func(n node) { g.comment = p.text(n, "comment") },
		"args":     func(n node) { p.list(n, "args", func(n node) { g.args = append(g.args, p.arg(n, g.args)) }) },
		"includes": func(n node) { g.skip = !p.includes(n) || g.skip },
		"excludes": func(n node) { g.skip = p.excludes(n) || g.skip },
	})
	switch {
	case len(g.names) == 0:
		p.fail(n, "a group of syscalls names none")
	case g.action.name == "":
		p.fail(n, "a group of syscalls (%s) has no action", g.names[0])
	}
	for _, name := range g.names {
		if !seccomp.Known(name) && !seccomp.KnownElsewhere(name) {
			p.fail(n, "no system call is named %q", name)
		}
	}
	p.groups = append(p.groups, g)
}

var ociOps = [...]struct {
	name string
	op   seccomp.Op
}{
	{"SCMP_CMP_NE", seccomp.Ne}, {"SCMP_CMP_LT", seccomp.Lt}, {"SCMP_CMP_LE", seccomp.Le}, {"SCMP_CMP_EQ", seccomp.Eq},
	{"SCMP_CMP_GE", seccomp.Ge}, {"SCMP_CMP_GT", seccomp.Gt}, {"SCMP_CMP_MASKED_EQ", seccomp.MaskedEq},
}

func (p *ociProfile) arg(n node, before []seccomp.Cond) seccomp.Cond {
	var index, value, two uint64
	op, given := "", false
	p.object(n, "an argument", map[string]func(node){
		"index":    func(n node) { index, given = p.number(n, "index", 8), true },
		"value":    func(n node) { value = p.number(n, "value", 64) },
		"valueTwo": func(n node) { two = p.number(n, "valueTwo", 64) },
		"op":       func(n node) { op = p.text(n, "op") },
	})
	c := seccomp.Cond{Arg: int(index), Value: value, Width: 64}
	for _, o := range ociOps {
		if o.name == op {
			c.Op = o.op
		}
	}
	switch {
	case !given:
		p.fail(n, "an argument has no index")
	case c.Op == 0:
		p.fail(n, "no comparison is called %q", op)
	case c.Op == seccomp.MaskedEq: // value is the mask
		c.Mask, c.Value = value, two
	case two != 0:
		p.fail(n, "valueTwo means nothing to %s", op)
	}
	if slices.ContainsFunc(before, func(b seccomp.Cond) bool { return b.Arg == c.Arg }) {
		p.fail(n, "two conditions about argument %d: engines disagree whether both must hold or either; write two groups", c.Arg)
	}
	return c
}

// filterArches are the words for architectures in includes and excludes. Another
// word (x86_64, a typing error) would leave a rule out, or in, without a word.
const filterArches = `x86 amd64 x32 arm arm64 loong64 loongarch64 mips mips64 mips64n32 mipsel mipsel64 mips3l64n32 mipsel64n32
	parisc parisc64 ppc ppc64 ppc64le riscv64 s390 s390x`

// filter reads includes or excludes.
func (p *ociProfile) filter(n node, what string) (names []string, sets caps.Set, kernel string) {
	p.object(n, what, map[string]func(node){
		"arches": func(n node) {
			names = p.texts(n, "arches")
			for _, name := range names {
				if !slices.Contains(strings.Fields(filterArches), name) {
					p.fail(n, "%s has no architecture %q: profiles call them amd64, arm64, x86, x32, s390x and so on", what, name)
				}
			}
		},
		"caps": func(n node) {
			for _, name := range p.texts(n, "caps") {
				c, err := caps.ParseCap(name)
				if err != nil {
					p.fail(n, "%v", err)
				}
				sets = sets.With(c)
			}
		},
		"minKernel": func(n node) {
			if kernel = p.text(n, "minKernel"); !validRelease(kernel) {
				p.fail(n, "minKernel %q is not a version such as 4.8", kernel)
			}
		},
	})
	return names, sets, kernel
}

// includes reports whether a group is for the target: all of it must fit.
func (p *ociProfile) includes(n node) bool {
	names, sets, kernel := p.filter(n, "includes")
	return (len(names) == 0 || slices.Contains(names, p.to.Arch.String())) && sets.Diff(p.to.Caps) == 0 && (kernel == "" || !older(p.to.Kernel, kernel))
}

// excludes reports whether a group is not for the target: any of it suffices.
func (p *ociProfile) excludes(n node) bool {
	names, sets, kernel := p.filter(n, "excludes")
	return slices.Contains(names, p.to.Arch.String()) || sets&p.to.Caps != 0 || kernel != "" && !older(p.to.Kernel, kernel)
}

func validRelease(v string) bool {
	major, minor := 0, 0
	n, err := fmt.Sscanf(v+"\n", "%d.%d\n", &major, &minor)
	return err == nil && n == 2 && fmt.Sprintf("%d.%d", major, minor) == v
}

// older reports whether a kernel release comes before a version.
func older(release, version string) bool {
	var have, want [2]int
	if n, _ := fmt.Sscanf(release, "%d.%d", &have[0], &have[1]); n != 2 {
		return true
	}
	_, _ = fmt.Sscanf(version, "%d.%d", &want[0], &want[1]) // validRelease has seen it
	return slices.Compare(have[:], want[:]) < 0
}

// actionOf turns an action into one of ours.
func (p *ociProfile) actionOf(a ociAction) seccomp.Action {
	if a.errno != nil && a.name != "SCMP_ACT_ERRNO" {
		p.fail(a.node, "an errno means nothing to %s", a.name)
	}
	switch a.name {
	case "SCMP_ACT_ALLOW":
		return seccomp.Allow
	case "SCMP_ACT_LOG":
		return seccomp.Log
	case "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD":
		return seccomp.KillThread
	case "SCMP_ACT_KILL_PROCESS":
		return seccomp.KillProcess
	case "SCMP_ACT_TRAP":
		return seccomp.Trap
	case "SCMP_ACT_NOTIFY":
		p.fail(a.node, "SCMP_ACT_NOTIFY leaves the decision to another program, which cannot be believed from here")
	case "SCMP_ACT_TRACE":
		p.fail(a.node, "SCMP_ACT_TRACE needs a tracer, and nothing traces a sandbox")
	case "SCMP_ACT_ERRNO":
		no := uint64(1) // EPERM
		if a.errno != nil {
			no = *a.errno
		}
		if name, ok := seccomp.ErrnoName(uint16(no)); ok {
			return seccomp.Errno(name)
		}
		p.fail(a.node, "errno %d has no name; 0 would say that a call has worked which has not been made", no)
	default:
		p.fail(a.node, "no action is called %q", a.name)
	}
	return seccomp.KillProcess
}

// policy makes rules of the groups.
func (p *ociProfile) policy() (*seccomp.Policy, error) {
	out := &seccomp.Policy{Default: p.actionOf(p.def)}
	// What is newer than the table is answered as by an older kernel, for which
	// libraries have a fallback, unless the profile kills.
	if out.Unknown = seccomp.Errno("ENOSYS"); out.Default == seccomp.KillProcess || out.Default == seccomp.KillThread || out.Default == seccomp.Trap {
		out.Unknown = out.Default
	}
	for _, g := range p.groups {
		do := p.actionOf(g.action)
		if g.skip {
			continue
		}
		why := g.comment
		if why == "" {
			why = fmt.Sprintf("%s", place(p.path, g.node.line))
		}
		r := seccomp.Rule{When: g.args, Do: do, Why: why}
		for _, name := range g.names {
			if seccomp.Known(name) && !slices.Contains(r.Calls, name) {
				r.Calls = append(r.Calls, name)
			}
		}
		if len(r.Calls) > 0 {
			p.disagree(out.Rules, r, g.node)
			out.Rules = append(out.Rules, r)
		}
	}
	if p.err != nil {
		return nil, p.err
	}
	if err := out.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.path, err)
	}
	return out, nil
}

// disagree refuses a rule that may hold together with an earlier one and says
// something else.
func (p *ociProfile) disagree(earlier []seccomp.Rule, r seccomp.Rule, n node) {
	for _, e := range earlier {
		if e.Do == r.Do || apart(e.When, r.When) {
			continue
		}
		for _, name := range r.Calls {
			if slices.Contains(e.Calls, name) {
				p.fail(n, "%s: two groups may hold at once and say %s and %s; the format does not say which wins, so write conditions that exclude each other", name, e.Do, r.Do)
			}
		}
	}
}

// apart reports whether two lists of conditions are seen never to hold at once.
func apart(a, b []seccomp.Cond) bool {
	for _, c := range a {
		for _, d := range b {
			if c.Excludes(d) {
				return true
			}
		}
	}
	return false
}
