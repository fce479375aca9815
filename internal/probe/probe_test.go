package probe

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestMain is also a program that answers questions.
func TestMain(m *testing.M) {
	if os.Args[0] == "nucleus" {
		os.Exit(Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// ask puts questions to a process of its own.
func ask(t *testing.T, questions ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", questions...)
	cmd.Args[0] = "nucleus"
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func TestAnswers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a file"), []byte("text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := strings.ReplaceAll(filepath.Join(dir, "a file"), " ", `\040`)
	for question, want := range map[string]string{
		"exists /":                           "ok",
		"exists /nucleus-none":               "ENOENT",
		"read " + file:                       "ok:text",
		"ls /nucleus-none":                   "ENOENT",
		"open new " + file:                   "EEXIST",
		"open w " + dir:                      "EISDIR",
		"open new " + dir + "/new":           "ok",
		"elf " + dir + "/program exit7":      "exit 7",
		"memory exit7":                       "exit 7",
		"memory nothing":                     "no such program here",
		"call close -1":                      "EBADF",
		"call read -1 z:8 8":                 "EBADF",
		"call openat -100 s:/nucleus-none 0": "ENOENT",
		"call clone 17":                      "ok",
		"connect " + dir + "/none":           "ENOENT",
		"connect @nucleus-test-none":         "ECONNREFUSED",
		"route nowhere":                      "error: not an ip:port",
		"status Nothing":                     "no such field",
		"fork 3":                             "ok after 3",
		"fill " + dir + "/x 1":               "ok",
		"kill " + strconv.Itoa(1<<30) + " 0": "ESRCH",
		"readat 99 x":                        "EBADF",
		"setuid /nucleus-none":               "ENOENT",
		"limit 4":                            "ok:*",
		"layers":                             "ok:*|ENOSYS|EOPNOTSUPP",
		"mounts all":                         "ok:*",
		"processes":                          "ok:*",
		"devices":                            "ok:*",
		"env":                                "ok:*",
		"cwd":                                "ok:/*",
		"prctl 39":                           "ok:*",
	} {
		got, err := ask(t, question)
		got = strings.TrimSuffix(strings.TrimPrefix(got, `["`), `"]`)
		ok := false
		for w := range strings.SplitSeq(want, "|") {
			start, any := strings.CutSuffix(w, "*")
			ok = ok || got == w || any && strings.HasPrefix(got, start)
		}
		if err != nil || !ok && !(strings.HasPrefix(want, "error: ") && strings.HasPrefix(got, "error: ")) {
			t.Errorf("%s: got %s, %v, want %s", question, got, err, want)
		}
	}
}

// TestDescriptorsFirst: what a question opens is not an answer to the next.
func TestDescriptorsFirst(t *testing.T) {
	alone, err := ask(t, "fds")
	if err != nil || !strings.HasPrefix(alone, `["ok:0 1 2`) {
		t.Fatalf("got %s, %v, want the standard streams at least", alone, err)
	}
	got, err := ask(t, "call openat -100 s:/ 0", "fds", "exists /")
	if want := `["ok",` + strings.Trim(alone, "[]") + `,"ok"]`; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestNoQuestion(t *testing.T) {
	for _, q := range []string{"", "peace", "opens r /"} {
		if got, err := ask(t, q); err == nil || got != "" {
			t.Errorf("%q: got %q, %v, want an error", q, got, err)
		}
	}
	if got, err := ask(t); err != nil || got != "[]" {
		t.Errorf("nothing: got %q, %v", got, err)
	}
}

func TestImages(t *testing.T) {
	for _, name := range []string{"exit7", "pause"} {
		f, err := elf.NewFile(bytes.NewReader(program(name)))
		if err != nil || len(f.Progs) != 1 || f.Type != elf.ET_EXEC {
			t.Errorf("%s: got %+v, %v", name, f, err)
		}
	}
}
