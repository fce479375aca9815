package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/record"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// TestMain is also the soak program: it starts itself in several roles.
func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) != "" || os.Getenv(soakEnv) != "" {
		os.Exit(program(os.Args))
	}
	sandboxtest.Main(m)
}

// soakEnv makes the test binary the soak program.
const soakEnv = "NUCLEUS_SOAK"

// TestSoak is a short soak, with kills. The long one is `make soak`.
func TestSoak(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Program("unshare"))
	bin := os.Getenv("NUCLEUS_BIN")
	if bin == "" {
		sandboxtest.Need(t, sandboxtest.Toolchain)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		bin = filepath.Join(filepath.Dir(self), "nucleus") // in a directory that the go command removes
		build := exec.Command("go", "build", "-o", bin, "github.com/nucleus-container/nucleus/cmd/nucleus")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	share := int(sandboxtest.Slow()) // a slow machine does less
	phases := [][]string{{"-many", strconv.Itoa(30 / share)}, {"-many", "0", "-kill"}}
	if share > 1 {
		// What was killed before it began stays for the minute in which it may
		// still be beginning: a slow machine does not get past that in a test.
		phases = phases[:1]
	}
	for _, more := range phases {
		c := exec.Command(self, append([]string{"-hurry", "-cycles", strconv.Itoa(max(60/share, 10)), "-nucleus", bin}, more...)...)
		c.Env = append(os.Environ(), soakEnv+"=1", "TMPDIR="+t.TempDir())
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "nothing was wrong") {
			t.Errorf("soak %v: %v\n%s", more, err, out)
		}
	}
}

// TestWrongAnswersAreFound makes sure that the comparison can fail: a soak that
// cannot find anything finds nothing.
func TestWrongAnswersAreFound(t *testing.T) {
	const id = "0123456789abcdef"
	lives := seen{Record: record.Record{State: record.StateRunning, Pid: 7, StartTicks: 1}, alive: true}
	gone := seen{Record: lives.Record}
	settled := seen{Record: record.Record{State: record.StateEnded, Pid: 7, StartTicks: 1}}
	other := seen{Record: record.Record{State: record.StateRunning, Pid: 8, StartTicks: 2, Run: 1}, alive: true}
	running := []listed{{ID: id, State: "running", Pid: 7}}
	exited := []listed{{ID: id, State: "exited"}}
	for name, tc := range map[string]struct {
		before seen
		answer []listed
		after  seen
		wrong  bool
	}{
		"runs":                        {lives, running, lives, false},
		"ended":                       {settled, exited, settled, false},
		"ends meanwhile":              {lives, running, gone, false},
		"is noticed meanwhile":        {gone, exited, settled, false},
		"is started again":            {gone, exited, other, false},
		"is said to run":              {gone, running, gone, true},
		"is said to run, and settled": {settled, running, settled, true},
		"is said to have ended":       {lives, exited, lives, true},
		"is said to be another":       {lives, []listed{{ID: id, State: "running", Pid: 8}}, lives, true},
		"is left out":                 {lives, nil, lives, true},
		"is broken":                   {lives, []listed{{ID: id, State: "broken"}}, lives, true},
		"was settled alive":           {seen{Record: settled.Record, alive: true}, exited, other, true},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			s := &soak{out: &out}
			s.compare(map[string]seen{id: tc.before}, tc.answer, map[string]seen{id: tc.after})
			if (s.wrong > 0) != tc.wrong {
				t.Errorf("got %d wrong, want %v: %s", s.wrong, tc.wrong, out.String())
			}
		})
	}
}

// TestLeaksAreFound leaves something of each kind that can be left.
func TestLeaksAreFound(t *testing.T) {
	dir := t.TempDir()
	s := &soak{dir: dir, out: os.Stderr}
	s.tool = &tool{state: dir + "/state", logs: dir + "/log"}
	before, err := s.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"state/sandboxes/.new-0123456789abcdef", "state/names", "log/0123456789abcdef"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	left := strings.Join(s.since(before), "\n")
	if err := sleeper.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = sleeper.Wait() // it was killed
	for _, want := range []string{"process " + strconv.Itoa(sleeper.Process.Pid), "file " + dir + "/state/sandboxes/.new-", "file " + dir + "/log/0123"} {
		if !strings.Contains(left, want) {
			t.Errorf("got %s, want %s among it", left, want)
		}
	}
	if strings.Contains(left, "file "+dir+"/state/names") {
		t.Errorf("got %s, want what is always there left out", left)
	}
}
