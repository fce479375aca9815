package denial

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/policy/landlock"
)

// End is how a sandbox ended, or why its program did not start.
type End struct {
	Time     time.Time
	Failed   bool // it ended otherwise than with 0
	Code     int  // with which it exited, if it did
	Memory   bool // the memory limit ended it
	Deadline bool // its time was over
	// PidsDenied is how often the limit on tasks refused one, if a control group
	// counts that.
	PidsDenied uint64
	// Full says that the scratch space had nothing left when the sandbox ended.
	Full bool
	// Args are the program and its arguments.
	Args []string
	// NotFound and NotExecutable say that the program could not be executed.
	NotFound, NotExecutable bool
}

// End judges how it ended.
func (j *Judge) End(e End) {
	for _, d := range j.tried {
		if !j.started {
			j.add(d)
		}
	}
	for _, d := range j.limits(e) {
		d.Time = e.Time
		j.add(d)
	}
	if (e.NotFound || e.NotExecutable) && len(e.Args) > 0 {
		if d, ok := j.program(e); ok {
			d.Time = e.Time
			j.add(d)
		}
		return
	}
	if e.Failed {
		j.arguments(e)
	}
	if e.Code == cannotExecute {
		j.scripts(e)
	}
}

// cannotExecute is the exit code of shells, and of what behaves like one, when
// what they were to run is there and cannot be executed.
const cannotExecute = 126

// scripts looks among the words of the arguments for programs of the host in a
// place from which nothing may be executed. Nobody saw one being executed.
func (j *Judge) scripts(e End) {
	for _, arg := range e.Args {
		for word := range strings.FieldsFuncSeq(arg[:min(len(arg), 4096)], func(r rune) bool { return strings.ContainsRune(" \t\n;&|()'\"`$", r) }) {
			at := word
			if !path.IsAbs(at) {
				at = path.Join(j.workdir(), at)
			}
			p, ok := j.place(at)
			if !ok || p.Exec || !strings.Contains(word, "/") || j.has(at) || !j.shows(p, at) {
				continue
			}
			j.add(j.mounted(Denial{Time: e.Time, What: "execute", Object: at, Inferred: true}, at, "EACCES", true))
		}
	}
}

// limits are the bounds that were reached.
func (j *Judge) limits(e End) (out []Denial) {
	l := j.spec.Limits
	if e.Memory {
		d := Denial{Layer: Memory, What: "use more memory", Object: "than " + l.Memory.String(), Rule: "the memory limit (--memory " + l.Memory.String() + ") ended it"}
		d.Allow = "--memory " + (2 * l.Memory).String()
		d.Say = "The sandbox has " + l.Memory.String() + " of memory, and what needs more is killed; work on smaller parts."
		out = append(out, d)
	}
	if e.Deadline {
		d := Denial{Layer: Time, What: "run longer", Object: "than " + j.spec.Timeout.String(), Rule: "the timeout (--timeout " + j.spec.Timeout.String() + ") ended it"}
		d.Allow = "--timeout " + (2 * j.spec.Timeout).String()
		d.Say = "The sandbox ends " + j.spec.Timeout.String() + " after its start; do less at a time."
		out = append(out, d)
	}
	if n := l.EffectivePids(); e.PidsDenied > 0 && n > 0 {
		d := Denial{Layer: Pids, What: "start more processes and threads", Object: "than " + strconv.FormatUint(n, 10), Errno: "EAGAIN", Count: int(min(e.PidsDenied, 1<<30))}
		d.Rule = "the limit on tasks is " + strconv.FormatUint(n, 10) + " (--pids)"
		d.Allow = "--pids " + strconv.FormatUint(2*n, 10)
		d.Say = "The sandbox may have " + strconv.FormatUint(n, 10) + " processes and threads; do less at the same time."
		out = append(out, d)
	}
	if e.Full && e.Failed {
		s := scratch(j.spec)
		d := Denial{Layer: Memory, What: "write more", Object: "than " + s.String() + " to /tmp, the home directory and /dev/shm", Errno: "ENOSPC", Inferred: true}
		d.Rule = "the scratch space was full when it ended"
		d.Allow = "--scratch " + (2 * s).String()
		d.Say = "The scratch space is " + s.String() + " and full; remove files, or write to /workspace."
		out = append(out, d)
	}
	return out
}

