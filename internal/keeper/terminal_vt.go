package keeper

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// vt follows what a program tells its terminal, as far as it outlives what is
// shown: colours, modes, which of the two screens is used. It draws nothing, and
// what it does not know it passes over. Every byte is hostile: there is no
// sequence that takes more than a few bytes of memory, and none that it stays in
// for longer than a terminal would.
type vt struct {
	at    vtAt
	seq   [64]byte // of the sequence that has begun, without ESC [ or ESC ]
	n     int      // used; len(seq)+1: the sequence is longer and none of ours
	utf8  int      // bytes of a character that are to come
	long  int      // bytes since ESC
	modes vtModes
	left  vtModes // as they were when the other screen was last asked for
	home  bool    // the cursor is in the corner, nothing was shown since
	blank bool    // the screen is empty, as above
}

// vtAt is where in a sequence the output is.
type vtAt uint8

const (
	vtGround vtAt = iota
	vtEscape      // after ESC
	vtInter       // after ESC and what selects a character set and the like
	vtCSI         // after ESC [
	vtOSC         // after ESC ], to BEL or ESC \
	vtString      // after ESC P, ESC X, ESC ^ or ESC _, to ESC \
)

// vtModes is what a terminal must be told to be as the program left it.
type vtModes struct {
	alt     bool // the alternate screen is shown
	flags   [len(vtFlags)]bool
	keypad  bool
	insert  bool
	shift   bool
	sets    [2]byte // character sets G0 and G1; 0: ASCII
	region  string  // parameters of the scrolling region
	cursor  string  // parameters of the cursor's shape
	keys    string  // parameters of how modified keys are sent
	pushed  int     // how many times other keys were asked for (kitty's protocol)
	colours [16]string
	used    int
}

// vtFlags are the private modes that are followed, and what they are at first.
var vtFlags = [...]struct {
	number int
	normal bool
}{
	{1, false}, {5, false}, {6, false}, {7, true}, {9, false}, {25, true}, {66, false}, {1000, false}, {1002, false}, {1003, false},
	{1004, false}, {1005, false}, {1006, false}, {1015, false}, {1016, false}, {2004, false}, {2031, false},
}

const (
	flagOrigin = 2 // index of mode 6
	vtPushes   = 16
)

func normalModes() (m vtModes) {
	for i, f := range vtFlags {
		m.flags[i] = f.normal
	}
	return m
}

func newVT() *vt { return &vt{modes: normalModes(), home: true, blank: true} }

// vtEvent is what a byte has done.
type vtEvent uint8

const (
	vtNothing  vtEvent = iota
	vtShown            // it was shown, or moved the cursor
	vtSequence         // a sequence is complete: see last
	vtCleared          // a sequence is complete, and the screen is empty with the cursor in its corner
	vtToAlt            // as vtSequence: the other screen is shown from here on
	vtFromAlt
	vtReset
)

// step takes one byte.
func (v *vt) step(b byte) vtEvent {
	switch {
	case b == 0x1b:
		v.at, v.n, v.utf8, v.long = vtEscape, 0, 0, 1
		return vtNothing
	case b == 0x18 || b == 0x1a: // CAN and SUB end any sequence
		v.at, v.utf8 = vtGround, 0
		return vtNothing
	}
	v.long++
	switch v.at {
	case vtGround:
		return v.ground(b)
	case vtEscape:
		return v.escape(b)
	case vtInter:
		if b < 0x20 || b > 0x2f {
			v.at = vtGround
			return v.charset(b)
		}
		v.take(b)
	case vtCSI:
		if b >= 0x40 && b <= 0x7e {
			v.at = vtGround
			v.take(b)
			return v.control()
		}
		if b >= 0x20 {
			v.take(b)
		}
	case vtOSC:
		if b == 0x07 {
			v.at = vtGround
			return vtSequence
		}
		v.take(b)
	}
	return vtNothing
}

func (v *vt) take(b byte) {
	if v.n < len(v.seq) {
		v.seq[v.n] = b
		v.n++
		return
	}
	v.n = len(v.seq) + 1
}

