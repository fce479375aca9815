// Package seccomp describes which system calls a sandbox may make.
//
// It is pure: nothing here talks to the kernel. A [Policy] is a list of rules in
// words; [Policy.Compile] turns it into the classic BPF program that the kernel
// runs before each call, and [Program.Eval] runs that program here, so that a
// policy can be tested as an ordinary user on any machine. Loading the program is
// a step of the plan and not the business of this package.
//
//	p := seccomp.Default().With(seccomp.Rule{
//		Calls: []string{"ptrace"},
//		Do:    seccomp.Allow,
//		Why:   "this sandbox runs a debugger",
//	})
//	prog, err := p.Compile(seccomp.AMD64)
//
// A filter sees the call's number and its six argument words, nothing behind a
// pointer. What it refuses, it refuses to every thread and every descendant, for
// good: the kernel lets a process add filters and never take one off.
package seccomp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Action says what happens to a call. It is one of the constants below or the
// name of an error, as made by [Errno]. The zero value is not an action.
type Action string

// The actions that are not errors.
const (
	Allow       Action = "allow"        // the call runs
	KillProcess Action = "kill-process" // the process dies by SIGSYS, all threads
	KillThread  Action = "kill-thread"  // the thread dies, as the first filters had it
	Trap        Action = "trap"         // the thread gets SIGSYS, which it may handle
	Log         Action = "log"          // the call runs and the kernel logs it
	UserNotify  Action = "user-notify"  // a supervisor on the listener decides
)

// Errno is the action that answers a call with an error instead of running it.
// The name is the kernel's ("EPERM", "ENOSYS"); [Policy.Validate] refuses a name
// that does not exist.
func Errno(name string) Action { return Action(name) }

// Op compares an argument with a value. Comparisons are unsigned.
type Op uint8

// The comparisons. The zero value is none of them.
const (
	Eq       Op = iota + 1 // argument == Value
	Ne                     // argument != Value
	Lt                     // argument <  Value
	Le                     // argument <= Value
	Gt                     // argument >  Value
	Ge                     // argument >= Value
	MaskedEq               // argument & Mask == Value
)

// Cond is a condition on one argument of a call.
//
// Width must be the size of what the kernel reads. An argument of C type int is
// read from the low 32 bits of the register and the upper 32 are ignored, so a
// rule that refuses a value must ignore them as well: with Width 64, a caller
// would set an upper bit and pass (CVE-2019-10063, TIOCSTI out of flatpak).
type Cond struct {
	Arg   int    `json:"arg"`            // 0 to 5
	Op    Op     `json:"op"`             // the comparison
	Value uint64 `json:"value"`          // what to compare with
	Mask  uint64 `json:"mask,omitempty"` // MaskedEq only: the bits that count
	Width int    `json:"width"`          // 32 or 64
}

// Rule decides one family of calls.
type Rule struct {
	Calls []string `json:"calls"`          // names; a name that no architecture has is an error
	When  []Cond   `json:"when,omitempty"` // all must hold; none means always
	Do    Action   `json:"do"`             // what happens then
	Why   string   `json:"why"`            // required: shown by Explain and in reports
}

// Policy decides every call. The first rule that names the call and whose
// conditions hold wins.
//
// Before any rule, a call of a foreign architecture kills the process, and so
// does one of the x32 ABI on amd64: their numbers mean other calls, so that no
// rule could be trusted.
type Policy struct {
	Default Action `json:"default"`           // for a call that is known and decided by no rule
	Unknown Action `json:"unknown,omitempty"` // for a number that the table lacks; zero means ENOSYS
	Rules   []Rule `json:"rules,omitempty"`
}

// With returns a copy of p in which the given rules come before its own.
func (p Policy) With(rules ...Rule) Policy {
	p.Rules = slices.Concat(rules, p.Rules)
	return p
}

