package sandboxtest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// allowedState is what nucleus leaves on purpose: the lock that hands out ranges
// of ids (removing it would let two sandboxes hold different locks of the same
// name) and, with ".d", the directory of those that last.
const allowedState = "/run/nucleus/ids"

// runEnv marks the processes that come from this run. A program started without
// an environment does not carry it; what such a program sits in, its parent, its
// cgroup or its state file, gives it away instead.
const runEnv = "NUCLEUS_TEST_RUN"

// settleTime is how long something may take to disappear after the tests. A slow
// machine gets a little more, not its full share: it is mostly waiting.
const settleTime = 2 * time.Second

// Main runs the tests and exits. It fails a run that leaves anything behind:
// descriptors, processes, mounts, cgroups, network namespaces, state files or
// temporary directories.
//
//	func TestMain(m *testing.M) { sandboxtest.Main(m) }
func Main(m *testing.M) {
	os.Exit(mainCode(m))
}

// LeftBehind begins a line of what a test binary's Main says has been left behind.
const LeftBehind = "sandboxtest: left behind:"

func mainCode(m *testing.M) int {
	if err := startRuntime(); err != nil {
		fmt.Fprintln(os.Stderr, "sandboxtest:", err)
		return 1
	}
	before, err := TakeSnapshot()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandboxtest:", err)
		return 1
	}
	code := m.Run()
	leaks := before.Leaks()
	for _, leak := range leaks {
		fmt.Fprintln(os.Stderr, LeftBehind, leak)
	}
	if code == 0 && len(leaks) > 0 {
		code = 1
	}
	return code
}

// startRuntime marks this run for its children, and makes the Go runtime open
// now the descriptors that it opens at the first use of a pipe and then keeps.
func startRuntime() error {
	if err := os.Setenv(runEnv, strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	return errors.Join(r.Close(), w.Close())
}

// Snapshot is what exists at one moment: a key that identifies each thing, with
// the words for it.
type Snapshot map[string]string

// Leaks returns, in words and in order, what exists now and did not in s. What
// goes away within two seconds is not a leak: a process that has been killed
// takes a moment to go, and other programs come and go on the same machine.
func (s Snapshot) Leaks() []string { return s.leaksAfter(settleTime * min(Slow(), 4)) }

func (s Snapshot) leaksAfter(settle time.Duration) []string {
	var left Snapshot
	for deadline := time.Now().Add(settle); ; time.Sleep(10 * time.Millisecond) {
		now, err := TakeSnapshot()
		if err != nil {
			return []string{err.Error()}
		}
		maps.DeleteFunc(now, func(key, _ string) bool {
			_, old := s[key]
			_, stayed := left[key]
			return old || left != nil && !stayed
		})
		left = now
		if len(left) == 0 || time.Now().After(deadline) {
			return slices.Sorted(maps.Values(left))
		}
	}
}

// TakeSnapshot looks at everything that a sandbox can leave behind.
func TakeSnapshot() (Snapshot, error) {
	s := Snapshot{}
	for _, add := range []func(Snapshot) error{
		addDescriptors, addProcesses, addMounts, addCgroups, addState, addTempDirs,
	} {
		if err := add(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func addDescriptors(s Snapshot) error {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // the one that listed the directory
		}
		s["fd "+e.Name()+" "+target] = fmt.Sprintf("descriptor %s, %s", e.Name(), target)
	}
	return nil
}

// process is one line of /proc.
type process struct {
	pid, parent int
	started     string
	name        string
}

func processes() (map[int]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := map[int]process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has ended since
		}
		if p, ok := parseStat(pid, string(stat)); ok {
			all[pid] = p
		}
	}
	return all, nil
}

// parseStat reads a line of /proc/PID/stat. The name is cut at the last
// parenthesis because a program may put parentheses into its own name.
func parseStat(pid int, stat string) (process, bool) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	rest := strings.Fields(stat[end+1:])
	if len(rest) < 20 {
		return process{}, false
	}
	parent, err := strconv.Atoi(rest[1])
	return process{pid: pid, parent: parent, started: rest[19], name: stat[open+1 : end]}, err == nil
}

// addProcesses adds the processes that we started, and the network namespaces
// that they are in. Ours are the descendants and those that carry our mark.
func addProcesses(s Snapshot) error {
	all, err := processes()
	if err != nil {
		return err
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	mark := []byte(runEnv + "=" + strconv.Itoa(os.Getpid()))
	for pid, p := range all {
		if pid == os.Getpid() || !descends(all, p) && !marked(pid, mark) {
			continue
		}
		s[fmt.Sprintf("process %d %s", pid, p.started)] = fmt.Sprintf("process %d (%s)", pid, p.name)
		netns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil && netns != own {
			s["netns "+netns] = fmt.Sprintf("network namespace %s of process %d (%s)", netns, pid, p.name)
		}
	}
	return nil
}

// Children returns the children of this process, ended ones included.
func Children() ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(all, func(_ int, p process) bool { return p.parent != os.Getpid() })
	return slices.Sorted(maps.Keys(all)), nil
}

func descends(all map[int]process, p process) bool {
	for ok := true; ok && p.parent > 0; p, ok = all[p.parent] {
		if p.parent == os.Getpid() {
			return true
		}
	}
	return false
}

func marked(pid int, mark []byte) bool {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(v []byte) bool { return bytes.Equal(v, mark) })
}

// addMounts leaves out what a service manager mounts when a user logs in and for
// the credentials of a service, which is not of our making.
func addMounts(s Snapshot) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		field := strings.Fields(line)
		if len(field) < 5 || OthersMount(field[4]) {
			continue
		}
		s["mount "+field[0]+" "+field[4]] = "mount on " + field[4]
	}
	return nil
}

// OthersMount reports whether a service manager mounts and unmounts there as users
// and services come and go.
func OthersMount(at string) bool {
	dir := filepath.Dir(at)
	return dir == "/run/user" || dir == "/run/credentials"
}

// addCgroups looks below our group, and on v2 in the whole hierarchy: groups
// with limits are made beside a group that holds processes, not in it.
func addCgroups(s Snapshot) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		top := h.dir
		if h.v2 {
			top = h.mount
		}
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return skipGone(err)
			}
			if d.IsDir() && strings.HasPrefix(d.Name(), "nucleus-") {
				s["cgroup "+path] = "cgroup " + path
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func addState(s Snapshot) error {
	dirs := []string{"/run/nucleus"}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		dirs = append(dirs, filepath.Join(dir, "nucleus"))
	}
	for _, top := range dirs {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return skipGone(err)
			}
			if path != top && path != allowedState && path != allowedState+".d" {
				s["state "+path] = "state file " + path
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func addTempDirs(s Snapshot) error {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), "nucleus-*"))
	for _, path := range found {
		s["temp "+path] = "temporary " + path
	}
	return err
}

// skipGone forgives what other programs cause while a tree is walked: entries
// that disappear, and directories that are not ours to read.
func skipGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}
