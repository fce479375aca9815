package cli

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/record"
	"github.com/nucleus-container/nucleus/store"
)

var psCommand = command{
	name:  "ps",
	short: "List sandboxes",
	long: `Lists the sandboxes that run, the newest first; with --all those that do not run
as well. One whose files cannot be read is always listed, as broken, with the
reason.

Filters of one kind widen each other, filters of different kinds narrow:
  status=   created, running, paused, restarting, exited or broken
  name=     a part of the name
  id=       the beginning of the id
  label=    KEY or KEY=VALUE; each must be there
  exited=   the exit code of one that has ended
  health=   starting, healthy, unhealthy or none
  since=    SANDBOX: made after it
  before=   SANDBOX: made before it
A filter by status or exit code looks at those that do not run, too.`,
	examples: [][2]string{
		{"nucleus ps", "what runs?"},
		{"nucleus ps -a --filter status=exited --filter label=team=infra", "what has ended, of one team?"},
		{"nucleus rm $(nucleus ps -aq --filter status=exited)", "forget everything that has ended"},
		{"nucleus ps --format 'table {{.Name}}\\t{{.Status}}'", "choose the columns"},
	},
	flags: [][]flag{{
		{name: "all", short: "a", group: "Which", help: "List those that do not run, too.", set: setAll},
		{name: "filter", arg: "KEY=VALUE", choice: psFilters, help: "List only those that fit. May be repeated.", set: setFilter},
		{name: "last", short: "n", arg: "N", help: "List the N that were made last, running or not.", set: setLast},
		{name: "latest", short: "l", help: "List the one that was made last, running or not.", set: func(o *options, _ string) error { o.view.last = 1; return nil }},
		{name: "quiet", short: "q", group: "Output", help: "Print ids only.", set: func(o *options, _ string) error { o.view.quiet = true; return nil }},
		{name: "no-trunc", help: "Print ids and commands whole.", set: func(o *options, _ string) error { o.view.noTrunc = true; return nil }},
	}, formatFlags, helpFlags},
	run: runPs,
}

// psFilters are the filters of ps, for completion.
const psFilters = "status=created status=running status=paused status=restarting status=exited status=broken name= id= label= exited= " +
	"health=starting health=healthy health=unhealthy health=none since= before="

func setLast(o *options, v string) error {
	n, err := number(v, math.MaxInt32)
	if err == nil && n == 0 {
		err = fmt.Errorf("must be more than 0; leave the flag out for all")
	}
	o.view.last = int(n)
	return err
}

