package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/record"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// viewState is an empty store, the one that nucleus finds in this test.
func viewState(t *testing.T) *store.Store {
	t.Helper()
	dir := t.TempDir() + "/state"
	t.Setenv("NUCLEUS_STATE_DIR", dir)
	s, err := store.Open("")
	check(t, err)
	return s
}

// viewStore is viewState for sandboxes that live: they are removed at the end.
func viewStore(t *testing.T) *store.Store {
	t.Helper()
	s := viewState(t)
	t.Cleanup(func() {
		all, err := s.List(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, i := range all {
			b, err := s.Sandbox(i.ID)
			if err == nil {
				err = b.Remove(context.Background(), true)
			}
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Errorf("remove %s: %v", i.ID, err)
			}
		}
	})
	return s
}

// viewBox starts a sandbox that runs a shell script.
func viewBox(t *testing.T, s *store.Store, name, script string) *store.Sandbox {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Userns)
	b, err := s.Create(store.Config{
		Name: name, Sandbox: spec.Sandbox{Toolchain: true}, Command: []string{"sh", "-c", script}, Labels: map[string]string{"team": "in\x1bfra"},
	})
	check(t, err)
	check(t, b.Start(context.Background()))
	return b
}

// fabricate makes records of sandboxes that ended a moment ago, or run as the
// given process.
func fabricate(t testing.TB, n int, c record.Config, live *record.Proc) {
	t.Helper()
	d, err := record.Open("")
	if err != nil {
		t.Fatal(err)
	}
	boot, err := kernel.BootID()
	if err != nil {
		t.Fatal(err)
	}
	prefix := c.Name
	for i := range n {
		c.Name, c.ID = fmt.Sprintf("%s%d", prefix, i), ""
		c.Created = time.Time{}
		e, err := d.Create(&c)
		if err != nil {
			t.Fatal(err)
		}
		r := &record.Record{State: record.StateEnded, Boot: boot, Run: 1, Started: time.Now(), Ended: time.Now(), Outcome: &record.Outcome{Reason: "exited", Code: 3}}
		if live != nil {
			r.State, r.Ended, r.Outcome, r.Pid, r.StartTicks, r.Keeper = record.StateRunning, time.Time{}, nil, live.Pid, live.Start, live
			r.Health = "healthy"
		}
		if err := errors.Join(e.SetRecord(r), e.Unlock()); err != nil {
			t.Fatal(err)
		}
	}
}

// nucleusRun runs nucleus and wants an exit code.
func nucleusRun(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second*sandboxtest.Slow())
	defer cancel()
	cmd := exec.CommandContext(ctx, nucleus(t), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("nucleus %q: got %v, want exit code %d\n%s%s", args, cmd.ProcessState, code, &out, &errs)
	}
	return out.String(), errs.String()
}

// wantMatch wants every pattern on a line of the text, in order.
func wantMatch(t *testing.T, text string, patterns ...string) {
	t.Helper()
	rest := text
	for _, p := range patterns {
		at := regexp.MustCompile("(?m)^" + p + "$").FindStringIndex(rest)
		if at == nil {
			t.Fatalf("got:\n%s\nwant a line that is %s", text, p)
		}
		rest = rest[at[1]:]
	}
}

