package cli

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// viewOptions is what the flags of the commands that look at sandboxes said.
type viewOptions struct {
	all, quiet, noTrunc bool
	last                int // 0: all
	filters             []filter
	format              string
	follow, noFollow    bool
	stamps              bool
	some                bool // tail counts
	tail                int
	since, until        time.Time
	watch, noStream     bool
	sort                string
}

// filter is one --filter KEY=VALUE.
type filter struct{ key, value string }

// viewCommands look at sandboxes and change nothing.
var viewCommands = []*command{&psCommand, &inspectCommand, &logsCommand, &statsCommand, &topCommand, &eventsCommand, &auditCommand, &policyCommand, &seccompCommand, &explainCommand, &whyCommand}

var formatFlags = []flag{
	{name: "format", arg: "TEMPLATE", group: "Output", set: setFormat,
		help: "Print each in this form, docker's way: '{{.Name}} {{json .Labels}}', 'table {{.ID}}\\t{{.Name}}' with a heading, or json for a line of JSON. Functions are json, join, index, upper and lower. A field that does not exist is answered with a list of those that do."},
	{name: "json", help: "Print JSON on standard output. Its field names are stable.", set: setJSON},
}

func setFormat(o *options, v string) error {
	if strings.TrimSpace(v) == "" {
		return usageError("it is empty")
	}
	o.view.format = v
	return nil
}

func setFilter(o *options, v string) error {
	key, value, has := strings.Cut(v, "=")
	if !has || key == "" || value == "" {
		return fmt.Errorf("%s is not KEY=VALUE", quote(v))
	}
	o.view.filters = append(o.view.filters, filter{key, value})
	return nil
}

func setAll(o *options, _ string) error { o.view.all = true; return nil }

func setSince(o *options, v string) (err error) { o.view.since, err = when(v, time.Now()); return err }
func setUntil(o *options, v string) (err error) { o.view.until, err = when(v, time.Now()); return err }

// when reads a time: RFC 3339, parts of it by the local clock, seconds since
// 1970, or a duration, which is so long before now.
func when(v string, now time.Time) (time.Time, error) {
	for _, layout := range [...]string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(v); err == nil && v != "0" {
		return now.Add(-d), nil
	}
	whole, frac, _ := strings.Cut(v, ".")
	s, err := number(whole, math.MaxInt32<<8)
	if err == nil && len(frac) <= 9 && !strings.HasSuffix(v, ".") {
		var n uint64
		if n, err = number((frac + "000000000")[:9], 1e9); err == nil {
			return time.Unix(int64(s), int64(n)), nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is not a time such as 2006-01-02T15:04:05Z, 2006-01-02, 1136214245 (seconds since 1970) or 10m (ago)", quote(v))
}

// interspersed lets flags follow arguments too: nucleus logs web -f.
func (c *call) interspersed() error {
	var args []string
	for len(c.args) > 0 && !c.opts.help {
		args = append(args, c.args[0])
		if err := c.parse(c.args[1:]); err != nil {
			return err
		}
	}
	c.args = args
	return nil
}

// lookup is what commands about named sandboxes begin with. done says that all
// is said already.
func (c *call) lookup(least, most int) (code int, done bool) {
	err := c.interspersed()
	switch {
	case err != nil:
	case c.opts.help:
		return output(commandHelp(c.cmd)), true
	case len(c.args) < least:
		err = usageError("no sandbox is named; see nucleus " + c.cmd.name + " --help")
	case len(c.args) > most:
		err = usageError("unexpected argument " + quote(c.args[most]) + ": " + c.cmd.name + " takes one sandbox")
	}
	if err != nil {
		return fail(c.cmd, err), true
	}
	return exitOK, false
}

// jsonText is v as JSON that sends a terminal no commands either: encoding/json
// leaves DEL, the C1 controls and marks that reverse the text as they are. All
// of them can only be inside strings.
func jsonText(v any, indent string) (string, error) {
	encode := func() ([]byte, error) { return json.MarshalIndent(v, "", indent) }
	if indent == "" {
		encode = func() ([]byte, error) { return json.Marshal(v) }
	}
	b, err := encode()
	if err != nil {
		return "", err
	}
	return escape(string(b), "\n", jsonEscape) + "\n", nil
}

// printJSON prints one document.
func printJSON(v any) int {
	s, err := jsonText(v, "  ")
	if err != nil {
		say("nucleus: %v\n", err)
		return exitFailed
	}
	return output(s)
}

// printLine prints one of a stream of documents, on one line.
func printLine(v any) int {
	s, err := jsonText(v, "")
	if err != nil {
		say("nucleus: %v\n", err)
		return exitFailed
	}
	return output(s)
}

// outputText prints text that holds what came from sandboxes. A program that
// reads it gets it as it is; a terminal gets no commands.
func outputText(s string) int {
	if term.IsTerminal(int(os.Stdout.Fd())) {
		s = escape(s, "\n\t", textEscape)
	}
	return output(s)
}
