package cli

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"runtime"
	"strings"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/files"
	"github.com/nucleus-container/nucleus/policy/profiles"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// compileOptions is what the flags of `nucleus policy` said.
type compileOptions struct{ call, arch, format string }

var policyCommand = command{
	name: "policy", args: "check|show|diff|compile|generate|profiles|refused [POLICY...]", words: "check show diff compile generate profiles refused", more: profileWords + " <file>",
	short: "Look at policies: what they allow, and why",
	long: `A POLICY is the name of a profile, a policy.toml, or a seccomp profile as docker
has them (a file that ends in .json). The flags that name policies for nucleus run
do as well, and are combined as it combines them. No privileges are needed, and
nothing is made.

  check     read strictly: whatever is wrong is said with its file and line
  show      print the rules that come of it, each with its reason; --call NAME
            explains one system call, --format toml writes a policy.toml
  diff      compare two policies: what the second allows more, and what less
  compile   print the filter of system calls: --format text, hex or base64
  generate  make a policy from a record of nucleus run --learn: -o FILE writes it
            to a new file
  profiles  list the profiles that are part of Nucleus
  refused   list the system calls that no policy allows without its user's word`,
	examples: [][2]string{
		{"nucleus policy check policy.toml", "is it what nucleus run would take?"},
		{"nucleus policy show python", "what a profile allows"},
		{"nucleus policy diff default seccomp.json", "what docker's profile allows more than the default"},
		{"nucleus policy generate job.toml -o policy.toml", "the smallest policy for what nucleus run --learn has seen"},
		{"nucleus policy compile --format hex policy.toml", "the program that the kernel runs"},
	},
	flags: [][]flag{{
		{group: "Policies", name: "call", arg: "NAME",
			help: "With show: explain one system call.",
			set:  func(o *options, v string) (err error) { o.compile.call, err = given(v); return err }},
		{name: "arch", arg: "ARCH", choice: "amd64 arm64",
			help: "Compile, or read a seccomp profile, for this architecture (this machine's).",
			set: func(o *options, v string) (err error) {
				o.compile.arch, err = oneOf(v, "amd64", "arm64")
				return err
			}},
		{name: "format", arg: "FORMAT", choice: "text hex base64 toml",
			help: "Print the compiled filter as text, hex or base64, or with show the policy as text or toml (text).",
			set: func(o *options, v string) (err error) {
				o.compile.format, err = oneOf(v, "text", "hex", "base64", "toml")
				return err
			}},
	}, outFlags, policyFlags, jsonFlags, helpFlags},
	run: runPolicy,
}

// runPolicy is `nucleus policy`.
func runPolicy(c *call) int {
	if err := c.interspersed(); err != nil {
		return fail(c.cmd, err)
	}
	if c.opts.help {
		return output(commandHelp(c.cmd))
	}
	code, err := c.policyVerb()
	if err != nil {
		return fail(c.cmd, err)
	}
	return code
}

func (c *call) policyVerb() (int, error) {
	verb, names := "", c.args
	if len(names) > 0 {
		verb, names = names[0], names[1:]
	}
	if o := c.opts.compile; o.call != "" && verb != "show" || o.format != "" && verb != "compile" && verb != "show" || o.format == "toml" && verb == "compile" ||
		verb == "show" && (o.format == "hex" || o.format == "base64") {
		return 0, usageError("--call is for show; --format is text or toml for show, text, hex or base64 for compile")
	}
	switch verb {
	case "profiles", "refused":
		if len(names) > 0 {
			return 0, usageError("nucleus policy " + verb + " takes nothing more")
		}
		if verb == "profiles" {
			return c.policyProfiles()
		}
		return c.policyRefused()
	case "check":
		return c.policyCheck(names)
	case "show":
		return c.policyShow(names)
	case "diff":
		return c.policyDiff(names)
	case "compile":
		return c.policyCompile(names)
	case "generate":
		return exitOK, c.policyGenerate(names)
	}
	return 0, usageError("say nucleus policy check, show, diff, compile, generate, profiles or refused")
}

