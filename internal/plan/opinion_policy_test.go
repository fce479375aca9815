package plan

import (
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// limits checks that what was asked for is there, or reported as missing.
func (o *opinion) limits() {
	told := func(field string) bool {
		return slices.ContainsFunc(o.plan.Weakened, func(w Weakening) bool { return w.Feature == field })
	}
	wrote := map[string]bool{}
	rlimit := map[int]uint64{}
	for _, s := range o.plan.Steps {
		switch a := s.Do.(type) {
		case CgroupWrite:
			wrote[s.Because] = true
			if c := find[CgroupCreate](o.plan); c == nil || !slices.Contains(c.Controllers, a.Controller) {
				o.bad("%s is written without its group", a.File)
			}
		case Rlimit:
			rlimit[a.Resource] = a.Hard
		}
	}
	l := o.spec.Limits
	for field, asked := range map[string]bool{
		"limits.memory": l.Memory != 0, "limits.milli_cpus": l.MilliCPUs != 0, "limits.cpu_weight": l.CPUWeight != 0,
	} {
		if asked && !wrote[field] && !told(field) {
			o.bad("%s was asked for: neither enforced nor reported", field)
		}
	}
	if l.Pids >= 0 && rlimit[abi.RlimitNproc] == 0 && !wrote["limits.pids"] && !told("limits.pids") {
		o.bad("the number of tasks is neither bounded nor reported")
	}
	if c, clone := find[CgroupCreate](o.plan), find[CloneInto](o.plan); c != nil && clone != nil {
		if add := find[CgroupAdd](o.plan); !clone.Cgroup && add == nil {
			o.bad("the child is not in the group")
		}
	}
	for _, r := range []int{abi.RlimitNofile, abi.RlimitCore, abi.RlimitMemlock} {
		if _, ok := rlimit[r]; !ok {
			o.bad("resource %d is the caller's", r)
		}
	}
	if rlimit[abi.RlimitCore] != 0 {
		o.bad("core dumps go to the host")
	}
}

func (o *opinion) confinement() {
	arch, err := seccomp.ParseArch(o.host.Arch)
	if err != nil {
		o.bad("%v", err)
	}
	want, pol := seccomp.DefaultProgram(arch), o.spec.Policy
	if pol != nil && pol.Seccomp != nil {
		if want, err = pol.Seccomp.Compile(arch); err != nil {
			o.bad("%v", err)
		}
	}
	o.capabilities()
	filter, image := find[Seccomp](o.plan), find[MakeInit](o.plan)
	if filter == nil || image == nil || !slices.Equal(filter.Program.Insns, want.Insns) || !slices.Equal(image.Filter.Insns, want.Insns) {
		o.bad("the filter is not the one of %s that was asked for", arch)
	}
	if image != nil && image.Terminal != o.spec.Terminal || o.spec.Terminal != (find[OpenTerminal](o.plan) != nil) {
		o.bad("terminal: asked for %t", o.spec.Terminal)
	}
	ll := find[Landlock](o.plan)
	told := slices.ContainsFunc(o.plan.Weakened, func(w Weakening) bool {
		return w.Feature == "policy.landlock" && strings.Contains(w.Why, "has no Landlock")
	})
	if (ll == nil || ll.Narrow) && !(told && slices.Contains(o.spec.Degrade, spec.DegradeLandlock)) {
		o.bad("no Landlock, and nobody allowed that")
	}
	if drop := find[DropBounding](o.plan); drop == nil || drop.Last != o.host.LastCap {
		o.bad("the bounding set is not emptied up to %d", o.host.LastCap)
	}
	sealed := false
	for i, s := range o.plan.Steps {
		if a, ok := s.Do.(SetAttr); ok && a.Path == "/" && a.Attr&abi.MountAttrReadOnly != 0 {
			sealed = true
		}
		switch s.Do.(type) {
		case Mkdir, Touch, WriteFile, CopyFile, MakeLink:
			if sealed {
				o.at, o.step = i, s
				o.bad("the root is read-only by now")
			}
		}
	}
	if !sealed {
		o.bad("the root stays writable")
	}
}

// capabilities computes, as the kernel would, which ones a program has.
func (o *opinion) capabilities() {
	var bounding, held, inheritable, ambient caps.Set
	bounding, locked := ^caps.Set(0), false
	for _, s := range o.plan.Steps {
		switch a := s.Do.(type) {
		case CloneInto:
			held = ^caps.Set(0)
		case KeepCaps:
			if locked || a.Inheritable&^bounding != 0 || a.Ambient&^(a.Inheritable&a.Held) != 0 {
				o.bad("the kernel refuses it")
			}
			held, inheritable, ambient = a.Held, a.Inheritable, a.Ambient
		case Securebits:
			locked = true
		case ClearAmbient:
			ambient = 0
		case DropBounding:
			for c := range a.Last + 1 {
				if !a.Keep.Has(caps.Cap(c)) {
					bounding = bounding.Without(caps.Cap(c))
				}
			}
		case DropCaps:
			held, inheritable = held&a.Keep, a.Inheritable
			ambient &= held & inheritable
		}
	}
	var want caps.Sets
	if o.spec.Policy != nil && o.spec.Policy.Caps != nil {
		want = *o.spec.Policy.Caps
	}
	kernel := caps.Set(1)<<(o.host.LastCap+1) - 1
	if got := (caps.Sets{Bounding: bounding & kernel, Permitted: ambient, Effective: ambient, Inheritable: inheritable, Ambient: ambient}); got != want {
		o.bad("programs have the capabilities %s, want %s", got, want)
	}
	if narrow := o.spec.Policy != nil && o.spec.Policy.Landlock != nil; narrow != (len(narrowed(o.plan)) == 1) {
		o.bad("rules of the policy about files: asked for %t", narrow)
	}
}

// sequence checks the order of what has one.
func (o *opinion) sequence() {
	p := o.plan
	order := []struct {
		name string
		at   int
	}{
		{"the clone", index[CloneInto](p)}, {"descriptors in place", index[Stdio](p)}, {"others closed", index[CloseInherited](p)},
		{"private mounts", index[Private](p)}, {"securebits", index[Securebits](p)}, {"the user", index[SetIDs](p)},
		{"the new root", index[PivotRoot](p)}, {"the bounding set", index[DropBounding](p)}, {"no capabilities", index[DropCaps](p)},
		{"no_new_privs", index[NoNewPrivs](p)}, {"process 1", index[ExecInit](p)}, {"the filter", index[Seccomp](p)}, {"the program", index[Exec](p)},
	}
	for i, s := range order {
		if s.at < 0 {
			o.bad("%s: missing", s.name)
		} else if i > 0 && order[i-1].at > s.at {
			o.bad("%s comes after %s", order[i-1].name, s.name)
		}
	}
	if order[len(order)-1].at != len(p.Steps)-1 {
		o.bad("the program is not last")
	}
	gates := find[WriteMap](p) != nil || find[CgroupAdd](p) != nil
	if wait := index[Wait](p); gates && (wait < 0 || wait > index[SetIDs](p)) {
		o.bad("the child does not wait for its identity")
	}
	if ll := index[Landlock](p); ll >= 0 && (ll < index[NoNewPrivs](p) || ll > index[ExecInit](p)) {
		o.bad("Landlock is in the wrong place")
	}
	if l := index[Lifeline](p); l < 0 || l > index[ExecInit](p) {
		o.bad("no lifeline")
	}
}
