package cli

import (
	"fmt"
	"strings"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
)

var modesCommand = command{
	name:  "modes",
	short: "Print what each mode demands",
	long: `Prints the table of modes: what must hold or a sandbox does not start, why, and
what to do about it. Each mode demands what the one before it does, and more.
The second column says what a row is checked against: the command line (asked),
the machine, the finished plan (planned), or what the kernel says of the sandbox
before its program runs (kernel).`,
	examples: [][2]string{
		{"nucleus run --service-mode production ...", "demand all of it"},
		{"nucleus modes --json | jq -r '.[].id'", "list the rows"},
	},
	flags: [][]flag{jsonFlags, helpFlags},
	run:   runModes,
}

// runModes is `nucleus modes`.
func runModes(c *call) int {
	rows := nucleus.Invariants()
	if c.opts.json {
		return outputJSON(rows)
	}
	var b strings.Builder
	for _, m := range spec.Modes() {
		fmt.Fprintf(&b, "%s\n", m)
		for _, row := range rows {
			if row.From == m.String() {
				modeRow(&b, row)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("Each mode demands the rows of those above it as well.\n")
	return output(b.String())
}

func modeRow(b *strings.Builder, row nucleus.Invariant) {
	const indent = "                              "
	for i, line := range wrap(row.What, 72) {
		if i == 0 {
			fmt.Fprintf(b, "  %-19s %-8s %s\n", row.ID, row.When, line)
			continue
		}
		b.WriteString(indent + " " + line + "\n")
	}
	for _, part := range [][2]string{{"why: ", row.Why}, {"fix: ", row.Fix}} {
		for i, line := range wrap(part[0]+part[1], 72) {
			if i > 0 {
				line = "     " + line
			}
			b.WriteString(indent + " " + line + "\n")
		}
	}
}
