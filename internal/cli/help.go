package cli

import (
	"fmt"
	"slices"
	"strings"
)

var helpCommand = command{
	name:  "help",
	args:  "[COMMAND]",
	short: "Explain a command",
	long:  "Explains a command, or lists all of them.",
	flags: [][]flag{helpFlags},
	run:   runHelp,
}

// runHelp is `nucleus help`.
func runHelp(c *call) int {
	if len(c.args) == 0 {
		return output(rootHelp(c.commands))
	}
	cmd := find(c.commands, c.args[0])
	if cmd == nil || len(c.args) > 1 {
		say("nucleus: there is no command %s%s\n", quote(strings.Join(c.args, " ")), suggestion(c.args[0], c.commands))
		return exitUsage
	}
	return output(commandHelp(cmd))
}

// exitTable lists the exit codes, for every help and man page.
var exitTable = [][2]string{
	{"N", "what the program exited with"},
	{"1", "about sandboxes by name: one of them could not do it; doctor: sandboxes do not work on this machine; selftest: something was not refused; audit: the log is not what was written; rootfs verify: the root is not what its manifest says"},
	{"2", "the command line makes no sense; nothing was created"},
	{"124", "--timeout ended the program"},
	{"125", "Nucleus failed; the program was not started"},
	{"126", "the program was found in the sandbox and cannot be executed"},
	{"127", "the program was not found in the sandbox"},
	{"128+N", "signal N ended the program; 137 is also running out of memory"},
}

// environment lists the variables that Nucleus itself heeds.
var environment = [][2]string{
	{"NUCLEUS_STATE_DIR", "where sandboxes are written down, an absolute path; without it /run/nucleus for root, else nucleus in $XDG_RUNTIME_DIR, or nucleus/run in $XDG_STATE_HOME"},
	{"NUCLEUS_LOG_DIR", "where the output of detached sandboxes is kept, an absolute path; without it log in $NUCLEUS_STATE_DIR if there is one, else /var/log/nucleus for root, or nucleus/log in $XDG_STATE_HOME"},
	{"NO_COLOR", "if it is not empty, stats uses no highlighting"},
}

const intro = "Nucleus runs programs in hardened Linux sandboxes: no daemon, no image, no setup."

func rootHelp(commands []*command) string {
	var b strings.Builder
	b.WriteString(intro + "\n\nUsage:\n  nucleus COMMAND [FLAG...] [ARGUMENT...]\n\nCommands:\n")
	for _, c := range visible(commands) {
		fmt.Fprintf(&b, "  %-12s %s\n", c.name, c.short)
	}
	b.WriteString("\nExamples:\n")
	for _, c := range commands {
		if c.name == "run" {
			writeExamples(&b, c.examples)
		}
	}
	b.WriteString("\nEnvironment:\n")
	for _, e := range environment {
		fmt.Fprintf(&b, "  %s\n        %s\n", e[0], strings.Join(wrap(e[1], 70), "\n        "))
	}
	writeExits(&b)
	b.WriteString("\nnucleus COMMAND --help explains a command. A command that is not listed here is\nthe program nucleus-COMMAND beside this one, if there is such.\n")
	return b.String()
}

func commandHelp(c *command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n\nUsage:\n  %s\n\n%s\n", c.short, usage(c), c.long)
	if c.listed != "" {
		fmt.Fprintf(&b, "\n%s:\n  %s\n", c.listed, strings.Join(wrap(c.words, 76), "\n  "))
	}
	if len(c.examples) > 0 {
		b.WriteString("\nExamples:\n")
		writeExamples(&b, c.examples)
	}
	for _, s := range c.sections() {
		fmt.Fprintf(&b, "\n%s:\n", s.name)
		for _, f := range s.flags {
			fmt.Fprintf(&b, "  %s\n", f.spelling())
			for _, line := range wrap(f.help, 70) {
				fmt.Fprintf(&b, "        %s\n", line)
			}
		}
	}
	writeExits(&b)
	return b.String()
}

// section is what the help says below one heading.
type section struct {
	name  string
	flags []*flag
}

// sections are the flags below their headings, each of which is there once, however
// many tables have it.
func (c *command) sections() (all []section) {
	at := -1
	for f := range c.all() {
		if f.group != "" {
			if at = slices.IndexFunc(all, func(s section) bool { return s.name == f.group }); at < 0 {
				at, all = len(all), append(all, section{name: f.group})
			}
		}
		all[at].flags = append(all[at].flags, f)
	}
	return all
}

func usage(c *command) string {
	return strings.TrimRight("nucleus "+c.name+" [FLAG...] "+c.args, " ")
}

// spelling is how a flag is written: -m, --memory SIZE.
func (f *flag) spelling() string {
	s := "--" + f.name
	if f.short != "" {
		s = "-" + f.short + ", " + s
	}
	switch {
	case f.optional:
		return s + "[=" + f.arg + "]"
	case f.arg != "":
		return s + " " + f.arg
	}
	return s
}

func writeExamples(b *strings.Builder, examples [][2]string) {
	for _, e := range examples {
		fmt.Fprintf(b, "  %s\n        %s\n", e[0], e[1])
	}
}

func writeExits(b *strings.Builder) {
	b.WriteString("\nExit codes:\n")
	for _, e := range exitTable {
		fmt.Fprintf(b, "  %-6s %s\n", e[0], e[1])
	}
}

// wrap breaks text into lines of at most width bytes where blanks permit.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
