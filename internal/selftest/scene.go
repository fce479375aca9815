package selftest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
)

// probePath is how the program is executed: by its descriptor, so that nothing is
// mounted for it.
func probePath() string { return fmt.Sprint("/proc/self/fd/", imageFD) }

// perform makes all attempts: those that are questions in one sandbox, the
// controls each in a process of their kind, the others one by one.
func (w *world) perform(all []asked) error {
	if err := w.questions(all); err != nil {
		return err
	}
	for _, with := range []control{outside, namespaces} {
		if err := w.controls(all, with); err != nil {
			return err
		}
	}
	for i := range all {
		a := &all[i]
		if a.skip != "" || a.do == nil {
			continue
		}
		w.progress(a.how)
		a.answer, a.skip = a.do(w)
	}
	return w.ctx.Err()
}

func (w *world) progress(what string) {
	if w.o.Progress != nil {
		w.o.Progress(what)
	}
}

// questions puts every question to a probe in a sandbox. While it waits, the
// Report on it is asked for.
func (w *world) questions(all []asked) error {
	var qs []string
	var to []*asked
	for i := range all {
		if a := &all[i]; a.ask != "" && a.skip == "" {
			qs, to = append(qs, w.places(a.ask, true)), append(to, a)
		}
	}
	w.progress(fmt.Sprintf("%d questions in a sandbox", len(qs)))
	answers, err := w.inside(&w.box, append(qs, "wait"), func(p *nucleus.Process) { _, w.report = p.Report() })
	if err != nil && (!errors.Is(err, errNoAnswer) || w.plain.Policy != nil) {
		return w.unfit(err)
	}
	for _, a := range to {
		a.answer = "none: " + fmt.Sprint(err)
	}
	for i, a := range to {
		if i < len(answers) {
			a.answer = answers[i]
		}
	}
	return nil
}

// unfit says, of a sandbox with a policy in which the probe does not answer, that
// the policy may be the reason.
func (w *world) unfit(err error) error {
	if !errors.Is(err, errNoAnswer) {
		return err
	}
	return &nucleus.Error{Stage: nucleus.StageSupervise, Step: -1, Op: "ask", Object: "the self-test's program", Because: "policy", Err: errNoAnswer,
		Hint: "it is a Go program, and the policy may refuse what such programs need; try the claims without the policy, and the policy with its own program"}
}

// inside puts questions to a probe in a sandbox. If the last is "wait", it lives
// until meanwhile has returned.
func (w *world) inside(s *spec.Sandbox, questions []string, meanwhile func(*nucleus.Process)) ([]string, error) {
	c := w.command(s, questions...)
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var errOut bytes.Buffer
	c.Stderr = &errOut
	if err := c.Start(); err != nil {
		return nil, err
	}
	var answers []string
	decodeErr := json.NewDecoder(out).Decode(&answers)
	if decodeErr == nil && meanwhile != nil {
		meanwhile(c.Process)
	}
	_ = in.Close() // it may have ended
	err = c.Wait()
	if want := len(questions) - 1; meanwhile != nil && decodeErr == nil && len(answers) != want {
		decodeErr = fmt.Errorf("%d answers to %d questions", len(answers), want)
	}
	if err != nil || decodeErr != nil {
		return nil, errors.Join(errNoAnswer, err, decodeErr, errors.New(strings.TrimSpace(errOut.String())))
	}
	return answers, out.Close()
}

// command is the probe in a sandbox.
func (w *world) command(s *spec.Sandbox, questions ...string) *nucleus.Cmd {
	c := w.o.Command(s, probePath(), slices.Concat(w.o.Args, questions)...)
	c.Args[0] = "nucleus"
	c.ExtraFiles = []*os.File{w.image, w.hostDir}
	return c
}

// control says what an attempt is compared with.
type control string

const (
	none control = ""
	// outside is a process like any other of the caller's.
	outside control = "outside"
	// namespaces is a process in user, mount, process, network, ipc and uts
	// namespaces of its own, as unshare(1) makes them, with every capability there.
	// What it does to those it does to nobody else.
	namespaces control = "namespaces"
)

// controls puts the same questions where there is no sandbox. A kernel that does
// not permit such a process permits no comparison; that is no failure.
func (w *world) controls(all []asked, with control) error {
	var qs []string
	var to []*asked
	for i := range all {
		if a := &all[i]; a.with == with && a.skip == "" {
			q := a.ask
			if a.instead != "" {
				q = a.instead
			}
			qs, to = append(qs, w.places(q, false)), append(to, a)
		}
	}
	if len(qs) == 0 {
		return nil
	}
	w.progress(fmt.Sprintf("the same without a sandbox (%s)", with))
	cmd := exec.CommandContext(w.ctx, w.o.Program, slices.Concat(w.o.Args, qs)...)
	cmd.Args[0] = "nucleus"
	cmd.ExtraFiles = []*os.File{w.image, w.hostDir}
	if with == namespaces {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
	}
	out, err := cmd.Output()
	var answers []string
	if err == nil {
		err = json.Unmarshal(out, &answers)
	}
	if err != nil || len(answers) != len(to) {
		return w.ctx.Err() // without a control there is less to say, and that is said
	}
	for i, a := range to {
		a.control = answers[i]
	}
	return nil
}

