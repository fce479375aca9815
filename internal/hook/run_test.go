package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// sh is a hook that is a line of shell, run by a program of the host.
func sh(line string) spec.Hook { return spec.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", line}} }

// runs runs a hook and returns its output.
func runs(t testing.TB, h spec.Hook, state string) (string, error) {
	t.Helper()
	if h.Timeout == 0 {
		h.Timeout = DefaultTimeout * sandboxtest.Slow()
	}
	var log bytes.Buffer
	err := Run(t.Context(), h, []byte(state), &log)
	return log.String(), err
}

func TestState(t *testing.T) {
	got := string(State("ab12", "running", 7, "/run/x", map[string]string{"b": "2", "a": "<1>\n"}))
	want := `{"ociVersion":"1.0.2","id":"ab12","status":"running","pid":7,"bundle":"/run/x","annotations":{"a":"\u003c1\u003e\n","b":"2"}}`
	if got != want || !json.Valid([]byte(got)) {
		t.Errorf("got %s, want %s", got, want)
	}
	got = string(State("ab12", "stopped", 0, "/run/x", nil))
	if want := `{"ociVersion":"1.0.2","id":"ab12","status":"stopped","bundle":"/run/x"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRun(t *testing.T) {
	t.Setenv("NUCLEUS_SECRET", "ours")
	dir := trusted(t)
	name := script(t, dir+"/x", `echo "$0 $# $1"`)
	const fds = "exec ls /proc/self/fd"
	inherited, err := exec.Command("/bin/sh", "-c", fds).Output() // what we got ourselves without close-on-exec
	must(t, err)
	for _, tc := range []struct {
		name string
		hook spec.Hook
		want string
	}{
		{"gets the state", sh("cat"), "the state"},
		{"says something on both", sh("echo out; echo err >&2"), "out\nerr\n"},
		{"is in /", sh("pwd"), "/\n"},
		{"no environment", spec.Hook{Path: "/usr/bin/env"}, ""},
		{"its own environment", spec.Hook{Path: "/usr/bin/env", Env: []string{"A=1", "B=x y"}}, "A=1\nB=x y\n"},
		{"arguments of a program", spec.Hook{Path: "/bin/sh", Args: []string{"me", "-c", `echo "$0 $1"`, "a", "b c"}}, "a b c\n"},
		{"a script without arguments", spec.Hook{Path: name}, name + " 0 \n"},
		{"a script with arguments", spec.Hook{Path: name, Args: []string{"x", "a b", "c"}}, name + " 2 a b\n"},
		{"a script by a link", spec.Hook{Path: link(t, "x", dir+"/link")}, name + " 0 \n"},
		{"no descriptor of ours", sh(fds), string(inherited)},
		{"its own process group", sh("read -r p c s pp g r </proc/self/stat; [ $p = $g ] && echo yes"), "yes\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := runs(t, tc.hook, "the state")
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
	if err := Run(t.Context(), sh("echo x"), nil, nil); err != nil {
		t.Errorf("without a log: %v", err)
	}
}

func TestRunFails(t *testing.T) {
	_, err := runs(t, sh(`echo before; printf 'no \033[2Jdisk\202\n' >&2; exit 3`), "")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("got %v, want exit code 3", err)
	}
	if want := "hook /bin/sh: exit status 3; its output ends with:\nbefore\nno ?[2Jdisk?"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if _, err := runs(t, sh("kill -9 $$"), ""); err == nil || err.Error() != "hook /bin/sh: signal: killed" {
		t.Errorf("got %v, want that it was killed", err)
	}
	if _, err := runs(t, spec.Hook{Path: write(t, trusted(t)+"/x", "#!/no/such/program\n", 0o755)}, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that there is no interpreter", err)
	}
	// Run checks by itself.
	if out, err := runs(t, spec.Hook{Path: script(t, t.TempDir()+"/x", "echo ran")}, ""); err == nil || out != "" {
		t.Errorf("got %q, %v, want it refused", out, err)
	}
}

// TestRunTalks is B33: a hook that says more than a pipe holds, to a reader that
// is only interested in the end, and one that does not read its state.
func TestRunTalks(t *testing.T) {
	const talk = `i=0; while [ $i -lt 40 ]; do printf '%10000d\n' $i; i=$((i+1)); done; echo the end; exit 1`
	out, err := runs(t, sh(talk), strings.Repeat("x", 300<<10))
	var failed *Error
	if !errors.As(err, &failed) || len(failed.Output) > MaxOutput || !strings.HasSuffix(failed.Output, "39\nthe end") {
		t.Fatalf("got %v, want the end of what it said", err)
	}
	if len(out) != MaxLog || !strings.HasPrefix(strings.TrimSpace(out), "0\n") {
		t.Errorf("got %d bytes in the log, want the first %d", len(out), MaxLog)
	}
	// A log that fails stops nothing.
	r, w := io.Pipe()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), sh("echo a; echo b"), nil, w); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

// gone waits until a process has ended.
func gone(t testing.TB, pid string) {
	t.Helper()
	if _, err := strconv.Atoi(strings.TrimSpace(pid)); err != nil {
		t.Fatal(err)
	}
	var stat []byte
	for end := time.Now().Add(5 * time.Second * sandboxtest.Slow()); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var err error
		stat, err = os.ReadFile("/proc/" + strings.TrimSpace(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("it still runs: %s", stat)
}

func TestRunTimeout(t *testing.T) {
	h := sh("sleep 60 & echo $!; sleep 60")
	h.Timeout = 300 * time.Millisecond * sandboxtest.Slow()
	start := time.Now()
	out, err := runs(t, h, "")
	if want := "hook /bin/sh: it did not end within " + h.Timeout.String() + " and was killed; its output ends with:\n" + strings.TrimSpace(out); err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	gone(t, out)
}

func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the user had enough")
	r, w := io.Pipe()
	go func() {
		line := make([]byte, 1)
		_, err := r.Read(line)
		cancel(errors.Join(reason, err, r.Close()))
	}()
	if err := Run(ctx, sh("echo; sleep 60"), nil, w); !errors.Is(err, reason) {
		t.Errorf("got %v, want the reason", err)
	}
	if err := Run(ctx, sh("sleep 60"), nil, nil); !errors.Is(err, reason) {
		t.Errorf("begun too late: got %v, want the reason", err)
	}
}

// TestRunLeavesSomething is a hook that starts a service: that one keeps the
// hook's output open.
func TestRunLeavesSomething(t *testing.T) {
	start := time.Now()
	out, err := runs(t, sh("sleep 60 & echo $!"), "")
	if err != nil {
		t.Errorf("got %v, want no error", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Errorf("what it has started was ended: %v", err)
	}
	gone(t, out)
}

// TestRunWhatWasChecked replaces a program after the check, in all the ways that
// somebody could who may write to its directory.
func TestRunWhatWasChecked(t *testing.T) {
	dir := trusted(t)
	shell, err := os.ReadFile("/bin/sh")
	must(t, err)
	path := write(t, dir+"/prog", string(shell), 0o755)
	p, err := find(link(t, "prog", dir+"/link"), os.Geteuid())
	must(t, err)
	defer p.file.Close()
	must(t, os.Rename(script(t, dir+"/other", "echo evil"), path))
	must(t, os.Remove(dir+"/link"))
	link(t, "/bin/false", dir+"/link")
	var log bytes.Buffer
	err = p.run(t.Context(), spec.Hook{Path: dir + "/link", Args: []string{"sh", "-c", "echo good"}}, nil, &log)
	if err != nil || log.String() != "good\n" {
		t.Errorf("got %q, %v, want what was checked", &log, err)
	}
}

// TestRunSwappedLink turns a link back and forth between a good program and one
// that others can write to, while it is run: the latter must never run.
func TestRunSwappedLink(t *testing.T) {
	dir := trusted(t)
	script(t, dir+"/good", "echo good")
	bad := mkdir(t, dir+"/bad", 0o755)
	script(t, bad+"/evil", "echo evil")
	must(t, os.Chmod(bad, 0o777))
	link(t, "good", dir+"/hook")
	done, ended := make(chan struct{}), make(chan error)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				ended <- nil
				return
			default:
			}
			target := []string{"bad/evil", "good"}[i%2]
			if err := errors.Join(os.Symlink(target, dir+"/new"), os.Rename(dir+"/new", dir+"/hook")); err != nil {
				<-done
				ended <- err
				return
			}
		}
	}()
	seen := map[string]int{}
	deadline := time.Now().Add(20 * time.Second)
	for n := 0; n < 300 || (seen["good"] == 0 || seen["refused"] == 0) && time.Now().Before(deadline); n++ {
		out, err := runs(t, spec.Hook{Path: dir + "/hook"}, "")
		switch {
		case err == nil && out == "good\n":
			seen["good"]++
		case err != nil && out == "" && strings.Contains(err.Error(), "bad can be written to by everybody"):
			seen["refused"]++
		default:
			t.Errorf("got %q, %v", out, err)
		}
	}
	close(done)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if seen["good"] == 0 || seen["refused"] == 0 {
		t.Errorf("got %v, want both", seen)
	}
}
