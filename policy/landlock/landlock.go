// Package landlock describes what a sandbox may do with files and ports, in the
// terms of the Landlock security module. It is pure: a [Config] is what is wanted,
// [Config.Downgrade] says what a kernel of a given Landlock ABI can enforce of it
// and what is lost, and a step of the plan loads the result.
//
//	c := landlock.Default().With(
//		landlock.PathRule{Path: "/usr", Allow: landlock.Read | landlock.Execute, Why: "programs"},
//		landlock.PathRule{Path: "/etc", Allow: landlock.Read, Why: "settings, not programs"},
//	)
//	ruleset, lost, err := c.Downgrade(abi)
//
// Landlock is a second wall and not the first: the sandbox's root already lacks
// what it should not see. Landlock holds when a path leads out of it all the same,
// through a descriptor that was left open or a mount made too wide. It does not
// stop what was open before, nor stat, chmod, chown, access and changes of time.
package landlock

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Config says what is refused and what is allowed all the same. A right that is
// not handled is not looked at; a handled one is refused wherever no rule allows
// it. The zero value handles nothing, so start from [Default].
type Config struct {
	HandleFS  Access     `json:"handle_fs"`            // rights over files that need a rule
	HandleNet NetAccess  `json:"handle_net,omitempty"` // rights over ports that need a rule
	Scopes    Scope      `json:"scopes,omitempty"`     // what outside the sandbox is out of reach
	Rules     []PathRule `json:"rules,omitempty"`      // exceptions for files
	Ports     []PortRule `json:"ports,omitempty"`      // exceptions for ports
	MinABI    int        `json:"min_abi,omitempty"`    // a kernel below this is refused
}

// PathRule allows rights on a file, or on a directory and all that is beneath it.
type PathRule struct {
	Path  string `json:"path"`           // absolute, as the sandbox sees it
	File  bool   `json:"file,omitempty"` // Path is a file; a directory otherwise
	Allow Access `json:"allow"`
	Why   string `json:"why"` // required: shown by Explain and in reports
}

// PortRule allows rights on one port, whatever the address.
type PortRule struct {
	Port  uint16    `json:"port"` // 0 is the kernel's choice, for BindTCP and BindUDP
	Allow NetAccess `json:"allow"`
	Why   string    `json:"why"` // required
}

// Default refuses every right over files, and signals and abstract sockets to the
// outside. It has no exceptions. Ports are not handled: the network namespace and
// the egress rules decide about those.
func Default() Config {
	return Config{HandleFS: All(Latest), Scopes: AllScopes(Latest)}
}

// With returns a copy of c that has these rules as well. Rules only ever allow,
// so their order does not matter.
func (c Config) With(rules ...PathRule) Config {
	c.Rules = slices.Concat(c.Rules, rules)
	return c
}

// WithPorts returns a copy of c that has these port rules as well.
func (c Config) WithPorts(rules ...PortRule) Config {
	c.Ports = slices.Concat(c.Ports, rules)
	return c
}

// Validate returns an error that names everything wrong with c, or nil.
func (c Config) Validate() error {
	errs := []error{
		unknownBits("HandleFS", uint64(c.HandleFS&^All(Latest))),
		unknownBits("HandleNet", uint64(c.HandleNet&^AllNet(Latest))),
		unknownBits("Scopes", uint64(c.Scopes&^AllScopes(Latest))),
	}
	if c.MinABI < 0 || c.MinABI > Latest {
		errs = append(errs, fmt.Errorf("no Landlock ABI %d is known; they are 1 to %d", c.MinABI, Latest))
	}
	isFile := make(map[string]bool, len(c.Rules))
	for i, r := range c.Rules {
		if err := r.validate(c.HandleFS); err != nil {
			errs = append(errs, fmt.Errorf("rules[%d] %s: %w", i, r.Path, err))
		}
		if file, ok := isFile[r.Path]; ok && file != r.File {
			errs = append(errs, fmt.Errorf("rules[%d] %s: another rule disagrees on whether it is a file", i, r.Path))
		}
		isFile[r.Path] = r.File
	}
	for i, r := range c.Ports {
		if err := r.validate(c.HandleNet); err != nil {
			errs = append(errs, fmt.Errorf("ports[%d] %d: %w", i, r.Port, err))
		}
	}
	return errors.Join(errs...)
}

func unknownBits(field string, rest uint64) error {
	if rest == 0 {
		return nil
	}
	return fmt.Errorf("%s has bits that no Landlock ABI up to %d knows: %#x", field, Latest, rest)
}

