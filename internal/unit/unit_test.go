package unit

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

var update = flag.Bool("update", false, "write the goldens; read them before you commit them")

var goldens = []struct {
	name string
	o    Options
}{
	{"root", Options{
		Name: "web", Program: "/usr/bin/nucleus",
		Args:    []string{"run", "--name", "web", "-v", "/srv/web:/data:rw", "--", "/usr/bin/env", "A=100%", "/opt/web/serve", "--greeting", "it's \"$5\";\n", ";", ""},
		Service: spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}},
	}},
	{"root-notify", Options{
		Description: "The 100% database", Program: "/opt/nucleus tools/nucleus", Args: []string{"run", "--config", "/etc/nucleus/db.json"},
		After: []string{"network-online.target", `srv-data\x2dset.mount`}, Writable: []string{"/usr/local/var/db", "/etc/d b/$x%"},
		Service: spec.Service{
			Restart: spec.Restart{Policy: spec.RestartOnFailure, Max: 3}, Notify: true, StopSignal: "sigint", StopTimeout: 1500 * time.Millisecond,
		},
	}},
	{"user", Options{
		Name: "agent_1", Program: "/home/ada/.local/bin/nucleus", Args: []string{"run", "--workspace", "/home/ada/project", "--", "make"}, User: true,
	}},
	{"user-restart", Options{
		Name: "agent_1", Program: "/home/ada/.local/bin/nucleus", Args: []string{"run", "--", "sleep", "1d"}, User: true, After: []string{"dbus.socket"},
		Service: spec.Service{Restart: spec.Restart{Policy: spec.RestartOnFailure}},
	}},
}

