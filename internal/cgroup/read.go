package cgroup

import "fmt"

// Read reads one control file back: what the kernel holds, not what was written.
func (g *Group) Read(controller, file string) (string, error) {
	p := g.with(controller)
	if p == nil {
		return "", fmt.Errorf("read %s: the group %s has no controller %s", file, g.name, controller)
	}
	return p.read(file)
}
