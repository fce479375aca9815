package cli

import "testing"

func TestCpPlaces(t *testing.T) {
	for arg, want := range map[string]cpPlace{
		"-":          {stream: true},
		"web:/a":     {box: "web", path: "/a"},
		"web:a:b":    {box: "web", path: "a:b"},
		"web:":       {box: "web"},
		"web:-":      {box: "web", path: "-"},
		"a":          {path: "a"},
		"./web:a":    {path: "./web:a"},
		".web:a":     {path: ".web:a"},
		"/web:a":     {path: "/web:a"},
		"dir/a:b":    {path: "dir/a:b"},
		":a":         {path: ":a"},
		"":           {},
		"--":         {path: "--"},
		"0123abc:.":  {box: "0123abc", path: "."},
		"web:../../": {box: "web", path: "../../"},
	} {
		if got := parsePlace(arg); got != want {
			t.Errorf("%q: got %+v, want %+v", arg, got, want)
		}
	}
}

func TestCpAmount(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536 << 10: "1.5 MiB", 3 << 40: "3.0 TiB", 5000 << 40: "5000.0 TiB"} {
		if got := cpAmount(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
