package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus"
)

// say writes to standard error. Standard output belongs to the workload.
func say(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, format, args...) // nowhere is left to say that this failed
}

// fail prints an error, its hint below it, and returns the exit code for it.
func fail(cmd *command, err error) int {
	say("nucleus: %s\n", message(cmd, err))
	if hint := hintOf(err); hint != "" {
		say("  hint: %s\n", hint)
	}
	var usage usageError
	switch {
	case errors.As(err, &usage), errors.Is(err, nucleus.ErrInvalid):
		return exitUsage
	case nucleus.NotFound(err):
		return exitNotFound
	case nucleus.NotExecutable(err):
		return exitNotExecutable
	}
	return exitFailed
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
		parts = append(parts, e.Error())
	}
	return strings.ReplaceAll(strings.Join(parts, "; "), "\n", "; ")
}

// each takes joined errors apart.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

func hintOf(err error) string {
	for _, e := range each(err) {
		var ne *nucleus.Error
		if errors.As(e, &ne) && ne.Hint != "" {
			return ne.Hint
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
