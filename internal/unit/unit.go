// Package unit writes units of systemd that run a sandbox. It is pure: whoever
// calls it knows where nucleus is, and puts the text where it belongs.
//
//	text, err := unit.Service(unit.Options{
//		Name: "web", Program: "/usr/bin/nucleus",
//		Args: []string{"run", "--name", "web", "--", "/opt/web/serve"},
//	})
//
// What to leave out of such a unit matters more than what to put in. Nucleus is
// a program that makes namespaces and mounts, and everything that systemd forbids
// to it, it forbids to the sandbox as well. So there is no
//
//   - RestrictNamespaces, SystemCallFilter=~@mount: a sandbox is made of these.
//   - ProtectProc, ProcSubset, ProtectKernelTunables, ProtectKernelLogs,
//     ProtectControlGroups: they mount over parts of /proc or /sys. The kernel
//     lets a user namespace mount a proc of its own only where the one that it
//     can see is whole (mount_too_revealing). Control groups are written to, too.
//   - PrivateUsers, PrivateNetwork, PrivateDevices, ProtectHostname: they take
//     away the host's ids, interfaces and devices that a sandbox is given parts
//     of, or the call that names it.
//   - ProtectHome, PrivateTmp: they would hide directories that are to be mounted.
//   - SystemCallFilter, SystemCallArchitectures, RestrictAddressFamilies,
//     RestrictRealtime, RestrictSUIDSGID, LockPersonality, MemoryDenyWriteExecute,
//     ProtectClock: they are seccomp filters and device rules, which the sandbox
//     inherits. What it may call is its own policy's to say, in one place: a
//     second one that nobody sees there would break compilers, debuggers and every
//     program that translates at run time.
package unit

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/spec"
)

// Options say what runs, and for whom.
type Options struct {
	// Name is the sandbox's, for the description.
	Name string
	// Description replaces "Nucleus sandbox NAME".
	Description string
	// Program is the absolute path of nucleus.
	Program string
	// Args are its arguments, beginning with the verb. It must stay in the
	// foreground, and must not restart the sandbox itself: the manager does.
	Args []string
	// User is for a manager of a user; otherwise it is for the system's.
	User bool
	// After are the units that are started before, besides the network.
	After []string
	// Writable are directories below /usr, /boot and /etc that the sandbox may
	// write to, if its volumes say so: the system's unit cannot write there.
	Writable []string
	// Service says how it is looked after: Restart, StopSignal, StopTimeout and
	// Notify are the manager's business here. The rest is not.
	Service spec.Service
}

// grace is the time for tidying up after the program has been stopped.
const grace = 5 * time.Second

// pause is the time before a restart. It does not grow: the manager's own
// RestartSteps (v254) are counted from the last start by hand, so a service that
// fails once a week would one day wait for the longest pause each time.
const pause = time.Second

// Service is the unit.
func Service(o Options) (string, error) {
	if err := o.Service.Validate(); err != nil {
		return "", err
	}
	description, err := text(cmp.Or(o.Description, strings.TrimSpace("Nucleus sandbox "+o.Name)))
	if err != nil {
		return "", fmt.Errorf("description: %w", err)
	}
	command, err := commandLine(o.Program, o.Args)
	if err != nil {
		return "", err
	}
	var b builder
	b.section("Unit")
	b.set("", "Description", description)
	b.after(o)
	b.startLimit(o.Service.Restart)
	b.section("Service")
	b.life(o.Service, command)
	b.groups()
	if !o.User {
		b.hardening(o.Writable)
	}
	b.section("Install")
	if o.User {
		b.set("", "WantedBy", "default.target")
	} else {
		b.set("", "WantedBy", "multi-user.target")
	}
	return b.String(), errors.Join(b.errs...)
}

// builder collects lines.
type builder struct {
	strings.Builder
	errs []error
}

func (b *builder) section(name string) {
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(b, "[%s]\n", name)
}

// set writes a setting, below the lines of the reason for it.
func (b *builder) set(why, key, value string) {
	for line := range strings.Lines(why) {
		b.WriteString("# " + strings.TrimSuffix(line, "\n") + "\n")
	}
	b.WriteString(key + "=" + value + "\n")
}

// after says what must be there first. A user's manager has no network.target.
func (b *builder) after(o Options) {
	after := slices.Clone(o.After)
	if !o.User {
		after = append([]string{"network.target"}, after...)
	}
	for _, name := range after {
		if name == "" || strings.Trim(name, unitName) != "" {
			b.errs = append(b.errs, fmt.Errorf("after: %q is not the name of a unit", name))
		}
	}
	if len(after) > 0 {
		b.set("", "After", strings.Join(after, " "))
	}
}

// unitName are the characters of the name of a unit (systemd.unit(5)).
const unitName = `ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.\@`

// settled is the time after which a run begins a new row of attempts: docker's,
// and package restart's.
const settled = 10 * time.Second

