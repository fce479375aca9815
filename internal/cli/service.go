package cli

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/hook"
	"github.com/nucleus-container/nucleus/spec"
)

// detachFlags make a service of a program: those of `nucleus run`.
var detachFlags = []flag{
	{group: "Service", name: "detach", short: "d",
		help: "Do not wait for the program: print the sandbox's id when it runs, and is ready if there is a way to tell. Its input is empty, its output goes into logs.",
		set:  func(o *options, _ string) error { o.life.detach = true; return nil }},
	{name: "systemd", field: "systemd",
		help: "With --detach, have systemd run it, in a transient unit with a control group of its own: the system's for root, else yours.",
		set:  func(o *options, _ string) error { o.service("systemd").Systemd = true; return nil }},
	{name: "rm", field: "remove",
		help: "With --detach, remove the sandbox and its logs when it ends. Others are always removed.",
		set:  func(o *options, _ string) error { o.life.service.Remove = true; return nil }},
	{name: "restart", arg: "POLICY", choice: "no on-failure always unless-stopped", field: "restart",
		help: "With --detach, start the program again when it has ended: no, on-failure[:N] (N times in a row), always, or unless-stopped (the same as always: there is no daemon that starts it after a reboot).",
		set:  func(o *options, v string) (err error) { o.service("restart").Restart, err = restart(v); return err }},
	{name: "stop-signal", arg: "SIGNAL", choice: signalNames, field: "stop_signal",
		help: "Ask the program to end by this signal (TERM).",
		set: func(o *options, v string) error {
			n, err := signalNumber(v)
			o.service("stop-signal").StopSignal = spec.SignalName(n)
			return err
		}},
	{name: "stop-timeout", arg: "DURATION", field: "stop_timeout",
		help: "Kill it when it has not ended so long after it was asked to (10s).",
		set:  func(o *options, v string) error { return positive(&o.service("stop-timeout").StopTimeout, v) }},
	{name: "idle-timeout", arg: "DURATION", field: "idle_timeout",
		help: "With --detach, stop it when for so long nobody has been attached to it or has executed anything in it.",
		set:  func(o *options, v string) error { return positive(&o.service("idle-timeout").IdleTimeout, v) }},
	{name: "label", arg: "KEY=VALUE",
		help: "Attach a note to it, for ps --filter and inspect. Repeatable.",
		set:  setLabel},
}