func (r PathRule) validate(handled Access) error {
	switch {
	case r.Why == "":
		return errors.New("no reason given (Why)")
	case !path.IsAbs(r.Path) || path.Clean(r.Path) != r.Path:
		return errors.New("the path is not absolute and clean")
	case r.Allow == 0:
		return errors.New("the rule allows nothing")
	case r.Allow&^handled != 0:
		return fmt.Errorf("allows %s, which HandleFS does not refuse", r.Allow&^handled)
	case !r.File:
		return nil
	case r.Allow&FileRights == 0:
		return fmt.Errorf("a file cannot have %s", r.Allow)
	case r.Allow&^(FileRights|ReadDir) != 0:
		// ReadDir is let through because the word Read holds it.
		return fmt.Errorf("a file cannot have %s", r.Allow&^(FileRights|ReadDir))
	}
	return nil
}

func (r PortRule) validate(handled NetAccess) error {
	switch {
	case r.Why == "":
		return errors.New("no reason given (Why)")
	case r.Allow == 0:
		return errors.New("the rule allows nothing")
	case r.Allow&^handled != 0:
		return fmt.Errorf("allows %s, which HandleNet does not refuse", r.Allow&^handled)
	}
	return nil
}

// Merged returns the path rules, sorted by path, with those of the same path made
// one: the kernel adds their rights up, so they must be judged together. Rights
// that a file cannot have are left out of rules on files.
func (c Config) Merged() []PathRule {
	rules := slices.Clone(c.Rules)
	slices.SortStableFunc(rules, func(a, b PathRule) int { return strings.Compare(a.Path, b.Path) })
	var out []PathRule
	for _, r := range rules {
		if r.File {
			r.Allow &= FileRights
		}
		if n := len(out); n > 0 && out[n-1].Path == r.Path {
			out[n-1].Allow |= r.Allow
			out[n-1].Why = both(out[n-1].Why, r.Why)
			continue
		}
		out = append(out, r)
	}
	return out
}

func both(why, other string) string {
	if why == other {
		return why
	}
	return why + "; " + other
}

// Allows returns the rights that the rules give on name, which is an absolute and
// clean path without symbolic links. Rights that c does not handle are included,
// with one exception that the kernel makes: Refer is refused unless it is handled
// and allowed, as soon as any right over files is handled.
func (c Config) Allows(name string) Access {
	allowed := All(Latest) &^ c.HandleFS
	if c.HandleFS != 0 {
		allowed &^= Refer
	}
	for _, r := range c.Rules {
		if r.covers(name) {
			allowed |= r.Allow
		}
	}
	return allowed
}

func (r PathRule) covers(name string) bool {
	if r.Path == name || r.Path == "/" {
		return true
	}
	return !r.File && strings.HasPrefix(name, r.Path+"/")
}

// WriteAndExecute returns the paths, of rules or of what is beneath them, where a
// file can be both written (or made) and executed: whoever gets code to run there
// can bring programs of his own. Rights that a parent's rule gives count.
func (c Config) WriteAndExecute() []string {
	var paths []string
	for _, r := range c.Merged() {
		got := c.Allows(r.Path)
		if got&Execute != 0 && got&(WriteFile|MakeReg) != 0 {
			paths = append(paths, r.Path)
		}
	}
	return paths
}

// Explain answers whether name may be used in that way, and which rule says so.
func (c Config) Explain(name string, want Access) string {
	var b strings.Builder
	missing := want &^ c.Allows(name)
	if missing == 0 {
		fmt.Fprintf(&b, "%s: %s is allowed\n", name, want)
	} else {
		fmt.Fprintf(&b, "%s: %s is refused\n", name, missing)
	}
	for _, r := range c.Merged() {
		if r.covers(name) && r.Allow&want != 0 {
			fmt.Fprintf(&b, "  %s allows %s: %s\n", r.Path, r.Allow&want, r.Why)
		}
	}
	if free := want &^ missing &^ c.HandleFS; free != 0 {
		fmt.Fprintf(&b, "  %s is not handled, so no rule is asked\n", free)
	}
	return b.String()
}

// String prints c for a reader, one rule a line.
func (c Config) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "refuse %s\n", c.HandleFS)
	if c.HandleNet != 0 {
		fmt.Fprintf(&b, "refuse %s\n", c.HandleNet)
	}
	if c.Scopes != 0 {
		fmt.Fprintf(&b, "keep inside %s\n", c.Scopes)
	}
	for _, r := range c.Merged() {
		fmt.Fprintln(&b, r)
	}
	for _, r := range c.Ports {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}

// String prints r on one line.
func (r PathRule) String() string {
	kind := "beneath"
	if r.File {
		kind = "file"
	}
	return fmt.Sprintf("allow %s %s: %s (%s)", kind, r.Path, r.Allow, r.Why)
}

// String prints r on one line.
func (r PortRule) String() string {
	return fmt.Sprintf("allow port %d: %s (%s)", r.Port, r.Allow, r.Why)
}
