package host

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"
)

// Member is one process of a process namespace.
type Member struct {
	Pid, Inside, Parent int
	UID                 uint32 // the host's
	State               string
	Threads             int
	RSS                 uint64 // bytes
	CPU                 time.Duration
	Command             string
}

// Namespace lists the processes in the process namespace of pid. Processes that
// end meanwhile are left out.
func Namespace(pid int) ([]Member, error) {
	want, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/pid")
	if err != nil {
		return nil, err
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return nil, err
	}
	var all []Member
	for _, name := range names {
		n, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		// Not ours to look at, or gone: in neither case one of the namespace's,
		// whose owner we are.
		if ns, err := os.Readlink("/proc/" + name + "/ns/pid"); err != nil || ns != want {
			continue
		}
		if m, ok := member(n); ok {
			all = append(all, m)
		}
	}
	return all, nil
}

// clockTick is the unit of times in /proc, USER_HZ, which is 100 on all
// architectures that Nucleus runs on.
const clockTick = time.Second / 100

// member reads what is known of one process.
func member(pid int) (m Member, ok bool) {
	at := "/proc/" + strconv.Itoa(pid) + "/"
	stat, err := os.ReadFile(at + "stat")
	if err != nil {
		return m, false
	}
	end := bytes.LastIndexByte(stat, ')')
	begin := bytes.IndexByte(stat, '(')
	f := strings.Fields(string(stat[end+1:]))
	if begin < 0 || end < begin || len(f) < 22 {
		return m, false
	}
	num := func(s string) int { n, _ := strconv.Atoi(s); return n } // the kernel writes numbers
	m = Member{Pid: pid, Inside: pid, State: f[0], Parent: num(f[1]), Threads: num(f[17]), Command: string(stat[begin+1 : end])}
	m.CPU = time.Duration(num(f[11])+num(f[12])) * clockTick
	m.RSS = uint64(num(f[21])) * uint64(os.Getpagesize())
	if line, err := os.ReadFile(at + "cmdline"); err == nil && len(line) > 0 {
		m.Command = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
	}
	status, err := os.ReadFile(at + "status")
	if err != nil {
		return m, false
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch {
		case key == "Uid" && len(fields) > 0:
			m.UID = uint32(num(fields[0]))
		case key == "NSpid" && len(fields) > 0:
			m.Inside = num(fields[len(fields)-1])
		}
	}
	return m, true
}
