package spec

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Service says how a sandbox that outlives its starter is looked after. The
// zero value asks for nothing: it is started once, and its end is recorded.
type Service struct {
	// Restart says whether it is started again when it has ended.
	Restart Restart `json:"restart"`
	// StopSignal asks the program to end: a name such as TERM or INT. Empty: TERM.
	StopSignal string `json:"stop_signal,omitempty"`
	// StopTimeout is how long a stop waits before it kills. Zero: 10 s.
	StopTimeout time.Duration `json:"stop_timeout,omitempty"`
	// Remove forgets the sandbox when it has ended.
	Remove bool `json:"remove,omitempty"`
	// IdleTimeout stops it when nobody has been attached to it or has executed
	// anything in it for this long. Zero: never.
	IdleTimeout time.Duration `json:"idle_timeout,omitempty"`
	// Health is asked again and again while it runs.
	Health *Check `json:"health,omitempty"`
	// OnUnhealthy says what follows from Health.
	OnUnhealthy OnUnhealthy `json:"on_unhealthy,omitempty"`
	// Ready is asked until it answers once: only then the start is complete.
	Ready *Check `json:"ready,omitempty"`
	// Notify gives the program a socket for sd_notify(3) in NOTIFY_SOCKET. The
	// start is complete when it has sent READY=1; what it says is passed on to
	// the caller's own NOTIFY_SOCKET.
	Notify bool `json:"notify,omitempty"`
	// Log bounds what is kept of the program's output.
	Log Log `json:"log"`
	// Hooks are programs of the host that run at points of its life.
	Hooks Hooks `json:"hooks"`
	// Audit says where its life is written down.
	Audit Audit `json:"audit,omitzero"`
	// Systemd has the service manager run it, as a transient unit.
	Systemd bool `json:"systemd,omitempty"`
}

// Audit says where the events of a sandbox's life are written down.
type Audit struct {
	// Log is the path of an audit log, which may be that of other sandboxes too.
	// No directory that the sandbox sees may hold it. Empty: none.
	Log string `json:"log,omitempty"`
	// HideArgs keeps the program's arguments out.
	HideArgs bool `json:"hide_args,omitempty"`
}

// RestartPolicy says when an ended sandbox is started again.
type RestartPolicy string

// Restart policies, with docker's names and meaning.
const (
	RestartNo            RestartPolicy = ""               // never
	RestartOnFailure     RestartPolicy = "on-failure"     // if it did not exit with 0
	RestartAlways        RestartPolicy = "always"         // whenever it ends, unless it was stopped
	RestartUnlessStopped RestartPolicy = "unless-stopped" // the same: no daemon is there to start it at boot
)

// Restart is a policy and the number of attempts in a row that it makes.
type Restart struct {
	Policy RestartPolicy `json:"policy,omitempty"`
	// Max is the number of starts in a row after failures, for on-failure. Zero: no end.
	Max int `json:"max,omitempty"`
}

// OnUnhealthy says what happens to a sandbox that has become unhealthy.
type OnUnhealthy string

// What to do with an unhealthy sandbox.
const (
	UnhealthyNone    OnUnhealthy = ""        // say so
	UnhealthyKill    OnUnhealthy = "kill"    // kill it; a restart policy may start it again
	UnhealthyRestart OnUnhealthy = "restart" // stop it and start it again
)

// Check is one question to a sandbox: exactly one of Command, HTTP and TCP.
type Check struct {
	// Command is run inside, with the sandbox's policy; exit code 0 is a yes.
	Command []string `json:"command,omitempty"`
	// HTTP is a URL with an IP address of the sandbox's own network, such as
	// http://127.0.0.1:8080/healthz; a status of 200 to 399 is a yes.
	HTTP string `json:"http,omitempty"`
	// TCP is an IP address and port that accepts a connection.
	TCP string `json:"tcp,omitempty"`
	// Interval is the time from an answer to the next question. Zero: 30 s, for
	// readiness 1 s.
	Interval time.Duration `json:"interval,omitempty"`
	// Timeout is how long an answer may take. Zero: 30 s, for readiness 5 s.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Retries is how many noes in a row make it unhealthy. Zero: 3. For
	// readiness: how many make the start fail. Zero: 60.
	Retries int `json:"retries,omitempty"`
	// StartPeriod is the time after the start in which noes do not count.
	StartPeriod time.Duration `json:"start_period,omitempty"`
}

