package sandboxtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// hierarchy is one mounted cgroup hierarchy, seen from this process.
type hierarchy struct {
	v2          bool
	controllers []string // v1: as in /proc/self/cgroup; v2: none
	mount       string   // where it is mounted
	dir         string   // our group in it, at or below mount
}

// hierarchies joins what is mounted with where we are.
func hierarchies() ([]hierarchy, error) {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseHierarchies(string(groups), string(mounts)), nil
}

func parseHierarchies(groups, mountinfo string) []hierarchy {
	var all []hierarchy
	for line := range strings.Lines(groups) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		h := hierarchy{v2: part[1] == "", controllers: strings.Split(part[1], ",")}
		if h.v2 {
			h.controllers = nil
		}
		root, mount, ok := findCgroupMount(mountinfo, h)
		if !ok {
			continue
		}
		h.mount, h.dir = mount, mount
		// A group above the mount's root cannot be named through this mount.
		below, err := filepath.Rel(root, part[2])
		if err == nil && filepath.IsLocal(below) && !strings.HasPrefix(part[2], "/..") {
			h.dir = filepath.Join(mount, below)
		}
		all = append(all, h)
	}
	return all
}

// findCgroupMount returns the root and the place of the first mount of h.
func findCgroupMount(mountinfo string, h hierarchy) (root, mount string, ok bool) {
	for line := range strings.Lines(mountinfo) {
		before, after, found := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !found || len(left) < 6 || len(right) < 3 {
			continue
		}
		switch {
		case h.v2 && right[0] == "cgroup2":
			return left[3], left[4], true
		case !h.v2 && right[0] == "cgroup" && containsAll(strings.Split(right[2], ","), h.controllers):
			return left[3], left[4], true
		}
	}
	return "", "", false
}

func containsAll(have, want []string) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}

func probeName() string { return fmt.Sprintf("nucleus-probe-%d", os.Getpid()) }

// makeGroup leaves the probe's own name out of the reason, which would make
// each run's skips look different.
func makeGroup(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("mkdir in %s: %w", filepath.Dir(dir), errors.Unwrap(err))
	}
	return nil
}

func probeCgroupV1() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if h.v2 || !slices.Contains(h.controllers, "pids") {
			continue
		}
		dir := filepath.Join(h.dir, probeName())
		if err := makeGroup(dir); err != nil {
			return err
		}
		_, err := os.Stat(filepath.Join(dir, "pids.max"))
		return errors.Join(err, syscall.Rmdir(dir))
	}
	return errors.New("no v1 hierarchy with the pids controller is mounted")
}

// probeCgroupV2 goes up from our group, because a group that holds processes
// cannot hand controllers to groups below it.
func probeCgroupV2() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if !h.v2 {
			continue
		}
		var tried []error
		for dir := h.dir; ; dir = filepath.Dir(dir) {
			err := tryCgroupV2(dir)
			if err == nil {
				return nil
			}
			tried = append(tried, err)
			if dir == h.mount || dir == "/" {
				break
			}
		}
		scope := tryScope(h.mount)
		if scope == nil {
			return nil
		}
		// The last place is the most telling: the root of what we can see.
		return fmt.Errorf("%w; from the service manager: %w", tried[len(tried)-1], scope)
	}
	return errors.New("no v2 hierarchy is mounted")
}

// tryScope asks the service manager for a group of our own: after a login, the
// groups above belong to root, and this is the way for others.
func tryScope(mount string) error {
	if err := haveSystemd(); err != nil {
		return err
	}
	const script = `grep -qw memory "$0$(cut -d: -f3- /proc/self/cgroup)/cgroup.controllers" && mkdir "$0$(cut -d: -f3- /proc/self/cgroup)/probe"`
	arg := []string{"--scope", "--quiet", "--collect", "--property=Delegate=yes", "sh", "-ec", script, mount}
	if os.Geteuid() != 0 {
		arg = append([]string{"--user"}, arg...)
	}
	out, err := exec.Command("systemd-run", arg...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemd-run: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// tryCgroupV2 makes and removes a group below dir. It switches controllers on
// for the attempt if they are off, and off again after it.
func tryCgroupV2(dir string) error {
	control := filepath.Join(dir, "cgroup.subtree_control")
	on, err := os.ReadFile(control)
	if err != nil {
		return err
	}
	for _, c := range []string{"pids", "memory"} {
		if slices.Contains(strings.Fields(string(on)), c) {
			continue
		}
		if err := os.WriteFile(control, []byte("+"+c), 0); err != nil {
			return fmt.Errorf("controller %s: %w", c, err)
		}
		defer os.WriteFile(control, []byte("-"+c), 0)
	}
	group := filepath.Join(dir, probeName())
	if err := makeGroup(group); err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join(group, "memory.max"))
	return errors.Join(err, syscall.Rmdir(group))
}
