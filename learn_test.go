package nucleus_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// TestLearningDoesNotWeaken makes every call that the default policy refuses while
// all calls are watched: each has the same answer as without.
func TestLearningDoesNotWeaken(t *testing.T) {
	needSandbox(t)
	for _, names := range []bool{false, true} {
		FailsWithout(t, func(a *attempt) error {
			var qs []string
			for _, c := range refusedCalls {
				qs = append(qs, "call "+c.call)
			}
			cmd := a.probe(&spec.Sandbox{}, qs...)
			cmd.Watch = &nucleus.Watch{Level: nucleus.Everything, Names: names}
			got, err := a.askCmd(cmd, len(qs))
			if err != nil {
				return err
			}
			for i, c := range refusedCalls {
				if got[i] != c.want {
					return fmt.Errorf("%s: got %s, want %s", c.name, got[i], c.want)
				}
			}
			return nil
		}, otherAnswers(), withoutListener())
	}
}

// otherAnswers has the listener allow everything.
func otherAnswers() control {
	return control{name: "a listener that allows everything", edit: func(p *plan.Plan) (n int) {
		for i := range p.Steps {
			if l, ok := p.Steps[i].Do.(plan.Listen); ok {
				l.Policy = seccomp.Policy{Default: seccomp.Allow, Unknown: seccomp.Allow}
				p.Steps[i].Do = l
				n++
			}
		}
		return n
	}}
}

// withoutListener takes the filter with the listener away.
func withoutListener() control {
	return control{name: "no listener", edit: func(p *plan.Plan) int {
		before := len(p.Steps)
		p.Steps = slices.DeleteFunc(p.Steps, func(s plan.Step) bool { _, ok := s.Do.(plan.Listen); return ok })
		return before - len(p.Steps)
	}}
}

// TestLearned looks at the record of a script.
func TestLearned(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Program("sh"))
	const script = `cd /tmp; mkdir d; echo x >d/f; mv d/f d/g; ln -s g d/l; cat d/l /etc/passwd >/dev/null; rm -r d
unshare -m true; echo x >/usr/x; /tmp/none; true`
	cmd := nucleus.Command(&spec.Sandbox{Toolchain: true}, "sh", "-c", script)
	cmd.Watch = &nucleus.Watch{Level: nucleus.Everything}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	r := cmd.Learned()
	text := string(r.Encode())
	for _, want := range []string{
		"path = \"/tmp/d\"\naccess = [\"read\", ", "path = \"/etc/passwd\"\naccess = [\"read-file\"]", "path = \"/dev/null\"\naccess = [\"write\"]",
		"call = \"unshare\"", "object = \"/usr/x\"\nerrno = \"EROFS\"\nby = \"mount\"", "end = \"exit status 0\"",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the record lacks %s", want)
		}
	}
	for _, not := range []string{"/tmp/none\"\naccess = [\"execute", "first = \"memfd", "name = \"unshare\""} {
		if strings.Contains(text, not) {
			t.Errorf("the record has %s", not)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