// Log bounds the log of a program's output.
type Log struct {
	// Size bounds one file. Zero: 16 MiB. At least 64 KiB.
	Size Bytes `json:"size,omitempty"`
	// Files is how many files there are, 1 to 16; the oldest is overwritten. Zero: 2.
	Files int `json:"files,omitempty"`
	// Off keeps nothing.
	Off bool `json:"off,omitempty"`
	// Inherit keeps nothing either: the program's output goes where that of
	// whoever stays with it goes, such as into the journal.
	Inherit bool `json:"inherit,omitempty"`
}

// Defaults of a Service.
const (
	DefaultStopTimeout = 10 * time.Second
	DefaultLogSize     = 16 * MiB
	DefaultLogFiles    = 2
	MinLogSize         = 64 * KiB
	MaxLogFiles        = 16
)

// Hook is a program of the host, as the OCI runtime specification has it.
type Hook struct {
	Path    string        `json:"path"`              // absolute
	Args    []string      `json:"args,omitempty"`    // beginning with the program's name; empty: Path
	Env     []string      `json:"env,omitempty"`     // its whole environment
	Timeout time.Duration `json:"timeout,omitempty"` // zero: 10 s
}

// Hooks are the OCI phases that run on the host. Each gets the sandbox's OCI
// state on standard input.
type Hooks struct {
	CreateRuntime []Hook `json:"createRuntime,omitempty"` // before the program is started
	Poststart     []Hook `json:"poststart,omitempty"`     // when it runs
	Poststop      []Hook `json:"poststop,omitempty"`      // when it has ended
}

// NeedsKeeper reports whether somebody must stay to look after the sandbox.
func (s Service) NeedsKeeper() bool {
	return s.Systemd || s.Log.Inherit || s.Restart.Policy != RestartNo || s.IdleTimeout != 0 || s.Health != nil || s.Notify || len(s.Hooks.Poststop) > 0
}

// Validate checks the description against itself and reports every problem it
// finds, joined; each is a *Problem.
func (s Service) Validate() error {
	var c checker
	switch s.Restart.Policy {
	case RestartNo, RestartAlways, RestartUnlessStopped:
		if s.Restart.Max != 0 {
			c.bad("restart.max", "only on-failure counts its attempts")
		}
	case RestartOnFailure:
		if s.Restart.Max < 0 {
			c.bad("restart.max", "%d is negative", s.Restart.Max)
		}
	default:
		c.bad("restart.policy", "%q is not one of no, on-failure, always, unless-stopped", s.Restart.Policy)
	}
	if s.Remove && s.Restart.Policy != RestartNo {
		c.bad("remove", "a sandbox that is started again cannot be removed when it ends")
	}
	if s.StopSignal != "" && SignalNumber(s.StopSignal) == 0 {
		c.bad("stop_signal", "%q is not the name of a signal", s.StopSignal)
	}
	negative(&c, "stop_timeout", s.StopTimeout)
	negative(&c, "idle_timeout", s.IdleTimeout)
	if !slices.Contains([]OnUnhealthy{UnhealthyNone, UnhealthyKill, UnhealthyRestart}, s.OnUnhealthy) {
		c.bad("on_unhealthy", "%q is not one of none, kill, restart", s.OnUnhealthy)
	} else if s.OnUnhealthy != UnhealthyNone && s.Health == nil {
		c.bad("on_unhealthy", "needs a health check")
	}
	s.Health.check(&c, "health")
	s.Ready.check(&c, "ready")
	if s.Log.Size != 0 && s.Log.Size < MinLogSize {
		c.bad("log.size", "%v is less than %v", s.Log.Size, MinLogSize)
	}
	if s.Log.Files < 0 || s.Log.Files > MaxLogFiles {
		c.bad("log.files", "%d is not between 1 and %d", s.Log.Files, MaxLogFiles)
	}
	if s.Log.Inherit && (s.Log.Off || s.Log.Size != 0 || s.Log.Files != 0) {
		c.bad("log.inherit", "nothing is kept then: there are no files to bound")
	}
	s.Hooks.check(&c)
	return errors.Join(c.problems...)
}

