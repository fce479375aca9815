package keeper_test

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

const soon = 20 * time.Millisecond

// command is a check that a file of the sandbox answers.
func command(script string) *spec.Check {
	return &spec.Check{Command: []string{"sh", "-c", script}, Interval: soon, Timeout: patience(), Retries: 2}
}

func health(want string) func(store.Info) bool {
	return func(i store.Info) bool { return i.Health == want }
}

func TestHealth(t *testing.T) {
	b := start(t, open(t), spec.Service{Health: command("echo it is; cat state; grep -q good state")}, "exec sleep 60")
	if i := b.info(); i.Health != "starting" {
		t.Errorf("got %q before the first answer", i.Health)
	}
	b.write("state", "good")
	if i := b.until("healthy", health("healthy")); i.HealthDetail != "it is?good" {
		t.Errorf("got %q, want what the check said", i.HealthDetail)
	}
	b.write("state", "bad\x1b[2J")
	if i := b.until("unhealthy", health("unhealthy")); i.HealthDetail != "exit status 1: it is?bad?[2J" || i.State != "running" {
		t.Errorf("got %+v, want that it runs on, and no control characters", i)
	}
	b.write("state", "good")
	b.until("healthy again", health("healthy"))
	b.wantEvents("start", "health detail=it is?good state=healthy", "health detail=exit status 1", "health detail=it is?good state=healthy")
	if n := b.count("health"); n != 3 {
		t.Errorf("got %d events of health, want one for each change: %q", n, b.events())
	}
	if err := b.Stop(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	if i := b.ended(); i.Health != "" {
		t.Errorf("an ended sandbox is %q", i.Health)
	}
}

// TestCheckHasThePolicy: a check is a program of the sandbox.
func TestCheckHasThePolicy(t *testing.T) {
	b := start(t, open(t), spec.Service{Health: command(
		"grep -c . /proc/self/uid_map; cat /proc/1/comm; grep -E '^(NoNewPrivs|Seccomp|CapEff)' /proc/self/status | tr -d '\\t'; pwd; id -u")}, "exec sleep 60")
	i := b.until("healthy", health("healthy"))
	for _, want := range []string{"NoNewPrivs:1", "Seccomp:2", "CapEff:0000000000000000", "?/x?0"} {
		if !strings.Contains(i.HealthDetail, want) {
			t.Errorf("got %q, want %q", i.HealthDetail, want)
		}
	}
}

func TestUnhealthy(t *testing.T) {
	const script = leaveTime + "trap 'echo asked >>asked; exit 0' TERM; while :; do sleep 0.01; done"
	sick := command("test -e well")
	for _, tc := range []struct {
		name         string
		then         spec.OnUnhealthy
		restart      spec.RestartPolicy
		asked, again bool
	}{
		{"kill", spec.UnhealthyKill, spec.RestartNo, false, false},
		{"kill and policy", spec.UnhealthyKill, spec.RestartOnFailure, false, true},
		{"restart", spec.UnhealthyRestart, spec.RestartNo, true, true},
		{"restart and policy", spec.UnhealthyRestart, spec.RestartOnFailure, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := start(t, open(t), spec.Service{Health: sick, OnUnhealthy: tc.then, Restart: spec.Restart{Policy: tc.restart}}, script)
			b.until("found unhealthy", func(store.Info) bool { return b.count("health detail=exit status 1 state=unhealthy") > 0 })
			b.write("well", "")
			if tc.again {
				i := b.until("healthy in a second run", func(i store.Info) bool { return i.Restarts == 1 && i.Health == "healthy" })
				if i.State != "running" {
					t.Errorf("got %+v", i)
				}
				b.wantEvents("start", "health", "restart after=100ms", "start", "health")
			} else if i := b.ended(); i.ExitCode != 137 {
				t.Errorf("got %+v, want killed", i)
			}
			if asked := len(b.lines("asked")) > 0; asked != tc.asked {
				t.Errorf("asked to end: %v, want %v", asked, tc.asked)
			}
		})
	}
}

// TestHangingCheck: a check that takes too long is killed, and so is what it
// started; one that leaves something running holds nobody up.
func TestHangingCheck(t *testing.T) {
	b := start(t, open(t), spec.Service{Health: &spec.Check{
		Command: []string{"sh", "-c", "if grep -q slow state; then sleep 61; fi; sleep 62 & echo left"}, Interval: soon, Timeout: 300 * time.Millisecond * sandboxtest.Slow(), Retries: 1,
	}}, "echo fast >state; exec sleep 60")
	if i := b.until("healthy", health("healthy")); i.HealthDetail != "left" {
		t.Errorf("got %q", i.HealthDetail)
	}
	b.write("state", "slow")
	if i := b.until("unhealthy", health("unhealthy")); !strings.HasPrefix(i.HealthDetail, "no answer within") {
		t.Errorf("got %q", i.HealthDetail)
	}
	b.write("state", "fast")
	b.until("healthy again", health("healthy"))
	if out := b.exec("sh", "-c", "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done"); strings.Contains(out, "\nsleep 61") {
		t.Errorf("what was killed runs on: %q", out)
	}
}

// TestLoudCheck: however much a check says, little of it is kept.
func TestLoudCheck(t *testing.T) {
	b := start(t, open(t), spec.Service{Health: command("yes | head -c 20000000; exit 1")}, "exec sleep 60")
	i := b.until("unhealthy", health("unhealthy"))
	if len(i.HealthDetail) > 512 || !strings.HasPrefix(i.HealthDetail, "exit status 1: y?y?y") {
		t.Errorf("got %d bytes: %q", len(i.HealthDetail), i.HealthDetail)
	}
	if rss := rssOf(t, b.keeperPid()); rss > 64<<20 {
		t.Errorf("the keeper has %d bytes", rss)
	}
}