// serviceFlags say how it is looked after.
var serviceFlags = []flag{
	{group: "Health", name: "health-cmd", arg: "COMMAND", field: "health",
		help: "Ask the program whether it is well: run this inside, by /bin/sh -c, or as it is if it is a JSON array such as [\"curl\", \"-f\", \"...\"]; exit code 0 is a yes.",
		set: func(o *options, v string) (err error) {
			o.health("health-cmd").Command, err = shellCommand(v)
			return err
		}},
	{name: "health-http", arg: "URL", field: "health.http",
		help: "Ask by HTTP, at an address of the sandbox such as http://127.0.0.1:8080/healthz; a status of 200 to 399 is a yes.",
		set:  func(o *options, v string) (err error) { o.health("health-http").HTTP, err = given(v); return err }},
	{name: "health-tcp", arg: "ADDR:PORT", field: "health.tcp",
		help: "Ask by connecting to an address of the sandbox such as 127.0.0.1:5432.",
		set:  func(o *options, v string) (err error) { o.health("health-tcp").TCP, err = given(v); return err }},
	{name: "health-interval", arg: "DURATION", field: "health.interval",
		help: "Ask so long after each answer (30s).",
		set:  func(o *options, v string) error { return positive(&o.health("health-interval").Interval, v) }},
	{name: "health-timeout", arg: "DURATION", field: "health.timeout",
		help: "Take no answer within this time for a no (30s).",
		set:  func(o *options, v string) error { return positive(&o.health("health-timeout").Timeout, v) }},
	{name: "health-retries", arg: "N", field: "health.retries",
		help: "Call it unhealthy after so many noes in a row (3).",
		set:  func(o *options, v string) error { return count(&o.health("health-retries").Retries, v) }},
	{name: "health-start-period", arg: "DURATION", field: "health.start_period",
		help: "Do not count noes for so long after the start.",
		set:  func(o *options, v string) error { return positive(&o.health("health-start-period").StartPeriod, v) }},
	{name: "on-unhealthy", arg: "ACTION", choice: "none kill restart", field: "on_unhealthy",
		help: "When it is unhealthy, only say so (none), kill it, or with --detach stop it and start it again (restart).",
		set:  setOnUnhealthy},

	{group: "Readiness", name: "readiness-cmd", arg: "COMMAND", field: "ready",
		help: "Return only when the program is ready: when this, run inside as --health-cmd, exits with 0.",
		set: func(o *options, v string) (err error) {
			o.ready("readiness-cmd").Command, err = shellCommand(v)
			return err
		}},
	{name: "readiness-http", arg: "URL", field: "ready.http",
		help: "Return only when this answers, as --health-http.",
		set:  func(o *options, v string) (err error) { o.ready("readiness-http").HTTP, err = given(v); return err }},
	{name: "readiness-tcp", arg: "ADDR:PORT", field: "ready.tcp",
		help: "Return only when this accepts a connection.",
		set:  func(o *options, v string) (err error) { o.ready("readiness-tcp").TCP, err = given(v); return err }},
	{name: "readiness-interval", arg: "DURATION", field: "ready.interval",
		help: "Ask so long after each answer (1s).",
		set:  func(o *options, v string) error { return positive(&o.ready("readiness-interval").Interval, v) }},
	{name: "readiness-timeout", arg: "DURATION", field: "ready.timeout",
		help: "Take no answer within this time for a no (5s).",
		set:  func(o *options, v string) error { return positive(&o.ready("readiness-timeout").Timeout, v) }},
	{name: "readiness-retries", arg: "N", field: "ready.retries",
		help: "Give up after so many noes: the start has failed then (60).",
		set:  func(o *options, v string) error { return count(&o.ready("readiness-retries").Retries, v) }},
	{name: "sd-notify", field: "notify",
		help: "Give the program a socket for sd_notify(3) in NOTIFY_SOCKET, and return only when it has said READY=1 there.",
		set:  func(o *options, _ string) error { o.service("sd-notify").Notify = true; return nil }},

	{group: "Logs (with --detach)", name: "log-driver", arg: "file|none|journald", choice: "file none journald",
		help: "Keep the program's output in files (file), in the journal (journald, only with --systemd: what root gets then unless it asks for something else), or nowhere.",
		set: func(o *options, v string) error {
			_, err := oneOf(v, "file", "none", "journald")
			o.service("log-driver").Log.Off = v == "none"
			o.life.driver = v
			return err
		}},
	{name: "log-size", arg: "SIZE", field: "log.size",
		help: "Bound each file of the log (16M); at least 64K.",
		set:  func(o *options, v string) (err error) { o.service("log-size").Log.Size, err = size(v); return err }},
	{name: "log-files", arg: "N", field: "log.files",
		help: "Keep so many files, 1 to 16 (2); the oldest is overwritten.",
		set:  func(o *options, v string) error { return count(&o.service("log-files").Log.Files, v) }},

	{group: "Hooks", name: "hook-create-runtime", arg: "PATH", choice: "<file>", field: "hooks.createRuntime",
		help: "Run this program of the host, by its absolute path, before the sandbox's program starts. It and its directories must be writable by you and root only. Repeatable.",
		set: func(o *options, v string) error {
			return addHook(&o.service("hook-create-runtime").Hooks.CreateRuntime, v)
		}},
	{name: "hook-poststart", arg: "PATH", choice: "<file>", field: "hooks.poststart",
		help: "Run this program of the host when the sandbox's runs. Repeatable.",
		set:  func(o *options, v string) error { return addHook(&o.service("hook-poststart").Hooks.Poststart, v) }},
	{name: "hook-poststop", arg: "PATH", choice: "<file>", field: "hooks.poststop",
		help: "Run this program of the host when the sandbox has ended. Repeatable.",
		set:  func(o *options, v string) error { return addHook(&o.service("hook-poststop").Hooks.Poststop, v) }},
	{name: "hooks", arg: "FILE", choice: "<file>",
		help: "Take hooks from a JSON file as the OCI runtime specification has it: the object \"hooks\", or what has it as a member.",
		set:  func(o *options, v string) error { o.service("hooks"); return hooksFile(o, v) }},
}

// service is the description to change. The first flag that asks for it is the
// one that is named if there is nothing to describe.
func (o *options) service(by string) *spec.Service {
	if o.life.asked == "" {
		o.life.asked = by
	}
	return &o.life.service
}

func (o *options) health(by string) *spec.Check { return question(&o.service(by).Health) }
func (o *options) ready(by string) *spec.Check  { return question(&o.service(by).Ready) }

func question(c **spec.Check) *spec.Check {
	if *c == nil {
		*c = &spec.Check{}
	}
	return *c
}

