package landlock

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/internal/abi"
)

// Ruleset is what a kernel of one Landlock ABI can be asked for. It holds only
// rights that this kernel knows, and only rules that the kernel will accept.
type Ruleset struct {
	ABI       int // of the kernel; 0 when it has no Landlock
	HandleFS  Access
	HandleNet NetAccess
	Scopes    Scope
	Rules     []PathRule // merged, sorted by path
	Ports     []PortRule
}

// Lost is a part of a Config that a kernel cannot enforce.
type Lost struct {
	What    string // in words
	NeedABI int    // the Landlock ABI that has it
	Effect  string // what happens instead
	// Widens is true when the sandbox may do more than was asked for, and false
	// when it may do less.
	Widens bool
}

// Empty reports whether r restricts nothing, so that it must not be loaded: the
// kernel refuses an empty ruleset (ENOMSG).
func (r Ruleset) Empty() bool { return r.HandleFS == 0 && r.HandleNet == 0 && r.Scopes == 0 }

// Attr returns the struct landlock_ruleset_attr for landlock_create_ruleset, as
// long as the kernel of r.ABI knows it.
func (r Ruleset) Attr() []byte {
	attr := abi.LandlockRulesetAttr(uint64(r.HandleFS), uint64(r.HandleNet), uint64(r.Scopes))
	switch {
	case r.ABI >= 6:
		return attr[:abi.LandlockRulesetAttrSizeABI6]
	case r.ABI >= 4:
		return attr[:abi.LandlockRulesetAttrSizeABI4]
	}
	return attr[:abi.LandlockRulesetAttrSizeABI1]
}

// Downgrade returns what a kernel of this Landlock ABI (0: none) can enforce of c,
// and everything that it cannot. Nothing is dropped without being listed; whether
// a loss is acceptable is for the caller to say. An invalid c is an error.
//
// The ABI must be what the kernel answered, and one that lies is found only by
// trying: some vendors' kernels announce an ABI of which they lack a part.
func (c Config) Downgrade(kernelABI int) (Ruleset, []Lost, error) {
	if err := c.Validate(); err != nil {
		return Ruleset{}, nil, fmt.Errorf("landlock: %w", err)
	}
	have := upTo(kernelABI)
	r := Ruleset{
		ABI:       max(kernelABI, 0),
		HandleFS:  c.HandleFS & have.fs,
		HandleNet: c.HandleNet & have.net,
		Scopes:    c.Scopes & have.scope,
	}
	for _, rule := range c.Merged() {
		if rule.Allow &= r.HandleFS; rule.Allow != 0 {
			r.Rules = append(r.Rules, rule)
		}
	}
	for _, rule := range c.mergedPorts() {
		if rule.Allow &= r.HandleNet; rule.Allow != 0 {
			r.Ports = append(r.Ports, rule)
		}
	}
	return r, c.lost(kernelABI), nil
}

func (c Config) mergedPorts() []PortRule {
	rules := slices.Clone(c.Ports)
	slices.SortStableFunc(rules, func(a, b PortRule) int { return int(a.Port) - int(b.Port) })
	var out []PortRule
	for _, r := range rules {
		if n := len(out); n > 0 && out[n-1].Port == r.Port {
			out[n-1].Allow |= r.Allow
			out[n-1].Why = both(out[n-1].Why, r.Why)
			continue
		}
		out = append(out, r)
	}
	return out
}

// lost lists what the levels above the kernel's ABI would have enforced.
func (c Config) lost(kernelABI int) []Lost {
	var lost []Lost
	for _, l := range levels {
		if l.abi <= kernelABI {
			continue
		}
		if fs := c.HandleFS & l.fs; fs != 0 {
			if l.abi == 2 && c.HandleFS&All(kernelABI) != 0 {
				lost = append(lost, c.lostRefer()...)
			} else {
				lost = append(lost, Lost{
					What: "refusing " + fs.String(), NeedABI: l.abi, Widens: true,
					Effect: "allowed wherever file permissions allow it",
				})
			}
		}
		if net := c.HandleNet & l.net; net != 0 {
			lost = append(lost, Lost{
				What: "refusing " + net.String(), NeedABI: l.abi, Widens: true,
				Effect: "every port that the network namespace reaches is open",
			})
		}
		if scope := c.Scopes & l.scope; scope != 0 {
			lost = append(lost, Lost{
				What: "keeping inside " + scope.String(), NeedABI: l.abi, Widens: true,
				Effect: "only namespaces and user ids keep them inside",
			})
		}
	}
	return lost
}

// lostRefer is about ABI 1, which as soon as it handles any right over files
// refuses every link and rename across directories, and has no rule to allow it. The sandbox gets stricter.
func (c Config) lostRefer() []Lost {
	var paths []string
	for _, r := range c.Merged() {
		if r.Allow&Refer != 0 {
			paths = append(paths, r.Path)
		}
	}
	if len(paths) == 0 {
		return nil
	}
	return []Lost{{
		What: "allowing refer beneath " + strings.Join(paths, ", "), NeedABI: 2,
		Effect: "renames and links across directories always fail (EXDEV)",
	}}
}

// String prints l on one line.
func (l Lost) String() string {
	return fmt.Sprintf("%s needs Landlock ABI %d: %s", l.What, l.NeedABI, l.Effect)
}

// String prints r for a reader, one rule a line.
func (r Ruleset) String() string {
	if r.Empty() {
		return "no restriction\n"
	}
	return Config{HandleFS: r.HandleFS, HandleNet: r.HandleNet, Scopes: r.Scopes, Rules: r.Rules, Ports: r.Ports}.String()
}
