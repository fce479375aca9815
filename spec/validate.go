package spec

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Problem is one thing wrong with a description: the field, and why.
type Problem struct {
	Field string // as in the JSON form, e.g. "volumes[1].target"
	Why   string
}

func (p *Problem) Error() string { return p.Field + ": " + p.Why }

// checker collects problems.
type checker struct{ problems []error }

func (c *checker) bad(field, format string, args ...any) {
	c.problems = append(c.problems, &Problem{field, fmt.Sprintf(format, args...)})
}

// Validate checks the description against itself and reports every problem it
// finds, joined; each is a *Problem.
func (s *Sandbox) Validate() error {
	var c checker
	if s.Name != "" && !validName(s.Name) {
		c.bad("name", "%q is not 1 to 64 characters of [A-Za-z0-9_.-] starting with a letter or digit", s.Name)
	}
	if s.Hostname != "" && !validHostname(s.Hostname) {
		c.bad("hostname", "%q is not a host name (RFC 1123: at most 63 letters, digits and dashes between dots, 64 in all)", s.Hostname)
	}
	s.checkPlaces(&c)
	s.checkIdentity(&c)
	if s.Workdir != "" && !cleanAbs(s.Workdir) {
		c.bad("workdir", "%q is not an absolute path without \"..\"", s.Workdir)
	}
	for _, kv := range s.Env {
		checkEnv(&c, kv)
	}
	if err := s.Policy.Validate(); err != nil {
		c.bad("policy", "%v", err)
	}
	s.Limits.check(&c)
	if s.Timeout < 0 {
		c.bad("timeout", "%v is negative", s.Timeout)
	} else if s.Timeout > 0 && s.Timeout < time.Millisecond {
		c.bad("timeout", "%v is less than a millisecond", s.Timeout)
	}
	for _, d := range s.Degrade {
		if d != DegradeLandlock && d != DegradeCgroup {
			c.bad("degrade", "%q is not a feature that can be degraded; known are %s and %s", d, DegradeLandlock, DegradeCgroup)
		}
	}
	s.checkDemands(&c)
	return errors.Join(c.problems...)
}

func (s *Sandbox) checkIdentity(c *checker) {
	if s.User.UID > maxID {
		c.bad("user.uid", "%d is more than %d", s.User.UID, maxID)
	}
	if s.User.GID > maxID {
		c.bad("user.gid", "%d is more than %d", s.User.GID, maxID)
	}
	if n := s.User.Name; n != "" && !validName(n) {
		c.bad("user.name", "%q is not a user name", n)
	}
	if s.Userns != UsernsPrivate && s.Userns != UsernsHost {
		c.bad("userns", "%q is not a user namespace mode; known are \"\" (private) and \"host\"", s.Userns)
	}
	if s.Network != NetworkNone {
		c.bad("network", "%q is not a network; known is \"\" (none)", s.Network)
	}
}

// maxID is the last id of a sandbox; 65535 and -1 mean "no id" to system calls.
const maxID = 65534

// reserved are the places that a sandbox furnishes itself.
var reserved = []string{"/proc", "/dev", "/sys"}

// checkPlaces checks every host path and every place inside.
func (s *Sandbox) checkPlaces(c *checker) {
	s.checkRootfs(c)
	taken := map[string]string{}
	place := func(field, target string) {
		clean := path.Clean(target)
		if other, ok := taken[clean]; ok {
			c.bad(field, "%s is already the place of %s", clean, other)
		}
		taken[clean] = strings.TrimSuffix(field, ".target")
	}
	if s.Context != nil {
		checkSource(c, "context.source", s.Context.Source)
		place("context", "/context")
	}
	if s.Workspace != nil {
		checkSource(c, "workspace.source", s.Workspace.Source)
		place("workspace", "/workspace")
	}
	for i, v := range s.Volumes {
		field := fmt.Sprintf("volumes[%d]", i)
		checkSource(c, field+".source", v.Source)
		if checkTarget(c, field+".target", v.Target) {
			place(field+".target", v.Target)
		}
	}
	for i, t := range s.Tmpfs {
		field := fmt.Sprintf("tmpfs[%d].target", i)
		if checkTarget(c, field, t.Target) {
			place(field, t.Target)
		}
	}
}

