package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// What sandboxes are called, run and say comes from whoever is inside or made
// them. An attacker would put escape sequences there: a terminal that is sent
// them changes its title, answers as if the user had typed, or shows other text
// than there is. Nothing but printable characters gets through here.

// escape replaces every character that is not printable, unless it is in keep.
func escape(s, keep string, with func(r rune, b byte) string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= ' ' && s[i] < 0x7f || strings.IndexByte(keep, s[i]) >= 0
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 || !strconv.IsPrint(r) && !strings.ContainsRune(keep, r) {
			b.WriteString(with(r, s[0]))
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// textEscape writes a character, or a byte that is none, as in Go.
func textEscape(r rune, b byte) string {
	if r == utf8.RuneError {
		return fmt.Sprintf(`\x%02x`, b)
	}
	q := strconv.QuoteRuneToASCII(r)
	return q[1 : len(q)-1]
}

// jsonEscape writes a character as in JSON, which has nothing else.
func jsonEscape(r rune, _ byte) string {
	if a, b := utf16.EncodeRune(r); a != unicode.ReplacementChar {
		return fmt.Sprintf(`\u%04x\u%04x`, a, b)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// printable is s on one line that a terminal shows and does nothing else with.
func printable(s string) string { return escape(s, "", textEscape) }

// wide are the characters that take two columns of a terminal, roughly.
var wide = [...][2]rune{
	{0x1100, 0x115f}, {0x231a, 0x231b}, {0x23e9, 0x23ec}, {0x2e80, 0x303e}, {0x3041, 0xa4cf}, {0xa960, 0xa97c}, {0xac00, 0xd7a3},
	{0xf900, 0xfaff}, {0xfe30, 0xfe6f}, {0xff01, 0xff60}, {0xffe0, 0xffe6}, {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff}, {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd},
}

// columns is how much of a line a printable character takes.
func columns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	}
	for _, w := range wide {
		if r >= w[0] && r <= w[1] {
			return 2
		}
	}
	return 1
}

// width is how much of a line printable text takes.
func width(s string) (n int) {
	for _, r := range s {
		n += columns(r)
	}
	return n
}

// shorten makes printable what fits into so many columns. What is left out is
// an ellipsis; neither a character nor an escape is cut.
func shorten(s string, most int) string {
	const perColumn = 16 // bytes: characters without a width must end too
	var b strings.Builder
	used, cut := 0, 0
	for rest := s; len(rest) > 0; {
		_, n := utf8.DecodeRuneInString(rest)
		piece := printable(rest[:n])
		used += width(piece)
		if used > most || b.Len() > perColumn*most {
			return b.String()[:cut] + "…"
		}
		b.WriteString(piece)
		if used < most {
			cut = b.Len()
		}
		rest = rest[n:]
	}
	return b.String()
}

// clip cuts printable text at a column.
func clip(s string, most int) string {
	for i, r := range s {
		if most -= columns(r); most < 0 {
			return s[:i]
		}
	}
	return s
}

// pad fills printable text up with blanks.
func pad(s string, n int) string { return s + strings.Repeat(" ", max(0, n-width(s))) }

// textTable puts rows of printable cells below each other.
func textTable(rows [][]string) string {
	const gap = 3
	var widths []int
	for _, row := range rows {
		for len(row) > 0 && row[len(row)-1] == "" { // what stands last may reach as far as it likes
			row = row[:len(row)-1]
		}
		for i := range max(0, len(row)-1) {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], width(row[i]))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			if i < len(row)-1 && i < len(widths) {
				cell = pad(cell, widths[i]+gap)
			}
			line += cell
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// span says roughly how long something lasts, in docker's words.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch hours := int((d + time.Hour/2) / time.Hour); {
	case d < time.Second:
		return "Less than a second"
	case d < 2*time.Second:
		return "1 second"
	case d < time.Minute:
		return fmt.Sprintf("%d seconds", d/time.Second)
	case d < 2*time.Minute:
		return "About a minute"
	case d < time.Hour:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return fmt.Sprintf("%d hours", hours)
	case d < 14*day:
		return fmt.Sprintf("%d days", d/day)
	case d < 60*day:
		return fmt.Sprintf("%d weeks", d/(7*day))
	case d < 2*365*day:
		return fmt.Sprintf("%d months", d/(30*day))
	}
	return fmt.Sprintf("%d years", d/(365*day))
}

// ago is when something was; empty for never.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(now.Sub(t)) + " ago"
}

// amount is a number of bytes with at most four digits.
func amount(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + "B"
	}
	f, unit := float64(n), -1
	for f >= 999.95 && unit < 5 { // 1000 would be a fifth digit with the point
		f /= 1024
		unit++
	}
	digits := 1
	switch {
	case f < 9.995:
		digits = 2
	case f >= 99.95:
		digits = 0
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + "KMGTPE"[unit:unit+1] + "iB"
}

// clock is processor time as ps(1) has it.
func clock(d time.Duration) string {
	s := int64(d / time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// tally is a number of things.
func tally(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
