package nucleus_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/spec"
)

// told runs a program and returns what was told of it.
func told(t *testing.T, s *spec.Sandbox, edit func(*plan.Plan), argv ...string) ([]event.Body, error) {
	t.Helper()
	var all []event.Body
	cmd := nucleus.Command(s, argv[0], argv[1:]...)
	cmd.Events = func(b event.Body) error { all = append(all, b); return nil }
	if edit != nil {
		cmd.EditPlan(edit)
	}
	return all, cmd.Run()
}

func kindsOf(all []event.Body) (out []string) {
	for _, b := range all {
		if k := b.Kind(); len(out) == 0 || out[len(out)-1] != k {
			out = append(out, k)
		}
	}
	return out
}

func first[B event.Body](t *testing.T, all []event.Body) (b B) {
	t.Helper()
	for _, x := range all {
		if b, ok := x.(B); ok {
			return b
		}
	}
	t.Errorf("no %s in %v", b.Kind(), kindsOf(all))
	return b
}

// TestEvents: a program that lives for a moment is told of like any other: what
// is enforced was read back while it was held.
func TestEvents(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	all, err := told(t, &spec.Sandbox{Toolchain: true, Env: []string{"TOKEN=hunter2"}}, nil, "sh", "-c", "exit 3")
	var exit *nucleus.ExitError
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	kinds := slices.DeleteFunc(kindsOf(all), func(k string) bool { return k == "weakened" || k == "landlock_applied" })
	want := []string{"sandbox_created", "namespaces_created", "identity_mapped", "root_switched", "filesystem_mounted", "mount_audit", "network_isolated",
		"capabilities_dropped", "no_new_privs_set", "seccomp_applied", "sandbox_started", "sandbox_ended"}
	if !slices.Equal(kinds, want) {
		t.Errorf("got  %v\nwant %v", kinds, want)
	}
	if c := first[event.Created](t, all); c.Command.Program != "sh" || !slices.Equal(c.Command.Args, []string{"-c", "exit 3"}) || !slices.Contains(c.Env, "TOKEN") {
		t.Errorf("got %+v", c)
	}
	if n := first[event.Namespaces](t, all); len(n.Own) < 7 || n.Own["net"] == "" || n.Evidence != event.Kernel {
		t.Errorf("got %+v", n)
	}
	if m := first[event.MountAudit](t, all); !m.Passed || m.Mounts < 5 || len(m.Wrong) > 0 || slices.Contains(m.Writable, "/") {
		t.Errorf("got %+v", m)
	}
	if c := first[event.Capabilities](t, all); strings.Trim(c.Bounding+c.Effective+c.Permitted+c.Inheritable+c.Ambient, "0") != "" || c.Bounding == "" {
		t.Errorf("got %+v", c)
	}
	if n := first[event.NoNewPrivs](t, all); !n.Set {
		t.Error("no_new_privs was not read back")
	}
	if s := first[event.Seccomp](t, all); s.Policy != "default" || len(s.SHA256) != 64 || s.Evidence == event.Kernel && s.Mode != 2 {
		t.Errorf("got %+v", s)
	}
	if e := first[event.Ended](t, all); e.Reason != "exited" || e.Code != 3 || e.Seconds <= 0 || e.Usage == nil || e.Usage.MaxRSS == 0 {
		t.Errorf("got %+v, usage %+v", e, e.Usage)
	}
	if strings.Contains(fmt.Sprintf("%+v", all), "hunter2") {
		t.Error("a variable's value is told")
	}
}

