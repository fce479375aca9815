package cli_test

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestBadInput wants, for everything that makes no sense, exit code 2, one line
// that begins with the program's name, and nothing else. That nothing is left
// behind is checked around all tests.
func TestBadInput(t *testing.T) {
	bin := nucleus(t)
	for _, line := range badInput {
		t.Run(strings.Join(line, " "), func(t *testing.T) {
			var out, errOut bytes.Buffer
			cmd := exec.Command(bin, append([]string{"run"}, line...)...)
			cmd.Stdout, cmd.Stderr = &out, &errOut
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 2 {
				t.Errorf("got %v, want exit code 2", err)
			}
			got := errOut.String()
			if out.Len() > 0 || strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "nucleus: ") || len(got) > 400 || strings.Contains(got, "\x1b") {
				t.Errorf("stdout %q, stderr %q; want one line on stderr", &out, got)
			}
		})
	}
}

var badInput = [][]string{
	{}, {"--"}, {"", "x"}, {"--", ""}, {"--nope", "x"}, {"-z", "true"}, {"-tz", "true"}, {"--name"}, {"-e"}, {"--tty=yes", "true"},
	{"--no-toolchain=1", "true"}, {"--\x1b[31m", "true"}, {"--" + strings.Repeat("x", 5000), "true"},

	{"--name", "", "true"}, {"--name", "a/b", "true"}, {"--name", "..", "true"}, {"--name", "-a", "true"}, {"--name", strings.Repeat("a", 65), "true"},
	{"--name", "a\nb", "true"}, {"--hostname", "", "true"}, {"--hostname", "a_b", "true"}, {"--hostname", "-a", "true"},
	{"--hostname", strings.Repeat("a", 64), "true"}, {"--hostname", "a..b", "true"},

	{"--context", "", "true"}, {"--context", ",exec", "true"}, {"--context", "/no/such/dir", "true"},
	{"--workspace", "", "true"}, {"--workspace", "/no/such/dir", "true"},
	{"--context", "/etc/passwd", "true"}, {"--workspace", "/etc/passwd", "true"}, {"--name", "x", "--workspace", "/etc/passwd", "true"},
	{"-v", "", "true"}, {"-v", "/a", "true"}, {"-v", ":", "true"}, {"-v", ":/a", "true"}, {"-v", "/tmp:", "true"}, {"-v", "/tmp:a", "true"},
	{"-v", "/tmp:/", "true"}, {"-v", "/tmp:/a/../b", "true"}, {"-v", "/tmp:/proc/x", "true"}, {"-v", "/tmp:/dev", "true"}, {"-v", "/tmp:/sys", "true"},
	{"-v", "/tmp:/a:rx", "true"}, {"-v", "/tmp:/a:ro,rw", "true"}, {"-v", "/tmp:/a:ro:exec", "true"}, {"-v", "/tmp:/a:exec,exec", "true"},
	{"-v", "/no/such/dir:/a", "true"}, {"-v", "/tmp:/a", "-v", "/usr:/a", "true"}, {"-v", "/tmp:/context", "--context", "/tmp", "true"},
	{"--tmpfs", "", "true"}, {"--tmpfs", "a", "true"}, {"--tmpfs", "/a:", "true"}, {"--tmpfs", "/a:0", "true"}, {"--tmpfs", "/a:1X", "true"}, {"--tmpfs", "/", "true"},

	{"-e", "", "true"}, {"-e", "=x", "true"}, {"-e", "1A=x", "true"}, {"-e", "A-B=x", "true"}, {"-e", "LD_PRELOAD=x", "true"}, {"-e", "GLIBC_TUNABLES=x", "true"},
	{"-w", "", "true"}, {"-w", "relative", "true"}, {"-w", "/a/../..", "true"},

	{"--user", "", "true"}, {"--user", "1000abc", "true"}, {"--user", "-1", "true"}, {"--user", "+1", "true"}, {"--user", "65535", "true"},
	{"--user", "4294967295", "true"}, {"--user", "4294967296", "true"}, {"--user", "99999999999999999999", "true"}, {"--user", "0x10", "true"},
	{"--user", "no-such-user", "true"}, {"--user", "1:", "true"}, {"--user", ":1", "true"}, {"--user", "1:no-such-group", "true"}, {"--user", "1:2:3", "true"},
	{"--user", "1:2", "--group", "3", "true"}, {"--group", "", "true"}, {"--group", "1e3", "true"}, {"--group", "65535", "true"}, {"--user", " 1", "true"},

	{"-m", "", "true"}, {"-m", "0", "true"}, {"-m", "M", "true"}, {"-m", "-1", "true"}, {"-m", "1MB", "true"}, {"-m", "1.5G", "true"}, {"-m", "1e9", "true"},
	{"-m", "9223372036854775808", "true"}, {"-m", "99999999999999T", "true"}, {"-m", "18446744073709551616", "true"}, {"-m", "1", "true"}, {"-m", " 1G", "true"},
	{"--memory-swap", "1G", "true"}, {"-m", "1G", "--memory-swap", "512M", "true"}, {"-m", "1G", "--memory-swap", "-1", "true"},
	{"--cpus", "", "true"}, {"--cpus", "0", "true"}, {"--cpus", "0.0001", "true"}, {"--cpus", "-1", "true"}, {"--cpus", "NaN", "true"}, {"--cpus", "Inf", "true"},
	{"--cpus", "1e3", "true"}, {"--cpus", "1.", "true"}, {"--cpus", ".5", "true"}, {"--cpus", "99999999999", "true"}, {"--cpus", "0.001", "true"}, {"--cpus", "1.2.3", "true"},
	{"--cpu-weight", "0", "true"}, {"--cpu-weight", "10001", "true"}, {"--cpu-weight", "x", "true"},
	{"--pids", "", "true"}, {"--pids", "-1", "true"}, {"--pids", "1.5", "true"}, {"--pids", "4194305", "true"}, {"--pids", "99999999999999999999", "true"}, {"--pids", "none", "true"}, {"--pids", "00", "true"},
	{"--io-limit", "", "true"}, {"--io-limit", "8:0", "true"}, {"--io-limit", "8 rbps=1", "true"}, {"--io-limit", "8:x rbps=1", "true"}, {"--io-limit", "8:0 bps=1", "true"},
	{"--io-limit", "8:0 rbps=0", "true"}, {"--io-limit", "8:0 rbps", "true"}, {"--io-limit", "8:0 rbps=1 rbps=2", "true"}, {"--io-limit", "8:0 rbps=-1", "true"},
	{"--io-limit", "4096:0 rbps=1", "true"}, {"--memlock", "0", "true"}, {"--memlock", "x", "true"}, {"--scratch", "0", "true"}, {"--scratch", "1P", "true"},

	{"--timeout", "", "true"}, {"--timeout", "0", "true"}, {"--timeout", "-1s", "true"}, {"--timeout", "soon", "true"}, {"--timeout", "1d", "true"},
	{"--timeout", "99999999999999999999", "true"}, {"--timeout", "1us", "true"},
	{"--userns", "", "true"}, {"--userns", "nomap", "true"}, {"--allow-degraded", "", "true"}, {"--allow-degraded", "seccomp", "true"}, {"--allow-degraded", "landlock,", "true"},
	{"--report=yaml", "true"}, {"--log", "", "true"}, {"--log-format", "json", "true"}, {"--log-level", "debug", "true"}, {"--log", "-", "--log-format", "xml", "true"},
	{"--log", "-", "--log-level", "trace", "true"}, {"--log", "/no/such/dir/x", "true"}, {"-t", "true"},
}
