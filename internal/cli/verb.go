package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// runCompanion becomes nucleus-VERB, the program for a verb that this one does
// not have. It is looked for beside this program only: a PATH that somebody else
// set must not choose what runs as nucleus.
func runCompanion(commands []*command, verb string, args []string) int {
	if strings.HasPrefix(verb, "-") {
		say("nucleus: there is no flag %s before the command; see nucleus --help\n", quote(verb))
		return exitUsage
	}
	if plainVerb(verb) {
		if self, err := os.Executable(); err == nil {
			path := filepath.Join(filepath.Dir(self), "nucleus-"+verb)
			err := syscall.Exec(path, append([]string{path}, args[2:]...), os.Environ())
			if !os.IsNotExist(err) {
				say("nucleus: run %s: %v\n", path, err)
				return exitFailed
			}
		}
	}
	say("nucleus: there is no command %s%s\n", quote(verb), suggestion(verb, commands))
	return exitUsage
}

func suggestion(verb string, commands []*command) string {
	var names []string
	for _, c := range visible(commands) {
		names = append(names, c.name)
	}
	if near := nearest(verb, names); near != "" {
		return fmt.Sprintf("; did you mean nucleus %s?", near)
	}
	return "; see nucleus --help"
}

// plainVerb reports whether a verb can be part of a file name and nothing more.
func plainVerb(v string) bool {
	return v != "" && strings.Trim(v, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// nearest is the name that takes the fewest edits, if they are few enough to be
// slips of the finger.
func nearest(word string, names []string) string {
	best, at := "", 1+len(strings.TrimLeft(word, "-"))/3
	for _, name := range names {
		if d := distance(word, name); d <= at && (best == "" || d < at) {
			best, at = name, d
		}
	}
	return best
}

// distance is how many letters must be put in, taken out or changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
