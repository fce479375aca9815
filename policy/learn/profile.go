package learn

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// ociProfile is a seccomp profile in the form of the OCI runtime specification.
type ociProfile struct {
	DefaultAction   string    `json:"defaultAction"`
	DefaultErrnoRet int       `json:"defaultErrnoRet"`
	Architectures   []string  `json:"architectures"`
	Syscalls        []ociRule `json:"syscalls"`
}

type ociRule struct {
	Names    []string `json:"names"`
	Action   string   `json:"action"`
	ErrnoRet *int     `json:"errnoRet,omitempty"`
	Args     []ociArg `json:"args,omitempty"`
}

type ociArg struct {
	Index    int    `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo,omitempty"`
	Op       string `json:"op"`
}

// The errnos that a profile answers with.
const (
	ePERM  = 1
	eNOSYS = 38
)

// EncodeProfile writes the calls of a record as a seccomp profile for engines that
// read the OCI form. It allows no call that the base refuses: conditions on
// arguments go with it. In the OCI form arguments are compared in all 64 bits, so
// what the kernel reads as 32 is compared under a mask, and an exception is
// written as the bits in which what is allowed differs from it.
func (r *Record) EncodeProfile(base seccomp.Policy) ([]byte, error) {
	p := ociProfile{DefaultAction: "SCMP_ACT_ERRNO", DefaultErrnoRet: ePERM}
	switch r.Arch {
	case seccomp.AMD64:
		p.Architectures = []string{"SCMP_ARCH_X86_64"}
	case seccomp.ARM64:
		p.Architectures = []string{"SCMP_ARCH_AARCH64"}
	}
	var plain []string
	var conditional []ociRule
	for _, name := range r.allowed() {
		if _, ok := r.Arch.Number(name); !ok {
			continue
		}
		conds, err := alternatives(base, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, c := range conds {
			if len(c) == 0 {
				plain = append(plain, name)
				break
			}
			conditional = append(conditional, ociRule{Names: []string{name}, Action: "SCMP_ACT_ALLOW", Args: args(c)})
		}
	}
	missing := eNOSYS // the C library goes on with clone, whose flags a filter can read
	p.Syscalls = append([]ociRule{{Names: plain, Action: "SCMP_ACT_ALLOW"}}, conditional...)
	p.Syscalls = append(p.Syscalls, ociRule{Names: []string{"clone3"}, Action: "SCMP_ACT_ERRNO", ErrnoRet: &missing})
	b, err := json.MarshalIndent(p, "", "  ")
	return append(b, '\n'), err
}

// allowed are the calls of a policy for the record, by name.
func (r *Record) allowed() []string {
	used, siblings := r.used()
	names := slices.Clone(seccomp.Basic())
	for name := range used {
		names = append(names, name)
	}
	for name := range siblings {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// alternatives are the conditions under which a policy allows a call: one of them
// must hold, all of its parts. An empty one always holds.
func alternatives(p seccomp.Policy, name string) (out [][]seccomp.Cond, err error) {
	var refused [][]seccomp.Cond
	for _, rule := range p.Rules {
		if !slices.Contains(rule.Calls, name) {
			continue
		}
		allows := rule.Do == seccomp.Allow || rule.Do == seccomp.Log
		switch {
		case !allows && len(rule.When) == 0:
			return out, nil
		case !allows:
			refused = append(refused, rule.When)
		case len(refused) == 0:
			out = append(out, rule.When)
		case len(rule.When) > 0:
			return nil, fmt.Errorf("an exception before a condition cannot be written in the OCI form")
		default:
			rest, err := complement(refused)
			return append(out, rest...), err
		}
		if allows && len(rule.When) == 0 {
			return out, nil
		}
	}
	return out, nil
}

// complement is where none of the exceptions holds.
func complement(refused [][]seccomp.Cond) (out [][]seccomp.Cond, err error) {
	if len(refused) == 1 {
		for _, c := range refused[0] {
			some, err := differ(c.Arg, []seccomp.Cond{c})
			if err != nil {
				return nil, err
			}
			out = append(out, some...)
		}
		return out, nil
	}
	var same []seccomp.Cond
	for _, r := range refused {
		if len(r) != 1 || r[0].Arg != refused[0][0].Arg {
			return nil, fmt.Errorf("exceptions about several arguments cannot be written in the OCI form")
		}
		same = append(same, r[0])
	}
	return differ(same[0].Arg, same)
}

// differ covers the 32-bit values that are none of some: with a mask for each
// beginning in bits that no exception shares.
func differ(arg int, excepted []seccomp.Cond) (out [][]seccomp.Cond, err error) {
	var values []uint64
	for _, c := range excepted {
		if c.Op != seccomp.Eq || c.Width != 32 {
			return nil, fmt.Errorf("an exception that is not one 32-bit value cannot be written in the OCI form")
		}
		values = append(values, c.Value)
	}
	var cover func(prefix uint64, bit int)
	cover = func(prefix uint64, bit int) {
		mask := uint64(1<<32-1) &^ (1<<bit - 1)
		if !slices.ContainsFunc(values, func(v uint64) bool { return v&mask == prefix }) {
			out = append(out, []seccomp.Cond{{Arg: arg, Op: seccomp.MaskedEq, Mask: mask, Value: prefix, Width: 32}})
			return
		}
		if bit > 0 {
			cover(prefix, bit-1)
			cover(prefix|1<<(bit-1), bit-1)
		}
	}
	cover(0, 32)
	return out, nil
}

// args writes conditions as libseccomp compares: masks leave the upper half out
// of what the kernel reads as 32 bits.
func args(conds []seccomp.Cond) (out []ociArg) {
	for _, c := range conds {
		mask := c.Mask
		if c.Op == seccomp.Eq {
			mask = 1<<32 - 1
		}
		out = append(out, ociArg{Index: c.Arg, Value: mask, ValueTwo: c.Value, Op: "SCMP_CMP_MASKED_EQ"})
	}
	return out
}
