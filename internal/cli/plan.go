package cli

import (
	"encoding/json"
	"os"

	"github.com/nucleus-container/nucleus"
)

var planCommand = command{
	name:    "plan",
	args:    "[--] PROGRAM [ARGUMENT...]",
	program: true,
	short:   "Print what run would do, without doing it",
	long: `Prints the kernel operations that make the sandbox, in order: who performs each,
the kernel call, its object, and the part of the description that caused it.
Takes the flags of run. Nothing is created or changed.`,
	examples: [][2]string{
		{"nucleus plan --workspace . -- make", "review what a sandbox is made of"},
		{"nucleus plan --json -- true | jq -r '.steps[].call'", "take a plan apart"},
	},
	flags: [][]flag{jsonFlags, boxFlags, limitFlags, policyFlags, moreFlags, helpFlags},
	run:   runPlan,
}

// runPlan is `nucleus plan`.
func runPlan(c *call) int {
	box, err := c.sandbox()
	if err != nil {
		return fail(c.cmd, err)
	}
	p, err := nucleus.Command(box, c.args[0], c.args[1:]...).Plan()
	if err != nil {
		return fail(c.cmd, err)
	}
	if !c.opts.json {
		return output(p.String())
	}
	return outputJSON(p)
}

// output prints what was asked for.
func output(s string) int {
	if _, err := os.Stdout.WriteString(s); err != nil {
		say("nucleus: write the output: %v\n", err)
		return exitFailed
	}
	return exitOK
}

func outputJSON(v any) int {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		say("nucleus: %v\n", err)
		return exitFailed
	}
	return output(string(b) + "\n")
}
