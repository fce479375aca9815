package nucleus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/internal/denial"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// Trial is something that was tried in a sandbox, and what came of it.
type Trial struct {
	What    string `json:"what"` // read, write, execute, call, connect
	Object  string `json:"object"`
	Allowed bool   `json:"allowed"`
	Errno   string `json:"errno,omitempty"` // what the kernel answered
	Note    string `json:"note,omitempty"`
	// Denial explains what was refused, if it was the sandbox.
	Denial *Denial `json:"denial,omitempty"`
}

// Prober tries things in sandboxes that are made for it and gone afterwards. It
// never reads a policy to know what would happen: it does it, in a way that
// changes nothing where it is allowed.
type Prober struct {
	// Program is a static program that answers questions when it is started with
	// Args before them: the nucleus program with the argument probe.
	Program string
	Args    []string
}

// probeTime bounds a sandbox that is made to try something.
const probeTime = 20 * time.Second

// ask puts questions to a probe in a sandbox, and returns the calls that the
// filter refused meanwhile.
func (p Prober) ask(ctx context.Context, s *spec.Sandbox, questions ...string) (answers []string, cmd *Cmd, err error) {
	program, err := os.ReadFile(p.Program)
	if err != nil {
		return nil, nil, err
	}
	image, err := kernel.SealedImage("nucleus-probe", program)
	if err != nil {
		return nil, nil, fmt.Errorf("make the program that asks: %w", err)
	}
	f := image.File("nucleus-probe")
	defer f.Close()
	box := *s
	box.Name, box.Terminal, box.Timeout = "", false, probeTime
	cmd = CommandContext(ctx, &box, "/proc/self/fd/3", slices.Concat(p.Args, questions)...)
	var out, errOut bytes.Buffer
	cmd.Args[0], cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = "nucleus", []*os.File{f}, &out, &errOut
	cmd.Watch = &Watch{Optional: true}
	err = cmd.Run()
	if cmd.Outcome == nil {
		return nil, cmd, err // it says why no sandbox could be started
	}
	if jerr := json.Unmarshal(out.Bytes(), &answers); jerr != nil || len(answers) != len(questions) {
		return nil, cmd, errors.Join(fmt.Errorf("the probe gave no answer: %s", cmd.Outcome), err, errors.New(strings.TrimSpace(errOut.String())))
	}
	return answers, cmd, nil
}

// escaped is a path as a word of a question.
func escaped(name string) string { return strings.ReplaceAll(name, " ", `\040`) }

// Bits of access(2), and the flag of execveat(2) that executes nothing (6.14).
const (
	mayExecute   = 1
	mayWrite     = 2
	executeCheck = 0x10000
)

// Path tries to read, write and execute a path of the sandbox. Writing opens the
// file and writes nothing; in a directory it makes a file that has no name.
// Executing asks the kernel for a check without executing, or where it has none
// for the file's rights.
func (p Prober) Path(ctx context.Context, s *spec.Sandbox, name string) ([]Trial, error) {
	name = path.Clean(name)
	if !path.IsAbs(name) || strings.ContainsAny(name, "\x00\n") {
		return nil, &Error{Stage: StageValidate, Step: -1, Op: "check", Object: "path", Because: "path", Err: invalidError{fmt.Errorf("%q is not an absolute path", name)}}
	}
	at := escaped(name)
	answers, cmd, err := p.ask(ctx, s, "kind "+at, "open r "+at, "open w "+at, "open tmp "+at, fmt.Sprint("access ", mayWrite, " ", at),
		execution(at), fmt.Sprint("access ", mayExecute, " ", at))
	if err != nil {
		return nil, err
	}
	kind, read, write, execute := answers[0], answers[1], answers[2], executes(answers[5:])
	dir := kind == "ok:d"
	switch {
	case dir && (answers[3] == "EOPNOTSUPP" || answers[3] == "EISDIR"):
		write = answers[4]
	case dir:
		write = answers[3]
	}
	e := newExplainer(s, cmd, name, kind)
	if err := e.parent(ctx, p); err != nil {
		return nil, err
	}
	trials := []Trial{e.trial("read", read, denial.Call{Name: "open"})}
	trials = append(trials, e.trial("write", write, denial.Call{Name: "open", Args: [6]uint64{1: 1 | 0o100}, Change: true}))
	if dir {
		return trials, nil
	}
	t := e.trial("execute", execute, denial.Call{Name: "execve", Exec: true})
	if t.Allowed && kind == "ok:-" {
		t, err = e.interpreter(ctx, p, t)
	}
	return append(trials, t), err
}

