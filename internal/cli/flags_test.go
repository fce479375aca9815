package cli

import (
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/spec"
)

// describe parses the command line of `nucleus run`.
func describe(args ...string) (*spec.Sandbox, []string, error) {
	c := &call{cmd: &runCommand}
	if err := c.parse(args); err != nil {
		return nil, nil, err
	}
	box, err := c.sandbox()
	return box, c.args, err
}

func TestFlags(t *testing.T) {
	t.Setenv("TERM", "")
	t.Setenv("LANG", "")
	t.Setenv("GIVEN", "yes")
	for _, tc := range []struct {
		args string
		want spec.Sandbox
	}{
		{"", spec.Sandbox{}},
		{"--name a --hostname=b", spec.Sandbox{Name: "a", Hostname: "b"}},
		{"--context d", spec.Sandbox{Context: &spec.Bind{Source: "d"}}},
		{"--context d,exec --workspace=/w", spec.Sandbox{Context: &spec.Bind{Source: "d", Exec: true}, Workspace: &spec.Bind{Source: "/w"}}},
		{"-v a:/b", spec.Sandbox{Volumes: []spec.Volume{{Source: "a", Target: "/b"}}}},
		{"-va:/b:ro --volume c:/d:rw", spec.Sandbox{Volumes: []spec.Volume{{Source: "a", Target: "/b"}, {Source: "c", Target: "/d", Writable: true}}}},
		{"-v a:/b:rw,exec -v a:/c:exec -v a:/d,exec", spec.Sandbox{Volumes: []spec.Volume{
			{Source: "a", Target: "/b", Writable: true, Exec: true}, {Source: "a", Target: "/c", Exec: true}, {Source: "a", Target: "/d", Exec: true}}}},
		{"--tmpfs /a --tmpfs /b:2M --tmpfs /c:1G,exec --tmpfs /d,exec", spec.Sandbox{Tmpfs: []spec.Tmpfs{
			{Target: "/a"}, {Target: "/b", Size: 2 * spec.MiB}, {Target: "/c", Size: spec.GiB, Exec: true}, {Target: "/d", Exec: true}}}},
		{"-e A=1 -eB=2 -e=C=3 --env D= -e GIVEN -e NOT_GIVEN", spec.Sandbox{Env: []string{"A=1", "B=2", "C=3", "D=", "GIVEN=yes"}}},
		{"--user 7", spec.Sandbox{User: spec.User{UID: 7, GID: 7}}},
		{"--user 7:8", spec.Sandbox{User: spec.User{UID: 7, GID: 8}}},
		{"-u 7:8", spec.Sandbox{User: spec.User{UID: 7, GID: 8}}},
		{"--user 7 --group 9", spec.Sandbox{User: spec.User{UID: 7, GID: 9}}},
		{"--group root --user 65534", spec.Sandbox{User: spec.User{UID: 65534}}},
		{"-w /x -it", spec.Sandbox{Workdir: "/x", Terminal: true}},
		{"-m 1g --memory-swap 2T", spec.Sandbox{Limits: spec.Limits{Memory: spec.GiB, MemorySwap: 2 * spec.TiB}}},
		{"--memory 9223372036854775807", spec.Sandbox{Limits: spec.Limits{Memory: math.MaxInt64}}},
		{"--cpus 2 --cpu-weight 10000", spec.Sandbox{Limits: spec.Limits{MilliCPUs: 2000, CPUWeight: 10000}}},
		{"--cpus 0.125", spec.Sandbox{Limits: spec.Limits{MilliCPUs: 125}}},
		{"--cpus 1.5", spec.Sandbox{Limits: spec.Limits{MilliCPUs: 1500}}},
		{"--pids 7", spec.Sandbox{Limits: spec.Limits{Pids: 7}}},
		{"--pids 0", spec.Sandbox{Limits: spec.Limits{Pids: spec.Unlimited}}},
		{"--pids unlimited", spec.Sandbox{Limits: spec.Limits{Pids: spec.Unlimited}}},
		{"--pids unlimited --pids 9", spec.Sandbox{Limits: spec.Limits{Pids: 9}}},
		{"--memlock 1M --scratch 5M", spec.Sandbox{Limits: spec.Limits{Memlock: spec.MiB}, Scratch: 5 * spec.MiB}},
		{"--timeout 90", spec.Sandbox{Timeout: 90 * time.Second}},
		{"--timeout 1m30s", spec.Sandbox{Timeout: 90 * time.Second}},
		{"--userns host", spec.Sandbox{Userns: spec.UsernsHost}},
		{"--userns host --userns private", spec.Sandbox{}},
		{"--service-mode production --require-kernel-lockdown integrity", spec.Sandbox{Mode: spec.ModeProduction, Lockdown: spec.LockdownIntegrity}},
		{"--rootfs d --rootfs-sha256 x --rootfs-manifest m --verify-rootfs-attestation", spec.Sandbox{Rootfs: &spec.Rootfs{Source: "d", Attested: true, Manifest: "m", SHA256: "x"}}},
		{"--strict-agent --trust-level untrusted", spec.Sandbox{Mode: spec.ModeStrictAgent, Trust: spec.TrustUntrusted}},
		{"--strict-agent --service-mode agent", spec.Sandbox{}},
		{"--time-namespace --allow-degraded landlock,cgroup", spec.Sandbox{TimeNamespace: true, Degrade: []string{"landlock", "cgroup"}}},
	} {
		t.Run(tc.args, func(t *testing.T) {
			tc.want.Toolchain = tc.want.Rootfs == nil
			for _, sep := range []string{"", " --"} {
				got, rest, err := describe(strings.Fields(tc.args + sep + " prog -x --name y")...)
				if err != nil {
					t.Fatal(err)
				}
				if got.Env = slices.Clip(got.Env); len(got.Env) == 0 {
					got.Env = nil
				}
				if !reflect.DeepEqual(*got, tc.want) {
					t.Errorf("got  %+v\nwant %+v", *got, tc.want)
				}
				if want := []string{"prog", "-x", "--name", "y"}; !slices.Equal(rest, want) {
					t.Errorf("program: got %q, want %q", rest, want)
				}
			}
		})
	}
}