// positive reads a duration that is not nothing: to the library that is the default.
func positive(to *time.Duration, v string) (err error) {
	if *to, err = duration(v); err != nil && strings.Contains(err.Error(), "leave the flag out") {
		err = fmt.Errorf("%s: must be more than 0; leave the flag out for the default", quote(v))
	}
	return err
}

// count reads a number of things, at least one.
func count(to *int, v string) error {
	n, err := number(v, 1_000_000)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s is less than 1; leave the flag out for the default", quote(v))
	}
	*to = int(n)
	return err
}

// restart reads no, on-failure[:N], always or unless-stopped.
func restart(v string) (r spec.Restart, err error) {
	name, most, has := strings.Cut(v, ":")
	if _, err := oneOf(name, "no", "on-failure", "always", "unless-stopped"); err != nil {
		return r, err
	}
	if has && name != "on-failure" {
		return r, fmt.Errorf("%s: only on-failure counts its attempts", quote(v))
	}
	if name != "no" {
		r.Policy = spec.RestartPolicy(name)
	}
	if has {
		err = count(&r.Max, most)
	}
	return r, err
}

// signalNames are the signals that people send, for completion.
const signalNames = "TERM INT HUP QUIT KILL USR1 USR2 STOP CONT WINCH"

func signalNumber(v string) (int, error) {
	n := spec.SignalNumber(v)
	if n == 0 {
		return 0, fmt.Errorf("%s is not a signal such as TERM, SIGTERM or 15", quote(v))
	}
	return n, nil
}

func setOnUnhealthy(o *options, v string) error {
	_, err := oneOf(v, "none", "kill", "restart")
	if o.service("on-unhealthy").OnUnhealthy = spec.UnhealthyNone; v != "none" {
		o.life.service.OnUnhealthy = spec.OnUnhealthy(v)
	}
	return err
}

// setLabel takes K=V, or K for an empty value.
func setLabel(o *options, v string) error {
	key, value, _ := strings.Cut(v, "=")
	if key == "" || !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
		return fmt.Errorf("%s is not KEY=VALUE", quote(v))
	}
	o.service("label")
	if o.life.labels == nil {
		o.life.labels = map[string]string{}
	}
	o.life.labels[key] = value
	return nil
}

// describeService completes the description of a service, and finds out what is
// wrong with it before anything exists.
func (c *call) describeService() (spec.Service, error) {
	l := &c.opts.life
	s := l.service
	if err := oneQuestion("health", s.Health); err != nil {
		return s, err
	}
	if err := oneQuestion("readiness", s.Ready); err != nil {
		return s, err
	}
	switch {
	case l.driver == "journald" && !s.Systemd:
		return s, usageError("--log-driver journald needs --systemd")
	case s.Systemd && s.Log == (spec.Log{}) && (l.driver == "journald" || l.driver == "" && os.Geteuid() == 0):
		s.Log.Inherit = true // an ordinary user may not even read it: the journal is only split where it is kept on disk
	}
	if l.service.Log.Off && (s.Log.Size != 0 || s.Log.Files != 0) {
		return s, usageError("--log-driver none keeps nothing: --log-size and --log-files make no sense with it")
	}
	if err := nucleus.Invalid(s.Validate()); err != nil {
		return s, err
	}
	for _, phase := range []struct {
		name  string
		hooks []spec.Hook
	}{{"create-runtime", s.Hooks.CreateRuntime}, {"poststart", s.Hooks.Poststart}, {"poststop", s.Hooks.Poststop}} {
		for _, h := range phase.hooks {
			if err := hook.Check(h, os.Geteuid()); err != nil {
				return s, usageError(fmt.Sprintf("--hook-%s: %v", phase.name, err))
			}
		}
	}
	return s, nil
}

// oneQuestion refuses a check that asks nothing, or two things.
func oneQuestion(name string, c *spec.Check) error {
	if c == nil {
		return nil
	}
	var given []string
	for _, kind := range [...]struct {
		name string
		is   bool
	}{{"cmd", len(c.Command) > 0}, {"http", c.HTTP != ""}, {"tcp", c.TCP != ""}} {
		if kind.is {
			given = append(given, "--"+name+"-"+kind.name)
		}
	}
	switch len(given) {
	case 0:
		return usageError(fmt.Sprintf("there is nothing to ask: give --%s-cmd, --%[1]s-http or --%[1]s-tcp", name))
	case 1:
		return nil
	}
	return usageError(strings.Join(given, " and ") + " exclude each other")
}