// execution asks for a check without executing.
func execution(at string) string {
	return fmt.Sprint("call execveat -100 s:", at, " 0 0 ", executeCheck)
}

// executes is the answer to that, or of access(2) from a kernel that has no such check.
func executes(answers []string) string {
	if a := answers[0]; a != "EINVAL" && a != "ENOSYS" && a != "EPERM" {
		return a
	}
	return answers[1]
}

// explainer turns answers about a path into trials.
type explainer struct {
	sandbox              *spec.Sandbox
	cmd                  *Cmd
	name                 string
	real                 string // what is not there, if name is a symbolic link to it
	exists, dir, special bool
	make                 string // the answer to making it in the directory that is to hold it; empty: there is none
}

func newExplainer(s *spec.Sandbox, cmd *Cmd, name, kind string) explainer {
	e := explainer{sandbox: s, cmd: cmd, name: name, real: name, exists: kind != "ENOENT" && kind != "ENOTDIR", dir: kind == "ok:d"}
	e.special = e.exists && !e.dir && kind != "ok:-" && strings.HasPrefix(kind, "ok")
	return e
}

// parent asks where a file would be made that is not there: beyond symbolic
// links, of which the kernel follows 40.
func (e *explainer) parent(ctx context.Context, p Prober) error {
	for range 40 {
		if e.exists {
			return nil
		}
		dir := path.Dir(e.real)
		a, _, err := p.ask(ctx, e.sandbox, "readlink "+escaped(e.real), "kind "+escaped(dir), fmt.Sprint("access ", mayWrite|mayExecute, " ", escaped(dir)))
		if err != nil {
			return err
		}
		target, link := strings.CutPrefix(a[0], "ok:")
		switch {
		case link && path.IsAbs(target):
			e.real = path.Clean(target)
		case link:
			e.real = path.Join(dir, target)
		case a[1] == "ok:d":
			e.make = a[2]
			return nil
		default:
			return nil
		}
	}
	return nil
}

// interpreter looks at what the kernel executes in the place of a script, which
// its check does not.
func (e *explainer) interpreter(ctx context.Context, p Prober, t Trial) (Trial, error) {
	a, _, err := p.ask(ctx, e.sandbox, "read "+escaped(e.name))
	if err != nil {
		return t, err
	}
	line, script := strings.CutPrefix(a[0], "ok:#!")
	line, _, _ = strings.Cut(line, "\n")
	words := strings.Fields(line)
	if !script || len(words) == 0 || !path.IsAbs(words[0]) {
		return t, nil
	}
	at := path.Clean(words[0])
	a, cmd, err := p.ask(ctx, e.sandbox, "kind "+escaped(at), execution(escaped(at)), fmt.Sprint("access ", mayExecute, " ", escaped(at)))
	if err != nil || executes(a[1:]) == "ok" {
		return t, err
	}
	of := newExplainer(e.sandbox, cmd, at, a[0])
	i := of.trial(t.What, executes(a[1:]), denial.Call{Name: "execve", Exec: true})
	i.Object, i.Note = t.Object, strings.TrimSuffix("its interpreter is "+denial.Clean(at)+"; "+i.Note, "; ")
	return i, nil
}

// needs is what Landlock asks for.
func (e *explainer) needs(c denial.Call) denial.Need {
	n := denial.Need{Path: e.real, Dir: e.dir, Access: landlock.ReadFile}
	switch {
	case c.Exec:
		n.Access = landlock.Execute | landlock.ReadFile
	case c.Change && e.dir: // a file with a name in it
		return denial.Need{Path: path.Join(e.real, "x"), Access: landlock.WriteFile | landlock.MakeReg}
	case c.Change:
		n.Access = landlock.WriteFile
		if !e.exists {
			n.Access |= landlock.MakeReg
		}
	case e.dir:
		n.Access = landlock.ReadDir
	}
	return n
}

