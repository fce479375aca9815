// Package policy holds what a sandbox may do in the terms of those who write
// policies: system calls, capabilities, files and networks, and where that was
// read. It is pure; package policy/files reads policies from files.
//
//	p := &policy.Policy{Caps: &caps.Sets{...}}
//	box := &spec.Sandbox{Toolchain: true, Policy: p}
//
// A Policy replaces the default filter of system calls if it has one, keeps the
// capabilities that it names, and otherwise only narrows. It is data: the record
// of a sandbox holds it whole, so that a file which changes later changes nothing.
package policy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Policy is what was asked for beyond the defaults. The zero value asks for nothing.
type Policy struct {
	// Seccomp replaces the default policy of system calls.
	Seccomp *seccomp.Policy `json:"seccomp,omitempty"`
	// Caps are the capabilities that are kept, none without it. They count in
	// the sandbox's own user namespace.
	Caps *caps.Sets `json:"caps,omitempty"`
	// Landlock narrows what the mounts allow. Its rules are about paths of the sandbox.
	Landlock *landlock.Config `json:"landlock,omitempty"`
	// Egress are rules about the network.
	Egress []Egress `json:"egress,omitempty"`
	// Dangerous names calls of the always-refused list that Seccomp may allow all the same.
	Dangerous []string `json:"dangerous,omitempty"`
	// Sources say where the above was read. They are for reports; nothing is read again.
	Sources []Source `json:"sources,omitempty"`
}

// Source is a file or profile that a policy was read from.
type Source struct {
	Kind   string `json:"kind"`             // one of the constants below
	Path   string `json:"path"`             // as it was given; of a profile, its name
	SHA256 string `json:"sha256,omitempty"` // of the content that was read, in hexadecimal
	Pinned bool   `json:"pinned,omitempty"` // the digest was demanded
}

// Kinds of sources.
const (
	KindPolicy   = "policy"   // a policy.toml
	KindSeccomp  = "seccomp"  // a seccomp profile, OCI JSON
	KindCaps     = "caps"     // a capability policy
	KindLandlock = "landlock" // a Landlock policy
	KindProfile  = "profile"  // a profile that is part of Nucleus
)

// Validate returns an error that names everything wrong with p, or nil.
func (p *Policy) Validate() error {
	if p == nil {
		return nil
	}
	var errs []error
	in := func(part string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", part, err))
		}
	}
	for _, name := range p.Dangerous {
		if !seccomp.AlwaysRefused(name) {
			in("dangerous", fmt.Errorf("%q is not on the list of calls that are always refused", name))
		}
	}
	if p.Seccomp != nil {
		in("seccomp", p.Seccomp.Validate())
		in("seccomp", p.refused())
	}
	if p.Caps != nil {
		in("caps", p.Caps.Validate())
	}
	if p.Landlock != nil {
		in("landlock", p.Landlock.Validate())
	}
	for i, e := range p.Egress {
		in(fmt.Sprintf("egress[%d]", i), e.Validate())
	}
	for i, s := range p.Sources {
		in(fmt.Sprintf("sources[%d]", i), s.validate())
	}
	return errors.Join(errs...)
}

// refused is an error if system calls are allowed that always need a name.
func (p *Policy) refused() error {
	var errs []error
	for _, d := range p.Seccomp.Dangerous() {
		if !slices.Contains(p.Dangerous, d.Call) {
			errs = append(errs, fmt.Errorf("%s is allowed, which is always refused: it %s; --allow-dangerous-syscall %s allows it all the same", d.Call, d.Why, d.Call))
		}
	}
	return errors.Join(errs...)
}

func (s Source) validate() error {
	if !slices.Contains([]string{KindPolicy, KindSeccomp, KindCaps, KindLandlock, KindProfile}, s.Kind) {
		return fmt.Errorf("no kind of source is called %q", s.Kind)
	}
	if s.Path == "" {
		return errors.New("a source has no path")
	}
	if s.SHA256 == "" && !s.Pinned {
		return nil
	}
	if b, err := hex.DecodeString(s.SHA256); err != nil || len(b) != 32 {
		return fmt.Errorf("%q is not a SHA-256 digest of 64 hexadecimal digits", s.SHA256)
	}
	return nil
}

// Pinned reports whether every file that p was read from was held against a
// digest that its user gave. Profiles are part of the program.
func (p *Policy) Pinned() bool {
	return p == nil || !slices.ContainsFunc(p.Sources, func(s Source) bool { return !s.Pinned && s.Kind != KindProfile })
}

// Kept returns the capabilities that p keeps.
func (p *Policy) Kept() caps.Sets {
	if p == nil || p.Caps == nil {
		return caps.Sets{}
	}
	return *p.Caps
}

// Name returns a short name for what decides about system calls.
func (p *Policy) Name() string {
	if p == nil || p.Seccomp == nil {
		return "default"
	}
	name := ""
	for _, s := range p.Sources {
		if s.Kind == KindPolicy || s.Kind == KindSeccomp || s.Kind == KindProfile {
			if name != "" {
				name += "+"
			}
			name += s.Path
		}
	}
	if name == "" {
		return "custom"
	}
	return name
}