// ground is a byte outside of sequences.
func (v *vt) ground(b byte) vtEvent {
	switch {
	case b < 0x20 || b == 0x7f:
		switch b {
		case 0x0e:
			v.modes.shift = true
		case 0x0f:
			v.modes.shift = false
		}
		v.utf8 = 0
		if b == 0 || b == 0x07 || b == 0x0e || b == 0x0f || b == 0x0d && v.home {
			return vtNothing
		}
	case b >= 0xf0 && b < 0xf8:
		v.utf8 = 3
	case b >= 0xe0 && b < 0xf0:
		v.utf8 = 2
	case b >= 0xc0 && b < 0xe0:
		v.utf8 = 1
	case b >= 0x80 && b < 0xc0:
		v.utf8 = max(v.utf8-1, 0)
	default:
		v.utf8 = 0
	}
	v.home, v.blank = false, false
	return vtShown
}

func (v *vt) escape(b byte) vtEvent {
	v.at = vtGround
	switch b {
	case '[':
		v.at = vtCSI
		return vtNothing
	case ']':
		v.at = vtOSC
		return vtNothing
	case 'P', 'X', '^', '_':
		v.at = vtString
		return vtNothing
	case 'c':
		*v = *newVT()
		return vtReset
	case '=':
		v.modes.keypad = true
	case '>':
		v.modes.keypad = false
	case '7', '\\': // the position is kept; the end of a string
	default:
		if b >= 0x20 && b <= 0x2f {
			v.at = vtInter
			v.take(b)
			return vtNothing
		}
		v.home, v.blank = false, false
	}
	return vtSequence
}

func (v *vt) charset(b byte) vtEvent {
	if b == 'B' {
		b = 0
	}
	if v.n == 1 && (v.seq[0] == '(' || v.seq[0] == ')') && (b == 0 || b >= 0x30 && b < 0x7f) {
		v.modes.sets[v.seq[0]-'('] = b
	}
	return vtSequence
}

// control is a complete ESC [ sequence.
func (v *vt) control() vtEvent {
	if v.n > len(v.seq) || v.n == 0 {
		v.home, v.blank = false, false
		return vtSequence
	}
	args, final := string(v.seq[:v.n-1]), v.seq[v.n-1]
	switch final {
	case 'h', 'l':
		return v.mode(args, final == 'h')
	case 'm':
		if strings.HasPrefix(args, ">") {
			v.modes.keys = unlessNormal(args, ">", ">4", ">4;0")
		} else if plainArgs(args) {
			v.modes.colour(args)
		}
	case 'r':
		if plainArgs(args) {
			v.modes.region = args
			v.home = args == "" && !v.modes.flags[flagOrigin]
		}
	case 'q':
		if strings.HasSuffix(args, " ") && plainArgs(strings.TrimSuffix(args, " ")) {
			v.modes.cursor = unlessNormal(args, " ", "0 ")
		}
	case 'p':
		if args == "!" {
			alt := v.modes.alt
			v.modes = normalModes()
			v.modes.alt = alt
		}
	case 'u':
		v.push(args)
	case 'n', 'c', 't', 'x', 's', 'g': // questions, and what does not move the cursor
	default:
		return v.moved(args, final)
	}
	return vtSequence
}

// unlessNormal is empty for parameters that ask for what is normal.
func unlessNormal(args string, normal ...string) string {
	if slices.Contains(normal, args) {
		return ""
	}
	return args
}

// push follows the keyboard protocol that is a stack: CSI > N u, CSI < N u.
func (v *vt) push(args string) {
	switch {
	case strings.HasPrefix(args, ">"):
		v.modes.pushed = min(v.modes.pushed+1, vtPushes)
	case strings.HasPrefix(args, "<"):
		n, err := strconv.Atoi(args[1:])
		if err != nil {
			n = 1
		}
		v.modes.pushed = max(v.modes.pushed-max(n, 1), 0)
	case args == "":
		v.home, v.blank = false, false // the cursor goes back to where it was
	}
}

