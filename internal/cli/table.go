package cli

import (
	"iter"

	"github.com/nucleus-container/nucleus/policy/files"
	"github.com/nucleus-container/nucleus/spec"
)

// command is one verb. Commands and flags are package-level tables without
// anything that must be computed, so that they cost a start nothing.
type command struct {
	name  string
	args  string // what follows the flags, for people; empty: nothing may
	short string // one line, no full stop
	long  string // paragraphs
	// program says that a program's name and arguments follow; words are what
	// may follow otherwise, separated by blanks; hidden commands are no use to most people.
	program bool
	words   string
	// more is what may follow the first of the words; with "<file>", files too.
	more string
	// listed is the heading below which the help lists the words; empty: it does not.
	listed string
	hidden bool
	// examples are pairs: a command line, and what it does.
	examples [][2]string
	// flags are tables, so that commands can share one.
	flags [][]flag
	run   func(*call) int
}

// flag is one option of a command.
type flag struct {
	name  string
	short string // one letter, or empty
	arg   string // what its value is, for people; empty: it takes none
	// optional says that the value may be missing, and then it must be given with "=".
	optional bool
	group    string // heading in the help; empty: as the one before
	help     string // one sentence or two
	field    string // the field of the spec that it sets, as problems name it
	choice   string // its values, separated by blanks; or "file", "dir" in angle brackets
	set      func(o *options, value string) error
}

// options is what the flags said.
type options struct {
	help bool
	json bool

	box         spec.Sandbox
	userArg     string
	groupArg    string
	noToolchain bool
	report      string // "", "text" or "json"
	logFile     string
	logFormat   string
	logLevel    string

	learn learnOptions

	life lifeOptions
	view viewOptions
	exec execOptions
	cp   cpOptions

	audit  auditOptions
	rootfs rootfsOptions

	policy  files.Options
	compile compileOptions

	explain explainOptions
	why     whyOptions
}

// flag finds a flag by its long name or its letter.
func (c *command) flag(name string) *flag {
	for f := range c.all() {
		if f.name == name || f.short == name && name != "" {
			return f
		}
	}
	return nil
}

// all iterates over the flags in the order of the help.
func (c *command) all() iter.Seq[*flag] {
	return func(yield func(*flag) bool) {
		for _, set := range c.flags {
			for i := range set {
				if !yield(&set[i]) {
					return
				}
			}
		}
	}
}

func setHelp(o *options, _ string) error { o.help = true; return nil }
func setJSON(o *options, _ string) error { o.json = true; return nil }

// helpFlags is what every command has.
var helpFlags = []flag{
	{name: "help", short: "h", group: "Other", help: "Print this help.", set: setHelp},
}

var jsonFlags = []flag{
	{name: "json", group: "Output", help: "Print JSON on standard output.", set: setJSON},
}
