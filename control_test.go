package nucleus_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// patience is how long a sandbox may take to do what takes it milliseconds.
func patience() time.Duration { return 20 * time.Second * sandboxtest.Slow() }

// An attempt is one performance of a test's body, with or without a change to
// the plans of its sandboxes.
type attempt struct {
	testing.TB
	edit    func(*plan.Plan) int
	changed int   // steps that edit changed
	refused error // why a sandbox did not start
}

// command is nucleus.Command with the attempt's change to its plan.
func (a *attempt) command(s *spec.Sandbox, name string, arg ...string) *nucleus.Cmd {
	timed := *s
	if timed.Timeout == 0 {
		timed.Timeout = patience()
	}
	c := nucleus.Command(&timed, name, arg...)
	if a.edit != nil {
		c.EditPlan(func(p *plan.Plan) { a.changed += a.edit(p) })
	}
	return c
}

// probe is the command that puts questions to the probe program, which it adds
// to the sandbox.
func (a *attempt) probe(s *spec.Sandbox, questions ...string) *nucleus.Cmd {
	return a.command(withProbe(s), probePath, questions...)
}

func withProbe(s *spec.Sandbox) *spec.Sandbox {
	with := *s
	with.Volumes = append(slices.Clone(s.Volumes), spec.Volume{Source: self, Target: probePath, Exec: true})
	return &with
}

// self is this binary. It is found by its first name: a later one may be
// "(deleted)" or lie in a mount namespace that is not ours.
var self = func() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}()

// ask runs the probe program in a sandbox and returns one answer a question.
func (a *attempt) ask(s *spec.Sandbox, questions ...string) ([]string, error) {
	return a.askCmd(a.probe(s, questions...), len(questions))
}

func (a *attempt) askCmd(c *nucleus.Cmd, questions int) ([]string, error) {
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Start(); err != nil {
		a.refused = err
		return nil, err
	}
	if err := c.Wait(); err != nil {
		return nil, fmt.Errorf("the probe: %w\n%s%s", err, out.String(), errOut.String())
	}
	var answers []string
	if err := json.Unmarshal(out.Bytes(), &answers); err != nil || len(answers) != questions {
		return nil, fmt.Errorf("the probe answered %q to %d questions: %v\n%s", out.String(), questions, err, errOut.String())
	}
	return answers, nil
}

// A line is a question to the probe with the answer that is wanted: one of
// several between bars, or anything but one after an exclamation mark.
type line struct{ question, want string }

// refused are the answers of a kernel that does not let a file be changed.
const refused = "EROFS|EACCES|EPERM"

// absent is the answer about a file that is not there.
const absent = "ENOENT"

func (l line) check(got string) error {
	not, negated := strings.CutPrefix(l.want, "!")
	if negated && got != not || !negated && slices.Contains(strings.Split(l.want, "|"), got) {
		return nil
	}
	return fmt.Errorf("%s: got %s, want %s", l.question, got, l.want)
}

// want asks every question in one sandbox and compares.
func (a *attempt) want(s *spec.Sandbox, lines ...line) error {
	return a.wantCmd(a.probe(s, questions(lines)...), lines...)
}

func questions(lines []line) []string {
	var out []string
	for _, l := range lines {
		out = append(out, l.question)
	}
	return out
}

func (a *attempt) wantCmd(c *nucleus.Cmd, lines ...line) error {
	answers, err := a.askCmd(c, len(lines))
	if err != nil {
		return err
	}
	var errs []error
	for i, l := range lines {
		errs = append(errs, l.check(answers[i]))
	}
	return errors.Join(errs...)
}

// consequence is what must come of a change to a plan.
type consequence int

const (
	breaks consequence = iota // the body fails: the step is what it tests
	holds                     // the body passes: something else does the same
	needed                    // no sandbox: nothing can run without the step
)

// A control is a change to a plan, and what it must do to a test's body.
type control struct {
	name string
	edit func(*plan.Plan) int // returns how many steps it changed
	then consequence
}

// FailsWithout performs body on intact plans, where it must pass, and then once
// with each control: a test that passes whatever is removed tests nothing. The
// body reports by its error.
func FailsWithout(t *testing.T, body func(*attempt) error, controls ...control) {
	t.Helper()
	intact := &attempt{TB: t}
	if err := body(intact); err != nil {
		t.Fatal(err)
	}
	for _, c := range controls {
		t.Run(c.name, func(t *testing.T) {
			a := &attempt{TB: t, edit: c.edit}
			err := body(a)
			switch {
			case a.changed == 0:
				t.Fatalf("the control changes no step of any plan (%v)", err)
			case c.then == needed && a.refused == nil:
				t.Errorf("got a sandbox (%v), want none to start without this", err)
			case c.then != needed && a.refused != nil:
				t.Errorf("got no sandbox: %v; want one", a.refused)
			case c.then == breaks && err == nil:
				t.Error("the test passes without what it tests")
			case c.then == holds && err != nil:
				t.Errorf("got %v, want a second wall to hold", err)
			}
		})
	}
}

// holds marks a control after which another layer still does the job.
func (c control) holds() control { c.then = holds; return c }

// needed marks a control without which no sandbox starts.
func (c control) needed() control { c.then = needed; return c }

