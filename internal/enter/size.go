package enter

import "github.com/nucleus-container/nucleus/internal/plan"

// opsFor is the number of operations that a plan needs, at most.
func opsFor(steps []plan.Step) int {
	n := 18 // gaps between descriptors
	for _, s := range steps {
		if s.Where != plan.Child {
			continue
		}
		switch a := s.Do.(type) {
		case plan.DropBounding:
			n += a.Last + 1
		case plan.Landlock:
			n += 3 + 3*len(a.Rules.Rules) + len(a.Rules.Ports)
		case plan.KeepCaps:
			n += 1 + len(a.Ambient.Caps())
		case plan.OpenTerminal:
			n += 9
		case plan.Hold:
			n += 2
		case plan.Listen:
			n += 3
		case plan.Stdio:
			n += 3 + a.Extra
		case plan.NewMount:
			n += 3 + len(a.Options)
		case plan.WriteFile, plan.CopyFile, plan.Show, plan.Unmount, plan.SetIDs, plan.LoopbackUp, plan.ExecInit, plan.Lifeline, plan.Deadline:
			n += 3
		case plan.PivotRoot:
			n += 4
		default:
			n++
		}
	}
	return n
}

// dataFor is the space that a plan's strings and files need in an arena, at most.
func dataFor(steps []plan.Step) int {
	n := 1024
	for _, s := range steps {
		switch a := s.Do.(type) {
		case plan.WriteFile:
			n += len(a.Data) + len(a.Path) + 16
		case plan.CopyFile:
			n += max(a.Size, plan.MaxCopy) + len(a.Path) + 16
		case plan.MakeLink:
			n += len(a.Target) + len(a.Path) + 16
		case plan.Landlock:
			for _, rule := range a.Rules.Rules {
				n += len(rule.Path) + 32
			}
			n += 64 + 32*len(a.Rules.Ports)
		case plan.Listen:
			n += 8*len(a.Program.Insns) + 256
		case plan.Show:
			n += len(a.Source) + len(a.Target) + 48
		case plan.OpenTree:
			n += len(a.Source) + 16
		case plan.MoveMount:
			n += len(a.To) + 16
		case plan.MountFS:
			n += 2*len(a.Type) + len(a.Target) + len(a.Data) + 32
		case plan.Mkdir:
			n += len(a.Path) + 16
		case plan.Touch:
			n += len(a.Path) + 16
		case plan.Chdir:
			n += len(a.Dir) + 16
		case plan.SetAttr:
			n += len(a.Path) + 48
		default:
			n += 64
		}
	}
	return n
}

// argSize is the space that a list of strings takes in an arena, at most.
func argSize(list []string) int {
	n := 16
	for _, s := range list {
		n += len(s) + 1 + 8
	}
	return n
}
