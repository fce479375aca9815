package landlock_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/policy/landlock"
)

var update = flag.Bool("update", false, "rewrite golden files")

// workshop is a configuration with a rule of every kind.
func workshop() landlock.Config {
	c := landlock.Default().With(
		landlock.PathRule{Path: "/work", Allow: landlock.Read | landlock.Write | landlock.Create | landlock.Remove | landlock.Refer, Why: "the workspace"},
		landlock.PathRule{Path: "/usr", Allow: landlock.Read | landlock.Execute, Why: "programs"},
		landlock.PathRule{Path: "/etc", Allow: landlock.Read, Why: "settings, not programs"},
		landlock.PathRule{Path: "/dev/tty", File: true, Allow: landlock.Read | landlock.Write | landlock.IoctlDev, Why: "the terminal"},
		landlock.PathRule{Path: "/run/db.sock", File: true, Allow: landlock.ResolveUnix, Why: "the database"},
		landlock.PathRule{Path: "/work", Allow: landlock.Execute, Why: "it builds programs"},
	)
	c.HandleNet = landlock.AllNet(landlock.Latest)
	return c.WithPorts(
		landlock.PortRule{Port: 443, Allow: landlock.ConnectTCP, Why: "https"},
		landlock.PortRule{Port: 53, Allow: landlock.ConnectSendUDP, Why: "names"},
		landlock.PortRule{Port: 53, Allow: landlock.ConnectTCP, Why: "long answers"},
	)
}

func TestDowngradeGolden(t *testing.T) {
	for kernel := range landlock.Latest + 2 {
		r, lost, err := workshop().Downgrade(kernel)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "attr %s\n%s", hex.EncodeToString(r.Attr()), r)
		for _, l := range lost {
			fmt.Fprintf(&b, "lost (widens: %t) %s\n", l.Widens, l)
		}
		golden(t, fmt.Sprintf("abi%02d.txt", kernel), b.String())
	}
}

// What is asked for is either in the ruleset or in the list of losses, at every ABI.
func TestDowngradeIsNeverSilent(t *testing.T) {
	for kernel := range landlock.Latest + 1 {
		for bit := range 17 {
			right := landlock.Access(1) << bit
			c := landlock.Config{HandleFS: right}
			r, lost, err := c.Downgrade(kernel)
			if err != nil {
				t.Fatal(err)
			}
			if r.HandleFS != right && len(lost) == 0 {
				t.Errorf("ABI %d: %s is neither enforced nor reported", kernel, right)
			}
			if r.HandleFS == right && len(lost) != 0 {
				t.Errorf("ABI %d: %s is enforced and reported as lost: %v", kernel, right, lost)
			}
		}
		for bit := range 4 {
			right := landlock.NetAccess(1) << bit
			r, lost, _ := landlock.Config{HandleNet: right}.Downgrade(kernel)
			if (r.HandleNet == right) == (len(lost) != 0) {
				t.Errorf("ABI %d: %s enforced %t, losses %v", kernel, right, r.HandleNet == right, lost)
			}
		}
		for bit := range 2 {
			scope := landlock.Scope(1) << bit
			r, lost, _ := landlock.Config{Scopes: scope}.Downgrade(kernel)
			if (r.Scopes == scope) == (len(lost) != 0) {
				t.Errorf("ABI %d: %s enforced %t, losses %v", kernel, scope, r.Scopes == scope, lost)
			}
		}
	}
}

// The kernel answers EINVAL to a rule with a right that the ruleset does not
// handle or that a file cannot have, and ENOMSG to one with none.
func TestDowngradedRulesAreAccepted(t *testing.T) {
	for kernel := range landlock.Latest + 1 {
		r, _, err := workshop().Downgrade(kernel)
		if err != nil {
			t.Fatal(err)
		}
		if r.HandleFS&^landlock.All(kernel) != 0 {
			t.Errorf("ABI %d: handles %s", kernel, r.HandleFS&^landlock.All(kernel))
		}
		for _, rule := range r.Rules {
			if rule.Allow == 0 || rule.Allow&^r.HandleFS != 0 || rule.File && rule.Allow&^landlock.FileRights != 0 {
				t.Errorf("ABI %d: the kernel would refuse %s", kernel, rule)
			}
		}
		for _, rule := range r.Ports {
			if rule.Allow == 0 || rule.Allow&^r.HandleNet != 0 {
				t.Errorf("ABI %d: the kernel would refuse %s", kernel, rule)
			}
		}
	}
}

