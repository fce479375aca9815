package files

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/profiles"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// policyForm is a policy.toml.
type policyForm struct {
	Extends  []string      `toml:"extends"`
	Seccomp  *seccompForm  `toml:"seccomp"`
	Caps     *capsForm     `toml:"caps"`
	Landlock *landlockForm `toml:"landlock"`
	Egress   []egressForm  `toml:"egress"`
}

type seccompForm struct {
	Default string     `toml:"default"`
	Unknown string     `toml:"unknown"`
	Rules   []ruleForm `toml:"rules"`
}

type ruleForm struct {
	Calls []string `toml:"calls"`
	When  []string `toml:"when"`
	Do    string   `toml:"do"`
	Why   string   `toml:"why"`
	// Evidence is what a generator has seen. It is for people: nothing reads it.
	Evidence string `toml:"evidence"`
}

type egressForm struct {
	Do       string   `toml:"do"`
	Host     string   `toml:"host"`
	CIDR     string   `toml:"cidr"`
	Ports    []uint16 `toml:"ports"`
	Protocol string   `toml:"protocol"`
	Why      string   `toml:"why"`
}

// ParsePolicy reads a policy.toml. Calls of the always-refused list that it
// allows are not its business: [Load] and [policy.Policy.Validate] refuse them.
func ParsePolicy(path string, data []byte) (*policy.Policy, error) {
	d := document{path, data}
	var f policyForm
	if err := d.decode(&f); err != nil {
		return nil, err
	}
	p := new(policy.Policy)
	var err error
	if p.Seccomp, err = d.seccomp(f); err != nil {
		return nil, err
	}
	for _, name := range f.Extends {
		p.Sources = append(p.Sources, policy.Source{Kind: policy.KindProfile, Path: name})
	}
	if f.Caps != nil {
		if p.Caps, err = d.caps(*f.Caps); err != nil {
			return nil, err
		}
	}
	if f.Landlock != nil {
		if p.Landlock, err = d.landlock(*f.Landlock, "landlock."); err != nil {
			return nil, err
		}
	}
	for i, e := range f.Egress {
		rule, err := e.rule()
		if err != nil {
			return nil, d.element("egress", i, err)
		}
		p.Egress = append(p.Egress, rule)
	}
	return p, nil
}

// seccomp intersects the profiles that the document extends with its own rules.
func (d document) seccomp(f policyForm) (*seccomp.Policy, error) {
	var all []seccomp.Policy
	for i, name := range f.Extends {
		p, err := profiles.Get(name)
		if err != nil {
			return nil, d.value(name, err)
		}
		if slices.Contains(f.Extends[:i], name) {
			return nil, d.value(name, errors.New("extends names "+name+" twice"))
		}
		all = append(all, p.Seccomp)
	}
	if f.Seccomp != nil {
		own, err := d.own(*f.Seccomp)
		if err != nil {
			return nil, err
		}
		all = append(all, own)
	}
	if len(all) == 0 {
		return nil, nil
	}
	p := seccomp.Intersect(all...)
	return &p, nil
}

func (d document) own(f seccompForm) (seccomp.Policy, error) {
	p := seccomp.Policy{Default: seccomp.Action(f.Default), Unknown: seccomp.Action(f.Unknown)}
	if f.Default == "" {
		return p, fmt.Errorf("%s: default is missing: what happens to a call that no rule names", place(d.path, d.lineOf("[seccomp]")))
	}
	for i, r := range f.Rules {
		rule := seccomp.Rule{Calls: r.Calls, Do: seccomp.Action(r.Do), Why: r.Why}
		if rule.Why == "" {
			rule.Why = fmt.Sprintf("%s, seccomp.rules[%d]", d.path, i)
		}
		for _, text := range r.When {
			c, err := parseCond(text)
			if err != nil {
				return p, d.element("seccomp.rules", i, err)
			}
			rule.When = append(rule.When, c)
		}
		if err := (seccomp.Policy{Default: seccomp.Allow, Rules: []seccomp.Rule{rule}}).Validate(); err != nil {
			return p, d.element("seccomp.rules", i, errors.New(strings.TrimPrefix(err.Error(), "rules[0]: ")))
		}
		p.Rules = append(p.Rules, rule)
	}
	if err := p.Validate(); err != nil {
		return p, fmt.Errorf("%s: seccomp: %w", d.path, err)
	}
	return p, nil
}

// parseCond reads a condition as [seccomp.Cond.String] writes it: "arg0 == 0x2",
// "int arg1 & 0xf == 0x1".
func parseCond(text string) (seccomp.Cond, error) {
	c := seccomp.Cond{Width: 64}
	bad := fmt.Errorf("%q is not a condition such as \"arg0 == 2\", \"int arg1 & 0xf == 1\" (comparisons: == != < <= > >=)", text)
	words := strings.Fields(text)
	if len(words) > 0 && words[0] == "int" {
		c.Width, words = 32, words[1:]
	}
	if len(words) != 3 && len(words) != 5 {
		return c, bad
	}
	arg, ok := strings.CutPrefix(words[0], "arg")
	n, err := strconv.ParseUint(arg, 10, 8)
	if !ok || err != nil || len(arg) != 1 || n > 5 {
		return c, bad
	}
	c.Arg = int(n)
	number := func(word string) uint64 {
		v, e := strconv.ParseUint(word, 0, c.Width)
		if e != nil || strings.Contains(word, "_") {
			err = bad
		}
		return v
	}
	if len(words) == 5 {
		if words[1] != "&" || words[3] != "==" {
			return c, bad
		}
		c.Op, c.Mask, c.Value = seccomp.MaskedEq, number(words[2]), number(words[4])
		return c, err
	}
	if c.Op.UnmarshalText([]byte(words[1])) != nil || c.Op == seccomp.MaskedEq {
		return c, bad
	}
	c.Value = number(words[2])
	return c, err
}

func (f egressForm) rule() (policy.Egress, error) {
	e := policy.Egress{Allow: f.Do == "allow", Host: f.Host, CIDR: f.CIDR, Ports: f.Ports, Protocol: f.Protocol, Why: f.Why}
	if f.Do != "allow" && f.Do != "refuse" {
		return e, fmt.Errorf("do is %q, not allow or refuse", f.Do)
	}
	return e, e.Validate()
}
