package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// policyChange is one line of a comparison.
type policyChange struct {
	Sign   string `json:"sign"` // + more, - less, ± both, ~ neither
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
	// Example is a call that is answered differently.
	Example string `json:"example,omitempty"`
}

func sign(more, less bool) string {
	switch {
	case more && less:
		return "±"
	case more:
		return "+"
	case less:
		return "-"
	}
	return "~"
}

// policyDiff is `nucleus policy diff A B`.
func (c *call) policyDiff(names []string) (int, error) {
	if len(names) != 2 {
		return 0, usageError("say nucleus policy diff A B")
	}
	var two [2]*policy.Policy
	for i, name := range names {
		var err error
		if two[i], err = c.readPolicy(name); err != nil {
			return 0, err
		}
	}
	changes := differences(two[0], two[1])
	if c.opts.json {
		return outputJSON(append([]policyChange{}, changes...)), nil
	}
	if len(changes) == 0 {
		return output("they allow the same\n"), nil
	}
	var b strings.Builder
	for _, d := range changes {
		fmt.Fprintf(&b, "%s %s\n    before: %s\n    after:  %s\n", d.Sign, d.What, d.Before, d.After)
		if d.Example != "" {
			fmt.Fprintf(&b, "    such as %s\n", d.Example)
		}
	}
	b.WriteString("\n+ the second allows more, - less, ± both, ~ it refuses in another way\n")
	return output(lines(b.String())), nil
}

func differences(a, b *policy.Policy) []policyChange {
	out := callChanges(effective(a), effective(b))
	before, after := a.Kept().Named(), b.Kept().Named()
	for i := range before {
		if was, is := before[i].Set, after[i].Set; was != is {
			out = append(out, policyChange{Sign: sign(is.Diff(was) != 0, was.Diff(is) != 0), What: before[i].Name + " capabilities", Before: was.String(), After: is.String()})
		}
	}
	out = append(out, fileChanges(narrowest(a), narrowest(b))...)
	was, is := egress(a), egress(b)
	for _, r := range slices.Concat(was, is) {
		if have, had := slices.Contains(is, r), slices.Contains(was, r); have != had {
			out = append(out, policyChange{Sign: sign(have, had), What: "network rule", Before: present(had, r), After: present(have, r)})
		}
	}
	return out
}

func present(is bool, text string) string {
	if is {
		return text
	}
	return "no such rule"
}

func egress(p *policy.Policy) (out []string) {
	for _, e := range p.Egress {
		out = append(out, e.String())
	}
	return out
}

func callChanges(a, b seccomp.Policy) (out []policyChange) {
	for _, c := range seccomp.Diff(a, b) {
		d := policyChange{Sign: sign(c.More, c.Less), What: c.Call, Before: c.Before, After: c.After}
		if strings.Contains(c.Before+c.After, " when ") {
			args := make([]string, len(c.Example))
			for i, v := range c.Example {
				args[i] = fmt.Sprintf("%#x", v)
			}
			d.Example = fmt.Sprintf("%s(%s)", c.Call, strings.Join(args, ", "))
		}
		out = append(out, d)
	}
	return out
}

// narrowest is what a policy says about files; without rules, it refuses nothing.
func narrowest(p *policy.Policy) landlock.Config {
	if p.Landlock == nil {
		return landlock.Config{}
	}
	return *p.Landlock
}

// fileChanges compares the rights on every path and port that a rule names.
func fileChanges(a, b landlock.Config) (out []policyChange) {
	var paths []string
	for _, r := range slices.Concat(a.Rules, b.Rules) {
		paths = append(paths, r.Path)
	}
	if a.HandleFS != b.HandleFS {
		paths = append(paths, "/")
	}
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		was, is := a.Allows(path), b.Allows(path)
		if a.HandleFS == 0 {
			was = landlock.All(landlock.Latest)
		}
		if b.HandleFS == 0 {
			is = landlock.All(landlock.Latest)
		}
		if was != is {
			out = append(out, policyChange{Sign: sign(is&^was != 0, was&^is != 0), What: "files beneath " + path, Before: was.String(), After: is.String()})
		}
	}
	all := landlock.AllNet(landlock.Latest)
	if was, is := all&^a.HandleNet, all&^b.HandleNet; was != is {
		out = append(out, policyChange{Sign: sign(is&^was != 0, was&^is != 0), What: "any port", Before: was.String(), After: is.String()})
	}
	if was, is := a.Scopes, b.Scopes; was != is {
		out = append(out, policyChange{Sign: sign(was&^is != 0, is&^was != 0), What: "kept inside", Before: was.String(), After: is.String()})
	}
	return append(out, portChanges(a, b)...)
}

func portChanges(a, b landlock.Config) (out []policyChange) {
	rights := func(c landlock.Config, port uint16) (n landlock.NetAccess) {
		for _, r := range c.Ports {
			if r.Port == port {
				n |= r.Allow
			}
		}
		return n | landlock.AllNet(landlock.Latest)&^c.HandleNet
	}
	var ports []uint16
	for _, r := range slices.Concat(a.Ports, b.Ports) {
		ports = append(ports, r.Port)
	}
	slices.Sort(ports)
	for _, port := range slices.Compact(ports) {
		if was, is := rights(a, port), rights(b, port); was != is {
			out = append(out, policyChange{Sign: sign(is&^was != 0, was&^is != 0), What: fmt.Sprintf("port %d", port), Before: was.String(), After: is.String()})
		}
	}
	return out
}