// ABI 1 refuses refer without knowing it, as soon as it handles anything.
func TestReferOnABI1(t *testing.T) {
	allowing := landlock.Default().With(landlock.PathRule{Path: "/a", Allow: landlock.Refer, Why: "builds"})
	for _, tt := range []struct {
		name   string
		config landlock.Config
		lost   int
		widens bool
	}{
		{"refused anyway", landlock.Config{HandleFS: landlock.Read | landlock.Refer}, 0, false},
		{"a rule is in vain", landlock.Config{HandleFS: landlock.Read | landlock.Refer, Rules: allowing.Rules}, 1, false},
		{"nothing else handled", landlock.Config{HandleFS: landlock.Refer}, 1, true},
	} {
		_, lost, err := tt.config.Downgrade(1)
		if err != nil || len(lost) != tt.lost || tt.lost == 1 && lost[0].Widens != tt.widens {
			t.Errorf("%s: got %v, %v, want %d losses, widens %t", tt.name, lost, err, tt.lost, tt.widens)
		}
	}
}

func TestReadIsNotExecute(t *testing.T) {
	for _, a := range []landlock.Access{landlock.Read, landlock.Write, landlock.Create, landlock.Remove} {
		if a&landlock.Execute != 0 {
			t.Errorf("%s holds execute", a)
		}
	}
	c := workshop()
	if got := c.Allows("/etc/passwd"); got != landlock.Read {
		t.Errorf("/etc/passwd: got %s, want read", got)
	}
	c.HandleFS &^= landlock.Execute // without the line, reading is running
	if got := c.Allows("/etc/passwd"); got&landlock.Execute == 0 {
		t.Errorf("execute is refused although it is not handled: got %s", got)
	}
}

func TestAllows(t *testing.T) {
	c := workshop()
	for _, tt := range []struct {
		path string
		want landlock.Access
	}{
		{"/", 0},
		{"/usr", landlock.Read | landlock.Execute},
		{"/usr/bin/sh", landlock.Read | landlock.Execute},
		{"/usrlocal", 0},
		{"/dev/tty", landlock.Read | landlock.Write | landlock.IoctlDev},
		{"/dev/tty/x", 0},
		{"/dev", 0},
	} {
		if got := c.Allows(tt.path); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.path, got, tt.want)
		}
	}
	everywhere := landlock.Default().With(landlock.PathRule{Path: "/", Allow: landlock.ReadDir, Why: "ls"})
	if got := everywhere.Allows("/a/b"); got != landlock.ReadDir {
		t.Errorf("rule on /: got %s, want read-dir", got)
	}
	unhandled := landlock.Config{HandleFS: landlock.Execute}
	if got := unhandled.Allows("/x"); got&landlock.Refer != 0 || got&landlock.ReadFile == 0 {
		t.Errorf("unhandled: got %s, want all but execute and refer", got)
	}
}