func (e *explainer) trial(what, answer string, c denial.Call) Trial {
	if !e.exists && c.Change && answer == "ENOENT" && e.make != "" {
		answer = e.make
	}
	t := Trial{What: what, Object: denial.Clean(e.name), Allowed: answer == "ok"}
	c.Path, c.Time, c.Needs[0] = e.real, time.Now(), e.needs(c)
	c.Seen = denial.Seen{Asked: true, Exists: e.exists, Parent: e.make != "", Real: e.real, Special: e.special}
	// The file's mode is looked at before the mount; where both refuse, it is the mount that a flag can change.
	c.Seen.ReadOnly = answer == "EROFS" || answer == "EACCES" && !e.writable()
	c.Seen.NoExec = c.Exec && answer == "EACCES" && !e.executable()
	if !t.Allowed {
		t.Errno = answer
	}
	if t.Allowed && !c.Change { // what is there can be read
		return t
	}
	j := denial.New(e.cmd.full(), e.cmd.planned, ours())
	j.Call(c)
	all := j.Denials()
	switch {
	case len(all) > 0 && (!t.Allowed || all[0].Layer == denial.Landlock):
		d := Denial(all[0])
		d.Inferred, d.What, t.Denial = d.Layer == denial.Landlock, what, &d
		if t.Allowed { // making a file without a name is not what Landlock looks at
			t.Allowed, t.Errno = false, d.Errno
		}
		d.Errno = t.Errno
	case t.Allowed && !e.exists:
		t.Note = "it is not there and can be made"
	case t.Allowed:
	case answer == "ENOENT" && strings.HasPrefix(e.name, "/proc/"):
		t.Note = "it is not in the sandbox's /proc, which shows what is the program's own"
	case answer == "ENOENT":
		t.Note = "it is not in the sandbox, nor on the host"
	case answer == "EACCES" && c.Exec:
		t.Note = "its mode does not allow it, or it is no program"
	case answer == "EACCES", answer == "EPERM":
		t.Note = fmt.Sprintf("its owner and mode do not allow it to user %d of the sandbox", e.sandbox.User.UID)
	}
	return t
}

// place is what the plan has at the path.
func (e *explainer) place() (writable, exec bool) {
	best := ""
	for _, p := range e.cmd.planned.Places {
		if (e.real == p.Path || strings.HasPrefix(e.real, p.Path+"/")) && len(p.Path) >= len(best) {
			best, writable, exec = p.Path, p.Writable, p.Exec
		}
	}
	return writable, exec
}

func (e *explainer) executable() bool { _, exec := e.place(); return exec }
func (e *explainer) writable() bool   { write, _ := e.place(); return write }

// untried are the calls that would end the probe, or let it wait.
const untried = " exit exit_group fork vfork pause rt_sigreturn restart_syscall sync uretprobe uprobe "

// Call tries a system call. Without arguments it is made with ones that make no
// sense, so that it does nothing where it is allowed, and if these are refused,
// also with some that the policy allows.
func (p Prober) Call(ctx context.Context, s *spec.Sandbox, name string, args []uint64) ([]Trial, error) {
	arch := seccomp.AMD64
	if runtime.GOARCH == "arm64" {
		arch = seccomp.ARM64
	}
	policy := seccomp.Default()
	if s.Policy != nil && s.Policy.Seccomp != nil {
		policy = *s.Policy.Seccomp
	}
	nr, ok := arch.Number(name)
	if !ok || strings.Contains(untried, " "+name+" ") {
		why := "this machine has no such system call"
		if ok {
			why = "it would end what tries it, or let it wait; nucleus policy show --call tells what the filter does"
		}
		return nil, &Error{Stage: StageValidate, Step: -1, Op: "check", Object: "system call", Because: name, Err: invalidError{errors.New(why)}}
	}
	var tries [][6]uint64
	var first [6]uint64
	for i := range first {
		first[i] = ^uint64(0)
		if len(args) > 0 {
			first[i] = 0
		}
	}
	copy(first[:], args)
	tries = append(tries, first)
	if example, ok := policy.Example(arch, name); ok && len(args) == 0 && policy.Decide(arch, nr, first) != seccomp.Allow {
		tries = append(tries, example)
	}
	var trials []Trial
	for _, try := range tries {
		t, err := p.call(ctx, s, name, try)
		if err != nil {
			return nil, err
		}
		answered := policy.Decide(arch, nr, try)
		if t.Denial == nil && string(answered) == t.Errno { // such as ENOSYS, which a listener is not asked about
			j := denial.New(s, nil, denial.Host{})
			j.Call(denial.Call{Name: name, Refused: t.Errno, Rule: policy.Why(arch, nr, try), Args: try, Time: time.Now()})
			d := Denial(j.Denials()[0])
			t.Denial, t.Allowed, t.Note = &d, false, ""
		}
		t.Note = strings.TrimPrefix(t.Note+"; with the arguments "+words(try), "; ")
		trials = append(trials, t)
	}
	return trials, nil
}

