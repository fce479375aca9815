package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

const tell = probePath + " notify "

// manager is what has started us, as far as it listens.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := t.TempDir() + "/manager"
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &manager{t, conn}
}

// next is the next datagram.
func (m *manager) next() string {
	m.t.Helper()
	var b [8192]byte
	if err := m.conn.SetReadDeadline(time.Now().Add(patience())); err != nil {
		m.t.Fatal(err)
	}
	n, err := m.conn.Read(b[:])
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b[:n])
}

func (m *manager) want(datagrams ...string) {
	m.t.Helper()
	for _, want := range datagrams {
		if got := m.next(); got != want {
			m.t.Errorf("the manager got %q, want %q", got, want)
		}
	}
}

// silent checks that nothing comes.
func (m *manager) silent() {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		m.t.Fatal(err)
	}
	var b [8192]byte
	if n, err := m.conn.Read(b[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
		m.t.Errorf("the manager got %q, %v", b[:n], err)
	}
}

func TestNotify(t *testing.T) {
	for _, user := range []spec.User{{}, {UID: 1000, GID: 1000}} {
		t.Run("user "+strconv.Itoa(int(user.UID)), func(t *testing.T) {
			m := newManager(t)
			b := start(t, open(t), spec.Service{Notify: true},
				"ls -l /run/nucleus >&2; "+tell+"STATUS=warming; sleep 0.2; "+tell+`'READY=1\nSTATUS=serving'; until test -e go; do sleep 0.01; done; `+tell+"STOPPING=1; exit 6",
				func(c *store.Config) { c.Sandbox.User = user })
			if i := b.info(); !i.Ready || i.Status != "serving" {
				t.Errorf("got %+v", i)
			}
			m.want("STATUS=warming\n", "STATUS=serving\n", "READY=1\nMAINPID="+strconv.Itoa(b.keeperPid())+"\n")
			b.wantEvents("start", "ready")
			if out := b.exec("sh", "-c", "echo $NOTIFY_SOCKET; cd /run/nucleus; ls -a; rm notify || touch notify/x || echo no"); !strings.Contains(out, "/run/nucleus/notify\n.\n..\nnotify\n") || !strings.HasSuffix(out, "no\n") {
				t.Errorf("got %q", out)
			}
			b.exec(probePath, "notify", "STATUS=by another")
			b.until("told by another", func(i store.Info) bool { return i.Status == "by another" })
			b.write("go", "")
			b.ended()
			m.want("STATUS=by another\n", "STOPPING=1\n")
		})
	}
}

// TestNotifyAndReady: both must say so, whichever is first.
func TestNotifyAndReady(t *testing.T) {
	for name, script := range map[string]string{
		"the word first":  tell + "READY=1; sleep 0.2; touch open; exec sleep 60",
		"the check first": "touch open; sleep 0.2; touch said; " + tell + "READY=1; exec sleep 60",
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t)
			b := start(t, open(t), spec.Service{Notify: true, Ready: &spec.Check{Command: []string{"test", "-e", "open"}, Interval: soon, Retries: 1000}}, script)
			_, said := os.Stat(b.dir + "/said")
			_, opened := os.Stat(b.dir + "/open")
			if opened != nil || name == "the check first" && said != nil {
				t.Errorf("it was ready too early: %v, %v", opened, said)
			}
			m.want("READY=1\nMAINPID=" + strconv.Itoa(b.keeperPid()) + "\n")
			m.silent()
		})
	}
}

// TestNotifyNever: a start that waits for a word that does not come ends.
func TestNotifyNever(t *testing.T) {
	b := create(t, open(t), spec.Service{Notify: true}, tell+"STATUS=thinking; exit 3")
	wantWords(t, b.startError(), "did not become ready", "it ended before: exit status 3", "its last status: thinking")
	b.ended()
}

// TestNotifyAgain: what was said in one run is not said in the next.
func TestNotifyAgain(t *testing.T) {
	b := start(t, open(t), spec.Service{Notify: true, Restart: spec.Restart{Policy: spec.RestartAlways}},
		leaveTime+"test $(wc -l <runs) = 1 && "+tell+`'READY=1\nSTATUS=one' && until test -e go; do sleep 0.01; done && `+tell+"READY=1 STATUS=last && exit 1; until test -e go2; do sleep 0.01; done; "+tell+"READY=1; exec sleep 60")
	b.write("go", "")
	i := b.until("running again", func(i store.Info) bool { return i.Restarts == 1 && i.State == "running" })
	time.Sleep(100 * time.Millisecond)
	if i = b.info(); i.Ready || i.Status != "" {
		t.Errorf("got %+v, want not ready", i)
	}
	b.write("go2", "")
	b.until("ready again", func(i store.Info) bool { return i.Ready })
	if n := b.count("ready"); n != 2 {
		t.Errorf("it was ready %d times", n)
	}
}

