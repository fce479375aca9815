package cli

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/audit"
	"github.com/nucleus-container/nucleus/spec"
)

// auditFlags say where the events of a sandbox's life are written.
var auditFlags = []flag{
	{group: "Audit", name: "audit-log", arg: "FILE", choice: "<file>", field: "audit.log",
		help: "Append what happens, and what the kernel says is enforced, to a file of records that are chained by hashes; nucleus audit verifies it. What cannot be written there does not run.",
		set:  func(o *options, v string) (err error) { o.life.service.Audit.Log, err = given(v); return err }},
	{name: "events-jsonl", arg: "FILE", choice: "<file>",
		help: "Append the same, without the chain, to a file: a line of JSON for each event.",
		set:  func(o *options, v string) (err error) { o.audit.events, err = given(v); return err }},
	{name: "events-fd", arg: "N",
		help: "Write it to a descriptor that nucleus was started with, 3 or more, such as a pipe. The program does not get it.",
		set: func(o *options, v string) error {
			n, err := number(v, 1<<20)
			if err == nil && n < 3 {
				err = fmt.Errorf("%s is the program's own: 3 or more is meant", quote(v))
			}
			o.audit.eventsFD = int(n)
			return err
		}},
	{name: "redact-args", field: "audit.hide_args",
		help: "Write the program's name there, and how many arguments it has, but not the arguments. Values of variables are never written.",
		set:  func(o *options, _ string) error { o.life.service.Audit.HideArgs = true; return nil }},
}

// openAudit opens what events are written to, if anything was asked for, and has
// cmd tell of them.
func (c *call) openAudit(box *spec.Sandbox, cmd *nucleus.Cmd) (_ *audit.Teller, err error) {
	o := &c.opts
	about := o.life.service.Audit
	if about.Log == "" && o.audit.events == "" && o.audit.eventsFD == 0 {
		return nil, nil
	}
	// Bad input must not create a file: find out before.
	if _, err := cmd.Plan(); err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%016x", rand.Uint64()) // tells runs apart; not a secret
	t := &audit.Teller{Sandbox: event.Sandbox{ID: id, Name: box.Name}}
	defer func() {
		if err != nil {
			_ = t.Close() // nothing was written
		}
	}()
	if o.audit.eventsFD != 0 {
		s, err := audit.InheritStream(o.audit.eventsFD)
		if err != nil {
			return nil, usageError(fmt.Sprintf("--events-fd %d: %v", o.audit.eventsFD, err))
		}
		t.Streams = append(t.Streams, s)
	}
	if path := o.audit.events; path != "" {
		if err := audit.Unseen(box, path); err != nil {
			return nil, usageError("--events-jsonl: " + err.Error())
		}
		s, err := audit.OpenStream(path)
		if err != nil {
			return nil, usageError("--events-jsonl: " + err.Error())
		}
		t.Streams = append(t.Streams, s)
	}
	if path := about.Log; path != "" {
		if err := audit.Unseen(box, path); err != nil {
			return nil, usageError("--audit-log: " + err.Error())
		}
		if t.Log, err = audit.Open(path); err != nil {
			return nil, usageError("--audit-log: " + err.Error())
		}
	}
	cmd.Events, cmd.HideArgs = t.Tell, about.HideArgs
	return t, nil
}

// distinct refuses one file for two things that a run writes: each would break
// the other.
func (o *options) distinct() error {
	type output struct{ flag, path string }
	all := []output{{"--audit-log", o.life.service.Audit.Log}, {"--events-jsonl", o.audit.events}, {"--learn", o.learn.record}, {"--seccomp-log", o.learn.log}}
	if o.logFile != "-" { // standard error
		all = append(all, output{"--log", o.logFile})
	}
	all = slices.DeleteFunc(all, func(x output) bool { return x.path == "" })
	for i, a := range all {
		for _, b := range all[i+1:] {
			if sameFile(a.path, b.path) {
				return usageError(a.flag + " and " + b.flag + " are the same file; each needs its own")
			}
		}
	}
	return nil
}

// sameFile reports whether two paths lead to one file, or would once it is made.
func sameFile(a, b string) bool {
	a, b = filepath.Clean(a), filepath.Clean(b) // as they are opened
	x, xErr := os.Stat(a)
	y, yErr := os.Stat(b)
	if xErr != nil || yErr != nil { // what is not there is known by its directory
		x, xErr = os.Stat(filepath.Dir(a))
		y, yErr = os.Stat(filepath.Dir(b))
		if filepath.Base(a) != filepath.Base(b) {
			return false
		}
	}
	return xErr == nil && yErr == nil && os.SameFile(x, y)
}

// watchFor has a run watched whose events are written, so that denials are among
// them; that costs a program nothing that is refused nothing. --explain=off says no.
func (c *call) watchFor(t *audit.Teller, cmd *nucleus.Cmd) {
	if e := c.opts.explain; t != nil && cmd.Watch == nil && !(e.asked && e.off) {
		cmd.Watch = &nucleus.Watch{Most: 1000, Optional: true}
	}
}

// closeAudit says what could not be written to a stream: that is no reason to
// fail, and none to be silent.
func closeAudit(t *audit.Teller) {
	if t == nil {
		return
	}
	if err := t.Close(); err != nil {
		say("nucleus: warning: events: %v\n", err)
	}
}

// checkAudit finds out whether a log can be written before anything exists.
func checkAudit(box *spec.Sandbox, a spec.Audit) error {
	if a.Log == "" {
		return nil
	}
	err := audit.Unseen(box, a.Log)
	if err == nil {
		var l *audit.Log
		if l, err = audit.Open(a.Log); err == nil {
			err = l.Close()
		}
	}
	if err != nil {
		return usageError("--audit-log: " + err.Error())
	}
	return nil
}
