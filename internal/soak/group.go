package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// On version 1, a group does not show the processes of other process namespaces
// in it, so that the groups of others look empty to us. There we show ourselves
// nothing but a group of our own in each hierarchy.

// firstGroups are the directories in which this process is on version 1.
func firstGroups() (mounts, dirs []string, err error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, nil, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[1] == "" || f[1] == "cpuset" || strings.Contains(f[1], "=") { // whose groups need more than to be made
			continue
		}
		mount := "/sys/fs/cgroup/" + f[1]
		if _, err := os.Stat(filepath.Join(mount, f[2], "cgroup.procs")); err == nil {
			mounts, dirs = append(mounts, mount), append(dirs, filepath.Join(mount, f[2]))
		}
	}
	return mounts, dirs, nil
}

// ownGroups enters groups of our own and puts them in the place of the hierarchies.
func ownGroups(name string) error {
	mounts, dirs, err := firstGroups()
	if err != nil {
		return err
	}
	for i, dir := range dirs {
		own := filepath.Join(dir, name)
		if err := os.Mkdir(own, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(own+"/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return err
		}
		if err := replaceMount(own, mounts[i]); err != nil {
			return fmt.Errorf("put %s in the place of %s: %w", own, mounts[i], err)
		}
	}
	return nil
}

// replaceMount puts dir in the place of the mount at, of which it is a part.
func replaceMount(dir, at string) error {
	temp, err := os.MkdirTemp("", "soak-mount-")
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return syscall.Mount(dir, temp, "", syscall.MS_BIND, "") },
		func() error { return syscall.Unmount(at, syscall.MNT_DETACH) },
		func() error { return syscall.Mount(temp, at, "", syscall.MS_MOVE, "") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return os.Remove(temp)
}

// removeGroups removes the groups of a run when all of its processes are gone.
// What is left in them was told before.
func removeGroups(name string) error {
	_, dirs, err := firstGroups()
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	for _, dir := range dirs {
		all := map[string]bool{}
		_ = add(all, "", filepath.Join(dir, name), func(_ string, d fs.DirEntry) bool { return d.IsDir() }) // it has no error of its own
		var paths []string
		for path := range all {
			paths = append(paths, path)
		}
		slices.Sort(paths)
		for _, path := range slices.Backward(paths) { // the innermost first
			if e := os.Remove(path); !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
	}
	return err
}