func TestIOLimitFlag(t *testing.T) {
	got, _, err := describe("--io-limit", "8:16 rbps=1M wbps=2 riops=3  wiops=4", "--no-toolchain", "x")
	if err != nil {
		t.Fatal(err)
	}
	want := []spec.IOLimit{{Major: 8, Minor: 16, ReadBPS: 1 << 20, WriteBPS: 2, ReadIOPS: 3, WriteIOPS: 4}}
	if !reflect.DeepEqual(got.Limits.IO, want) || got.Toolchain {
		t.Errorf("got %+v, toolchain %v; want %+v", got.Limits.IO, got.Toolchain, want)
	}
}

// TestProblemsNameFlags makes sure that what the spec calls a field is called by
// its flag on the command line.
func TestProblemsNameFlags(t *testing.T) {
	for field, want := range map[string]string{
		"limits.memory": "--memory", "limits.memory_swap": "--memory-swap", "limits.milli_cpus": "--cpus", "limits.cpu_weight": "--cpu-weight",
		"limits.pids": "--pids", "limits.io[0]": "--io-limit", "limits.memlock": "--memlock", "volumes[3].target": "--volume", "tmpfs[0].target": "--tmpfs",
		"context.source": "--context", "workspace": "--workspace", "user.uid": "--user", "userns": "--userns", "env": "--env", "timeout": "--timeout",
		"name": "--name", "hostname": "--hostname", "workdir": "--workdir", "degrade": "--allow-degraded", "scratch": "--scratch", "network": "network",
		"rootfs.source": "--rootfs", "rootfs.sha256": "--rootfs-sha256", "mode": "--service-mode", "lockdown": "--require-kernel-lockdown", "trust": "--trust-level",
	} {
		if got := runCommand.flagFor(field); got != want {
			t.Errorf("%s: got %s, want %s", field, got, want)
		}
	}
}

func TestEveryFlagIsExplained(t *testing.T) {
	seen := map[string]bool{}
	for f := range planCommand.all() {
		if f.help == "" || !strings.HasSuffix(f.help, ".") || f.set == nil {
			t.Errorf("--%s: help %q", f.name, f.help)
		}
		for _, name := range f.typed() {
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
	}
}

func TestCallerEnv(t *testing.T) {
	for _, tc := range []struct{ term, lang, want string }{
		{"xterm-256color", "de_DE.UTF-8", "TERM=xterm-256color LANG=de_DE.UTF-8"},
		{"", "", ""},
		{"a b", "C", "LANG=C"},
		{"../x", "en_US.UTF-8@euro", "LANG=en_US.UTF-8@euro"},
		{strings.Repeat("x", 65), "\x1b[31m", ""},
	} {
		t.Setenv("TERM", tc.term)
		t.Setenv("LANG", tc.lang)
		if got := strings.Join(callerEnv(), " "); got != tc.want {
			t.Errorf("TERM %q, LANG %q: got %q, want %q", tc.term, tc.lang, got, tc.want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"run", "plan", "doctor", "--memory", "--memory-swap"}
	for word, want := range map[string]string{
		"rnu": "run", "ru": "run", "paln": "plan", "doktor": "doctor", "--memroy": "--memory", "--mem": "", "xyz": "", "frobnicate": "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("--memory 1M -- x")
	f.Add("-itv a:/b,exec --io-limit 8:0 rbps=1 y")
	f.Fuzz(func(t *testing.T, line string) {
		box, args, err := describe(strings.Split(line, " ")...)
		if err == nil && len(args) == 0 {
			t.Errorf("%q: no error and no program", line)
		}
		if err == nil && box == nil || err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q: got %v, %q", line, box, err)
		}
	})
}

func TestExitCodesAreDocumented(t *testing.T) {
	for _, c := range []*command{&runCommand, &planCommand, &doctorCommand, &versionCommand, &completionCommand, &helpCommand} {
		help := commandHelp(c)
		for _, code := range []string{"\n  2 ", "\n  124 ", "\n  125 ", "\n  126 ", "\n  127 ", "\n  128+N "} {
			if !strings.Contains(help, code) {
				t.Errorf("%s --help lacks %q", c.name, code)
			}
		}
	}
}

func BenchmarkParse(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := describe("--memory", "1G", "-e", "A=1", "-v", "a:/b", "--", "true"); err != nil {
			b.Fatal(err)
		}
	}
}