// words are arguments as people write them.
func words(args [6]uint64) string {
	var out []string
	for _, a := range args {
		if a == ^uint64(0) {
			out = append(out, "-1")
		} else {
			out = append(out, fmt.Sprintf("%#x", a))
		}
	}
	return strings.Join(out, " ")
}

func (p Prober) call(ctx context.Context, s *spec.Sandbox, name string, args [6]uint64) (Trial, error) {
	t := Trial{What: "call", Object: name, Allowed: true}
	answers, cmd, err := p.ask(ctx, s, "call "+name+" "+words(args))
	if err != nil {
		return t, err
	}
	if answers[0] != "ok" {
		t.Errno = answers[0]
		t.Note = "the filter allows it; the kernel answered " + t.Errno
	}
	for _, d := range cmd.Denials() {
		if d.Layer == denial.Seccomp && strings.Contains(d.Rule, "system call "+name+" ") {
			t.Allowed, t.Denial, t.Note = false, &d, ""
		}
	}
	return t, nil
}

// Connect tries to connect to HOST:PORT or, if it begins with a slash or an @, to
// a local socket.
func (p Prober) Connect(ctx context.Context, s *spec.Sandbox, addr string) ([]Trial, error) {
	t := Trial{What: "connect", Object: denial.Clean(addr)}
	question, seen := "", addr
	if strings.HasPrefix(addr, "/") || strings.HasPrefix(addr, "@") {
		question = "connect " + escaped(addr)
	} else {
		host, port, _ := cutPort(addr)
		if host == "localhost" {
			addr = "127.0.0.1:" + port
		}
		at, err := netip.ParseAddrPort(addr)
		if err != nil { // a name: whoever could resolve it is asked for
			seen = "127.0.0.1:53"
			at = netip.MustParseAddrPort(seen)
		} else {
			seen = at.String()
		}
		question = "tcp " + at.String()
	}
	answers, cmd, err := p.ask(ctx, s, question)
	if err != nil {
		return nil, err
	}
	t.Allowed = answers[0] == "ok"
	if t.Allowed {
		return []Trial{t}, nil
	}
	t.Errno = answers[0]
	j := denial.New(cmd.full(), cmd.planned, ours())
	j.Call(denial.Call{Name: "connect", Addr: seen, Time: time.Now()})
	if all := j.Denials(); len(all) > 0 && (all[0].Layer != denial.Landlock || t.Errno == "EACCES") {
		d := Denial(all[0])
		d.Inferred, d.Errno = false, t.Errno
		t.Denial = &d
	} else if at, err := netip.ParseAddrPort(seen); err == nil && at.Addr().IsLoopback() {
		t.Note = "that is the sandbox's own loopback, where only programs inside can listen; no service of the host answers there"
	}
	return []Trial{t}, nil
}

// cutPort takes HOST:PORT apart.
func cutPort(addr string) (host, port string, ok bool) {
	i := strings.LastIndexByte(addr, ':')
	if i < 0 {
		return addr, "", false
	}
	return strings.Trim(addr[:i], "[]"), addr[i+1:], true
}

// Inside is where a path of the host is in a sandbox, if the description shows it
// at another place.
func Inside(s *spec.Sandbox, name string) (string, bool) {
	for _, v := range shown(s) {
		source, err := filepath.Abs(v.Source)
		if err != nil {
			continue
		}
		if rest, ok := strings.CutPrefix(name+"/", source+"/"); ok {
			return path.Join(v.Target, rest), true
		}
	}
	return name, false
}

// shown are the host files that a description shows, the last first: it is on top.
func shown(s *spec.Sandbox) (all []spec.Volume) {
	if s.Context != nil {
		all = append(all, spec.Volume{Source: s.Context.Source, Target: "/context"})
	}
	if s.Workspace != nil {
		all = append(all, spec.Volume{Source: s.Workspace.Source, Target: "/workspace"})
	}
	all = append(all, s.Volumes...)
	slices.Reverse(all)
	return all
}
