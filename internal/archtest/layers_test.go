package archtest

import (
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/nucleus-container/nucleus"

// Sets of packages that the layers below are written with.
var (
	policies = []string{"policy", "policy/caps", "policy/landlock", "policy/learn", "policy/seccomp"}
	values   = join(policies, "internal/abi")                                   // layer 0 without child
	facts    = join(values, "spec", "internal/facts", "event")                  // and the pure part of layer 1
	lower    = join(facts, "internal/kernel")                                   // layers 0 and 1
	middle   = join(lower, "internal/cgroup", "internal/host", "internal/pid1", // and layer 2
		"internal/plan", "internal/record", "internal/resolve", "internal/logger", "internal/logs",
		"internal/audit", "internal/health", "internal/hook", "internal/notify", "internal/restart", "internal/unit", "internal/transfer", "internal/rootfs", "internal/denial")
	upper = join(middle, "internal/enter", "internal/supervise", "internal/observe") // and layer 3
)

// may lists, for each package, the packages of this module that it may import
// outside its tests. A package that is missing fails the test, so a new package
// states its place in the layering in the change that adds it.
var may = map[string][]string{
	// Layer 0: values, and the code that runs between clone and exec.
	"internal/abi":    {},
	"internal/child":  {},
	"policy/caps":     {"internal/abi"},
	"policy/landlock": {"internal/abi"},
	"policy/seccomp":  {"internal/abi"},
	"policy/learn":    {"policy/caps", "policy/landlock", "policy/seccomp"},
	"policy":          {"policy/caps", "policy/landlock", "policy/seccomp"},
	"policy/profiles": {"policy/seccomp"},
	// Policies from files: values again, but it opens what it reads.
	"policy/files": join(policies, "policy/profiles"),
	// Layer 1: what is asked for, what there is, and the door to the kernel.
	"spec":            values,
	"internal/facts":  values,
	"event":           {},
	"internal/kernel": values,
	// Layer 2: the plan, and the things it is made from.
	"internal/plan":     facts,
	"internal/host":     join(lower, "internal/rootfs"),
	"internal/resolve":  lower,
	"internal/cgroup":   lower,
	"internal/record":   lower,
	"internal/pid1":     lower,
	"internal/logger":   lower,
	"internal/logs":     lower,
	"internal/health":   {"spec"},
	"internal/hook":     {"spec", "internal/kernel"},
	"internal/notify":   {},
	"internal/restart":  {"spec"},
	"internal/unit":     {"spec"},
	"internal/transfer": lower,
	"internal/audit":    lower,
	"internal/rootfs":   {"internal/kernel"},
	"internal/probe":    lower,
	"internal/denial":   join(facts, "internal/plan"),
	// Layer 3: doing it. Only enter may touch child.
	"internal/enter":     join(middle, "internal/child"),
	"internal/supervise": middle,
	"internal/observe":   {"policy/landlock", "policy/seccomp", "internal/kernel"},
	// Layer 4: the library.
	".": upper,
	// Layer 5: sandboxes that are kept by name, and who stays with them. (oci is to come.)
	"store":             join(upper, "."),
	"internal/keeper":   join(upper, ".", "store"),
	"internal/selftest": join(upper, "."),
	// Layer 6: the program.
	"internal/cli": join(upper, ".", "store", "internal/keeper", "internal/probe", "internal/selftest", "policy/files", "policy/profiles"),
	"cmd/nucleus":  {"internal/cli"},
	// The companion that sends events elsewhere knows what events are, and no more.
	"internal/secret":  {},
	"internal/otel":    {"event", "internal/secret"},
	"cmd/nucleus-otel": {"event", "internal/otel"},
	// Beside the layers: nothing that is installed imports these.
	"internal/sandboxtest": {},
	"internal/archtest":    {},
	"internal/suite":       {"internal/sandboxtest"},
	"internal/bench":       join(upper, ".", "store"),
	"internal/soak":        join(lower, "internal/record", "internal/sandboxtest"),
}

// thirdParty lists the modules from elsewhere, with the packages that may
// import them. Tests may import x/sys for constants.
var thirdParty = map[string][]string{
	"golang.org/x/sys":                  {"internal/kernel"},
	"github.com/opencontainers/cgroups": {"internal/cgroup"},
	"golang.org/x/term":                 {"internal/cli"},
	"github.com/pelletier/go-toml/v2":   {"policy/files"},
	"github.com/rogpeppe/go-internal":   {}, // tests only
	"go.opentelemetry.io/proto/slim":    {}, // tests only: a second opinion about internal/otel's messages
	"google.golang.org/protobuf":        {}, // tests only
	"github.com/moby/profiles":          {}, // tests only
}

// pure are the packages that can be computed anywhere, for any machine: they
// must not ask the one that they run on.
var pure = join(facts, "policy/profiles", "internal/plan", "internal/denial", "internal/health", "internal/restart", "internal/unit")

// library is layers 0 to 5: code that runs inside other people's programs.
var library = join(upper, "policy/profiles", "policy/files", "internal/child", ".", "store")

func join(set []string, more ...string) []string { return slices.Concat(set, more) }

func TestLayering(t *testing.T) {
	check(t, func(f *file) (wrong []string) {
		allowed, ok := may[f.pkg]
		if !ok {
			return []string{"package " + f.pkg + " has no place in the layering: add it to may"}
		}
		for _, imp := range f.imports() {
			if rel, ours := within(imp); ours && !f.test && !slices.Contains(allowed, rel) {
				wrong = append(wrong, "imports "+rel+", which its layer does not allow")
			}
		}
		return wrong
	})
}

func TestThirdParty(t *testing.T) {
	check(t, func(f *file) (wrong []string) {
		for _, imp := range f.imports() {
			first, _, _ := strings.Cut(imp, "/")
			if _, ours := within(imp); ours || !strings.Contains(first, ".") {
				continue
			}
			owners, known := ownersOf(imp)
			switch {
			case !known:
				wrong = append(wrong, "imports "+imp+", a module that the layering does not name")
			case !f.test && !slices.Contains(owners, f.pkg):
				wrong = append(wrong, "imports "+imp+", which only "+strings.Join(owners, ", ")+" may")
			}
		}
		return wrong
	})
}

func TestPure(t *testing.T) {
	check(t, func(f *file) (wrong []string) {
		if f.test || !slices.Contains(pure, f.pkg) {
			return nil
		}
		for _, imp := range f.imports() {
			root, _, _ := strings.Cut(imp, "/")
			if (root == "os" || root == "net" || root == "log") && imp != "net/netip" && imp != "net/url" { // both only parse
				wrong = append(wrong, "imports "+imp+": what it computes must not depend on this machine")
			}
		}
		// Constants and types of syscall are data; its functions are not.
		for _, name := range f.calls("syscall") {
			if name != "Errno" && name != "Signal" {
				wrong = append(wrong, "calls syscall."+name+": it must not touch this machine")
			}
		}
		return wrong
	})
}

func TestChildIsAlone(t *testing.T) {
	check(t, func(f *file) (wrong []string) {
		for _, imp := range f.imports() {
			if f.pkg == "internal/child" && !f.test && imp != "syscall" && imp != "unsafe" {
				wrong = append(wrong, "imports "+imp+": after the clone there is no Go runtime")
			}
		}
		return wrong
	})
}

// within returns the path of imp in this module.
func within(imp string) (rel string, ours bool) {
	rel, ours = strings.CutPrefix(imp+"/", module+"/")
	return path.Clean(rel), ours
}

func ownersOf(imp string) ([]string, bool) {
	for mod, owners := range thirdParty {
		if imp == mod || strings.HasPrefix(imp, mod+"/") {
			return owners, true
		}
	}
	return nil, false
}
