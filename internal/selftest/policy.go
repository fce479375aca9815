package selftest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// underPolicy wants of a call what the policy says that was given, instead of
// what the default says.
func (w *world) underPolicy(t try) try {
	p := w.plain.Policy
	if p == nil {
		return t
	}
	if p.Landlock != nil && t.want == "ok" && (strings.Contains(t.ask, "{r") || strings.HasPrefix(t.ask, "open")) {
		return t.unless("the Landlock rules of the policy decide about it")
	}
	if p.Seccomp == nil {
		return t
	}
	for _, call := range needs(t.ask) {
		if decide(*p.Seccomp, call) != seccomp.Allow {
			t = t.unless("the policy that was given refuses " + call + ", which the attempt needs")
		}
	}
	question, isCall := strings.CutPrefix(t.ask, "call ")
	if !isCall {
		return t
	}
	switch do := decide(*p.Seccomp, question); {
	case do == seccomp.Allow && t.want == "ok":
	case do == seccomp.Allow:
		t = t.unless("the policy that was given allows it")
	case t.want == "ok":
		t = t.unless("the policy that was given refuses it")
	case strings.HasPrefix(string(do), "E"):
		t.want = string(do)
	default:
		t = t.unless("the policy that was given ends the program for it")
	}
	return t
}

// needs are the calls without which a question cannot be put, beyond those that
// every program makes.
func needs(question string) []string {
	switch verb, _, _ := strings.Cut(question, " "); verb {
	case "layers":
		return []string{"landlock_create_ruleset", "landlock_restrict_self"}
	case "memory", "fork":
		return []string{"memfd_create"}
	case "kill":
		return []string{"kill"}
	}
	return nil
}

// decide says what a policy does with a question's call.
func decide(p seccomp.Policy, question string) seccomp.Action {
	words := strings.Fields(question)
	nr, ok := arch().Number(words[0])
	if !ok {
		n, _ := strconv.ParseUint(words[0], 10, 32) // the questions are ours
		nr = uint32(n)
	}
	var args [6]uint64
	for i, s := range words[1:] {
		if n, err := strconv.ParseInt(s, 0, 64); err == nil {
			args[i] = uint64(n)
		} else if n, err := strconv.ParseUint(s, 0, 64); err == nil {
			args[i] = n
		}
	}
	return p.Decide(arch(), nr, args)
}

// kept are the capabilities that the policy keeps.
func (w *world) kept() caps.Sets {
	if w.plain.Policy == nil || w.plain.Policy.Caps == nil {
		return caps.Sets{}
	}
	return *w.plain.Policy.Caps
}

func triesPolicyCaps(*world) []try {
	return []try{run("keep one, and read the five sets", "00000400 in each", policyCaps)}
}

// ours is a sandbox with a policy of our own instead of the one that was given.
func (w *world) ours(p *policy.Policy) *spec.Sandbox {
	s := w.plain
	s.Policy, s.Mode = p, spec.ModeAgent
	return &s
}

func policyCaps(w *world) (answer, skip string) {
	keep := caps.Keep(caps.Of(caps.NetBindService))
	names := []string{"Inh", "Prm", "Eff", "Bnd", "Amb"}
	var ask []string
	for _, set := range names {
		ask = append(ask, "status Cap"+set)
	}
	answers, err := w.inside(w.ours(&policy.Policy{Caps: &keep}), ask, nil)
	if err != nil {
		return err.Error(), ""
	}
	for i, a := range answers {
		if a != "ok:"+caps.Of(caps.NetBindService).Hex() {
			return fmt.Sprintf("Cap%s is %s", names[i], a), ""
		}
	}
	return "00000400 in each", ""
}

func triesPolicyRules(w *world) []try {
	return []try{
		run("refuse one more call, and make it", "ENOTTY", policyFilter),
		run("allow reading only, and write to /tmp", "EACCES", policyLandlock).unless(w.weakened("policy.landlock: " + noLandlock)),
	}
}

// noLandlock is how a plan begins to say so.
const noLandlock = "this kernel has no Landlock"

func policyFilter(w *world) (answer, skip string) {
	p := seccomp.Default()
	p.Rules = append([]seccomp.Rule{{Calls: []string{"umask"}, Do: seccomp.Errno("ENOTTY"), Why: "the self-test asks for it"}}, p.Rules...)
	return w.one(&policy.Policy{Seccomp: &p}, "call umask 18")
}

func policyLandlock(w *world) (answer, skip string) {
	cfg := landlock.Default().With(landlock.PathRule{Path: "/", Allow: landlock.Read | landlock.Execute, Why: "the self-test reads"})
	return w.one(&policy.Policy{Landlock: &cfg}, "open new /tmp/nucleus-selftest")
}

// one puts one question to a sandbox with a policy.
func (w *world) one(p *policy.Policy, question string) (answer, skip string) {
	answers, err := w.inside(w.ours(p), []string{question}, nil)
	if err != nil {
		return err.Error(), ""
	}
	return answers[0], ""
}

func triesDangerous(*world) []try {
	return []try{run("describe a sandbox whose policy allows bpf", "it is refused", func(w *world) (answer, skip string) {
		p := seccomp.Default()
		p.Rules = append([]seccomp.Rule{{Calls: []string{"bpf"}, Do: seccomp.Allow, Why: "the self-test asks for it"}}, p.Rules...)
		return refusedAtAll(w.ours(&policy.Policy{Seccomp: &p})), ""
	})}
}

func triesModes(*world) []try {
	return []try{
		run("weaken something in strict-agent mode", "it is refused", func(*world) (answer, skip string) {
			return refusedAtAll(&spec.Sandbox{Mode: spec.ModeStrictAgent, Degrade: []string{spec.DegradeLandlock}}), ""
		}),
		run("say nothing in production mode", "it is refused", func(*world) (answer, skip string) {
			return refusedAtAll(&spec.Sandbox{Mode: spec.ModeProduction, Timeout: time.Minute}), ""
		}),
	}
}

// refusedAtAll says whether a description is refused before anything is made.
func refusedAtAll(s *spec.Sandbox) string {
	if _, err := nucleus.Command(s, "true").Plan(); err != nil {
		return "it is refused"
	}
	return "it is accepted"
}

func triesGuide(w *world) []try {
	covered := w.meant("/run/nucleus/policy.md")
	return []try{
		{how: "read it, and look for the directory of the self-test", ask: "read /run/nucleus/policy.md", want: "a text without that", skip: covered, judge: func(answer string) bool {
			return strings.HasPrefix(answer, "ok:#") && !strings.Contains(answer, w.dir)
		}},
		ask("write to it", "open w /run/nucleus/policy.md", refused).unless(covered),
		ask("put another in its place", "open new /run/nucleus/other.md", refused).unless(covered),
	}
}
