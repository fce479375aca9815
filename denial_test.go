package nucleus_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/spec"
)

// refusal is something that a sandbox refuses, and what the explanation must say.
type refusal struct {
	name   string
	box    spec.Sandbox
	script string
	level  nucleus.Level
	want   nucleus.Denial // Layer, What, Object, Errno, Allow, Inferred
	rule   string         // in its rule
	fixed  func(*spec.Sandbox)
}

// refusals are one of each layer. fixed does to the description what the flag in
// Allow does, and then the same script succeeds.
func refusals(t *testing.T) []refusal {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "out"), 0o755); err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(dir, "tool")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\necho ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	volume := func(target string, write, exec bool) []spec.Volume {
		return []spec.Volume{{Source: dir, Target: target, Writable: write, Exec: exec}}
	}
	set := func(v []spec.Volume) func(*spec.Sandbox) { return func(s *spec.Sandbox) { s.Volumes = v } }
	// A program is started and ended in half of it, on an emulated machine too.
	limit := 300 * time.Millisecond * min(sandboxtest.Slow(), 4)
	return []refusal{
		{
			name: "read-only volume", box: spec.Sandbox{Volumes: volume("/data", false, false)}, script: "echo x >/data/new", level: nucleus.Files,
			want: nucleus.Denial{Layer: "mount", What: "write", Object: "/data/new", Errno: "EROFS", Allow: "-v " + dir + ":/data:rw", Inferred: true},
			rule: "the volume /data is read-only", fixed: set(volume("/data", true, false)),
		}, {
			name: "volume without exec", box: spec.Sandbox{Volumes: volume("/data", false, false)}, script: "/data/tool", level: nucleus.Files,
			want: nucleus.Denial{Layer: "mount", What: "execute", Object: "/data/tool", Errno: "EACCES", Allow: "-v " + dir + ":/data:ro,exec", Inferred: true},
			rule: "nothing in /data may be executed", fixed: set(volume("/data", false, true)),
		}, {
			name: "scratch without exec", script: "cp /bin/true /tmp/true && /tmp/true", level: nucleus.Files,
			want: nucleus.Denial{Layer: "mount", What: "execute", Object: "/tmp/true", Errno: "EACCES", Allow: "--tmpfs /tmp:256M,exec", Inferred: true},
			rule: "nothing in /tmp may be executed", fixed: func(s *spec.Sandbox) { s.Tmpfs = []spec.Tmpfs{{Target: "/tmp", Size: 256 * spec.MiB, Exec: true}} },
		}, {
			name: "the root", script: "mkdir -p /srv-data && touch /srv-data/x", level: nucleus.Files,
			want: nucleus.Denial{Layer: "mount", What: "make the directory", Object: "/srv-data", Errno: "EROFS", Allow: "--tmpfs /srv-data", Inferred: true},
			rule: "the sandbox's own root is read-only", fixed: func(s *spec.Sandbox) { s.Tmpfs = []spec.Tmpfs{{Target: "/srv-data"}} },
		}, {
			name: "a file of the host", script: "cat " + tool, level: nucleus.Files,
			want: nucleus.Denial{Layer: "missing", What: "read", Object: tool, Errno: "ENOENT", Allow: "-v " + tool + ":" + tool + ":ro", Inferred: true},
			rule: "it exists on the host", fixed: set([]spec.Volume{{Source: tool, Target: tool}}),
		}, {
			name: "a program of the host", script: tool, level: nucleus.Files,
			want: nucleus.Denial{Layer: "missing", What: "execute", Object: tool, Errno: "ENOENT", Allow: "-v " + tool + ":" + tool + ":ro,exec", Inferred: true},
			rule: "it exists on the host", fixed: set([]spec.Volume{{Source: tool, Target: tool, Exec: true}}),
		}, {
			name: "a new file of the host", script: "echo x >" + dir + "/new2", level: nucleus.Files,
			want: nucleus.Denial{Layer: "missing", What: "write", Object: dir + "/new2", Errno: "ENOENT", Allow: "-v " + dir + ":" + dir + ":rw", Inferred: true},
			rule: "its directory exists on the host", fixed: set(volume(dir, true, false)),
		}, {
			name: "a capability", script: `python3 -c 'import socket; socket.create_server(("127.0.0.1", 80))'`, level: nucleus.Files,
			want: nucleus.Denial{Layer: "capability", What: "listen on", Object: "127.0.0.1:80", Errno: "EACCES", Allow: "--caps-policy FILE that keeps NET_BIND_SERVICE", Inferred: true},
			rule: "CAP_NET_BIND_SERVICE", fixed: func(s *spec.Sandbox) {
				kept := caps.Keep(1 << 10)
				s.Policy = &policy.Policy{Caps: &kept}
			},
		}, {
			name: "a rule of the policy", box: spec.Sandbox{Policy: narrow("/data/out"), Volumes: volume("/data", true, false)}, script: "echo x >>/data/tool", level: nucleus.Files,
			want: nucleus.Denial{
				Layer: "landlock", What: "write", Object: "/data/tool", Errno: "EACCES",
				Allow:    `in the policy, [[landlock.rules]]: { path = "/data", access = ["write-file"] }`,
				Inferred: sandboxtest.Probe(sandboxtest.Audit) != nil, // else the kernel tells
			},
			rule: "the policy's Landlock rules do not allow write-file", fixed: func(s *spec.Sandbox) { s.Policy = narrow("/data") },
		}, {
			name: "time", box: spec.Sandbox{Timeout: limit}, script: fmt.Sprintf("sleep %.2f", (limit * 3 / 2).Seconds()),
			want: nucleus.Denial{Layer: "time", What: "run longer", Object: "than " + limit.String(), Allow: "--timeout " + (2 * limit).String()},
			rule: "the timeout (--timeout " + limit.String() + ") ended it", fixed: func(s *spec.Sandbox) { s.Timeout = 2 * limit },
		}, {
			name: "scratch space", box: spec.Sandbox{Scratch: 4 * spec.MiB}, script: "head -c 6M /dev/zero >/tmp/x",
			want: nucleus.Denial{Layer: "memory", What: "write more", Object: "than 4M to /tmp, the home directory and /dev/shm", Errno: "ENOSPC", Allow: "--scratch 8M", Inferred: true},
			rule: "the scratch space was full", fixed: func(s *spec.Sandbox) { s.Scratch = 8 * spec.MiB },
		}, {
			name: "an argument", script: "exit 3", // nobody sees the shell ask for its $0
			want: nucleus.Denial{Layer: "missing", What: "use", Object: tool, Errno: "ENOENT", Allow: "-v " + tool + ":" + tool + ":ro", Inferred: true},
			rule: "it exists on the host",
		},
	}
}

