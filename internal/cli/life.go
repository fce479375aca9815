package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// lifeOptions is what the flags about a sandbox's life said.
type lifeOptions struct {
	detach  bool
	service spec.Service
	labels  map[string]string
	asked   string // the first flag about service, without its dashes
	driver  string // of logs

	patience time.Duration // as store.Sandbox.Stop wants it
	signal   int
	force    bool
	keep     time.Duration // with ended: of ended sandboxes
	ended    bool
}

// lifeCommands are the commands that change how a sandbox lives.
var lifeCommands = []*command{
	&startCommand, &stopCommand, &restartCommand, &killCommand, &waitCommand, &rmCommand, &pauseCommand, &unpauseCommand,
	&renameCommand, &updateCommand, &gcCommand, &namesCommand,
}

// references is what a sandbox may be called, for the help of every verb.
const references = "\n\nA sandbox is given by its name, its id, or the beginning of its id."

const someSandboxes = "SANDBOX..."

var startCommand = command{
	name: "start", args: someSandboxes, words: sandboxWords,
	short: "Start sandboxes that have ended",
	long: `Starts sandboxes again that have ended, as they were described to nucleus run.
Returns when their programs run, and are ready if there is a way to tell. One
that runs already is left alone.` + references,
	examples: [][2]string{{"nucleus start web db", "start two sandboxes"}},
	flags:    [][]flag{helpFlags},
	run: func(c *call) int {
		return c.each(func(ctx context.Context, b *store.Sandbox) error {
			err := b.Start(ctx)
			if errors.Is(err, store.ErrRunning) {
				return nil
			}
			return worded(ctx, b, err)
		})
	},
}

var stopFlags = []flag{
	{group: "Stopping", name: "timeout", short: "t", arg: "DURATION",
		help: "Kill it when it has not ended after this long, such as 30s or a number of seconds (the sandbox's own, 10s); 0: at once; -1: never.",
		set:  setPatience},
}

var stopCommand = command{
	name: "stop", args: someSandboxes, words: sandboxWords,
	short: "Ask sandboxes to end, and kill those that do not",
	long: `Sends the program TERM, or the signal of --stop-signal, and kills the whole
sandbox if it has not ended after a while. Returns when it has ended; a restart
policy does not start it again. One that does not run is left alone.` + references,
	examples: [][2]string{
		{"nucleus stop web", "stop a sandbox"},
		{"nucleus stop -t 1m db", "give it a minute to put things in order"},
		{"nucleus stop $(nucleus ps -q)", "stop everything"},
	},
	flags: [][]flag{stopFlags, helpFlags},
	run: func(c *call) int {
		var line statusLine
		return c.each(func(ctx context.Context, b *store.Sandbox) error {
			defer c.stopping(ctx, b, &line)()
			return b.Stop(ctx, c.opts.life.patience)
		})
	},
}

var restartCommand = command{
	name: "restart", args: someSandboxes, words: sandboxWords,
	short: "Stop sandboxes and start them again",
	long: `Stops sandboxes as nucleus stop does, and starts them again. One that does not
run is started.` + references,
	examples: [][2]string{{"nucleus restart -t 5 web", "restart a sandbox that has 5 seconds to end"}},
	flags:    [][]flag{stopFlags, helpFlags},
	run: func(c *call) int {
		var line statusLine
		return c.each(func(ctx context.Context, b *store.Sandbox) error {
			defer c.stopping(ctx, b, &line)()
			return worded(ctx, b, b.Restart(ctx, c.opts.life.patience))
		})
	},
}

var killCommand = command{
	name: "kill", args: someSandboxes, words: sandboxWords,
	short: "Send a signal to sandboxes",
	long: `Kills sandboxes with every process in them, or sends another signal to their
programs. Does not wait for what follows.` + references,
	examples: [][2]string{
		{"nucleus kill web", "end a sandbox at once"},
		{"nucleus kill -s HUP web", "have a server read its configuration again"},
	},
	flags: [][]flag{{
		{group: "Signal", name: "signal", short: "s", arg: "SIGNAL", choice: signalNames,
			help: "Send this signal instead, by name or number.",
			set:  func(o *options, v string) (err error) { o.life.signal, err = signalNumber(v); return err }},
	}, helpFlags},
	run: runKill,
}

