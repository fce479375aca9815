package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// whyOptions is what the flags of why said.
type whyOptions struct {
	sandbox string
	to      string
}

var whyFlags = []flag{
	{group: "Question", name: "sandbox", arg: "NAME", choice: sandboxWords,
		help: "Ask about a sandbox like this one, in the place of flags that describe one. It is not touched.",
		set:  func(o *options, v string) (err error) { o.why.sandbox, err = given(v); return err }},
	{name: "to", arg: "read|write|execute", choice: "read write execute",
		help: "Ask of a path only whether this is allowed. Without it everything is tried, and reading decides about the exit code.",
		set: func(o *options, v string) (err error) {
			o.why.to, err = oneOf(v, "read", "write", "execute")
			return err
		}},
}

var whyCommand = command{
	name:  "why",
	args:  "PATH|SYSCALL [ARGUMENT...]|HOST:PORT",
	short: "Try whether a sandbox may do something, and say why not",
	long: `Starts a sandbox as the flags of run describe it, tries it there, and says what
happened, which rule refused it, and which flag would allow it. Nothing is
guessed from the policy, and nothing is changed by trying: files are opened and
not written, programs are checked and not executed, system calls are made with
arguments that make no sense unless some are given.

A PATH has a slash in it, and is one of the sandbox; a relative one, or one that
begins with ~, is one of the host, looked for at the place where the sandbox shows
it. A name is that of a system call; ports are tried with TCP.

Exit code 0 says that it is allowed, 1 that it is refused.`,
	examples: [][2]string{
		{"nucleus why --workspace . ./Makefile", "may it be read, written, executed?"},
		{"nucleus why ~/.ssh/id_ed25519", "what would it take to see this?"},
		{"nucleus why --profile python unshare", "is the call refused, and why?"},
		{"nucleus why socket 38 3 0", "with these arguments"},
		{"nucleus why --sandbox web example.org:443", "as the sandbox web"},
	},
	flags: [][]flag{whyFlags, jsonFlags, boxFlags, limitFlags, policyFlags, moreFlags, helpFlags},
	run:   runWhy,
}

// runWhy is `nucleus why`.
func runWhy(c *call) int {
	question := c.args
	if len(question) == 0 || question[0] == "" {
		return fail(c.cmd, usageError("nothing is asked; see nucleus why --help"))
	}
	box, err := c.whySandbox()
	if err != nil {
		return fail(c.cmd, err)
	}
	exe, err := os.Executable()
	if err != nil {
		return fail(c.cmd, err)
	}
	ctx, cancel := interruptible()
	defer cancel()
	trials, err := c.try(ctx, nucleus.Prober{Program: exe, Args: []string{"probe"}}, box, question)
	if err != nil {
		return fail(c.cmd, err)
	}
	if c.opts.json {
		if code := outputJSON(trials); code != exitOK {
			return code
		}
	} else if code := output(tellTrials(trials)); code != exitOK {
		return code
	}
	return verdictOf(trials, c.opts.why.to)
}

