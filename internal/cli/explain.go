package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// explainOptions is what --explain said.
type explainOptions struct {
	asked, off  bool
	files, json bool
}

var explainFlags = []flag{
	{name: "explain", arg: "off|on|files|json", optional: true, choice: "off on files json", set: setExplain,
		help: "Say after a failed run what the sandbox refused, why, and which flag would allow it: system calls, connections and limits with on (what it is on a terminal), with files also what files could not be opened, changed or executed, which makes each such call slower. With json every refusal is a line of JSON on standard error. off sees nothing. Combine with commas."},
}

func setExplain(o *options, v string) error {
	e := explainOptions{asked: true}
	for word := range strings.SplitSeq(v, ",") {
		if v == "" {
			break
		}
		if _, err := oneOf(word, "off", "on", "files", "json"); err != nil {
			return err
		}
		e.off = e.off || word == "off"
		e.files = e.files || word == "files"
		e.json = e.json || word == "json"
	}
	if e.off && v != "off" {
		return errors.New("off excludes the others")
	}
	o.explain = e
	return nil
}

var explainCommand = command{
	name:  "explain",
	args:  "[SANDBOX]",
	words: sandboxWords,
	short: "Say what was refused, why, and what would allow it",
	long: `Says what the last run was refused that was refused anything: what was tried, by
which process, which rule refused it, and the flag of run that would allow it. Of a
sandbox that lives on by itself nobody sees what it is refused; for one that has
ended, it says what follows from how it ended.

Lines marked "inferred" follow from what the kernel says of the object; the others
were seen.`,
	examples: [][2]string{
		{"nucleus run --explain=files -- make; nucleus explain", "see all that was refused"},
		{"nucleus explain --json | jq -r '.denials[].allow'", "collect the flags that would allow it"},
	},
	flags: [][]flag{jsonFlags, helpFlags},
	run:   runExplain,
}

// explain says whether and how closely a run is watched.
func (c *call) explain(cmd *nucleus.Cmd) {
	e := &c.opts.explain
	if e.off || !e.asked && !onTerminal() {
		e.off = true
		return
	}
	if cmd.Watch != nil { // what is learned is more than what is explained
		e.files = true
		return
	}
	cmd.Watch = &nucleus.Watch{Most: 1000, Optional: !e.asked}
	if e.files {
		cmd.Watch.Level = nucleus.Files
	}
}

// explained says what a run was refused, once it has ended or could not start.
func (c *call) explained(cmd *nucleus.Cmd, box *spec.Sandbox) {
	e := c.opts.explain
	if e.off {
		return
	}
	all := cmd.Denials()
	o := cmd.Outcome
	failed := o == nil || !o.Success()
	switch {
	case e.json:
		for _, d := range all {
			if b, err := json.Marshal(d); err == nil {
				say("%s\n", b)
			}
		}
	case failed:
		say("%s", digest(all, e.files))
	}
	if len(all) > 0 {
		if err := keepDenied(cmd, box, all); err != nil {
			say("nucleus: --explain: %v\n", err)
		}
		return
	}
	if o != nil && o.Reason == nucleus.Exited && failed && !e.files && !e.json && !box.Terminal {
		say("nucleus: nothing was seen that the sandbox refused; --explain=files sees files, too\n")
	}
}

// digestMost is how many denials a digest tells.
const digestMost = 3

// digest is a few lines about what was refused, for a person who has just seen a
// program fail: what hardly matters only if that is all there is, and was asked for.
func digest(all []nucleus.Denial, minor bool) string {
	told := slices.DeleteFunc(slices.Clone(all), func(d nucleus.Denial) bool { return d.Minor })
	if len(told) == 0 && minor {
		told = all
	}
	if len(told) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("nucleus: refused in the sandbox, the likeliest cause first:\n")
	for _, d := range told[:min(len(told), digestMost)] {
		writeDenial(&b, d)
	}
	if more := len(all) - min(len(told), digestMost); more > 0 {
		fmt.Fprintf(&b, "  and %d more: nucleus explain\n", more)
	}
	return b.String()
}

// writeDenial writes one denial, a line or two.
func writeDenial(b *strings.Builder, d nucleus.Denial) {
	b.WriteString("  " + d.String())
	if d.Count > 1 {
		fmt.Fprintf(b, ", %d times", d.Count)
	}
	b.WriteByte('\n')
	if fix := d.Fix(); fix != "" {
		b.WriteString("    " + fix + "\n")
	}
}

