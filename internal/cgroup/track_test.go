package cgroup_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// TestTrackable asks whoever runs it, root or not: what is listed can be had, and
// what is not listed cannot.
func TestTrackable(t *testing.T) {
	c := probe(t)
	list := cgroup.Trackable(c)
	t.Logf("%s: %v", c, list)
	tracked(t, c) // an error of any of them fails it
	for _, name := range []string{"memory", "cpu", "pids", "io", "blkio", facts.Freezer} {
		if slices.Contains(list, name) {
			continue
		}
		if g, err := cgroup.Create(c, cgroup.Prefix+"test-untrackable", []string{name}); err == nil {
			t.Errorf("%s can be had and is not listed", name)
			if err := g.Remove(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestTrackableAsRoot: root can have all of it wherever there are control groups.
func TestTrackableAsRoot(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		list := cgroup.Trackable(c)
		io := slices.Contains(list, "io") != slices.Contains(list, "blkio")
		for _, name := range []string{"memory", "cpu", "pids", facts.Freezer} {
			if !slices.Contains(list, name) || !io {
				t.Errorf("got %v, want %s and one of io and blkio", list, name)
			}
		}
	})
}

func TestTrackableWithoutGroups(t *testing.T) {
	denied := facts.CgroupHierarchy{Version: 1, Why: "not yours", Controllers: []string{"memory", facts.Freezer}}
	full := facts.CgroupHierarchy{Version: 2, Via: facts.CgroupMkdir, Parent: t.TempDir(), Controllers: []string{"memory", "pids"}, Enabled: []string{"pids"}}
	for name, content := range map[string]string{"cgroup.type": "domain\n", "cgroup.procs": "1\n"} {
		if err := os.WriteFile(filepath.Join(full.Parent, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		c    facts.Cgroup
		want []string
	}{
		{"none", facts.Cgroup{}, nil},
		{"denied", facts.Cgroup{Hierarchies: []facts.CgroupHierarchy{denied}}, nil},
		{"a parent with processes", facts.Cgroup{Hierarchies: []facts.CgroupHierarchy{full}}, []string{"pids", facts.Freezer}},
	} {
		if got := cgroup.Trackable(tt.c); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestPlainGroup makes a group without controllers below one that holds
// processes, as in a container.
func TestPlainGroup(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	c := probe(t)
	h, ok := c.Unified()
	if !ok {
		sandboxtest.Need(t, sandboxtest.CgroupV2)
	}
	h.Via, h.Parent, h.Why, h.Plain = facts.CgroupDenied, "", "it holds processes", h.Mount
	c = facts.Cgroup{Mode: facts.CgroupV2, Hierarchies: []facts.CgroupHierarchy{h}}
	if got := cgroup.Trackable(c); !slices.Equal(got, []string{facts.Freezer}) {
		t.Fatalf("got %v, want the freezer alone", got)
	}
	g, n := tracked(t, c), newCounter(t)
	start(t, c, g, "spin")
	n.moves(t)
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if s, err := g.Stats(); err != nil || s.CPU == 0 {
		t.Errorf("got %+v, %v, want processor time", s, err)
	}
	if all, err := cgroup.Ours(c); err != nil || !slices.ContainsFunc(all, func(p cgroup.Place) bool { return p.Path == g.Paths()[0] }) {
		t.Errorf("got %v, %v, want %s among them", all, err, g.Paths()[0])
	}
}

// TestOursFindsLeftovers finds a group by its name alone and removes it.
func TestOursFindsLeftovers(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g := tracked(t, c)
		cmd := start(t, c, g, "wait")
		if err := os.Mkdir(filepath.Join(g.Paths()[0], cgroup.Prefix+"below"), 0o755); err != nil {
			t.Fatal(err)
		}
		places := g.Places()
		var found []cgroup.Place
		for _, p := range ours(t, c) {
			i := slices.IndexFunc(places, func(q cgroup.Place) bool { return q.Path == p.Path })
			if i < 0 {
				if filepath.Base(p.Path) == cgroup.Prefix+"below" {
					t.Errorf("%s is somebody's own, in a group of ours", p.Path)
				}
				continue // another test's, or another Nucleus's
			}
			found = append(found, p)
			if p.Version != places[i].Version || !reflect.DeepEqual(p.Holder, places[i].Holder) || !subset(places[i].Controllers, p.Controllers) {
				t.Errorf("got %+v, want %+v", p, places[i])
			}
		}
		if len(found) != len(places) {
			t.Fatalf("got %v, want %v", found, places)
		}
		left, err := cgroup.Open(c, found)
		if err != nil {
			t.Fatal(err)
		}
		if err := left.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if err := left.Remove(); err != nil {
			t.Error(err)
		}
		eventually(t, "it is not found any more", func() bool {
			return !slices.ContainsFunc(ours(t, c), func(p cgroup.Place) bool { return p.Path == places[0].Path })
		})
	})
}

func subset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

func ours(t *testing.T, c facts.Cgroup) []cgroup.Place {
	t.Helper()
	all, err := cgroup.Ours(c)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestRemoveTwice: two programs may settle one sandbox, the second finds nothing.
func TestRemoveTwice(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g := tracked(t, c)
		cmd := start(t, c, g, "wait")
		first, err := cgroup.Open(c, g.Places())
		if err != nil {
			t.Fatal(err)
		}
		second, err := cgroup.Open(c, g.Places())
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if err := first.Remove(); err != nil {
			t.Fatal(err)
		}
		some, perr := second.Populated()
		pids, lerr := second.Pids()
		if err := errors.Join(perr, lerr, second.Kill()); err != nil || some || len(pids) > 0 {
			t.Errorf("a group that is gone: got %v, %v, %v, want nobody in it", some, pids, err)
		}
		if err := second.Remove(); err != nil {
			t.Error(err)
		}
	})
}
