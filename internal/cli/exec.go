package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/store"
)

// execOptions is what the flags of exec and attach said.
type execOptions struct {
	stdin   bool
	detach  bool
	console string // --console-socket
	noStdin bool
	noProxy bool
	keys    string // --detach-keys, as bytes
}

// execCommands are the commands that use a sandbox that runs.
var execCommands = []*command{&execCommand, &attachCommand}

var execCommand = command{
	name:    "exec",
	args:    "SANDBOX [--] PROGRAM [ARGUMENT...]",
	program: true,
	words:   sandboxWords,
	short:   "Run another program in a sandbox",
	long: `Runs a program in a sandbox that runs already, and waits for it. The program has
exactly the policy of the sandbox: its files, its limits, its seccomp filter, no
capability. It ends with the sandbox, and when nucleus exec is killed.

Flags come before the sandbox. Standard output and error are the program's;
standard input is only with --interactive. Signals are passed on to the program
as by nucleus run.

There are no detach keys: nobody would hold the terminal of the program, and so
it would end. What is to go on by itself is started with --detach.`,
	examples: [][2]string{
		{"nucleus exec web -- ls -l /tmp", "look around in the sandbox web"},
		{"nucleus exec -it web -- bash", "work inside, with a terminal"},
		{"nucleus exec -i web -- tar -x -C /tmp <files.tar", "give it something to read"},
		{"nucleus exec -d web -- backup", "start something and leave it alone"},
	},
	flags: [][]flag{execFlags, consoleFlags, helpFlags},
	run:   runExec,
}

var execFlags = []flag{
	{group: "Program", name: "interactive", short: "i",
		help: "Pass standard input on; without this it is empty.",
		set:  func(o *options, _ string) error { o.exec.stdin = true; return nil }},
	{name: "tty", short: "t", field: "terminal",
		help: "Give the program a terminal of its own, joined to this one. Its input is passed on, with or without --interactive.",
		set:  func(o *options, _ string) error { o.box.Terminal = true; return nil }},
	{name: "detach", short: "d",
		help: "Start the program and do not wait for it. Its input is empty, its output goes nowhere.",
		set:  func(o *options, _ string) error { o.exec.detach = true; return nil }},
	{name: "env", short: "e", arg: "KEY[=VALUE]", field: "env",
		help: "Set a variable in addition to the sandbox's; without a value it is the caller's, if that has one. Repeatable.",
		set:  setEnv},
	{name: "workdir", short: "w", arg: "DIR", field: "workdir",
		help: "Start in this directory of the sandbox (the sandbox's own).",
		set: func(o *options, v string) (err error) {
			o.box.Workdir, err = given(v)
			return err
		}},
	{name: "user", short: "u", arg: "UID|NAME[:GID|GROUP]", field: "user",
		help: "Be this user inside (the sandbox's own). Names are the host's. The sandbox of an ordinary user has one user only.",
		set:  func(o *options, v string) (err error) { o.userArg, err = given(v); return err }},
	{name: "timeout", arg: "DURATION", field: "timeout",
		help: "Kill the program after this long, such as 90s, 5m or a number of seconds, and exit with 124.",
		set:  func(o *options, v string) (err error) { o.box.Timeout, err = duration(v); return err }},
}

// runExec is `nucleus exec`.
func runExec(c *call) int {
	o := &c.opts
	name, argv, err := c.program()
	if err != nil {
		return fail(c.cmd, err)
	}
	s, err := openStore()
	if err != nil {
		return fail(c.cmd, err)
	}
	box, err := lookUp(s, name)
	if err != nil {
		return failSandbox(c.cmd, name, err)
	}
	return (&joining{call: c, name: name, box: box}).run(argv, o.exec.stdin)
}

// program takes the arguments apart: the sandbox, and the program with its own.
func (c *call) program() (sandbox string, argv []string, err error) {
	o := &c.opts
	if len(c.args) == 0 {
		return "", nil, usageError("no sandbox is named; see nucleus exec --help")
	}
	sandbox, argv = c.args[0], c.args[1:]
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	switch {
	case len(argv) == 0:
		err = usageError("no program is given; see nucleus exec --help")
	case argv[0] == "":
		err = usageError("the program's name is empty")
	case o.exec.detach && o.box.Terminal:
		err = usageError("--detach and --tty exclude each other: nobody would hold the terminal")
	case o.exec.detach && o.box.Timeout != 0:
		err = usageError("--detach and --timeout exclude each other: nobody would look at the clock; timeout(1) inside does")
	case o.exec.console != "" && !o.box.Terminal:
		err = usageError("--console-socket needs --tty")
	}
	return sandbox, argv, err
}

