package keeper

import (
	"bytes"
	"strings"
)

// screen keeps what a program has written to its terminal, as far as it takes to
// show it again to somebody who comes later: for each of a terminal's two
// screens, the modes at some point and all that was written from there on.
type screen struct {
	now  *vt
	main history
	alt  history // as long as that screen is shown
	end  vtModes // of main, while the other one is shown
}

// history is what was written to a screen since it was as from says.
type history struct {
	from vt
	data []byte
}

// historyMost is how much is kept of each screen.
const historyMost = 256 << 10

func newScreen() *screen {
	s := &screen{now: newVT()}
	s.main.from = *s.now
	return s
}

// write takes what the program has written.
func (s *screen) write(p []byte) {
	begin := 0
	for i, b := range p {
		wasAlt := s.now.modes.alt
		switch s.now.step(b) {
		case vtCleared:
			s.shown(wasAlt).from, s.shown(wasAlt).data = *s.now, nil
			begin = i + 1
		case vtReset:
			s.main, s.alt = history{from: *s.now}, history{}
			begin = i + 1
		case vtToAlt:
			// Without the sequence itself: what is shown here goes on when the other
			// screen is gone.
			s.main.add(p[begin : i+1])
			s.main.data = s.main.data[:max(len(s.main.data)-s.now.long, 0)]
			s.end, s.alt = s.now.left, history{from: *s.now}
			begin = i + 1
		case vtFromAlt:
			var b bytes.Buffer
			s.end.unset(&b)
			s.now.modes.set(&b)
			s.main.add(b.Bytes())
			s.alt = history{}
			begin = i + 1
		}
	}
	s.shown(s.now.modes.alt).add(p[begin:])
}

func (s *screen) shown(alt bool) *history {
	if alt {
		return &s.alt
	}
	return &s.main
}

// add appends what was written, and forgets the oldest when it becomes too much:
// so that the rest begins at the beginning of a line, if there are lines.
func (h *history) add(p []byte) {
	h.data = append(h.data, p...)
	if len(h.data) <= historyMost {
		return
	}
	const patience = 8 << 10 // how far to look for the beginning of a line
	least := len(h.data) - historyMost*3/4
	i := 0
	for ; i < len(h.data); i++ {
		if i >= least && h.from.safe() && (h.data[i-1] == '\n' || i >= least+patience) {
			break
		}
		h.from.step(h.data[i])
	}
	h.data = append(h.data[:0], h.data[i:]...)
}

// replay is what makes a terminal in its normal modes show what this one shows.
func (s *screen) replay() []byte {
	var b bytes.Buffer
	const clear = "\x1b[H\x1b[2J"
	v := s.main.from
	b.WriteString(clear)
	v.modes.set(&b)
	harmless(&b, &v, s.main.data)
	if s.now.modes.alt {
		v.modes.unset(&b)
		v = s.alt.from
		b.WriteString("\x1b[?1049h" + clear)
		v.modes.set(&b)
		harmless(&b, &v, s.alt.data)
	}
	return b.Bytes()
}

// harmless copies what was written in the past without what is to be done once:
// a question would be answered a second time, and the answer be typed to a
// program that has not asked; a bell, or what goes to a clipboard, a printer or
// the window, is over.
func harmless(to *bytes.Buffer, v *vt, data []byte) {
	begin, title := -1, -1 // of the sequence, and of the string that an ESC has just ended
	for i, c := range data {
		was := v.at
		v.step(c)
		switch {
		case c == 0x1b:
			title = -1
			if was == vtOSC {
				title = begin
			}
			begin = i
		case v.at != vtGround:
		case begin < 0:
			if c != 0x05 && c != 0x07 {
				to.WriteByte(c)
			}
		default:
			seq := data[begin : i+1]
			if title >= 0 && string(seq) == "\x1b\\" {
				was, seq = vtOSC, data[title:i+1]
			}
			if c != 0x18 && c != 0x1a && lasting(was, seq) {
				to.Write(seq)
			}
			begin, title = -1, -1
		}
	}
	if title >= 0 {
		begin = title
	}
	if begin >= 0 { // its end is to come
		to.Write(data[begin:])
	}
}

// lasting reports whether a complete sequence says how something is to be shown.
func lasting(kind vtAt, seq []byte) bool {
	switch kind {
	case vtOSC:
		what, value, _ := strings.Cut(string(seq[2:]), ";")
		what = strings.TrimRight(what, "\x07\x1b\\")
		switch what {
		case "8", "0", "1", "2": // a link, titles
			return true
		case "4", "5", "10", "11", "12", "104", "105", "110", "111", "112": // colours
			return !strings.Contains(value, "?")
		}
		return false
	case vtCSI:
		args, final := seq[2:len(seq)-1], seq[len(seq)-1]
		switch final {
		case 'n', 'c', 'x', 't', 'i':
			return false
		case 'q':
			return !bytes.HasPrefix(args, []byte(">"))
		case 'p':
			return !bytes.Contains(args, []byte("$"))
		case 'u':
			return !bytes.HasPrefix(args, []byte("?"))
		case 'J':
			return string(args) != "3"
		}
		return true
	case vtEscape:
		return seq[1] != 'Z' && seq[1] != '\\' // who are you; the end of a string
	}
	return kind == vtInter
}
