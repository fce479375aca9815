package files

import (
	"fmt"

	"github.com/nucleus-container/nucleus/policy/caps"
)

// capsForm is a capability policy as TOML has it: for each of the five sets a
// list of names. A set that is left out follows from the ambient one.
type capsForm struct {
	Bounding    *setForm `toml:"bounding"`
	Permitted   *setForm `toml:"permitted"`
	Effective   *setForm `toml:"effective"`
	Inheritable *setForm `toml:"inheritable"`
	Ambient     *setForm `toml:"ambient"`
}

type setForm struct {
	Keep []string `toml:"keep"`
}

// ParseCaps reads a capability policy.
func ParseCaps(path string, data []byte) (*caps.Sets, error) {
	d := document{path, data}
	var f capsForm
	if err := d.decode(&f); err != nil {
		return nil, err
	}
	return d.caps(f)
}

func (d document) caps(f capsForm) (*caps.Sets, error) {
	ambient, _, err := d.set(f.Ambient)
	if err != nil {
		return nil, err
	}
	s := caps.Sets{Ambient: ambient}
	inheritable, given, err := d.set(f.Inheritable)
	if err != nil {
		return nil, err
	}
	if s.Inheritable = inheritable; !given {
		s.Inheritable = ambient
	}
	for _, set := range []struct {
		form   *setForm
		into   *caps.Set
		absent caps.Set
	}{{f.Permitted, &s.Permitted, ambient}, {f.Effective, &s.Effective, ambient}, {f.Bounding, &s.Bounding, s.Inheritable}} {
		got, given, err := d.set(set.form)
		if err != nil {
			return nil, err
		}
		if *set.into = got; !given {
			*set.into = set.absent
		}
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", d.path, err)
	}
	return &s, nil
}

// set reads one list; given is false if it is left out.
func (d document) set(f *setForm) (s caps.Set, given bool, err error) {
	if f == nil {
		return 0, false, nil
	}
	for _, name := range f.Keep {
		c, err := caps.ParseCap(name)
		if err != nil {
			return 0, true, d.value(name, err)
		}
		if s.Has(c) {
			return 0, true, d.value(name, fmt.Errorf("%s is kept twice", c))
		}
		s = s.With(c)
	}
	return s, true, nil
}