// places writes the places of a question for a probe inside or outside.
func (w *world) places(q string, in bool) string {
	esc := func(s string) string { return strings.ReplaceAll(s, " ", `\040`) }
	ro, rw, tmp := esc(w.dir+"/ro"), esc(w.dir+"/rw"), esc(w.dir+"/tmp")
	if in {
		ro, rw, tmp = inside+"/ro", inside+"/rw", "/tmp"
	}
	return strings.NewReplacer("{ro}", ro, "{rw}", rw, "{tmp}", tmp, "{dir}", esc(w.dir), "{self}", fmt.Sprint(os.Getpid())).Replace(q)
}

// gone waits for the end of an output that processes of a sandbox have.
func (w *world) gone(r io.Reader) bool {
	done := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, r); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(w.o.Patience):
		return false
	}
}

// act runs a probe that does something in a sandbox of its own, and says how the
// sandbox ended, and whether everything in it did.
func (w *world) act(s *spec.Sandbox, what string) (ended error, all bool, err error) {
	r, out, err := os.Pipe()
	if err != nil {
		return nil, false, err
	}
	defer r.Close()
	c := w.command(s, what)
	c.Stdout = out
	err = c.Start()
	_ = out.Close() // the sandbox has it
	if err != nil {
		return nil, false, err
	}
	ended = c.Wait()
	return ended, w.gone(r), nil
}

// Attempts that are sandboxes of their own. Each returns its answer, or why there
// is none.

func daemonsEnd(w *world) (answer, skip string) {
	ended, all, err := w.act(&w.plain, "daemon")
	switch {
	case err != nil:
		return err.Error(), ""
	case ended != nil:
		return ended.Error(), ""
	case !all:
		return "a process is left", ""
	}
	return "all have ended", ""
}

func timeoutEnds(w *world) (answer, skip string) {
	s := w.plain
	s.Timeout = 50 * time.Millisecond
	ended, all, err := w.act(&s, "hang")
	var exit *nucleus.ExitError
	switch {
	case err != nil:
		return err.Error(), ""
	case !errors.As(ended, &exit) || exit.Reason != nucleus.DeadlineExceeded:
		return fmt.Sprint(ended), ""
	case !all:
		return "a process is left", ""
	}
	return ended.Error(), ""
}

func memoryBounded(w *world) (answer, skip string) {
	s := w.plain
	if s.Limits.Memory == 0 || s.Limits.Memory > 64*spec.MiB {
		s.Limits.Memory, s.Limits.MemorySwap = 64*spec.MiB, 0
	}
	if _, err := nucleus.Command(&s, "true").Plan(); err != nil {
		return "", "limits of memory are refused here: " + err.Error()
	}
	ended, _, err := w.act(&s, "eat 192")
	var exit *nucleus.ExitError
	switch {
	case err != nil:
		return err.Error(), ""
	case !errors.As(ended, &exit) || exit.Reason != nucleus.OutOfMemory:
		return fmt.Sprint("it went on: ", ended), ""
	}
	return ended.Error(), ""
}

func scratchBounded(w *world) (answer, skip string) {
	s := w.plain
	s.Scratch = spec.MiB
	answers, err := w.inside(&s, []string{"fill /tmp/nucleus-selftest 2"}, nil)
	if err != nil {
		return err.Error(), ""
	}
	return answers[0], ""
}

// rangesDiffer compares the ids of two sandboxes that run at the same time.
func rangesDiffer(w *world) (answer, skip string) {
	ask := []string{"read /proc/self/uid_map", "wait"}
	var second []string
	var secondErr error
	c := w.command(&w.plain, ask...)
	in, err1 := c.StdinPipe()
	out, err2 := c.StdoutPipe()
	if err := errors.Join(err1, err2, c.Start()); err != nil {
		return err.Error(), ""
	}
	var first []string
	err := json.NewDecoder(out).Decode(&first)
	if err == nil {
		second, secondErr = w.inside(&w.plain, ask[:1], nil)
	}
	_ = in.Close() // it may have ended
	if err := errors.Join(err, secondErr, c.Wait(), out.Close()); err != nil {
		return err.Error(), ""
	}
	if strings.Join(strings.Fields(first[0]), " ") == strings.Join(strings.Fields(second[0]), " ") {
		return "both are " + first[0], ""
	}
	return "they differ", ""
}

// ownerIs asks who owns on the host what the sandbox made.
func ownerIs(w *world) (answer, skip string) {
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(w.dir, "rw/made-by"), &st); err != nil {
		return err.Error(), ""
	}
	if int(st.Uid) == os.Geteuid() {
		return "the owner of the directory", ""
	}
	return fmt.Sprint("user ", st.Uid), ""
}

// reportAgrees says what the Report said while the probe waited.
func reportAgrees(w *world) (answer, skip string) {
	if w.report != nil {
		return w.report.Error(), ""
	}
	return "it does", ""
}