// moved follows whether the screen is empty with the cursor in its corner: both
// orders of saying so are usual.
func (v *vt) moved(args string, final byte) vtEvent {
	switch {
	case final == 'H' && (args == "" || args == "1;1" || args == ";" || args == "1"):
		v.home = !v.modes.flags[flagOrigin] && v.modes.region == ""
	case final == 'J' && (args == "2" || args == "3" || (args == "" || args == "0") && v.home):
		v.blank = v.blank || args != "3"
	default:
		v.home, v.blank = false, false
		return vtSequence
	}
	if v.home && v.blank {
		return vtCleared
	}
	return vtSequence
}

// mode follows ESC [ ? N h and its like.
func (v *vt) mode(args string, on bool) vtEvent {
	v.left = v.modes
	list, private := strings.CutPrefix(args, "?")
	event := vtSequence
	for one := range strings.SplitSeq(list, ";") {
		n, err := strconv.Atoi(one)
		switch {
		case err != nil:
		case !private:
			if n == 4 {
				v.modes.insert = on
			}
		case n == 47 || n == 1047 || n == 1049:
			v.home, v.blank = false, false
			if on != v.modes.alt {
				v.modes.alt = on
				event = map[bool]vtEvent{true: vtToAlt, false: vtFromAlt}[on]
			}
		default:
			for i, f := range vtFlags {
				if f.number == n {
					v.modes.flags[i] = on
				}
			}
		}
	}
	return event
}

// colour follows the colours and the like of what is shown from here on.
func (m *vtModes) colour(args string) {
	if args == "" || args == "0" {
		m.colours, m.used = [len(m.colours)]string{}, 0
		return
	}
	if m.used == len(m.colours) { // what was said last counts most
		copy(m.colours[:], m.colours[1:])
		m.used--
	}
	m.colours[m.used] = args
	m.used++
}

// plainArgs reports whether a sequence has numbers and nothing else.
func plainArgs(s string) bool { return strings.Trim(s, "0123456789;:") == "" }

// safe reports whether what follows can be shown without what came before.
func (v *vt) safe() bool { return v.at == vtGround && v.utf8 == 0 }

// set writes what makes a terminal in its normal modes have these. Which screen
// is shown is not among it.
func (m *vtModes) set(b *bytes.Buffer) {
	if m.region != "" { // which moves the cursor
		fmt.Fprintf(b, "\x1b7\x1b[%sr\x1b8", m.region)
	}
	for i, f := range vtFlags {
		if m.flags[i] != f.normal {
			fmt.Fprintf(b, "\x1b[?%d%c", f.number, "lh"[btoi(m.flags[i])])
		}
	}
	for i, set := range m.sets {
		if set != 0 {
			fmt.Fprintf(b, "\x1b%c%c", "()"[i], set)
		}
	}
	for _, s := range []struct {
		on   bool
		text string
	}{{m.keypad, "\x1b="}, {m.insert, "\x1b[4h"}, {m.shift, "\x0e"}, {m.cursor != "", "\x1b[" + m.cursor + "q"}, {m.keys != "", "\x1b[" + m.keys + "m"}} {
		if s.on {
			b.WriteString(s.text)
		}
	}
	for _, c := range m.colours[:m.used] {
		fmt.Fprintf(b, "\x1b[%sm", c)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// unset writes what makes a terminal with these modes normal again, and leaves
// what is shown where it is. Which screen is shown, and which keys were asked
// for, is not among it.
func (m *vtModes) unset(b *bytes.Buffer) {
	for i, f := range vtFlags {
		if m.flags[i] != f.normal {
			fmt.Fprintf(b, "\x1b[?%d%c", f.number, "lh"[btoi(f.normal)])
		}
	}
	for _, s := range []struct {
		on   bool
		text string
	}{
		{m.region != "", "\x1b7\x1b[r\x1b8"}, {m.sets[0] != 0, "\x1b(B"}, {m.sets[1] != 0, "\x1b)B"}, {m.keypad, "\x1b>"}, {m.insert, "\x1b[4l"},
		{m.shift, "\x0f"}, {m.cursor != "", "\x1b[0 q"}, {m.keys != "", "\x1b[>4m"}, {m.used > 0, "\x1b[m"},
	} {
		if s.on {
			b.WriteString(s.text)
		}
	}
}