func wantJSON(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

func TestPs(t *testing.T) {
	ctx := context.Background()
	s := viewStore(t)
	out, _ := nucleusRun(t, 0, "ps")
	if out != "ID   NAME   COMMAND   STATUS   CREATED\n" {
		t.Errorf("nothing: got %q", out)
	}
	ended := viewBox(t, s, "ended", "exit 3 # \x1b]0;owned\a \u009b31m 日本語日本語日本語日本語")
	_, err := ended.Wait(ctx)
	check(t, err)
	b := viewBox(t, s, "", "sleep 60")
	viewBox(t, s, "web", "sleep 60")
	_, err = s.Create(store.Config{Name: "new", Command: []string{"true"}})
	check(t, err)
	const ago = `(Less than a second|\d+ seconds?)`
	id := b.ID()[:12]
	out, _ = nucleusRun(t, 0, "ps")
	wantMatch(t, out, `ID +NAME +COMMAND +STATUS +CREATED`, `[0-9a-f]{12}   web +sh -c sleep 60 +Up `+ago+` +`+ago+` ago`, id+` +sh -c sleep 60 +Up .*`)
	if n := strings.Count(out, "\n"); n != 3 {
		t.Errorf("got %d lines:\n%s", n, out)
	}
	out, _ = nucleusRun(t, 0, "ps", "--all", "--no-trunc")
	wantMatch(t, out, `.* new +true +Created +`+ago+` ago`, b.ID()+` .*`, `[0-9a-f]{16}   ended   sh -c exit 3 # \\x1b\]0;owned\\a \\u009b31m 日本語日本語日本語日本語   Exited \(3\) `+ago+` ago +`+ago+` ago`)
	out, _ = nucleusRun(t, 0, "ps", "-aq")
	wantMatch(t, out, `[0-9a-f]{12}`, `[0-9a-f]{12}`, id, ended.ID()[:12])
	out, _ = nucleusRun(t, 0, "ps", "--filter", "status=exited", "--format", `table {{.Names}}\t{{.Label "team"}}\t{{.ExitCode}}`)
	if want := "NAMES   TEAM        EXIT CODE\nended   in\\x1bfra   3\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	var all []struct {
		Name, State string
		Command     []string
		ExitCode    int `json:"exit_code"`
		Labels      map[string]string
	}
	out, _ = nucleusRun(t, 0, "ps", "-a", "--json")
	wantJSON(t, out, &all)
	if len(all) != 4 || all[3].Name != "ended" || all[3].State != "exited" || all[3].ExitCode != 3 || all[3].Labels["team"] != "in\x1bfra" || !strings.Contains(all[3].Command[2], "\u009b31m 日") {
		t.Errorf("got %+v", all)
	}
	if strings.ContainsAny(out, "\x1b\a\u009b") {
		t.Errorf("got %q", out)
	}
	out, _ = nucleusRun(t, 0, "ps", "-n", "2", "--format", "json")
	if n := strings.Count(out, "\n"); n != 2 {
		t.Errorf("got %d lines: %s", n, out)
	}
	for _, bad := range [][]string{
		{"--format", "{{.Nmae}}"}, {"--format", "{{range .}}"}, {"--format", "table "}, {"--json", "--format", "x"}, {"-q", "--json"}, {"--filter", "status=up"}, {"--filter", "x=y"}, {"x"},
	} {
		if out, errs := nucleusRun(t, 2, append([]string{"ps"}, bad...)...); out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: got %q and %q", bad, out, errs)
		}
	}
	nucleusRun(t, 1, "ps", "--filter", "since=nobody")
}

// TestPsBroken: what cannot be read is said, and keeps nobody from reading the rest.
func TestPsBroken(t *testing.T) {
	s := viewState(t)
	fabricate(t, 1, record.Config{Name: "good", Command: []string{"true"}}, nil)
	for id, text := range map[string]string{"b000000000000000": "{\"\x1b]0;x\a", "b100000000000000": `{"version": 99}`, "b200000000000000": ""} {
		dir := filepath.Join(s.Path(), "sandboxes", id)
		check(t, os.Mkdir(dir, 0o700))
		check(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600))
	}
	for _, args := range [][]string{{"ps", "-a"}, {"ps"}} {
		out, _ := nucleusRun(t, 0, args...)
		if strings.ContainsAny(out, "\x1b\a") {
			t.Errorf("got %q", out)
		}
		for _, want := range []string{`b00000000000 +Broken: .*config.json: invalid character.*`, `b10000000000 +Broken: .* has version 99.*`, `b20000000000 +Broken: .*config.json: .+`} {
			wantMatch(t, out, want)
		}
		if has := strings.Contains(out, "good0"); has != (len(args) == 2) {
			t.Errorf("%q: got\n%s", args, out)
		}
	}
	out, _ := nucleusRun(t, 0, "ps", "--filter", "status=broken", "--json")
	var all []struct{ ID, State, Problem string }
	wantJSON(t, out, &all)
	if len(all) != 3 || all[0].State != "broken" || all[0].Problem == "" {
		t.Errorf("got %s", out)
	}
	_, errs := nucleusRun(t, 1, "inspect", "b100000000000000", "good0")
	if !strings.Contains(errs, "version 99") {
		t.Errorf("got %q", errs)
	}
}