// psItem is a sandbox in the list, for programs.
type psItem struct {
	ID       string            `json:"id"`
	Name     string            `json:"name,omitempty"`
	Command  []string          `json:"command,omitempty"`
	State    string            `json:"state"`
	Status   string            `json:"status"`
	Pid      int               `json:"pid,omitempty"`
	Created  time.Time         `json:"created,omitzero"`
	Started  time.Time         `json:"started,omitzero"`
	Ended    time.Time         `json:"ended,omitzero"`
	Reason   string            `json:"reason,omitempty"`
	ExitCode int               `json:"exit_code"`
	Restarts int               `json:"restarts,omitempty"`
	Health   string            `json:"health,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Unit     string            `json:"unit,omitempty"`
	Problem  string            `json:"problem,omitempty"`
}

// psRow is a sandbox in the list, for people: printable text.
type psRow struct {
	ID, Name, Names, Command, Status, Created   string
	CreatedAt, RunningFor, State, Health, Pid   string
	ExitCode, Restarts, Labels, Reason, Problem string

	labels map[string]string
	asItem
}

// Label is the value of a label.
func (r psRow) Label(key string) string {
	if r.item == nil {
		return strings.ToUpper(printable(key))
	}
	return printable(r.labels[key])
}

func psHeading() psRow {
	return psRow{
		ID: "ID", Name: "NAME", Names: "NAMES", Command: "COMMAND", Status: "STATUS", Created: "CREATED",
		CreatedAt: "CREATED AT", RunningFor: "RUNNING FOR", State: "STATE", Health: "HEALTH", Pid: "PID",
		ExitCode: "EXIT CODE", Restarts: "RESTARTS", Labels: "LABELS", Reason: "REASON", Problem: "PROBLEM",
	}
}

// runPs is `nucleus ps`.
func runPs(c *call) int {
	f, err := c.format(psRow{}, true)
	if err == nil && c.opts.view.quiet && (f != nil || c.opts.json) {
		err = usageError("--quiet prints ids: --format and --json exclude it")
	}
	if err == nil {
		err = checkFilters(c.opts.view.filters)
	}
	if err != nil {
		return fail(c.cmd, err)
	}
	s, err := openStore()
	if err != nil {
		return failVerb(c.cmd, err)
	}
	all, err := s.List(context.Background())
	if err == nil {
		all, err = c.opts.view.choose(all)
	}
	if err != nil {
		return failVerb(c.cmd, err)
	}
	now := time.Now()
	rows := make([]psRow, 0, len(all))
	for i := range all {
		rows = append(rows, newPsRow(&all[i], now, c.opts.view.noTrunc))
	}
	if c.opts.view.quiet {
		var b strings.Builder
		for _, r := range rows {
			b.WriteString(r.ID + "\n")
		}
		return output(b.String())
	}
	return printRows(c, f, psHeading(), rows, func(r psRow) []string { return []string{r.ID, r.Name, r.Command, r.Status, r.Created} })
}

func newPsRow(i *store.Info, now time.Time, whole bool) psRow {
	status := statusText(i, now)
	r := psRow{
		ID: record.Short(i.ID), Name: printable(i.Name), State: printable(i.State), Status: printable(status), Created: ago(i.Created, now),
		Health: printable(i.Health), Labels: labelText(i.Labels), Reason: printable(i.Reason), Problem: printable(i.Problem), labels: i.Labels,
		asItem: asItem{psItem{
			ID: i.ID, Name: i.Name, Command: i.Command, State: i.State, Status: status, Pid: i.Pid, Created: i.Created, Started: i.Started,
			Ended: i.Ended, Reason: i.Reason, ExitCode: i.ExitCode, Restarts: i.Restarts, Health: i.Health, Labels: i.Labels, Unit: i.Unit, Problem: i.Problem,
		}},
	}
	const commandColumns = 30
	if whole {
		r.ID, r.Command = i.ID, printable(strings.Join(i.Command, " "))
	} else {
		r.Command = shorten(strings.Join(i.Command, " "), commandColumns)
	}
	r.Names, r.RunningFor = r.Name, r.Created
	if !i.Created.IsZero() {
		r.CreatedAt = i.Created.Local().Format("2006-01-02 15:04:05 -0700 MST")
	}
	if i.Pid != 0 {
		r.Pid = fmt.Sprint(i.Pid)
	}
	if i.State == "exited" || i.State == "restarting" {
		r.ExitCode = fmt.Sprint(i.ExitCode)
	}
	r.Restarts = fmt.Sprint(i.Restarts)
	return r
}

// statusText says how it is, in docker's words.
func statusText(i *store.Info, now time.Time) string {
	switch i.State {
	case "running", "paused":
		s := "Up " + span(now.Sub(i.Started))
		switch {
		case i.State == "paused":
			s += " (Paused)"
		case i.Health == "starting":
			s += " (health: starting)"
		case i.Health != "":
			s += " (" + i.Health + ")"
		}
		return s
	case "restarting":
		return fmt.Sprintf("Restarting (%d) %s", i.ExitCode, ago(i.Ended, now))
	case "exited":
		s := fmt.Sprintf("Exited (%d) %s", i.ExitCode, ago(i.Ended, now))
		switch nucleus.Reason(i.Reason) {
		case "", nucleus.Exited:
		case nucleus.Signaled: // which one, the code says
			if i.Detail != "" {
				s += ": " + i.Detail
			}
		default:
			s += ": " + i.Reason
		}
		return s
	case "broken":
		return brokenText(i.Problem)
	case "created":
		return "Created"
	}
	return i.State
}

func labelText(labels map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, printable(k+"="+labels[k]))
	}
	return strings.Join(all, ",")
}

func brokenText(problem string) string {
	return "Broken: " + strings.TrimPrefix(problem, record.ErrBroken.Error()+": ")
}
