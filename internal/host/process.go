package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/internal/facts"
)

// Process is what the kernel says about a running process.
type Process struct {
	Pid        int
	Status     map[string]string // /proc/PID/status: key without colon, value
	Namespaces map[string]string // type to identity, e.g. "net" to "net:[4026531840]"
	UIDMap     string            // one extent: "inside outside count"; several are joined with "; "
	Mounts     []facts.Mount
	Interfaces []string // network devices in its network namespace
	MaxTasks   string   // RLIMIT_NPROC, as the kernel prints it
}

// ReadProcess asks the kernel about a process. The caller makes sure that the
// pid is still the process's.
func ReadProcess(pid int) (*Process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	p := &Process{Pid: pid, Status: map[string]string{}, Namespaces: map[string]string{}}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Split(string(status), "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok {
			p.Status[k] = strings.TrimSpace(v)
		}
	}
	for _, ns := range []string{"user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time"} {
		if p.Namespaces[ns], err = os.Readlink(dir + "/ns/" + ns); err != nil {
			return nil, err
		}
	}
	uidMap, err := os.ReadFile(dir + "/uid_map")
	if err != nil {
		return nil, err
	}
	var extents []string
	for _, line := range strings.Split(strings.TrimSpace(string(uidMap)), "\n") {
		extents = append(extents, strings.Join(strings.Fields(line), " "))
	}
	p.UIDMap = strings.Join(extents, "; ")
	return p, p.readTables(dir)
}

func (p *Process) readTables(dir string) error {
	mounts, err := os.ReadFile(dir + "/mountinfo")
	if err != nil {
		return err
	}
	if p.Mounts, err = parseMounts(string(mounts)); err != nil {
		return fmt.Errorf("%s/mountinfo: %w", dir, err)
	}
	net, err := os.ReadFile(dir + "/net/dev")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(net), "\n") {
		if name, _, ok := strings.Cut(line, ":"); ok {
			p.Interfaces = append(p.Interfaces, strings.TrimSpace(name))
		}
	}
	limits, err := os.ReadFile(dir + "/limits")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(limits), "\n") {
		if rest, ok := strings.CutPrefix(line, "Max processes"); ok {
			if f := strings.Fields(rest); len(f) > 1 {
				p.MaxTasks = f[1]
			}
		}
	}
	return nil
}

// Filters is how many seccomp filters are in force on a process, and in which mode.
type Filters struct{ Mode, Count int }

// FiltersOf asks about the child of a process that has the number inner in the
// innermost process namespace that it is in. All of it is one look: a number that
// is another process's by now is not taken for it.
func FiltersOf(parent, inner int) (f Filters, err error) {
	list, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(parent), "task", strconv.Itoa(parent), "children"))
	if err != nil {
		return f, err
	}
	for _, pid := range strings.Fields(string(list)) {
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			continue // it has just ended
		}
		field := map[string]string{}
		for _, line := range strings.Split(string(status), "\n") {
			k, v, _ := strings.Cut(line, ":")
			field[k] = strings.TrimSpace(v)
		}
		numbers := strings.Fields(field["NSpid"])
		if field["PPid"] != strconv.Itoa(parent) || len(numbers) == 0 || numbers[len(numbers)-1] != strconv.Itoa(inner) {
			continue
		}
		if f.Mode, err = strconv.Atoi(field["Seccomp"]); err != nil {
			return f, err
		}
		f.Count, _ = strconv.Atoi(field["Seccomp_filters"]) // since 5.9
		return f, nil
	}
	return f, os.ErrProcessDone
}

// ReadMounts asks the kernel what a process sees mounted. The caller makes sure
// that the pid is still the process's.
func ReadMounts(pid int) ([]facts.Mount, error) {
	file := "/proc/" + strconv.Itoa(pid) + "/mountinfo"
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	all, err := parseMounts(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return all, nil
}

func parseMounts(text string) (all []facts.Mount, err error) {
	for line := range strings.Lines(text) {
		m, rest, ok := strings.Cut(line, " - ")
		f := strings.Fields(m)
		if !ok || len(f) < 6 {
			return nil, fmt.Errorf("unexpected line %q", line)
		}
		fstype, _, _ := strings.Cut(rest, " ")
		all = append(all, facts.Mount{Target: unescapeMount(f[4]), Type: fstype, Options: f[5], Device: f[2]})
	}
	return all, nil
}

// unescapeMount undoes what the kernel does to blanks and backslashes in paths:
// a backslash and three octal digits.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Child finds the child of a process that has the number inner in the innermost
// process namespace that it is in.
func Child(parent, inner int) (int, error) {
	list, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(parent), "task", strconv.Itoa(parent), "children"))
	if err != nil {
		return 0, err
	}
	for _, f := range strings.Fields(string(list)) {
		status, err := os.ReadFile("/proc/" + f + "/status")
		if err != nil {
			continue // it has just ended
		}
		for _, line := range strings.Split(string(status), "\n") {
			if v, ok := strings.CutPrefix(line, "NSpid:"); ok {
				if n := strings.Fields(v); len(n) > 0 && n[len(n)-1] == strconv.Itoa(inner) {
					return strconv.Atoi(f)
				}
			}
		}
	}
	return 0, os.ErrProcessDone
}