// TestPsVanishing: sandboxes come and go while they are listed.
func TestPsVanishing(t *testing.T) {
	viewState(t)
	fabricate(t, 50, record.Config{Name: "stays", Command: []string{"true"}}, nil)
	d, err := record.Open("")
	check(t, err)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			var made []*record.Entry
			for range 10 {
				e, err := d.Create(&record.Config{Command: []string{"true"}})
				if err != nil {
					done <- err
					return
				}
				made = append(made, e)
			}
			for _, e := range made {
				if err := e.Remove(); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	for range 20 {
		out, errs := nucleusRun(t, 0, "ps", "-a")
		if n := strings.Count(out, " stays"); n != 50 || strings.Contains(out, "Broken") || errs != "" {
			t.Fatalf("got %d that stay:\n%s%s", n, out, errs)
		}
	}
	close(stop)
	check(t, <-done)
}

// TestPsThousand: a thousand sandboxes are listed. How long that takes, make soak
// measures.
func TestPsThousand(t *testing.T) {
	viewState(t) // the processes are not ours to end: there is nothing to clean up after
	sleep := exec.Command("sleep", "600")
	check(t, sleep.Start())
	defer func() { sleep.Process.Kill(); sleep.Wait() }()
	start, err := kernel.StartTime(sleep.Process.Pid)
	check(t, err)
	c := record.Config{
		Name: "web-", Command: []string{"/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1"},
		Sandbox: spec.Sandbox{
			Toolchain: true, Workspace: &spec.Bind{Source: "/home/user/project"}, Env: []string{"LANG=C.UTF-8", "HOME=/root"},
			Volumes: []spec.Volume{{Source: "/srv/data", Target: "/data", Writable: true}}, Limits: spec.Limits{Memory: spec.GiB, MilliCPUs: 1500},
		},
		Service: spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}, Health: &spec.Check{TCP: "127.0.0.1:80"}},
		Labels:  map[string]string{"team": "infra"},
	}
	fabricate(t, 500, c, nil)
	c.Name = "live-"
	fabricate(t, 500, c, &record.Proc{Pid: sleep.Process.Pid, Start: start})
	out, _ := nucleusRun(t, 0, "ps", "-a")
	live, ended := strings.Count(out, "(healthy)"), strings.Count(out, "Exited (3)")
	if live != 500 || ended != 500 {
		t.Errorf("got %d live ones and %d that have ended, want 500 of each", live, ended)
	}
}

func TestInspect(t *testing.T) {
	s := viewStore(t)
	ended := viewBox(t, s, "ended", "exit 3")
	_, err := ended.Wait(context.Background())
	check(t, err)
	b := viewBox(t, s, "web", "sleep 60 & sleep 60")
	for n := 0; n < 3; { // until both have begun
		time.Sleep(5 * time.Millisecond)
		out, _ := nucleusRun(t, 0, "top", "web", "--json")
		n = strings.Count(out, `"sleep 60"`) + 1
	}
	out, errs := nucleusRun(t, 1, "inspect", "web", "nobody", "ended")
	if !strings.Contains(errs, "nobody") {
		t.Errorf("got %q", errs)
	}
	var all []struct {
		ID, Name, State string
		Pid             int
		ExitCode        int `json:"exit_code"`
		Sandbox         spec.Sandbox
		Live            *struct {
			Pid, Processes int
			Namespaces     map[string]string
			Cgroups        []string
			Stats          struct{ Memory, Pids uint64 }
			Problem        string
		}
	}
	wantJSON(t, out, &all)
	if len(all) != 2 || all[0].ID != b.ID() || all[1].Name != "ended" || all[1].Live != nil || all[1].ExitCode != 3 || !all[1].Sandbox.Toolchain {
		t.Fatalf("got %s", out)
	}
	live := all[0].Live
	if live == nil || live.Pid != all[0].Pid || live.Processes != 4 || live.Stats.Memory == 0 || live.Stats.Pids != 4 || live.Problem != "" {
		t.Errorf("got %s", out)
	}
	mine, err := os.Readlink("/proc/self/ns/pid")
	check(t, err)
	if ns := live.Namespaces["pid"]; !strings.HasPrefix(ns, "pid:[") || ns == mine {
		t.Errorf("got namespaces %v, ours is %s", live.Namespaces, mine)
	}
	groups, err := b.Groups()
	check(t, err)
	if !slices.Equal(live.Cgroups, groups) {
		t.Errorf("got groups %q, want %q", live.Cgroups, groups)
	}
	out, _ = nucleusRun(t, 0, "inspect", "--format", `{{.Name}} {{.State}} {{.Live.Processes}} {{index .Labels "team" | json}}`, "web", "ended")
	if want := "web running 4 \"in\\u001bfra\"\nended exited 0 \"in\\u001bfra\"\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	out, _ = nucleusRun(t, 0, "inspect", "web", "--format={{.Labels.team}}") // a pipe gets what there is
	if out != "in\x1bfra\n" {
		t.Errorf("got %q", out)
	}
	nucleusRun(t, 2, "inspect")
	nucleusRun(t, 2, "inspect", "--format", "{{.Live.Nothing}}", "web")
	nucleusRun(t, 2, "inspect", "--format", "table {{.Name}}", "web")
}

