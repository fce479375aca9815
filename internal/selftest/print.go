package selftest

import (
	"fmt"
	"strings"
)

// String prints the table: a claim a line, and below it how it was tried.
func (t *Table) String() string {
	var b strings.Builder
	n := map[Result]int{}
	for _, l := range t.Lines {
		n[l.Result]++
		if l.Result == NotTried {
			continue
		}
		fmt.Fprintf(&b, "%-7s %s\n", l.Result, l.Claim)
		for _, g := range groups(l.Tries) {
			fmt.Fprintf(&b, "        %s\n", g)
		}
	}
	t.untried(&b)
	fmt.Fprintf(&b, "\n%d claims: %d ok, %d failed, %d not tried. %s, %d ms.\n", len(t.Lines), n[OK], n[Failed], n[NotTried], t.Kernel, t.Took.Milliseconds())
	return b.String()
}

// untried prints the claims that were not tried, below the reason that they share.
func (t *Table) untried(b *strings.Builder) {
	var reasons []string
	for _, l := range t.Lines {
		if l.Result == NotTried {
			reasons = add(reasons, l.Why)
		}
	}
	for _, why := range reasons {
		fmt.Fprintf(b, "\nnot tried, because %s:\n", why)
		for _, l := range t.Lines {
			if l.Result == NotTried && l.Why == why {
				fmt.Fprintf(b, "        %s\n", l.Claim)
			}
		}
	}
}

// groups prints attempts, those that are alike as one.
func groups(tries []Try) []string {
	var out []string
	for len(tries) > 0 {
		n := 1
		for n < len(tries) && tries[n].How == tries[0].How {
			n++
		}
		out = append(out, group(tries[:n])...)
		tries = tries[n:]
	}
	return out
}

// group prints attempts that are alike: how many, the answers, what the controls
// said, and each that failed by itself.
func group(tries []Try) []string {
	made, bad := 0, []string{}
	var answers, without, why []string
	same := 0
	for _, t := range tries {
		if t.Result == NotTried {
			why = add(why, t.Why)
			continue
		}
		made++
		answers = add(answers, short(t.Answer))
		if t.Result == Failed {
			bad = append(bad, "  FAILED: "+strings.TrimPrefix(fmt.Sprintf("%s: got %s, want %s", t.Ask, clip(strings.Join(strings.Fields(t.Answer), " "), 300), t.Want), ": "))
		}
		if t.ControlAnswer != "" {
			if t.Differs {
				without = add(without, short(t.ControlAnswer))
			} else {
				same++
			}
		}
	}
	line := tries[0].How
	if made > 1 {
		line += fmt.Sprintf(" (%d times)", made)
	}
	if made == 0 {
		return []string{line + ": not tried: " + strings.Join(why, "; ")}
	}
	line += ": " + some(answers)
	switch {
	case len(without) > 0:
		line += fmt.Sprintf(" (without the sandbox: %s)", some(without))
	case same > 0:
		line += " (without the sandbox: the same)"
	default:
		line += " (no control)"
	}
	return append([]string{line}, bad...)
}

// add appends what is not there yet.
func add(to []string, s string) []string {
	for _, x := range to {
		if x == s {
			return to
		}
	}
	return append(to, s)
}

// some are at most four.
func some(all []string) string {
	if len(all) > 4 {
		return strings.Join(all[:4], ", ") + fmt.Sprintf(" and %d more", len(all)-4)
	}
	return strings.Join(all, ", ")
}

// short is an answer that fits on a line.
func short(s string) string {
	s = strings.Join(strings.Fields(strings.TrimPrefix(s, "ok:")), " ")
	if s == "" {
		return "nothing"
	}
	return clip(s, 60)
}

// clip cuts what is longer.
func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most-3], "") + "..."
	}
	return s
}
