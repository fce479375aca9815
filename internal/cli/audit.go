package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/nucleus-container/nucleus/internal/audit"
)

// auditOptions is what the flags about audit logs and event streams said, but for
// those that are part of a service.
type auditOptions struct {
	events   string // file
	eventsFD int    // 0: none
	known    audit.Known
}

var auditCommand = command{
	name: "audit", args: "verify|head FILE", words: "verify head",
	short: "Verify an audit log, or print its head",
	long: `verify reads a log that --audit-log has written, and says whether it is what was
written: a record that was changed, dropped, put in, moved or doubled is told, with
its line. It exits with 1 then.

A chain of hashes cannot know that it was longer, and whoever can rewrite the whole
file can make another chain. Against that, keep the head elsewhere: the hash of the
last record, which head prints, and which event streams end with. verify --head
demands that the log goes on from there.`,
	examples: [][2]string{
		{"nucleus audit verify audit.jsonl", "is it what was written?"},
		{"nucleus audit head audit.jsonl", "the number and the hash of the last record, to keep"},
		{"nucleus audit verify --head $KEPT audit.jsonl", "and nothing was cut off or written anew since?"},
	},
	flags: [][]flag{{
		{group: "Verifying", name: "head", arg: "HASH",
			help: "Demand that a record with this hash is in the log.",
			set: func(o *options, v string) error {
				if len(v) != len(audit.None()) || strings.Trim(v, "0123456789abcdef") != "" {
					return fmt.Errorf("%s is not a hash of 64 hexadecimal digits", quote(v))
				}
				o.audit.known.Head = v
				return nil
			}},
		{name: "count", arg: "N",
			help: "Demand at least so many records.",
			set:  func(o *options, v string) (err error) { o.audit.known.Count, err = number(v, 1<<62); return err }},
	}, jsonFlags, helpFlags},
	run: runAudit,
}

// runAudit is `nucleus audit`.
func runAudit(c *call) int {
	err := c.interspersed()
	switch {
	case err != nil:
	case c.opts.help:
		return output(commandHelp(c.cmd))
	case len(c.args) != 2 || c.args[0] != "verify" && c.args[0] != "head":
		err = usageError("say nucleus audit verify FILE or nucleus audit head FILE")
	case c.args[0] == "head" && c.opts.audit.known != (audit.Known{}):
		err = usageError("--head and --count are for verify")
	}
	if err != nil {
		return fail(c.cmd, err)
	}
	if c.args[0] == "head" {
		return c.auditHead(c.args[1])
	}
	r, err := audit.VerifyFile(c.args[1], c.opts.audit.known)
	if err != nil {
		return c.auditFailed(err)
	}
	code := exitOK
	if !r.OK {
		code = exitNo
	}
	if c.opts.json {
		if out := printJSON(r); out != exitOK {
			code = out
		}
		return code
	}
	if out := output(verifyText(r)); out != exitOK {
		return out
	}
	return code
}

func verifyText(r *audit.Result) string {
	var b strings.Builder
	for _, p := range r.Problems {
		if p.Line > 0 {
			fmt.Fprintf(&b, "line %d: %s\n", p.Line, printable(p.Why))
		} else {
			fmt.Fprintf(&b, "%s\n", printable(p.Why))
		}
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "and %d more\n", r.More)
	}
	verdict := "ok"
	if !r.OK {
		verdict = "NOT what was written"
	}
	fmt.Fprintf(&b, "%s: %d records, head %d %s\n", verdict, r.Records, r.Head.Seq, r.Head.Hash)
	if r.Since != nil && *r.Since > 0 {
		fmt.Fprintf(&b, "%d of them after the head that was asked for\n", *r.Since)
	}
	return b.String()
}

func (c *call) auditHead(path string) int {
	head, err := audit.HeadFile(path)
	switch {
	case err != nil:
		return c.auditFailed(err)
	case c.opts.json:
		return printJSON(head)
	}
	return output(fmt.Sprintf("%d %s\n", head.Seq, head.Hash))
}

// auditFailed says why a log cannot be read: one that is not there was a slip of
// the pen, anything else means that the log is not to be trusted.
func (c *call) auditFailed(err error) int {
	if errors.Is(err, fs.ErrNotExist) {
		return fail(c.cmd, usageError(err.Error()))
	}
	fail(c.cmd, err)
	return exitNo
}
