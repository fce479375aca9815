package cli

import (
	"context"
	"math"
	"os"

	"github.com/nucleus-container/nucleus/store"
)

var logsCommand = command{
	name:  "logs",
	args:  "SANDBOX",
	words: sandboxWords,
	short: "Print what a sandbox's program has written",
	long: `Prints what is kept of a program's output: its standard output on standard
output, its standard error on standard error, in the order in which it was
written, and byte by byte: what the program sends to a terminal reaches yours.

A TIME is RFC 3339 or the beginning of it, a number of seconds since 1970, or a
duration such as 10m, which is so long ago.` + references,
	examples: [][2]string{
		{"nucleus logs web", "all there is"},
		{"nucleus logs -f --tail 20 web", "the last lines, and what follows"},
		{"nucleus logs -t --since 1h --until 30m web 2>&1 | less", "some time ago, with times"},
	},
	flags: [][]flag{{
		{name: "follow", short: "f", group: "What", help: "Wait for more, until the sandbox has ended.", set: func(o *options, _ string) error { o.view.follow = true; return nil }},
		{name: "tail", short: "n", arg: "N|all", help: "Print the last N lines only.", set: setTail},
		{name: "since", arg: "TIME", help: "Print lines that began then or later.", set: setSince},
		{name: "until", arg: "TIME", help: "Print lines that began then or earlier.", set: setUntil},
		{name: "timestamps", short: "t", help: "Begin each line with the time at which it began.", set: func(o *options, _ string) error { o.view.stamps = true; return nil }},
	}, helpFlags},
	run: runLogs,
}

func setTail(o *options, v string) error {
	if v == "all" {
		o.view.some = false
		return nil
	}
	n, err := number(v, math.MaxInt32)
	o.view.some, o.view.tail = true, int(n)
	return err
}

// runLogs is `nucleus logs`. Nothing is caught: whatever ends it leaves nothing.
func runLogs(c *call) int {
	if code, done := c.lookup(1, 1); done {
		return code
	}
	b, err := c.one()
	if err != nil {
		return failVerb(c.cmd, err)
	}
	o := &c.opts.view
	logs := store.LogOptions{Stdout: true, Stderr: true, Tail: -1, Since: o.since, Until: o.until, Timestamps: o.stamps, Follow: o.follow}
	if o.some {
		logs.Tail = o.tail
	}
	if err := b.Logs(context.Background(), os.Stdout, os.Stderr, logs); err != nil {
		return failVerb(c.cmd, err)
	}
	return exitOK
}