// program explains a program that could not be executed.
func (j *Judge) program(e End) (Denial, bool) {
	name := e.Args[0]
	d := Denial{What: "execute", Object: name, Inferred: true}
	if e.NotExecutable {
		return j.unexecutable(d, name)
	}
	on, at := name, name
	if !strings.Contains(name, "/") {
		for dir := range strings.SplitSeq(j.host.Path, ":") {
			if isDir, ok := j.host.has(path.Join(dir, name)); ok && !isDir && path.IsAbs(dir) {
				on = path.Join(dir, name)
				at = on
				break
			}
		}
	}
	if dir, ok := j.host.has(on); !ok || dir {
		return d, false
	}
	if p, ok := j.place(at); ok && p.Host || j.has(at) { // it is shown, so its interpreter is what is missing; or it was seen
		return d, false
	}
	d = j.missing(d, on, at, "ro,exec")
	d.What, d.Object, d.Minor = "execute", name, false
	if at != name && d.Allow != "" {
		d.Allow += ", and run it as " + Clean(at)
	}
	return d, true
}

// unexecutable explains a program that is there and could not be executed: its
// place forbids it, or a policy's rules. If neither does, its mode or format did.
func (j *Judge) unexecutable(d Denial, name string) (Denial, bool) {
	tried, searched := []string{name}, !strings.Contains(name, "/")
	switch {
	case searched && (j.plan == nil || len(j.plan.Steps) == 0):
		return d, false
	case searched:
		tried = j.plan.Exec().Paths
	}
	for _, at := range tried {
		if !path.IsAbs(at) {
			at = path.Join(j.workdir(), at)
		}
		p, ok := j.place(at)
		if !ok || searched && !j.shows(p, at) {
			continue
		}
		if j.has(at) {
			return d, false // it was seen
		}
		if !p.Exec {
			return j.mounted(d, at, "EACCES", true), true
		}
		if r, ok := j.ruled(d, Call{Needs: [2]Need{{Path: at, Access: landlock.Execute | landlock.ReadFile}}}); ok {
			return r, true
		}
	}
	return d, false
}

// shows reports whether a place has a file of the host's at a path.
func (j *Judge) shows(p plan.Place, at string) bool {
	on := j.source(p.Because)
	switch {
	case p.Because == "toolchain":
		on = p.Path
	case on == "":
		return false
	case !path.IsAbs(on):
		on = path.Join(j.host.Dir, on)
	}
	isDir, ok := j.host.has(path.Join(on, strings.TrimPrefix(at, p.Path)))
	return ok && !isDir
}

// has reports whether a refusal of that file is known.
func (j *Judge) has(object string) bool {
	return slices.ContainsFunc(j.all, func(d Denial) bool { return d.Object == Clean(object) })
}

func (j *Judge) workdir() string {
	switch {
	case j.spec.Workdir != "":
		return j.spec.Workdir
	case j.spec.Workspace != nil:
		return "/workspace"
	}
	return "/"
}

// arguments looks for files of the host among the arguments of a program that
// failed. Nobody saw it ask for them.
func (j *Judge) arguments(e End) {
	for _, arg := range e.Args[min(1, len(e.Args)):] {
		if name, value, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(name, "-") {
			arg = value
		}
		if !path.IsAbs(arg) || len(arg) > 4096 || strings.ContainsAny(arg, " \t\n") {
			continue
		}
		arg = path.Clean(arg)
		if p, ok := j.place(arg); ok && p.Host || arg == "/" || own(arg) {
			continue
		}
		if _, ok := j.host.has(arg); !ok || j.has(arg) {
			continue
		}
		d := j.missing(Denial{Time: e.Time}, arg, arg, "ro")
		d.What, d.Minor = "use", false
		j.add(d)
	}
}

// own reports whether a path is in a directory that every sandbox furnishes
// itself, or that is never shown.
func own(p string) bool {
	for _, dir := range [...]string{"/etc", "/dev", "/proc", "/sys", "/run", "/var", "/bin", "/sbin", "/lib", "/lib64"} {
		if within(p, dir) {
			return true
		}
	}
	return false
}
