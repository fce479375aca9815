package sandboxtest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestProbesAnswer(t *testing.T) {
	for _, f := range Features() {
		err := Probe(f)
		if err != nil && strings.TrimSpace(err.Error()) == "" {
			t.Errorf("%s: missing without a reason", f)
		}
		t.Logf("%-10s %v", f, err)
	}
}

func TestRootAndUserExclude(t *testing.T) {
	root, user := Probe(Root), Probe(User)
	if (user == nil) != (os.Geteuid() != 0) {
		t.Errorf("uid %d: got user probe %v", os.Geteuid(), user)
	}
	if root == nil && user == nil {
		t.Error("both root and user are there")
	}
}

// recorder stands in for a test that Need ends.
type recorder struct {
	testing.TB
	skipped, failed string
}

var errEnded = errors.New("ended")

func (r *recorder) Helper() {}
func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	panic(errEnded)
}
func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	panic(errEnded)
}

func need(features ...Feature) (r *recorder) {
	r = new(recorder)
	defer func() {
		if e := recover(); e != nil && e != errEnded {
			panic(e)
		}
	}()
	Need(r, features...)
	return r
}

func TestNeed(t *testing.T) {
	const absent = programPrefix + "no-such-program"
	for _, tc := range []struct {
		name, require    string
		feature          Feature
		skipped, failure string
	}{
		{"present", "", Long, "", ""},
		{"absent", "", absent, "needs program-no-such-program: not in PATH", ""},
		{"required", absent, absent, "", "needs program-no-such-program: not in PATH"},
		{"all", "all", absent, "", "needs program-no-such-program: not in PATH"},
		{"other required", "userns, long", absent, "needs program-no-such-program: not in PATH", ""},
		{"misspelt", "usrns", Long, "", `no feature has the name "usrns"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if testing.Short() && tc.feature == Long {
				tc.feature = Program("sh")
			}
			t.Setenv(requireEnv, tc.require)
			r := need(tc.feature)
			if r.skipped != tc.skipped {
				t.Errorf("skip: got %q, want %q", r.skipped, tc.skipped)
			}
			if !strings.Contains(r.failed, tc.failure) || (tc.failure == "") != (r.failed == "") {
				t.Errorf("failure: got %q, want one with %q", r.failed, tc.failure)
			}
		})
	}
}

func TestAllLeavesOutWhatNoRunChooses(t *testing.T) {
	required, err := parseRequired("all")
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[Feature]bool{Root: false, User: false, Audit: false, Userns: true, Landlock: true} {
		if got := required(f); got != want {
			t.Errorf("%s: got required %v, want %v", f, got, want)
		}
	}
}

func TestSlow(t *testing.T) {
	for value, want := range map[string]int{"": 1, "0": 1, "x": 1, "-3": 1, "20": 20} {
		t.Setenv("NUCLEUS_TEST_SLOW", value)
		if got := int(Slow()); got != want {
			t.Errorf("NUCLEUS_TEST_SLOW=%q: got %d, want %d", value, got, want)
		}
	}
}

func TestParseHierarchies(t *testing.T) {
	const mounts = `31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 /docker/x /sys/fs/cgroup/cpu,cpuacct rw shared:2 - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
	got := parseHierarchies("8:pids:/a\n2:cpu,cpuacct:/docker/x/y\n3:freezer:/\n0::/../up\n", mounts)
	want := []string{
		"false [pids] /sys/fs/cgroup/pids/a",
		"false [cpu cpuacct] /sys/fs/cgroup/cpu,cpuacct/y",
		"true [] /sys/fs/cgroup/unified/up",
	}
	var lines []string
	for _, h := range got {
		lines = append(lines, fmt.Sprintf("%v %v %s", h.v2, h.controllers, h.dir))
	}
	// A path that starts with ".." is outside our cgroup namespace.
	want[2] = "true [] /sys/fs/cgroup/unified"
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}
