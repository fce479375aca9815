package cli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/store"
)

const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

// view starts nucleus with any command, in a session of its own on this terminal.
func (s *screen) view(t *testing.T, env []string, args ...string) {
	t.Helper()
	s.Cmd = exec.Command(nucleus(t), args...)
	s.Env = append(append(os.Environ(), "TERM=xterm", "NO_COLOR="), env...)
	s.Stdin, s.Stdout, s.Stderr = s.slave, s.slave, s.slave
	s.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	check(t, s.Start())
	watchdog := time.AfterFunc(20*time.Second*sandboxtest.Slow(), func() { s.Process.Kill() })
	t.Cleanup(func() {
		watchdog.Stop()
		s.Process.Kill() // nothing is left to kill unless the test failed
		s.Wait()
	})
}

// peek waits until a text is on the screen, and returns everything that is.
func (s *screen) peek(t *testing.T, text string) string {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second * sandboxtest.Slow()); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		shown := s.text.String()
		s.mu.Unlock()
		if strings.Contains(shown, text) {
			return shown
		}
		if time.Now().After(deadline) {
			t.Fatalf("the screen shows %q, want %q", shown, text)
		}
	}
}

// stopped waits until the process is stopped, or is not.
func (s *screen) stopped(t *testing.T, want bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second * sandboxtest.Slow()); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + itoa(s.Process.Pid) + "/stat")
		check(t, err)
		if strings.Contains(string(stat), ") T ") == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %s, want stopped: %v", stat, want)
		}
	}
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

// busy is a store with one sandbox that works and one that sleeps.
func busy(t *testing.T) *store.Store {
	t.Helper()
	s := viewStore(t)
	viewBox(t, s, "worker", "while :; do :; done")
	viewBox(t, s, "idler", "sleep 60 & sleep 60 & sleep 60")
	return s
}

func TestStatsOnce(t *testing.T) {
	s := busy(t)
	_, err := s.Create(store.Config{Name: "new", Command: []string{"true"}})
	check(t, err)
	out, _ := nucleusRun(t, 0, "stats")
	const numbers = ` +\S+B / \S+ +\S+ +[-/0-9.]+ +(-|\S+B / \S+B) +\d+`
	wantMatch(t, out, `NAME +CPU % +MEM USAGE / LIMIT +MEM % +PRESSURE +BLOCK I/O +PIDS`, `idler +\d+\.\d\d%`+numbers, `worker +\d+\.\d\d%`+numbers)
	if strings.Contains(out, "new") || strings.Count(out, "\n") != 3 || strings.Contains(out, "\x1b") {
		t.Errorf("got %q", out)
	}
	out, _ = nucleusRun(t, 0, "stats", "--sort", "cpu", "--format", "{{.Name}}")
	if out != "worker\nidler\n" {
		t.Errorf("by cpu: got %q", out)
	}
	out, _ = nucleusRun(t, 0, "stats", "--sort=pids", "-a", "--format", "table {{.Name}}\t{{.PIDs}}")
	wantMatch(t, out, `NAME +PIDS`, `idler +5`, `worker +2`, `new +-`)
	var all []struct {
		Name, State string
		CPU         *float64 `json:"cpu_percent"`
		Memory      *uint64
		Pids        *uint64
	}
	for end := time.Now().Add(10 * time.Second * sandboxtest.Slow()); ; { // others may have the processors for a while
		all = nil
		out, _ = nucleusRun(t, 0, "stats", "worker", "new", "--json")
		wantJSON(t, out, &all)
		if len(all) == 2 && all[1].CPU != nil && *all[1].CPU >= 1 || time.Now().After(end) {
			break
		}
	}
	if len(all) != 2 || all[1].Name != "worker" || all[1].CPU == nil || *all[1].CPU < 1 || all[1].Memory == nil || *all[1].Pids != 2 || all[0].State != "created" || all[0].Memory != nil {
		t.Errorf("got %s", out)
	}
	nucleusRun(t, 1, "stats", "nobody")
	nucleusRun(t, 2, "stats", "--sort", "size")
	nucleusRun(t, 2, "stats", "--watch", "--no-stream")
}

