package nucleus_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// eventually waits for something that other processes do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience()); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestProcessesOfASandbox(t *testing.T) {
	l := detach(t, &spec.Sandbox{Toolchain: true}, nil, "sh", "-c", "sleep 61 & sleep 62 & wait")
	p := open(t, l)
	c := p.Command("sleep", "63")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { c.Process.Kill(); c.Wait() }()
	var all []nucleus.ProcessInfo
	eventually(t, "all five are there", func() bool {
		var err error
		if all, err = p.Processes(); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, x := range all {
			if strings.HasPrefix(x.Command, "sleep 6") {
				n++
			}
		}
		return n == 3 && len(all) == 5 && all[1].State == "S" // it waits for them
	})
	if all[0].Inside != 1 || all[1].Inside != 2 || all[1].UID != 0 || all[1].RSS == 0 || all[0].Pid != l.id.Pid() {
		t.Errorf("got %+v", all)
	}
}

func TestStatsOfASandbox(t *testing.T) {
	l := detach(t, &spec.Sandbox{Toolchain: true}, nil, "sh", "-c", "while :; do :; done")
	p := open(t, l)
	eventually(t, "it uses its processor", func() bool {
		s, err := p.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if s.Summed == (len(l.id.Groups()) > 0) {
			t.Fatalf("summed: %t, with %d groups", s.Summed, len(l.id.Groups()))
		}
		return s.CPU > 100*time.Millisecond && s.Memory > 0 && s.Pids >= 2
	})
}

// spins counts how far a spinning program has come.
func spins(t *testing.T, p *nucleus.Process) time.Duration {
	t.Helper()
	s, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s.CPU
}

