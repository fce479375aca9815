package files

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/profiles"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Options says what to read. Empty parts ask for nothing.
type Options struct {
	Policy   File     // a policy.toml
	Seccomp  File     // a seccomp profile, OCI JSON
	Caps     File     // a capability policy
	Landlock File     // a Landlock policy
	Profiles []string // names of profiles that are part of Nucleus
	// Dangerous names calls of the always-refused list that may be allowed. One
	// that nothing else in here allows is an error.
	Dangerous []string

	Arch   seccomp.Arch // zero: this program's
	Kernel string       // release; empty: this machine's
}

// Load reads a policy from all of its parts, or returns nil if there are none.
// What decides about system calls combines to the strictest answer; capabilities
// and Landlock rules may come from one place each.
func Load(o Options) (*policy.Policy, error) {
	l := &loader{opts: o, out: new(policy.Policy)}
	for _, part := range []func() error{l.policy, l.profiles, l.caps, l.landlock, l.seccomp} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	if len(l.out.Sources) == 0 {
		if len(o.Dangerous) > 0 {
			return nil, fmt.Errorf("%s is to be allowed, but there is no policy that allows it", o.Dangerous[0])
		}
		return nil, nil
	}
	return l.finish()
}

type loader struct {
	opts  Options
	out   *policy.Policy
	calls []seccomp.Policy // that decide about system calls
}

// source notes where something was read, once.
func (l *loader) source(s policy.Source) error {
	same := func(o policy.Source) bool { return o.Kind == s.Kind && o.Path == s.Path }
	if slices.ContainsFunc(l.out.Sources, same) {
		return fmt.Errorf("%s %s is given twice", s.Kind, s.Path)
	}
	l.out.Sources = append(l.out.Sources, s)
	return nil
}

func (l *loader) read(f File, kind string, parse func(data []byte) error) error {
	if f.Path == "" {
		if f.SHA256 != "" {
			return fmt.Errorf("a digest is given and no file for it (%s)", kind)
		}
		return nil
	}
	data, src, err := f.read(kind)
	if err != nil {
		return err
	}
	if err := l.source(src); err != nil {
		return err
	}
	return parse(data)
}

func (l *loader) policy() error {
	f := l.opts.Policy
	return l.read(f, policy.KindPolicy, func(data []byte) error {
		p, err := ParsePolicy(f.Path, data)
		if err != nil {
			return err
		}
		if p.Seccomp != nil {
			l.calls = append(l.calls, *p.Seccomp)
		}
		l.out.Caps, l.out.Landlock, l.out.Egress = p.Caps, p.Landlock, p.Egress
		return nil
	})
}

func (l *loader) profiles() error {
	for _, name := range l.opts.Profiles {
		p, err := profiles.Get(name)
		if err != nil {
			return err
		}
		if err := l.source(policy.Source{Kind: policy.KindProfile, Path: name}); err != nil {
			return err
		}
		l.calls = append(l.calls, p.Seccomp)
	}
	return nil
}

func (l *loader) caps() error {
	f := l.opts.Caps
	return l.read(f, policy.KindCaps, func(data []byte) error {
		if l.out.Caps != nil {
			return fmt.Errorf("capabilities are kept by %s and by %s: one of them must do", l.opts.Policy.Path, f.Path)
		}
		s, err := ParseCaps(f.Path, data)
		l.out.Caps = s
		return err
	})
}

func (l *loader) landlock() error {
	f := l.opts.Landlock
	return l.read(f, policy.KindLandlock, func(data []byte) error {
		if l.out.Landlock != nil {
			return fmt.Errorf("Landlock rules are in %s and in %s: one of them must do", l.opts.Policy.Path, f.Path)
		}
		c, err := ParseLandlock(f.Path, data)
		l.out.Landlock = c
		return err
	})
}

func (l *loader) seccomp() error {
	f := l.opts.Seccomp
	return l.read(f, policy.KindSeccomp, func(data []byte) error {
		to, err := l.target()
		if err != nil {
			return err
		}
		p, err := ParseSeccomp(f.Path, data, to)
		if err != nil {
			return err
		}
		l.calls = append(l.calls, *p)
		return nil
	})
}

// target is what a seccomp profile is read for.
func (l *loader) target() (Target, error) {
	t := Target{Arch: l.opts.Arch, Kernel: l.opts.Kernel, Caps: l.out.Kept().Bounding}
	if t.Arch == 0 {
		var err error
		if t.Arch, err = seccomp.ParseArch(runtime.GOARCH); err != nil {
			return t, err
		}
	}
	if t.Kernel == "" {
		release, err := os.ReadFile("/proc/sys/kernel/osrelease")
		if err != nil {
			return t, err
		}
		t.Kernel = strings.TrimSpace(string(release))
	}
	return t, nil
}

// finish combines and checks.
func (l *loader) finish() (*policy.Policy, error) {
	if len(l.calls) > 0 {
		p := seccomp.Intersect(l.calls...)
		l.out.Seccomp = &p
	}
	var allowed []seccomp.Danger
	if l.out.Seccomp != nil {
		allowed = l.out.Seccomp.Dangerous()
	}
	for _, name := range l.opts.Dangerous {
		if !slices.ContainsFunc(allowed, func(d seccomp.Danger) bool { return d.Call == name }) {
			if !seccomp.AlwaysRefused(name) {
				return nil, fmt.Errorf("%q is not on the list of calls that are always refused (nucleus policy refused)", name)
			}
			return nil, fmt.Errorf("%s is to be allowed, but there is no policy that allows it", name)
		}
		if !slices.Contains(l.out.Dangerous, name) {
			l.out.Dangerous = append(l.out.Dangerous, name)
		}
	}
	if err := l.out.Validate(); err != nil {
		// One line: the first of what is wrong.
		first, _, _ := strings.Cut(err.Error(), "\n")
		return nil, errors.New(first)
	}
	return l.out, nil
}
