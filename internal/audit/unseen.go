package audit

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/nucleus-container/nucleus/spec"
)

// Unseen is an error if a sandbox sees the directory that a log is in: a program
// could change the log, or keep everybody from writing by holding its lock.
func Unseen(box *spec.Sandbox, path string) error {
	dir, err := real(filepath.Dir(path))
	if err != nil {
		return err
	}
	where := filepath.Join(dir, filepath.Base(path))
	var shown []string
	for _, b := range []*spec.Bind{box.Context, box.Workspace} {
		if b != nil {
			shown = append(shown, b.Source)
		}
	}
	if box.Rootfs != nil {
		shown = append(shown, box.Rootfs.Source)
	}
	for _, v := range box.Volumes {
		shown = append(shown, v.Source)
	}
	for _, s := range shown {
		source, err := real(s)
		if err != nil {
			continue // the plan says so
		}
		if source == where || source == "/" || strings.HasPrefix(where, source+"/") {
			return fmt.Errorf("%s is in %s, which the sandbox sees: choose a place outside", path, s)
		}
	}
	return nil
}

func real(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}
