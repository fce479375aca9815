// Package sandboxtest is support for tests that meet a real kernel: it says what
// a test needs and skips it where that is missing, finds what a test left behind,
// and makes the unprivileged user that suites run as. Only tests and the suite
// runner import it; nothing that is installed does.
//
//	func TestMain(m *testing.M) { sandboxtest.Main(m) }
//
//	func TestRun(t *testing.T) {
//		sandboxtest.Need(t, sandboxtest.Userns)
//		...
//	}
package sandboxtest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Feature is something a test cannot do without. Each has a probe that tries
// the thing itself: no version string is read anywhere.
type Feature string

// What a test can ask for.
const (
	// Root is effective uid 0 that may create mount namespaces.
	Root Feature = "root"
	// User is any effective uid but 0.
	User Feature = "user"
	// Userns is a user namespace with one id mapped, with power over its own
	// mounts: some systems permit the first and deny the second.
	Userns Feature = "userns"
	// CgroupV1 is a v1 hierarchy with the pids controller where a group can be made.
	CgroupV1 Feature = "cgroupv1"
	// CgroupV2 is a place on the v2 hierarchy where a group with the pids and memory
	// controllers can be made: at our group or above it, or in a scope that the
	// service manager hands over.
	CgroupV2 Feature = "cgroupv2"
	// Cgroup is CgroupV1 or CgroupV2.
	Cgroup Feature = "cgroup"
	// Systemd is a service manager that answers: the system's for root, the
	// user's own for others.
	Systemd Feature = "systemd"
	// Landlock is a kernel that has it switched on.
	Landlock Feature = "landlock"
	// Audit is a kernel that writes Landlock's denials to its audit log, and leave
	// to read it: root where somebody has switched audit on.
	Audit Feature = "audit"
	// Subids is newuidmap and newgidmap with a range for this user.
	Subids Feature = "subids"
	// KernelOverlay is overlayfs that can be mounted in a user namespace.
	KernelOverlay Feature = "overlay"
	// Toolchain is a Go that can build the package that the test is in: the
	// suite also runs compiled tests where there are no sources and no compiler.
	Toolchain Feature = "toolchain"
	// Long is a run without -short.
	Long Feature = "long"
)

// Program is the feature of having a program of that name in PATH.
func Program(name string) Feature { return Feature(programPrefix + name) }

const programPrefix = "program-"

// requireEnv names the features that a run must have: a comma list of names, or
// "all", which leaves out root and user because no run is both, and audit, which
// is not ours to switch on.
const requireEnv = "NUCLEUS_TEST_REQUIRE"

var (
	haveCgroupV1 = sync.OnceValue(probeCgroupV1)
	haveCgroupV2 = sync.OnceValue(probeCgroupV2)
	haveSystemd  = sync.OnceValue(probeSystemd)
)

// probes holds one remembered attempt per feature.
var probes = map[Feature]func() error{
	Root:          sync.OnceValue(probeRoot),
	User:          sync.OnceValue(probeUser),
	Userns:        sync.OnceValue(probeUserns),
	CgroupV1:      haveCgroupV1,
	CgroupV2:      haveCgroupV2,
	Cgroup:        sync.OnceValue(probeCgroup),
	Systemd:       haveSystemd,
	Landlock:      sync.OnceValue(probeLandlock),
	Audit:         sync.OnceValue(probeAudit),
	Subids:        sync.OnceValue(probeSubids),
	KernelOverlay: sync.OnceValue(probeOverlay),
	Toolchain:     sync.OnceValue(probeToolchain),
	Long:          probeLong,
}

// Need skips t unless every feature is there. The skip's text has the form
// "needs FEATURE: reason", which the suite's summary groups by. A feature that
// NUCLEUS_TEST_REQUIRE names fails the test instead.
func Need(t testing.TB, features ...Feature) {
	t.Helper()
	required, err := parseRequired(os.Getenv(requireEnv))
	if err != nil {
		t.Fatalf("%s: %v", requireEnv, err)
	}
	for _, f := range features {
		err := Probe(f)
		if err == nil {
			continue
		}
		if required(f) {
			t.Fatalf("needs %s: %v (and %s asks for it)", f, err, requireEnv)
		}
		t.Skipf("needs %s: %v", f, err)
	}
}

// Probe tries f and returns nil or why it is missing. The answer is remembered.
func Probe(f Feature) error {
	if name, ok := strings.CutPrefix(string(f), programPrefix); ok {
		return probeProgram(name)
	}
	probe, ok := probes[f]
	if !ok {
		return fmt.Errorf("no feature has the name %q", f)
	}
	return probe()
}

// Features lists every feature that has a fixed name, in order of name.
func Features() []Feature {
	var all []Feature
	for f := range probes {
		all = append(all, f)
	}
	slices.Sort(all)
	return all
}

// parseRequired reads the value of NUCLEUS_TEST_REQUIRE. A name that means
// nothing is an error: a misspelt requirement would require nothing.
func parseRequired(value string) (func(Feature) bool, error) {
	var names []Feature
	all := false
	for name := range strings.SplitSeq(value, ",") {
		f := Feature(strings.TrimSpace(name))
		switch {
		case f == "":
		case f == "all":
			all = true
		case probes[f] != nil, strings.HasPrefix(string(f), programPrefix):
			names = append(names, f)
		default:
			return nil, fmt.Errorf("no feature has the name %q", f)
		}
	}
	return func(f Feature) bool {
		return slices.Contains(names, f) || all && !slices.Contains([]Feature{Root, User, Audit}, f)
	}, nil
}

// Slow is how many times slower than a machine of today this run is, at least
// 1, from NUCLEUS_TEST_SLOW. Deadlines are multiplied by it:
//
//	ctx, cancel := context.WithTimeout(ctx, 5*time.Second*sandboxtest.Slow())
func Slow() time.Duration {
	n, err := strconv.Atoi(os.Getenv("NUCLEUS_TEST_SLOW"))
	if err != nil || n < 1 {
		return 1
	}
	return time.Duration(n)
}
