package cli_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// managed is a place for sandboxes that systemd runs.
type managed struct {
	*testing.T
	bin   string
	state string
}

func underSystemd(t *testing.T) *managed {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Systemd, sandboxtest.Userns)
	m := &managed{T: t, bin: nucleus(t), state: filepath.Join(t.TempDir(), "state")}
	t.Cleanup(func() { removeSandboxes(t, m.state) })
	return m
}

// do runs a program and returns what it says and its exit code.
func (m *managed) do(name string, args ...string) (out string, code int) {
	m.Helper()
	var b bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "NUCLEUS_STATE_DIR="+m.state)
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return b.String(), exit.ExitCode()
	}
	if err != nil {
		m.Fatalf("%s %q: %v", name, args, err)
	}
	return b.String(), 0
}

// nucleus wants an exit code.
func (m *managed) nucleus(code int, args ...string) string {
	m.Helper()
	out, got := m.do(m.bin, args...)
	if got != code {
		m.Fatalf("nucleus %q: exit code %d, want %d\n%s", args, got, code, out)
	}
	return out
}

// systemctl speaks to our service manager.
func (m *managed) systemctl(args ...string) (string, int) {
	m.Helper()
	if os.Getuid() != 0 {
		args = append([]string{"--user"}, args...)
	}
	return m.do("systemctl", args...)
}

func (m *managed) eventually(what string, ok func() (string, bool)) {
	m.Helper()
	for deadline := time.Now().Add(20 * time.Second * sandboxtest.Slow()); ; time.Sleep(50 * time.Millisecond) {
		got, done := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			m.Fatalf("never: %s; at last: %s", what, got)
		}
	}
}

func (m *managed) look(name string) string {
	m.Helper()
	return strings.TrimSpace(m.nucleus(0, "ps", "-a", "--filter", "name="+name, "--format", "{{.State}} {{.ExitCode}}"))
}

func TestSystemdRunsASandbox(t *testing.T) {
	m := underSystemd(t)
	id := strings.TrimSpace(m.nucleus(0, "run", "-d", "--systemd", "--name", "sd", "--memory", "64M", "--", "sh", "-c", "echo to stdout; echo to stderr >&2; exec sleep 1000"))
	unit := "nucleus-" + id + ".service"
	if out, code := m.systemctl("is-active", unit); code != 0 {
		t.Fatalf("%s is %s", unit, out)
	}
	if out := m.nucleus(0, "exec", "sd", "--", "sh", "-c", "echo joined; cat /proc/self/cgroup"); !strings.HasPrefix(out, "joined\n") {
		t.Errorf("exec: got %q", out)
	}
	m.eventually("the journal has its output", func() (string, bool) {
		out := m.nucleus(0, "logs", "sd")
		return out, out == "to stdout\nto stderr\n"
	})
	if out := m.nucleus(0, "stats", "--no-stream", "--json", "sd"); !strings.Contains(out, `"memory_limit": 67108864`) && !strings.Contains(out, `"memory_limit":67108864`) {
		t.Errorf("stats: got %s", out)
	}
	m.nucleus(0, "pause", "sd")
	m.nucleus(0, "unpause", "sd")
	m.nucleus(0, "stop", "sd")
	if got := m.look("sd"); got != "exited 143" {
		t.Errorf("got %q, want it exited by TERM", got)
	}
	m.eventually("the unit is gone", func() (string, bool) {
		out, code := m.systemctl("is-active", unit)
		return out, code != 0
	})
	m.nucleus(0, "start", "sd")
	if got := m.look("sd"); !strings.HasPrefix(got, "running") {
		t.Errorf("started again: got %q", got)
	}
	// The manager's own verb asks the program to end, as ours does.
	if out, code := m.systemctl("stop", unit); code != 0 {
		t.Fatalf("systemctl stop: %s", out)
	}
	if got := m.look("sd"); got != "exited 143" {
		t.Errorf("after systemctl stop: got %q", got)
	}
	m.nucleus(0, "rm", "sd")
}

func TestSystemdSaysWhyNot(t *testing.T) {
	m := underSystemd(t)
	if out := m.nucleus(127, "run", "-d", "--systemd", "--", "no-such-program"); !strings.Contains(out, "no-such-program") || !strings.Contains(out, "hint:") {
		t.Errorf("got %q, want the reason and a hint", out)
	}
	if out := m.nucleus(0, "ps", "-aq"); out != "" {
		t.Errorf("left behind: %s", out)
	}
}

func TestSystemdOutOfMemory(t *testing.T) {
	m := underSystemd(t)
	sandboxtest.Need(t, sandboxtest.Cgroup)
	m.nucleus(0, "run", "-d", "--systemd", "--name", "hungry", "--memory", "32M", "--", "sh", "-c", "sleep 0.5; x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}")
	m.nucleus(0, "wait", "hungry")
	if out := m.nucleus(0, "inspect", "--format", "{{.Reason}}", "hungry"); strings.TrimSpace(out) != "out of memory" {
		t.Errorf("got %q", out)
	}
}

// TestGeneratedUnitWorks has the manager run what generate wrote.
func TestGeneratedUnitWorks(t *testing.T) {
	m := underSystemd(t)
	m.nucleus(0, "run", "-d", "--name", "gen", "--sd-notify", "--tmpfs", "/scratch", "--", "sh", "-c", `systemd-notify --ready --status=up; exec sleep 1000`)
	text := m.nucleus(0, "generate", "systemd", "gen")
	m.nucleus(0, "rm", "-f", "gen")
	dir := "/run/systemd/system"
	if os.Getuid() != 0 {
		dir = os.Getenv("XDG_RUNTIME_DIR") + "/systemd/user"
		check(t, os.MkdirAll(dir, 0o755))
	}
	const unit = "nucleus-test-generated.service"
	text = strings.Replace(text, "[Service]\n", "[Service]\nEnvironment=NUCLEUS_STATE_DIR="+m.state+"\n", 1)
	check(t, os.WriteFile(filepath.Join(dir, unit), []byte(text), 0o644))
	t.Cleanup(func() {
		m.systemctl("stop", unit)
		os.Remove(filepath.Join(dir, unit))
		m.systemctl("daemon-reload")
		m.systemctl("reset-failed", unit)
	})
	m.systemctl("daemon-reload")
	if out, code := m.systemctl("start", unit); code != 0 {
		status, _ := m.systemctl("status", "--no-pager", "-l", unit)
		t.Fatalf("start: %s\n%s\n%s", out, status, text)
	}
	if out := m.nucleus(0, "exec", "gen", "--", "sh", "-c", "touch /scratch/x && echo it works"); out != "it works\n" {
		t.Errorf("got %q", out)
	}
	if out, code := m.systemctl("stop", unit); code != 0 {
		t.Errorf("stop: %s", out)
	}
	if out, _ := m.systemctl("show", "--property=Result", "--value", unit); strings.TrimSpace(out) != "success" {
		t.Errorf("the unit ended with %q, want success", out)
	}
	if out := m.nucleus(0, "ps", "-aq"); out != "" {
		t.Errorf("left behind: %s", out)
	}
}