// joining is a program on its way into a sandbox.
type joining struct {
	*call
	name string // of the sandbox, as the user calls it
	box  *store.Sandbox
}

// run runs a program in the sandbox and returns the exit code.
func (j *joining) run(argv []string, stdin bool) int {
	code, err := j.try(argv, stdin)
	if err != nil {
		return failSandbox(j.cmd, j.name, err)
	}
	return code
}

// try is run, but for errors that keep the program from starting.
func (j *joining) try(argv []string, stdin bool) (code int, err error) {
	p, err := j.box.Process()
	if err != nil {
		return 0, err
	}
	defer p.Close()
	release, err := j.box.Use()
	if err != nil {
		return 0, err
	}
	defer release()
	cmd, err := j.command(p, argv, stdin)
	if err != nil {
		return 0, err
	}
	if j.opts.exec.detach {
		return exitOK, errors.Join(cmd.Start(), j.log(argv))
	}
	caught := catchSignals(cmd)
	var tty *terminal
	if j.opts.exec.console == "" {
		if tty, err = openTerminal(cmd.Sandbox); err != nil {
			return 0, err
		}
		defer tty.close()
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go caught.forward(cmd.Process, tty, nil)
	tty.resize(cmd.Process)
	if path := j.opts.exec.console; path != "" {
		console := cmd.Process.Terminal()
		if err := errors.Join(sendConsole(path, console), console.Close()); err != nil {
			_ = errors.Join(cmd.Process.Kill(), cmd.Wait()) // that it was killed is known
			return 0, err
		}
	}
	logged := j.log(argv)
	err = cmd.Wait()
	tty.close()
	if cmd.Outcome != nil {
		j.box.LogExecEnd(argv[0], cmd.Outcome)
	}
	var exit *nucleus.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, errors.Join(err, logged)
	}
	if logged != nil {
		say("nucleus: warning: %v\n", logged)
	}
	return ended(cmd.Outcome), nil
}

// command describes the program.
func (j *joining) command(p *nucleus.Process, argv []string, stdin bool) (*nucleus.Cmd, error) {
	o := &j.opts
	cmd := p.Command(argv[0], argv[1:]...)
	cmd.Sandbox.Terminal, cmd.Sandbox.Workdir, cmd.Sandbox.Timeout = o.box.Terminal, o.box.Workdir, o.box.Timeout
	if cmd.Sandbox.Terminal {
		cmd.Sandbox.Env = callerEnv()
	}
	cmd.Sandbox.Env = append(cmd.Sandbox.Env, o.box.Env...)
	if o.userArg != "" {
		u, err := identity(o.userArg, "")
		if err != nil {
			return nil, usageError(err.Error())
		}
		cmd.As = &u
	}
	switch {
	case o.exec.detach:
		cmd.Detach = &nucleus.Detach{}
	case o.exec.console == "":
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if stdin || o.box.Terminal {
			cmd.Stdin = os.Stdin
		}
	}
	return cmd, nil
}

// log tells that the program was started. It is done while the program runs.
func (j *joining) log(argv []string) error {
	return j.box.LogExec(argv)
}

// failSandbox says what is wrong with a sandbox that is to be used. That there
// is none, or that it cannot be used now, is 1.
func failSandbox(cmd *command, name string, err error) int {
	switch {
	case errors.Is(err, store.ErrNotRunning):
		err = &wordedError{fmt.Sprintf("%s is not running; start it with `nucleus start %[1]s`", name), err}
	case errors.Is(err, cgroup.ErrFrozen):
		err = &wordedError{fmt.Sprintf("%s is paused; let it go on with `nucleus unpause %[1]s`", name), err}
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrAmbiguous):
	default:
		return fail(cmd, err)
	}
	fail(cmd, err)
	return exitNo
}
