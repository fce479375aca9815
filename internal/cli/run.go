package cli

import (
	"context"
	"errors"
	"os"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/audit"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

var runCommand = command{
	name:    "run",
	args:    "[--] PROGRAM [ARGUMENT...]",
	program: true,
	short:   "Run a program in a sandbox",
	long: `Runs a program in a new sandbox and waits for it. The sandbox sees the host's
programs read-only and nothing else of the host: no file, no process, no
network, no environment, no capability. What it may see is said by flags.

Flags come before the program. The program is looked up in the sandbox's PATH.
Standard input, output and error are the program's; Nucleus itself speaks on
standard error, and only when something is wrong. The signals TERM INT HUP QUIT
USR1 USR2 WINCH CONT TSTP are passed on to the program.

With --detach the sandbox goes on by itself and its id is printed. Other
commands find it by its name, its id or the beginning of its id: nucleus ps,
logs, exec, stop, rm.`,
	examples: [][2]string{
		{"nucleus run -- sh -c 'id; ls /'", "look around in a sandbox"},
		{"nucleus run --workspace . -- make test", "let a build write to this directory, and only there"},
		{"nucleus run --context ~/docs --memory 512M --timeout 1m -- python3 agent.py", "give an agent something to read, and bounds"},
		{"nucleus run -t -- bash", "work inside, with a terminal"},
		{"nucleus run -v ~/bin/tool:/opt/tool:ro,exec -- /opt/tool", "run one of your own programs"},
		{"nucleus run -d --name web --restart on-failure:3 -- python3 -m http.server", "let a server run by itself, and start it again when it fails"},
	},
	flags: [][]flag{detachFlags, boxFlags, limitFlags, policyFlags, learnFlags, moreFlags, explainFlags, auditFlags, serviceFlags, consoleFlags, helpFlags},
	run:   run,
}

// run is `nucleus run`.
func run(c *call) int {
	box, err := c.sandbox()
	if err == nil {
		err = c.exclusive()
	}
	if err != nil {
		return fail(c.cmd, err)
	}
	if c.opts.life.detach {
		return c.detach(box)
	}
	if c.opts.life.asked != "" {
		return c.keepHere(box)
	}
	cmd := nucleus.Command(box, c.args[0], c.args[1:]...)
	if c.opts.exec.console == "" {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	}
	save, err := c.learn(cmd)
	if err != nil {
		return fail(c.cmd, err)
	}
	closeLog, err := c.openLog(cmd)
	if err != nil {
		return fail(c.cmd, err)
	}
	defer closeLog()
	teller, err := c.openAudit(box, cmd)
	if err != nil {
		return fail(c.cmd, err)
	}
	defer closeAudit(teller)
	c.explain(cmd)
	c.watchFor(teller, cmd)
	code, err := c.runHere(box, cmd, teller)
	if err = errors.Join(err, save()); err != nil {
		code = fail(c.cmd, err)
	}
	c.explained(cmd, box)
	return code
}

// runHere runs the program and waits for it.
func (c *call) runHere(box *spec.Sandbox, cmd *nucleus.Cmd, teller *audit.Teller) (code int, err error) {
	caught := catchSignals(cmd)
	var tty *terminal
	if c.opts.exec.console == "" {
		if tty, err = openTerminal(box); err != nil {
			return 0, err
		}
		defer tty.close()
	}
	forget, err := c.attend(box, cmd, teller)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, forget()) }()
	warn(box)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go caught.forward(cmd.Process, tty, teller)
	tty.resize(cmd.Process)
	if path := c.opts.exec.console; path != "" {
		console := cmd.Process.Terminal()
		if err := errors.Join(sendConsole(path, console), console.Close()); err != nil {
			_ = errors.Join(cmd.Process.Kill(), cmd.Wait()) // that it was killed is known
			return 0, err
		}
	}
	if c.opts.report != "" {
		report(c.opts.report, cmd.Process)
	}
	err = cmd.Wait()
	tty.close()
	var exit *nucleus.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return ended(cmd.Outcome), nil
}

// exclusive refuses flags that contradict each other.
func (c *call) exclusive() error {
	o := &c.opts
	if err := o.learning(); err != nil {
		return err
	}
	switch {
	case o.exec.console != "" && !o.box.Terminal:
		return usageError("--console-socket needs --tty")
	case (o.life.detach || o.life.asked != "") && o.audit != (auditOptions{}):
		return usageError("--events-jsonl and --events-fd are for a program that nucleus itself waits for; nucleus events tells of others, and --audit-log is for all")
	case o.life.service.Audit.HideArgs && o.life.service.Audit.Log == "" && o.audit == (auditOptions{}):
		return usageError("--redact-args needs --audit-log, --events-jsonl or --events-fd")
	case c.watched() != nil:
		return c.watched()
	case !o.life.detach && o.life.asked != "":
		return o.attached()
	case o.life.detach && o.logFile != "":
		return usageError("--detach and --log exclude each other: nucleus events and nucleus logs tell of what is detached")
	case o.life.detach && o.report != "":
		return usageError("--detach and --report exclude each other: nobody would be there to read it")
	}
	return nil
}

// attend lists a sandbox with a name while it runs. One without is nobody
// else's business, and is not written down: that takes time.
func (c *call) attend(box *spec.Sandbox, cmd *nucleus.Cmd, teller *audit.Teller) (forget func() error, err error) {
	if box.Name == "" {
		return func() error { return nil }, nil
	}
	// Bad input must not leave a trace: find out before.
	if _, err := cmd.Plan(); err != nil {
		return nil, err
	}
	s, err := openStore()
	if err != nil {
		return nil, err
	}
	forget, err = s.Attend(context.Background(), store.Config{Name: box.Name, Sandbox: *box, Command: cmd.Args, Service: spec.Service{Audit: c.opts.life.service.Audit}}, cmd)
	if err == nil && teller != nil {
		var b *store.Sandbox
		if b, err = s.Sandbox(box.Name); err == nil {
			teller.Sandbox.ID = b.ID()
		}
	}
	return forget, err
}

// warn says aloud what the user chose to weaken.
func warn(box *spec.Sandbox) {
	if box.Userns == spec.UsernsHost {
		say("nucleus: warning: --userns host: the sandbox shares the host's users; root inside is root outside\n")
	}
	if box.Policy == nil {
		return
	}
	for _, name := range box.Policy.Dangerous {
		say("nucleus: warning: --allow-dangerous-syscall %s: it %s\n", name, seccomp.WhyRefused(name))
	}
	for _, c := range (box.Policy.Kept().Any() & caps.Dangerous()).Caps() {
		say("nucleus: warning: a capability that the policy keeps: %s\n", caps.Explain(c))
	}
}

// ended says why the program was ended, if it was not its own doing, and
// returns the exit code.
func ended(o *nucleus.Outcome) int {
	switch o.Reason {
	case nucleus.OutOfMemory:
		say("nucleus: %s\n", o.Detail)
		return outOfMemory
	case nucleus.DeadlineExceeded:
		say("nucleus: %s\n", o.Detail)
	}
	return exitCode(o)
}
