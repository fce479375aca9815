package nucleus_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

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

// storm opens a file many times from threads and processes that signals interrupt
// all the time, and kills processes while they wait for answers.
const storm = `
import os, signal, threading
signal.signal(signal.SIGALRM, lambda *a: None)
def work(n, name):
    for _ in range(n):
        os.close(os.open(name, os.O_RDONLY))
def timer(tick): # Python does not repeat what a signal has ended here
    while True:
        try:
            return signal.setitimer(signal.ITIMER_REAL, tick, tick)
        except OSError:
            pass
timer(TICK)
threads = [threading.Thread(target=work, args=(20, "/etc/passwd")) for _ in range(100)]
[t.start() for t in threads]; [t.join() for t in threads]
timer(0) # nor a fork
for _ in range(5):
    pids = []
    for _ in range(30):
        pid = os.fork()
        if pid == 0:
            timer(TICK)
            work(10, "/etc/group")
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
for _ in range(50):
    pid = os.fork()
    if pid == 0:
        work(100000, "/etc/hosts")
        os._exit(1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print("done")
`

// TestLearningInAStorm: nothing hangs, and a call that was interrupted and made
// again is counted once, also on a kernel whose notifications signals interrupt.
func TestLearningInAStorm(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Program("python3"))
	tick := fmt.Sprint((sandboxtest.Slow() * time.Millisecond).Seconds()) // a slow machine does nothing else otherwise
	for _, tc := range []struct {
		name string
		keep uint32 // of the listener's flags
	}{{"as this kernel does", ^uint32(0)}, {"as before 5.19", 1 << 3}} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := nucleus.Command(&spec.Sandbox{Toolchain: true, Timeout: patience() * 3}, "python3", "-c", strings.ReplaceAll(storm, "TICK", tick))
			cmd.Watch = &nucleus.Watch{Level: nucleus.Everything}
			cmd.EditPlan(func(p *plan.Plan) {
				for i := range p.Steps {
					if l, ok := p.Steps[i].Do.(plan.Listen); ok {
						l.Flags &= tc.keep
						p.Steps[i].Do = l
					}
				}
			})
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != "done\n" {
				t.Fatalf("got %q, %v", out, err)
			}
			counts := map[string]int{}
			calls, lost := cmd.Watch.Calls()
			for _, c := range calls {
				if c.Name == "openat" && !c.Change {
					counts[c.Path] += c.Count
				}
			}
			// Python itself reads none of them, and makes a call again that EINTR ended.
			if n := counts["/etc/passwd"]; n < 2000 || n > 2200 {
				t.Errorf("/etc/passwd was opened %d times, want 2000", n)
			}
			if n := counts["/etc/group"]; n < 1500 || n > 1650 {
				t.Errorf("/etc/group was opened %d times, want 1500", n)
			}
			if lost != 0 {
				t.Errorf("%d calls were lost", lost)
			}
		})
	}
}
