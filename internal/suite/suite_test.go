package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

func TestParseEventsCountsLeaves(t *testing.T) {
	const events = `
		{"Action":"run","Test":"TestPass"}
		{"Action":"output","Test":"TestPass","Output":"hello\n"}
		{"Action":"pass","Test":"TestPass"}
		{"Action":"pass","Test":"TestTable/a"}
		{"Action":"fail","Test":"TestTable/b"}
		{"Action":"fail","Test":"TestTable"}
		{"Action":"pass","Test":"TestParent/a"}
		{"Action":"fail","Test":"TestParent"}
		{"Action":"output","Test":"TestSkip","Output":"    a_test.go:1: needs userns: no\n"}
		{"Action":"skip","Test":"TestSkip"}
		{"Action":"run","Test":"TestCrashed"}
		{"Action":"fail"}`
	got, err := parseEvents(strings.NewReader(strings.ReplaceAll(strings.TrimSpace(events), "\t", "")))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, o := range got {
		lines = append(lines, o.Action+" "+o.Test)
	}
	want := []string{
		"pass TestPass", "pass TestTable/a", "fail TestTable/b", "pass TestParent/a", "fail TestParent",
		"skip TestSkip", "fail TestCrashed",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}

func TestReadResultsNoticesACutStream(t *testing.T) {
	const whole = `{"Env":"root","Done":true}` + "\n"
	for _, tc := range []struct {
		name, stream string
		good         bool
	}{
		{"whole", whole, true},
		{"empty", "", false},
		{"other environment", `{"Env":"user","Done":true}` + "\n", false},
		{"garbled", "panic: x\n" + whole, false},
		{"cut", `{"Env":"ro`, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := readResults(strings.NewReader(tc.stream), []string{"root"}, new(report), func() {})
			if (err == nil) != tc.good {
				t.Errorf("got %v, want good %v", err, tc.good)
			}
		})
	}
}

func TestReportIsGood(t *testing.T) {
	for _, tc := range []struct {
		name  string
		tests []outcome
		last  string
		good  bool
	}{
		{"nothing ran", nil, "0 passed, 0 failed, 0 skipped", false},
		{"all skipped", []outcome{{Action: "skip"}}, "0 passed, 0 failed, 1 skipped", false},
		{"one passed", []outcome{{Action: "pass"}, {Action: "skip"}}, "1 passed, 0 failed, 1 skipped", true},
		{"one failed", []outcome{{Action: "pass"}, {Action: "fail"}}, "1 passed, 1 failed, 0 skipped", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := report{tests: tc.tests}
			var out bytes.Buffer
			if err := r.print(&out); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix("\n"+out.String(), "\n"+tc.last+"\n") {
				t.Errorf("got %q, want the last line %q", out.String(), tc.last)
			}
			if r.good() != tc.good {
				t.Errorf("got good %v, want %v", r.good(), tc.good)
			}
		})
	}
}

func TestSkipsAreGroupedByReason(t *testing.T) {
	r := report{tests: []outcome{
		{Env: "user", Action: "skip", Output: "    x_test.go:7: needs root: running as uid 7\n--- SKIP"},
		{Env: "user", Action: "skip", Output: "    y_test.go:9: needs root: running as uid 7\n"},
		{Env: "user", Action: "skip", Output: "    y_test.go:9: because\n"},
	}}
	var out bytes.Buffer
	r.printSkips(&out)
	want := "Skipped:\n    2  user: needs root: running as uid 7\n" +
		"    1  user: no reason of the form that sandboxtest.Need gives\n\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestWhatCannotBootIsSkipped(t *testing.T) {
	r := report{tests: []outcome{{Env: "root", Action: "pass"}}}
	r.skip("guest-new", "newkernel", "backports: not found")
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"    1  guest-new: needs newkernel: backports: not found\n", "\n1 passed, 0 failed, 1 skipped\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %q, want %q in it", out.String(), want)
		}
	}
	if !r.good() {
		t.Error("a kernel that cannot be had is a failure")
	}
}

// fakeStage stages shell scripts in the place of test binaries.
func fakeStage(t *testing.T, timeout time.Duration, scripts map[string]string) stage {
	t.Helper()
	st := stage(t.TempDir())
	m := manifest{Timeout: timeout}
	for name, script := range scripts {
		if err := os.MkdirAll(st.path("src", name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(st.path(name+".test"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
		m.Tests = append(m.Tests, test{Pkg: name, Binary: name + ".test"})
	}
	writeManifest(t, st, m)
	return st
}

func writeManifest(t *testing.T, st stage, m manifest) {
	t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(st.path("manifest.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func execOne(t *testing.T, st stage, env string) result {
	t.Helper()
	var out bytes.Buffer
	if err := execute(t.Context(), st, env, &out); err != nil {
		t.Fatal(err)
	}
	in := json.NewDecoder(&out)
	var begun, res, done result
	if err := in.Decode(&begun); err != nil || !begun.Begun {
		t.Errorf("got start %+v, %v, want a line with Begun", begun, err)
	}
	if err := in.Decode(&res); err != nil {
		t.Fatal(err)
	}
	if err := in.Decode(&done); err != nil || !done.Done {
		t.Errorf("got end %+v, %v, want a line with Done", done, err)
	}
	return res
}

func TestExecuteRunsInThePackage(t *testing.T) {
	st := fakeStage(t, time.Minute, map[string]string{"pkg": "pwd; echo $NUCLEUS_BIN; exit 3"})
	res := execOne(t, st, "here")
	if want := st.path("src/pkg") + "\n" + st.path("bin/nucleus") + "\n"; res.Output != want || res.Exit != 3 {
		t.Errorf("got %q, exit %d, want %q, exit 3", res.Output, res.Exit, want)
	}
	if len(res.Leaks) > 0 {
		t.Errorf("got leaks %q, want none", res.Leaks)
	}
}

// TestExecuteFindsLostProcesses has a daemon that left everything by which the
// test inside could know it: its parent, its session and its environment.
func TestExecuteFindsLostProcesses(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Program("setsid"))
	pidfile := filepath.Join(t.TempDir(), "pid")
	st := fakeStage(t, time.Minute, map[string]string{
		"pkg": "env -i setsid sh -c 'echo $$ >" + pidfile + "; exec sleep 1000' & while ! [ -s " + pidfile + " ]; do :; done",
	})
	res := execOne(t, st, "here")
	if len(res.Leaks) != 1 || !strings.Contains(res.Leaks[0], "(sleep)") {
		t.Errorf("got leaks %q, want the sleep", res.Leaks)
	}
	pid, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); err == nil {
		t.Errorf("process %s is still there", pid)
	}
}

func TestCopyLeavesOutWhatIsBuilt(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, name := range []string{"a.go", "bin/x", ".git/config", ".ci/run", "p/testdata/g"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyTree(from, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"a.go": true, "bin/x": false, ".git/config": false, ".ci/run": true, "p/testdata/g": true} {
		if _, err := os.Stat(filepath.Join(to, name)); (err == nil) != want {
			t.Errorf("%s: got %v, want a copy %v", name, err, want)
		}
	}
}
