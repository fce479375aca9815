package spec

import (
	"slices"
	"strings"
)

// Mode says how much must hold for a sandbox to start at all. All modes fail
// closed; `nucleus modes` prints what each of them demands.
type Mode string

// Modes, each of which demands what the one before it demands, and more.
const (
	// ModeAgent, the zero value, enforces what the description says, and weakens
	// only what Degrade names.
	ModeAgent Mode = ""
	// ModeStrictAgent weakens nothing, whoever asks for it.
	ModeStrictAgent Mode = "strict-agent"
	// ModeProduction also wants everything said explicitly, and an immutable root.
	ModeProduction Mode = "production"
)

// Modes are all modes, the least demanding first.
func Modes() []Mode { return []Mode{ModeAgent, ModeStrictAgent, ModeProduction} }

// Demands reports whether m demands at least what other does. A mode that does
// not exist demands everything.
func (m Mode) Demands(other Mode) bool {
	at := slices.Index(Modes(), m)
	return at < 0 || at >= slices.Index(Modes(), other)
}

// String is the name of the mode, as people give it.
func (m Mode) String() string {
	if m == ModeAgent {
		return "agent"
	}
	return string(m)
}

// Lockdown is a state of the kernel's lockdown (kernel_lockdown(7)).
type Lockdown string

// States of the kernel that can be demanded. Confidentiality includes integrity.
const (
	LockdownAny             Lockdown = "" // whatever it is
	LockdownIntegrity       Lockdown = "integrity"
	LockdownConfidentiality Lockdown = "confidentiality"
)

// Trust says how far the program is trusted.
type Trust string

const (
	// TrustUnsaid, the zero value, demands nothing.
	TrustUnsaid Trust = ""
	// TrustTrusted says that a kernel shared with the host is good enough.
	TrustTrusted Trust = "trusted"
	// TrustUntrusted demands a kernel of the sandbox's own (gVisor).
	TrustUntrusted Trust = "untrusted"
)

// Rootfs is a host directory that is the sandbox's root, read-only: any that
// holds programs. The sandbox furnishes /proc, /dev, /tmp, /run and the home
// directory itself, and never looks at what has those names in it.
type Rootfs struct {
	// Source is a path on the host, as of a Bind. A file .nucleus-rootfs-store-paths
	// in it lists the parts of /nix/store that it needs.
	Source string `json:"source"`
	// Attested compares it with its manifest before anything starts. It is what
	// SHA256 asks for as well.
	Attested bool `json:"attested,omitempty"`
	// Manifest is the manifest's path on the host; empty: the one in the directory.
	Manifest string `json:"manifest,omitempty"`
	// SHA256 is the digest that the manifest must have, in lower-case hex.
	SHA256 string `json:"sha256,omitempty"`
}

// Verified reports whether the directory is compared with its manifest.
func (r *Rootfs) Verified() bool { return r != nil && (r.Attested || r.SHA256 != "") }

func (s *Sandbox) checkRootfs(c *checker) {
	r := s.Rootfs
	if r == nil {
		return
	}
	checkSource(c, "rootfs.source", r.Source)
	if s.Toolchain {
		c.bad("toolchain", "the host's programs and a root of the sandbox's own exclude each other")
	}
	if strings.ContainsRune(r.Manifest, 0) {
		c.bad("rootfs.manifest", "%q has a zero byte", r.Manifest)
	}
	if r.Manifest != "" && !r.Verified() {
		c.bad("rootfs.manifest", "nothing is compared with it unless attestation is asked for")
	}
	if r.SHA256 != "" && (len(r.SHA256) != 64 || strings.Trim(r.SHA256, "0123456789abcdef") != "") {
		c.bad("rootfs.sha256", "%q is not 64 hexadecimal digits in lower case", r.SHA256)
	}
}

func (s *Sandbox) checkDemands(c *checker) {
	if !slices.Contains(Modes(), s.Mode) {
		c.bad("mode", "%q is not a mode; known are \"\" (agent), %s and %s", string(s.Mode), ModeStrictAgent, ModeProduction)
	}
	if !slices.Contains([]Lockdown{LockdownAny, LockdownIntegrity, LockdownConfidentiality}, s.Lockdown) {
		c.bad("lockdown", "%q is not a state of the kernel's lockdown; known are %s and %s", s.Lockdown, LockdownIntegrity, LockdownConfidentiality)
	}
	if !slices.Contains([]Trust{TrustUnsaid, TrustTrusted, TrustUntrusted}, s.Trust) {
		c.bad("trust", "%q is not a level of trust; known are %s and %s", s.Trust, TrustTrusted, TrustUntrusted)
	}
}