// keepDenied lets nucleus explain tell later.
func keepDenied(cmd *nucleus.Cmd, box *spec.Sandbox, all []nucleus.Denial) error {
	s, err := openStore()
	if err != nil {
		return err
	}
	d := store.Denied{Name: box.Name, Command: shortened(cmd.Args), Ended: time.Now(), Outcome: "not started", Denials: all}
	if o := cmd.Outcome; o != nil {
		d.Outcome, d.Ended = o.String(), o.Ended
	}
	return s.KeepDenied(d)
}

// shortened bounds a command line that is only shown.
func shortened(args []string) []string {
	const most, longest = 32, 200
	var out []string
	for _, a := range args[:min(len(args), most)] {
		if len(a) > longest {
			a = a[:longest] + "..."
		}
		out = append(out, a)
	}
	return out
}

// runExplain is `nucleus explain`.
func runExplain(c *call) int {
	if code, done := c.lookup(0, 1); done {
		return code
	}
	s, err := openStore()
	if err != nil {
		return fail(c.cmd, err)
	}
	d, err := s.LastDenied()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(c.cmd, err)
	}
	found := err == nil
	if len(c.args) == 1 && (!found || d.Name != c.args[0]) {
		if d, err = ofSandbox(s, c.args[0]); err != nil {
			return failVerb(c.cmd, err)
		}
		found = true
	}
	if !found {
		d.Denials = []nucleus.Denial{}
	}
	if c.opts.json {
		return outputJSON(d)
	}
	if !found {
		return output("No run has been refused anything that was seen. nucleus run --explain=files sees the most.\n")
	}
	return output(tell(d, time.Now()))
}

// ofSandbox is what follows from how a sandbox ended that nobody watched.
func ofSandbox(s *store.Store, ref string) (d store.Denied, err error) {
	ctx, cancel := interruptible()
	defer cancel()
	b, err := lookUp(s, ref)
	if err != nil {
		return d, err
	}
	i, err := b.Info(ctx)
	if err != nil {
		return d, err
	}
	d = store.Denied{Name: i.Display(), Command: shortened(i.Command), Outcome: i.State, Ended: i.Ended, Denials: []nucleus.Denial{}}
	if i.Ended.IsZero() || i.Running() {
		return d, nil
	}
	o := &nucleus.Outcome{Reason: nucleus.Reason(i.Reason), Code: i.ExitCode, Detail: i.Detail, Ended: i.Ended}
	d.Outcome = o.String()
	d.Denials = append(d.Denials, nucleus.Explain(&i.Sandbox, i.Command, o)...)
	return d, nil
}

// tell is everything about what a run was refused.
func tell(d store.Denied, now time.Time) string {
	var b strings.Builder
	name := ""
	if d.Name != "" {
		name = " (" + d.Name + ")"
	}
	fmt.Fprintf(&b, "%s%s, %s", printable(strings.Join(d.Command, " ")), printable(name), printable(d.Outcome))
	if !d.Ended.IsZero() {
		fmt.Fprintf(&b, ", %s", ago(d.Ended, now))
	}
	b.WriteString("\n")
	if len(d.Denials) == 0 {
		b.WriteString("Nothing is known of it that was refused. What lives on by itself is not watched; nucleus run without -d is, with --explain.\n")
	}
	for _, minor := range []bool{false, true} {
		first := true
		for _, denial := range d.Denials {
			if denial.Minor != minor {
				continue
			}
			if first && minor {
				b.WriteString("\nPrograms usually do without:\n")
			}
			first = false
			writeDenial(&b, denial)
			if denial.Inferred {
				b.WriteString("    inferred; layer: " + denial.Layer + "\n")
			} else {
				b.WriteString("    seen; layer: " + denial.Layer + "\n")
			}
		}
	}
	return b.String()
}

// watched refuses --explain for what nobody waits for.
func (c *call) watched() error {
	if e := c.opts.explain; e.asked && !e.off && (c.opts.life.detach || c.opts.life.asked != "") {
		return usageError("--explain and what lives on by itself exclude each other: nobody would be there to see what is refused; nucleus explain SANDBOX tells what follows from its end")
	}
	return nil
}
