package caps

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Sets are the five sets of a process (capabilities(7)), as the programs of a
// sandbox have them. The zero value is empty in all five.
//
// What is ambient is what a program has: with no_new_privs and without the
// meaning of user id 0, executing a program leaves it the ambient set as its
// permitted and effective sets and nothing more. So those three must be the same,
// and the wider sets must include them.
type Sets struct {
	Bounding    Set `json:"bounding,omitempty"`
	Permitted   Set `json:"permitted,omitempty"`
	Effective   Set `json:"effective,omitempty"`
	Inheritable Set `json:"inheritable,omitempty"`
	Ambient     Set `json:"ambient,omitempty"`
}

// Keep returns the sets with which programs have these capabilities.
func Keep(s Set) Sets { return Sets{s, s, s, s, s} }

// Empty reports whether nothing is kept.
func (s Sets) Empty() bool { return s == Sets{} }

// Any returns what is in at least one of the sets.
func (s Sets) Any() Set { return s.Bounding | s.Permitted | s.Effective | s.Inheritable | s.Ambient }

// Named returns the sets by their names in policies, in the order of the fields.
func (s Sets) Named() [5]NamedSet {
	return [5]NamedSet{
		{"bounding", s.Bounding}, {"permitted", s.Permitted}, {"effective", s.Effective},
		{"inheritable", s.Inheritable}, {"ambient", s.Ambient},
	}
}

// NamedSet is one of the five sets.
type NamedSet struct {
	Name string
	Set  Set
}

// Validate returns an error that names everything that a kernel would not do
// as s says it, or nil.
func (s Sets) Validate() error {
	var errs []error
	for _, n := range s.Named() {
		if rest := n.Set &^ All; rest != 0 {
			errs = append(errs, fmt.Errorf("%s: %s has no name here", n.Name, rest))
		}
	}
	lacks := func(name string, rest Set, why string) {
		if rest != 0 {
			errs = append(errs, fmt.Errorf("%s: %s %s", name, rest, why))
		}
	}
	const lost = "is not ambient, so the program that is executed would not have it"
	lacks("permitted", s.Permitted&^s.Ambient, lost)
	lacks("effective", s.Effective&^s.Ambient, lost)
	const gained = "is ambient, so the program that is executed has it: name it here too"
	lacks("permitted", s.Ambient&^s.Permitted, gained)
	lacks("effective", s.Ambient&^s.Effective, gained)
	lacks("inheritable", s.Ambient&^s.Inheritable, "is ambient, which the kernel allows only of what is inheritable")
	lacks("bounding", s.Inheritable&^s.Bounding, "is inheritable and must not be outside of the bounding set")
	return errors.Join(errs...)
}

// String prints what is kept.
func (s Sets) String() string {
	if s.Empty() {
		return "none, in any of the five sets"
	}
	if s == Keep(s.Ambient) {
		return s.Ambient.String() + ", in all five sets"
	}
	var parts []string
	for _, n := range s.Named() {
		parts = append(parts, n.Name+" "+n.Set.String())
	}
	return strings.Join(parts, "; ")
}

// MarshalText writes the names of the members.
func (s Set) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Set) UnmarshalText(text []byte) error {
	*s = 0
	if string(text) == "none" {
		return nil
	}
	for name := range strings.SplitSeq(string(text), ",") {
		c, err := ParseCap(name)
		if no, ok := strings.CutPrefix(name, "CAP_"); ok && err != nil {
			n, nerr := strconv.ParseUint(no, 10, 6) // of a newer kernel
			c, err = Cap(n), nerr
		}
		if err != nil {
			return fmt.Errorf("no capability is named %q", name)
		}
		*s = s.With(c)
	}
	return nil
}
