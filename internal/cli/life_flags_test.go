package cli

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/spec"
)

// asService parses the command line of `nucleus run --detach`.
func asService(args ...string) (spec.Service, *lifeOptions, error) {
	c := &call{cmd: &runCommand}
	if err := c.parse(append(append([]string{"-d"}, args...), "--", "prog")); err != nil {
		return spec.Service{}, nil, err
	}
	if _, err := c.sandbox(); err != nil {
		return spec.Service{}, nil, err
	}
	if err := c.exclusive(); err != nil {
		return spec.Service{}, nil, err
	}
	s, err := c.describeService()
	return s, &c.opts.life, err
}

func TestServiceFlags(t *testing.T) {
	for _, tc := range []struct {
		args string
		want spec.Service
	}{
		{"", spec.Service{}},
		{"--rm", spec.Service{Remove: true}},
		{"--restart no", spec.Service{}},
		{"--restart=on-failure", spec.Service{Restart: spec.Restart{Policy: spec.RestartOnFailure}}},
		{"--restart on-failure:3", spec.Service{Restart: spec.Restart{Policy: spec.RestartOnFailure, Max: 3}}},
		{"--restart always", spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}}},
		{"--restart unless-stopped", spec.Service{Restart: spec.Restart{Policy: spec.RestartUnlessStopped}}},
		{"--restart always --restart no --rm", spec.Service{Remove: true}},
		{"--stop-signal sigint --stop-timeout 2m", spec.Service{StopSignal: "INT", StopTimeout: 2 * time.Minute}},
		{"--stop-signal 15 --stop-timeout 7", spec.Service{StopSignal: "TERM", StopTimeout: 7 * time.Second}},
		{"--stop-signal 40", spec.Service{StopSignal: "40"}},
		{"--idle-timeout 1h", spec.Service{IdleTimeout: time.Hour}},
		{"--health-http http://127.0.0.1:80/ --health-interval 1s --health-timeout 2s --health-retries 4 --health-start-period 5s --on-unhealthy restart",
			spec.Service{OnUnhealthy: spec.UnhealthyRestart, Health: &spec.Check{HTTP: "http://127.0.0.1:80/", Interval: time.Second, Timeout: 2 * time.Second, Retries: 4, StartPeriod: 5 * time.Second}}},
		{"--health-tcp [::1]:1 --on-unhealthy kill --on-unhealthy none", spec.Service{Health: &spec.Check{TCP: "[::1]:1"}}},
		{"--health-cmd true", spec.Service{Health: &spec.Check{Command: []string{"/bin/sh", "-c", "true"}}}},
		{"--readiness-tcp 127.0.0.1:1 --readiness-interval 100ms --readiness-timeout 1 --readiness-retries 2",
			spec.Service{Ready: &spec.Check{TCP: "127.0.0.1:1", Interval: 100 * time.Millisecond, Timeout: time.Second, Retries: 2}}},
		{"--readiness-http http://[::1]/x", spec.Service{Ready: &spec.Check{HTTP: "http://[::1]/x"}}},
		{`--readiness-cmd ["a","b"]`, spec.Service{Ready: &spec.Check{Command: []string{"a", "b"}}}},
		{"--sd-notify", spec.Service{Notify: true}},
		{"--log-size 1M --log-files 16 --log-driver file", spec.Service{Log: spec.Log{Size: spec.MiB, Files: 16}}},
		{"--log-driver none", spec.Service{Log: spec.Log{Off: true}}},
		{"--hook-create-runtime /bin/true --hook-poststart /bin/true --hook-poststop /bin/true --hook-poststop /bin/false", spec.Service{Hooks: spec.Hooks{
			CreateRuntime: []spec.Hook{{Path: "/bin/true"}}, Poststart: []spec.Hook{{Path: "/bin/true"}}, Poststop: []spec.Hook{{Path: "/bin/true"}, {Path: "/bin/false"}}}}},
	} {
		t.Run(tc.args, func(t *testing.T) {
			got, _, err := asService(strings.Fields(tc.args)...)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestShellCommand(t *testing.T) {
	sh := func(v string) []string { return []string{"/bin/sh", "-c", v} }
	for v, want := range map[string][]string{
		"curl -f http://x || exit 1": sh("curl -f http://x || exit 1"),
		"[ -e /tmp/up ]":             sh("[ -e /tmp/up ]"),
		"[-e]":                       sh("[-e]"),
		`["curl", "-f", "a b"]`:      {"curl", "-f", "a b"},
		` ["x"] `:                    {"x"},
		`"quoted"`:                   sh(`"quoted"`),
		"":                           nil, " ": nil, "[]": nil, `[""]`: nil, `["a"`: nil, `["a", 1]`: nil, `[ "a", b ]`: nil,
	} {
		got, err := shellCommand(v)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%s: got %q, %v, want %q", v, got, err, want)
		}
	}
}

func TestLabels(t *testing.T) {
	_, life, err := asService("--label", "a=b", "--label", "c", "--label", "a=x=y")
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"a": "x=y", "c": ""}; !reflect.DeepEqual(life.labels, want) {
		t.Errorf("got %v, want %v", life.labels, want)
	}
}

func TestHooksFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hooks.json")
	read := func(text string) (spec.Hooks, error) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, err := asService("--hook-poststop", "/bin/true", "--hooks", file)
		return s.Hooks, err
	}
	const hooks = `{"prestart":[{"path":"/bin/true"}],"createRuntime":[{"path":"/bin/false","args":["f","-x"],"env":["A=1"],"timeout":3}],"poststop":[{"path":"/bin/false"}]}`
	want := spec.Hooks{
		CreateRuntime: []spec.Hook{{Path: "/bin/true"}, {Path: "/bin/false", Args: []string{"f", "-x"}, Env: []string{"A=1"}, Timeout: 3 * time.Second}},
		Poststop:      []spec.Hook{{Path: "/bin/true"}, {Path: "/bin/false"}},
	}
	for _, text := range []string{hooks, `{"ociVersion":"1.0.2","hooks":` + hooks + `,"root":{"path":"x"}}`} {
		if got, err := read(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "[]", "{", `{"poststrat":[]}`, `{"hooks":{"poststrat":[]}}`, `{"poststop":[{"path":"/bin/true","arg":[]}]}`, `{"poststop":[{"path":"true"}]}`,
		`{"poststop":[{}]}`, `{"startContainer":[{"path":"/bin/true"}]}`, `{"createContainer":[{"path":"/bin/true"}]}`, `{"poststop":[{"path":"/bin/true","timeout":0}]}`,
		`{"poststop":[{"path":"/bin/true","timeout":-1}]}`, `{"poststop":[{"path":"/bin/true","timeout":9999999999999}]}`, `{"poststop":[{"path":"/bin/true","env":["A"]}]}`,
		`{"poststop":[{"path":"/etc/passwd"}]}`, `{"poststop":[{"path":"/no/such/hook"}]}`, strings.Repeat(" ", 1<<20) + "{}",
	} {
		if got, err := read(text); err == nil {
			t.Errorf("%.80s: got %+v", text, got)
		}
	}
}