// TestHostileDatagrams: what must not leave the sandbox does not.
func TestHostileDatagrams(t *testing.T) {
	m := newManager(t)
	b := start(t, open(t), spec.Service{Notify: true}, tell+"READY=1; exec sleep 60")
	pid := strconv.Itoa(b.keeperPid())
	m.want("READY=1\nMAINPID=" + pid + "\n")
	files := openFiles(t, b.keeperPid())
	b.exec(probePath, "notify",
		`MAINPID=1`, `READY=1\nMAINPID=1`, `FDSTORE=1\nFDNAME=x`, `NOTIFYACCESS=all`, `STATUS=a\e[2Jb\nMAINPID=1`, `STATUS=x\0MAINPID=1`,
		`SIZE5000`, `SIZE100000`, `SIZE4000`, `WATCHDOG_USEC=0`, `ERRNO=-1`, `\n\n\n`, `=`, `STATUS`, `X_OWN=1`, `BARRIER=1`, `MONOTONIC_USEC=1`, `STATUS=last`)
	m.want("READY=1\nMAINPID="+pid+"\n", "STATUS=a?[2Jb\n")
	for {
		got := m.next()
		if got == "STATUS=last\n" {
			break
		}
		if !strings.HasPrefix(got, "STATUS=xxxx") || len(got) > 600 {
			t.Errorf("the manager got %q", got)
		}
	}
	b.until("told", func(i store.Info) bool { return i.Status == "last" })
	if i := b.info(); i.State != "running" || strings.Contains(i.Status, "\x1b") {
		t.Errorf("got %+v", i)
	}
	pidNow := b.keeperPid()
	b.until(fmt.Sprintf("back to %d descriptors of the keeper", files), func(store.Info) bool { return openFiles(t, pidNow) <= files })
}

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	all, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestFlood: a program that never stops talking is heard a little, and the keeper
// does the rest of its work.
func TestFlood(t *testing.T) {
	b := start(t, open(t), spec.Service{Notify: true, Health: command("true")}, tell+"READY=1; "+probePath+" flood said; exec sleep 60")
	b.until("healthy meanwhile", health("healthy"))
	b.until("said", func(store.Info) bool { return len(b.lines("said")) > 0 })
	n, err := strconv.Atoi(b.lines("said")[0])
	if err != nil || n > 1000 {
		t.Errorf("%d datagrams were taken in a second, %v", n, err)
	}
	began := time.Now()
	if err := b.Stop(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

// TestWatchdog: silence is an answer too.
func TestWatchdog(t *testing.T) {
	const limit = 300 * time.Millisecond
	slow := limit * sandboxtest.Slow()
	env := "WATCHDOG_USEC=" + strconv.FormatInt(slow.Microseconds(), 10)
	t.Run("kept", func(t *testing.T) {
		b := start(t, open(t, env), spec.Service{Notify: true},
			"echo $WATCHDOG_USEC $WATCHDOG_PID >env; "+tell+"READY=1; while ! test -e quiet; do "+tell+"WATCHDOG=1; sleep 0.05; done; exec sleep 60")
		if got := b.lines("env"); len(got) != 1 || "WATCHDOG_USEC="+got[0] != env {
			t.Errorf("the program is told %q, want %s", got, env)
		}
		b.until("healthy", health("healthy"))
		time.Sleep(2 * slow)
		if i := b.info(); i.Health != "healthy" {
			t.Errorf("got %+v, want healthy as long as it says so", i)
		}
		b.write("quiet", "")
		if i := b.until("unhealthy", health("unhealthy")); !strings.Contains(i.HealthDetail, "has not said WATCHDOG=1 for "+slow.String()) || i.State != "running" {
			t.Errorf("got %+v", i)
		}
		b.exec(probePath, "notify", "WATCHDOG=1")
		b.until("healthy again", health("healthy"))
		b.wantEvents("health", "health detail=it has not said", "health")
	})
	t.Run("restart", func(t *testing.T) {
		b := start(t, open(t, env), spec.Service{Notify: true, Health: &spec.Check{Command: []string{"true"}}, OnUnhealthy: spec.UnhealthyRestart}, leaveTime+tell+"READY=1; exec sleep 60")
		b.until("started again", func(i store.Info) bool { return i.Restarts >= 1 && len(b.lines("runs")) >= 2 })
		b.wantEvents("health detail=it has not said WATCHDOG=1 for", "restart")
	})
	t.Run("trigger", func(t *testing.T) {
		b := start(t, open(t), spec.Service{Notify: true, Health: &spec.Check{Command: []string{"true"}}, OnUnhealthy: spec.UnhealthyKill}, tell+"READY=1; "+tell+"WATCHDOG=trigger; exec sleep 60")
		if i := b.ended(); i.ExitCode != 137 {
			t.Errorf("got %+v, want killed", i)
		}
		b.wantEvents("health detail=it has asked for help")
	})
	t.Run("not ours", func(t *testing.T) {
		b := start(t, open(t, env, "WATCHDOG_PID=1"), spec.Service{Notify: true}, "echo ${WATCHDOG_USEC-none} >env; "+tell+"READY=1; exec sleep 60")
		if got := b.lines("env"); len(got) != 1 || got[0] != "none" {
			t.Errorf("the program is told %q", got)
		}
	})
}
