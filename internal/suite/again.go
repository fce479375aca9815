package main

import (
	"regexp"
	"strings"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// again is the action of a test that failed, and passed when it was run once
// more by itself.
const again = "again"

// mostAgain is how many tests of a package may have a second chance. Where more
// fail, it is not the machine.
const mostAgain = 3

// failedTest finds the tests, not their subtests, that failed.
var failedTest = regexp.MustCompile(`(?m)(?:^|\x16)--- FAIL: (\w+) `)

// worthAgain is a -test.run for what is to be run again, or "". Only an emulated
// machine gets that: it stands still for seconds, which no limit of time that
// means anything outlasts. What left something behind has done so, whatever it
// does next time: the descriptors of its own process it alone can tell of.
func (r *result) worthAgain() string {
	if sandboxtest.Slow() == 1 || r.TimedOut || len(r.Leaks) > 0 || strings.Contains(r.Output, sandboxtest.LeftBehind) {
		return ""
	}
	var names []string
	for _, m := range failedTest.FindAllStringSubmatch(r.Output, -1) {
		names = append(names, m[1])
	}
	if len(names) == 0 || len(names) > mostAgain {
		return ""
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// forgive marks the tests that a second run passed. Both must have been told of
// by name: what did not come to its end is no pass.
func forgive(tests, second []outcome) {
	passed := map[string]bool{}
	for _, o := range second {
		if o.Action == "fail" {
			return
		}
		passed[o.Test] = o.Action == "pass"
	}
	for i := range tests {
		if o := &tests[i]; o.Action == "fail" && passed[o.Test] {
			o.Action = again
		}
	}
}
