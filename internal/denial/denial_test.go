package denial

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/spec"
)

// host has these files, and directories where the name ends so.
func host(names ...string) Host {
	return Host{Home: "/home/ada", Path: "/usr/bin:/home/ada/bin", Has: func(p string) (dir, ok bool) {
		for _, n := range names {
			if strings.TrimSuffix(n, "/") == p {
				return strings.HasSuffix(n, "/"), true
			}
		}
		return false, false
	}}
}

// somePlan has the places that most sandboxes have.
func somePlan() *plan.Plan {
	return &plan.Plan{Places: []plan.Place{
		{Path: "/usr", Host: true, Exec: true, Because: "toolchain"}, {Path: "/tmp", Writable: true, Because: "root"}, {Path: "/root", Writable: true, Because: "root"},
		{Path: "/context", Host: true, Because: "context"}, {Path: "/workspace", Host: true, Writable: true, Because: "workspace"},
		{Path: "/data", Host: true, Because: "volumes[0]"}, {Path: "/data/it's", Host: true, Writable: true, Because: "volumes[1]"},
	}}
}

func someSpec() *spec.Sandbox {
	return &spec.Sandbox{
		Toolchain: true, Context: &spec.Bind{Source: "docs"}, Workspace: &spec.Bind{Source: "."},
		Volumes: []spec.Volume{{Source: "/srv/data", Target: "/data"}, {Source: "/srv/it's", Target: "/data/it's", Writable: true}},
	}
}

