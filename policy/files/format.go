package files

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Format writes p as a policy.toml that [ParsePolicy] reads back. Where p was
// read and which dangerous calls its user has named is not part of it.
func Format(p *policy.Policy) []byte {
	w := &writer{}
	if p.Seccomp != nil {
		w.seccomp(*p.Seccomp)
	}
	if p.Caps != nil {
		w.caps(*p.Caps)
	}
	if p.Landlock != nil {
		w.landlock(*p.Landlock)
	}
	for _, e := range p.Egress {
		w.egress(e)
	}
	return []byte(w.String())
}

type writer struct{ strings.Builder }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

// table begins a table, after an empty line.
func (w *writer) table(name string) {
	if w.Len() > 0 {
		w.WriteByte('\n')
	}
	w.line("%s", name)
}

// text is a TOML string, whatever it holds.
func text(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func texts(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = text(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func (w *writer) seccomp(p seccomp.Policy) {
	w.table("[seccomp]")
	w.line("default = %s", text(string(p.Default)))
	if p.Unknown != "" {
		w.line("unknown = %s", text(string(p.Unknown)))
	}
	for _, r := range p.Rules {
		w.table("[[seccomp.rules]]")
		w.line("calls = %s", texts(r.Calls))
		if len(r.When) > 0 {
			var conds []string
			for _, c := range r.When {
				conds = append(conds, c.String())
			}
			w.line("when = %s", texts(conds))
		}
		w.line("do = %s", text(string(r.Do)))
		w.line("why = %s", text(r.Why))
	}
}

func (w *writer) caps(s caps.Sets) {
	for _, n := range s.Named() {
		w.table("[caps." + n.Name + "]")
		var names []string
		for _, c := range n.Set.Caps() {
			names = append(names, c.String())
		}
		w.line("keep = %s", texts(names))
	}
}

func (w *writer) landlock(c landlock.Config) {
	w.table("[landlock]")
	if c.MinABI != 0 {
		w.line("min_abi = %d", c.MinABI)
	}
	w.line("scopes = %s", texts(words(c.Scopes.String())))
	w.line("refuse_ports = %s", texts(words(c.HandleNet.String())))
	for _, r := range c.Rules {
		w.table("[[landlock.rules]]")
		w.line("path = %s", text(r.Path))
		if r.File {
			w.line("file = true")
		}
		w.line("access = %s", texts(words(r.Allow.String())))
		w.line("why = %s", text(r.Why))
	}
	for _, r := range c.Ports {
		w.table("[[landlock.ports]]")
		w.line("port = %d", r.Port)
		w.line("access = %s", texts(words(r.Allow.String())))
		w.line("why = %s", text(r.Why))
	}
}

// words are those of a set as it prints itself.
func words(set string) []string {
	if set == "nothing" {
		return nil
	}
	return strings.Split(set, ",")
}

func (w *writer) egress(e policy.Egress) {
	w.table("[[egress]]")
	do := "refuse"
	if e.Allow {
		do = "allow"
	}
	w.line("do = %s", text(do))
	for _, f := range [...][2]string{{"host", e.Host}, {"cidr", e.CIDR}, {"protocol", e.Protocol}} {
		if f[1] != "" {
			w.line("%s = %s", f[0], text(f[1]))
		}
	}
	if len(e.Ports) > 0 {
		ports := make([]string, len(e.Ports))
		for i, p := range e.Ports {
			ports[i] = strconv.Itoa(int(p))
		}
		w.line("ports = [%s]", strings.Join(ports, ", "))
	}
	w.line("why = %s", text(e.Why))
}