// TestStatsWatch: a stream is a line of JSON for each, and outlives sandboxes.
func TestStatsWatch(t *testing.T) {
	s := busy(t)
	cmd := exec.Command(nucleus(t), "stats", "--watch", "--json")
	r, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	watchdog := time.AfterFunc(20*time.Second*sandboxtest.Slow(), func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	in := json.NewDecoder(r)
	seen := map[string]int{}
	for rounds := 0; seen["later"] < 2; rounds++ {
		var one struct{ Name string }
		check(t, in.Decode(&one))
		seen[one.Name]++
		if rounds == 1 {
			b, err := s.Sandbox("worker")
			check(t, err)
			check(t, b.Remove(t.Context(), true))
			viewBox(t, s, "later", "sleep 60")
			seen["worker"] = 0
		}
	}
	if seen["worker"] > 1 || seen["idler"] < 3 {
		t.Errorf("got %v", seen)
	}
	check(t, r.Close()) // who reads no more ends it
	cmd.Wait()
	if st := cmd.ProcessState.Sys().(syscall.WaitStatus); st.Signal() != syscall.SIGPIPE {
		t.Errorf("got %v", cmd.ProcessState)
	}
}

func TestStatsScreen(t *testing.T) {
	busy(t)
	s := openScreen(t)
	s.resize(t, 33, 100)
	s.view(t, nil, "stats")
	s.wait(t, enterScreen)
	s.wait(t, "\x1b[H\x1b[1m")
	s.wait(t, "2 sandboxes by name")
	s.wait(t, "\x1b[m\x1b[K\r\nNAME")
	s.wait(t, "\r\nidler ")
	s.wait(t, "\r\nworker ")
	s.wait(t, "\x1b[K\x1b[J")
	if s.settings(t).Lflag&(unix.ICANON|unix.ECHO) != 0 {
		t.Error("the terminal waits for Enter")
	}
	for _, key := range []struct{ key, by, first string }{{"c", "cpu", "worker"}, {"p", "pids", "idler"}, {"m", "mem", ""}, {"i", "io", ""}, {"n", "name", "idler"}} {
		s.write(t, key.key)
		s.wait(t, " by "+key.by+" ")
		s.wait(t, "PIDS\x1b[K\r\n"+key.first)
	}
	s.write(t, "xyz\x1b[A") // keys that mean nothing do nothing
	s.resize(t, 1, 100)
	check(t, s.Process.Signal(syscall.SIGWINCH))
	s.wait(t, "name i: io\x1b[m\x1b[K\x1b[J\x1b[H") // nothing after the first line
	s.write(t, "q")
	s.wait(t, leaveScreen)
	s.ends(t, 0)
}

// TestStatsScreenFits: a frame has neither more lines nor longer ones than the screen.
func TestStatsScreenFits(t *testing.T) {
	busy(t)
	s := openScreen(t)
	s.resize(t, 3, 24)
	s.view(t, nil, "stats")
	s.wait(t, "\x1b[K\x1b[J")
	s.wait(t, "\x1b[H") // a frame begins
	frame, _, whole := strings.Cut(s.peek(t, "\x1b[K\x1b[J"), "\x1b[K\x1b[J")
	lines := strings.Split(regexp.MustCompile(`\x1b\[[0-9]*[a-zA-Z]`).ReplaceAllString(frame, ""), "\r\n")
	if !whole || len(lines) != 3 {
		t.Errorf("got %d lines: %q", len(lines), frame)
	}
	for _, line := range lines {
		if len(line) > 24 {
			t.Errorf("got %q", line)
		}
	}
	s.write(t, "\x03")
	s.ends(t, 130)
}

// TestStatsScreenIsRestored: whatever ends it.
func TestStatsScreenIsRestored(t *testing.T) {
	viewStore(t)
	for _, tc := range []struct {
		name string
		sig  syscall.Signal
		key  string
		code int
	}{
		{"q", 0, "q", 0},
		{"interrupt key", 0, "\x03", 130},
		{"quit key", 0, "\x1c", 131},
		{"INT", syscall.SIGINT, "", 130},
		{"TERM", syscall.SIGTERM, "", 143},
		{"HUP", syscall.SIGHUP, "", 129},
		{"QUIT", syscall.SIGQUIT, "", 131},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openScreen(t)
			s.view(t, nil, "stats")
			s.wait(t, "0 sandboxes")
			if tc.sig != 0 {
				check(t, s.Process.Signal(tc.sig))
			}
			s.write(t, tc.key)
			s.wait(t, leaveScreen)
			s.ends(t, tc.code)
		})
	}
	t.Run("an error", func(t *testing.T) {
		s := openScreen(t)
		dir := t.TempDir() + "/state"
		s.view(t, []string{"NUCLEUS_STATE_DIR=" + dir}, "stats")
		s.wait(t, "0 sandboxes")
		check(t, os.RemoveAll(dir))
		s.wait(t, leaveScreen)
		s.wait(t, "nucleus: list sandboxes: ")
		s.ends(t, 1)
	})
}