// arch is the architecture that was asked for, or this machine's.
func (c *call) policyArch() (seccomp.Arch, error) {
	name := c.opts.compile.arch
	if name == "" {
		name = runtime.GOARCH
	}
	return seccomp.ParseArch(name)
}

// readPolicy reads a policy that is named by a word.
func (c *call) readPolicy(name string) (*policy.Policy, error) {
	o := files.Options{}
	switch {
	case profiles.About(name) != "":
		o.Profiles = []string{name}
	case strings.HasSuffix(name, ".json"):
		o.Seccomp.Path = name
	default:
		o.Policy.Path = name
	}
	o.Dangerous = c.opts.policy.Dangerous
	return c.loadFor(o)
}

func (c *call) loadFor(o files.Options) (*policy.Policy, error) {
	var err error
	if o.Arch, err = c.policyArch(); err != nil {
		return nil, usageError(err.Error())
	}
	p, err := files.Load(o)
	if err != nil {
		return nil, usageError(err.Error())
	}
	return p, nil
}

// onePolicy is the one that a command is about: a word, or the flags of run.
func (c *call) onePolicy(names []string) (*policy.Policy, string, error) {
	flags, err := c.loadFor(c.flagOptions(len(names) > 0))
	switch {
	case err != nil:
		return nil, "", err
	case len(names) > 1 || len(names) == 1 && flags != nil:
		return nil, "", usageError("name one policy, or give the flags of nucleus run")
	case len(names) == 1:
		p, err := c.readPolicy(names[0])
		return p, names[0], err
	case flags == nil:
		return nil, "", usageError("no policy is named")
	}
	return flags, flags.Name(), nil
}

// flagOptions are the flags; a dangerous call is about the policy that a word names.
func (c *call) flagOptions(named bool) files.Options {
	o := c.opts.policy
	if named {
		o.Dangerous = nil
	}
	return o
}

// effective is what decides about system calls.
func effective(p *policy.Policy) seccomp.Policy {
	if p.Seccomp == nil {
		return seccomp.Default()
	}
	return *p.Seccomp
}

func (c *call) policyCheck(names []string) (int, error) {
	type checked struct {
		Policy string         `json:"policy"`
		SHA256 string         `json:"sha256,omitempty"`
		Parts  []string       `json:"parts"`
		Read   *policy.Policy `json:"-"`
	}
	var all []checked
	add := func(name string, p *policy.Policy) {
		one := checked{Policy: name, Parts: parts(p), Read: p}
		if len(p.Sources) == 1 {
			one.SHA256 = p.Sources[0].SHA256
		}
		all = append(all, one)
	}
	for _, name := range names {
		p, err := c.readPolicy(name)
		if err != nil {
			return 0, err
		}
		add(name, p)
	}
	flags, err := c.loadFor(c.flagOptions(len(names) > 0))
	if err != nil {
		return 0, err
	}
	if flags != nil {
		add(flags.Name(), flags)
	}
	if len(all) == 0 {
		return 0, usageError("no policy is named")
	}
	if c.opts.json {
		return outputJSON(all), nil
	}
	var b strings.Builder
	for _, one := range all {
		fmt.Fprintf(&b, "%s: ok (%s)", printable(one.Policy), strings.Join(one.Parts, ", "))
		if one.SHA256 != "" {
			b.WriteString(" sha256 " + one.SHA256)
		}
		b.WriteByte('\n')
	}
	return output(b.String()), nil
}

// parts say what a policy is about.
func parts(p *policy.Policy) (out []string) {
	for _, part := range []struct {
		name string
		have bool
	}{{"system calls", p.Seccomp != nil}, {"capabilities", p.Caps != nil}, {"files", p.Landlock != nil}, {"network", len(p.Egress) > 0}} {
		if part.have {
			out = append(out, part.name)
		}
	}
	if len(out) == 0 {
		return []string{"nothing: the defaults hold"}
	}
	return out
}

