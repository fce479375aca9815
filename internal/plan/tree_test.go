package plan

import (
	"errors"
	"testing"

	"github.com/nucleus-container/nucleus/spec"
)

// TestProcThatShowsLess: what is not in the host's /proc cannot be covered.
func TestProcThatShowsLess(t *testing.T) {
	h := loadHost(t, "debian12-hybrid-root")
	delete(h.Paths, "/proc/sys")
	for _, s := range []spec.Sandbox{{}, {Toolchain: true, Userns: spec.UsernsHost}} {
		_, err := Build(&s, h, Command{Name: "sh"})
		var u *Unsupported
		if !errors.As(err, &u) || u.Field != "proc" {
			t.Errorf("got %v, want a refusal because of proc", err)
		}
	}
}

// TestPlacesThatAreTaken mounts something on or below what a sandbox has of
// itself: links, made-up files, mounts of the toolchain.
func TestPlacesThatAreTaken(t *testing.T) {
	for _, place := range []string{
		"/var/tmp", "/var/tmp/x", "/var/run", "/var/run/x", "/bin", "/lib64", "/etc/localtime", "/etc/ssl", "/etc/ssl/certs", "/usr", "/tmp", "/root", "/home",
	} {
		for name, s := range map[string]spec.Sandbox{
			"volume": {Toolchain: true, Volumes: []spec.Volume{{Source: "/srv/data", Target: place}}},
			"tmpfs":  {Toolchain: true, Tmpfs: []spec.Tmpfs{{Target: place}}},
		} {
			h := loadHost(t, "debian12-hybrid-root")
			p, err := Build(&s, h, Command{Name: "sh"})
			if err != nil {
				t.Errorf("%s on %s: %v", name, place, err)
				continue
			}
			for _, w := range secondOpinion(&s, h, p) {
				t.Errorf("%s on %s: %s", name, place, w)
			}
		}
	}
	for _, place := range []string{"/etc/hosts", "/etc/resolv.conf", "/etc/passwd", "/etc/localtime", "/etc/protocols", "/etc/ld.so.cache", "/srv/x"} {
		s, h := spec.Sandbox{Toolchain: true, Volumes: []spec.Volume{{Source: "/home/ada/app.conf", Target: place}}}, loadHost(t, "debian12-hybrid-root")
		p, err := Build(&s, h, Command{Name: "sh"})
		if err != nil {
			t.Errorf("a file on %s: %v", place, err)
			continue
		}
		for _, w := range secondOpinion(&s, h, p) {
			t.Errorf("a file on %s: %s", place, w)
		}
	}
}

func TestPlacesThatDoNotFit(t *testing.T) {
	file := "/home/ada/app.conf"
	for _, tc := range []struct {
		name  string
		spec  spec.Sandbox
		field string
	}{
		{"a file as workspace", spec.Sandbox{Workspace: &spec.Bind{Source: file}}, "workspace.source"},
		{"a file as context", spec.Sandbox{Context: &spec.Bind{Source: file}}, "context.source"},
		{"a file on a directory", spec.Sandbox{Volumes: []spec.Volume{{Source: file, Target: "/etc"}}}, "volumes[0].target"},
		{"something below a file", spec.Sandbox{Volumes: []spec.Volume{{Source: file, Target: "/a"}}, Tmpfs: []spec.Tmpfs{{Target: "/a/b"}}}, "tmpfs[0]"},
	} {
		_, err := Build(&tc.spec, loadHost(t, "debian12-hybrid-root"), Command{Name: "sh"})
		var u *Unsupported
		if !errors.As(err, &u) || u.Field != tc.field {
			t.Errorf("%s: got %v, want a refusal because of %s", tc.name, err, tc.field)
		}
	}
}