// narrow is a policy that allows everything but writing outside of a directory.
func narrow(writable string) *policy.Policy {
	const change = landlock.WriteFile | landlock.Truncate | landlock.MakeReg
	return &policy.Policy{Landlock: &landlock.Config{HandleFS: change, Rules: []landlock.PathRule{
		{Path: writable, Allow: change, Why: "a test"}, {Path: "/dev", Allow: change, Why: "a test"},
	}}}
}

// explained runs a script and returns what is said of it.
func (r *refusal) explained(t *testing.T, box spec.Sandbox, level nucleus.Level) ([]nucleus.Denial, []byte, error) {
	t.Helper()
	box.Toolchain = true
	c := nucleus.Command(&box, "sh", "-c", r.script, "/nowhere/sh", "--file="+filepath.Join(filepath.Dir(strings.TrimPrefix(r.want.Object, "/nothing")), "tool"))
	c.Watch = &nucleus.Watch{Level: level}
	out, err := c.CombinedOutput()
	return c.Denials(), out, err
}

// TestDenials is the round trip: what is refused is explained, and with the flag
// of the explanation the same succeeds.
func TestDenials(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Program("python3"))
	for _, r := range refusals(t) {
		t.Run(r.name, func(t *testing.T) {
			all, out, err := r.explained(t, r.box, r.level)
			var exit *nucleus.ExitError
			if !errors.As(err, &exit) {
				t.Fatalf("it is not refused: %v\n%s", err, out)
			}
			i := slices.IndexFunc(all, func(d nucleus.Denial) bool {
				return d.Layer == r.want.Layer && d.What == r.want.What && d.Object == r.want.Object && d.Errno == r.want.Errno && d.Allow == r.want.Allow && d.Inferred == r.want.Inferred
			})
			if i < 0 || !strings.Contains(all[i].Rule, r.rule) || all[i].Say == "" || all[i].Count < 1 || all[i].Time.IsZero() {
				t.Fatalf("got %s\nwant %+v among them; the output was %s", lines(all), r.want, out)
			}
			if i > 1 && r.name != "an argument" {
				t.Errorf("it is not among the first: %s", lines(all))
			}
			if r.fixed == nil {
				return
			}
			r.fixed(&r.box)
			if all, out, err := r.explained(t, r.box, r.level); err != nil {
				t.Errorf("with %s: %v\n%s%s", r.want.Allow, err, out, lines(all))
			}
		})
	}
}

