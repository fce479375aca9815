package spec

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// wholeService has every field set.
var wholeService = Service{
	Restart: Restart{Policy: RestartOnFailure, Max: 3}, StopSignal: "SIGINT", StopTimeout: time.Second, IdleTimeout: time.Hour,
	Health:      &Check{Command: []string{"true"}, Interval: 1, Timeout: 1, Retries: 1, StartPeriod: 1},
	OnUnhealthy: UnhealthyRestart, Ready: &Check{HTTP: "http://[::1]:8080/healthz?x"}, Notify: true,
	Log:     Log{Size: MinLogSize, Files: MaxLogFiles, Off: true},
	Hooks:   Hooks{Poststop: []Hook{{Path: "/bin/x", Args: []string{"x"}, Env: []string{"A=", "b.c=d=e"}, Timeout: 1}}},
	Audit:   Audit{Log: "x", HideArgs: true},
	Systemd: true,
}

func TestServiceValidate(t *testing.T) {
	health := func(c Check) Service { return Service{Health: &c} }
	ready := func(c Check) Service { return Service{Ready: &c} }
	hook := func(h Hook) Service { return Service{Hooks: Hooks{Poststart: []Hook{{Path: "/ok"}, h}}} }
	env := func(env ...string) Service { return hook(Hook{Path: "/x", Env: env}) }
	for _, tc := range []struct {
		name    string
		service Service
		want    string // fields with problems, separated by spaces
	}{
		{"zero value", Service{}, ""},
		{"everything", wholeService, ""},

		{"always", Service{Restart: Restart{Policy: RestartAlways}}, ""},
		{"unless stopped", Service{Restart: Restart{Policy: RestartUnlessStopped}}, ""},
		{"on failure, without end", Service{Restart: Restart{Policy: RestartOnFailure}}, ""},
		{"unknown policy", Service{Restart: Restart{Policy: "no", Max: 1}}, "restart.policy"},
		{"always, three times", Service{Restart: Restart{Policy: RestartAlways, Max: 3}}, "restart.max"},
		{"never, three times", Service{Restart: Restart{Max: 3}}, "restart.max"},
		{"on failure, less than never", Service{Restart: Restart{Policy: RestartOnFailure, Max: -1}}, "restart.max"},
		{"removed", Service{Remove: true}, ""},
		{"removed and started again", Service{Remove: true, Restart: Restart{Policy: RestartOnFailure}}, "remove"},

		{"signal by number", Service{StopSignal: "64"}, ""},
		{"no signal", Service{StopSignal: "SIGNONE"}, "stop_signal"},
		{"signal 0", Service{StopSignal: "0"}, "stop_signal"},
		{"times before now", Service{StopTimeout: -1, IdleTimeout: -1}, "stop_timeout idle_timeout"},

		{"unhealthy without a check", Service{OnUnhealthy: UnhealthyKill}, "on_unhealthy"},
		{"unhealthy with readiness only", Service{OnUnhealthy: UnhealthyKill, Ready: &Check{TCP: "127.0.0.1:1"}}, "on_unhealthy"},
		{"unhealthy, unknown", Service{OnUnhealthy: "panic", Health: &Check{TCP: "127.0.0.1:1"}}, "on_unhealthy"},

		{"check of nothing", health(Check{}), "health"},
		{"check of two", health(Check{Command: []string{"x"}, TCP: "127.0.0.1:1"}), "health"},
		{"check of three", ready(Check{Command: []string{"x"}, TCP: "127.0.0.1:1", HTTP: "http://127.0.0.1/"}), "ready"},
		{"check in the past", health(Check{Command: []string{"x"}, Interval: -1, Timeout: -1, StartPeriod: -1, Retries: -1}),
			"health.interval health.timeout health.start_period health.retries"},
		{"TCP, IPv6", ready(Check{TCP: "[::1]:5432"}), ""},
		{"TCP, a name", ready(Check{TCP: "localhost:5432"}), "ready.tcp"},
		{"TCP, no port", ready(Check{TCP: "127.0.0.1"}), "ready.tcp"},
		{"HTTP, no port", health(Check{HTTP: "http://127.0.0.1"}), ""},
		{"HTTP, a name", health(Check{HTTP: "http://localhost:80/"}), "health.http"},
		{"HTTP, no host", health(Check{HTTP: "http:///x"}), "health.http"},
		{"HTTP with secrets", health(Check{HTTP: "http://u:p@127.0.0.1/"}), "health.http"},
		{"HTTPS", health(Check{HTTP: "https://127.0.0.1/"}), "health.http"},
		{"HTTP with a line", health(Check{HTTP: "http://127.0.0.1/\r\nX: y"}), "health.http"},

		{"log as small as may be", Service{Log: Log{Size: MinLogSize, Files: 1}}, ""},
		{"log too small", Service{Log: Log{Size: MinLogSize - 1}}, "log.size"},
		{"too many logs", Service{Log: Log{Files: MaxLogFiles + 1}}, "log.files"},
		{"less than no log", Service{Log: Log{Files: -1}}, "log.files"},

		{"hook somewhere", hook(Hook{Path: "x"}), "hooks.poststart[1].path"},
		{"hook nowhere", hook(Hook{}), "hooks.poststart[1].path"},
		{"hook that goes up", hook(Hook{Path: "/usr/bin/../../tmp/x"}), "hooks.poststart[1].path"},
		{"hook in the past", hook(Hook{Path: "/x", Timeout: -1}), "hooks.poststart[1].timeout"},
		{"hook's environment", env("A", "=b", "", "A=\x00", "A=b"), strings.TrimSpace(strings.Repeat("hooks.poststart[1].env ", 4))},
		{"hooks of each phase", Service{Hooks: Hooks{CreateRuntime: []Hook{{}}, Poststart: []Hook{{}}, Poststop: []Hook{{}}}},
			"hooks.createRuntime[0].path hooks.poststart[0].path hooks.poststop[0].path"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := strings.Join(fields(t, tc.service.Validate()), " "); got != tc.want {
				t.Errorf("got problems with %q, want %q", got, tc.want)
			}
		})
	}
}