func TestTop(t *testing.T) {
	s := viewStore(t)
	b := viewBox(t, s, "web", "sleep 61 & exec sleep 62")
	_, err := s.Create(store.Config{Name: "new", Command: []string{"true"}})
	check(t, err)
	var out string
	for deadline := time.Now().Add(10 * time.Second * sandboxtest.Slow()); strings.Contains(out, "sh -c") || !strings.Contains(out, "sleep 61") || !strings.Contains(out, "sleep 62"); {
		if time.Now().After(deadline) {
			t.Fatalf("got:\n%s", out)
		}
		out, _ = nucleusRun(t, 0, "top", "web")
	}
	i, err := b.Info(context.Background())
	check(t, err)
	wantMatch(t, out, `PID +INSIDE +USER +STATE +THREADS +RSS +TIME +COMMAND`,
		fmt.Sprintf(`%d +1 +root +S +1 +\S+ +00:00:00 +nucleus-init`, i.Pid), `\d+ +2 +root +[RSD] +1 +\S+iB +00:00:00 +sleep 62`, `\d+ +\d+ +root +[RSD] +1 +\S+iB +00:00:00 +sleep 61`)
	out, _ = nucleusRun(t, 0, "top", "--format", "{{.Inside}} {{.Command}}", "web")
	wantMatch(t, out, "1 nucleus-init", "2 sleep 62")
	out, _ = nucleusRun(t, 0, "top", "web", "--json")
	var all []struct{ Pid, Inside, Parent, Threads int }
	wantJSON(t, out, &all)
	if len(all) != 3 || all[0].Pid != i.Pid || all[1].Parent != i.Pid {
		t.Errorf("got %s", out)
	}
	_, errs := nucleusRun(t, 1, "top", "new")
	if !strings.Contains(errs, "not running") {
		t.Errorf("got %q", errs)
	}
	nucleusRun(t, 2, "top", "web", "new")
	nucleusRun(t, 1, "top", "nobody")
}

func TestLogs(t *testing.T) {
	ctx := context.Background()
	s := viewStore(t)
	b := viewBox(t, s, "web", "printf 'one\\ntwo\\n\\033[31mthree\\n'; echo err >&2; until [ -e /tmp/go ]; do sleep 0.02; done; echo more; exit 0")
	for deadline := time.Now().Add(10 * time.Second * sandboxtest.Slow()); ; {
		out, errs := nucleusRun(t, 0, "logs", "web")
		if out == "one\ntwo\n\x1b[31mthree\n" && errs == "err\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %q and %q", out, errs)
		}
	}
	for _, tc := range []struct{ flags, out, errs string }{
		{"-n all", "one\ntwo\n\x1b[31mthree\n", "err\n"},
		{"--tail 2", "\x1b[31mthree\n", "err\n"},
		{"-n 0", "", ""},
		{"--since 1h --until -1h", "one\ntwo\n\x1b[31mthree\n", "err\n"},
		{"--since -1h", "", ""},
		{"--until 1h", "", ""},
	} {
		args := append([]string{"logs", "web"}, strings.Fields(tc.flags)...)
		if out, errs := nucleusRun(t, 0, args...); out != tc.out || errs != tc.errs {
			t.Errorf("%s: got %q and %q", tc.flags, out, errs)
		}
	}
	out, _ := nucleusRun(t, 0, "logs", "--timestamps", "web")
	wantMatch(t, out, `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z one`, `\S+Z two`)

	var followed bytes.Buffer
	follow := exec.Command(nucleus(t), "logs", "-f", "-n", "1", "web")
	follow.Stdout = &followed
	check(t, follow.Start())
	p, err := b.Process()
	check(t, err)
	check(t, p.Command("touch", "/tmp/go").Run())
	check(t, p.Close())
	if err := follow.Wait(); err != nil { // it ends with the sandbox
		t.Errorf("logs -f: %v", err)
	}
	if got := followed.String(); got != "more\n" {
		t.Errorf("followed: got %q", got)
	}
	_, err = b.Wait(ctx)
	check(t, err)
	out, _ = nucleusRun(t, 0, "logs", "-n1", "web") // also of one that has ended
	if out != "more\n" {
		t.Errorf("got %q", out)
	}
	_, err = s.Create(store.Config{Name: "silent", Command: []string{"true"}, Service: spec.Service{Log: spec.Log{Off: true}}})
	check(t, err)
	if _, errs := nucleusRun(t, 1, "logs", "silent"); !strings.Contains(errs, "keeps no logs") {
		t.Errorf("got %q", errs)
	}
	nucleusRun(t, 1, "logs", "nobody")
	nucleusRun(t, 2, "logs")
	nucleusRun(t, 2, "logs", "web", "silent")
	nucleusRun(t, 2, "logs", "--since", "yesterday", "web")
	nucleusRun(t, 2, "logs", "--tail", "-1", "web")
}

