package nucleus

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/enter"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/spec"
)

// Stage is a part of the way from a description to a running program.
type Stage string

// The stages, in order.
const (
	StageValidate  Stage = "validate"
	StageProbe     Stage = "probe"
	StageResolve   Stage = "resolve"
	StageMode      Stage = "mode" // a row of the table of modes does not hold
	StagePlan      Stage = "plan"
	StageEnter     Stage = "enter"
	StageSupervise Stage = "supervise"
)

// Errors to compare with, by errors.Is.
var (
	// ErrInvalid: the description is wrong.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported: this machine cannot do what was asked for.
	ErrUnsupported = errors.New("not supported here")
	// ErrWaitDelay: copying was still going on WaitDelay after the end.
	ErrWaitDelay = errors.New("nucleus: WaitDelay expired before copying was done")
)

const (
	errBrokenPipe   = syscall.EPIPE
	errTerminalGone = syscall.EIO
)

// Error says what could not be done: at which stage and step, to what, why, and
// what to do about it.
type Error struct {
	Stage   Stage
	Step    int    // position in the plan, or -1
	Op      string // kernel call or action
	Object  string // what it was about, as the user wrote it
	Because string // field of the description
	Hint    string // what to do; empty rather than vague
	Err     error  // errno or cause

	plan *plan.Plan
}

// Error is one line.
func (e *Error) Error() string {
	s := string(e.Stage) + ":"
	for _, part := range []string{e.Op, e.Object} {
		if part != "" {
			s += " " + part
		}
	}
	s += ": " + e.Err.Error()
	switch {
	case e.Step >= 0:
		s += fmt.Sprintf(" (step %d, because %s)", e.Step, e.Because)
	case e.Because != "":
		s += fmt.Sprintf(" (because %s)", e.Because)
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Format prints the error; %+v adds the hint and the plan with an arrow at the step.
func (e *Error) Format(f fmt.State, verb rune) {
	_, _ = io.WriteString(f, e.Error())
	if verb != 'v' || !f.Flag('+') {
		return
	}
	if e.Hint != "" {
		fmt.Fprintf(f, "\n  hint: %s", e.Hint)
	}
	if e.plan == nil {
		return
	}
	for i, s := range e.plan.Steps {
		arrow := "  "
		if i == e.Step {
			arrow = "=>"
		}
		fmt.Fprintf(f, "\n%s %3d %-6s %-17s %s", arrow, i, s.Where, s.Do.Call(), s.Do)
	}
}

// stepError turns a failed step into words.
func stepError(p *Plan, err error) error {
	var step *enter.StepError
	if !errors.As(err, &step) {
		return &Error{Stage: StageEnter, Step: -1, Op: "start", Object: "sandbox", Err: err, plan: p.plan}
	}
	if step.Call == "setns" && errors.Is(step.Err, syscall.ESRCH) {
		step.Err = os.ErrProcessDone // the sandbox has ended since it was found
	}
	return &Error{
		Stage: StageEnter, Step: step.Index, Op: step.Call, Object: object(step.Step.Do), Because: step.Step.Because,
		Hint: hint(step, p.host), Err: cause(err, step), plan: p.plan,
	}
}

// object is what a step is about, in one line.
func object(a plan.Action) string {
	first, _, _ := strings.Cut(a.String(), "\n")
	return first
}

// cause is what remains of a step's error when the step itself has been named.
func cause(err error, step *enter.StepError) error {
	errs := []error{step.Err}
	for _, e := range leaves(err) {
		if e != error(step) {
			errs = append(errs, fmt.Errorf("and cleaning up: %w", e))
		}
	}
	return join(errs)
}

// leaves takes joined errors apart, and those that are joined from joined ones.
func leaves(err error) (out []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	for _, e := range joined.Unwrap() {
		out = append(out, leaves(e)...)
	}
	return out
}

// planError turns what Build found into words.
func planError(err error) error {
	var out []error
	for _, e := range split(err) {
		var u *plan.Unsupported
		var row *plan.Broken
		if errors.As(e, &row) {
			out = append(out, modeError(row))
			continue
		}
		if !errors.As(e, &u) {
			out = append(out, &Error{Stage: StagePlan, Step: -1, Op: "make", Object: "plan", Err: e})
			continue
		}
		if strings.HasSuffix(u.Field, ".source") { // of the host's files, what was named is the wrong one: no machine could take it
			out = append(out, &Error{Stage: StageValidate, Step: -1, Op: "check", Object: u.Field, Because: u.Field, Hint: u.Fix, Err: invalidError{u}})
			continue
		}
		out = append(out, &Error{Stage: StagePlan, Step: -1, Op: "enforce", Object: u.Field, Because: u.Field, Hint: u.Fix, Err: fmt.Errorf("%w: %w", u, ErrUnsupported)})
	}
	return join(out)
}

// invalid turns what Validate found into words.
func invalid(err error) error {
	var out []error
	for _, e := range split(err) {
		field := ""
		var p *spec.Problem
		if errors.As(e, &p) {
			field, e = p.Field, errors.New(p.Why)
		}
		out = append(out, &Error{Stage: StageValidate, Step: -1, Op: "check", Object: field, Because: field, Err: invalidError{e}})
	}
	return join(out)
}

// invalidError is an ErrInvalid with its own words.
type invalidError struct{ error }

func (invalidError) Is(target error) bool { return target == ErrInvalid }

func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

func join(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// NotFound reports whether err says that the program does not exist in the sandbox.
func NotFound(err error) bool { return execFailed(err) && errors.Is(err, fs.ErrNotExist) }

// NotExecutable reports whether err says that the program was found in the
// sandbox and cannot be executed.
func NotExecutable(err error) bool { return execFailed(err) && !errors.Is(err, fs.ErrNotExist) }

func execFailed(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Stage == StageEnter && e.Op == "execve"
}

// Invalid turns what the Validate methods of package spec say into an error that
// names the fields; nil stays nil.
func Invalid(err error) error {
	if err == nil {
		return nil
	}
	return invalid(err)
}
