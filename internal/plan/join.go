package plan

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Policy is what holds for every program of a sandbox, taken from the plan that
// made it. It is kept with the sandbox, so that a program that joins later gets
// exactly this and not what a newer Nucleus or another state of the host would
// make of the same description.
type Policy struct {
	Namespaces uint64            `json:"namespaces"` // abi.CloneNew*
	User       SetIDs            `json:"user"`
	Ranged     bool              `json:"ranged,omitempty"` // ids are a range that root reserved
	Owned      bool              `json:"owned,omitempty"`  // a user namespace of its own
	Rlimits    []Rlimit          `json:"rlimits"`
	LastCap    int               `json:"last_cap"`
	Keyring    bool              `json:"keyring,omitempty"`
	Caps       caps.Sets         `json:"caps"`
	Landlock   *landlock.Ruleset `json:"landlock,omitempty"`
	Narrow     *landlock.Ruleset `json:"narrow,omitempty"` // of the policy, on top of that
	Filter     Filter            `json:"filter"`
	FilterName string            `json:"filter_name"`
	Env        []string          `json:"env"`
	Dir        string            `json:"dir"`
	Weakened   []Weakening       `json:"weakened,omitempty"`
}

// Filter is a seccomp program. As JSON it is a string: eight bytes an
// instruction, as the kernel has them, in base64.
type Filter []seccomp.Insn

const insnSize = 8

// MarshalText writes what UnmarshalText reads.
func (f Filter) MarshalText() ([]byte, error) {
	b := make([]byte, 0, insnSize*len(f))
	for _, i := range f {
		b = binary.LittleEndian.AppendUint16(b, i.Code)
		b = append(b, i.JT, i.JF)
		b = binary.LittleEndian.AppendUint32(b, i.K)
	}
	return base64.StdEncoding.AppendEncode(nil, b), nil
}

// UnmarshalText reads what MarshalText wrote.
func (f *Filter) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return err
	}
	if len(b)%insnSize != 0 {
		return fmt.Errorf("a filter of %d bytes is not one of whole instructions", len(b))
	}
	*f = make(Filter, 0, len(b)/insnSize)
	for ; len(b) > 0; b = b[insnSize:] {
		*f = append(*f, seccomp.Insn{Code: binary.LittleEndian.Uint16(b), JT: b[2], JF: b[3], K: binary.LittleEndian.Uint32(b[4:])})
	}
	return nil
}

// Policy returns the policy of the sandbox that p makes.
func (p *Plan) Policy() Policy {
	pol := Policy{Weakened: p.Weakened, Caps: p.Kept.Caps}
	for _, s := range p.Steps {
		switch a := s.Do.(type) {
		case CloneInto:
			pol.Namespaces |= a.Flags
		case NewCgroupNS:
			pol.Namespaces |= abi.CloneNewCgroup
		case ReserveIDs:
			pol.Ranged = true
		case SetIDs:
			pol.User = a
		case Keyring:
			pol.Keyring = true
		case Rlimit:
			pol.Rlimits = append(pol.Rlimits, a)
		case DropBounding:
			pol.LastCap = a.Last
		case Landlock:
			rules := a.Rules
			if a.Narrow {
				pol.Narrow = &rules
			} else {
				pol.Landlock = &rules
			}
		case Chdir:
			pol.Dir = a.Dir
		case Listen:
			pol.Filter, pol.FilterName = a.Plain.Insns, a.Name
		case Seccomp:
			if pol.Filter == nil {
				pol.Filter, pol.FilterName = a.Program.Insns, a.Name
			}
		case Exec:
			pol.Env = a.Env
		}
	}
	pol.Owned = pol.Namespaces&abi.CloneNewUser != 0
	return pol
}

// Joint says how a program joins a sandbox.
type Joint struct {
	Command
	Env      []string // in addition to the sandbox's
	Dir      string   // empty: the sandbox's
	User     *SetIDs  // nil: the sandbox's
	Terminal bool
	Cgroup   bool // the sandbox has a control group
	Scoped   bool // which a service manager made
}

