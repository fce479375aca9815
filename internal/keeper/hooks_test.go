package keeper_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// note is a hook that writes down its name and what it is told.
func (h hooks) note(name, then string) spec.Hook {
	return spec.Hook{Path: h.shell, Args: []string{"sh", "-c", "{ echo " + name + "; cat; echo; } >>" + h.file + "; " + then}, Env: []string{"PATH=/usr/bin:/bin"}}
}

type hooks struct{ shell, file string }

// newHooks finds a shell that may be a hook: its path has no link that others
// could change.
func newHooks(t *testing.T) hooks {
	t.Helper()
	path, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		sandboxtest.Need(t, sandboxtest.Program("/bin/sh"))
	}
	return hooks{path, t.TempDir() + "/notes"}
}

// told is what the hooks have written down.
func (h hooks) told(t *testing.T) (names []string, states []map[string]any) {
	t.Helper()
	data, err := os.ReadFile(h.file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "{") {
			names = append(names, line)
			continue
		}
		var s map[string]any
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		states = append(states, s)
	}
	return names, states
}

func (h hooks) wantNames(t *testing.T, want string) []map[string]any {
	t.Helper()
	names, states := h.told(t)
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got the hooks %q, want %q", got, want)
	}
	return states
}

func TestHooks(t *testing.T) {
	h := newHooks(t)
	b := start(t, open(t), spec.Service{Hooks: spec.Hooks{
		// The program has not run yet, and its network is there.
		CreateRuntime: []spec.Hook{h.note("create1", "test ! -e "+h.file+".ran"), h.note("create2", "")},
		Poststart:     []spec.Hook{h.note("start", "sleep 0.2")},
		Poststop:      []spec.Hook{h.note("stop1", "exit 1"), h.note("stop2", "")},
	}}, "until test -e go; do sleep 0.01; done", func(c *store.Config) { c.Labels = map[string]string{"team": "a"} })
	pid := b.info().Pid
	h.wantNames(t, "create1 create2 start") // the start is complete when they are
	b.write("go", "")
	b.ended()
	states := h.wantNames(t, "create1 create2 start stop1 stop2")
	if len(states) != 5 {
		t.Fatalf("got %v", states)
	}
	for i, status := range []string{"creating", "creating", "running", "stopped", "stopped"} {
		s := states[i]
		got, _ := s["pid"].(float64)
		want := pid
		if status == "stopped" {
			want = 0
		}
		if s["status"] != status || s["id"] != b.ID() || int(got) != want || s["bundle"] != filepath.Dir(b.Path("record.json")) || s["annotations"].(map[string]any)["team"] != "a" {
			t.Errorf("hook %d: got %v, want status %s, pid %d", i, s, status, want)
		}
	}
	b.wantEvents("start", "end", "hook error=hooks.poststop[0]: hook "+h.shell)
	if n := b.count("hook"); n != 1 {
		t.Errorf("got %d events of hooks: %q", n, b.events())
	}
}

func TestHooksThatFail(t *testing.T) {
	for _, tc := range []struct {
		name  string
		hooks func(hooks) spec.Hooks
		names string
		want  []string
		ran   bool
	}{
		{"createRuntime", func(h hooks) spec.Hooks {
			return spec.Hooks{CreateRuntime: []spec.Hook{h.note("a", "echo no such bridge >&2; exit 3"), h.note("b", "")}, Poststart: []spec.Hook{h.note("c", "")}, Poststop: []spec.Hook{h.note("d", "")}}
		}, "a d", []string{"hooks.createRuntime[0]", "exit status 3", "no such bridge"}, false},
		{"poststart", func(h hooks) spec.Hooks {
			return spec.Hooks{CreateRuntime: []spec.Hook{h.note("a", "")}, Poststart: []spec.Hook{h.note("b", "exit 4"), h.note("c", "")}, Poststop: []spec.Hook{h.note("d", "")}}
		}, "a b d", []string{"hooks.poststart[0]", "exit status 4"}, true},
		{"poststart takes too long", func(h hooks) spec.Hooks {
			slow := h.note("a", "exec sleep 60")
			slow.Timeout = 200 * time.Millisecond * sandboxtest.Slow()
			return spec.Hooks{Poststart: []spec.Hook{slow}}
		}, "a", []string{"hooks.poststart[0]", "did not end within " + (200 * time.Millisecond * sandboxtest.Slow()).String()}, true},
		{"one that nobody may run", func(h hooks) spec.Hooks {
			return spec.Hooks{CreateRuntime: []spec.Hook{h.note("a", "")}, Poststop: []spec.Hook{{Path: h.file}}}
		}, "", []string{"notes"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHooks(t)
			b := create(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}, Hooks: tc.hooks(h)}, "touch ran; exec sleep 60")
			wantWords(t, b.startError(), tc.want...)
			h.wantNames(t, tc.names)
			b.until("over", func(i store.Info) bool { return !i.Running() && !i.Kept })
			if _, err := os.Stat(b.dir + "/ran"); err == nil && !tc.ran {
				t.Error("the program ran")
			}
		})
	}
}

// TestHooksOfEveryRun: a run that is started again has its own.
func TestHooksOfEveryRun(t *testing.T) {
	h := newHooks(t)
	b := start(t, open(t), spec.Service{Restart: spec.Restart{Policy: spec.RestartOnFailure, Max: 1}, Hooks: spec.Hooks{
		CreateRuntime: []spec.Hook{h.note("create", "")}, Poststart: []spec.Hook{h.note("start", "")}, Poststop: []spec.Hook{h.note("stop", "")},
	}}, "exit 1")
	b.ended()
	h.wantNames(t, "create start stop create start stop")
}

// TestLingeringHook: what a hook leaves running keeps nobody waiting for the report.
func TestLingeringHook(t *testing.T) {
	h := newHooks(t)
	began := time.Now()
	start(t, open(t), spec.Service{Hooks: spec.Hooks{CreateRuntime: []spec.Hook{h.note("a", "sleep 20 & echo $! >"+h.file+".pid")}}}, "exec sleep 60")
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the start took %v", took)
	}
	data, err := os.ReadFile(h.file + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if err := json.Unmarshal(data, &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the hook's own: %v", err)
	}
	gone(t, pid)
}
