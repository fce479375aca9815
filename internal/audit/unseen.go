package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/spec"
)

// Unseen is an error if a sandbox sees the directory that a log is in: a program
// could change the log, or keep everybody from writing by holding its lock.
func Unseen(box *spec.Sandbox, path string) error {
	shown := writable(box)
	if box.Context != nil {
		shown = append(shown, box.Context.Source)
	}
	if box.Rootfs != nil {
		shown = append(shown, box.Rootfs.Source)
	}
	for _, v := range box.Volumes {
		shown = append(shown, v.Source)
	}
	return errors.Join(outside(path, shown, "sees"), Straight(box, path))
}

// Unwritable is an error if a sandbox can write where a file is: a program could
// put a link in the place of its directory, and so choose the file.
func Unwritable(box *spec.Sandbox, path string) error {
	return errors.Join(outside(path, writable(box), "can write to"), Straight(box, path))
}

// Straight is an error if a sandbox can choose where the way to a file leads: if it
// goes through a link that is where the sandbox can write. That is enough for who
// holds the file's directory from before the start.
func Straight(box *spec.Sandbox, path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if _, err := filepath.EvalSymlinks(filepath.Dir(abs)); err != nil { // a loop, too
		return err
	}
	for dir := filepath.Dir(abs); dir != "/"; dir = filepath.Dir(dir) {
		to, err := os.Readlink(dir)
		if errors.Is(err, syscall.EINVAL) {
			continue // no link
		}
		if err != nil {
			return err
		}
		if outside(dir, writable(box), "") != nil {
			return fmt.Errorf("the way to %s is a link, %s, that the sandbox can change: name the directory that it leads to", path, dir)
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(dir), to)
		}
		if err := Straight(box, filepath.Join(to, "x")); err != nil {
			return err
		}
	}
	return nil
}

// writable are the places of the host that a sandbox can write to.
func writable(box *spec.Sandbox) (sources []string) {
	if box.Workspace != nil {
		sources = append(sources, box.Workspace.Source)
	}
	for _, v := range box.Volumes {
		if v.Writable {
			sources = append(sources, v.Source)
		}
	}
	return sources
}

// outside is an error if a file is in one of the places, or is one, or if the way
// there leads through one: an earlier program may have left a link in it.
func outside(path string, places []string, how string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	var on []string // the directories in which the path's names are looked up
	for i := range abs {
		if abs[i] != filepath.Separator {
			continue
		}
		dir, err := filepath.EvalSymlinks(abs[:i+1])
		if err != nil {
			return err
		}
		on = append(on, dir)
	}
	where := filepath.Join(on[len(on)-1], filepath.Base(abs))
	for _, s := range places {
		source, err := real(s)
		if err != nil {
			continue // the plan says so
		}
		if source == where {
			return fmt.Errorf("%s is %s, which the sandbox %s: choose a place outside", path, s, how)
		}
		for _, dir := range on {
			if source == "/" || strings.HasPrefix(dir+"/", source+"/") {
				return fmt.Errorf("%s is in %s, which the sandbox %s: choose a place outside%s", path, s, how, beside(s, path))
			}
		}
	}
	return nil
}

// beside names a place for a file beside a directory.
func beside(dir, path string) string {
	if filepath.Clean(dir) == "/" {
		return ""
	}
	return ", such as " + filepath.Join(dir, "..", filepath.Base(path))
}

func real(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}
