package main

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// snapshot is what there is: all processes of the namespace but our own and
// their namespaces, our control groups, mounts, and files.
func (s *soak) snapshot() (map[string]bool, error) {
	all := map[string]bool{}
	addProcesses(all)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 {
			all["mount "+f[0]+" on "+f[4]] = true
		}
	}
	if err := add(all, "control group ", "/sys/fs/cgroup", func(path string, d fs.DirEntry) bool {
		return d.IsDir() && strings.HasPrefix(d.Name(), "nucleus-"+s.prefix)
	}); err != nil {
		return nil, err
	}
	for _, dir := range []string{s.dir, "/run/nucleus/ids.d"} {
		if err := add(all, "file ", dir, func(path string, _ fs.DirEntry) bool { return !s.stays(path) }); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// stays reports whether a file is there although nothing is left.
func (s *soak) stays(path string) bool {
	rel, err := filepath.Rel(s.dir, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return path == "/run/nucleus/ids.d"
	}
	switch rel {
	case ".", "state", "log", "tmp", "xdg", "home", "state/sandboxes", "state/names", "state/events.jsonl", "state/events.1.jsonl":
		return true
	}
	return false
}

// add adds what fits below a directory. What disappears meanwhile, and what is not
// ours to read, is left out.
func add(all map[string]bool, what, top string, fits func(string, fs.DirEntry) bool) error {
	return filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && fits(path, d) {
			all[what+path] = true
		}
		return nil
	})
}

// addProcesses adds every process but the first and this one: there is nobody
// else in this process namespace that would not be nucleus's doing.
func addProcesses(all map[string]bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		start, err := kernel.StartTime(pid)
		if err != nil {
			continue
		}
		name, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline") // what cannot be read is told without
		exe, _ := os.Readlink("/proc/" + e.Name() + "/exe")
		all[fmt.Sprintf("process %d, started %d: %q (%s)", pid, start, name, exe)] = true
		for _, kind := range []string{"pid", "net", "user", "mnt"} {
			ns, err := os.Readlink("/proc/" + e.Name() + "/ns/" + kind)
			own, _ := os.Readlink("/proc/self/ns/" + kind)
			if err == nil && ns != own {
				all["namespace "+ns] = true
			}
		}
	}
}

// leaks says what is left when nothing should be. What the program cannot know
// to be left behind until it is a minute old, has that minute, unless in a hurry.
func (s *soak) leaks(before map[string]bool) {
	if all, ok := s.list(s.run); ok && len(all) > 0 {
		for _, l := range all {
			s.fail("%s %s is still there: %s", l.ID, l.Name, l.State)
		}
	}
	if left := s.since(before); len(left) > 0 {
		s.say("before nucleus gc there are %d things too many, such as %s", len(left), left[0])
		if s.hurry {
			s.age()
		} else {
			time.Sleep(61 * time.Second)
		}
	}
	began := time.Now()
	r := s.run("gc")
	s.must(0, r)
	first, _, _ := strings.Cut(r.out, "\n")
	s.say("nucleus gc removed %d things in %v; the first: %s", strings.Count(r.out, "\n"), time.Since(began).Round(time.Millisecond), first)
	const settle = 3 * time.Second
	left := s.since(before)
	for deadline := time.Now().Add(settle); len(left) > 0 && time.Now().Before(deadline); left = s.since(before) {
		time.Sleep(50 * time.Millisecond)
	}
	for _, l := range left {
		s.fail("left behind: %s", l)
	}
}

func (s *soak) since(before map[string]bool) []string {
	now, err := s.snapshot()
	if err != nil {
		s.fail("%v", err)
	}
	maps.DeleteFunc(now, func(k string, _ bool) bool { return before[k] })
	return slices.Sorted(maps.Keys(now))
}

// age makes files and control groups look as if they were made long ago.
// Precondition: nothing of nucleus runs any more.
func (s *soak) age() {
	find := []string{s.dir + "/state/sandboxes", s.dir + "/state/names", s.logs}
	groups := map[string]bool{}
	_ = add(groups, "", "/sys/fs/cgroup", func(_ string, d fs.DirEntry) bool { // it has no error of its own
		return d.IsDir() && strings.HasPrefix(d.Name(), "nucleus-"+s.prefix)
	})
	for path := range groups {
		find = append(find, path)
	}
	find = append(find, "(", "-type", "d", "-o", "-not", "-path", "/sys/*", ")", "-exec", "touch", "-h", "-d", "2 minutes ago", "{}", "+")
	if out, err := exec.Command("find", find...).CombinedOutput(); err != nil {
		s.say("make leftovers look old: %v: %s", err, out)
	}
}
