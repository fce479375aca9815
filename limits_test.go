package nucleus_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// unlimited leaves out the writes to control files that a field caused.
func unlimited(field string) control {
	return remove(field, func(s plan.Step) bool { _, ok := s.Do.(plan.CgroupWrite); return ok && s.Because == field })
}

// TestMemoryLimit: a workload that needs more is killed, and the error says so
// and names the limit.
func TestMemoryLimit(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Cgroup)
	const limit = 64 * spec.MiB
	FailsWithout(t, func(a *attempt) error {
		c := a.probe(&spec.Sandbox{Limits: spec.Limits{Memory: limit}}, "eat 160")
		if err := c.Start(); err != nil {
			a.refused = err
			return err
		}
		err := c.Wait()
		var exit *nucleus.ExitError
		if !errors.As(err, &exit) || exit.Reason != nucleus.OutOfMemory || exit.ExitCode() != 137 || !strings.Contains(err.Error(), "64M") || !strings.Contains(err.Error(), "limits.memory") {
			return fmt.Errorf("got %v, want out of memory, with the limit", err)
		}
		return nil
	}, unlimited("limits.memory"))
	if out, err := act(&spec.Sandbox{Limits: spec.Limits{Memory: limit}}, "eat 16").Output(); err != nil || string(out) != "ate 16\n" {
		t.Errorf("within the limit: got %q, %v", out, err)
	}
	// A failure of its own is not taken for one of memory.
	err := act(&spec.Sandbox{Limits: spec.Limits{Memory: limit}}, "exit 137").Run()
	if o := exitOf(t, err); o.Reason != nucleus.Exited || o.Code != 137 {
		t.Errorf("exit 137: got %v, want it as it is", err)
	}
}

func TestPidsLimit(t *testing.T) {
	needSandbox(t)
	few := func(limits spec.Limits, below int) func(a *attempt) error {
		return func(a *attempt) error {
			s := &spec.Sandbox{Limits: limits, Tmpfs: []spec.Tmpfs{{Target: "/bin", Exec: true}}}
			answers, err := a.ask(s, fmt.Sprintf("fork %d /bin", below+40), "elf /bin/prog exit7")
			if err != nil {
				return err
			}
			if n, ok := strings.CutPrefix(answers[0], "EAGAIN after "); !ok || number(n) > below || number(n) < below/2 || answers[1] != "exit 7" {
				return fmt.Errorf("got %q, want EAGAIN before %d, and none when they have ended", answers, below)
			}
			return nil
		}
	}
	t.Run("asked for", func(t *testing.T) {
		sandboxtest.Need(t, sandboxtest.Cgroup)
		FailsWithout(t, few(spec.Limits{Pids: 40}, 40), unlimited("limits.pids"))
	})
	t.Run("default", func(t *testing.T) {
		FailsWithout(t, few(spec.Limits{}, spec.DefaultPids), remove("RLIMIT_NPROC", func(s plan.Step) bool {
			r, ok := s.Do.(plan.Rlimit)
			return ok && r.Name == "RLIMIT_NPROC"
		}))
	})
	t.Run("not shared", func(t *testing.T) { // two sandboxes of one user do not use up each other's
		hang := (&attempt{TB: t}).command(withProbe(&spec.Sandbox{}), probePath, "hang")
		started(t, hang, "hanging")
		if err := few(spec.Limits{}, spec.DefaultPids)(&attempt{TB: t}); err != nil {
			t.Error(err)
		}
		if err := hang.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = hang.Wait()
	})
	t.Run("none", func(t *testing.T) {
		s := &spec.Sandbox{Limits: spec.Limits{Pids: spec.Unlimited}, Tmpfs: []spec.Tmpfs{{Target: "/bin", Exec: true}}}
		if err := (&attempt{TB: t}).want(s, line{"fork 560 /bin", "ok after 560"}); err != nil {
			t.Error(err)
		}
	})
}

// controlFile reads one of a sandbox's control files on the host: of the group
// that process 1 is in, under its name in either version of control groups.
func controlFile(t *testing.T, c *nucleus.Cmd, v2, v1 string) string {
	t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Process.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(groups)) {
		part := strings.SplitN(strings.TrimSpace(l), ":", 3)
		for _, file := range []string{"/sys/fs/cgroup" + part[2] + "/" + v2, "/sys/fs/cgroup/" + part[1] + part[2] + "/" + v1} {
			if b, err := os.ReadFile(file); err == nil && strings.Contains(part[2], c.Sandbox.Name) {
				return strings.TrimSpace(string(b))
			}
		}
	}
	t.Fatalf("no control group of the sandbox has %s or %s:\n%s", v2, v1, groups)
	return ""
}