func (c *call) policyShow(names []string) (int, error) {
	p, _, err := c.onePolicy(names)
	if err != nil {
		return 0, err
	}
	calls := effective(p)
	if name := c.opts.compile.call; name != "" {
		if !seccomp.Known(name) {
			return 0, usageError("no system call is named " + quote(name))
		}
		if c.opts.json {
			return outputJSON(map[string]string{"call": name, "text": calls.Explain(name)}), nil
		}
		return output(lines(calls.Explain(name))), nil
	}
	if c.opts.json {
		full := *p
		full.Seccomp = &calls
		return outputJSON(full), nil
	}
	if c.opts.compile.format == "toml" {
		full := *p
		full.Seccomp = &calls
		return output(string(files.Format(&full))), nil
	}
	var b strings.Builder
	for _, s := range p.Sources {
		fmt.Fprintf(&b, "# %s %s %s\n", s.Kind, printable(s.Path), s.SHA256)
	}
	fmt.Fprintf(&b, "# system calls: the first rule that holds decides\n%s", calls)
	fmt.Fprintf(&b, "# capabilities\n%s\n", p.Kept())
	if p.Landlock != nil {
		fmt.Fprintf(&b, "# files, ports and scopes, besides what the mounts allow\n%s", p.Landlock)
	}
	for i, e := range p.Egress {
		if i == 0 {
			b.WriteString("# network\n")
		}
		fmt.Fprintln(&b, e)
	}
	return output(lines(b.String())), nil
}

// lines makes text printable line by line: reasons are whoever wrote the file's.
func lines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(printable(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return b.String()
}

func (c *call) policyProfiles() (int, error) {
	type profile struct {
		Name  string `json:"name"`
		About string `json:"about"`
	}
	var all []profile
	var b strings.Builder
	for _, name := range profiles.Names() {
		all = append(all, profile{name, profiles.About(name)})
		fmt.Fprintf(&b, "%-9s %s\n", name, profiles.About(name))
	}
	if c.opts.json {
		return outputJSON(all), nil
	}
	return output(b.String()), nil
}

func (c *call) policyRefused() (int, error) {
	type call struct {
		Name string `json:"name"`
		Why  string `json:"why"`
	}
	var all []call
	var b strings.Builder
	for _, name := range append(seccomp.RefusedNames(), seccomp.Unlisted) {
		all = append(all, call{name, seccomp.WhyRefused(name)})
		fmt.Fprintf(&b, "%-18s %s\n", name, seccomp.WhyRefused(name))
	}
	if c.opts.json {
		return outputJSON(all), nil
	}
	return output(b.String()), nil
}

func (c *call) policyCompile(names []string) (int, error) {
	p, name, err := c.onePolicy(names)
	if err != nil {
		return 0, err
	}
	arch, err := c.policyArch()
	if err != nil {
		return 0, usageError(err.Error())
	}
	prog, err := effective(p).Compile(arch)
	if err != nil {
		return 0, usageError(err.Error())
	}
	if c.opts.json {
		return outputJSON(struct {
			Policy       string `json:"policy"`
			Arch         string `json:"arch"`
			Instructions int    `json:"instructions"`
			Base64       string `json:"base64"`
			Text         string `json:"text"`
		}{name, arch.String(), len(prog.Insns), base64.StdEncoding.EncodeToString(prog.Bytes()), prog.Disassemble()}), nil
	}
	switch c.opts.compile.format {
	case "hex":
		return output(hex.EncodeToString(prog.Bytes()) + "\n"), nil
	case "base64":
		return output(base64.StdEncoding.EncodeToString(prog.Bytes()) + "\n"), nil
	}
	return output(prog.Disassemble()), nil
}
