package learn

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Mark is how a record begins: a file that begins otherwise is none.
const Mark = "# A learning record of Nucleus"

// document is TOML that is being written.
type document struct{ strings.Builder }

func (d *document) line(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

func (d *document) comment(text string) {
	for _, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		d.line("%s", strings.TrimRight("# "+plain(l), " "))
	}
}

func (d *document) text(key, value string) {
	if value != "" {
		d.line("%s = %s", key, quote(value))
	}
}

func (d *document) texts(key string, values []string) {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quote(v)
	}
	one := key + " = [" + strings.Join(quoted, ", ") + "]"
	if len(one) <= 120 {
		d.line("%s", one)
		return
	}
	d.line("%s = [", key)
	for _, q := range quoted {
		d.line("  %s,", q)
	}
	d.line("]")
}

func (d *document) flag(key string, on bool) {
	if on {
		d.line("%s = true", key)
	}
}

func (d *document) evidence(e Evidence) {
	d.line("count = %d", e.Count)
	d.text("first", e.First)
}

// quote writes a basic string of TOML.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == unicode.ReplacementChar || r < ' ' || r == 0x7f || !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\U%08X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// plain is text for a comment.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

const recordHead = Mark + `: what a program did in a sandbox.
# Made by nucleus run --learn; made into a policy by nucleus policy generate.
#
# It tells what happened and allows nothing. What was refused was refused while
# learning too. Paths have their symbolic links followed. Not counted are calls
# that every program makes all the time: reading and writing what is open,
# memory, locks, signals, waiting.`

// Encode writes a record as TOML.
func (r *Record) Encode() []byte {
	d := &document{}
	d.line("%s\n", recordHead)
	d.line("nucleus_learn = %d", Version)
	d.texts("command", r.Command)
	d.text("arch", r.Arch.String())
	d.line("uid = %d", r.UID)
	d.line("gid = %d", r.GID)
	d.line("jobs = %d", r.Jobs)
	d.line("began = %s", r.Began.UTC().Format(time.RFC3339))
	d.line("ended = %s", r.Ended.UTC().Format(time.RFC3339))
	d.text("end", r.End)
	if r.Held != 0 {
		d.texts("kept_capabilities", strings.Split(r.Held.String(), ","))
	}
	if r.Lost > 0 {
		d.comment("There were too many different calls to remember: a policy from this record will refuse some.")
	}
	d.line("lost = %d", r.Lost)
	d.refusals(r)
	for _, u := range r.Calls {
		d.line("\n[[call]]")
		d.text("name", u.Name)
		d.evidence(u.Evidence)
		d.values(u)
	}
	for _, p := range r.Paths {
		d.path(p)
	}
	for _, n := range r.Nets {
		d.line("\n[[net]]")
		d.text("call", n.Call)
		d.text("address", n.Address)
		d.evidence(n.Evidence)
	}
	for _, c := range r.Caps {
		d.line("\n[[capability]]")
		d.text("name", c.Cap.String())
		d.text("call", c.Call)
		d.line("inferred = true # the call needs it to succeed; whether it did, the kernel does not tell")
		d.evidence(c.Evidence)
	}
	return []byte(d.String())
}

func (d *document) refusals(r *Record) {
	for _, x := range r.Refusals {
		d.line("\n[[refused]]")
		d.text("call", x.Call)
		d.text("object", x.Object)
		d.text("errno", x.Errno)
		d.text("by", x.By)
		d.text("why", x.Why)
		d.evidence(x.Evidence)
	}
}

func (d *document) values(u Used) {
	if len(u.Values) == 0 {
		return
	}
	d.line("values = [")
	for _, v := range u.Values {
		words := make([]string, len(v))
		for i, n := range v {
			words[i] = fmt.Sprintf("%d", n)
		}
		d.line("  [%s], # %s", strings.Join(words, ", "), meaning(u.Name, v))
	}
	d.line("]")
}

func (d *document) path(p Path) {
	d.line("\n[[path]]")
	d.text("path", p.Path)
	if p.Access == 0 {
		d.texts("access", []string{"ask"})
	} else {
		d.texts("access", strings.Split(p.Access.String(), ","))
	}
	d.text("kind", string(p.Kind))
	d.flag("made", p.Made)
	d.flag("below", p.Below)
	d.text("for", p.By)
	d.evidence(p.Evidence)
}

