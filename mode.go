package nucleus

import (
	"errors"
	"fmt"

	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/spec"
)

// Invariant is one row of the table of modes: something that holds in the mode
// From and in every mode that demands more, or the sandbox does not start.
type Invariant struct {
	ID   string `json:"id"`
	From string `json:"from"`
	// When says what it is checked against: the description ("asked"), the
	// machine, the finished plan ("planned"), or what the kernel says before the
	// program can run.
	When string `json:"when"`
	What string `json:"what"`
	Why  string `json:"why"`
	Fix  string `json:"fix"`
}

// Invariants is the table of modes, the least demanding mode first.
func Invariants() []Invariant {
	var out []Invariant
	for _, row := range plan.Invariants() {
		out = append(out, Invariant{row.ID, row.From.String(), string(row.When), row.What, row.Why, row.Fix})
	}
	return out
}

// Check says what is wrong with a description without asking any machine: with
// its fields, and with what its mode demands of them.
func Check(s *spec.Sandbox) error {
	if err := s.Validate(); err != nil {
		return invalid(err)
	}
	if err := plan.JudgeAsked(s); err != nil {
		return planError(err)
	}
	return nil
}

// modeError turns a row that does not hold into words. What the description
// asks for is the caller's mistake; anything else is the machine's lack.
func modeError(row *plan.Broken) *Error {
	e := &Error{Stage: StageMode, Step: -1, Op: row.Mode.String(), Object: row.Invariant.ID, Hint: row.Invariant.Fix}
	if row.Invariant.When == plan.Asked {
		e.Err = invalidError{errors.New(row.Found)}
		return e
	}
	e.Err = fmt.Errorf("%s: %w", row.Found, ErrUnsupported)
	return e
}