func negative(c *checker, field string, d time.Duration) {
	if d < 0 {
		c.bad(field, "%v is negative", d)
	}
}

func (k *Check) check(c *checker, field string) {
	if k == nil {
		return
	}
	kinds := 0
	if len(k.Command) > 0 {
		kinds++
	}
	if k.HTTP != "" {
		kinds++
		u, err := url.Parse(k.HTTP)
		if err != nil || u.Scheme != "http" || u.User != nil {
			c.bad(field+".http", "%q is not a URL such as http://127.0.0.1:8080/healthz", k.HTTP)
		} else if _, err := netip.ParseAddr(u.Hostname()); err != nil {
			c.bad(field+".http", "%q is not an IP address: names are not looked up", u.Hostname())
		}
	}
	if k.TCP != "" {
		kinds++
		if _, err := netip.ParseAddrPort(k.TCP); err != nil {
			c.bad(field+".tcp", "%q is not an IP address and port such as 127.0.0.1:5432", k.TCP)
		}
	}
	if kinds != 1 {
		c.bad(field, "it must have exactly one of a command, a URL and a TCP address")
	}
	negative(c, field+".interval", k.Interval)
	negative(c, field+".timeout", k.Timeout)
	negative(c, field+".start_period", k.StartPeriod)
	if k.Retries < 0 {
		c.bad(field+".retries", "%d is negative", k.Retries)
	}
}

func (h Hooks) check(c *checker) {
	for _, phase := range []struct {
		name  string
		hooks []Hook
	}{{"createRuntime", h.CreateRuntime}, {"poststart", h.Poststart}, {"poststop", h.Poststop}} {
		for i, hook := range phase.hooks {
			field := fmt.Sprintf("hooks.%s[%d]", phase.name, i)
			if !cleanAbs(hook.Path) {
				c.bad(field+".path", "%q is not an absolute path without \"..\"", hook.Path)
			}
			negative(c, field+".timeout", hook.Timeout)
			for _, kv := range hook.Env {
				if key, _, ok := strings.Cut(kv, "="); !ok || key == "" || strings.ContainsRune(kv, 0) {
					c.bad(field+".env", "%q is not KEY=VALUE", kv)
				}
			}
		}
	}
}

// signals are the names of signal(7), by number, for amd64 and arm64.
var signals = [...]string{
	1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 10: "USR1", 11: "SEGV", 12: "USR2",
	13: "PIPE", 14: "ALRM", 15: "TERM", 16: "STKFLT", 17: "CHLD", 18: "CONT", 19: "STOP", 20: "TSTP", 21: "TTIN", 22: "TTOU", 23: "URG",
	24: "XCPU", 25: "XFSZ", 26: "VTALRM", 27: "PROF", 28: "WINCH", 29: "IO", 30: "PWR", 31: "SYS",
}

// maxSignal is the last real-time signal.
const maxSignal = 64

// SignalNumber is the number of a signal given as TERM, SIGTERM, term or 15; 0
// if there is none.
func SignalNumber(name string) int {
	if n, err := strconv.Atoi(name); err == nil {
		if n < 1 || n > maxSignal {
			return 0
		}
		return n
	}
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if name == "" {
		return 0
	}
	return max(0, slices.Index(signals[:], name))
}

// SignalName is a signal's name without SIG, or its number.
func SignalName(n int) string {
	if n > 0 && n < len(signals) {
		return signals[n]
	}
	return strconv.Itoa(n)
}
