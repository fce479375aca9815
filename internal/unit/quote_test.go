package unit

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestQuote(t *testing.T) {
	for _, tc := range []struct{ word, want string }{
		{"run", "run"},
		{"--name=a_b-c", "--name=a_b-c"},
		{"/srv/x:/data:rw", "/srv/x:/data:rw"},
		{"", `""`},
		{"two words", `"two words"`},
		{";", `";"`},
		{`it's`, `"it's"`},
		{`say "x"`, `"say \"x\""`},
		{`back\slash\`, `"back\\slash\\"`},
		{"100%", `"100%%"`},
		{"%i%n", `"%%i%%n"`},
		{"$HOME", `"$$HOME"`},
		{"${HOME}$$", `"$${HOME}$$$$"`},
		{"a\nb\tc\rd\x1be\x7f", `"a\nb\tc\x0dd\x1be\x7f"`},
		{"é 日本", `"é 日本"`},
		{"#", `"#"`},
		{"*", `"*"`},
		{"a=b c", `"a=b c"`},
	} {
		if got, err := Quote(tc.word); err != nil || got != tc.want {
			t.Errorf("%q: got %s, %v, want %s", tc.word, got, err, tc.want)
		}
	}
	for _, word := range []string{"\x00", "a\x00", "\xff", "a\xc3"} {
		if got, err := Quote(word); err == nil {
			t.Errorf("%q: got %s, want an error", word, got)
		}
	}
	if got, err := quotePath("/a $x%"); err != nil || got != `"/a $x%%"` {
		t.Errorf("a path: got %s, %v", got, err)
	}
}

// split reads a command line as the manual says that systemd does: words and
// escapes, then specifiers, then variables, of which there are none left. ok is
// false for anything else than words.
func split(line string) (words []string, ok bool) {
	for line = strings.TrimLeft(line, " \t"); line != ""; line = strings.TrimLeft(line, " \t") {
		var word strings.Builder
		quoted := line[0] == '"'
		if quoted {
			line = line[1:]
		} else if line[0] == '\'' || line == ";" || strings.HasPrefix(line, "; ") {
			return nil, false
		}
		for ; line != "" && (quoted && line[0] != '"' || !quoted && line[0] != ' '); line = line[1:] {
			switch c := line[0]; {
			case c < ' ' || c == 0x7f:
				return nil, false
			case c == '\\':
				r, _, rest, err := strconv.UnquoteChar(line, '"')
				if err != nil {
					return nil, false
				}
				word.WriteRune(r)
				line = "-" + rest
			default:
				word.WriteByte(c)
			}
		}
		if quoted {
			if line == "" || len(line) > 1 && line[1] != ' ' {
				return nil, false
			}
			line = line[1:]
		}
		w, good := single(word.String(), '%')
		w, good2 := single(w, '$')
		if !good || !good2 {
			return nil, false
		}
		words = append(words, w)
	}
	return words, true
}

// single halves a doubled character; alone, it would begin something.
func single(s string, c byte) (string, bool) {
	double := string([]byte{c, c})
	if strings.IndexByte(strings.ReplaceAll(s, double, ""), c) >= 0 {
		return "", false
	}
	return strings.ReplaceAll(s, double, string(c)), true
}

func FuzzQuote(f *testing.F) {
	f.Add("a b", "$HOME", `\"%`)
	f.Add("", ";", "'\n\x7f")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		line, err := commandLine("/bin/nucleus", []string{a, b, c})
		if all := a + b + c; err != nil {
			if !strings.Contains(all, "\x00") && utf8.ValidString(a) && utf8.ValidString(b) && utf8.ValidString(c) && len(all) < maxLine/4 {
				t.Fatalf("%q %q %q: %v", a, b, c, err)
			}
			return
		}
		words, ok := split(line)
		if !ok || len(words) != 4 || words[1] != a || words[2] != b || words[3] != c {
			t.Fatalf("%s is read as %q, want %q %q %q", line, words, a, b, c)
		}
	})
}