// Join makes the plan of a program that joins a sandbox with a policy.
func Join(pol Policy, h *facts.Host, j Joint) (*Plan, error) {
	b := &builder{host: h, cmd: j.Command}
	user := pol.User
	user.See = true
	if j.User != nil {
		user.UID, user.GID = j.User.UID, j.User.GID
		if !pol.Ranged && pol.Owned && (user.UID != pol.User.UID || user.GID != pol.User.GID) {
			b.fail("user", "the sandbox of an ordinary user has one user", "leave out --user")
		}
	}
	b.joinHost(pol, j, user)
	b.joinChild(pol, j, user)
	b.joinConfine(pol, j)
	if len(b.errs) > 0 {
		return nil, errors.Join(b.errs...)
	}
	p := &Plan{Steps: b.steps, Weakened: pol.Weakened, Kept: Kept{Caps: pol.Caps, Narrow: pol.Narrow != nil}}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return p, nil
}

// joinHost plans what happens outside.
func (b *builder) joinHost(pol Policy, j Joint, user SetIDs) {
	if pol.Ranged {
		b.add(Host, "user", OwnPipes{UID: user.UID, GID: user.GID})
	}
	if j.Cgroup {
		b.add(Host, "sandbox", CgroupJoin{})
	}
	filter := seccomp.Program{Insns: pol.Filter}
	b.add(Host, "sandbox", MakeInit{Filter: filter, Terminal: j.Terminal, Detached: j.Detach, Joined: true})
	b.add(Clone, "sandbox", CloneInto{Cgroup: j.Cgroup && !j.Scoped, Copy: pol.Namespaces&abi.CloneNewTime != 0})
	if j.Scoped {
		b.add(Gate, "sandbox", CgroupAdd{Controllers: []string{"all"}})
	}
}

// joinChild plans the way in.
func (b *builder) joinChild(pol Policy, j Joint, user SetIDs) {
	b.child("sandbox", Umask{}, NewSession{}, Stdio{Extra: b.cmd.Extra}, CloseInherited{})
	if j.Scoped {
		b.child("sandbox", Wait{})
	}
	b.child("sandbox", JoinNamespaces{Flags: pol.Namespaces})
	b.keep(pol.Caps, pol.Owned)
	b.child("policy", Securebits{})
	b.child("user", user)
	if pol.Keyring {
		b.child("policy", Keyring{})
	}
	if j.Terminal {
		b.child("terminal", OpenTerminal{})
	}
	for _, r := range pol.Rlimits {
		b.child("limits", r)
	}
	b.child("sandbox", Umask{Mask: 0o022})
	b.child(asked(j.Dir), Chdir{Dir: cmp.Or(j.Dir, pol.Dir)})
}

// joinConfine plans the sandbox's own policy for the program.
func (b *builder) joinConfine(pol Policy, j Joint) {
	b.drop(pol.Caps, pol.LastCap)
	if pol.Landlock != nil {
		// A domain cannot be joined: this is another one with the same rules
		// about files. Its scopes would cut the program off from the sandbox
		// (it could not signal it); those of the namespaces are the same.
		rules, narrow := *pol.Landlock, landlock.Ruleset{}
		rules.Scopes = 0
		if pol.Narrow != nil {
			narrow = *pol.Narrow
			narrow.Scopes = 0
		}
		b.child("policy.landlock", Landlock{Rules: rules, Log: b.landlockLog(narrow.Empty())})
		if !narrow.Empty() {
			b.child("policy.landlock", Landlock{Rules: narrow, Narrow: true, Log: b.landlockLog(true)})
		}
	}
	if !j.Detach {
		b.child("sandbox", Lifeline{})
	}
	b.child("sandbox", ExecInit{})
	b.add(Init, "policy.seccomp", Seccomp{Name: pol.FilterName, Program: seccomp.Program{Insns: pol.Filter}})
	env := replaceEnv(pol.Env, j.Env)
	b.add(Init, "command", Exec{Paths: b.candidates(env), Args: append([]string{cmp.Or(b.cmd.Arg0, b.cmd.Name)}, b.cmd.Args...), Env: env})
}

// replaceEnv adds K=V entries; a later one replaces an earlier one.
func replaceEnv(env, more []string) []string {
	out := append([]string(nil), env...)
	for _, kv := range more {
		key, _, _ := strings.Cut(kv, "=")
		for i := len(out) - 1; i >= 0; i-- {
			if strings.HasPrefix(out[i], key+"=") {
				out = append(out[:i], out[i+1:]...)
			}
		}
		out = append(out, kv)
	}
	return out
}

// timerMax is what an interval timer can count to in this form.
const timerMax = 100 * 365 * 24 * time.Hour