// startLimit turns the attempts in a row into starts within a time. A run that
// lives for settled takes so long that a row of them never reaches the limit.
func (b *builder) startLimit(r spec.Restart) {
	switch {
	case r.Policy == spec.RestartNo:
	case r.Policy == spec.RestartOnFailure && r.Max > 0:
		starts := time.Duration(min(r.Max, maxStarts)) + 1
		b.set(fmt.Sprintf("%d restarts in a row, of runs shorter than %v, and it is given up.", r.Max, settled),
			"StartLimitIntervalSec", seconds(starts*(settled+pause)))
		b.set("", "StartLimitBurst", fmt.Sprint(int(starts)))
	default:
		b.set("It is never given up.", "StartLimitIntervalSec", "0")
	}
}

// maxStarts keeps the time of startLimit within what a manager can count.
const maxStarts = 1 << 20

// restarts is our policy in the manager's words. There, a stop by the user is
// never followed by a start.
func restarts(p spec.RestartPolicy) string {
	switch p {
	case spec.RestartNo:
		return "no"
	case spec.RestartOnFailure:
		return "on-failure"
	case spec.RestartAlways, spec.RestartUnlessStopped:
		return "always"
	}
	return ""
}

// passed are the signals that nucleus passes on to the program, of those that
// could ask it to end.
var passed = []string{"TERM", "INT", "HUP", "QUIT", "USR1", "USR2"}

// killedBy is the exit code for an end by a signal, less its number.
const killedBy = 128

func (b *builder) life(s spec.Service, command string) {
	if s.Notify {
		b.set("Started is what has said READY=1; nucleus passes it on.", "Type", "notify")
	} else {
		b.set("Started is what has been executed: a nucleus that is missing fails the start.", "Type", "exec")
	}
	b.set("", "ExecStart", command)
	signal := spec.SignalName(spec.SignalNumber(cmp.Or(s.StopSignal, "TERM")))
	if !slices.Contains(passed, signal) {
		b.errs = append(b.errs, fmt.Errorf("stop_signal: nucleus does not pass on %s; it does %s", signal, strings.Join(passed, " ")))
	}
	b.set("The signal goes to nucleus, which passes it on to the program and tidies up after it.\n"+
		"What is left then, or takes too long, is killed.", "KillMode", "mixed")
	b.set("", "KillSignal", "SIG"+signal)
	b.set("", "TimeoutStopSec", seconds(cmp.Or(s.StopTimeout, spec.DefaultStopTimeout)+grace))
	b.set("An end by that signal is one that was asked for: nucleus exits with 128 and its number.",
		"SuccessExitStatus", fmt.Sprint(killedBy+spec.SignalNumber(signal)))
	b.set("", "Restart", restarts(s.Restart.Policy))
	if s.Restart.Policy != spec.RestartNo {
		b.set("", "RestartSec", seconds(pause))
	}
}

// seconds is a time span in whole seconds, rounded up.
func seconds(d time.Duration) string {
	n := d / time.Second
	if d%time.Second > 0 {
		n++
	}
	return fmt.Sprintf("%ds", n)
}

func (b *builder) groups() {
	b.set("Nucleus makes the sandbox's control group below this unit's, which must be empty of\n"+
		"processes for that: nucleus itself goes into a group of its own (v254; before that,\n"+
		"this line is ignored and the sandbox gets a scope beside the unit).", "Delegate", "yes")
	b.set("", "DelegateSubgroup", "nucleus")
	b.set("How many processes there may be is the sandbox's own limit.", "TasksMax", "infinity")
	b.set("A sandbox that runs out of its memory is nucleus's to report, not the unit's to end for.", "OOMPolicy", "continue")
	b.set("Where nucleus keeps what it must remember. It is shared by all sandboxes: never to be\n"+
		"removed with one of them.", "RuntimeDirectory", "nucleus")
	b.set("", "RuntimeDirectoryMode", "0700")
	b.set("", "RuntimeDirectoryPreserve", "yes")
}

// unused are capabilities that nucleus has no use for as root, on the host.
const unused = "CAP_AUDIT_CONTROL CAP_AUDIT_READ CAP_BLOCK_SUSPEND CAP_LINUX_IMMUTABLE CAP_MAC_ADMIN CAP_MAC_OVERRIDE " +
	"CAP_SYSLOG CAP_SYS_BOOT CAP_SYS_MODULE CAP_SYS_PACCT CAP_SYS_RAWIO CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_WAKE_ALARM"

// hardening is for the system's manager. For a user's there is none: NoNewPrivileges
// would stop newuidmap, and everything that mounts would put nucleus into a user
// namespace where it has no ids to give.
func (b *builder) hardening(writable []string) {
	b.set("Root needs no set-user-ID program, and the sandbox is forbidden them anyway.", "NoNewPrivileges", "yes")
	b.set("What nucleus never uses. A sandbox's user namespace has its own set.", "CapabilityBoundingSet", "~"+unused)
	b.set("/usr, /boot and /etc are not nucleus's to change. A volume below them that is to be\n"+
		"writable must be in ReadWritePaths=.", "ProtectSystem", "full")
	var paths []string
	for _, path := range writable {
		quoted, err := quotePath(path)
		if err != nil || !strings.HasPrefix(path, "/") {
			b.errs = append(b.errs, errors.Join(fmt.Errorf("writable: %q is not an absolute path", path), err))
			continue
		}
		paths = append(paths, quoted)
	}
	if len(paths) > 0 {
		b.set("", "ReadWritePaths", strings.Join(paths, " "))
	}
}
