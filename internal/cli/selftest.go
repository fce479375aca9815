package cli

import (
	"context"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/nucleus-container/nucleus/internal/probe"
	"github.com/nucleus-container/nucleus/internal/selftest"
)

var selftestCommand = command{
	name:   "selftest",
	args:   "[CLAIM...]",
	words:  claimWords,
	more:   claimWords,
	listed: "Claims",
	short:  "Try on this machine what Nucleus claims about its sandboxes",
	long: `Starts sandboxes and has a program in them do what they forbid: every claim of
docs/SECURITY.md that can be shown so. Each line says what was tried and how the
kernel answered; where it is harmless, the same is tried without the sandbox too,
so that a line that says ok means something. Takes the flags of run, and then
tries the sandbox that they describe. Nothing is left behind.

Exit code 1 says that something was not refused that should have been, 125 that
no sandbox could be started.`,
	examples: [][2]string{
		{"nucleus selftest", "see what is enforced here"},
		{"nucleus selftest network sockets", "try two claims alone"},
		{"nucleus selftest --json | jq '.claims[] | select(.result != \"ok\")'", "find what is not enforced or was not tried"},
	},
	flags: [][]flag{jsonFlags, boxFlags, limitFlags, policyFlags, moreFlags, helpFlags},
	run:   runSelftest,
}

// claimWords are the ids of the claims, for completion.
const claimWords = "namespaces ids processes init files propagation read-only landlock setuid devices noexec proc " +
	"sockets network capabilities policy-caps policy-rules dangerous policy-files filters profiles no-new-privs seccomp keys " +
	"terminal descriptors environment streams limits memory scratch links owner end join join-limits " +
	"join-end detached pid-reuse state records copy logs log-writer lists hooks notify detached-plan " +
	"guide learning denials steps order root mount-audit attestation mode child events audit-log audit-place audit-quiet event-secrets report"

// probeCommand is the program inside.
var probeCommand = command{
	name:   "probe",
	args:   "QUESTION...",
	hidden: true,
	short:  "Answer questions about what the kernel allows",
	long: `Does what each question says and prints the kernel's answers, a JSON list.
nucleus selftest runs this in sandboxes.`,
	flags: [][]flag{helpFlags},
	run:   func(c *call) int { return probe.Main(c.args) },
}

// runSelftest is `nucleus selftest`.
func runSelftest(c *call) int {
	claims := c.args
	for _, id := range claims {
		if !slices.Contains(strings.Fields(claimWords), id) {
			return fail(c.cmd, usageError("there is no claim "+quote(id)+"; nucleus selftest --help lists them"))
		}
	}
	c.args = []string{"nucleus"} // what runs in the sandbox
	box, err := c.sandbox()
	if err != nil {
		return fail(c.cmd, err)
	}
	exe, err := os.Executable()
	if err != nil {
		return fail(c.cmd, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	o := selftest.Options{Program: exe, Args: []string{"probe"}, Sandbox: *box, Only: claims}
	o.Keep = []string{exe, "run", "--no-toolchain", "--volume", exe + ":/nucleus:ro,exec", "--", "/nucleus", "probe", "hang"}
	wrote := false
	if term.IsTerminal(int(os.Stderr.Fd())) {
		o.Progress = func(what string) {
			if time.Since(began) > time.Second {
				say("\r\x1b[K%s", what)
				wrote = true
			}
		}
	}
	t, err := selftest.Run(ctx, o)
	if wrote {
		say("\r\x1b[K")
	}
	if err != nil {
		return fail(c.cmd, err)
	}
	code := exitOK
	if !t.Green {
		code = exitNo
	}
	out := outputJSON
	if !c.opts.json {
		out = func(any) int { return output(t.String()) }
	}
	if wrote := out(t); wrote != exitOK {
		return wrote
	}
	return code
}