// TestServiceFields fails when a field is added that wholeService, and so the
// tests that use it, do not know of.
func TestServiceFields(t *testing.T) {
	data, err := json.Marshal(wholeService)
	if err != nil {
		t.Fatal(err)
	}
	var back Service
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, wholeService) {
		t.Errorf("got %+v, %v, want %+v", back, err, wholeService)
	}
	v := reflect.ValueOf(wholeService)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "Remove" { // it cannot go with Restart
			t.Errorf("%s is not set", name)
		}
	}
	if data, err := json.Marshal(Service{}); err != nil || string(data) != `{"restart":{},"log":{},"hooks":{}}` {
		t.Errorf("the zero value: got %s, %v", data, err)
	}
}

func TestNeedsKeeper(t *testing.T) {
	hooks := []Hook{{Path: "/x"}}
	for _, tc := range []struct {
		name    string
		service Service
		want    bool
	}{
		{"zero value", Service{}, false},
		{"restart", Service{Restart: Restart{Policy: RestartAlways}}, true},
		{"idle timeout", Service{IdleTimeout: 1}, true},
		{"health", Service{Health: &Check{}}, true},
		{"notify", Service{Notify: true}, true},
		{"systemd", Service{Systemd: true}, true},
		{"inherited output", Service{Log: Log{Inherit: true}}, true},
		{"a hook at the end", Service{Hooks: Hooks{Poststop: hooks}}, true},
		{"what the starter or the stopper does", Service{
			StopSignal: "INT", StopTimeout: 1, Remove: true, Ready: &Check{}, Log: Log{Off: true},
			Hooks: Hooks{CreateRuntime: hooks, Poststart: hooks},
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.service.NeedsKeeper(); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestSignalNumber(t *testing.T) {
	for name, want := range map[string]int{
		"TERM": 15, "SIGTERM": 15, "term": 15, "sigterm": 15, "15": 15, "HUP": 1, "SYS": 31, "KILL": 9, "1": 1, "64": 64, "34": 34,
		"": 0, "SIG": 0, "0": 0, "65": 0, "-1": 0, "TERM ": 0, "SIGSIGTERM": 0, "RTMIN": 0, "99999999999999999999": 0, "1.5": 0, "0x9": 0,
	} {
		if got := SignalNumber(name); got != want {
			t.Errorf("%q: got %d, want %d", name, got, want)
		}
	}
	for n := 1; n <= maxSignal; n++ {
		if got := SignalNumber(SignalName(n)); got != n {
			t.Errorf("signal %d: got %d from %s", n, got, SignalName(n))
		}
	}
	for n, want := range map[int]string{0: "0", -1: "-1", 31: "SYS", 32: "32"} {
		if got := SignalName(n); got != want {
			t.Errorf("signal %d: got %s, want %s", n, got, want)
		}
	}
}