// TestProcessorLimit: the quota stands in the kernel, and the kernel holds the
// workload to it. How closely is the kernel's business.
func TestProcessorLimit(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Cgroup)
	s := &spec.Sandbox{Name: fmt.Sprintf("cpu-%d", os.Getpid()), Limits: spec.Limits{MilliCPUs: 100, CPUWeight: 50, Memory: 100 * spec.MiB, Pids: 30}}
	c := (&attempt{TB: t}).command(withProbe(s), probePath, "spin")
	started(t, c, "spinning")
	if got := controlFile(t, c, "cpu.max", "cpu.cfs_quota_us"); got != "10000 100000" && got != "10000" {
		t.Errorf("quota: got %s, want a tenth of 100000", got)
	}
	if got := controlFile(t, c, "cpu.weight", "cpu.shares"); got != "50" && got != "512" {
		t.Errorf("weight: got %s, want half", got)
	}
	if got := controlFile(t, c, "memory.max", "memory.limit_in_bytes"); got != strconv.Itoa(100<<20) {
		t.Errorf("memory: got %s, want %d", got, 100<<20)
	}
	if got := controlFile(t, c, "pids.max", "pids.max"); got != "31" {
		t.Errorf("pids: got %s, want 31", got)
	}
	deadline := time.Now().Add(patience())
	for throttled := false; !throttled; time.Sleep(20 * time.Millisecond) {
		for l := range strings.Lines(controlFile(t, c, "cpu.stat", "cpu.stat")) {
			n, ok := strings.CutPrefix(strings.TrimSpace(l), "nr_throttled ")
			throttled = throttled || ok && n != "0"
		}
		if time.Now().After(deadline) {
			t.Error("the kernel never held it back")
			break
		}
	}
	// One of the same name has a control group of its own.
	second := (&attempt{TB: t}).command(withProbe(s), probePath, "exit 0")
	if err := second.Run(); err != nil {
		t.Errorf("a second sandbox of the same name: %v", err)
	}
	if got := controlFile(t, c, "pids.max", "pids.max"); got != "31" {
		t.Errorf("pids, when that has ended: got %s, want 31", got)
	}
	if err := c.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = c.Wait()
}

// TestLimitsAreEnforcedOrRefused: asked for and not to be had is an error, with
// what to do, unless it may be weakened.
func TestLimitsAreEnforcedOrRefused(t *testing.T) {
	needSandbox(t)
	s := &spec.Sandbox{Limits: spec.Limits{Memory: 32 * spec.MiB}}
	h, err := nucleus.Probe(s)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := h.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	none := bytes.ReplaceAll(saved, []byte(`"memory"`), []byte(`"memoir"`))
	var without nucleus.Host
	if err := without.UnmarshalJSON(none); err != nil {
		t.Fatal(err)
	}
	if _, err := nucleus.NewPlan(s, &without, "x"); !errors.Is(err, nucleus.ErrUnsupported) {
		t.Errorf("without a memory controller: got %v, want unsupported", err)
	}
	s.Degrade = []string{spec.DegradeCgroup}
	if p, err := nucleus.NewPlan(s, &without, "x"); err != nil || !strings.Contains(strings.Join(p.Weakened(), "\n"), "limits.memory") {
		t.Errorf("with leave to weaken it: got %v, want a plan that says so", err)
	}
}

// TestScratchIsBounded: what a workload writes to memory has an end.
func TestScratchIsBounded(t *testing.T) {
	needSandbox(t)
	s := &spec.Sandbox{Scratch: spec.MiB, Tmpfs: []spec.Tmpfs{{Target: "/small", Size: spec.MiB}}}
	if err := (&attempt{TB: t}).want(s, line{"fill /tmp/x 2", "ENOSPC"}, line{"fill /small/x 2", "ENOSPC"}, line{"files /small 2000", "ENOSPC"}, line{"fill /dev/shm/x 2", "ENOSPC"}); err != nil {
		t.Error(err)
	}
}