func TestPause(t *testing.T) {
	l := detach(t, &spec.Sandbox{Toolchain: true}, nil, "sh", "-c", "while :; do :; done")
	p := open(t, l)
	if len(l.id.Groups()) == 0 {
		if err := p.Pause(); !errors.Is(err, nucleus.ErrUnsupported) {
			t.Errorf("without a control group: got %v, want %v", err, nucleus.ErrUnsupported)
		}
		return
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	before := spins(t, p)
	time.Sleep(100 * time.Millisecond)
	if after := spins(t, p); after-before > 20*time.Millisecond {
		t.Errorf("a paused sandbox used %v", after-before)
	}
	if err := p.Command("true").Run(); err == nil || !strings.Contains(err.Error(), "frozen") {
		t.Errorf("joining a paused sandbox: %v", err)
	}
	if err := p.Unpause(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool { return spins(t, p) > before+20*time.Millisecond })
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	l.wait(t) // a paused one can be killed
}

func TestUpdate(t *testing.T) {
	l := detach(t, &spec.Sandbox{Toolchain: true}, nil, "sleep", "60")
	p := open(t, l)
	err := p.Update(spec.Limits{Memory: 64 * spec.MiB, Pids: 20})
	if len(l.id.Groups()) == 0 {
		if !errors.Is(err, nucleus.ErrUnsupported) {
			t.Errorf("without a control group: got %v, want %v", err, nucleus.ErrUnsupported)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Stats()
	if err != nil || s.MemoryLimit != uint64(64*spec.MiB) || s.PidsLimit != 21 { // and process 1
		t.Errorf("got %+v, %v; want the new limits", s, err)
	}
	err = p.Command("sh", "-c", "for i in $(seq 40); do sleep 5 & done; wait").Run()
	var exit *nucleus.ExitError
	if !errors.As(err, &exit) {
		t.Errorf("a program that joined is above the limit on tasks: %v", err)
	}
	if err := p.Update(spec.Limits{Pids: spec.Unlimited}); err != nil {
		t.Fatal(err)
	}
	if s, err := p.Stats(); err != nil || s.PidsLimit != 0 {
		t.Errorf("got %+v, %v; want no limit on tasks", s, err)
	}
	if err := p.Update(spec.Limits{Memlock: spec.MiB}); !errors.Is(err, nucleus.ErrUnsupported) {
		t.Errorf("a limit that processes have from their start: got %v, want %v", err, nucleus.ErrUnsupported)
	}
}

// TestJoinedIsLimited: what joins is born in the sandbox's group, where its
// memory counts.
func TestJoinedIsLimited(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Cgroup)
	l := detach(t, &spec.Sandbox{Toolchain: true, Limits: spec.Limits{Memory: 32 * spec.MiB}}, nil, "sleep", "60")
	p := open(t, l)
	err := p.Command("sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}").Run()
	var exit *nucleus.ExitError
	if !errors.As(err, &exit) || exit.Reason != nucleus.OutOfMemory {
		t.Errorf("got %v, want it out of memory", err)
	}
}

func TestRootOfASandbox(t *testing.T) {
	l := detach(t, &spec.Sandbox{Toolchain: true}, nil, "sh", "-c", "echo inside > /tmp/f; exec sleep 60")
	p := open(t, l)
	dir, err := p.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	eventually(t, "the file is there", func() bool {
		fd, err := unix.Openat2(int(dir.Fd()), "tmp/f", &unix.OpenHow{Flags: unix.O_RDONLY, Resolve: unix.RESOLVE_IN_ROOT})
		if err != nil {
			return false
		}
		f := os.NewFile(uintptr(fd), "f")
		defer f.Close()
		b := make([]byte, 16)
		n, _ := f.Read(b)
		return string(b[:n]) == "inside\n"
	})
}

// TestJoinedIsConfined asks a program that joined what it can do, and again
// without the step that keeps it from doing so.
func TestJoinedIsConfined(t *testing.T) {
	l := detach(t, withProbe(&spec.Sandbox{Toolchain: true}), nil, "sleep", "60")
	p := open(t, l)
	join := func(a *attempt, lines ...line) error {
		c := p.Command(probePath, questions(lines)...)
		if a.edit != nil {
			c.EditPlan(func(p *plan.Plan) { a.changed += a.edit(p) })
		}
		return a.wantCmd(c, lines...)
	}
	t.Run("files", func(t *testing.T) {
		FailsWithout(t, func(a *attempt) error {
			return join(a, line{"open r /etc/shadow", absent}, line{"open r /proc/self/status", "ok"})
		}, without(plan.JoinNamespaces{}).needed())
	})
	t.Run("privileges", func(t *testing.T) {
		const none = "ok:0000000000000000"
		FailsWithout(t, func(a *attempt) error {
			return join(a, line{"status NoNewPrivs", "ok:1"}, line{"status CapEff", none}, line{"status CapBnd", none}, line{"status Seccomp", "ok:2"})
		}, without(plan.DropBounding{}), without(plan.DropCaps{}).holds(), without(plan.NoNewPrivs{}).needed())
	})
	t.Run("file rules", func(t *testing.T) {
		FailsWithout(t, func(a *attempt) error {
			return join(a, line{"write /proc/self/comm x", "ok"}, line{"write /usr/bin/env x", refused})
		}, without(plan.Landlock{}).holds())
	})
}

// TestJoinIsNotFooled: an identity names one process, not whoever has its number.
func TestJoinIsNotFooled(t *testing.T) {
	l := detach(t, &spec.Sandbox{Toolchain: true}, nil, "sleep", "60")
	for _, tc := range []struct{ name, old, new string }{
		{"another start time", `"start":`, `"start":9`},
		{"another boot", `"boot":"`, `"boot":"0`},
		{"another process", `"pid":`, `"pid":1,"x":`},
	} {
		b, err := l.id.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var id nucleus.Identity
		if err := id.UnmarshalJSON([]byte(strings.Replace(string(b), tc.old, tc.new, 1))); err != nil {
			t.Fatal(err)
		}
		if _, err := nucleus.Open(id); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s: got %v, want %v", tc.name, err, os.ErrProcessDone)
		}
	}
}

// TestDetachedIsOnItsOwn: neither our end nor our session matters to it.
func TestDetachedIsOnItsOwn(t *testing.T) {
	l := detach(t, &spec.Sandbox{Toolchain: true}, nil, "sleep", "60")
	sid, err := unix.Getsid(l.id.Pid())
	if err != nil || sid != l.id.Pid() {
		t.Errorf("got session %d, %v; want its own", sid, err)
	}
	eventually(t, "its first process holds the exit file alone", func() bool {
		fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(l.id.Pid()), "fd"))
		return err == nil && len(fds) == 1
	})
	if err := l.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error(err)
	}
}