const policyHead = `# A policy of Nucleus, made from a learning record: the smallest one under which
# the same job runs again. Use it with nucleus run --policy.
#
# It allows what was seen and nothing more; evidence says how often and by which
# program first. Read it before you believe it: a program that was hostile while
# it was watched has written its own policy.`

// EncodePolicy writes the policy for a record as a policy.toml. notes are about
// what a reader should know: they are also in its comments.
func (r *Record) EncodePolicy(base seccomp.Policy) (text []byte, notes []string) {
	rules, beyond := r.Seccomp(base)
	files := r.Landlock()
	notes = r.notes(beyond, files)
	d := &document{}
	d.line("%s\n#", policyHead)
	d.comment("job:      " + strings.Join(r.Command, " "))
	d.comment(fmt.Sprintf("learned:  %s, %d run(s), %s", r.Ended.UTC().Format(time.RFC3339), r.Jobs, r.Arch))
	for _, n := range notes {
		d.comment("note:     " + n)
	}
	d.line("\n[seccomp]")
	d.text("default", string(base.Default))
	d.text("unknown", string(base.Unknown))
	for _, rule := range rules {
		d.rule(rule)
	}
	d.line("")
	d.comment("Files. These narrow what the sandbox's mounts allow; they never add to it.")
	d.line("[landlock]")
	for _, rule := range files.Rules {
		d.line("\n[[landlock.rules]]")
		d.text("path", rule.Path)
		d.flag("file", rule.File)
		d.texts("access", strings.Split(rule.Allow.String(), ","))
		d.text("why", rule.Why)
	}
	d.caps(r)
	d.egress(r)
	return []byte(d.String()), notes
}

func (d *document) rule(rule Rule) {
	d.line("\n[[seccomp.rules]]")
	d.texts("calls", rule.Calls)
	if len(rule.When) > 0 {
		when := make([]string, len(rule.When))
		for i, c := range rule.When {
			when[i] = c.String()
		}
		d.texts("when", when)
	}
	d.text("do", string(rule.Do))
	d.text("why", rule.Why)
	d.text("evidence", rule.Evidence)
}

func (d *document) caps(r *Record) {
	d.line("")
	var keep []string
	d.comment("Capabilities. Kept are those that were kept while learning and that a call needs;\nwhich those are is inferred from the calls.")
	for _, c := range r.Caps {
		does := "not kept while learning, so the job does without"
		if r.Held.Has(c.Cap) {
			does = "kept"
			if !slices.Contains(keep, c.Cap.String()) {
				keep = append(keep, c.Cap.String())
			}
		}
		d.comment(fmt.Sprintf("  %s: %s, %s: %s", c.Cap, c.Call, c.Evidence, does))
	}
	if len(keep) > 0 {
		d.line("[caps.ambient]")
		d.texts("keep", keep)
	}
}

func (d *document) egress(r *Record) {
	d.line("")
	d.comment("Network. The sandbox had none but its own loopback, so nothing is allowed here.")
	const most = 50
	for i, n := range r.Nets {
		if i == most {
			d.comment(fmt.Sprintf("  and %d more", len(r.Nets)-most))
			break
		}
		d.comment(fmt.Sprintf("  %s %s: %s", n.Call, n.Address, n.Evidence))
	}
}

// notes says what does not follow from the rules themselves.
func (r *Record) notes(beyond []string, files landlock.Config) (notes []string) {
	if r.Lost > 0 {
		notes = append(notes, fmt.Sprintf("the record is not complete (%d calls were not remembered): the job may be refused something", r.Lost))
	}
	if len(beyond) > 0 {
		notes = append(notes, "allows what the default policy refuses, as the policy did that was in force while learning: "+strings.Join(beyond, " "))
	}
	if paths := files.WriteAndExecute(); len(paths) > 0 {
		notes = append(notes, "files can be both written and executed beneath "+strings.Join(paths, ", ")+", as the job did")
	}
	if n := len(r.Refusals); n > 0 {
		notes = append(notes, fmt.Sprintf("%d kinds of calls were refused while learning, and stay refused: see the record", n))
	}
	return notes
}
