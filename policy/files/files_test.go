package files

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// write makes a file and returns its path.
func write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantError checks an error's text, which is one line.
func wantError(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: got %v, want none", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: got %v, want one with %q", name, err, want)
	case err != nil && strings.Contains(err.Error(), "\n"):
		t.Errorf("%s: %q is more than one line", name, err)
	}
}

func TestRead(t *testing.T) {
	good := write(t, "a.toml", "[ambient]\nkeep = []\n")
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("[ambient]\nkeep = []\n")))
	dir := t.TempDir()
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		file File
		err  string
	}{
		{"plain", File{Path: good}, ""},
		{"pinned", File{good, sum}, ""},
		{"pinned in capitals", File{good, strings.ToUpper(sum)}, ""},
		{"pinned to another", File{good, strings.Repeat("0", 64)}, "its SHA-256 digest is " + sum},
		{"a digit short", File{good, sum[1:]}, "64 hexadecimal digits"},
		{"a digit more", File{good, sum + "0"}, "64 hexadecimal digits"},
		{"a space more", File{good, sum + " "}, "64 hexadecimal digits"},
		{"no digits", File{good, strings.Repeat("g", 64)}, "64 hexadecimal digits"},
		{"a digest and no file", File{"", sum}, "no file"},
		{"a link", File{Path: link}, "symbolic link"},
		{"a pipe", File{Path: fifo}, "not a regular file"},
		{"a directory", File{Path: dir}, "not a regular file"},
		{"a device", File{Path: "/dev/zero"}, "not a regular file"},
		{"too large", File{Path: write(t, "big", strings.Repeat("#\n", MaxSize/2+1))}, "larger than"},
		{"as large as may be", File{Path: write(t, "big", strings.Repeat("#\n", MaxSize/2))}, ""},
		{"nothing", File{Path: filepath.Join(dir, "none")}, "no such file"},
	} {
		p, err := Load(Options{Caps: tt.file})
		wantError(t, tt.name, err, tt.err)
		if err == nil && (p.Sources[0].SHA256 == "" || p.Sources[0].Pinned != (tt.file.SHA256 != "")) {
			t.Errorf("%s: got %+v", tt.name, p.Sources)
		}
	}
}

