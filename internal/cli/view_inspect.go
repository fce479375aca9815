package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/store"
)

var inspectCommand = command{
	name:  "inspect",
	args:  "SANDBOX...",
	words: sandboxWords,
	short: "Print everything that is known of sandboxes",
	long: `Prints a JSON array with everything that is known of each sandbox: what was asked
for, what happened, and of one that runs, under "live", its namespaces, its
control groups, how many processes it has, and what it uses and may use.` + references,
	examples: [][2]string{
		{"nucleus inspect web", "print all of it"},
		{"nucleus inspect --format '{{.State}} {{.Live.Stats.Memory}}' web", "print a part"},
		{"nucleus inspect web | jq '.[].sandbox.limits'", "take it apart in a script"},
	},
	flags: [][]flag{formatFlags, helpFlags},
	run:   runInspect,
}

// inspection is what inspect prints of a sandbox.
type inspection struct {
	store.Info
	Live live `json:"live,omitzero"`
}

// live is what can be said of a sandbox that runs.
type live struct {
	Pid        int               `json:"pid"`
	Processes  int               `json:"processes"`
	Namespaces map[string]string `json:"namespaces,omitempty"` // as /proc/PID/ns has them
	Groups     []string          `json:"cgroups,omitempty"`    // directories
	Stats      nucleus.Stats     `json:"stats"`
	Problem    string            `json:"problem,omitempty"` // why something is missing
}

// runInspect is `nucleus inspect`.
func runInspect(c *call) int {
	if code, done := c.lookup(1, math.MaxInt); done {
		return code
	}
	f, err := c.format(inspection{}, false)
	if err != nil {
		return fail(c.cmd, err)
	}
	s, err := openStore()
	if err != nil {
		return failVerb(c.cmd, err)
	}
	code := exitOK
	all := []inspection{}
	for _, ref := range c.args {
		b, err := lookUp(s, ref)
		if err == nil {
			var i inspection
			if i, err = inspect(b); err == nil {
				all = append(all, i)
				continue
			}
		}
		code = max(code, failVerb(c.cmd, err))
	}
	if f == nil {
		return max(code, printJSON(all))
	}
	var text strings.Builder
	for _, i := range all {
		line, err := f.line(i)
		if err != nil {
			return failVerb(c.cmd, err)
		}
		text.WriteString(line)
	}
	return max(code, outputText(text.String()))
}

// inspect asks the files, and of a sandbox that runs the kernel.
func inspect(b *store.Sandbox) (inspection, error) {
	i, err := b.Info(context.Background())
	if err != nil {
		return inspection{}, err
	}
	out := inspection{Info: i}
	if !i.Running() {
		return out, nil
	}
	p, err := b.Process()
	if errors.Is(err, store.ErrNotRunning) { // it ended just now
		out.Info, err = b.Info(context.Background())
		return out, err
	}
	if err != nil {
		return out, err
	}
	out.Live, err = observe(b, p)
	if gone := p.Signal(nothing); gone != nil { // what was seen may be another's
		out.Live, err = live{}, nil
	}
	if err != nil {
		out.Live.Problem = err.Error()
	}
	return out, p.Close()
}

func observe(b *store.Sandbox, p *nucleus.Process) (l live, err error) {
	l.Pid = p.Pid()
	all, perr := p.Processes()
	l.Processes = len(all)
	stats, serr := p.Stats()
	l.Stats = stats
	groups, gerr := b.Groups()
	l.Groups = groups
	dir := fmt.Sprintf("/proc/%d/ns", l.Pid)
	entries, nerr := os.ReadDir(dir)
	l.Namespaces = make(map[string]string, len(entries))
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "_for_children") {
			continue
		}
		link, err := os.Readlink(dir + "/" + e.Name())
		if err != nil {
			nerr = err
			continue
		}
		l.Namespaces[e.Name()] = link
	}
	return l, errors.Join(perr, serr, gerr, nerr)
}
