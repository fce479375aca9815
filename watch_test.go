package nucleus_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// TestWatchReport: the kernel confirms both filters.
func TestWatchReport(t *testing.T) {
	needSandbox(t)
	FailsWithout(t, func(a *attempt) error {
		c := a.probe(&spec.Sandbox{}, "hang")
		c.Watch = &nucleus.Watch{}
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
		if !strings.Contains(r.String(), "the default policy") || strings.Contains(r.String(), "pass") {
			return fmt.Errorf("got %s", r)
		}
		return nil
	}, without(plan.Listen{}))
}

// TestWatchUnderANarrowPolicy: what process 1 needs and the policy refuses is
// still refused to the program, which is watched all the same.
func TestWatchUnderANarrowPolicy(t *testing.T) {
	needSandbox(t)
	p := seccomp.Default().With(seccomp.Rule{Calls: []string{"clone", "setsid", "kill"}, Do: seccomp.Errno("EACCES"), Why: "a test"})
	for _, level := range []nucleus.Level{nucleus.Refusals, nucleus.Files, nucleus.Everything} {
		for _, w := range []*nucleus.Watch{nil, {Level: level}} {
			c := nucleus.Command(&spec.Sandbox{Toolchain: true, Policy: &policy.Policy{Seccomp: &p}}, "sh", "-c", "unshare -U true; (true); echo no")
			c.Watch = w
			out, err := c.CombinedOutput()
			if err == nil || strings.Contains(string(out), "no\n") || !strings.Contains(string(out), "fork") {
				t.Errorf("watched %t: got %q, %v; want no fork", w != nil, out, err)
			}
		}
	}
}

// TestWatchSeesRefusals: a refused call is refused with the policy's errno, and
// seen with who made it and why.
func TestWatchSeesRefusals(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Program("python3"))
	for _, level := range []nucleus.Level{nucleus.Refusals, nucleus.Files, nucleus.Everything} {
		const script = `
import ctypes, os, socket
c = ctypes.CDLL(None, use_errno=True)
print(c.unshare(0x10000000), ctypes.get_errno())
print(c.mount(b"none", b"/tmp", b"tmpfs", 0, None), ctypes.get_errno())
try: socket.create_connection(("192.0.2.1", 443), 1)
except OSError as e: print(e.errno)
try: socket.socket(38)
except OSError as e: print(e.errno)
try: open("/usr/new", "w")
except OSError as e: print(e.errno)
`
		c := nucleus.Command(&spec.Sandbox{Toolchain: true}, "python3", "-c", script)
		c.Watch = &nucleus.Watch{Level: level}
		out, err := c.CombinedOutput()
		if err != nil || string(out) != "-1 1\n-1 1\n101\n97\n30\n" {
			t.Fatalf("level %d: got %q, %v", level, out, err)
		}
		calls, lost := c.Watch.Calls()
		for _, want := range []nucleus.Call{
			{Name: "unshare", Refused: "EPERM"}, {Name: "mount", Refused: "EPERM", Path: "/tmp"}, {Name: "socket", Refused: "EAFNOSUPPORT"},
			{Name: "connect", Addr: "192.0.2.1:443"}, {Name: "openat", Path: "/usr/new"},
		} {
			i := slices.IndexFunc(calls, func(c nucleus.Call) bool {
				return c.Name == want.Name && c.Refused == want.Refused && c.Path == want.Path && c.Addr == want.Addr
			})
			if seen := i >= 0; seen != (want.Name != "openat" || level >= nucleus.Files) {
				t.Errorf("level %d: %+v is seen: %t", level, want, seen)
			}
			if i >= 0 && (calls[i].Count != 1 || !strings.HasPrefix(calls[i].Process, "python3") || (calls[i].Rule == "") != (want.Refused == "")) {
				t.Errorf("level %d: got %+v", level, calls[i])
			}
		}
		if lost != 0 {
			t.Errorf("level %d: %d calls were lost", level, lost)
		}
	}
}