// TestServiceProblemsNameFlags is TestProblemsNameFlags for services.
func TestServiceProblemsNameFlags(t *testing.T) {
	for field, want := range map[string]string{
		"restart.policy": "--restart", "restart.max": "--restart", "stop_signal": "--stop-signal", "stop_timeout": "--stop-timeout", "remove": "--rm",
		"idle_timeout": "--idle-timeout", "on_unhealthy": "--on-unhealthy", "health.http": "--health-http", "health.tcp": "--health-tcp",
		"health.interval": "--health-interval", "health.retries": "--health-retries", "health.start_period": "--health-start-period", "health.timeout": "--health-timeout",
		"ready.http": "--readiness-http", "ready.tcp": "--readiness-tcp", "ready.interval": "--readiness-interval", "ready.retries": "--readiness-retries", "ready.timeout": "--readiness-timeout",
		"log.size": "--log-size", "log.files": "--log-files", "hooks.createRuntime[0].path": "--hook-create-runtime", "hooks.poststart[1].env": "--hook-poststart",
		"hooks.poststop[0].timeout": "--hook-poststop",
	} {
		if got := runCommand.flagFor(field); got != want {
			t.Errorf("%s: got %s, want %s", field, got, want)
		}
	}
}

func TestPatience(t *testing.T) {
	for v, want := range map[string]time.Duration{"0": -1, "-1": forever, "5": 5 * time.Second, "1m30s": 90 * time.Second, "200ms": 200 * time.Millisecond} {
		c := &call{cmd: &stopCommand}
		if err := c.parse([]string{"-t", v, "web"}); err != nil || c.opts.life.patience != want || !slices.Equal(c.args, []string{"web"}) {
			t.Errorf("%s: got %v, %v, %q", v, c.opts.life.patience, err, c.args)
		}
	}
	for _, v := range []string{"", "-2", "-1s", "0s", "soon", "1d", "99999999999999999999"} {
		c := &call{cmd: &stopCommand}
		if err := c.parse([]string{"-t", v, "web"}); err == nil {
			t.Errorf("%s: got %v", v, c.opts.life.patience)
		}
	}
}

func TestEveryVerbIsExplained(t *testing.T) {
	for _, c := range append(slices.Clone(lifeCommands), &runCommand) {
		if c.short == "" || c.long == "" || strings.HasSuffix(c.short, ".") || len(c.examples) == 0 && !c.hidden {
			t.Errorf("%s: short %q, long %q, %d examples", c.name, c.short, c.long, len(c.examples))
		}
		seen := map[string]bool{}
		for f := range c.all() {
			if f.help == "" || !strings.HasSuffix(f.help, ".") || f.set == nil {
				t.Errorf("%s --%s: help %q", c.name, f.name, f.help)
			}
			for _, name := range f.typed() {
				if seen[name] {
					t.Errorf("%s %s is there twice", c.name, name)
				}
				seen[name] = true
			}
		}
		if help := commandHelp(c); !strings.Contains(help, "\n  1 ") || !strings.Contains(help, "Exit codes:") {
			t.Errorf("%s --help does not explain exit code 1", c.name)
		}
	}
}

func FuzzShellCommand(f *testing.F) {
	f.Add(`["a","b"]`)
	f.Add("[ -e x ]")
	f.Fuzz(func(t *testing.T, v string) {
		argv, err := shellCommand(v)
		if (err == nil) != (len(argv) > 0 && argv[0] != "") || err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q: got %q, %v", v, argv, err)
		}
	})
}

func FuzzHooks(f *testing.F) {
	f.Add([]byte(`{"hooks":{"poststop":[{"path":"/bin/true","timeout":1}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHooks(data)
		if err != nil {
			return
		}
		var out spec.Hooks
		if h.add(&out) != nil {
			return
		}
		for _, hook := range slices.Concat(out.CreateRuntime, out.Poststart, out.Poststop) {
			if !filepath.IsAbs(hook.Path) || hook.Timeout < 0 {
				t.Errorf("got %+v", hook)
			}
		}
	})
}