// suggested are the rules over files that explanations name.
func suggested(t *testing.T, all []nucleus.Denial) (rules []landlock.PathRule) {
	t.Helper()
	one := regexp.MustCompile(`{ path = "([^"]*)", access = \[([^]]*)\] }`)
	for _, d := range all {
		for _, m := range one.FindAllStringSubmatch(d.Allow, -1) {
			access, err := landlock.ParseAccess(strings.ReplaceAll(m[2], `"`, ""))
			if err != nil {
				t.Fatal(err)
			}
			rules = append(rules, landlock.PathRule{Path: m[1], Allow: access, Why: "it was told"})
		}
	}
	return rules
}

// TestDenialsOfRules: a policy allows nothing in the workspace. Done as told, and
// nothing more, the job passes.
func TestDenialsOfRules(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Landlock, sandboxtest.Program("python3"))
	most := 2
	if sandboxtest.Probe(sandboxtest.Audit) == nil { // the kernel tells of one refusal at a time
		most = 6
	}
	for _, script := range []string{
		"ls sub", "echo x >old", "echo x >new", "rmdir sub", "mkfifo f", "mv old sub/a", "ln old sub/l", "ln -s old s", "mv old b",
		`python3 -c 'open("old", "r+")'`, `python3 -c 'import os; os.open("sub", os.O_RDWR|os.O_TMPFILE)'`, `python3 -c 'import socket; socket.socket(1).bind("s")'`,
	} {
		dir := t.TempDir()
		if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "old"), []byte("x"), 0o644)); err != nil {
			t.Fatal(err)
		}
		rules := []landlock.PathRule{{Path: "/dev", Allow: landlock.Read | landlock.Write}}
		for _, at := range []string{"/usr", "/etc", "/proc"} {
			rules = append(rules, landlock.PathRule{Path: at, Allow: landlock.Read | landlock.Execute})
		}
		for i := range rules {
			rules[i].Why = "a test"
		}
		for round := range most {
			p := &policy.Policy{Landlock: &landlock.Config{HandleFS: landlock.All(3), Rules: rules}}
			c := nucleus.Command(&spec.Sandbox{Toolchain: true, Workspace: &spec.Bind{Source: dir}, Policy: p}, "sh", "-c", script)
			c.Watch = &nucleus.Watch{Level: nucleus.Files}
			out, err := c.CombinedOutput()
			if err == nil && round == 0 || err != nil && round == most-1 {
				t.Errorf("%s, round %d: %v\n%s%s", script, round, err, out, lines(c.Denials()))
			}
			if err == nil {
				break
			}
			rules = append(rules, suggested(t, c.Denials())...)
		}
	}
}

// TestDenialsOfPorts: a policy that lists ports is why another cannot be taken.
func TestDenialsOfPorts(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Landlock, sandboxtest.Program("python3"))
	for port, want := range map[uint16]bool{8080: true, 9090: false} {
		cfg := &landlock.Config{HandleNet: landlock.BindTCP, Ports: []landlock.PortRule{{Port: 8080, Allow: landlock.BindTCP, Why: "a test"}}}
		c := nucleus.Command(&spec.Sandbox{Toolchain: true, Policy: &policy.Policy{Landlock: cfg}}, "python3", "-c", fmt.Sprintf(`import socket; socket.socket().bind(("127.0.0.1", %d))`, port))
		c.Watch = &nucleus.Watch{Level: nucleus.Files}
		out, err := c.CombinedOutput()
		told := slices.ContainsFunc(c.Denials(), func(d nucleus.Denial) bool {
			return d.Layer == "landlock" && strings.HasSuffix(d.Allow, fmt.Sprintf(`{ port = %d, access = ["bind-tcp"] }`, port))
		})
		if (err == nil) != want || told == want {
			t.Errorf("%d: %v\n%s%s", port, err, out, lines(c.Denials()))
		}
	}
}

func lines(all []nucleus.Denial) string {
	var b strings.Builder
	for _, d := range all {
		fmt.Fprintf(&b, "\n\t%s %s | %s | minor %t, %d times", d.Layer, d, d.Fix(), d.Minor, d.Count)
	}
	return b.String()
}

