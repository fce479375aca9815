package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/store"
)

// say writes to standard error. Standard output belongs to the workload.
func say(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, format, args...) // nowhere is left to say that this failed
}

// fail prints an error, its hint below it, and returns the exit code for it.
func fail(cmd *command, err error) int {
	if rows := modeRows(err); rows != "" {
		say("%s", rows)
	} else {
		say("nucleus: %s\n", message(cmd, err))
		if hint := hintOf(err); hint != "" {
			say("  hint: %s\n", hint)
		}
	}
	var usage usageError
	var start *store.StartError
	switch {
	case errors.As(err, &usage), errors.Is(err, nucleus.ErrInvalid):
		return exitUsage
	case errors.As(err, &start) && start.Code != 0:
		return start.Code
	case errors.Is(err, nucleus.ErrStarting):
		return exitNo
	case nucleus.NotFound(err):
		return exitNotFound
	case nucleus.NotExecutable(err):
		return exitNotExecutable
	}
	return exitFailed
}

// modeRows says which rows of a mode do not hold, each on a line of its own. An
// error about anything else is no such thing.
func modeRows(err error) string {
	var b strings.Builder
	for _, e := range each(err) {
		var ne *nucleus.Error
		if !errors.As(e, &ne) || ne.Stage != nucleus.StageMode {
			return ""
		}
		line := fmt.Sprintf("nucleus: %s: %s: %v; %s", ne.Op, ne.Object, ne.Err, ne.Hint)
		b.WriteString(strings.ReplaceAll(line, "\n", "; ") + "\n")
	}
	return b.String()
}

// message is the error on one line, in the words of the command line: a problem
// with a field of the spec is one with the flag that sets it.
func message(cmd *command, err error) string {
	var parts []string
	for _, e := range each(err) {
		var ne *nucleus.Error
		if errors.As(e, &ne) && ne.Stage == nucleus.StageValidate && ne.Because != "" {
			parts = append(parts, cmd.flagFor(ne.Because)+": "+ne.Err.Error())
			continue
		}
		if errors.Is(e, context.Canceled) {
			parts = append(parts, "interrupted")
			continue
		}
		parts = append(parts, e.Error())
	}
	return strings.ReplaceAll(strings.Join(parts, "; "), "\n", "; ")
}

// each takes joined errors apart, and those that are joined from joined ones. An
// error that says something about several others stays whole.
func each(err error) (all []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || err.Error() != errors.Join(joined.Unwrap()...).Error() {
		return []error{err}
	}
	for _, e := range joined.Unwrap() {
		all = append(all, each(e)...)
	}
	return all
}

// lookUp finds a sandbox, or says which one may have been meant.
func lookUp(s *store.Store, ref string) (*store.Sandbox, error) {
	b, err := s.Sandbox(ref)
	if errors.Is(err, store.ErrNotFound) {
		known, _ := sandboxNames(s.Path(), "") // a suggestion is all that is lost
		if near := nearest(ref, known); near != "" {
			err = &wordedError{fmt.Sprintf("no sandbox %s; did you mean %s?", quote(ref), near), err}
		}
	}
	return b, err
}

func hintOf(err error) string {
	for _, e := range each(err) {
		var ne *nucleus.Error
		if errors.As(e, &ne) && ne.Hint != "" {
			return ne.Hint
		}
		var start *store.StartError
		if errors.As(e, &start) {
			return start.Hint
		}
	}
	return ""
}

// flagFor names the flag that sets a field of the spec, the longest that fits.
func (c *command) flagFor(field string) string {
	best, name := "", field
	for f := range c.all() {
		if f.field != "" && strings.HasPrefix(field, f.field) && len(f.field) > len(best) {
			best, name = f.field, "--"+f.name
		}
	}
	return name
}

// exitCode says how the workload ended, as a shell would.
func exitCode(o *nucleus.Outcome) int {
	switch {
	case o.Reason == nucleus.DeadlineExceeded:
		return exitTimeout
	case o.Signal != 0:
		return exitSignal + int(o.Signal)
	}
	return o.Code
}

// outOfMemory is what a shell reports of a program that the kernel killed.
const outOfMemory = exitSignal + int(syscall.SIGKILL)