func TestParseCaps(t *testing.T) {
	bind, kill := caps.Of(caps.NetBindService), caps.Of(caps.Kill)
	for _, tt := range []struct {
		name, text string
		want       caps.Sets
		err        string
	}{
		{"nothing", "", caps.Sets{}, ""},
		{"ambient is all five", "[ambient]\nkeep = ['CAP_NET_BIND_SERVICE']", caps.Keep(bind), ""},
		{"wider bounding", "[bounding]\nkeep = ['kill', 'net_bind_service']\n[ambient]\nkeep = ['net_bind_service']",
			caps.Sets{Bounding: bind | kill, Permitted: bind, Effective: bind, Inheritable: bind, Ambient: bind}, ""},
		{"bounding alone", "[bounding]\nkeep = ['KILL']", caps.Sets{Bounding: kill}, ""},
		{"effective without ambient", "[effective]\nkeep = ['KILL']", caps.Sets{}, "effective: CAP_KILL is not ambient"},
		{"ambient without effective", "[effective]\nkeep = []\n[ambient]\nkeep = ['KILL']", caps.Sets{}, "effective: CAP_KILL is ambient"},
		{"ambient outside bounding", "[bounding]\nkeep = []\n[ambient]\nkeep = ['KILL']", caps.Sets{}, "bounding: CAP_KILL"},
		{"unknown name", "[ambient]\nkeep = [\n 'KILL',\n \"FLY\"]", caps.Sets{}, ":4: no capability is named \"FLY\""},
		{"twice", "[ambient]\nkeep = [\"KILL\", \"CAP_KILL\"]", caps.Sets{}, "CAP_KILL is kept twice"},
		{"unknown set", "[ambiant]\nkeep = []", caps.Sets{}, ":1: unknown key \"ambiant\""},
		{"unknown key", "[ambient]\nkepe = []", caps.Sets{}, ":2: unknown key \"ambient.kepe\""},
		{"key in capitals", "[ambient]\nKeep = ['KILL']", caps.Sets{}, "unknown key \"Keep\""},
		{"key twice by case", "[ambient]\nkeep = []\nKEEP = ['SYS_ADMIN']", caps.Sets{}, "unknown key \"KEEP\""},
		{"key twice", "[ambient]\nkeep = []\nkeep = []", caps.Sets{}, ":3:"},
		{"table twice", "[ambient]\nkeep = []\n[ambient]\n", caps.Sets{}, ":3:"},
		{"a string for a list", "[ambient]\nkeep = 'KILL'", caps.Sets{}, ":2:"},
		{"a number for a name", "[ambient]\nkeep = [5]", caps.Sets{}, ":2:"},
		{"text behind", "[ambient]\nkeep = []\ngarbage", caps.Sets{}, ":3:"},
	} {
		got, err := ParseCaps("f", []byte(tt.text))
		wantError(t, tt.name, err, tt.err)
		if err == nil && *got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestParseLandlock(t *testing.T) {
	c, err := ParseLandlock("f", []byte("min_abi = 3\nscopes = ['signals']\n[[rules]]\npath='/a/'\naccess=['read']\n[[rules]]\npath='/a/.'\naccess=['write','execute']\nwhy='x'\n[[rules]]\npath='/f'\nfile=true\naccess=['read']\n[[ports]]\nport=80\naccess=['bind-tcp']"))
	if err != nil {
		t.Fatal(err)
	}
	merged := c.Merged()
	if len(merged) != 2 || merged[0].Allow != landlock.Read|landlock.Write|landlock.Execute || c.MinABI != 3 || c.Scopes != landlock.ScopeSignal || c.HandleNet != landlock.BindTCP|landlock.ConnectTCP {
		t.Errorf("got %+v\n%s", c, c)
	}
	if got := c.WriteAndExecute(); len(got) != 1 || got[0] != "/a" {
		t.Errorf("the rules of one path, spelled in two ways: write and execute at %q", got)
	}
	if read, err := ParseLandlock("f", []byte("[[rules]]\npath='/a'\naccess=['read']")); err != nil || read.Allows("/a")&landlock.Execute != 0 {
		t.Errorf("to read is to execute: %v", err)
	}
	for _, tt := range []struct{ name, text, err string }{
		{"nothing", "", ""},
		{"goes up", "[[rules]]\npath='/a/../b'\naccess=['read']", ":1: rules[0]: path \"/a/../b\" goes up"},
		{"relative", "\n\n[[rules]]\npath='a'\naccess=['read']", ":3: rules[0]: path \"a\" is not absolute"},
		{"second element", "[[rules]]\npath='/a'\naccess=['read']\n[[rules]]\npath='/b'\naccess=['raed']", ":4: rules[1]: no file right is named \"raed\""},
		{"nothing allowed", "[[rules]]\npath='/a'\naccess=[]", "access is empty"},
		{"an empty word", "[[rules]]\npath='/a'\naccess=['']", "no file right"},
		{"no access", "[[rules]]\npath='/a'", "access is empty"},
		{"a file that is listed", "[[rules]]\npath='/a'\nfile=true\naccess=['create']", "a file cannot have"},
		{"unknown scope", "scopes=[\"x\"]", ":1: no scope is named \"x\""},
		{"unknown port right", "[[ports]]\nport=1\naccess=['read']", "no right over ports"},
		{"no port", "[[ports]]\naccess=['bind-tcp']", "port is missing"},
		{"a large port", "[[ports]]\nport=65536\naccess=['bind-tcp']", ":2:"},
		{"a negative ABI", "min_abi=-1", "no Landlock ABI -1"},
		{"a future ABI", "min_abi=1000", "no Landlock ABI 1000"},
		{"a zero byte", "[[rules]]\npath=\"/a\\u0000\"\naccess=['read']", "zero byte"},
		{"an unknown key", "[[rules]]\npath='/a'\nacess=['read']", ":3: unknown key"},
	} {
		_, err := ParseLandlock("f", []byte(tt.text))
		wantError(t, tt.name, err, tt.err)
	}
}

func TestParsePolicy(t *testing.T) {
	const rule = "[seccomp]\ndefault='EPERM'\n[[seccomp.rules]]\n"
	for _, tt := range []struct{ name, text, err string }{
		{"nothing", "", ""},
		{"no such profile", "extends=[\"snake\"]", ":1: no profile is called \"snake\""},
		{"a profile twice", "extends=[\"git\", \"git\"]", "twice"},
		{"no default", "[seccomp]\n", ":1: default is missing"},
		{"no such action", "[seccomp]\ndefault='maybe'", "no action \"maybe\""},
		{"no such call", rule + "calls=['raed']\ndo='allow'", ":3: seccomp.rules[0]: no system call is named \"raed\""},
		{"another machine's call", rule + "calls=['stime']\ndo='allow'", "no system call is named \"stime\""},
		{"no calls", rule + "do='allow'", "no calls named"},
		{"no action", rule + "calls=['read']", "no action"},
		{"conditions", rule + "calls=['read']\ndo='allow'\nwhen=['arg0 == 1', 'int arg1 & 0xf == 0x1', 'arg2 >= 0x100000000', 'int arg3 != 3']", ""},
		{"evidence", rule + "calls=['read']\ndo='allow'\nevidence='12 times, first by sh'", ""},
		{"egress", "[[egress]]\ndo='refuse'\nhost='example.com'\nports=[443]\nwhy='x'", ""},
		{"egress without do", "[[egress]]\nhost='example.com'\nwhy='x'", ":1: egress[0]: do is \"\""},
		{"egress without a reason", "[[egress]]\ndo='allow'\nhost='example.com'", "no reason"},
		{"unknown section", "[network]\n", "unknown key \"network\""},
		{"landlock", "[landlock]\n[[landlock.rules]]\npath='x'\naccess=['read']", ":2: landlock.rules[0]"},
		{"caps", "[caps.ambient]\nkeep=[\"FLY\"]", ":2: no capability"},
	} {
		_, err := ParsePolicy("f", []byte(tt.text))
		wantError(t, tt.name, err, tt.err)
	}
	for _, text := range []string{"", "arg0", "arg0 == ", "arg6 == 1", "arg == 1", "arg00 == 1", "arg0 = 1", "arg0 &== 1", "arg0 & 1 != 1", "int arg0 == 0x100000000",
		"arg0 == -1", "arg0 == 1_0", "long arg0 == 1", "arg0 == 1 2", "arg+1 == 1", "arg0 & 1 == x"} {
		if c, err := parseCond(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, c)
		}
	}
	for _, text := range []string{"arg0 == 0x1", "int arg5 < 0x2", "arg1 & 0xf0 == 0x10", "arg2 > 0xffffffffffffffff", "int arg3 <= 0x0", "arg4 != 0x5"} {
		if c, err := parseCond(text); err != nil || c.String() != text {
			t.Errorf("%q: got %v, %v", text, c, err)
		}
	}
}

// TestPolicyOnlyNarrows: what a policy.toml extends is never widened by its own rules.
func TestPolicyOnlyNarrows(t *testing.T) {
	p, err := ParsePolicy("f", []byte("extends=['default']\n[seccomp]\ndefault='allow'\n[[seccomp.rules]]\ncalls=['read']\ndo='EIO'\nwhy='x'"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range seccomp.Diff(seccomp.Default(), *p.Seccomp) {
		if c.Call != "read" || c.More || !c.Less {
			t.Errorf("got %+v, want read to be refused and nothing else to change", c)
		}
	}
}

func TestLoad(t *testing.T) {
	toml := write(t, "p.toml", "extends=['python']\n[caps.ambient]\nkeep=['KILL']\n[[landlock.rules]]\npath='/'\naccess=['read']")
	capsFile, ll := write(t, "c.toml", "[ambient]\nkeep=['KILL']"), write(t, "l.toml", "")
	oci := write(t, "s.json", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL_PROCESS"}]}`)
	newer := write(t, "n.toml", "[seccomp]\ndefault='EPERM'\nunknown='allow'")
	for _, tt := range []struct {
		name string
		opts Options
		err  string
	}{
		{"nothing", Options{}, ""},
		{"all that combine", Options{Policy: File{Path: toml}, Profiles: []string{"git", "go"}, Seccomp: File{Path: oci}}, ""},
		{"capabilities twice", Options{Policy: File{Path: toml}, Caps: File{Path: capsFile}}, "one of them must do"},
		{"Landlock twice", Options{Policy: File{Path: toml}, Landlock: File{Path: ll}}, "one of them must do"},
		{"a profile twice", Options{Profiles: []string{"git", "git"}}, "given twice"},
		{"allows everything", Options{Seccomp: File{Path: oci}}, "always refused"},
		{"allows what is not known", Options{Policy: File{Path: newer}}, "--allow-dangerous-syscall unknown"},
		{"allows what is not known, by name", Options{Policy: File{Path: newer}, Dangerous: []string{"unknown"}}, ""},
		{"allows what is not known, and another does not", Options{Policy: File{Path: newer}, Profiles: []string{"git"}}, ""},
		{"dangerous, and nothing allows it", Options{Profiles: []string{"git"}, Dangerous: []string{"bpf"}}, "no policy that allows it"},
		{"dangerous, and not on the list", Options{Profiles: []string{"git"}, Dangerous: []string{"read"}}, "not on the list"},
	} {
		p, err := Load(tt.opts)
		wantError(t, tt.name, err, tt.err)
		if tt.name == "nothing" && p != nil {
			t.Errorf("nothing: got %+v", p)
		}
	}
	p, err := Load(Options{Policy: File{Path: toml}, Profiles: []string{"none"}})
	if err != nil {
		t.Fatal(err)
	}
	nr, _ := seccomp.AMD64.Number("socket")
	if got := p.Seccomp.Decide(seccomp.AMD64, nr, [6]uint64{1, 1}); got.Runs() {
		t.Errorf("none and python together: a socket is %s", got)
	}
	if !p.Caps.Ambient.Has(caps.Kill) || len(p.Sources) != 2 || p.Sources[0].Kind != policy.KindPolicy || p.Name() != toml+"+none" {
		t.Errorf("got %+v", p)
	}
}