func TestGolden(t *testing.T) {
	for _, tc := range goldens {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Service(tc.o)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", tc.name+".service")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestVerify has systemd read every golden. Its one warning that is fine is
// about a setting that is younger than it.
func TestVerify(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Program("systemd-analyze"))
	for _, tc := range goldens {
		t.Run(tc.name, func(t *testing.T) {
			tc.o.Program = "/bin/true" // it must be there
			text, err := Service(tc.o)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			path := filepath.Join(dir, "nucleus-test.service")
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			args := []string{"verify", "--man=no", path}
			if tc.o.User {
				args = append(args, "--user")
			}
			cmd := exec.Command("systemd-analyze", args...)
			cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
			out, err := cmd.CombinedOutput()
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "nucleus-test") && !strings.Contains(line, "DelegateSubgroup") {
					t.Errorf("%s", strings.TrimSpace(line))
				}
			}
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// value is a setting of a unit.
func value(t testing.TB, unit, key string) string {
	t.Helper()
	_, after, found := strings.Cut(unit, "\n"+key+"=")
	if !found {
		return ""
	}
	line, _, _ := strings.Cut(after, "\n")
	return line
}

func TestService(t *testing.T) {
	for _, tc := range []struct {
		name string
		s    spec.Service
		want map[string]string
	}{
		{"nothing asked for", spec.Service{}, map[string]string{
			"Type": "exec", "Restart": "no", "RestartSec": "", "StartLimitIntervalSec": "", "StartLimitBurst": "",
			"KillMode": "mixed", "KillSignal": "SIGTERM", "SuccessExitStatus": "143", "TimeoutStopSec": "15s"}},
		{"always", spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}}, map[string]string{
			"Restart": "always", "RestartSec": "1s", "StartLimitIntervalSec": "0", "StartLimitBurst": ""}},
		{"unless stopped", spec.Service{Restart: spec.Restart{Policy: spec.RestartUnlessStopped}}, map[string]string{
			"Restart": "always", "StartLimitIntervalSec": "0"}},
		{"on failure", spec.Service{Restart: spec.Restart{Policy: spec.RestartOnFailure}}, map[string]string{
			"Restart": "on-failure", "StartLimitIntervalSec": "0", "StartLimitBurst": ""}},
		// Four starts that each live for 10 s and pause for 1 s take 44 s.
		{"on failure, three times", spec.Service{Restart: spec.Restart{Policy: spec.RestartOnFailure, Max: 3}}, map[string]string{
			"Restart": "on-failure", "StartLimitIntervalSec": "44s", "StartLimitBurst": "4"}},
		{"on failure, very often", spec.Service{Restart: spec.Restart{Policy: spec.RestartOnFailure, Max: 1 << 62}}, map[string]string{
			"StartLimitIntervalSec": "11534347s", "StartLimitBurst": "1048577"}},
		{"stopped otherwise", spec.Service{StopSignal: "3", StopTimeout: time.Minute + 1}, map[string]string{
			"KillSignal": "SIGQUIT", "SuccessExitStatus": "131", "TimeoutStopSec": "66s"}},
		{"notify", spec.Service{Notify: true}, map[string]string{"Type": "notify"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Service(Options{Name: "x", Program: "/bin/nucleus", Service: tc.s})
			if err != nil {
				t.Fatal(err)
			}
			for key, want := range tc.want {
				if v := value(t, got, key); v != want {
					t.Errorf("%s: got %q, want %q", key, v, want)
				}
			}
		})
	}
}

// TestNotInAUnit are settings that would break the making of sandboxes or the
// programs in them; the package comment has the reasons.
func TestNotInAUnit(t *testing.T) {
	for _, tc := range goldens {
		got, err := Service(tc.o)
		if err != nil {
			t.Fatal(err)
		}
		never := "RestrictNamespaces SystemCallFilter SystemCallArchitectures ProtectProc ProcSubset ProtectKernelTunables ProtectKernelLogs " +
			"ProtectControlGroups PrivateUsers PrivateNetwork PrivateDevices ProtectHostname ProtectHome PrivateTmp RestrictAddressFamilies " +
			"RestrictRealtime RestrictSUIDSGID LockPersonality MemoryDenyWriteExecute ProtectClock"
		if tc.o.User {
			never += " NoNewPrivileges CapabilityBoundingSet ProtectSystem ReadWritePaths"
		}
		for _, key := range strings.Fields(never) {
			if v := value(t, got, key); v != "" {
				t.Errorf("%s: got %s=%s", tc.name, key, v)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	good := Options{Program: "/bin/nucleus"}
	for name, change := range map[string]func(*Options){
		"no program":                  func(o *Options) { o.Program = "" },
		"a relative program":          func(o *Options) { o.Program = "nucleus" },
		"a prefix":                    func(o *Options) { o.Program = "+/bin/nucleus" },
		"a quote in the program":      func(o *Options) { o.Program = "/bin/it's" },
		"a variable in the program":   func(o *Options) { o.Program = "/bin/$x" },
		"a line in the program":       func(o *Options) { o.Program = "/bin/x\nUser=root" },
		"a zero byte":                 func(o *Options) { o.Args = []string{"a\x00b"} },
		"not UTF-8":                   func(o *Options) { o.Args = []string{"\xff"} },
		"too long":                    func(o *Options) { o.Args = []string{strings.Repeat("a", maxLine)} },
		"a line in the name":          func(o *Options) { o.Name = "x\nExecStartPre=/bin/y" },
		"a line in the description":   func(o *Options) { o.Description = "x\r" },
		"a description that goes on":  func(o *Options) { o.Description = `x\` },
		"a description, not in UTF-8": func(o *Options) { o.Description = "\xff" },
		"after a line":                func(o *Options) { o.After = []string{"a.service\nUser=root"} },
		"after two":                   func(o *Options) { o.After = []string{"a.service b.service"} },
		"after nothing":               func(o *Options) { o.After = []string{""} },
		"a relative directory":        func(o *Options) { o.Writable = []string{"etc"} },
		"a directory, not in UTF-8":   func(o *Options) { o.Writable = []string{"/\xff"} },
		"a policy":                    func(o *Options) { o.Service.Restart.Policy = "sometimes" },
		"a signal that stays here":    func(o *Options) { o.Service.StopSignal = "37" },
		"a signal that cannot be":     func(o *Options) { o.Service.StopSignal = "KILL" },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			if got, err := Service(o); err == nil {
				t.Errorf("got\n%s", got)
			}
		})
	}
	if _, err := Service(good); err != nil {
		t.Error(err)
	}
}