func TestHealthHTTP(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		t.Run(host, func(t *testing.T) {
			check := &spec.Check{HTTP: "http://" + host + ":8080/healthz?deep=1", Interval: soon, Timeout: 200 * time.Millisecond * sandboxtest.Slow(), Retries: 1}
			b := start(t, open(t), spec.Service{Health: check}, "until test -e state; do sleep 0.01; done; exec "+probePath+" serve "+host+":8080 state")
			i := b.until("unhealthy without a server", health("unhealthy"))
			if !strings.Contains(i.HealthDetail, "connection refused") {
				t.Errorf("got %q", i.HealthDetail)
			}
			for _, step := range []struct{ say, health, detail string }{
				{"200", "healthy", "status 200"},
				{"500", "unhealthy", "status 500"},
				{"399", "healthy", "status 399"},
				{"garbage", "unhealthy", `not an answer in HTTP: "\x1b[31mhello\x00"`},
				{"request", "healthy", "status 200"},
				{"silent", "unhealthy", "no answer: "},
				{"204", "healthy", "status 204"},
				{"endless", "unhealthy", "the first line of the answer is longer"},
			} {
				b.write("state", step.say)
				i := b.until(step.health+" for "+step.say, health(step.health))
				if !strings.HasPrefix(i.HealthDetail, step.detail) {
					t.Errorf("%s: got %q, want %q", step.say, i.HealthDetail, step.detail)
				}
			}
			want := []string{"GET", "/healthz?deep=1", "HTTP/1.1", "Host:", host + ":8080"}
			if got := b.lines("state.request"); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestHealthTCP(t *testing.T) {
	b := start(t, open(t), spec.Service{Health: &spec.Check{TCP: "127.0.0.1:5432", Interval: soon, Retries: 1}},
		"until test -e go; do sleep 0.01; done; exec "+probePath+" hold 127.0.0.1:5432")
	if i := b.until("unhealthy", health("unhealthy")); !strings.Contains(i.HealthDetail, "127.0.0.1:5432") || !strings.Contains(i.HealthDetail, "connection refused") {
		t.Errorf("got %q", i.HealthDetail)
	}
	b.write("go", "")
	b.until("healthy", health("healthy"))
}

// TestDialTCP: into the sandbox's network, and no other.
func TestDialTCP(t *testing.T) {
	b := start(t, open(t), spec.Service{Ready: &spec.Check{TCP: "127.0.0.1:8080", Interval: soon}}, "echo 200 >state; exec "+probePath+" serve 127.0.0.1:8080 state")
	p, err := b.Process()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx := context.Background()
	files, children := openFiles(t, os.Getpid()), childrenOf(t)
	to := netip.MustParseAddrPort("127.0.0.1:8080")
	for range 20 {
		conn, err := p.DialTCP(ctx, to)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(patience())); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.WriteString("hello"); err != nil {
			t.Fatal(err)
		}
		var answer [32]byte
		if n, err := conn.Read(answer[:]); err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 200 ") {
			t.Errorf("got %q, %v", answer[:n], err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, to := range []string{"127.0.0.1:8081", "[::1]:8080", "192.0.2.1:8080", "[fe80::1%1]:8080", "[::ffff:127.0.0.1]:81"} {
		if conn, err := p.DialTCP(ctx, netip.MustParseAddrPort(to)); err == nil {
			t.Errorf("%s: connected", to)
			conn.Close()
		}
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if conn, err := p.DialTCP(done, to); err == nil {
		t.Error("connected although nobody wants to")
		conn.Close()
	}
	if now := openFiles(t, os.Getpid()); now != files {
		t.Errorf("there were %d descriptors, and are %d", files, now)
	}
	if now := childrenOf(t); !slices.Equal(now, children) {
		t.Errorf("there were the children %v, and are %v", children, now)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if conn, err := p.DialTCP(ctx, to); err == nil {
		t.Error("connected to an ended sandbox")
		conn.Close()
	}
}

func childrenOf(t *testing.T) []int {
	t.Helper()
	all, err := sandboxtest.Children()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestDialWaits: a server that does not take the connection must not hold us up.
func TestDialWaits(t *testing.T) {
	b := start(t, open(t), spec.Service{Ready: &spec.Check{TCP: "127.0.0.1:8080", Interval: soon}}, "exec "+probePath+" hold 127.0.0.1:8080")
	p, err := b.Process()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	to := netip.MustParseAddrPort("127.0.0.1:8080")
	began, full := time.Now(), false
	for i := 0; i < 10000 && !full; i++ { // until its queue is full
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond*sandboxtest.Slow())
		conn, err := p.DialTCP(ctx, to)
		cancel()
		if full = err != nil; full {
			if !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
				t.Errorf("got %v, want the context's error", err)
			}
			break
		}
		defer conn.Close()
	}
	if !full {
		t.Errorf("10000 connections nobody takes, in %v", time.Since(began))
	}
}

// TestPausedIsNotAsked: what stands still cannot answer, and is not to blame.
func TestPausedIsNotAsked(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Cgroup)
	ctx := context.Background()
	b := start(t, open(t), spec.Service{Health: &spec.Check{Command: []string{"true"}, Interval: soon, Timeout: 400 * time.Millisecond * sandboxtest.Slow(), Retries: 2}, OnUnhealthy: spec.UnhealthyKill}, "exec sleep 60")
	b.until("healthy", health("healthy"))
	if err := b.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond * sandboxtest.Slow()) // who asks now is not answered twice
	if i := b.info(); i.State != "paused" || i.Health != "healthy" {
		t.Errorf("got %+v", i)
	}
	if err := b.Unpause(ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if i := b.info(); i.State != "running" || i.Health != "healthy" {
		t.Errorf("got %+v", i)
	}
}
