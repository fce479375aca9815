package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

func TestSelectionForNewer(t *testing.T) {
	tests := []test{{Pkg: "."}, {Pkg: "policy/landlock"}, {Pkg: "plain"}, {Pkg: "named"}}
	named := func(t test) (bool, error) { return t.Pkg == "named", nil }
	for _, tc := range []struct{ name, run, want string }{
		{"its own", "", ". " + newKernelTests["."] + "\npolicy/landlock .\nnamed NewKernel"},
		{"asked for", "TestX", ". \npolicy/landlock \nplain \nnamed "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			selected, err := forNewKernel(tests, tc.run, named)
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, s := range selected {
				lines = append(lines, s.Pkg+" "+s.Run)
			}
			if got := strings.Join(lines, "\n"); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
	broken := errors.New("broken")
	_, err := forNewKernel(tests, "", func(test) (bool, error) { return false, broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want what the listing said", err)
	}
}

// TestSelectedPackagesExist: a package that moves takes its row with it.
func TestSelectedPackagesExist(t *testing.T) {
	for pkg := range newKernelTests {
		found, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
		if err != nil || len(found) == 0 {
			t.Errorf("%s: got %d files with tests, %v", pkg, len(found), err)
		}
	}
}

func TestSelectionByName(t *testing.T) {
	st := fakeStage(t, time.Minute, map[string]string{
		"with":    `[ "$1" = -test.list=NewKernel ] && echo TestAuditNewKernel`,
		"without": "exit 0",
		"broken":  "exit 2",
	})
	for pkg, want := range map[string]bool{"with": true, "without": false, "broken": false} {
		got, err := st.hasNewKernelTest(t.Context(), test{Pkg: pkg, Binary: pkg + ".test"})
		if got != want || (err != nil) != (pkg == "broken") {
			t.Errorf("%s: got %v, %v, want %v", pkg, got, err, want)
		}
	}
}

func TestExecuteRunsWhatTheEnvironmentHas(t *testing.T) {
	st := fakeStage(t, time.Minute, map[string]string{"pkg": `for a; do case $a in -test.run=*) echo "${a#*=}";; esac; done`})
	m, err := st.manifest()
	if err != nil {
		t.Fatal(err)
	}
	m.Run = "TestAsked"
	m.New = []test{{Pkg: "pkg", Binary: "pkg.test", Run: "TestNew"}}
	writeManifest(t, st, m)
	for env, want := range map[string]string{"root": "TestAsked\n", guestNew: "TestNew\n"} {
		if res := execOne(t, st, env); res.Output != want {
			t.Errorf("%s: got run %q, want %q", env, res.Output, want)
		}
	}
}

func TestGuestEnvironment(t *testing.T) {
	t.Setenv("NUCLEUS_TEST_REQUIRE", "userns")
	g := guest{name: "g", require: []sandboxtest.Feature{sandboxtest.Landlock, sandboxtest.Audit}}
	want := "NUCLEUS_TEST_SLOW=20\nNUCLEUS_TEST_REQUIRE='userns,landlock,audit'\nNUCLEUS_TEST_GUEST=g\n"
	if got := g.environment(false); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCompareVersions(t *testing.T) {
	for _, tc := range []struct{ older, newer string }{
		{"6.9.1+deb13-cloud-amd64", "6.12.117+deb13-cloud-amd64"},
		{"6.12.9+deb13-cloud-amd64", "6.12.10+deb13-cloud-amd64"},
		{"6.12.117+deb13-cloud-amd64", "7.3.4+deb13-cloud-amd64"},
		{"6.12.5+deb13-amd64", "6.12.5+deb14-amd64"},
	} {
		if compareVersions(tc.older, tc.newer) >= 0 || compareVersions(tc.newer, tc.older) <= 0 {
			t.Errorf("%s and %s: got %d and %d, want -1 and 1", tc.older, tc.newer,
				compareVersions(tc.older, tc.newer), compareVersions(tc.newer, tc.older))
		}
	}
}

func TestCopyKernels(t *testing.T) {
	const old, recent, newest = "6.9.3+deb13-cloud-amd64", "6.12.1+deb13-cloud-amd64", "7.3.4+deb13-cloud-amd64"
	for _, tc := range []struct {
		name     string
		versions []string
		missing  string // what the hook wrote
		release  string // which becomes the release's kernel
		newer    string
		lacks    string
		good     bool
	}{
		{"both", []string{old, recent}, "", old, recent, "", true},
		{"not added", []string{old}, "b: not found\n", old, "", "b: not found (remove ", true},
		{"half added", []string{old, recent}, "b: disk full\n", old, "", "b: disk full (remove ", true},
		{"the same", []string{old}, "", old, "", "trixie-backports: its kernel is the release's (remove ", true},
		{"three", []string{old, recent, newest}, "", "", "", "", false},
		{"none", nil, "", "", "", "", false},
		{"none, not added", nil, "b: not found\n", "", "", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			boot, img := t.TempDir(), image{t.TempDir()}
			for _, v := range tc.versions {
				write(t, filepath.Join(boot, "vmlinuz-"+v), v)
				write(t, filepath.Join(boot, "initrd.img-"+v), v)
			}
			if tc.missing != "" {
				write(t, filepath.Join(boot, "no-new-kernel"), tc.missing)
			}
			if err := copyKernels(boot, img); (err == nil) != tc.good {
				t.Fatalf("got %v, want good %v", err, tc.good)
			}
			for file, want := range map[string]string{
				img.kernel(releaseKernel): tc.release, img.initrd(releaseKernel): tc.release,
				img.kernel(newKernel): tc.newer, img.initrd(newKernel): tc.newer,
			} {
				data, err := os.ReadFile(file)
				if string(data) != want || (err == nil) != (want != "") {
					t.Errorf("%s: got %q, %v, want %q", filepath.Base(file), data, err, want)
				}
			}
			why, err := img.lacks(newKernel)
			if err != nil || !strings.HasPrefix(why, tc.lacks) || (why == "") != (tc.lacks == "") {
				t.Errorf("got the reason %q, %v, want %q", why, err, tc.lacks)
			}
		})
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
