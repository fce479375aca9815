package cli

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestSpan(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Hour:                 "Less than a second",
		0:                          "Less than a second",
		999 * time.Millisecond:     "Less than a second",
		time.Second:                "1 second",
		1999 * time.Millisecond:    "1 second",
		2 * time.Second:            "2 seconds",
		59 * time.Second:           "59 seconds",
		time.Minute:                "About a minute",
		119 * time.Second:          "About a minute",
		2 * time.Minute:            "2 minutes",
		time.Hour - 1:              "59 minutes",
		time.Hour:                  "About an hour",
		89 * time.Minute:           "About an hour",
		90 * time.Minute:           "2 hours",
		47*time.Hour + time.Minute: "47 hours",
		2 * day:                    "2 days",
		13 * day:                   "13 days",
		14 * day:                   "2 weeks",
		59 * day:                   "8 weeks",
		60 * day:                   "2 months",
		729 * day:                  "24 months",
		730 * day:                  "2 years",
		290 * 365 * day:            "290 years",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
	if got := ago(time.Time{}, time.Now()); got != "" {
		t.Errorf("never: got %q, want nothing", got)
	}
}

func TestAmount(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0B", 1023: "1023B", 1024: "1.00KiB", 10 << 10: "10.0KiB", 1023 << 10: "1.00MiB", 999 << 10: "999KiB", 1536 << 20: "1.50GiB", 1 << 40: "1.00TiB", 1<<64 - 1: "16.0EiB",
	} {
		if got := amount(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
	if got := clock(25*time.Hour + 61*time.Second + time.Millisecond); got != "25:01:01" {
		t.Errorf("clock: got %q", got)
	}
}

func TestWhen(t *testing.T) {
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	for v, want := range map[string]time.Time{
		"2024-01-02T03:04:05Z":           time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC),
		"2024-01-02T03:04:05.5+02:00":    time.Date(2024, 1, 2, 1, 4, 5, 5e8, time.UTC),
		"2024-01-02T03:04Z":              time.Date(2024, 1, 2, 3, 4, 0, 0, time.UTC),
		"2024-01-02T03:04:05":            time.Date(2024, 1, 2, 3, 4, 5, 0, time.Local),
		"2024-01-02 03:04":               time.Date(2024, 1, 2, 3, 4, 0, 0, time.Local),
		"2024-01-02":                     time.Date(2024, 1, 2, 0, 0, 0, 0, time.Local),
		"1136214245":                     time.Unix(1136214245, 0),
		"1136214245.000000001":           time.Unix(1136214245, 1),
		"1136214245.5":                   time.Unix(1136214245, 5e8),
		"0":                              time.Unix(0, 0),
		"10m":                            now.Add(-10 * time.Minute),
		"1h30m":                          now.Add(-90 * time.Minute),
		"-10m":                           now.Add(10 * time.Minute),
		"2024-01-02T03:04:05.123456789Z": time.Date(2024, 1, 2, 3, 4, 5, 123456789, time.UTC),
	} {
		if got, err := when(v, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: got %v, %v, want %v", v, got, err, want)
		}
	}
	for _, bad := range []string{"", "now", "10", "x10m", "2024-13-01", "1.", ".5", "1.0000000001", "-5", "1e9", "99999999999999999999"} {
		if got, err := when(bad, now); err == nil && bad != "10" {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"plain text":                "plain text",
		"\x1b]0;owned\a":            `\x1b]0;owned\a`,
		"a\nb\tc\rd":                `a\nb\tc\rd`,
		"\x7f\u009b31m":             `\x7f\u009b31m`,
		"a\u202eb\u200d\ufeff":      `a\u202eb\u200d\ufeff`,
		"\xff\xc3(":                 `\xff\xc3(`,
		"日本 ü \u0301 😀":             "日本 ü \u0301 😀",
		"\U000e0041 \U0010ffff end": `\U000e0041 \U0010ffff end`,
	} {
		if got := printable(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
	if got, want := escape("a\n\tb\x1b", "\n\t", textEscape), "a\n\tb\\x1b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestJSONText: the value is the same, and no byte of it commands a terminal.
func TestJSONText(t *testing.T) {
	want := map[string]string{"a\x1b\u009b\x7f": "\u202e\U000e0041<&\n\ufffd日本"}
	for _, indent := range []string{"", "  "} {
		text, err := jsonText(want, indent)
		if err != nil {
			t.Fatal(err)
		}
		if clean := escape(text, "\n", func(rune, byte) string { return "!" }); clean != text || !strings.Contains(text, "日本") {
			t.Errorf("got %q", text)
		}
		var got map[string]string
		if err := json.Unmarshal([]byte(text), &got); err != nil || len(got) != 1 || got["a\x1b\u009b\x7f"] != want["a\x1b\u009b\x7f"] {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestShorten(t *testing.T) {
	for _, tc := range []struct {
		text string
		most int
		want string
	}{
		{"short", 5, "short"},
		{"longer", 5, "long…"},
		{"日本語", 6, "日本語"},
		{"日本語", 5, "日本…"},
		{"日本語", 4, "日…"},
		{"ab\x1b[0m", 8, `ab\x1b[…`},
		{"ab\x1b[0m", 6, "ab…"}, // an escape is not cut
		{"ab\xff", 6, `ab\xff`},
		{"e\u0301e\u0301e\u0301", 2, "e\u0301…"},
		{"", 3, ""},
	} {
		if got := shorten(tc.text, tc.most); got != tc.want {
			t.Errorf("%q in %d: got %q, want %q", tc.text, tc.most, got, tc.want)
		}
	}
	if got := shorten(strings.Repeat("\u0301", 1<<20), 10); len(got) > 400 {
		t.Errorf("characters without a width: got %d bytes", len(got))
	}
	alphabet := []string{"a", "日", "\x1b", "\u0301", "\xff", "😀", "\u202e", " "}
	for range 2000 {
		s := ""
		for range rand.IntN(30) {
			s += alphabet[rand.IntN(len(alphabet))]
		}
		most := 1 + rand.IntN(20)
		got := shorten(s, most)
		if width(got) > most || !utf8.ValidString(got) || printable(got) != got {
			t.Fatalf("%q in %d: got %q of width %d", s, most, got, width(got))
		}
		if whole := printable(s); got != whole && !strings.HasPrefix(whole, strings.TrimSuffix(got, "…")) {
			t.Fatalf("%q: got %q, which is not how it begins", s, got)
		}
		if cut := clip(printable(s), most); width(cut) > most || !strings.HasPrefix(printable(s), cut) {
			t.Fatalf("%q in %d: clipped to %q", s, most, cut)
		}
	}
}

func TestTextTable(t *testing.T) {
	got := textTable([][]string{
		{"NAME", "COMMAND", "STATUS"},
		{"日本", "x", "Up"},
		{"e\u0301", "longer one", "Up"},
		{"broken", "a reason that is as long as it wants to be", ""},
		{"", "", "end"},
	})
	want := `
NAME     COMMAND      STATUS
日本     x            Up
e` + "\u0301" + `        longer one   Up
broken   a reason that is as long as it wants to be
                      end
`
	if got != want[1:] {
		t.Errorf("got:\n%s\nwant:%s", got, want)
	}
}

func TestLayout(t *testing.T) {
	type inner struct{ Deep []string }
	type Embedded struct{ Promoted int }
	type value struct {
		psRow
		*Embedded
		In     *inner
		Map    map[string]string
		Number int
		At     time.Time
	}
	v := value{
		psRow: psRow{Name: "web", labels: map[string]string{"team": "infra\x1b"}}, In: &inner{[]string{"a", "b"}},
		Map: map[string]string{"k": "v", "a.b": "c"}, Number: 7, At: time.Unix(0, 0).UTC(),
	}
	v.item = "the item"
	for text, want := range map[string]string{
		"plain {}":                               "plain {}",
		"{{.Name}}":                              "web",
		"a{{ .Name }}b{{.Number}}c":              "awebb7c",
		"{{json .In}}":                           `{"Deep":["a","b"]}`,
		"{{.In.Deep | json}}":                    `["a","b"]`,
		`{{json .}}`:                             `"the item"`,
		`{{.Map.k}}{{.Map.no}}`:                  "v",
		`{{index .Map "a.b"}}{{index .Map "x"}}`: "c",
		"{{index .In.Deep 1}}":                   "b",
		`{{join .In.Deep ", "}}`:                 "a, b",
		`{{.Name|upper|lower}}{{upper .Name}}`:   "webWEB",
		`{{.Label "team"}}{{.Label "no"}}`:       `infra\x1b`,
		"{{.At}}":                                "1970-01-01T00:00:00Z",
		"{{.Promoted}}":                          "", // what it is in is not there
		`{{"}}"}}{{"a\tb"}}`:                     "}}a\tb",
	} {
		l, err := parseLayout(text, v)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := l.fill(v); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"{{.Nmae}}":              `there is no ".Nmae"; the fields there are`,
		"{{.Map.k.x}}":           "has no fields",
		"{{.labels}}":            "there is no",
		"{{.item}}":              "there is no",
		"{{.Name":                "a {{ has no }}",
		"{{":                     "a {{ has no }}",
		"{{}}":                   "something is missing",
		"{{.Name|}}":             "something is missing",
		"{{|json}}":              "nothing stands before",
		"{{range .In.Deep}}":     `"range" is not understood`,
		"{{if .Name}}a{{end}}":   `"if" is not understood`,
		"{{- .Name -}}":          "not understood",
		"{{(.Name)}}":            "not understood",
		"{{$x}}":                 "not understood",
		"{{json}}":               "json takes 1 value",
		"{{json .Name .Name}}":   "json takes 1 value",
		"{{.Name .Name}}":        "is no function",
		"{{.Name | .Name}}":      "is no function",
		"{{.Name json}}":         "stands where a value should",
		`{{.Label}}`:             "takes a key",
		`{{"x" | .Label}}`:       "takes a key",
		`{{"abc`:                 "a string has no end",
		"{{..}}":                 "is no field",
		"{{.In.}}":               "is no field",
		"{{999999999999999999}}": "is more than",
	} {
		if _, err := parseLayout(text, v); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"{{index .In.Deep 2}}", `{{index .In.Deep "a"}}`, "{{index .Map .In}}", "{{join .Name .Name}}"} {
		l, err := parseLayout(text, v)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := l.fill(v); err == nil {
			t.Errorf("%s: got %q, want an error", text, got)
		}
	}
}

// FuzzLayout: whatever is typed, there is an answer.
func FuzzLayout(f *testing.F) {
	for _, s := range []string{"{{.Name}}", `{{.Labels|json}}`, `{{index .Labels "a"}}`, "{{", `{{.Label "x"}}`, "{{.Sandbox.Limits.Memory}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, v := range []any{inspection{}, psRow{}, statsRow{}} {
			if l, err := parseLayout(text, v); err == nil {
				_, _ = l.fill(v)
			}
		}
	})
}