var waitCommand = command{
	name: "wait", args: someSandboxes, words: sandboxWords,
	short: "Wait until sandboxes have ended, and print their exit codes",
	long: `Waits until each of the sandboxes has ended and prints its exit code on a line of
its own, in the order in which they are named: 128 and the signal's number if a
signal ended the program. One that is started again by its restart policy has
not ended. Exits with 0 whatever the codes are.` + references,
	examples: [][2]string{{"nucleus wait job-1 job-2", "print two exit codes when both jobs have ended"}},
	flags:    [][]flag{helpFlags},
	run:      runWait,
}

var rmCommand = command{
	name: "rm", args: someSandboxes, words: sandboxWords,
	short: "Remove sandboxes that have ended, and their logs",
	long:  `Forgets sandboxes that have ended, and removes their logs.` + references,
	examples: [][2]string{
		{"nucleus rm web", "remove a sandbox that has ended"},
		{"nucleus rm -f web", "kill it first if it runs"},
		{"nucleus gc --ended", "remove all that have ended"},
	},
	flags: [][]flag{{
		{group: "Removing", name: "force", short: "f",
			help: "Kill those that run. One that does not exist is no error.",
			set:  func(o *options, _ string) error { o.life.force = true; return nil }},
	}, helpFlags},
	run: runRemove,
}

var pauseCommand = command{
	name: "pause", args: someSandboxes, words: sandboxWords,
	short:    "Stop every process of sandboxes where it is",
	long:     `Freezes sandboxes with every process in them, until nucleus unpause. Nothing inside can notice or prevent it. It takes a control group: see nucleus doctor.` + references,
	examples: [][2]string{{"nucleus pause job", "make room for something more urgent"}},
	flags:    [][]flag{helpFlags},
	run: func(c *call) int {
		return c.each(func(ctx context.Context, b *store.Sandbox) error { return worded(ctx, b, b.Pause(ctx)) })
	},
}

var unpauseCommand = command{
	name: "unpause", args: someSandboxes, words: sandboxWords,
	short:    "Let paused sandboxes go on",
	long:     `Lets sandboxes go on that nucleus pause has stopped.` + references,
	examples: [][2]string{{"nucleus unpause job", "let it go on"}},
	flags:    [][]flag{helpFlags},
	run: func(c *call) int {
		return c.each(func(ctx context.Context, b *store.Sandbox) error { return worded(ctx, b, b.Unpause(ctx)) })
	},
}

var renameCommand = command{
	name: "rename", args: "SANDBOX NAME", words: sandboxWords,
	short:    "Give a sandbox another name",
	long:     `Gives a sandbox another name, at once. The host name inside follows when it is started the next time, unless --hostname had said one.` + references,
	examples: [][2]string{{"nucleus rename web web-old", "make room for a successor"}},
	flags:    [][]flag{helpFlags},
	run:      runRename,
}

var updateCommand = command{
	name: "update", args: someSandboxes, words: sandboxWords,
	short: "Change the limits of sandboxes",
	long: `Changes limits of sandboxes: at once if they run, and for every later start. What
is not named stays as it is.` + references,
	examples: [][2]string{
		{"nucleus update --memory 1G --cpus 2 web", "give a sandbox more"},
		{"nucleus update --pids unlimited web", "take a limit away"},
	},
	flags: [][]flag{limitFlags, helpFlags},
	run:   runUpdate,
}

var gcCommand = command{
	name:  "gc",
	short: "Remove what killed programs have left behind",
	long: `Removes what nobody uses any more: control groups, ranges of ids, logs and files
of sandboxes that are not known. In normal life nothing of the kind remains.
Prints what it removed. With --ended it also removes sandboxes that have ended.`,
	examples: [][2]string{
		{"nucleus gc", "clean up"},
		{"nucleus gc --ended=24h", "also remove what ended a day ago or earlier"},
	},
	flags: [][]flag{{
		{group: "Removing", name: "ended", arg: "AGE", optional: true,
			help: "Also remove sandboxes that have ended, so long ago if a duration is given, with their logs.",
			set: func(o *options, v string) (err error) {
				if o.life.ended = true; v != "" {
					o.life.keep, err = duration(v)
				}
				return err
			}},
	}, jsonFlags, helpFlags},
	run: runCollect,
}

// setPatience reads how long a stop waits.
func setPatience(o *options, v string) (err error) {
	switch v {
	case "0":
		o.life.patience = -1
	case "-1":
		o.life.patience = forever
	default:
		if o.life.patience, err = duration(v); err != nil {
			err = fmt.Errorf("%s is not a duration such as 30s or 1m30s, a number of seconds, or -1", quote(v))
		}
	}
	return err
}

// forever is longer than any machine runs.
const forever = 100 * 365 * 24 * time.Hour
