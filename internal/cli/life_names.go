package cli

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/internal/record"
)

// sandboxWords, as the words of a command, are the names of the sandboxes that
// there are when a shell asks.
const sandboxWords = "<sandbox>"

var namesCommand = command{
	name: "names", args: "[PREFIX]", hidden: true,
	short: "Print what sandboxes are called",
	long: `Prints the names of all sandboxes, and the ids of those without a name; with the
beginning of one, only what begins so; from two digits on, every id that does. It is for shells that
complete a word: it looks at names only, and neither waits nor changes anything.`,
	flags: [][]flag{helpFlags},
	run:   runNames,
}

// runNames is `nucleus names`.
func runNames(c *call) int {
	if len(c.args) > 1 {
		return fail(c.cmd, usageError("names: give one beginning at most"))
	}
	dir, err := record.Default()
	if err != nil {
		return failVerb(c.cmd, err)
	}
	all, err := sandboxNames(dir, strings.Join(c.args, ""))
	if err != nil {
		return failVerb(c.cmd, err)
	}
	if len(all) == 0 {
		return exitOK
	}
	return output(strings.Join(all, "\n") + "\n")
}

// sandboxNames lists what sandboxes are called that begins with prefix, from the
// names of files alone. Ids of those with a name are only of interest to who has
// begun to type one: as much of it as finds a sandbox.
func sandboxNames(dir, prefix string) ([]string, error) {
	names, err := os.ReadDir(filepath.Join(dir, "names"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ids, err := os.ReadDir(filepath.Join(dir, "sandboxes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all, named := []string{}, map[string]bool{}
	for _, e := range names {
		id, err := os.Readlink(filepath.Join(dir, "names", e.Name()))
		if err != nil || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		named[filepath.Base(id)] = true
		all = append(all, e.Name())
	}
	slices.SortFunc(all, cmp.Compare[string])
	for _, e := range ids {
		if !strings.HasPrefix(e.Name(), ".") && (len(prefix) >= 2 || !named[e.Name()]) {
			all = append(all, e.Name())
		}
	}
	return slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, prefix) }), nil
}
