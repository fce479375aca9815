// Package selftest tries the claims of docs/SECURITY.md on the machine that it
// runs on: a program inside a real sandbox does what the sandbox forbids, and the
// kernel's answers are compared with what they should be. Where that is harmless
// the same is tried without the sandbox too, so that a green line means something.
//
//	table, err := selftest.Run(ctx, selftest.Options{Program: exe, Args: []string{"probe"}})
//	fmt.Print(table)
//
// The claims are a table ([Claims]), the same as the document's; a claim that
// nothing can show from inside a sandbox says why.
package selftest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/spec"
)

// Options say what is tested.
type Options struct {
	// Program is a static program that answers questions (package probe) when it is
	// started with Args before them.
	Program string
	Args    []string
	// Keep is a command that starts Program in a sandbox, there with the word "hang",
	// and waits for it; it will be killed. Without one that is not tried.
	Keep []string
	// Sandbox is the description whose protection is tried.
	Sandbox spec.Sandbox
	// Patience is how long processes may take to end when their sandbox has; zero is
	// ten seconds.
	Patience time.Duration
	// Only are the ids of the claims to try; none are all.
	Only []string
	// Command makes the commands that run in sandboxes; nil is nucleus.Command.
	Command func(s *spec.Sandbox, name string, arg ...string) *nucleus.Cmd
	// Progress, if not nil, is told what is being tried.
	Progress func(what string)
}

// Result is what came of a claim or of one attempt.
type Result string

// The results.
const (
	OK       Result = "ok"
	Failed   Result = "FAILED"
	NotTried Result = "not tried"
)

// Table is the outcome, a line for each claim.
type Table struct {
	// Green says that nothing failed.
	Green  bool          `json:"green"`
	Kernel string        `json:"kernel"`
	Took   time.Duration `json:"took"`
	Lines  []Line        `json:"claims"`
}

// Line is one claim.
type Line struct {
	ID     string `json:"id"`
	Claim  string `json:"claim"`
	Result Result `json:"result"`
	// Why says why the claim was not tried.
	Why   string `json:"why,omitempty"`
	Tries []Try  `json:"tries,omitempty"`
}

// Try is one attempt to do what a claim says cannot be done, or one that must work.
type Try struct {
	// How is the attempt in words; several with the same are printed as one.
	How    string `json:"how"`
	Ask    string `json:"ask,omitempty"`
	Want   string `json:"want,omitempty"`
	Answer string `json:"answer,omitempty"`
	Result Result `json:"result"`
	Why    string `json:"why,omitempty"`
	// Control says what was compared with: "outside" is a process like any other,
	// "namespaces" one in namespaces of its own and nothing more.
	Control       string `json:"control,omitempty"`
	ControlAnswer string `json:"control_answer,omitempty"`
	// Differs says that the control got another answer than what is wanted: what
	// is tried works where the sandbox is not.
	Differs bool `json:"differs"`
}

// Run tries the claims. The error says that no sandbox could be started.
func Run(ctx context.Context, o Options) (*Table, error) {
	began := time.Now()
	if o.Command == nil {
		o.Command = nucleus.Command
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	for _, id := range o.Only {
		if !slices.ContainsFunc(Claims(), func(c Claim) bool { return c.ID == id }) {
			return nil, &nucleus.Error{Stage: nucleus.StageValidate, Step: -1, Op: "check", Object: "claim", Err: fmt.Errorf("there is no claim %q: %w", id, nucleus.ErrInvalid)}
		}
	}
	w, err := newWorld(ctx, o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	var all []asked
	for _, c := range Claims() {
		if c.tries == nil || len(o.Only) > 0 && !slices.Contains(o.Only, c.ID) {
			continue
		}
		for _, t := range c.tries(w) {
			all = append(all, asked{id: c.ID, try: w.underPolicy(t)})
		}
	}
	if err := w.perform(all); err != nil {
		return nil, err
	}
	t := &Table{Green: true, Kernel: kernel.Uname(), Took: time.Since(began)}
	for _, c := range Claims() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, c.ID) {
			continue
		}
		l := line(c, all)
		t.Green = t.Green && l.Result != Failed
		t.Lines = append(t.Lines, l)
	}
	return t, nil
}

// asked is an attempt with what came of it.
type asked struct {
	id string
	try
	answer, control string
}

// line gathers what came of a claim.
func line(c Claim, all []asked) Line {
	l := Line{ID: c.ID, Claim: c.Text, Result: NotTried, Why: c.NotProbed}
	for _, a := range all {
		if a.id != c.ID {
			continue
		}
		t := a.result()
		l.Tries = append(l.Tries, t)
		switch {
		case t.Result == Failed:
			l.Result = Failed
		case t.Result == OK && l.Result == NotTried:
			l.Result = OK
		}
		if t.Why != "" && l.Why == "" && c.NotProbed == "" {
			l.Why = t.Why
		}
	}
	if l.Result != NotTried {
		l.Why = ""
	}
	return l
}

func (a *asked) result() Try {
	t := Try{How: a.how, Ask: a.ask, Want: a.want, Answer: a.answer, Result: Failed, Control: string(a.with), ControlAnswer: a.control}
	switch {
	case a.skip != "":
		t.Result, t.Why = NotTried, a.skip
	case a.fits(a.answer):
		t.Result = OK
	}
	t.Differs = a.control != "" && !a.fits(a.control)
	t.Answer, t.ControlAnswer = clip(t.Answer, 500), clip(t.ControlAnswer, 500)
	return t
}

// fits says whether an answer is as wanted.
func (t *try) fits(answer string) bool {
	if t.judge != nil {
		return t.judge(answer)
	}
	return matches(t.want, answer)
}

