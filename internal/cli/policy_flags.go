package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/files"
	"github.com/nucleus-container/nucleus/policy/profiles"
	"github.com/nucleus-container/nucleus/spec"
)

// profileWords are the profiles, for completion.
const profileWords = "default none python node go rust git postgres browser"

// policyFlags say where a sandbox's policy is read.
var policyFlags = []flag{
	{group: "Policy", name: "policy", arg: "FILE", choice: "<file>", field: "policy",
		help: "Read a policy.toml: system calls, capabilities, Landlock rules.",
		set:  onePolicyFile(func(o *options) *files.File { return &o.policy.Policy })},
	{name: "policy-sha256", arg: "DIGEST",
		help: "Demand that the policy.toml has this SHA-256 digest.",
		set:  oneDigest(func(o *options) *files.File { return &o.policy.Policy })},
	{name: "profile", arg: "NAME", choice: profileWords,
		help: "Allow only the system calls of a kind of program: python, node, go, rust, git, postgres, browser, none. Repeatable: what all of them allow.",
		set: func(o *options, v string) error {
			o.policy.Profiles = append(o.policy.Profiles, v)
			if profiles.About(v) == "" {
				return fmt.Errorf("no profile is called %s; nucleus policy profiles lists them", quote(v))
			}
			return nil
		}},
	{name: "seccomp-profile", arg: "FILE", choice: "<file>",
		help: "Read a seccomp profile as docker and containerd have them (OCI JSON). It replaces the default one.",
		set:  onePolicyFile(func(o *options) *files.File { return &o.policy.Seccomp })},
	{name: "seccomp-profile-sha256", arg: "DIGEST",
		help: "Demand that the seccomp profile has this SHA-256 digest.",
		set:  oneDigest(func(o *options) *files.File { return &o.policy.Seccomp })},
	{name: "allow-dangerous-syscall", arg: "NAME",
		help: "Accept that the profile allows a call that is always refused otherwise (nucleus policy refused), or with unknown, those that Nucleus does not know. Repeatable.",
		set: func(o *options, v string) (err error) {
			v, err = given(v)
			o.policy.Dangerous = append(o.policy.Dangerous, v)
			return err
		}},
	{name: "caps-policy", arg: "FILE", choice: "<file>",
		help: "Read the capabilities to keep (TOML); none without it.",
		set:  onePolicyFile(func(o *options) *files.File { return &o.policy.Caps })},
	{name: "caps-policy-sha256", arg: "DIGEST",
		help: "Demand that the capability policy has this SHA-256 digest.",
		set:  oneDigest(func(o *options) *files.File { return &o.policy.Caps })},
	{name: "landlock-policy", arg: "FILE", choice: "<file>",
		help: "Read Landlock rules (TOML). They narrow what the mounts allow.",
		set:  onePolicyFile(func(o *options) *files.File { return &o.policy.Landlock })},
	{name: "landlock-policy-sha256", arg: "DIGEST",
		help: "Demand that the Landlock policy has this SHA-256 digest.",
		set:  oneDigest(func(o *options) *files.File { return &o.policy.Landlock })},
}

// onePolicyFile sets the path of a file. A second one is refused: the first would
// be forgotten, and with it what it refuses.
func onePolicyFile(file func(*options) *files.File) func(*options, string) error {
	return func(o *options, v string) (err error) {
		f := file(o)
		if f.Path != "" {
			return errors.New("given twice; write what both files say into one")
		}
		f.Path, err = policyPath(v)
		return err
	}
}

// oneDigest sets the digest of a file.
func oneDigest(file func(*options) *files.File) func(*options, string) error {
	return func(o *options, v string) (err error) {
		f := file(o)
		if f.SHA256 != "" {
			return errors.New("given twice, and there is one file for it")
		}
		f.SHA256, err = files.ParseDigest(v)
		return err
	}
}

// policyPath is where a policy is, also for those who look from elsewhere later.
func policyPath(v string) (string, error) {
	if _, err := given(v); err != nil {
		return "", err
	}
	return filepath.Abs(v)
}

// loadPolicy reads what the flags name. A policy that cannot be read is bad input:
// nothing is made.
func (c *call) loadPolicy() (*policy.Policy, error) {
	p, err := files.Load(c.opts.policy)
	if err != nil {
		return nil, usageError(err.Error())
	}
	return p, nil
}

// policy writes the flags that read a policy. What no file says cannot be given.
func (w *flagWriter) policy(b spec.Sandbox) {
	p := b.Policy
	if p == nil {
		return
	}
	if len(p.Sources) == 0 {
		w.fail("a policy that was made by a program and not read from files cannot be given by a flag")
	}
	for _, s := range p.Sources {
		name := map[string]string{
			policy.KindPolicy: "policy", policy.KindSeccomp: "seccomp-profile", policy.KindCaps: "caps-policy",
			policy.KindLandlock: "landlock-policy", policy.KindProfile: "profile",
		}[s.Kind]
		w.add(name, s.Path)
		if s.Pinned {
			w.add(name+"-sha256", s.SHA256)
		}
	}
	for _, name := range p.Dangerous {
		w.add("allow-dangerous-syscall", name)
	}
}