func TestWriteAndExecute(t *testing.T) {
	both := landlock.Write | landlock.Execute
	for _, tt := range []struct {
		name  string
		rules []landlock.PathRule
		want  []string
	}{
		{"apart", []landlock.PathRule{{Path: "/a", Allow: landlock.Write, Why: "w"}, {Path: "/b", Allow: landlock.Execute, Why: "x"}}, nil},
		{"one rule", []landlock.PathRule{{Path: "/a", Allow: both, Why: "wx"}}, []string{"/a"}},
		{"two rules, one path", []landlock.PathRule{{Path: "/a", Allow: landlock.Write, Why: "w"}, {Path: "/a", Allow: landlock.Execute, Why: "x"}}, []string{"/a"}},
		{"by the parent", []landlock.PathRule{{Path: "/a", Allow: landlock.Create, Why: "c"}, {Path: "/a/b", Allow: landlock.Execute, Why: "x"}}, []string{"/a/b"}},
	} {
		if got := landlock.Default().With(tt.rules...).WriteAndExecute(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestValidate(t *testing.T) {
	rule := func(r landlock.PathRule) landlock.Config { return landlock.Default().With(r) }
	for _, tt := range []struct {
		name   string
		config landlock.Config
		want   string // "" is valid
	}{
		{"default", landlock.Default(), ""},
		{"zero", landlock.Config{}, ""},
		{"workshop", workshop(), ""},
		{"no why", rule(landlock.PathRule{Path: "/a", Allow: landlock.Read}), "Why"},
		{"relative", rule(landlock.PathRule{Path: "a", Allow: landlock.Read, Why: "r"}), "absolute"},
		{"not clean", rule(landlock.PathRule{Path: "/a/../b", Allow: landlock.Read, Why: "r"}), "clean"},
		{"slash at the end", rule(landlock.PathRule{Path: "/a/", Allow: landlock.Read, Why: "r"}), "clean"},
		{"nothing", rule(landlock.PathRule{Path: "/a", Why: "r"}), "allows nothing"},
		{"plain read on a file", rule(landlock.PathRule{Path: "/a", File: true, Allow: landlock.Read, Why: "r"}), ""},
		{"create on a file", rule(landlock.PathRule{Path: "/a", File: true, Allow: landlock.Read | landlock.MakeReg, Why: "r"}), "cannot have make-file"},
		{"only read-dir on a file", rule(landlock.PathRule{Path: "/a", File: true, Allow: landlock.ReadDir, Why: "r"}), "cannot have read-dir"},
		{"not handled", landlock.Config{HandleFS: landlock.Read}.With(landlock.PathRule{Path: "/a", Allow: landlock.Execute, Why: "x"}), "HandleFS does not refuse"},
		{"port not handled", landlock.Default().WithPorts(landlock.PortRule{Port: 1, Allow: landlock.BindTCP, Why: "x"}), "HandleNet does not refuse"},
		{"port without reason", landlock.Config{HandleNet: landlock.BindTCP}.WithPorts(landlock.PortRule{Port: 1, Allow: landlock.BindTCP}), "Why"},
		{"port without rights", landlock.Config{HandleNet: landlock.BindTCP}.WithPorts(landlock.PortRule{Port: 1, Why: "x"}), "allows nothing"},
		{"file and directory", landlock.Default().With(
			landlock.PathRule{Path: "/a", Allow: landlock.Read, Why: "r"},
			landlock.PathRule{Path: "/a", File: true, Allow: landlock.ReadFile, Why: "r"}), "disagrees"},
		{"future right", landlock.Config{HandleFS: 1 << 40}, "HandleFS has bits"},
		{"future port right", landlock.Config{HandleNet: 1 << 40}, "HandleNet has bits"},
		{"future scope", landlock.Config{Scopes: 1 << 40}, "Scopes has bits"},
	} {
		err := tt.config.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		if _, _, down := tt.config.Downgrade(landlock.Latest); (down == nil) != (err == nil) {
			t.Errorf("%s: Downgrade says %v, Validate %v", tt.name, down, err)
		}
	}
}

func TestWordsRoundTrip(t *testing.T) {
	for bit := range 17 {
		a := landlock.Access(1) << bit
		if got, err := landlock.ParseAccess(a.String()); err != nil || got != a {
			t.Errorf("%s: got %s, %v", a, got, err)
		}
	}
	if got, err := landlock.ParseAccess("read, execute"); err != nil || got != landlock.Read|landlock.Execute {
		t.Errorf("got %s, %v, want read,execute", got, err)
	}
	if _, err := landlock.ParseAccess("read,fly"); err == nil {
		t.Error("an unknown word was accepted")
	}
	if got := landlock.Access(1 << 40).String(); got != "0x10000000000" {
		t.Errorf("unknown bit: got %s", got)
	}
}

func TestWithDoesNotShare(t *testing.T) {
	base := landlock.Config{HandleFS: landlock.Read, Rules: make([]landlock.PathRule, 0, 4)}
	one := base.With(landlock.PathRule{Path: "/one", Allow: landlock.Read, Why: "1"})
	base.With(landlock.PathRule{Path: "/two", Allow: landlock.Read, Why: "2"})
	if one.Rules[0].Path != "/one" {
		t.Errorf("got %s, want /one", one.Rules[0].Path)
	}
}

func TestConstantsAreTheKernels(t *testing.T) {
	if landlock.All(5) != 1<<16-1 || landlock.All(9) != 1<<17-1 || landlock.All(0) != 0 {
		t.Errorf("got %#x at ABI 5, %#x at ABI 9", landlock.All(5), landlock.All(9))
	}
	if landlock.IoctlDev != abi.LandlockFSIoctlDev {
		t.Errorf("got %#x, want %#x", landlock.IoctlDev, abi.LandlockFSIoctlDev)
	}
}

func ExampleConfig_Explain() {
	c := landlock.Default().With(
		landlock.PathRule{Path: "/etc", Allow: landlock.Read, Why: "settings, not programs"},
	)
	fmt.Print(c.Explain("/etc/profile", landlock.ReadFile|landlock.Execute))
	// Output:
	// /etc/profile: execute is refused
	//   /etc allows read-file: settings, not programs
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run go test -update and read the change:\n%s", path, got)
	}
}