// matches compares an answer with what is wanted: one of several between bars, of
// which one may end in a star, or anything but one after an exclamation mark.
func matches(want, got string) bool {
	if not, negated := strings.CutPrefix(want, "!"); negated {
		return got != not && got != ""
	}
	for w := range strings.SplitSeq(want, "|") {
		if start, any := strings.CutSuffix(w, "*"); any && strings.HasPrefix(got, start) || w == got {
			return true
		}
	}
	return false
}

// world is what the attempts are made with.
type world struct {
	ctx     context.Context
	o       Options
	box     spec.Sandbox // as described, with what the attempts need
	plain   spec.Sandbox // as described
	dir     string       // on the host: ro, rw and tmp, which are ours
	image   *os.File     // the program
	hostDir *os.File     // dir, as a descriptor
	ends    []func() error
	socket  string // abstract
	noShare string // why ro and rw are not in the sandbox; empty if they are
	report  error
	weak    []string
	mounts  []string // where the plan mounts something
}

// inside is where ro and rw are in the sandbox.
const inside = "/run/selftest"

// descriptors of a probe in a sandbox, and of its control.
const (
	imageFD = 3
	dirFD   = 4
)

func newWorld(ctx context.Context, o Options) (w *world, err error) {
	w = &world{ctx: ctx, o: o, plain: o.Sandbox}
	defer func() {
		if err != nil {
			w.close()
			if known := (*nucleus.Error)(nil); errors.As(err, &known) {
				return // it says what is wrong with the description
			}
			err = &nucleus.Error{Stage: nucleus.StageProbe, Step: -1, Op: "prepare", Object: "the self-test", Err: err}
		}
	}()
	w.plain.Name, w.plain.Terminal = "", false
	if w.plain.Timeout == 0 || w.plain.Timeout > time.Minute {
		w.plain.Timeout = time.Minute
	}
	w.box = w.plain
	if err := w.makeDir(); err != nil {
		return w, err
	}
	program, err := os.ReadFile(o.Program)
	if err != nil {
		return w, err
	}
	image, err := kernel.SealedImage("nucleus-probe", program)
	if err != nil {
		return w, fmt.Errorf("make the program that asks: %w", err)
	}
	w.image = image.File("nucleus-probe")
	w.ends = append(w.ends, w.image.Close)
	if w.hostDir, err = os.Open(w.dir); err != nil {
		return w, err
	}
	w.ends = append(w.ends, w.hostDir.Close)
	leak, err := kernel.Inheritable(kernel.FD(w.hostDir.Fd()))
	if err != nil {
		return w, err
	}
	w.ends = append(w.ends, leak.Close)
	w.socket = fmt.Sprintf("@nucleus-selftest-%d", os.Getpid())
	for _, name := range []string{w.socket, w.dir + "/socket"} {
		l, err := kernel.ListenAt(name)
		if err != nil {
			return w, err
		}
		w.ends = append(w.ends, l.Close)
	}
	return w, w.share()
}

// makeDir makes a directory on the host with what a sandbox may see of it, and
// what it may not.
func (w *world) makeDir() error {
	const longest = 100 // for a directory with a socket, whose path takes 107 bytes (unix(7))
	base := os.TempDir()
	if len(base)+len("/nucleus-selftest-1234567890/socket") > longest {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "nucleus-selftest-")
	if err != nil {
		return err
	}
	w.dir = dir
	w.ends = append(w.ends, func() error { return os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil { // the descriptor that slips in must meet Landlock, not a mode
		return err
	}
	for _, d := range []string{"ro", "rw", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"secret": "secret", "ro/note": "note"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.Symlink(filepath.Join(dir, "secret"), filepath.Join(dir, "ro/link"))
}

// share shows the directory to the sandbox, if the description and the file
// system that temporary files are on let that be.
func (w *world) share() error {
	p, err := nucleus.Command(&w.plain, "true").Plan()
	if err != nil {
		return err
	}
	with := w.plain
	with.Volumes = append(slices.Clone(with.Volumes),
		spec.Volume{Source: w.dir + "/ro", Target: inside + "/ro"},
		spec.Volume{Source: w.dir + "/rw", Target: inside + "/rw", Writable: true})
	shared, err := nucleus.Command(&with, "true").Plan()
	if err == nil {
		_, err = w.inside(&with, []string{"exists " + inside + "/ro"}, nil)
	}
	if err != nil && !errors.Is(err, errNoAnswer) {
		w.noShare = "the self-test's directory cannot be shown: " + err.Error()
		if e := (*nucleus.Error)(nil); errors.As(err, &e) {
			w.noShare = fmt.Sprintf("the self-test's directory cannot be shown (%s: %v)", e.Op, e.Err)
		}
	} else {
		w.box, p = with, shared
	}
	w.weak = p.Weakened()
	for _, s := range p.Steps() {
		if _, at, ok := strings.Cut(s.Object, " on "); ok && strings.HasPrefix(at, "/") {
			w.mounts = append(w.mounts, strings.Fields(at)[0])
		}
	}
	return nil
}

// close removes everything, in the reverse order.
func (w *world) close() {
	for _, f := range slices.Backward(w.ends) {
		_ = f() // a descriptor of ours, or a directory in a temporary place
	}
}

// root reports whether ids of the sandbox are a range that only it has.
func (w *world) root() bool { return os.Geteuid() == 0 }

// weakened returns why something is not enforced here, as the plan says.
func (w *world) weakened(feature string) string {
	for _, l := range w.weak {
		if strings.HasPrefix(l, feature) {
			return l
		}
	}
	return ""
}

// errNoAnswer says that a probe ended without answering.
var errNoAnswer = errors.New("the probe did not answer")
