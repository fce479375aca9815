package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus"
)

var doctorCommand = command{
	name:  "doctor",
	short: "Say what this machine can do, and how to make it do more",
	long: `Examines everything on this machine that matters to sandboxes and starts one to
see. Each line says what there is and what it is good for; where something is
missing, the command that fixes it follows. Nothing is changed.`,
	examples: [][2]string{
		{"nucleus doctor", "find out why a sandbox does not start here"},
		{"nucleus doctor --json | jq .works", "ask in a script"},
	},
	flags: [][]flag{jsonFlags, helpFlags},
	run:   runDoctor,
}

// runDoctor is `nucleus doctor`.
func runDoctor(c *call) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d, err := nucleus.Diagnose(ctx)
	if err != nil {
		return fail(c.cmd, err)
	}
	code := exitOK
	if !d.Works {
		code = exitNo
	}
	out := outputJSON
	if !c.opts.json {
		out = func(any) int { return output(diagnosisText(d)) }
	}
	if wrote := out(d); wrote != exitOK {
		return wrote
	}
	return code
}

func diagnosisText(d *nucleus.Diagnosis) string {
	var b strings.Builder
	const indent = "                         "
	for _, f := range d.Findings {
		for i, line := range wrap(f.Value, 78) {
			if i == 0 {
				fmt.Fprintf(&b, "%-8s %-15s %s\n", f.Status, f.Name, line)
				continue
			}
			b.WriteString(indent + line + "\n")
		}
		fmt.Fprintf(&b, "%sfor: %s\n", indent, f.Enables)
		if f.Fix != "" {
			fmt.Fprintf(&b, "%sfix: %s\n", indent, f.Fix) // one line, to be copied
		}
	}
	if d.Works {
		b.WriteString("\nnucleus run works here.\n")
	} else {
		b.WriteString("\nnucleus run does not work here: see the lines that begin with missing.\n")
	}
	return b.String()
}
