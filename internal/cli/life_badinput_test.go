package cli_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestBadInputOfServices wants exit code 2 and one line for everything about
// services that makes no sense, and that nobody notices that it was tried.
func TestBadInputOfServices(t *testing.T) {
	bin := nucleus(t)
	state := t.TempDir() + "/state"
	for _, line := range badServices {
		t.Run(strings.Join(line, " "), func(t *testing.T) {
			var out, errOut bytes.Buffer
			cmd := exec.Command(bin, line...)
			cmd.Stdout, cmd.Stderr = &out, &errOut
			cmd.Env = append(os.Environ(), "NUCLEUS_STATE_DIR="+state)
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 2 {
				t.Errorf("got %v, want exit code 2", err)
			}
			got := errOut.String()
			if out.Len() > 0 || strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "nucleus: ") || len(got) > 400 || strings.Contains(got, "\x1b") {
				t.Errorf("stdout %q, stderr %q; want one line on stderr", &out, got)
			}
			if _, err := os.Lstat(state); err == nil {
				t.Error("it made a state directory")
			}
		})
	}
}

var badServices = append(services(
	[]string{"--restart", ""}, []string{"--restart", "sometimes"}, []string{"--restart", "always:3"}, []string{"--restart", "on-failure:"}, []string{"--restart", "on-failure:0"},
	[]string{"--restart", "on-failure:-1"}, []string{"--restart", "on-failure:x"}, []string{"--restart", "on-failure:99999999999999999999"}, []string{"--restart", "Always"},
	[]string{"--restart", "always", "--rm"}, []string{"--detach=no"}, []string{"--rm=no"},
	[]string{"--stop-signal", ""}, []string{"--stop-signal", "0"}, []string{"--stop-signal", "65"}, []string{"--stop-signal", "SIG"}, []string{"--stop-signal", "\x1b[31m"},
	[]string{"--stop-timeout", ""}, []string{"--stop-timeout", "0"}, []string{"--stop-timeout", "-1"}, []string{"--stop-timeout", "soon"},
	[]string{"--idle-timeout", "0"}, []string{"--idle-timeout", "1x"},
	[]string{"--label", ""}, []string{"--label", "=x"}, []string{"--label", "a=\xff"},

	[]string{"--health-cmd", ""}, []string{"--health-cmd", " "}, []string{"--health-cmd", "[]"}, []string{"--health-cmd", `["a"`}, []string{"--health-cmd", `[""]`},
	[]string{"--health-http", ""}, []string{"--health-http", "https://127.0.0.1/"}, []string{"--health-http", "127.0.0.1"}, []string{"--health-http", "http://example.com/"},
	[]string{"--health-http", "http://a:b@127.0.0.1/"}, []string{"--health-http", "http://127.0.0.1:x/"},
	[]string{"--health-tcp", ""}, []string{"--health-tcp", "127.0.0.1"}, []string{"--health-tcp", ":80"}, []string{"--health-tcp", "localhost:80"}, []string{"--health-tcp", "127.0.0.1:99999"},
	[]string{"--health-tcp", "127.0.0.1:1", "--health-cmd", "true"}, []string{"--health-interval", "1s"}, []string{"--health-tcp", "127.0.0.1:1", "--health-interval", "0"},
	[]string{"--health-tcp", "127.0.0.1:1", "--health-timeout", "-1s"}, []string{"--health-tcp", "127.0.0.1:1", "--health-retries", "0"},
	[]string{"--health-tcp", "127.0.0.1:1", "--health-retries", "x"}, []string{"--health-tcp", "127.0.0.1:1", "--health-start-period", "0"},
	[]string{"--on-unhealthy", "kill"}, []string{"--on-unhealthy", ""}, []string{"--health-tcp", "127.0.0.1:1", "--on-unhealthy", "explode"},
	[]string{"--readiness-cmd", ""}, []string{"--readiness-http", "x"}, []string{"--readiness-tcp", "x"}, []string{"--readiness-retries", "3"}, []string{"--readiness-interval", "0"},
	[]string{"--readiness-cmd", "a", "--readiness-tcp", "127.0.0.1:1"}, []string{"--readiness-tcp", "127.0.0.1:1", "--readiness-timeout", "0"}, []string{"--sd-notify=1"},

	[]string{"--log-driver", ""}, []string{"--log-driver", "syslog"}, []string{"--log-size", "0"}, []string{"--log-size", "1K"}, []string{"--log-size", "x"},
	[]string{"--log-files", "0"}, []string{"--log-files", "17"}, []string{"--log-files", "-1"}, []string{"--log-driver", "none", "--log-size", "1M"},
	[]string{"--log", "-"}, []string{"--report"}, []string{"--report=json"},

	[]string{"--hook-poststop", ""}, []string{"--hook-poststop", "true"}, []string{"--hook-poststop", "/a/../bin/true"}, []string{"--hook-poststop", "/no/such/hook"},
	[]string{"--hook-poststart", "/etc/passwd"}, []string{"--hook-create-runtime", "/tmp"}, []string{"--hooks", ""}, []string{"--hooks", "/no/such/file"}, []string{"--hooks", "/etc/passwd"}, []string{"--hooks", "/"},

	[]string{"--console-socket", "", "-t"}, []string{"--console-socket", "/x"}, []string{"-t", "--console-socket", "/x", "--restart", "always"},
	[]string{"--workspace", "/no/such/dir"}, []string{"--workspace", "/etc/passwd"}, []string{"--name", ""}, []string{"--name", "a/b"}, []string{"-m", "1"},
), [][]string{
	{"run", "-d"}, {"run", "-d", "--"}, {"run", "-d", ""},
	{"run", "--restart", "always", "true"}, {"run", "--restart", "on-failure:3", "true"}, {"run", "--log-driver", "none", "true"}, {"run", "--log-size", "1M", "true"},
	{"run", "--idle-timeout", "1h", "true"}, {"run", "--health-cmd", "true", "--on-unhealthy", "restart", "true"},
	{"run", "--console-socket", "/x", "true"}, {"run", "--name", "x", "--workspace", "/no/such/dir", "true"}, {"run", "--name", "x", "-t", "true"},

	{"start"}, {"stop"}, {"restart"}, {"kill"}, {"rm"}, {"wait"}, {"pause"}, {"unpause"}, {"update"}, {"rename"}, {"rename", "a"}, {"rename", "a", "b", "c"}, {"rename", "a", ""}, {"rename", "a", "-b"},
	{"rename", "a", "a/b"}, {"rename", "a", strings.Repeat("b", 65)}, {"stop", "-t", "x", "a"}, {"stop", "-t"}, {"stop", "--timeout=-2", "a"}, {"restart", "-t", "", "a"}, {"kill", "-s", "", "a"},
	{"kill", "-s", "NOPE", "a"}, {"kill", "-s", "0", "a"}, {"kill", "--signal", "99", "a"}, {"update", "a"}, {"update", "--memory", "0", "a"}, {"update", "--memory", "1", "a"}, {"update", "-m", "1G", "--memory-swap", "512M", "a"}, {"update", "--pids", "x", "a"}, {"update", "--name", "x", "a"},
	{"rm", "--force=yes", "a"}, {"gc", "a"}, {"gc", "--ended=0"}, {"gc", "--ended=x"}, {"names", "a", "b"}, {"start", "--frobnicate", "a"},
}...)

// services puts flags between what detaches and a program.
func services(flags ...[]string) (lines [][]string) {
	for _, f := range flags {
		lines = append(lines, append(append([]string{"run", "-d"}, f...), "true"))
	}
	return lines
}