// TestEventsOfPolicy: the files that a policy came from are told as they were read.
func TestEventsOfPolicy(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	src := policy.Source{Kind: policy.KindProfile, Path: "python", SHA256: strings.Repeat("a", 64), Pinned: true}
	all, err := told(t, &spec.Sandbox{Toolchain: true, Policy: &policy.Policy{Sources: []policy.Source{src}}}, nil, "true")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := first[event.PolicyLoaded](t, all), (event.PolicyLoaded{Policy: "profile", Path: "python", SHA256: src.SHA256, Pinned: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestEventsOfALongLife: of a program that is still there, the filter is read back too.
func TestEventsOfALongLife(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	all, err := told(t, &spec.Sandbox{Toolchain: true, Timeout: 400 * time.Millisecond}, nil, "sleep", "60")
	if err == nil {
		t.Fatal("it was not ended")
	}
	if s := first[event.Seccomp](t, all); s.Evidence != event.Kernel || s.Mode != 2 {
		t.Errorf("got %+v", s)
	}
	if e := first[event.TimedOut](t, all); e.Timeout != "400ms" {
		t.Errorf("got %+v", e)
	}
	if e := first[event.Ended](t, all); e.Reason != "deadline exceeded" || e.Signal != "KILL" || e.Code != 137 {
		t.Errorf("got %+v", e)
	}
}

// TestEventsTellWhatIs: with a step gone that the words would be about, the kernel
// is believed and not the plan's rest: the program never runs.
func TestEventsTellWhatIs(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	for _, tc := range []struct {
		without plan.Action
		then    func(all []event.Body) bool
	}{
		{plan.NoNewPrivs{}, func(all []event.Body) bool { return !first[event.NoNewPrivs](t, all).Set }},
		{plan.DropBounding{}, func(all []event.Body) bool {
			return strings.Trim(first[event.Capabilities](t, all).Bounding, "0") != ""
		}},
	} {
		dir := t.TempDir()
		s := &spec.Sandbox{Toolchain: true, Workspace: &spec.Bind{Source: dir}}
		all, err := told(t, s, func(p *plan.Plan) {
			p.Steps = slices.DeleteFunc(p.Steps, func(s plan.Step) bool { return reflect.TypeOf(s.Do) == reflect.TypeOf(tc.without) })
			if _, isNNP := tc.without.(plan.NoNewPrivs); isNNP { // the kernel demands it for both
				p.Steps = slices.DeleteFunc(p.Steps, func(s plan.Step) bool { _, ll := s.Do.(plan.Landlock); return ll })
			}
		}, "touch", "/workspace/ran")
		if err == nil || !strings.Contains(err.Error(), "does not confirm") {
			t.Errorf("without %T: got %v, want that the kernel does not confirm the plan", tc.without, err)
		}
		if !tc.then(all) || first[event.MountAudit](t, all).Passed {
			t.Errorf("without %T: it is told as if it were there", tc.without)
		}
		if n := first[event.NotStarted](t, all); !strings.Contains(n.Error, "does not confirm") || all[len(all)-1] != event.Body(n) {
			t.Errorf("got %+v", n)
		}
		if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
			t.Errorf("without %T: the program ran", tc.without)
		}
	}
}

// TestWhatCannotBeToldDoesNotRun: an audit log that fails keeps the program from
// running, or ends it.
func TestWhatCannotBeToldDoesNotRun(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	full := errors.New("the disk is full")
	for kind, script := range map[string]string{
		"sandbox_created": "touch ran", "mount_audit": "touch ran", "no_new_privs_set": "touch ran", // it never runs
		"seccomp_applied": "sleep 0.3; touch ran", "sandbox_started": "sleep 0.3; touch ran", // it is ended
	} {
		dir := t.TempDir()
		cmd := nucleus.Command(&spec.Sandbox{Toolchain: true, Workspace: &spec.Bind{Source: dir}}, "sh", "-c", script)
		cmd.Events = func(b event.Body) error {
			if b.Kind() == kind {
				return full
			}
			return nil
		}
		if err := cmd.Start(); !errors.Is(err, full) {
			t.Errorf("%s: got %v, want %v", kind, err, full)
		}
		if strings.HasPrefix(script, "sleep") {
			time.Sleep(600 * time.Millisecond) // had it lived on, it would be done
		}
		if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
			t.Errorf("%s: the program ran", kind)
		}
	}
}

// TestHiddenArgumentsAreNotInferredFrom: a file of the host that an argument names
// explains a failure, and is told only where arguments are.
func TestHiddenArgumentsAreNotInferredFrom(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	secret := filepath.Join(t.TempDir(), "hunter2")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, hide := range []bool{false, true} {
		var all []event.Body
		cmd := nucleus.Command(&spec.Sandbox{Toolchain: true}, "sh", "-c", "exit 1", "x", "--key="+secret)
		cmd.Watch = &nucleus.Watch{Optional: true}
		cmd.HideArgs = hide
		cmd.Events = func(b event.Body) error { all = append(all, b); return nil }
		if err := cmd.Run(); err == nil {
			t.Fatal("exit 1 succeeds")
		}
		if got := strings.Contains(fmt.Sprintf("%+v", all), secret); got == hide {
			t.Errorf("hidden %t: the argument is told: %t", hide, got)
		}
		if len(cmd.Denials()) == 0 {
			t.Error("the caller is told nothing")
		}
	}
}

// TestEventsOfDenials: what a watched program was refused is told before its end.
func TestEventsOfDenials(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	var all []event.Body
	cmd := nucleus.Command(&spec.Sandbox{Toolchain: true}, "unshare", "-U", "true")
	cmd.Watch = &nucleus.Watch{Optional: true}
	cmd.Events = func(b event.Body) error { all = append(all, b); return nil }
	if err := cmd.Run(); err == nil {
		t.Fatal("it may make a user namespace")
	}
	d := first[event.Denial](t, all)
	if d.Source != "seccomp" || d.Errno != "EPERM" || d.Process != "unshare" || d.Rule == "" || d.Say == "" || d.Count != 1 {
		t.Errorf("got %+v", d)
	}
	if kinds := kindsOf(all); len(kinds) < 2 || kinds[len(kinds)-1] != "sandbox_ended" || kinds[len(kinds)-2] != "denial" {
		t.Errorf("got %v", kinds)
	}
}

// TestEventsOfLimits: what the control group says, and what was used before it was removed.
func TestEventsOfLimits(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Cgroup)
	all, err := told(t, &spec.Sandbox{Toolchain: true, Limits: spec.Limits{Memory: 32 * spec.MiB, Pids: 20}}, nil,
		"sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}")
	if err == nil {
		t.Fatal("it did not run out of memory")
	}
	if c := first[event.Cgroup](t, all); len(c.Limits) == 0 || !slices.Contains(values(c.Limits), fmt.Sprint(32<<20)) {
		t.Errorf("got %+v, want the limit of 32 MiB", c)
	}
	if o := first[event.OutOfMemory](t, all); o.Kills == 0 {
		t.Errorf("got %+v", o)
	}
	e := first[event.Ended](t, all)
	if e.Reason != "out of memory" || e.Usage.OOMKills == 0 {
		t.Errorf("got %+v, usage %+v", e, e.Usage)
	}
}

func values(m map[string]string) (out []string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// TestEventsOfAProgramThatIsNotThere: its sandbox was made, and it never ran.
func TestEventsOfAProgramThatIsNotThere(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	all, err := told(t, &spec.Sandbox{Toolchain: true}, nil, "no-such-program")
	if !nucleus.NotFound(err) {
		t.Fatalf("got %v", err)
	}
	if n := first[event.NotStarted](t, all); n.Stage != "enter" || n.Error == "" {
		t.Errorf("got %+v", n)
	}
	if slices.Contains(kindsOf(all), "sandbox_started") {
		t.Errorf("got %v", kindsOf(all))
	}
}