// TestFiles: which calls about files are refused, and what is said of them.
func TestFiles(t *testing.T) {
	at := func(real string, ro, noexec bool) Seen {
		return Seen{Asked: true, Exists: true, Parent: true, Real: real, ReadOnly: ro, NoExec: noexec}
	}
	fresh := func(real string, ro bool) Seen { return Seen{Asked: true, Parent: true, Real: real, ReadOnly: ro} }
	open := func(path string, flags uint64, s Seen) Call {
		return Call{Name: "openat", Path: path, Args: [6]uint64{2: flags}, Change: flags&(oAccess|oCreat|oTrunc) != 0, Seen: s}
	}
	for _, row := range []struct {
		name string
		call Call
		want string // layer, what, fix; empty: nothing was refused
	}{
		{"reading", open("/usr/x", 0, at("/usr/x", true, false)), ""},
		{"writing a program", open("/usr/x", 1, at("/usr/x", true, false)), "mount write EROFS nothing makes them writable: install into /workspace, the home directory or a --tmpfs, or on the host"},
		{"through a link", open("/link", 1, at("/data/x", true, true)), "mount write EROFS to allow: -v /srv/data:/data:rw"},
		{"the context", open("/context/x", oCreat|1, fresh("/context/x", true)), "mount write EROFS to allow: --workspace docs"},
		{"the workspace", open("/workspace/x", oCreat|1, fresh("/workspace/x", false)), ""},
		{"opening what exists with O_CREAT", open("/usr/x", oCreat, at("/usr/x", true, false)), ""},
		{"a lock that exists", open("/usr/x", oCreat|oExcl|1, at("/usr/x", true, false)), ""},
		{"a device of a read-only mount", open("/dev/null", 1, Seen{Asked: true, Exists: true, Parent: true, ReadOnly: true, Special: true}), ""},
		{"a new file at the top", open("/x", oCreat|1, fresh("/x", true)), "mount write EROFS write to /tmp, the home directory or a --workspace"},
		{"made-up files", open("/etc/hosts", 1, at("/etc/hosts", true, false)), "mount write EROFS write to /tmp, the home directory or a --workspace"},
		{"a directory that exists", Call{Name: "mkdir", Path: "/usr", Change: true, Seen: at("/usr", true, false)}, ""},
		{"removing nothing", Call{Name: "unlinkat", Path: "/usr/nothing", Change: true, Seen: fresh("/usr/nothing", true)}, ""},
		{"removing", Call{Name: "unlinkat", Path: "/data/x", Change: true, Seen: at("/data/x", true, true)}, "mount remove EROFS to allow: -v /srv/data:/data:rw"},
		{"executing in scratch", Call{Name: "execve", Path: "/tmp/x", Exec: true, Seen: at("/tmp/x", false, true)}, "mount execute EACCES to allow: --tmpfs /tmp:256M,exec"},
		{"executing in the workspace", Call{Name: "execve", Path: "/workspace/x", Exec: true, Seen: at("/workspace/x", false, true)}, "mount execute EACCES to allow: --workspace .,exec"},
		{"a name that a shell would read", Call{Name: "execve", Path: "/data/it's/x", Exec: true, Seen: at("/data/it's/x", false, true)}, `mount execute EACCES to allow: -v '/srv/it'\''s:/data/it'\''s:rw,exec'`},
		{"the host's", open("/home/ada/notes", 0, Seen{Asked: true}), "missing read ENOENT to allow: -v /home/ada/notes:/home/ada/notes:ro"},
		{"the home inside", open("/root/.gitconfig", 0, fresh("/root/.gitconfig", false)), "missing read ENOENT to allow: -v /home/ada/.gitconfig:/root/.gitconfig:ro"},
		{"nobody's", open("/home/ada/nothing", 0, Seen{Asked: true}), ""},
		{"inside what is shown", open("/usr/shadow", 0, fresh("/usr/shadow", true)), ""},
		{"a colon in the name", open("/home/a:b", 0, Seen{Asked: true}), "missing read ENOENT "},
		{"not asked", open("/usr/x", 1, Seen{}), ""},
		{"giving away", Call{Name: "fchownat", Path: "/workspace/x", Args: [6]uint64{2: 1000}, Change: true, Seen: at("/workspace/x", false, false)}, "capability give away EPERM to allow: --caps-policy FILE that keeps CHOWN"},
		{"keeping", Call{Name: "chown", Path: "/workspace/x", Args: [6]uint64{1: 0}, Change: true, Seen: at("/workspace/x", false, false)}, ""},
		{"a low port", Call{Name: "bind", Addr: "0.0.0.0:80"}, "capability listen on EACCES to allow: --caps-policy FILE that keeps NET_BIND_SERVICE"},
		{"a high port", Call{Name: "bind", Addr: "0.0.0.0:8080"}, ""},
		{"loopback", Call{Name: "connect", Addr: "127.0.0.1:5432"}, ""},
		{"the resolver", Call{Name: "connect", Addr: "127.0.0.53:53"}, "network resolve a host name EAI_AGAIN no flag gives"},
		{"docker", Call{Name: "connect", Addr: "/run/docker.sock"}, "missing connect to the socket ENOENT who reaches this socket is root"},
	} {
		j := New(someSpec(), somePlan(), host("/home/ada/notes", "/home/ada/.gitconfig", "/usr/shadow", "/home/a:b", "/run/docker.sock"))
		j.Call(row.call)
		got := ""
		if all := j.Denials(); len(all) == 1 {
			d := all[0]
			got = fmt.Sprintf("%s %s %s %s", d.Layer, d.What, d.Errno, d.Fix())
			if !d.Inferred || d.Say == "" || d.Rule == "" {
				t.Errorf("%s: got %+v", row.name, d)
			}
		}
		if (row.want == "") != (got == "") || !strings.HasPrefix(got, row.want) {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
}

// TestLandlockAlone: the mount would allow it, and a rule does not.
func TestLandlockAlone(t *testing.T) {
	p := somePlan()
	all := landlock.PathRule{Path: "/", Allow: landlock.All(5)}
	p.Steps = []plan.Step{
		{Do: plan.Landlock{Rules: landlock.Ruleset{HandleFS: landlock.All(5), Rules: []landlock.PathRule{all}}}},
		{Do: plan.Landlock{Narrow: true, Rules: landlock.Ruleset{HandleFS: landlock.All(5), Rules: []landlock.PathRule{{Path: "/workspace/out", Allow: landlock.All(5)}, {Path: "/", Allow: landlock.Read}}}}},
	}
	for path, want := range map[string]string{"/workspace/out/x": "", "/workspace/x": `in the policy, [[landlock.rules]]: { path = "/workspace", access = ["write-file"] }`} {
		j := New(someSpec(), p, Host{})
		j.Call(Call{Name: "openat", Path: path, Args: [6]uint64{2: 1}, Change: true, Seen: Seen{Asked: true, Exists: true, Parent: true, Real: path}, Needs: [2]Need{{Path: path, Access: landlock.WriteFile}}})
		got := ""
		if ds := j.Denials(); len(ds) > 0 && ds[0].Layer == Landlock {
			got = ds[0].Allow
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

// TestLandlockAloneOfWhatIsMade: the rule is one for the directory, not for a name
// that is not there.
func TestLandlockAloneOfWhatIsMade(t *testing.T) {
	p := somePlan()
	p.Steps = []plan.Step{{Do: plan.Landlock{Narrow: true, Rules: landlock.Ruleset{HandleFS: landlock.MakeDir, Rules: []landlock.PathRule{{Path: "/", Allow: landlock.Read}}}}}}
	j := New(someSpec(), p, Host{})
	j.Call(Call{Name: "mkdir", Path: "/workspace/new", Change: true, Seen: Seen{Asked: true, Parent: true, Real: "/workspace/new"}, Needs: [2]Need{{Path: "/workspace/new", Access: landlock.MakeDir}}})
	const want = `in the policy, [[landlock.rules]]: { path = "/workspace", access = ["make-dir"] }`
	if all := j.Denials(); len(all) != 1 || all[0].Allow != want {
		t.Errorf("got %+v, want %s", all, want)
	}
}

// TestKeptCapabilities: what the policy keeps is not refused.
func TestKeptCapabilities(t *testing.T) {
	s := someSpec()
	kept := caps.Keep(1<<0 | 1<<10)
	s.Policy = &policy.Policy{Caps: &kept}
	j := New(s, somePlan(), Host{})
	j.Call(Call{Name: "bind", Addr: "0.0.0.0:80"})
	j.Call(Call{Name: "chown", Path: "/workspace/x", Args: [6]uint64{1: 7}})
	if all := j.Denials(); len(all) != 0 {
		t.Errorf("got %+v", all)
	}
}

// TestClean: nothing that a terminal or a reader could be deceived by.
func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain ä 漢": "plain ä 漢", "a\x1b[31mb\nc\x7f": "a?[31mb?c?", "x\u202e\u2066\u200b\ufeff\u2028y": "x?????y", "\xff\u0085": "??",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if long := Clean(strings.Repeat("ä", 4000)); len(long) > cut+3 || !strings.Contains(long, "...") {
		t.Errorf("got %d bytes: %s", len(long), long)
	}
}

// TestRanked: what probably ended the program comes first, and what every program
// tries last.
func TestRanked(t *testing.T) {
	at := time.Unix(100, 0)
	in := []Denial{
		{Layer: Seccomp, What: "probe", Minor: true, Time: at.Add(time.Minute)}, {Layer: Missing, What: "early", Process: "x", Time: at},
		{Layer: Mount, What: "change", Process: "x", Time: at}, {Layer: Network, What: "last", Process: "x", Time: at.Add(time.Second)}, {Layer: Memory, What: "limit", Time: at},
	}
	var got []string
	for _, d := range Ranked(in) {
		got = append(got, d.What)
	}
	if want := "limit last change early probe"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestBounded: a workload cannot fill memory with what it is refused.
func TestBounded(t *testing.T) {
	j := New(someSpec(), somePlan(), Host{})
	for i := range 10 * Most {
		for range 2 {
			j.Call(Call{Name: "mount", Refused: "EPERM", Path: fmt.Sprint("/", i), Count: 3})
		}
	}
	all := j.Denials()
	if len(all) != Most || all[0].Count != 6 {
		t.Errorf("got %d, the first %+v", len(all), all[0])
	}
}

// TestWhatCouldNotBeExecuted: by its place, or by a policy's rules. A name is
// looked for in PATH, and not in the working directory.
func TestWhatCouldNotBeExecuted(t *testing.T) {
	rules := plan.Landlock{Narrow: true, Rules: landlock.Ruleset{HandleFS: landlock.Execute, Rules: []landlock.PathRule{{Path: "/usr/sbin", Allow: landlock.Execute}}}}
	const ruled = `in the policy, [[landlock.rules]]: { path = "/usr/bin", access = ["execute"] }`
	for name, want := range map[string]string{
		"python3": ruled, "/usr/bin/python3": ruled, "/usr/sbin/x": "", "nothing": "", "run.sh": "", "./run.sh": "--workspace .,exec",
	} {
		h := host("/usr/bin/python3", "/here/run.sh")
		h.Dir = "/here"
		p := somePlan()
		p.Steps = []plan.Step{{Do: rules}, {Do: plan.Exec{Paths: []string{"/usr/local/bin/" + name, "/usr/bin/" + name}}}}
		j := New(someSpec(), p, h)
		j.End(End{Failed: true, NotExecutable: true, Args: []string{name}})
		got := ""
		for _, d := range j.Denials() {
			got += d.Allow
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestWhatShellsCouldNotExecute: by the exit code and the words of the command.
func TestWhatShellsCouldNotExecute(t *testing.T) {
	for _, row := range []struct {
		script string
		code   int
		want   string
	}{
		{"cd x; ./run.sh --fast", 126, "/workspace/run.sh: --workspace .,exec"},
		{"exec /data/run.sh|cat", 126, "/data/run.sh: -v /srv/data:/data:ro,exec"},
		{"./run.sh", 1, ""},
		{"./nothing.sh", 126, ""},
		{"./dir", 126, ""},
		{"run.sh", 126, ""},
		{"/usr/run.sh", 126, ""},
	} {
		h := host("/here/run.sh", "/here/dir/", "/srv/data/run.sh", "/usr/run.sh")
		h.Dir = "/here"
		j := New(someSpec(), somePlan(), h)
		j.End(End{Failed: true, Code: row.code, Args: []string{"sh", "-c", row.script}})
		got := ""
		for _, d := range j.Denials() {
			if d.What == "execute" && d.Inferred {
				got += d.Object + ": " + d.Allow
			}
		}
		if got != row.want {
			t.Errorf("%s (%d): got %q, want %q", row.script, row.code, got, row.want)
		}
	}
}
