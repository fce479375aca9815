package cli

import (
	"errors"
	"os"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
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
USR1 USR2 WINCH CONT TSTP are passed on to the program.`,
	examples: [][2]string{
		{"nucleus run -- sh -c 'id; ls /'", "look around in a sandbox"},
		{"nucleus run --workspace . -- make test", "let a build write to this directory, and only there"},
		{"nucleus run --context ~/docs --memory 512M --timeout 1m -- python3 agent.py", "give an agent something to read, and bounds"},
		{"nucleus run -t -- bash", "work inside, with a terminal"},
		{"nucleus run -v ~/bin/tool:/opt/tool:ro,exec -- /opt/tool", "run one of your own programs"},
	},
	flags: [][]flag{boxFlags, helpFlags},
	run:   run,
}

// run is `nucleus run`.
func run(c *call) int {
	box, err := c.sandbox()
	if err != nil {
		return fail(c.cmd, err)
	}
	cmd := nucleus.Command(box, c.args[0], c.args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	closeLog, err := c.openLog(cmd)
	if err != nil {
		return fail(c.cmd, err)
	}
	defer closeLog()
	caught := catchSignals(cmd)
	tty, err := openTerminal(box)
	if err != nil {
		return fail(c.cmd, err)
	}
	defer tty.close()
	warn(box)
	if err := cmd.Start(); err != nil {
		tty.close()
		return fail(c.cmd, err)
	}
	go caught.forward(cmd.Process, tty)
	tty.resize(cmd.Process)
	if c.opts.report != "" {
		report(c.opts.report, cmd.Process)
	}
	err = cmd.Wait()
	tty.close()
	var exit *nucleus.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fail(c.cmd, err)
	}
	return ended(cmd.Outcome)
}

// warn says aloud what the user chose to weaken.
func warn(box *spec.Sandbox) {
	if box.Userns == spec.UsernsHost {
		say("nucleus: warning: --userns host: the sandbox shares the host's users; root inside is root outside\n")
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
