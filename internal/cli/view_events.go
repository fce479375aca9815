package cli

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/internal/record"
	"github.com/nucleus-container/nucleus/store"
)

var eventsCommand = command{
	name:  "events",
	short: "Print what happens to sandboxes",
	long: `Prints a line for everything that happens to sandboxes from now on, until it is
interrupted. With --since, --until or --no-follow it begins with what has
happened. What is noticed late is told late, with the time at which it happened.

A TIME is RFC 3339 or the beginning of it, a number of seconds since 1970, or a
duration such as 10m, which is so long ago.

Filters of one kind widen each other, filters of different kinds narrow:
  type=      create, start, ready, health, hook (one has failed), exec, pause,
             unpause, update, rename, stop, kill, oom, end, restart, remove or
             audit (something could not be written to the sandbox's audit log)
  sandbox=   the name, or the beginning of the id`,
	examples: [][2]string{
		{"nucleus events --since 1h --filter type=oom", "who has run out of memory, and who will?"},
		{"nucleus events --no-follow --json | jq -r .type", "the past, for a script"},
	},
	flags: [][]flag{{
		{name: "since", arg: "TIME", group: "Which", help: "Begin with what happened then or later.", set: setSince},
		{name: "until", arg: "TIME", help: "End there, which may be in the future: --until -10m is in ten minutes.", set: setUntil},
		{name: "no-follow", help: "Print what has happened, and end.", set: func(o *options, _ string) error { o.view.noFollow = true; return nil }},
		{name: "filter", arg: "KEY=VALUE", choice: eventFilters, help: "Print only those that fit. May be repeated.", set: setFilter},
	}, formatFlags, helpFlags},
	run: runEvents,
}

// eventFilters are the filters of events, for completion and to compare with.
const eventFilters = "type=create type=start type=ready type=health type=hook type=exec type=pause type=unpause type=update type=rename " +
	"type=stop type=kill type=oom type=end type=restart type=remove type=audit sandbox="

// checkEventFilters refuses filters that fit nothing because they are misspelt.
func checkEventFilters(filters []filter) error {
	for _, f := range filters {
		switch {
		case f.key != "type" && f.key != "sandbox":
			return unknownFilter(f.key, "type and sandbox")
		case f.key == "type" && !slices.Contains(strings.Fields(eventFilters), "type="+f.value):
			types := strings.TrimSuffix(strings.ReplaceAll(eventFilters, " type=", ", "), " sandbox=")
			return usageError("--filter: " + quote(f.value) + " is not a type: those are " + strings.TrimPrefix(types, "type="))
		}
	}
	return nil
}

// errOver ends a stream.
var errOver = errors.New("it is over")

// runEvents is `nucleus events`. Nothing is caught: whatever ends it leaves nothing.
func runEvents(c *call) int {
	o := &c.opts.view
	f, err := c.format(store.Event{}, false)
	if err == nil {
		err = checkEventFilters(o.filters)
	}
	if err != nil {
		return fail(c.cmd, err)
	}
	s, err := openStore()
	if err != nil {
		return failVerb(c.cmd, err)
	}
	code := exitOK
	show := func(e store.Event) error {
		if !o.until.IsZero() && e.Time.After(o.until) || !o.wantsEvent(e) {
			return nil
		}
		if code = c.printEvent(f, e); code != exitOK {
			return errOver
		}
		return nil
	}
	if err := c.events(s, show); err != nil && !errors.Is(err, errOver) {
		return failVerb(c.cmd, err)
	}
	return code
}

// events calls f with those that have happened, those that happen, or both.
func (c *call) events(s *store.Store, f func(store.Event) error) error {
	o := &c.opts.view
	now := time.Now()
	if o.noFollow || !o.until.IsZero() && !o.until.After(now) {
		all, err := s.Events(o.since, o.until)
		for _, e := range all {
			if err == nil {
				err = f(e)
			}
		}
		return err
	}
	ctx := context.Background()
	since := o.since
	if !o.until.IsZero() {
		// What happens in the last moment is noticed a little later.
		const late = time.Second / 2
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, o.until.Add(late))
		defer cancel()
	} else if since.IsZero() {
		since = now
	}
	err := s.Follow(ctx, since, f)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

func (o *viewOptions) wantsEvent(e store.Event) bool {
	fits := map[string]bool{}
	for _, f := range o.filters {
		fit := e.Type == f.value
		if f.key == "sandbox" {
			fit = e.Name == f.value || len(f.value) >= 2 && strings.HasPrefix(e.ID, f.value)
		}
		fits[f.key] = fits[f.key] || fit
	}
	for _, fit := range fits {
		if !fit {
			return false
		}
	}
	return true
}

func (c *call) printEvent(f *format, e store.Event) int {
	switch {
	case c.opts.json || f != nil && f.json:
		return printLine(e)
	case f == nil:
		return output(eventText(e))
	}
	line, err := f.line(e)
	if err != nil {
		return fail(c.cmd, err)
	}
	return outputText(line)
}

// eventText is an event on one line.
func eventText(e store.Event) string {
	const stamp = "2006-01-02T15:04:05.000000000Z07:00" // RFC 3339, as wide every time
	line := e.Time.Local().Format(stamp) + " " + printable(e.Type) + " "
	if e.Name != "" {
		line += printable(e.Name) + " (" + printable(record.Short(e.ID)) + ")"
	} else {
		line += printable(record.Short(e.ID))
	}
	for _, k := range slices.Sorted(maps.Keys(e.Attrs)) {
		v := e.Attrs[k]
		if plain := printable(v); plain != v || v == "" || strings.ContainsAny(v, ` "=`) {
			v = strconv.Quote(v)
		}
		line += " " + printable(k) + "=" + v
	}
	return line + "\n"
}
