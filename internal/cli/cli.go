// Package cli is the nucleus program: one file per command, each of which turns
// flags into a spec, calls the library, prints, and chooses an exit code. What
// it does, a Go program can do with package nucleus; there is no logic here that
// the library lacks.
//
//	os.Exit(cli.Main(os.Args))
//
// The commands and their flags are tables of constants (see [command]). Help,
// man pages and shell completion are made from the same tables, and nothing is
// computed before it is needed: `nucleus run` is measured in fractions of a
// millisecond, and so is what an import costs (docs/design/003-cli.md).
package cli

import (
	"os"
	"strings"
)

// Exit codes of nucleus itself. All others are the workload's.
const (
	exitOK            = 0
	exitNo            = 1   // doctor: sandboxes do not work here
	exitUsage         = 2   // bad input; nothing was created
	exitTimeout       = 124 // --timeout ended the workload, as timeout(1) says it
	exitFailed        = 125 // Nucleus failed; the workload was not started
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // plus the signal's number
)

// call is one invocation of a command.
type call struct {
	cmd      *command
	commands []*command // all of them, for those that describe others
	opts     options
	args     []string // what follows the flags
}

// Main runs the program with its arguments, os.Args, and returns the exit code.
func Main(args []string) int {
	commands := []*command{&runCommand}
	for _, more := range [...][]*command{lifeCommands, execCommands, viewCommands, cpCommands, generateCommands} {
		commands = append(commands, more...)
	}
	commands = append(commands, &superviseCommand, &planCommand, &rootfsCommand, &modesCommand, &doctorCommand, &selftestCommand, &probeCommand, &versionCommand, &completionCommand, &helpCommand, &manCommand)
	if len(args) < 2 {
		say("%s", rootHelp(commands))
		return exitUsage
	}
	name, rest := args[1], args[2:]
	switch name {
	case "--help", "-h":
		name = "help"
	case "--version", "-V":
		name = "version"
	}
	cmd := find(commands, name)
	if cmd == nil {
		return runCompanion(commands, name, args)
	}
	c := &call{cmd: cmd, commands: commands}
	if err := c.parse(rest); err != nil {
		return fail(cmd, err)
	}
	if c.opts.help {
		os.Stdout.WriteString(commandHelp(cmd))
		return exitOK
	}
	return cmd.run(c)
}

func find(commands []*command, name string) *command {
	for _, c := range commands {
		if c.name == name {
			return c
		}
	}
	return nil
}

// usageError is input that makes no sense.
type usageError string

func (e usageError) Error() string { return string(e) }

// parse reads the flags. The first argument that is not one begins the rest.
func (c *call) parse(args []string) error {
	for len(args) > 0 {
		arg := args[0]
		if len(arg) < 2 || arg[0] != '-' {
			break
		}
		args = args[1:]
		if arg == "--" {
			break
		}
		var err error
		if strings.HasPrefix(arg, "--") {
			args, err = c.parseLong(arg[2:], args)
		} else {
			args, err = c.parseShort(arg[1:], args)
		}
		if err != nil {
			return err
		}
		if c.opts.help {
			return nil
		}
	}
	c.args = args
	if c.cmd.args == "" && len(args) > 0 {
		return usageError("unexpected argument " + quote(args[0]))
	}
	return nil
}

// parseLong reads --name, --name=value or --name value.
func (c *call) parseLong(arg string, rest []string) ([]string, error) {
	name, value, has := strings.Cut(arg, "=")
	f := c.cmd.flag(name)
	switch {
	case f == nil:
		return nil, c.unknown("--" + name)
	case f.arg == "" && has:
		return nil, usageError("--" + name + " takes no value")
	case f.arg != "" && !has && !f.optional:
		if len(rest) == 0 {
			return nil, usageError("--" + name + " needs a value: " + f.arg)
		}
		value, rest = rest[0], rest[1:]
	}
	return rest, c.set(f, "--"+name, value)
}

// parseShort reads -t, -it, -eK=V or -e K=V, without their dash.
func (c *call) parseShort(arg string, rest []string) ([]string, error) {
	for i := 0; i < len(arg); i++ {
		name := arg[i : i+1]
		f := c.cmd.flag(name)
		if f == nil {
			return nil, c.unknown("-" + arg[i:])
		}
		if f.arg == "" || f.optional {
			if err := c.set(f, "-"+name, ""); err != nil {
				return nil, err
			}
			continue
		}
		value := strings.TrimPrefix(arg[i+1:], "=")
		if i+1 == len(arg) {
			if len(rest) == 0 {
				return nil, usageError("-" + name + " needs a value: " + f.arg)
			}
			value, rest = rest[0], rest[1:]
		}
		return rest, c.set(f, "-"+name, value)
	}
	return rest, nil
}

func (c *call) set(f *flag, as, value string) error {
	if err := f.set(&c.opts, value); err != nil {
		return usageError(as + ": " + err.Error())
	}
	return nil
}

// unknown says that there is no such flag, and which one may have been meant.
func (c *call) unknown(as string) error {
	var names []string
	for f := range c.cmd.all() {
		names = append(names, "--"+f.name)
	}
	if near := nearest(as, names); near != "" {
		return usageError("there is no flag " + quote(as) + "; did you mean " + near + "?")
	}
	return usageError("there is no flag " + quote(as) + "; see nucleus " + c.cmd.name + " --help")
}
