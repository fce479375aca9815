package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Egress is a rule about connections that a sandbox makes. A rule names a host
// or a block of addresses; without either it is about every address.
type Egress struct {
	Allow    bool     `json:"allow,omitempty"` // refuse otherwise
	Host     string   `json:"host,omitempty"`  // a name, lower case; *.example.com is every name below
	CIDR     string   `json:"cidr,omitempty"`
	Ports    []uint16 `json:"ports,omitempty"`    // none: every port
	Protocol string   `json:"protocol,omitempty"` // "tcp" or "udp"; empty: both
	Why      string   `json:"why"`
}

// Validate returns an error if e is not a rule that could be kept.
func (e Egress) Validate() error {
	switch {
	case e.Why == "":
		return errors.New("no reason given (why)")
	case e.Host != "" && e.CIDR != "":
		return errors.New("a rule is about a host or about a block of addresses, not both")
	case e.Protocol != "" && e.Protocol != "tcp" && e.Protocol != "udp":
		return fmt.Errorf("protocol %q is not tcp or udp", e.Protocol)
	case e.Host != "" && !validHost(e.Host):
		return fmt.Errorf("host %q is not a name of lower-case letters, digits, dashes and dots, with *. in front perhaps", e.Host)
	}
	for _, p := range e.Ports {
		if p == 0 {
			return errors.New("no connection goes to port 0")
		}
	}
	if e.CIDR == "" {
		return nil
	}
	p, err := netip.ParsePrefix(e.CIDR)
	if err != nil {
		return fmt.Errorf("cidr %q is not an address, a slash and a number of bits", e.CIDR)
	}
	if p.Masked() != p {
		return fmt.Errorf("cidr %s has bits behind its prefix: %s is meant", e.CIDR, p.Masked())
	}
	return nil
}

// validHost accepts one spelling of each name, so that no other one goes past a
// rule: lower case, no final dot, not an address.
func validHost(h string) bool {
	h = strings.TrimPrefix(h, "*.")
	if len(h) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(h); err == nil {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(h, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') }) {
			return false
		}
		last = label
	}
	// A name of digits at the end is an address in disguise (127.1, 0x7f.1).
	return last[0] > '9'
}

// String prints e on one line.
func (e Egress) String() string {
	do, what := "refuse", "every address"
	if e.Allow {
		do = "allow"
	}
	switch {
	case e.Host != "":
		what = e.Host
	case e.CIDR != "":
		what = e.CIDR
	}
	if len(e.Ports) > 0 {
		what += " port " + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(e.Ports)), ","), "[]")
	}
	if e.Protocol != "" {
		what += " " + e.Protocol
	}
	return fmt.Sprintf("%s %s (%s)", do, what, e.Why)
}
