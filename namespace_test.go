package nucleus_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// TestNamespaces compares each namespace inside with ours.
func TestNamespaces(t *testing.T) {
	needSandbox(t)
	for _, tc := range []struct {
		kind     string
		controls []control
	}{
		{"user", []control{withoutNamespace("user", abi.CloneNewUser).needed()}},
		{"mnt", []control{withoutNamespace("mount", abi.CloneNewNS).needed()}},
		{"pid", []control{
			withoutNamespace("pid", abi.CloneNewPID).needed(), // no proc without one
		}},
		{"net", []control{
			withoutNamespace("net", abi.CloneNewNet).needed(), // lo is not ours to bring up
			together(withoutNamespace("net", abi.CloneNewNet), without(plan.LoopbackUp{})),
		}},
		{"uts", []control{
			withoutNamespace("uts", abi.CloneNewUTS).needed(), // nor the name ours to set
			together(withoutNamespace("uts", abi.CloneNewUTS), without(plan.Hostname{})),
		}},
		{"ipc", []control{withoutNamespace("ipc", abi.CloneNewIPC)}},
		{"cgroup", []control{withoutNamespace("cgroup", abi.CloneNewCgroup)}},
		{"time", []control{withoutNamespace("time", abi.CloneNewTime)}},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			ours, err := os.Readlink("/proc/self/ns/" + tc.kind)
			if err != nil {
				t.Fatal(err)
			}
			FailsWithout(t, func(a *attempt) error {
				return a.want(&spec.Sandbox{TimeNamespace: tc.kind == "time"}, line{"readlink /proc/self/ns/" + tc.kind, "!ok:" + ours})
			}, tc.controls...)
		})
	}
}

func TestTimeNamespaceOnlyWhenAsked(t *testing.T) {
	needSandbox(t)
	ours, err := os.Readlink("/proc/self/ns/time")
	if err != nil {
		t.Fatal(err)
	}
	if err := (&attempt{TB: t}).want(&spec.Sandbox{}, line{"readlink /proc/self/ns/time", "ok:" + ours}); err != nil {
		t.Error(err)
	}
}

// TestProcesses looks for other processes: through /proc, by signal, and for the
// init, which must be neither seen nor reached.
func TestProcesses(t *testing.T) {
	needSandbox(t)
	us := os.Getpid()
	FailsWithout(t, func(a *attempt) error {
		// Of all processes the workload sees itself. Process 1 exists: it can be
		// signalled, for it passes signals on, but not seen.
		lines := []line{{"exists /proc/self/status", "ok"}, {"exists /proc/2", "ok"}}
		for _, f := range []string{"", "/mem", "/environ", "/fd", "/maps", "/root", "/cwd", "/exe", "/status"} {
			lines = append(lines, line{"open r /proc/1" + f, absent})
		}
		if us > 64 { // else the number may be one of the probe's own
			lines = append(lines, line{fmt.Sprintf("kill %d 0", us), "ESRCH"}, line{fmt.Sprintf("exists /proc/%d", us), absent})
		}
		if err := a.want(&spec.Sandbox{}, lines...); err != nil {
			return err
		}
		answers, err := a.ask(&spec.Sandbox{}, "ls /proc")
		if err != nil {
			return err
		}
		var numbers []string
		for _, name := range strings.Fields(answers[0]) {
			if strings.Trim(strings.TrimPrefix(name, "ok:"), "0123456789") == "" {
				numbers = append(numbers, strings.TrimPrefix(name, "ok:"))
			}
		}
		if !slices.Equal(numbers, []string{"2"}) {
			return fmt.Errorf("processes in /proc: got %v, want only 2", numbers)
		}
		return nil
	},
		withoutNamespace("pid", abi.CloneNewPID).needed(),
		change("without hidepid", func(a *plan.NewMount) bool { a.Options = nil; return true }),
	)
}