// whySandbox is the description that is asked about.
func (c *call) whySandbox() (*spec.Sandbox, error) {
	name := c.opts.why.sandbox
	if name == "" {
		asked := *c
		asked.args = []string{"nucleus"} // what runs in the sandbox
		return asked.sandbox()
	}
	if b, err := json.Marshal(c.opts.box); err != nil || string(b) != emptyBox() {
		return nil, usageError("--sandbox and flags that describe a sandbox exclude each other")
	}
	s, err := openStore()
	if err != nil {
		return nil, err
	}
	b, err := lookUp(s, name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := interruptible()
	defer cancel()
	i, err := b.Info(ctx)
	return &i.Sandbox, err
}

// emptyBox is a description without anything in it.
func emptyBox() string {
	b, _ := json.Marshal(spec.Sandbox{}) // it is data
	return string(b)
}

// try finds out what kind of question it is, and puts it.
func (c *call) try(ctx context.Context, p nucleus.Prober, box *spec.Sandbox, question []string) ([]nucleus.Trial, error) {
	q := question[0]
	path := strings.ContainsRune(q, '/') || q == "." || q == ".." || q == "~"
	if _, err := netip.ParseAddrPort(q); err == nil {
		path = false
	}
	host, port, colon := strings.Cut(q, ":")
	switch {
	case len(question) > 1 && (path || colon):
		return nil, usageError("why answers one question at a time")
	case path:
		return c.tryPath(ctx, p, box, q)
	case c.opts.why.to != "":
		return nil, usageError("--to is about paths; " + quote(q) + " is none, ./" + q + " would be")
	case colon && host != "" && port != "":
		if n, err := number(q[strings.LastIndexByte(q, ':')+1:], 65535); err != nil || n == 0 {
			return nil, usageError(quote(q) + " has no port from 1 to 65535")
		}
		return p.Connect(ctx, box, q)
	case isCall(q):
		var args []uint64
		for _, a := range question[1:] {
			n, err := strconv.ParseInt(a, 0, 64)
			u := uint64(n)
			if err != nil {
				if u, err = strconv.ParseUint(a, 0, 64); err != nil {
					return nil, usageError(quote(a) + " is not a number")
				}
			}
			args = append(args, u)
		}
		if len(args) > 6 {
			return nil, usageError("a system call has 6 arguments at most")
		}
		return p.Call(ctx, box, q, args)
	}
	return nil, usageError(quote(q) + " is no path, no HOST:PORT and no system call of this machine; ./" + q + " is a path")
}

func isCall(name string) bool {
	arch := seccomp.AMD64
	if runtime.GOARCH == "arm64" {
		arch = seccomp.ARM64
	}
	_, ok := arch.Number(name)
	return ok
}

// tryPath tries a path. One of the host is tried at the place where the sandbox
// shows it, unless the sandbox has it at its own.
func (c *call) tryPath(ctx context.Context, p nucleus.Prober, box *spec.Sandbox, q string) ([]nucleus.Trial, error) {
	at := q
	if rest, ok := strings.CutPrefix(q, "~"); ok && (rest == "" || rest[0] == '/') {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		at = home + rest
	}
	at, err := filepath.Abs(at)
	if err != nil {
		return nil, err
	}
	trials, err := p.Path(ctx, box, at)
	if err != nil {
		return nil, err
	}
	if inside, ok := nucleus.Inside(box, at); ok && inside != at && trials[0].Errno == "ENOENT" {
		if trials, err = p.Path(ctx, box, inside); err != nil {
			return nil, err
		}
	}
	if to := c.opts.why.to; to != "" {
		trials = slices.DeleteFunc(trials, func(t nucleus.Trial) bool { return t.What != to })
		if len(trials) == 0 {
			return nil, usageError("a directory is not executed")
		}
	}
	return trials, nil
}

// tellTrials is what was tried, in words.
func tellTrials(trials []nucleus.Trial) string {
	var b strings.Builder
	for i, t := range trials {
		verdict, because := "allowed", ""
		switch {
		case t.Denial != nil:
			verdict, because = "refused", t.Denial.Rule
		case !t.Allowed:
			verdict = "fails"
		}
		if t.Errno != "" && t.Denial != nil || !t.Allowed {
			verdict += " (" + t.Errno + ")"
		}
		if i == 0 || t.What == "call" {
			fmt.Fprintf(&b, "%s\n", t.Object)
		}
		fmt.Fprintf(&b, "  %-8s %s", t.What, verdict)
		for _, why := range []string{because, t.Note} {
			if why != "" {
				b.WriteString(": " + why)
				break
			}
		}
		b.WriteByte('\n')
		if t.Denial == nil {
			continue
		}
		if because != "" && t.Note != "" {
			fmt.Fprintf(&b, "           %s\n", t.Note)
		}
		fmt.Fprintf(&b, "           layer: %s\n", t.Denial.Layer)
		if fix := t.Denial.Fix(); fix != "" {
			fmt.Fprintf(&b, "           %s\n", fix)
		}
	}
	return b.String()
}

// verdictOf is the exit code: what was asked for, or reading, or for a call the
// first that was tried.
func verdictOf(trials []nucleus.Trial, to string) int {
	for _, t := range trials {
		if (t.What == to || to == "") && t.Allowed {
			return exitOK
		}
		if t.What != "call" {
			return exitNo
		}
	}
	return exitNo
}
