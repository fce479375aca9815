package files

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/policy/landlock"
)

// landlockForm is a Landlock policy as TOML has it. Every right over files is
// refused but for the rules; rights over ports are refused as soon as there is a
// rule about ports, or as refuse_ports says.
type landlockForm struct {
	MinABI      int        `toml:"min_abi"`
	Scopes      *[]string  `toml:"scopes"`
	RefusePorts *[]string  `toml:"refuse_ports"`
	Rules       []pathForm `toml:"rules"`
	Ports       []portForm `toml:"ports"`
}

type pathForm struct {
	Path   string   `toml:"path"`
	Access []string `toml:"access"`
	File   bool     `toml:"file"`
	Why    string   `toml:"why"`
}

type portForm struct {
	Port   *uint16  `toml:"port"`
	Access []string `toml:"access"`
	Why    string   `toml:"why"`
}

// ParseLandlock reads a Landlock policy.
func ParseLandlock(path string, data []byte) (*landlock.Config, error) {
	d := document{path, data}
	var f landlockForm
	if err := d.decode(&f); err != nil {
		return nil, err
	}
	return d.landlock(f, "")
}

// landlock makes a configuration. prefix is where the tables are in the document.
func (d document) landlock(f landlockForm, prefix string) (*landlock.Config, error) {
	c := landlock.Default()
	c.MinABI = f.MinABI
	if f.Scopes != nil {
		c.Scopes = 0
		for _, word := range *f.Scopes {
			s, err := landlock.ParseScope(word)
			if err != nil {
				return nil, d.value(word, err)
			}
			c.Scopes |= s
		}
	}
	for i, r := range f.Rules {
		rule, err := d.pathRule(r, fmt.Sprintf("%s, %srules[%d]", d.path, prefix, i))
		if err != nil {
			return nil, d.element(prefix+"rules", i, err)
		}
		c.Rules = append(c.Rules, rule)
	}
	for i, r := range f.Ports {
		rule, err := portRule(r, fmt.Sprintf("%s, %sports[%d]", d.path, prefix, i))
		if err != nil {
			return nil, d.element(prefix+"ports", i, err)
		}
		c.Ports = append(c.Ports, rule)
		c.HandleNet |= rule.Allow | landlock.BindTCP | landlock.ConnectTCP
	}
	if f.RefusePorts != nil {
		c.HandleNet = 0
		for _, word := range *f.RefusePorts {
			n, err := landlock.ParseNetAccess(word)
			if err != nil {
				return nil, d.value(word, err)
			}
			c.HandleNet |= n
		}
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", d.path, err)
	}
	return &c, nil
}

func (d document) pathRule(f pathForm, why string) (landlock.PathRule, error) {
	r := landlock.PathRule{File: f.File, Why: f.Why}
	if r.Why == "" {
		r.Why = why
	}
	switch {
	case !path.IsAbs(f.Path):
		return r, fmt.Errorf("path %q is not absolute", f.Path)
	case slices.Contains(strings.Split(f.Path, "/"), ".."):
		return r, fmt.Errorf("path %q goes up with \"..\"", f.Path)
	case strings.ContainsRune(f.Path, 0):
		return r, fmt.Errorf("path %q has a zero byte", f.Path)
	case len(f.Access) == 0:
		return r, errors.New("access is empty")
	}
	r.Path = path.Clean(f.Path)
	for _, word := range f.Access {
		a, err := landlock.ParseAccess(word)
		if err != nil || a == 0 {
			return r, fmt.Errorf("no file right is named %q", word)
		}
		r.Allow |= a
	}
	return r, nil
}

func portRule(f portForm, why string) (landlock.PortRule, error) {
	r := landlock.PortRule{Why: f.Why}
	if r.Why == "" {
		r.Why = why
	}
	if f.Port == nil {
		return r, errors.New("port is missing")
	}
	r.Port = *f.Port
	if len(f.Access) == 0 {
		return r, errors.New("access is empty")
	}
	for _, word := range f.Access {
		n, err := landlock.ParseNetAccess(word)
		if err != nil {
			return r, err
		}
		r.Allow |= n
	}
	return r, nil
}
