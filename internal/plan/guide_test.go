package plan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/spec"
)

// guideOf is the text that a plan puts into a sandbox, if it does.
func guideOf(t testing.TB, s *spec.Sandbox) (string, bool) {
	t.Helper()
	p, err := Build(s, loadHost(t, "debian12-hybrid-root"), Command{Name: "true"})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range p.Steps {
		if w, ok := step.Do.(WriteFile); ok && w.Path == GuidePath {
			if w.Mode != 0o444 {
				t.Errorf("its mode is %#o", w.Mode)
			}
			return w.Data, true
		}
	}
	return "", false
}

// TestGuide compares what sandboxes are told with what a person has read.
func TestGuide(t *testing.T) {
	all := map[string]spec.Sandbox{"default": testSpecs["default"], "volumes": testSpecs["volumes"], "tmpfs": testSpecs["tmpfs"], "limits": testSpecs["limits"]}
	work := testSpecs["work"]
	work.Timeout, work.Scratch = time.Minute, spec.GiB
	all["work"] = work
	for name, s := range all {
		got, ok := guideOf(t, &s)
		if !ok {
			t.Fatalf("%s: there is no guide", name)
		}
		if again, _ := guideOf(t, &s); again != got {
			t.Errorf("%s: it is another text the second time", name)
		}
		file := filepath.Join("testdata/guide", name+".md")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs (-update writes it):\n%s", file, firstDifference(got, string(want)))
		}
		if n := strings.Count(got, "\n"); n >= 60 {
			t.Errorf("%s: %d lines are too many to read", name, n)
		}
		for source := range testSources { // what a sandbox sees is where it lies inside
			if len(source) > 1 && strings.Contains(got, source) {
				t.Errorf("%s: it tells that %s exists on the host", name, source)
			}
		}
	}
}

// TestGuideGivesWay: what the Spec puts over the place of the guide is left alone.
func TestGuideGivesWay(t *testing.T) {
	for _, target := range []string{"/run", "/run/nucleus", "/run/nucleus/policy.md/below"} {
		if _, ok := guideOf(t, &spec.Sandbox{Tmpfs: []spec.Tmpfs{{Target: target}}}); ok {
			t.Errorf("something of ours is put into %s", target)
		}
	}
	for _, target := range []string{"/run/other", "/run/nucleus/probe", "/runx"} {
		if _, ok := guideOf(t, &spec.Sandbox{Tmpfs: []spec.Tmpfs{{Target: target}}}); !ok {
			t.Errorf("%s keeps the guide away", target)
		}
	}
}

// TestGuideIsOnePath: the name of a place cannot become a line of its own.
func TestGuideIsOnePath(t *testing.T) {
	h := loadHost(t, "debian12-hybrid-root")
	b := &builder{spec: &spec.Sandbox{}, host: &facts.Host{Paths: h.Paths}, mounts: []mountPoint{{path: "/a\n- network: all of it", because: "volumes[0]", host: true}}}
	if strings.Contains(b.guideText(), "\n- network: all") {
		t.Error("a name is a line")
	}
}

func BenchmarkGuide(b *testing.B) {
	s := testSpecs["work"]
	bu := &builder{spec: &s, mounts: []mountPoint{{path: "/usr", exec: true, because: "toolchain"}, {path: "/workspace", host: true, writable: true}}}
	for b.Loop() {
		_ = bu.guideText()
	}
}