// TestStatsScreenStops: the shell has its terminal while the view is stopped.
func TestStatsScreenStops(t *testing.T) {
	viewStore(t)
	s := openScreen(t)
	s.view(t, nil, "stats")
	s.wait(t, "0 sandboxes")
	for _, stop := range []func(){
		func() { s.write(t, "\x1a") },
		func() { check(t, s.Process.Signal(syscall.SIGTSTP)) },
	} {
		stop()
		s.wait(t, leaveScreen)
		s.stopped(t, true)
		if now := s.settings(t); now != s.found {
			t.Errorf("the terminal is %+v, found as %+v", now, s.found)
		}
		check(t, s.Process.Signal(syscall.SIGCONT))
		s.wait(t, enterScreen)
		s.wait(t, "0 sandboxes")
		if s.settings(t).Lflag&unix.ICANON != 0 {
			t.Error("the terminal waits for Enter")
		}
	}
	s.write(t, "q")
	s.ends(t, 0)
}

// TestStatsPlainTerminal: neither colours nor a clever terminal are needed.
func TestStatsPlainTerminal(t *testing.T) {
	busy(t)
	s := openScreen(t)
	s.view(t, []string{"NO_COLOR=1"}, "stats")
	s.wait(t, enterScreen)
	if frame := s.peek(t, "\x1b[J"); strings.Contains(frame, "\x1b[1m") {
		t.Errorf("got %q", frame)
	}
	s.wait(t, "worker")
	s.write(t, "q")
	s.wait(t, leaveScreen)
	s.ends(t, 0)

	s = openScreen(t)
	s.view(t, []string{"TERM=dumb"}, "stats")
	s.wait(t, "NAME")
	s.wait(t, "worker")
	s.wait(t, "NAME")
	s.mu.Lock()
	text := s.text.String()
	s.mu.Unlock()
	if strings.Contains(text, "\x1b") {
		t.Errorf("got %q", text)
	}
	s.write(t, "\x03")
	s.Wait()
	if st := s.ProcessState.Sys().(syscall.WaitStatus); st.Signal() != syscall.SIGINT {
		t.Errorf("got %v", s.ProcessState)
	}

	s = openScreen(t)
	s.view(t, nil, "stats", "--no-stream")
	s.wait(t, "worker")
	s.ends(t, 0)
}

// TestTerminalGetsNoCommands: what a pipe gets as it is, a terminal does not.
func TestTerminalGetsNoCommands(t *testing.T) {
	s := viewStore(t)
	viewBox(t, s, "web", "sleep 60")
	term := openScreen(t)
	term.view(t, nil, "inspect", "--format", "{{.Labels.team}}", "web")
	term.wait(t, `in\x1bfra`)
	term.ends(t, 0)
	var out bytes.Buffer
	cmd := exec.Command(nucleus(t), "inspect", "web")
	cmd.Stdout = &out
	check(t, cmd.Run())
	if !strings.Contains(out.String(), `in\u001bfra`) {
		t.Errorf("got %s", &out)
	}
}