// TestDenialsOfCalls: what the filter refuses, and where there is no network.
func TestDenialsOfCalls(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Program("python3"))
	const script = `
import ctypes, os, socket
c = ctypes.CDLL(None)
c.mount(b"none", b"/tmp", b"tmpfs", 0, None)
c.unshare(0x10000000)
try: socket.socket(2, 3, 1)
except OSError: pass
for i in range(3):
	try: socket.create_connection(("192.0.2.1", 443), 1)
	except OSError: pass
try: socket.gethostbyname("example.org")
except OSError: pass
raise SystemExit(4)
`
	c := nucleus.Command(&spec.Sandbox{Toolchain: true}, "python3", "-c", script)
	c.Watch = &nucleus.Watch{}
	out, err := c.CombinedOutput()
	var exit *nucleus.ExitError
	if !errors.As(err, &exit) || exit.Code != 4 {
		t.Fatalf("got %v\n%s", err, out)
	}
	all := c.Denials()
	for _, want := range []struct {
		layer, what, object, errno, allow string
		count                             int
		inferred                          bool
	}{
		{"seccomp", "mount a file system", "/tmp", "EPERM", "", 1, false},
		{"seccomp", "make namespaces of its own", "", "EPERM", "--allow-dangerous-syscall unshare", 1, false},
		{"seccomp", "make a raw socket (IPv4)", "", "EPROTONOSUPPORT", "--seccomp-profile FILE that allows socket, and --caps-policy FILE that keeps NET_RAW", 1, false},
		{"network", "connect to", "192.0.2.1:443", "ENETUNREACH", "", 3, true},
		{"network", "resolve a host name", "", "EAI_AGAIN", "", 0, true},
	} {
		i := slices.IndexFunc(all, func(d nucleus.Denial) bool {
			return d.Layer == want.layer && d.What == want.what && d.Object == want.object && d.Errno == want.errno &&
				strings.Contains(d.Allow, want.allow) && d.Inferred == want.inferred && (want.count == 0 || d.Count == want.count)
		})
		if i < 0 {
			t.Errorf("got %s\nwant %+v", lines(all), want)
		} else if !strings.HasPrefix(all[i].Process, "python3") {
			t.Errorf("got %+v, without its process", all[i])
		}
	}
}

// TestDenialsOfLimits: what a control group counts.
func TestDenialsOfLimits(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Cgroup, sandboxtest.Program("python3"))
	box := spec.Sandbox{Toolchain: true, Limits: spec.Limits{Memory: 64 * spec.MiB, Pids: 8}}
	for _, r := range []struct{ layer, script, allow string }{
		{"memory", "x = bytearray(200 << 20)", "--memory 128M"},
		{"pids", "import os, time\nfor i in range(20):\n\tif os.fork() == 0: time.sleep(5)", "--pids 16"},
	} {
		c := nucleus.Command(&box, "python3", "-c", r.script)
		c.Watch = &nucleus.Watch{}
		out, err := c.CombinedOutput()
		all := c.Denials()
		if err == nil || len(all) == 0 || all[0].Layer != r.layer || all[0].Allow != r.allow || all[0].Inferred {
			t.Errorf("%s: %v, got %s\n%s", r.layer, err, lines(all), out)
		}
	}
}

// TestDenialsWithoutStart: a program that is not in the sandbox and is on the host.
func TestDenialsWithoutStart(t *testing.T) {
	needSandbox(t)
	tool := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := nucleus.Command(&spec.Sandbox{Toolchain: true}, tool)
	if err := c.Run(); !nucleus.NotFound(err) {
		t.Fatalf("got %v", err)
	}
	all := c.Denials()
	if len(all) != 1 || all[0].Allow != "-v "+tool+":"+tool+":ro,exec" {
		t.Errorf("got %s", lines(all))
	}
}

// TestDenialsAreBounded: a flood of refusals, and names made to deceive.
func TestDenialsAreBounded(t *testing.T) {
	needSandbox(t)
	sandboxtest.Need(t, sandboxtest.Program("python3"))
	const script = `
import ctypes, os
c = ctypes.CDLL(None)
c.prctl(15, b"\x1b[31m\xe2\x80\xaeevil", 0, 0, 0)
for i in range(20000):
	c.mount(b"none", b"/tmp/\x1b]0;\xe2\x80\xae%d" % i, b"tmpfs", 0, None)
c.mount(b"none", b"/tmp/" + b"long" * 1000, b"tmpfs", 0, None)
raise SystemExit(1)
`
	c := nucleus.Command(&spec.Sandbox{Toolchain: true}, "python3", "-c", script)
	c.Watch = &nucleus.Watch{Most: 1000}
	if out, err := c.CombinedOutput(); err == nil {
		t.Fatalf("got %s", out)
	}
	all := c.Denials()
	if len(all) == 0 || len(all) > 300 {
		t.Errorf("%d denials are kept", len(all))
	}
	for _, d := range all {
		text := fmt.Sprintf("%+v", d)
		if strings.ContainsAny(text, "\x1b\u202e\n") || len(text) > 2000 {
			t.Fatalf("got %q", text)
		}
	}
}
