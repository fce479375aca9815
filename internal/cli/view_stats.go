package cli

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"
)

var statsCommand = command{
	name:  "stats",
	args:  "[SANDBOX...]",
	words: sandboxWords,
	short: "Show what sandboxes use",
	long: `Shows what sandboxes that run use: on a terminal again and again, until q is
pressed, elsewhere once. CPU % is of one processor. PRESSURE is the percentage of
the last ten seconds in which something waited for a processor/for memory/for a
device. "-" stands for what is not limited or not known.

Keys: c m p n i sort by processor, memory, processes, name, device; q quits.` + references,
	examples: [][2]string{
		{"nucleus stats", "watch all that run"},
		{"nucleus stats --no-stream --sort mem", "print who needs most memory"},
		{"nucleus stats --watch --json web", "a line of JSON each second, for a script"},
	},
	flags: [][]flag{{
		{name: "all", short: "a", group: "Which", help: "Show those that do not run, too.", set: setAll},
		{name: "watch", short: "w", group: "How", help: "Go on, also where the output is no terminal.", set: func(o *options, _ string) error { o.view.watch = true; return nil }},
		{name: "no-stream", help: "Print once, also on a terminal.", set: func(o *options, _ string) error { o.view.noStream = true; return nil }},
		{name: "sort", arg: "KEY", choice: sorts, help: "Sort by cpu, mem, pids, name or io.", set: setSort},
	}, formatFlags, helpFlags},
	run: runStats,
}

func setSort(o *options, v string) error {
	if !slices.Contains(strings.Fields(sorts), v) {
		return fmt.Errorf("%s is not cpu, mem, pids, name or io", quote(v))
	}
	o.view.sort = v
	return nil
}

const (
	statsFirst = 500 * time.Millisecond // until there is a second look to compare with
	statsEvery = time.Second
)

// runStats is `nucleus stats`.
func runStats(c *call) int {
	if code, done := c.lookup(0, math.MaxInt); done {
		return code
	}
	f, err := c.format(statsRow{}, true)
	o := &c.opts.view
	if err == nil && o.watch && o.noStream {
		err = usageError("--watch and --no-stream exclude each other")
	}
	if err != nil {
		return fail(c.cmd, err)
	}
	s, err := openStore()
	if err != nil {
		return failVerb(c.cmd, err)
	}
	m := &meters{store: s, all: o.all, open: make(map[string]*meter)}
	if err := m.refs(c.args); err != nil {
		return failVerb(c.cmd, err)
	}
	defer m.close()
	terminal := term.IsTerminal(int(os.Stdout.Fd()))
	switch {
	case o.noStream, !terminal && !o.watch:
		return c.statsOnce(m, f)
	case terminal && !c.opts.json && f == nil && os.Getenv("TERM") != "" && os.Getenv("TERM") != "dumb":
		return c.statsView(m)
	}
	return c.statsStream(m, f)
}

// statsOnce prints one sample: the second of two, for processor time has a
// speed only between them.
func (c *call) statsOnce(m *meters, f *format) int {
	ctx := context.Background()
	if _, err := m.look(ctx); err != nil {
		return failVerb(c.cmd, err)
	}
	time.Sleep(statsFirst)
	all, err := m.look(ctx)
	if err != nil {
		return failVerb(c.cmd, err)
	}
	order(all, c.opts.view.sort)
	return printRows(c, f, statsHeading(), statsRows(all), statsRow.cells)
}

// statsStream prints sample after sample, for programs and simple terminals.
func (c *call) statsStream(m *meters, f *format) int {
	pause := statsFirst
	for first := true; ; first = false {
		all, err := m.look(context.Background())
		if err != nil {
			return failVerb(c.cmd, err)
		}
		if !first { // it had nothing to compare with
			order(all, c.opts.view.sort)
			if code := c.printSamples(all, f); code != exitOK {
				return code
			}
			pause = statsEvery
		}
		time.Sleep(pause)
	}
}

func (c *call) printSamples(all []sample, f *format) int {
	if !c.opts.json {
		text, err := rowsText(f, statsHeading(), statsRows(all), statsRow.cells)
		if err != nil {
			return fail(c.cmd, err)
		}
		if f == nil || f.table {
			text += "\n"
		}
		return outputText(text)
	}
	for _, s := range all {
		if code := printLine(s); code != exitOK {
			return code
		}
	}
	return exitOK
}