// without removes all steps of the actions' types.
func without(actions ...plan.Action) control {
	var types []reflect.Type
	var names []string
	for _, a := range actions {
		types = append(types, reflect.TypeOf(a))
		names = append(names, reflect.TypeOf(a).Name())
	}
	c := remove(strings.Join(names, ","), func(s plan.Step) bool { return slices.Contains(types, reflect.TypeOf(s.Do)) })
	return c
}

// remove takes out the steps that match.
func remove(name string, match func(plan.Step) bool) control {
	return control{name: "without " + name, edit: func(p *plan.Plan) int {
		before := len(p.Steps)
		p.Steps = slices.DeleteFunc(p.Steps, match)
		return before - len(p.Steps)
	}}
}

// mount matches the step that attaches something at a place.
func mountAt(target string) func(plan.Step) bool {
	return func(s plan.Step) bool {
		switch a := s.Do.(type) {
		case plan.MoveMount:
			return a.To == target
		case plan.MountFS:
			return a.Target == target
		}
		return false
	}
}

// change rewrites the steps of one kind; f reports whether it changed its argument.
func change[A plan.Action](name string, f func(*A) bool) control {
	return control{name: name, edit: func(p *plan.Plan) int {
		n := 0
		for i, s := range p.Steps {
			if a, ok := s.Do.(A); ok && f(&a) {
				p.Steps[i].Do = a
				n++
			}
		}
		return n
	}}
}

// insert adds child steps before the first of a kind.
func insert[A plan.Action](name string, actions ...plan.Action) control {
	return control{name: name, edit: func(p *plan.Plan) int {
		at := slices.IndexFunc(p.Steps, func(s plan.Step) bool { _, ok := s.Do.(A); return ok })
		if at < 0 {
			return 0
		}
		var steps []plan.Step
		for _, a := range actions {
			steps = append(steps, plan.Step{Where: plan.Child, Because: "test", Do: a})
		}
		p.Steps = slices.Insert(p.Steps, at, steps...)
		return len(actions)
	}}
}

// together is several controls as one; each must change something.
func together(controls ...control) control {
	var names []string
	for _, c := range controls {
		names = append(names, c.name)
	}
	return control{name: strings.Join(names, " and "), edit: func(p *plan.Plan) int {
		total := 0
		for _, c := range controls {
			n := c.edit(p)
			if n == 0 {
				return 0
			}
			total += n
		}
		return total
	}}
}

// withoutSeccomp leaves the workload without a filter. Process 1 installs it, so
// it is part of its image.
func withoutSeccomp() control {
	return change("without Seccomp", func(a *plan.MakeInit) bool { a.Filter = seccomp.Program{}; return true })
}

func withoutNamespace(name string, flag uint64) control {
	return change("without "+name+" namespace", func(a *plan.CloneInto) bool {
		had := a.Flags&flag != 0
		a.Flags &^= flag
		return had
	})
}

// clear takes an attribute off every mount that has it.
func clearAttr(name string, attr plan.Attr) control {
	return control{name: "without " + name, edit: func(p *plan.Plan) int {
		n := 0
		for i, s := range p.Steps {
			switch a := s.Do.(type) {
			case plan.SetAttr:
				if a.Attr&attr != 0 {
					a.Attr &^= attr
					p.Steps[i].Do = a
					n++
				}
			case plan.HostTree:
				if a.Attr&attr != 0 {
					a.Attr &^= attr
					p.Steps[i].Do = a
					n++
				}
			case plan.NewMount:
				if a.Attr&attr != 0 {
					a.Attr &^= attr
					p.Steps[i].Do = a
					n++
				}
			case plan.MountFS: // its flags have the same values
				if a.Flags&uint64(attr) != 0 {
					a.Flags &^= uint64(attr)
					p.Steps[i].Do = a
					n++
				}
			}
		}
		return n
	}}
}

// privateEnv marks the copy of this program that has mounts of its own.
const privateEnv = "NUCLEUS_TEST_PRIVATE"

// privately performs the calling test in a copy of this program that has a mount
// namespace of its own, so that it may mount what it likes.
func privately(t *testing.T, body func()) {
	t.Helper()
	if os.Getenv(privateEnv) == t.Name() {
		body()
		return
	}
	again(t, &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}, privateEnv+"="+t.Name())
}

// again performs the calling test in another process.
func again(t *testing.T, attr *syscall.SysProcAttr, env string) {
	t.Helper()
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+(4*patience()).String())
	cmd.Env = append(os.Environ(), env)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, out)
	}
}

// plainDir returns a new directory on a file system that is not mounted nosuid or
// nodev, as /tmp may be: a mount that is made of it would keep that.
func plainDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "nucleus-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var fs unix.Statfs_t
	if err := errors.Join(os.Chmod(dir, 0o755), unix.Statfs(dir, &fs)); err != nil || fs.Flags&(unix.ST_NOSUID|unix.ST_NODEV) != 0 {
		t.Fatalf("/var/tmp: %v, flags %#x, want neither nosuid nor nodev", err, fs.Flags)
	}
	return dir
}

// asRoot reports whether this process has the power to make ranges of ids.
func asRoot() bool { return sandboxtest.Probe(sandboxtest.Root) == nil }

// anyUserns asks for what every sandbox here needs.
func needSandbox(t testing.TB) {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Userns)
}