// Validate returns an error that names everything wrong with p, or nil.
func (p Policy) Validate() error {
	var errs []error
	if err := p.Default.validate(); err != nil {
		errs = append(errs, fmt.Errorf("default: %w", err))
	}
	if p.Unknown != "" {
		if err := p.Unknown.validate(); err != nil {
			errs = append(errs, fmt.Errorf("unknown: %w", err))
		}
	}
	for i, r := range p.Rules {
		if err := r.validate(); err != nil {
			errs = append(errs, fmt.Errorf("rules[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

func (r Rule) validate() error {
	var errs []error
	if r.Why == "" {
		errs = append(errs, errors.New("no reason given (Why)"))
	}
	if len(r.Calls) == 0 {
		errs = append(errs, errors.New("no calls named"))
	}
	for _, name := range r.Calls {
		if !Known(name) {
			errs = append(errs, fmt.Errorf("no system call is named %q", name))
		}
	}
	for i, c := range r.When {
		if err := c.validate(); err != nil {
			errs = append(errs, fmt.Errorf("when[%d]: %w", i, err))
		}
	}
	if err := r.Do.validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c Cond) validate() error {
	limit := ^uint64(0)
	if c.Width == 32 {
		limit = 1<<32 - 1
	}
	switch {
	case c.Arg < 0 || c.Arg > 5:
		return fmt.Errorf("a call has arguments 0 to 5, not %d", c.Arg)
	case c.Width != 32 && c.Width != 64:
		return fmt.Errorf("width is %d, want 32 or 64", c.Width)
	case c.Op < Eq || c.Op > MaskedEq:
		return fmt.Errorf("no comparison %d", c.Op)
	case c.Value > limit || c.Mask > limit:
		return fmt.Errorf("a value or mask exceeds 32 bits")
	case c.Op != MaskedEq && c.Mask != 0:
		return fmt.Errorf("a mask is for MaskedEq only")
	case c.Op == MaskedEq && c.Mask == 0:
		return fmt.Errorf("MaskedEq without a mask holds always or never")
	case c.Op == MaskedEq && c.Value&^c.Mask != 0:
		return fmt.Errorf("value %#x has bits outside mask %#x: it never holds", c.Value, c.Mask)
	}
	return nil
}

func (a Action) validate() error {
	if _, ok := a.encode(); !ok {
		return fmt.Errorf("no action %q", string(a))
	}
	return nil
}

// noName is what text says of the numbers that Unknown decides.
const noName = "a number without a name"

func (p Policy) unknown() Action {
	if p.Unknown == "" {
		return Errno("ENOSYS")
	}
	return p.Unknown
}

// Decide says what p does with one call. It reads the rules and not the
// compiled program, so that the one can be held against the other.
func (p Policy) Decide(a Arch, nr uint32, args [6]uint64) Action {
	if a == AMD64 && nr&x32Bit != 0 && nr != ^uint32(0) {
		return KillProcess
	}
	name, ok := a.Name(nr)
	if !ok {
		return p.unknown()
	}
	for _, r := range p.Rules {
		if slices.Contains(r.Calls, name) && r.holds(args) {
			return r.Do
		}
	}
	return p.Default
}

// Why is the reason of the rule by which p decides a call: that of the default
// action if there is none.
func (p Policy) Why(a Arch, nr uint32, args [6]uint64) string {
	name, ok := a.Name(nr)
	if !ok {
		return "no system call that Nucleus knows has this number"
	}
	for _, r := range p.Rules {
		if slices.Contains(r.Calls, name) && r.holds(args) {
			return r.Why
		}
	}
	return "no rule allows it"
}

func (r Rule) holds(args [6]uint64) bool {
	for _, c := range r.When {
		if !c.holds(args[c.Arg]) {
			return false
		}
	}
	return true
}

func (c Cond) holds(v uint64) bool {
	if c.Width == 32 {
		v = uint64(uint32(v))
	}
	switch c.Op {
	case Eq:
		return v == c.Value
	case Ne:
		return v != c.Value
	case Lt:
		return v < c.Value
	case Le:
		return v <= c.Value
	case Gt:
		return v > c.Value
	case Ge:
		return v >= c.Value
	case MaskedEq:
		return v&c.Mask == c.Value
	}
	return false
}

// String prints p in the order in which it is read, one rule a line.
func (p Policy) String() string {
	var b strings.Builder
	for _, r := range p.Rules {
		fmt.Fprintln(&b, r)
	}
	fmt.Fprintf(&b, "any other call: %s\n", p.Default)
	fmt.Fprintf(&b, "%s: %s\n", noName, p.unknown())
	return b.String()
}

// String prints r on one line.
func (r Rule) String() string {
	return fmt.Sprintf("%s: %s%s (%s)", strings.Join(r.Calls, " "), r.Do, when(r.When), r.Why)
}

// String prints c as a comparison.
func (c Cond) String() string {
	arg := fmt.Sprintf("arg%d", c.Arg)
	if c.Width == 32 {
		arg = fmt.Sprintf("int arg%d", c.Arg)
	}
	if c.Op == MaskedEq {
		return fmt.Sprintf("%s & %#x == %#x", arg, c.Mask, c.Value)
	}
	return fmt.Sprintf("%s %s %#x", arg, c.Op, c.Value)
}

// String returns the sign of the comparison.
func (o Op) String() string {
	signs := [...]string{Eq: "==", Ne: "!=", Lt: "<", Le: "<=", Gt: ">", Ge: ">=", MaskedEq: "&=="}
	if o < Eq || o > MaskedEq {
		return fmt.Sprintf("Op(%d)", uint8(o))
	}
	return signs[o]
}

// MarshalText writes the sign of the comparison.
func (o Op) MarshalText() ([]byte, error) {
	if o < Eq || o > MaskedEq {
		return nil, fmt.Errorf("no comparison %d", o)
	}
	return []byte(o.String()), nil
}

// UnmarshalText reads the sign of a comparison.
func (o *Op) UnmarshalText(text []byte) error {
	for *o = Eq; *o <= MaskedEq; *o++ {
		if o.String() == string(text) {
			return nil
		}
	}
	return fmt.Errorf("no comparison is written %q", text)
}

// Explain answers what p does with the call of that name, and why, in the order
// in which the rules are read.
func (p Policy) Explain(name string) string {
	if !Known(name) {
		return fmt.Sprintf("%s: no system call has this name\n", name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s):\n", name, numbers(name))
	for _, r := range p.Rules {
		if !slices.Contains(r.Calls, name) {
			continue
		}
		fmt.Fprintf(&b, "  %s%s: %s\n", r.Do, when(r.When), r.Why)
		if len(r.When) == 0 {
			return b.String()
		}
	}
	fmt.Fprintf(&b, "  %s: no other rule names it, so the default holds\n", p.Default)
	return b.String()
}

func when(conds []Cond) string {
	if len(conds) == 0 {
		return ""
	}
	text := make([]string, len(conds))
	for i, c := range conds {
		text[i] = c.String()
	}
	return " when " + strings.Join(text, " and ")
}

func numbers(name string) string {
	var text []string
	for _, a := range [...]Arch{AMD64, ARM64} {
		if nr, ok := a.Number(name); ok {
			text = append(text, fmt.Sprintf("%s %d", a, nr))
		}
	}
	return strings.Join(text, ", ")
}