func TestEvents(t *testing.T) {
	ctx := context.Background()
	s := viewStore(t)
	old, err := s.Create(store.Config{Name: "old", Command: []string{"true"}})
	check(t, err)
	check(t, old.Log("exec", map[string]string{"b": "2", "a": "\x1b]0;x\a"}))
	var got bytes.Buffer
	follow := exec.Command(nucleus(t), "events", "--until", "-3s", "--filter", "sandbox=web", "--filter", "sandbox=old")
	follow.Stdout = &got
	check(t, follow.Start())
	b := viewBox(t, s, "web", "exit 3")
	_, err = b.Wait(ctx)
	check(t, err)
	check(t, follow.Wait())
	const at = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\S+ `
	id := ` web \(` + b.ID()[:12] + `\)`
	wantMatch(t, got.String(), at+`create old \(\S+\)`, at+`exec old \(\S+\) a="\\x1b\]0;x\\a" b=2`, at+`create`+id)
	wantMatch(t, got.String(), at+`start`+id+` pid=\d+`)
	wantMatch(t, got.String(), at+`end`+id+` exit_code=3 reason=exited`)

	out, _ := nucleusRun(t, 0, "events", "--no-follow", "--json", "--filter", "type=end")
	var e store.Event
	wantJSON(t, out, &e)
	if e.Type != "end" || e.ID != b.ID() || e.Attrs["exit_code"] != "3" {
		t.Errorf("got %+v", e)
	}
	out, _ = nucleusRun(t, 0, "events", "--until", "0s", "--format", "{{.Type}} {{.Attrs.reason}}", "--filter", "type=end")
	if out != "end exited\n" {
		t.Errorf("got %q", out)
	}
	if out, _ := nucleusRun(t, 0, "events", "--no-follow", "--until", "1h"); out != "" {
		t.Errorf("got %q", out)
	}
	if out, _ := nucleusRun(t, 0, "events", "--since", "1h", "--until", "0s"); strings.Count(out, "\n") < 5 {
		t.Errorf("got %q", out)
	}
	nucleusRun(t, 2, "events", "--filter", "name=web")
	nucleusRun(t, 2, "events", "--until", "tomorrow")
	nucleusRun(t, 2, "events", "web")
}

// TestEventsUntil: what is noticed after the end, but happened before, is told;
// what happened after is not.
func TestEventsUntil(t *testing.T) {
	s := viewState(t)
	b, err := s.Create(store.Config{Name: "old", Command: []string{"true"}})
	check(t, err)
	quit, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		for {
			select {
			case <-quit:
				return
			case <-time.After(5 * time.Millisecond):
				if err := b.Log("exec", nil); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	nucleus(t) // is built by now
	until := time.Now().Add(time.Second)
	out, _ := nucleusRun(t, 0, "events", "--until", until.Format(time.RFC3339Nano), "--format", "{{.Time}}")
	close(quit)
	<-told
	last := time.Time{}
	for line := range strings.Lines(out) {
		at, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(line))
		check(t, err)
		if at.After(until) {
			t.Errorf("got an event of %v, after %v", at, until)
		}
		last = at
	}
	if early := until.Sub(last); early > time.Second/2*sandboxtest.Slow() {
		t.Errorf("the last event is %v before the end", early)
	}
}

// TestEventsFromNow: without --since, the past is past; and an interrupt ends it.
func TestEventsFromNow(t *testing.T) {
	s := viewStore(t)
	b, err := s.Create(store.Config{Name: "old", Command: []string{"true"}})
	check(t, err)
	cmd := exec.Command(nucleus(t), "events", "--json")
	r, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	defer cmd.Process.Kill()
	quit, told := make(chan struct{}), make(chan struct{})
	go func() { // until it listens
		defer close(told)
		for {
			select {
			case <-quit:
				return
			case <-time.After(20 * time.Millisecond):
				if err := b.Log("exec", nil); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	var e store.Event
	err = json.NewDecoder(r).Decode(&e)
	close(quit)
	<-told
	if err != nil || e.Type != "exec" {
		t.Errorf("got %+v, %v, want what happened since", e, err)
	}
	check(t, cmd.Process.Signal(syscall.SIGINT))
	cmd.Wait()
	if st := cmd.ProcessState.Sys().(syscall.WaitStatus); !st.Signaled() || st.Signal() != syscall.SIGINT {
		t.Errorf("got %v, want the end by SIGINT", cmd.ProcessState)
	}
}
