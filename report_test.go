package nucleus_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// TestErrorText: one line, and with %+v the hint and the plan.
func TestErrorText(t *testing.T) {
	needSandbox(t)
	c := nucleus.Command(&spec.Sandbox{Workdir: "/nowhere"}, "true")
	err := c.Run()
	var e *nucleus.Error
	if !errors.As(err, &e) || e.Stage != nucleus.StageEnter || e.Op != "chdir" || e.Object != "/nowhere" || e.Because != "workdir" {
		t.Fatalf("got %+v", err)
	}
	if want := fmt.Sprintf("enter: chdir /nowhere: no such file or directory (step %d, because workdir)", e.Step); fmt.Sprintf("%v", err) != want || err.Error() != want {
		t.Errorf("%%v: got %q, want %q", err, want)
	}
	if !errors.Is(err, fs.ErrNotExist) || nucleus.NotFound(err) {
		t.Errorf("got %#v: is it about a missing file, and not about the program?", err)
	}
	long := strings.Split(fmt.Sprintf("%+v", err), "\n")
	if long[0] != err.Error() || !strings.HasPrefix(long[1], "  hint: the working directory does not exist inside the sandbox") {
		t.Errorf("%%+v: got %q", long[:2])
	}
	arrows := slices.DeleteFunc(slices.Clone(long), func(l string) bool { return !strings.HasPrefix(l, "=>") })
	if len(arrows) != 1 || strings.Join(strings.Fields(arrows[0]), " ") != fmt.Sprintf("=> %d child chdir /nowhere", e.Step) {
		t.Errorf("arrows: got %q, want one at step %d", arrows, e.Step)
	}
	for _, tc := range []struct {
		name, want string
		cmd        *nucleus.Cmd
	}{
		{"not found", `enter: execve none in PATH: no such file or directory (step N, because command)`, nucleus.Command(&spec.Sandbox{}, "none")},
		{"source", `resolve: find /no/such: lstat /no: no such file or directory`, nucleus.Command(&spec.Sandbox{Context: &spec.Bind{Source: "/no/such"}}, "x")},
		{"invalid", `validate: check hostname: "a b" is not a host name (RFC 1123: at most 63 letters, digits and dashes between dots, 64 in all) (because hostname)`, nucleus.Command(&spec.Sandbox{Hostname: "a b"}, "x")},
		{"nil", `validate: check sandbox: no sandbox is described: invalid`, nucleus.Command(nil, "x")},
	} {
		err := tc.cmd.Run()
		if errors.As(err, &e) && e.Step >= 0 {
			tc.want = strings.Replace(tc.want, "step N", fmt.Sprint("step ", e.Step), 1)
		}
		if err == nil || err.Error() != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, err, tc.want)
		}
		if errors.As(err, &e); strings.Contains(e.Hint, "\n") {
			t.Errorf("%s: hint of several lines: %q", tc.name, e.Hint)
		}
	}
	// Every problem at once.
	err = nucleus.Command(&spec.Sandbox{Name: "-", Hostname: "-", Workdir: "x"}, "x").Run()
	if n := strings.Count(err.Error(), "\n"); n != 2 || !errors.Is(err, nucleus.ErrInvalid) {
		t.Errorf("three problems: got %q", err)
	}
}

// TestErrorsAreOneLine fails each step that can be made to fail from here.
func TestErrorsAreOneLine(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Landlock)
	a := &attempt{TB: t, edit: without(plan.NoNewPrivs{}).edit}
	err := a.want(&spec.Sandbox{}, line{"cwd", "ok:/"})
	if a.refused == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q, want one line about Landlock", err)
	}
}

// TestPlanHasNoEffect makes plans and compares what there is.
func TestPlanHasNoEffect(t *testing.T) {
	needSandbox(t)
	dir := t.TempDir()
	s := withProbe(&spec.Sandbox{Toolchain: true, Workspace: &spec.Bind{Source: dir}, Terminal: true})
	if sandboxtest.Probe(sandboxtest.Cgroup) == nil {
		s.Limits = spec.Limits{Memory: 64 * spec.MiB, Pids: 50}
	}
	plan := func() *nucleus.Plan {
		p, err := nucleus.Command(s, "true").Plan()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := plan()
	before, err := sandboxtest.TakeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	tree := snapshotTree(t, dir)
	for range 5 {
		if p := plan(); p.String() != first.String() {
			t.Errorf("two plans differ: got\n%s\nwant\n%s", p, first)
		}
	}
	after, err := sandboxtest.TakeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before, after) || !slices.Equal(tree, snapshotTree(t, dir)) {
		t.Errorf("something changed: got %v, want %v", after, before)
	}
	steps, kinds := 0, map[string]bool{}
	for i, s := range first.Steps() {
		if i != steps || s.Where == "" || s.Call == "" || s.Object == "" || s.Because == "" {
			t.Errorf("step %d is %d: %+v", steps, i, s)
		}
		steps++
		kinds[s.Where] = true
	}
	if len(kinds) != 5 {
		t.Errorf("places: got %v, want five", kinds)
	}
}

