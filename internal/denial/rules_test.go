package denial

import (
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// TestNeeds: where a rule must be for what is missing.
func TestNeeds(t *testing.T) {
	p := somePlan()
	p.Steps = []plan.Step{{Do: plan.Landlock{Narrow: true, Rules: landlock.Ruleset{
		HandleFS: landlock.All(5), Rules: []landlock.PathRule{{Path: "/workspace/own", Allow: landlock.Remove}, {Path: "/workspace/list", Allow: landlock.ReadDir}},
	}}}}
	for name, row := range map[string]struct {
		needs [2]Need
		want  string
	}{
		"a list":             {[2]Need{{"/workspace/sub", true, landlock.ReadDir}}, `{ path = "/workspace/sub", access = ["read-dir"] }`},
		"a list by its rule": {[2]Need{{"/workspace/list", true, landlock.ReadDir}}, ""},
		"removing":           {[2]Need{{"/workspace/own", true, landlock.RemoveDir}}, `{ path = "/workspace", access = ["remove-dir"] }`}, // its own rule is about what is in it
		"below":              {[2]Need{{"/workspace/own/x", false, landlock.RemoveFile}}, ""},
		"no name":            {[2]Need{{"/workspace/sub", true, landlock.Write}}, `{ path = "/workspace/sub", access = ["write"] }`},
		"two places": {
			[2]Need{{"/workspace/a/x", false, landlock.RemoveFile | landlock.Refer}, {"/workspace/b/x", false, landlock.MakeReg | landlock.Refer}},
			`{ path = "/workspace/a", access = ["remove-file", "refer"] } and { path = "/workspace/b", access = ["make-file", "refer"] }`,
		},
		"one place twice": {[2]Need{{"/workspace/x", false, landlock.RemoveFile}, {"/workspace/y", false, landlock.MakeReg}}, `{ path = "/workspace", access = ["make-file", "remove-file"] }`},
	} {
		j := New(someSpec(), p, Host{})
		j.Call(Call{Name: "renameat", Path: "/workspace/1", Second: "/workspace/2", Change: true, Seen: Seen{Asked: true, Parent: true}, Needs: row.needs})
		got := ""
		if all := j.Denials(); len(all) > 0 {
			got = strings.TrimPrefix(all[0].Allow, "in the policy, [[landlock.rules]]: ")
		}
		if got != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
	}
}

// TestPorts: a rule about ports is asked before there is a network, or none.
func TestPorts(t *testing.T) {
	p := somePlan()
	p.Steps = []plan.Step{{Do: plan.Landlock{Narrow: true, Rules: landlock.Ruleset{
		HandleNet: landlock.AllNet(4), Ports: []landlock.PortRule{{Port: 8080, Allow: landlock.BindTCP}, {Port: 443, Allow: landlock.ConnectTCP}},
	}}}}
	for _, row := range []struct{ call, addr, want string }{
		{"bind", "127.0.0.1:9090", `landlock in the policy, [[landlock.ports]]: { port = 9090, access = ["bind-tcp"] }`},
		{"bind", "127.0.0.1:80", `landlock in the policy, [[landlock.ports]]: { port = 80, access = ["bind-tcp"] }`},
		{"bind", "127.0.0.1:8080", ""},
		{"connect", "127.0.0.1:8080", `landlock in the policy, [[landlock.ports]]: { port = 8080, access = ["connect-tcp"] }`},
		{"connect", "192.0.2.1:80", "landlock "}, // nor would it arrive
		{"connect", "192.0.2.1:443", "network "},
		{"connect", "127.0.0.1:443", ""},
		{"connect", "127.0.0.53:53", "network "},
	} {
		j := New(someSpec(), p, Host{})
		j.Call(Call{Name: row.call, Addr: row.addr})
		got := ""
		if all := j.Denials(); len(all) > 0 {
			got = all[0].Layer + " " + all[0].Allow
		}
		if got != row.want {
			t.Errorf("%s %s: got %q, want %q", row.call, row.addr, got, row.want)
		}
	}
}

// TestThroughTheFilter: what is suggested names what the run has, and what else the
// kernel asks for.
func TestThroughTheFilter(t *testing.T) {
	own := func(sources ...policy.Source) *policy.Policy {
		return &policy.Policy{Seccomp: &seccomp.Policy{Default: "EPERM"}, Sources: sources}
	}
	toml, profile, oci := policy.Source{Kind: policy.KindPolicy, Path: "/p.toml"}, policy.Source{Kind: policy.KindProfile, Path: "python"}, policy.Source{Kind: policy.KindSeccomp, Path: "/s.json"}
	const rule = `a first [[seccomp.rules]]: { calls = ["ptrace"], do = "allow" }`
	kept := own(toml)
	admin := caps.Keep(caps.Of(caps.SysAdmin))
	kept.Caps, kept.Dangerous = &admin, []string{"sethostname"}
	for _, row := range []struct {
		name   string
		policy *policy.Policy
		call   Call
		want   string
	}{
		{"the default", nil, Call{Name: "ptrace"}, "--seccomp-profile FILE that allows ptrace"},
		{"a policy", own(toml), Call{Name: "ptrace", Rule: "/p.toml, seccomp.rules[0]"}, "in /p.toml, " + rule},
		{"what it extends", own(toml), Call{Name: "ptrace", Rule: "debuggers"}, "in /p.toml, leave what refuses ptrace out of extends"},
		{"a program's", own(), Call{Name: "ptrace"}, "in the policy, " + rule},
		{"a file", own(oci), Call{Name: "ptrace"}, "in /s.json, a rule that allows ptrace"},
		{"a profile", own(profile), Call{Name: "ptrace"}, "--seccomp-profile FILE that allows ptrace, in the place of --profile python"},
		{"a profile alone", own(profile), Call{Name: "getpid"}, "leave out --profile python"},
		{"both", own(toml, profile), Call{Name: "ptrace"}, "in /p.toml, " + rule + ", and leave out --profile python"},
		{"a name", nil, Call{Name: "sethostname"}, "--seccomp-profile FILE that allows sethostname, and --caps-policy FILE that keeps SYS_ADMIN"},
		{"a name, with the right", kept, Call{Name: "sethostname"}, `in /p.toml, a first [[seccomp.rules]]: { calls = ["sethostname"], do = "allow" }`},
		{"a root", nil, Call{Name: "chroot"}, "--seccomp-profile FILE that allows chroot, and --caps-policy FILE that keeps SYS_CHROOT"},
		{"packets", nil, Call{Name: "socket", Args: [6]uint64{17, 3}}, "--seccomp-profile FILE that allows socket, and --caps-policy FILE that keeps NET_RAW"},
		{"raw", nil, Call{Name: "socket", Args: [6]uint64{2, 0x80003, 1}}, "--seccomp-profile FILE that allows socket, and --caps-policy FILE that keeps NET_RAW"},
		{"cryptography", nil, Call{Name: "socket", Args: [6]uint64{38, 5}}, "--seccomp-profile FILE that allows socket"},
		{"the clock", nil, Call{Name: "clock_settime"}, ""},
		{"a device", nil, Call{Name: "mknodat", Args: [6]uint64{2: 0o20666}}, ""},
	} {
		s := someSpec()
		s.Policy, row.call.Refused = row.policy, "EPERM"
		j := New(s, nil, Host{})
		j.Call(row.call)
		d := j.Denials()[0]
		if d.Allow != row.want {
			t.Errorf("%s: got %q, want %q", row.name, d.Allow, row.want)
		}
		if d.Allow == "" && !strings.HasPrefix(d.Otherwise, "nothing allows it: ") {
			t.Errorf("%s: got %q", row.name, d.Otherwise)
		}
	}
}

// TestWhereTheProgramIsLookedFor: a place of the search path counts if it was in none.
func TestWhereTheProgramIsLookedFor(t *testing.T) {
	first := Call{Name: "execve", Path: "/opt/bin/x", Exec: true, Process: starter, Seen: Seen{Asked: true}}
	then := Call{Name: "execve", Path: "/usr/bin/x", Exec: true, Process: starter, Seen: Seen{Asked: true, Exists: true, Parent: true}}
	for want, calls := range map[int][]Call{0: {first, then}, 1: {first}} {
		j := New(someSpec(), somePlan(), host("/opt/bin/x"))
		for _, c := range calls {
			j.Call(c)
		}
		j.End(End{Failed: true, Code: 3})
		if all := j.Denials(); len(all) != want {
			t.Errorf("got %+v, want %d", all, want)
		}
	}
}

// TestRootfs: what is read-only there is named, and no volume that is none.
func TestRootfs(t *testing.T) {
	s := &spec.Sandbox{Rootfs: &spec.Rootfs{Source: "box"}}
	p := &plan.Plan{Places: []plan.Place{{Path: "/bin", Host: true, Exec: true, Because: "rootfs"}}}
	for _, name := range []string{"/bin/x", "/x"} {
		j := New(s, p, Host{})
		j.Call(Call{Name: "creat", Path: name, Change: true, Seen: Seen{Asked: true, Parent: true, Real: name, ReadOnly: true}})
		if all := j.Denials(); len(all) != 1 || all[0].What != "write" || all[0].Rule != "the root (--rootfs box) is read-only in every sandbox" {
			t.Errorf("%s: got %+v", name, all)
		}
	}
}

// TestOwners: a capability is suggested where it would help.
func TestOwners(t *testing.T) {
	one := plan.Step{Do: plan.WriteMap{File: "uid_map", Inside: 0, Outside: 1000, Count: 1}}
	many := plan.Step{Do: plan.WriteMap{File: "uid_map", Count: 65536}}
	for _, row := range []struct {
		name, path string
		steps      []plan.Step
		errno      string
		flag       bool
	}{
		{"one id", "/tmp/x", []plan.Step{one}, "EINVAL", false},
		{"ids of its own", "/tmp/x", []plan.Step{many, {Do: plan.HostTree{IDMap: true}}}, "EPERM", true},
		{"a file of the host", "/workspace/x", []plan.Step{many, {Do: plan.HostTree{IDMap: true}}}, "EOVERFLOW", false},
	} {
		p := somePlan()
		p.Steps = row.steps
		j := New(someSpec(), p, Host{})
		j.Call(Call{Name: "chown", Path: row.path, Args: [6]uint64{1: 1000}, Change: true, Seen: Seen{Asked: true, Exists: true, Parent: true, Real: row.path}})
		if all := j.Denials(); len(all) != 1 || all[0].Errno != row.errno || (all[0].Allow != "") != row.flag {
			t.Errorf("%s: got %+v", row.name, all)
		}
	}
}

// TestUnreadable: what the caller may not read is not shown by a flag.
func TestUnreadable(t *testing.T) {
	h := host("/home/ada/notes")
	h.Unreadable = func(p string) bool { return p == "/home/ada/notes" }
	j := New(someSpec(), somePlan(), h)
	j.Call(Call{Name: "open", Path: "/home/ada/notes", Seen: Seen{Asked: true}})
	if all := j.Denials(); len(all) != 1 || all[0].Allow != "" || !strings.Contains(all[0].Otherwise, "may not read it") {
		t.Errorf("got %+v", all)
	}
}
