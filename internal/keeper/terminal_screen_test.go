package keeper

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// replayed is what a terminal is told after a program has written so.
func replayed(t *testing.T, parts ...string) string {
	t.Helper()
	s := newScreen()
	for _, p := range parts {
		s.write([]byte(p))
	}
	got, ok := strings.CutPrefix(string(s.replay()), "\x1b[H\x1b[2J")
	if !ok {
		t.Fatalf("a replay begins with %q", got[:min(len(got), 20)])
	}
	return got
}

func TestReplay(t *testing.T) {
	for _, tc := range []struct{ name, wrote, want string }{
		{"lines", "one\r\ntwo\r\n$ ", "one\r\ntwo\r\n$ "},
		{"cleared, home first", "old\r\n\x1b[H\x1b[2Jnew", "new"},
		{"cleared, home last", "old\x1b[2J\x1b[1;1Hnew", "new"},
		{"cleared to the end", "old\x1b[H\x1b[Jnew", "new"},
		{"cleared in colour", "\x1b[31mold\x1b[H\x1b[2Jnew", "\x1b[31mnew"},
		{"not home", "\x1b[5;5H\x1b[2Jnew", "\x1b[5;5H\x1b[2Jnew"},
		{"cleared, then not home", "a\x1b[2Jb\x1b[Hc", "a\x1b[2Jb\x1b[Hc"},
		{"reset", "old\x1b[31m\x1b[?1049h\x1bcnew", "new"},
		{"modes before a clear", "\x1b[?1h\x1b=\x1b[?25l\x1b[?2004h\x1b[?1006h\x1b[?7l\x1b(0\x1b[2;9rx\x1b[r\x1b[H\x1b[2Jnew",
			"\x1b[?1h\x1b[?7l\x1b[?25l\x1b[?1006h\x1b[?2004h\x1b(0\x1b=new"},
		{"a region before a clear", "\x1b[2;9r\x1b[H\x1b[2Jnew", "\x1b[2;9r\x1b[H\x1b[2Jnew"},
		{"the other screen", "shell$ vi\r\n\x1b[?1049h\x1b[H\x1b[2Jtext", "shell$ vi\r\n\x1b[?1049h\x1b[H\x1b[2Jtext"},
		{"back from it", "shell$ vi\r\n\x1b[?1049h\x1b[H\x1b[2Jtext\x1b[?1049lshell$ ", "shell$ vi\r\nshell$ "},
		{"back from it in other modes", "$ \x1b[?25l\x1b[?1049htext\x1b[?25h\x1b[?1h\x1b[?1049lx", "$ \x1b[?25l\x1b[?25h\x1b[?1hx"},
		{"several modes at once", "$ \x1b[?1h\x1b[?1049;1hx", "$ \x1b[?1h\x1b[?1l\x1b[?1049h\x1b[H\x1b[2J\x1b[?1hx"},
		{"questions", "a\x1b[6nb\x1b[cc\x1b[>cd\x1b]11;?\x07e\x1b[?25$pf\x1bPq$q\x1b\\g\x05h\x1b[>qi\x1b[18tj\x1bZk\x1b[?uL\x1b]10;?\x1b\\m", "abcdefghijkLm"},
		{"what happens once", "a\x07b\x1b]52;c;aGk=\x07c\x1b]9;hello\x1b\\d\x1b[5ie\x1b[3Jf", "abcdef"},
		{"what lasts", "\x1b]0;title\x07\x1b]8;;http://x/?q\x1b\\link\x1b]11;#000000\x07", "\x1b]0;title\x07\x1b]8;;http://x/?q\x1b\\link\x1b]11;#000000\x07"},
		{"in the middle of a sequence", "a\x1b[3", "a\x1b[3"},
		{"in the middle of a string", "a\x1b]0;ti\x1b", "a\x1b]0;ti\x1b"},
		{"cancelled", "a\x1b[3\x18b", "ab"},
		{"sequence in a sequence", "a\x1b[3\x1b[31mb", "a\x1b[31mb"},
		{"not UTF-8", "\xff\x9b6n\x80\xc3(\r\n", "\xff\x9b6n\x80\xc3(\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := replayed(t, tc.wrote); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			// However it comes in.
			if got := replayed(t, strings.Split(tc.wrote, "")...); got != tc.want {
				t.Errorf("byte by byte: got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestReplayIsBounded: what is forgotten is the oldest, whole lines of it, and
// what it did to the modes is not.
func TestReplayIsBounded(t *testing.T) {
	s := newScreen()
	s.write([]byte("\x1b[?2004h\x1b[1m"))
	for i := range 100000 {
		s.write(fmt.Appendf(nil, "\x1b[3%dmline %d ü\r\n", i%8, i))
	}
	got := string(s.replay())
	if len(got) > historyMost+1000 || len(got) < historyMost/2 {
		t.Errorf("got %d bytes", len(got))
	}
	head, _, _ := strings.Cut(got, "\r\n")
	if !strings.HasPrefix(head, "\x1b[H\x1b[2J\x1b[?2004h") || !strings.Contains(head, "mline ") || !strings.HasSuffix(head, "ü") {
		t.Errorf("it begins with %q", head)
	}
	if !strings.HasSuffix(got, "line 99999 ü\r\n") {
		t.Errorf("it ends with %q", got[len(got)-30:])
	}
}

// TestReplayOfHostileOutput: without a line, without an end, and at random.
func TestReplayOfHostileOutput(t *testing.T) {
	pieces := []string{"\x1b", "[", "]", "P", "?", "1049", "47", "h", "l", ";", "0", "99999999999999999999", "m", "H", "2J", "\x1b[?1049h", "\x1b[?1049l", "\x1bc",
		"\x07", "\x18", "\xff", "ä", "\r\n", "x", "\x1b\\", "r", "\x1b]0;", "\x1b[>1u", "\x1b[<9999999999u", "$p", "\x1b(", "\x0e"}
	for seed := range uint64(9) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newScreen()
		begin := pieces[r.IntN(len(pieces))]
		for range 40 {
			var b bytes.Buffer
			b.WriteString(begin)
			for b.Len() < 32<<10 {
				n := r.IntN(len(pieces))
				b.WriteString(pieces[n])
				if seed%3 == 0 { // the same for long
					b.WriteString(strings.Repeat(pieces[n], r.IntN(40000)))
				}
			}
			s.write(b.Bytes())
			if n := len(s.main.data) + len(s.alt.data); n > 2*historyMost {
				t.Fatalf("seed %d: %d bytes are kept", seed, n)
			}
		}
		// Whoever has seen the replay is where the terminal is.
		f := NewFollower()
		f.Write(s.replay())
		want := s.now.modes
		want.pushed, f.v.modes.pushed = 0, 0 // not followed that far
		if f.v.modes != want {
			t.Errorf("seed %d: the replay leaves %+v, want %+v", seed, f.v.modes, want)
		}
	}
}

// TestFollowerLeavesNormal: after what it says, a terminal is as it was.
func TestFollowerLeavesNormal(t *testing.T) {
	const modes = "\x1b[?1049h\x1b[?1h\x1b=\x1b[?25l\x1b[?1000;1006h\x1b[?2004h\x1b[5;9r\x1b[31;1m\x1b(0\x1b[4h\x0e\x1b[5 q\x1b[>4;2m\x1b[>1u\x1b]0;ti"
	f := NewFollower()
	f.Write([]byte(modes))
	normal := f.Normal()
	for _, want := range []string{"\x18", "\x1b[<u", "\x1b[?1049l", "\x1b[?25h", "\x1b[?1000l", "\x1b[?1006l", "\x1b[?2004l", "\x1b[m", "\x1b[r"} {
		if !bytes.Contains(normal, []byte(want)) {
			t.Errorf("%q is not in %q", want, normal)
		}
	}
	f.Write(normal)
	if f.v.modes != normalModes() {
		t.Errorf("it leaves %+v", f.v.modes)
	}
	if again := NewFollower().Normal(); len(again) > 0 {
		t.Errorf("a terminal that was left alone is told %q", again)
	}
}

func FuzzScreen(f *testing.F) {
	f.Add([]byte("a\x1b[?1049hb\x1b[?1049lc\x1bcd"), 3)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		s, whole := newScreen(), newScreen()
		at = min(max(at, 0), len(b))
		s.write(b[:at])
		s.write(b[at:])
		whole.write(b)
		if got, want := s.replay(), whole.replay(); !bytes.Equal(got, want) {
			t.Errorf("in two parts %q, in one %q", got, want)
		}
	})
}

func BenchmarkScreen(b *testing.B) {
	s := newScreen()
	line := []byte(strings.Repeat("\x1b[32msome text that a program writes\x1b[0m, and more of it\r\n", 500))
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		s.write(line)
	}
}
