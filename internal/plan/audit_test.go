package plan

import (
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/spec"
)

// asPlanned is what a kernel would say that did everything right.
func asPlanned(p *Plan) (found []facts.Mount) {
	for i, m := range p.Mounts() {
		f := facts.Mount{Target: m.Path, Type: m.Type, Device: "9:" + m.Path, Options: "relatime"}
		if m.Own {
			f.Device = "0:1"
		}
		if m.Type == "" {
			f.Type = "ext4"
		}
		if a := (m.Attr &^ (1 << 20)).String(); a != "" {
			f.Options += "," + a
		}
		if i%2 == 0 {
			f.Options += ",noatime"
		}
		found = append(found, f)
	}
	return found
}

// TestAuditFinds changes what a kernel says, one mount at a time.
func TestAuditFinds(t *testing.T) {
	for _, g := range goldens {
		s := testSpecs[g.spec]
		p, err := Build(&s, loadHost(t, g.host), Command{Name: "sh"})
		if err != nil {
			continue
		}
		want, good := p.Mounts(), asPlanned(p)
		if wrong := AuditMounts(want, good, true); len(wrong) > 0 {
			t.Fatalf("%s on %s: %q", g.spec, g.host, wrong)
		}
		for i := range good {
			for name, change := range map[string]func() []facts.Mount{
				"gone":          func() []facts.Mount { return slices.Delete(slices.Clone(good), i, i+1) },
				"twice":         func() []facts.Mount { return append(slices.Clone(good), good[i]) },
				"elsewhere":     func() []facts.Mount { return with(good, i, func(m *facts.Mount) { m.Target += "x" }) },
				"another place": func() []facts.Mount { return with(good, i, func(m *facts.Mount) { m.Target = "/else" }) },
				"without flags": func() []facts.Mount { return with(good, i, func(m *facts.Mount) { m.Options = "rw" }) },
				"another kind":  func() []facts.Mount { return with(good, i, func(m *facts.Mount) { m.Type, m.Device = "9p", "0:77" }) },
				"our memory":    func() []facts.Mount { return with(good, i, func(m *facts.Mount) { m.Device = "0:1" }) },
			} {
				if harmlessChange(name, want[i]) || name == "twice" && treeOf(want, want[i].Path).Tree { // a tree has what it has
					continue
				}
				if wrong := AuditMounts(want, change(), true); len(wrong) == 0 || strings.ContainsRune(wrong[0], '\n') {
					t.Errorf("%s on %s: %s (%+v) is %s: got %q", g.spec, g.host, good[i].Target, want[i], name, wrong)
				}
			}
		}
	}
}

// harmlessChange names what is no change to a mount: it had no flags to lose, or
// is one of the host's, whose kind nobody knows, or of our memory already.
func harmlessChange(name string, w Mounted) bool {
	switch name {
	case "without flags":
		return w.Attr == 0
	case "another kind":
		return w.Type == "" && !w.Own || w.Path == "/" && w.Type == "9p"
	case "our memory":
		return w.Own
	}
	return false
}

func with(all []facts.Mount, i int, change func(*facts.Mount)) []facts.Mount {
	all = slices.Clone(all)
	change(&all[i])
	return all
}

// TestAuditOfSubmounts: what the host has mounted below a tree is held to what
// the tree is held to.
func TestAuditOfSubmounts(t *testing.T) {
	s := testSpecs["production"]
	p, err := Build(&s, loadHost(t, "debian12-hybrid-root"), Command{Name: "sh"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		mount facts.Mount
		ok    bool
	}{
		{facts.Mount{Target: "/usr/local", Options: "ro,nosuid,nodev,relatime"}, true},
		{facts.Mount{Target: "/usr/local", Options: "rw,nosuid,nodev,relatime"}, false},
		{facts.Mount{Target: "/usr/local", Options: "ro,nodev,relatime"}, false},
		{facts.Mount{Target: "/usr/local", Options: "ro,nosuid,nodev", Device: "0:1"}, false},
		{facts.Mount{Target: "/workspace/sub", Options: "rw,nosuid,nodev,noexec"}, true},
		{facts.Mount{Target: "/workspace/sub", Options: "rw,nosuid,nodev"}, false},
		{facts.Mount{Target: "/usr2", Options: "ro,nosuid,nodev"}, false},
		{facts.Mount{Target: "/tmp/x", Options: "ro,nosuid,nodev,noexec"}, false},
		{facts.Mount{Target: "/proc/sys/fs", Options: "ro,nosuid,nodev,noexec"}, false},
		{facts.Mount{Target: "/.nucleus-rootfs", Options: "ro,nosuid,nodev"}, false},
	} {
		wrong := AuditMounts(p.Mounts(), append(asPlanned(p), tc.mount), true)
		if (len(wrong) == 0) != tc.ok {
			t.Errorf("%+v: got %q", tc.mount, wrong)
		}
	}
}

// TestAuditOfVolumesInVolumes: the outer one's links may lead elsewhere, which
// only production minds.
func TestAuditOfVolumesInVolumes(t *testing.T) {
	s := testSpecs["volumes"]
	p, err := Build(&s, loadHost(t, "debian12-hybrid-root"), Command{Name: "sh"})
	if err != nil {
		t.Fatal(err)
	}
	led := asPlanned(p)
	for i := range led {
		if led[i].Target == "/data/cache" {
			led[i].Target = "/usr/share"
		}
	}
	if wrong := AuditMounts(p.Mounts(), led, false); len(wrong) > 0 {
		t.Errorf("got %q", wrong)
	}
	if wrong := AuditMounts(p.Mounts(), led, true); len(wrong) == 0 {
		t.Error("nothing is wrong in production")
	}
}

// TestHeldForItsMounts: production waits until the kernel has confirmed what the
// plan makes, and Check sees to it that it is that.
func TestHeldForItsMounts(t *testing.T) {
	s := testSpecs["production"]
	p, err := Build(&s, loadHost(t, "debian13-rootless"), Command{Name: "sh"})
	if err != nil {
		t.Fatal(err)
	}
	h := find[Hold](p)
	if h == nil || !slices.Equal(h.Mounts, p.Mounts()) || len(h.Mounts) < 10 {
		t.Fatalf("got %+v", h)
	}
	edit(t, p, func(h Hold) Hold { h.Mounts = slices.Delete(slices.Clone(h.Mounts), 3, 4); return h })
	if p.Check() == nil {
		t.Error("Check accepts an audit of other mounts")
	}
	agent := testSpecs["rootfs"]
	if p, err = Build(&agent, loadHost(t, "debian13-rootless"), Command{Name: "sh"}); err != nil || find[Hold](p) != nil || agent.Mode != spec.ModeAgent {
		t.Errorf("agent mode waits for nobody: got %v", err)
	}
}