// TestHostIsData: a plan made from saved facts is the plan made here.
func TestHostIsData(t *testing.T) {
	needSandbox(t)
	dir := t.TempDir()
	s := &spec.Sandbox{Toolchain: true, Workspace: &spec.Bind{Source: dir}}
	h, err := nucleus.Probe(s)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var read nucleus.Host
	if err := json.Unmarshal(saved, &read); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&read)
	if err != nil || !bytes.Equal(saved, again) {
		t.Errorf("got %s, %v, want %s", again, err, saved)
	}
	there, err := nucleus.NewPlan(s, &read, "prog", "arg")
	if err != nil {
		t.Fatal(err)
	}
	here, err := nucleus.Command(s, "prog", "arg").Plan()
	if err != nil {
		t.Fatal(err)
	}
	if there.String() != here.String() || len(there.Weakened()) != len(here.Weakened()) {
		t.Errorf("got\n%s\nwant\n%s", there, here)
	}
	j, err := json.Marshal(here)
	if err != nil || !json.Valid(j) {
		t.Errorf("the plan as JSON: %s, %v", j, err)
	}
}

// TestReport reads back from the kernel: what a plan left out, it says.
func TestReport(t *testing.T) {
	needSandbox(t)
	FailsWithout(t, func(a *attempt) error {
		c := a.probe(&spec.Sandbox{}, "hang")
		if err := c.Start(); err != nil {
			a.refused = err
			return err
		}
		r, err := c.Process.Report()
		_ = c.Process.Kill()
		_ = c.Wait()
		if err != nil {
			return err
		}
		for _, what := range []string{"namespaces", "capabilities", "no_new_privs", "seccomp", "files"} {
			if !slices.ContainsFunc(r.Enforced, func(e nucleus.Enforced) bool { return e.What == what }) {
				return fmt.Errorf("the report does not mention %s:\n%s", what, r)
			}
		}
		if _, err := c.Process.Report(); !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("after the end: got %w, want ErrProcessDone", err)
		}
		return nil
	},
		without(plan.DropBounding{}), withoutSeccomp(), writableRoot(),
		together(without(plan.NoNewPrivs{}), without(plan.Landlock{}), withoutSeccomp()),
		clearAttr("nosuid", noSuid),
	)
}

// TestZombies: process 1 reaps what others leave.
func TestZombies(t *testing.T) {
	needSandbox(t)
	if err := (&attempt{TB: t}).want(&spec.Sandbox{}, line{"orphans 30", "ok:0"}); err != nil {
		t.Error(err)
	}
}

// TestLogger: one line at the start, one at the end, none about the workload's data.
func TestLogger(t *testing.T) {
	needSandbox(t)
	var log bytes.Buffer
	c := act(&spec.Sandbox{Env: []string{"TOKEN=hunter2"}}, "say hunter3")
	c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"msg=started", "msg=ended", "op=clone3"} {
		if strings.Count(log.String(), want) != 1 {
			t.Errorf("got %d lines with %q, want one", strings.Count(log.String(), want), want)
		}
	}
	if strings.Contains(log.String(), "hunter") {
		t.Errorf("the log holds the workload's data:\n%s", &log)
	}
}

// TestStreamsByName: /dev/stdout and /dev/stderr can be opened. A pipe belongs to
// who made it: for a sandbox of root that is another user, so it is given away.
func TestStreamsByName(t *testing.T) {
	needSandbox(t)
	var controls []control
	if asRoot() {
		controls = append(controls, without(plan.OwnPipes{}))
	}
	for _, uid := range []uint32{0, 1000} {
		FailsWithout(t, func(a *attempt) error {
			lines := []line{{"open w /dev/stdout", "ok"}, {"open w /dev/stderr", "ok"}, {"open r /dev/stdin", "ok"}}
			c := a.probe(&spec.Sandbox{User: spec.User{UID: uid, GID: uid}}, questions(lines)...)
			c.Stdin = strings.NewReader("")
			return a.wantCmd(c, lines...)
		}, controls...)
	}
}

// TestArgZero: what the program is told its name is need not be its path.
func TestArgZero(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Program("sh"))
	c := nucleus.Command(&spec.Sandbox{Toolchain: true}, "sh", "-c", "tr '\\0' ' ' </proc/$$/cmdline")
	c.Args[0] = "another-name"
	out, err := c.Output()
	if err != nil || !strings.HasPrefix(string(out), "another-name -c ") {
		t.Errorf("got %q, %v, want a command line that begins with another-name", out, err)
	}
}