// TestInitIsOutOfReach takes hidepid away: process 1 protects itself.
func TestInitIsOutOfReach(t *testing.T) {
	needSandbox(t)
	visible := change("hidepid", func(a *plan.NewMount) bool { a.Options = nil; return true })
	for _, uid := range []uint32{0, 1000} {
		a := &attempt{TB: t, edit: visible.edit}
		s := &spec.Sandbox{User: spec.User{UID: uid, GID: uid}}
		lines := []line{{"exists /proc/1", "ok"}}
		for _, f := range []string{"open r /proc/1/mem", "open rw /proc/1/mem", "read /proc/1/environ", "read /proc/1/maps", "readlink /proc/1/exe", "readlink /proc/1/cwd", "open dir /proc/1/root/"} {
			lines = append(lines, line{f, "EACCES|EPERM"})
		}
		for fd := range 32 { // root may list the numbers; what they are is not shown
			lines = append(lines, line{fmt.Sprintf("readlink /proc/1/fd/%d", fd), "EACCES|EPERM|ENOENT"})
		}
		if err := a.want(s, lines...); err != nil {
			t.Errorf("uid %d: %v", uid, err)
		}
	}
}

// TestInitCannotBeKilled: a signal that would end process 1 does not reach it
// from inside, and a program in use cannot be written, whichever it is.
func TestInitCannotBeKilled(t *testing.T) {
	needSandbox(t)
	if err := (&attempt{TB: t}).want(&spec.Sandbox{}, line{"kill 1 9", "ok"}, line{"kill 1 19", "ok"},
		line{"kill 1 17", "ok"}, line{"kill 1 29", "ok"}, // SIGCHLD and SIGIO, which mean something to it
		line{"run " + probePath + " exit·3", "exit 3"}, line{"cwd", "ok:/"},
		line{"open w /proc/self/exe", refused + "|ETXTBSY"}, line{"open rw /proc/1/exe", absent}, line{"open w " + probePath, refused + "|ETXTBSY"}); err != nil {
		t.Error(err)
	}
}

// TestNetwork wants a loopback device that is up, and nothing else.
func TestNetwork(t *testing.T) {
	needSandbox(t)
	controls := []control{without(plan.LoopbackUp{})}
	// Where the host too has nothing but lo, only TestNamespaces can tell.
	if all, err := net.Interfaces(); err != nil || len(all) > 1 {
		controls = append(controls, together(withoutNamespace("net", abi.CloneNewNet), without(plan.LoopbackUp{})))
	} else {
		t.Log("the host has no network but lo either: nothing to tell from")
	}
	FailsWithout(t, func(a *attempt) error {
		answers, err := a.ask(&spec.Sandbox{}, "net", "read /proc/net/route", "loopback", "dial tcp 192.0.2.1:80", "dial udp 192.0.2.1:53", "dial tcp [2001:db8::1]:80", "dial tcp 169.254.169.254:80")
		if err != nil {
			return err
		}
		var errs []error
		if answers[0] != "ok:lo up|loopback|running" {
			errs = append(errs, fmt.Errorf("interfaces: got %s, want lo, up", answers[0]))
		}
		if n := strings.Count(answers[1], "\n"); n > 1 {
			errs = append(errs, fmt.Errorf("routes: got %s, want none", answers[1]))
		}
		if answers[2] != "ok" {
			errs = append(errs, fmt.Errorf("127.0.0.1: got %s, want ok", answers[2]))
		}
		for _, got := range answers[3:] {
			if got != "ENETUNREACH" && got != "EADDRNOTAVAIL" {
				errs = append(errs, fmt.Errorf("dial: got %s, want ENETUNREACH", got))
			}
		}
		return errors.Join(errs...)
	}, controls...)
}

// TestHostname: the sandbox's own, and the host's is not there to see.
func TestHostname(t *testing.T) {
	needSandbox(t)
	FailsWithout(t, func(a *attempt) error {
		return errors.Join(
			a.want(&spec.Sandbox{}, line{"hostname", "ok:sandbox"}, line{"read /etc/hostname", "ok:sandbox\n"}),
			a.want(&spec.Sandbox{Name: "a_b.c", Hostname: "box.example"}, line{"hostname", "ok:box.example"}),
		)
	}, without(plan.Hostname{}))
}