func checkSource(c *checker, field, source string) {
	if source == "" {
		c.bad(field, "no host path given")
	}
	if strings.ContainsRune(source, 0) {
		c.bad(field, "%q has a zero byte", source)
	}
}

func checkTarget(c *checker, field, target string) bool {
	if !cleanAbs(target) || path.Clean(target) == "/" {
		c.bad(field, "%q is not an absolute path without \"..\", below /", target)
		return false
	}
	clean := path.Clean(target)
	for _, r := range reserved {
		if clean != "/dev/shm" && (clean == r || strings.HasPrefix(clean, r+"/")) {
			c.bad(field, "%s is the sandbox's own; choose a place outside %s", clean, r)
			return false
		}
	}
	return true
}

// cleanAbs reports whether p is absolute and never goes up.
func cleanAbs(p string) bool {
	return strings.HasPrefix(p, "/") && !strings.ContainsRune(p, 0) && len(p) < 4096 && !slices.Contains(strings.Split(p, "/"), "..")
}

func validName(n string) bool {
	if len(n) == 0 || len(n) > 64 || n[0] == '-' || n[0] == '.' || n[0] == '_' {
		return false
	}
	return !strings.ContainsFunc(n, func(r rune) bool { return !alnum(r) && !strings.ContainsRune("_.-", r) })
}

func alnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// validHostname accepts RFC 1123 names that sethostname(2) takes: 64 bytes.
func validHostname(h string) bool {
	if len(h) > 64 {
		return false
	}
	for _, label := range strings.Split(h, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool { return !alnum(r) && r != '-' }) {
			return false
		}
	}
	return true
}

// checkEnv refuses what is not K=V, and variables that make the dynamic loader
// or the C library load or trust something else: the sandbox would honour them
// before the program's first instruction.
func checkEnv(c *checker, kv string) {
	key, value, ok := strings.Cut(kv, "=")
	if !ok || key == "" || strings.ContainsFunc(key, func(r rune) bool { return !alnum(r) && r != '_' }) || key[0] >= '0' && key[0] <= '9' {
		c.bad("env", "%q is not KEY=VALUE with a key of [A-Za-z_][A-Za-z0-9_]*", kv)
		return
	}
	if strings.ContainsRune(value, 0) {
		c.bad("env", "the value of %s has a zero byte", key)
	}
	if strings.HasPrefix(key, "LD_") || key == "GLIBC_TUNABLES" || key == "GCONV_PATH" || key == "LOCPATH" || key == "NLSPATH" {
		c.bad("env", "%s steers the dynamic loader and is refused", key)
	}
}

func (l Limits) check(c *checker) {
	if l.Memory != 0 && l.Memory < MinMemory {
		c.bad("limits.memory", "%v is less than %v, the least that a sandbox starts in", l.Memory, MinMemory)
	}
	if l.MemorySwap != 0 && l.Memory == 0 {
		c.bad("limits.memory_swap", "needs a memory limit beside it")
	} else if l.MemorySwap != 0 && l.MemorySwap < l.Memory {
		c.bad("limits.memory_swap", "%v is less than the memory limit %v, which it includes", l.MemorySwap, l.Memory)
	}
	if l.MilliCPUs != 0 && (l.MilliCPUs < 10 || l.MilliCPUs > 65536_000) {
		c.bad("limits.milli_cpus", "%g processors is not between 0.01 and 65536", float64(l.MilliCPUs)/1000)
	}
	if l.CPUWeight > 10000 {
		c.bad("limits.cpu_weight", "%d is not between 1 and 10000", l.CPUWeight)
	}
	if l.Pids < Unlimited || l.Pids > 4194304 {
		c.bad("limits.pids", "%d is not between 1 and 4194304", l.Pids)
	}
	for i, io := range l.IO {
		if io.ReadBPS|io.WriteBPS|io.ReadIOPS|io.WriteIOPS == 0 {
			c.bad(fmt.Sprintf("limits.io[%d]", i), "limits nothing on device %d:%d", io.Major, io.Minor)
		}
	}
}