// TestMounts lists every mount. The old root is gone: nothing of the host is in
// the table that the plan did not put there.
func TestMounts(t *testing.T) {
	needSandbox(t)
	host := t.TempDir()
	FailsWithout(t, func(a *attempt) error {
		answers, err := a.ask(&spec.Sandbox{}, "read /proc/self/mountinfo", "exists "+host, "exists "+self, "ls /")
		if err != nil {
			return err
		}
		var errs []error
		allowed := []string{"/", "/proc", "/dev/pts", "/dev/shm", "/tmp", "/root", probePath}
		for line := range strings.Lines(strings.TrimPrefix(answers[0], "ok:")) {
			f := strings.Fields(line)
			device := strings.HasPrefix(f[4], "/dev/") && f[3] == strings.TrimPrefix(f[4], "/dev")
			if !slices.Contains(allowed, f[4]) && !device && !strings.HasPrefix(f[4], "/proc/") {
				errs = append(errs, fmt.Errorf("a mount that nobody asked for: %s", line))
			}
			if strings.Contains(line, "shared:") || strings.Contains(line, "master:") {
				errs = append(errs, fmt.Errorf("a mount that propagates: %s", line))
			}
		}
		for i, got := range answers[1:3] {
			if got != absent {
				errs = append(errs, fmt.Errorf("host file %d: got %s, want ENOENT", i, got))
			}
		}
		if want := "ok:dev etc probe proc root run tmp var"; answers[3] != want {
			errs = append(errs, fmt.Errorf("ls /: got %s, want %s", answers[3], want))
		}
		return errors.Join(errs...)
	},
		without(plan.PivotRoot{}).needed(),
		together(insert[plan.OpenTree]("with a host directory", plan.OpenTree{Source: "/var", As: "test"}),
			insert[plan.MakeLink]("mounted", plan.Mkdir{Path: "/host", Mode: 0o755}, plan.MoveMount{From: "test", To: "/host"})),
	)
}

// TestUserNamespace: ids inside mean nothing outside.
func TestUserNamespace(t *testing.T) {
	needSandbox(t)
	for _, uid := range []uint32{0, 1000} {
		s := &spec.Sandbox{User: spec.User{UID: uid, GID: uid}}
		a := &attempt{TB: t}
		answers, err := a.ask(s, "read /proc/self/uid_map", "read /proc/self/gid_map", "ids", "read /proc/self/setgroups")
		if err != nil {
			t.Fatal(err)
		}
		var inside, outside, count uint32
		for _, m := range answers[:2] {
			if _, err := fmt.Sscan(strings.TrimPrefix(m, "ok:"), &inside, &outside, &count); err != nil {
				t.Fatalf("map %q: %v", m, err)
			}
			if asRoot() && (inside != 0 || outside < 0x70000000 || count != 65536) {
				t.Errorf("map: got %s, want 65536 ids above 0x70000000", m)
			}
			if !asRoot() && (inside != uid || int(outside) != os.Getuid() && int(outside) != os.Getgid() || count != 1) {
				t.Errorf("map: got %s, want the one id %d", m, uid)
			}
		}
		if want := fmt.Sprintf("ok:%d %d %d %d ", uid, uid, uid, uid); !strings.HasPrefix(answers[2], want) {
			t.Errorf("ids: got %q, want %q", answers[2], want)
		}
		if asRoot() && !strings.HasSuffix(answers[2], "[]") {
			t.Errorf("groups: got %q, want none", answers[2])
		}
	}
}

// TestRangesDiffer: two sandboxes of root have no id in common.
func TestRangesDiffer(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	seen := map[string]bool{}
	for range 2 {
		a := &attempt{TB: t}
		c := a.command(withProbe(&spec.Sandbox{}), probePath, "hang")
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Wait() }()
		defer func() { _ = c.Process.Kill() }()
		if _, err := out.Read(make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		m, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", c.Process.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(m)] {
			t.Errorf("two sandboxes share %s", m)
		}
		seen[string(m)] = true
	}
}
