package spec

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// fields are the fields that an error of Validate complains about, in order.
func fields(t testing.TB, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("got %T %v, want problems that are joined", err, err)
	}
	var out []string
	for _, e := range joined.Unwrap() {
		var p *Problem
		if !errors.As(e, &p) {
			t.Fatalf("got %T %v, want a *Problem", e, e)
		}
		if p.Field == "" || p.Why == "" || !strings.Contains(p.Error(), p.Field) || strings.Contains(p.Error(), "\n") {
			t.Errorf("got %q, want one line with the field and the reason", p.Error())
		}
		out = append(out, p.Field)
	}
	return out
}

func volumes(targets ...string) Sandbox {
	var s Sandbox
	for _, target := range targets {
		s.Volumes = append(s.Volumes, Volume{Source: "/s", Target: target})
	}
	return s
}

func limits(l Limits) Sandbox { return Sandbox{Limits: l} }

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		name string
		spec Sandbox
		want string // fields with problems, separated by spaces
	}{
		{"zero value", Sandbox{}, ""},
		{"everything", Sandbox{
			Name: "a-B_3.c", Hostname: "h-1.example", Toolchain: true, Context: &Bind{Source: "c"}, Workspace: &Bind{Source: ".", Exec: true},
			Volumes: []Volume{{Source: "v", Target: "/v/w", Writable: true}}, Tmpfs: []Tmpfs{{Target: "/dev/shm", Size: MiB}},
			Scratch: MiB, User: User{UID: 65534, GID: 65534, Name: "ada"}, Userns: UsernsHost, TimeNamespace: true,
			Workdir: "/v", Env: []string{"A=b", "_x1=", "A=c=d"}, Terminal: true, Timeout: time.Millisecond, Degrade: []string{DegradeCgroup, DegradeLandlock},
			Limits: Limits{Memory: MinMemory, MemorySwap: MinMemory, MilliCPUs: 10, CPUWeight: 10000, Pids: 4194304, IO: []IOLimit{{ReadBPS: 1}}, Memlock: 1},
		}, ""},

		{"name of 64", Sandbox{Name: strings.Repeat("a", 64)}, ""},
		{"name of 65", Sandbox{Name: strings.Repeat("a", 65)}, "name"},
		{"name with a slash", Sandbox{Name: "a/b"}, "name"},
		{"name that goes up", Sandbox{Name: ".."}, "name"},
		{"name like a flag", Sandbox{Name: "-rf"}, "name"},
		{"name with a line", Sandbox{Name: "a\nb"}, "name"},
		{"name in another script", Sandbox{Name: "é"}, "name"},

		{"host name of 64", Sandbox{Hostname: strings.Repeat("a", 63) + ".b"}, "hostname"}, // 65
		{"label of 63", Sandbox{Hostname: strings.Repeat("a", 63)}, ""},
		{"label of 64", Sandbox{Hostname: strings.Repeat("a", 64)}, "hostname"},
		{"host name with an underscore", Sandbox{Hostname: "a_b"}, "hostname"},
		{"host name with a dash at the end", Sandbox{Hostname: "a-"}, "hostname"},
		{"host name with an empty label", Sandbox{Hostname: "a..b"}, "hostname"},
		{"host name with a line", Sandbox{Hostname: "a\n127.0.0.1 b"}, "hostname"},

		{"no source", Sandbox{Context: &Bind{}, Workspace: &Bind{}, Volumes: []Volume{{Target: "/v"}}}, "context.source workspace.source volumes[0].source"},
		{"source with a zero byte", Sandbox{Context: &Bind{Source: "a\x00b"}}, "context.source"},
		{"target that is relative", volumes("a"), "volumes[0].target"},
		{"no target", volumes(""), "volumes[0].target"},
		{"target that is the root", volumes("/", "//", "/."), "volumes[0].target volumes[1].target volumes[2].target"},
		{"target that goes up", volumes("/a/../../b"), "volumes[0].target"},
		{"two dots in a name", volumes("/a..b/..c"), ""},
		{"target with a zero byte", volumes("/a\x00"), "volumes[0].target"},
		{"target that is too long", volumes("/" + strings.Repeat("a", 4096)), "volumes[0].target"},
		{"reserved targets", volumes("/proc", "/proc/sys", "/dev", "/dev/null", "/sys", "/sys/fs", "//proc//x"), "volumes[0].target volumes[1].target volumes[2].target volumes[3].target volumes[4].target volumes[5].target volumes[6].target"},
		{"below /dev/shm", volumes("/dev/shm/x"), "volumes[0].target"},
		{"like reserved ones", volumes("/process", "/devel", "/system"), ""},
		{"the same target twice", volumes("/a", "/a/"), "volumes[1].target"},
		{"a volume at the context's place", Sandbox{Context: &Bind{Source: "."}, Volumes: []Volume{{Source: "s", Target: "/context"}}}, "volumes[0].target"},
		{"a tmpfs at a volume's place", Sandbox{Volumes: []Volume{{Source: "s", Target: "/a"}}, Tmpfs: []Tmpfs{{Target: "/a/."}}}, "tmpfs[0].target"},
		{"a tmpfs at /workspace without one", Sandbox{Tmpfs: []Tmpfs{{Target: "/workspace"}}}, ""},

		{"uid that is no id", Sandbox{User: User{UID: 65535}}, "user.uid"},
		{"gid -1", Sandbox{User: User{GID: math.MaxUint32}}, "user.gid"},
		{"user name for passwd", Sandbox{User: User{Name: "a:0:0"}}, "user.name"},
		{"user name with a line", Sandbox{User: User{Name: "a\nroot"}}, "user.name"},
		{"userns", Sandbox{Userns: "none"}, "userns"},
		{"network", Sandbox{Network: "host"}, "network"},
		{"workdir that is relative", Sandbox{Workdir: "a"}, "workdir"},
		{"workdir that goes up", Sandbox{Workdir: "/a/.."}, "workdir"},
		{"workdir that is the root", Sandbox{Workdir: "/"}, ""},

		{"env without =", Sandbox{Env: []string{"A"}}, "env"},
		{"env without a key", Sandbox{Env: []string{"=a", ""}}, "env env"},
		{"env with a digit first", Sandbox{Env: []string{"1A=b"}}, "env"},
		{"env with a dash", Sandbox{Env: []string{"A-B=c"}}, "env"},
		{"env with a function", Sandbox{Env: []string{"BASH_FUNC_x%%=() { :; }"}}, "env"},
		{"env with a zero byte", Sandbox{Env: []string{"A=b\x00LD_PRELOAD=x"}}, "env"},
		{"env for the loader", Sandbox{Env: []string{"LD_PRELOAD=x", "LD_LIBRARY_PATH=", "GLIBC_TUNABLES=x", "GCONV_PATH=x", "LOCPATH=x", "NLSPATH=x"}}, "env env env env env env"},
		{"env in lower case", Sandbox{Env: []string{"ld_preload=x", "LDX=y"}}, ""},

		{"memory below the least", limits(Limits{Memory: MinMemory - 1}), "limits.memory"},
		{"swap without memory", limits(Limits{MemorySwap: GiB}), "limits.memory_swap"},
		{"swap below memory", limits(Limits{Memory: GiB, MemorySwap: GiB - 1}), "limits.memory_swap"},
		{"too little of a processor", limits(Limits{MilliCPUs: 9}), "limits.milli_cpus"},
		{"more processors than there are", limits(Limits{MilliCPUs: 65536_001}), "limits.milli_cpus"},
		{"all of them", limits(Limits{MilliCPUs: 65536_000}), ""},
		{"weight", limits(Limits{CPUWeight: 10001}), "limits.cpu_weight"},
		{"no limit on tasks", limits(Limits{Pids: Unlimited}), ""},
		{"tasks below none", limits(Limits{Pids: -2}), "limits.pids"},
		{"more tasks than a kernel has", limits(Limits{Pids: 4194305}), "limits.pids"},
		{"a device without a limit", limits(Limits{IO: []IOLimit{{ReadBPS: 1}, {Major: 8}}}), "limits.io[1]"},

		{"a policy that the kernel would not keep", Sandbox{Policy: &policy.Policy{Caps: &caps.Sets{Effective: 1}}}, "policy"},
		{"a policy of nothing", Sandbox{Policy: &policy.Policy{}}, ""},

		{"timeout", Sandbox{Timeout: -1}, "timeout"},
		{"timeout that nothing meets", Sandbox{Timeout: time.Millisecond - 1}, "timeout"},
		{"degrade", Sandbox{Degrade: []string{DegradeCgroup, "seccomp"}}, "degrade"},
		{"modes", Sandbox{Mode: ModeStrictAgent, Lockdown: LockdownConfidentiality, Trust: TrustUntrusted}, ""},
		{"modes that do not exist", Sandbox{Mode: "agent", Lockdown: "none", Trust: "none"}, "mode lockdown trust"},
		{"a root", Sandbox{Rootfs: &Rootfs{Source: "r", Attested: true, Manifest: "m", SHA256: strings.Repeat("0a", 32)}}, ""},
		{"a root that is nowhere", Sandbox{Rootfs: &Rootfs{}}, "rootfs.source"},
		{"a root and the host's programs", Sandbox{Toolchain: true, Rootfs: &Rootfs{Source: "r"}}, "toolchain"},
		{"a root with odd digests", Sandbox{Rootfs: &Rootfs{Source: "r\x00", Manifest: "\x00", SHA256: strings.Repeat("A", 64)}}, "rootfs.source rootfs.manifest rootfs.sha256"},
		{"a manifest for nothing", Sandbox{Rootfs: &Rootfs{Source: "r", Manifest: "m"}}, "rootfs.manifest"},
		{"many at once", Sandbox{Name: "/", Workdir: "x", Env: []string{"A"}, Timeout: -1}, "name workdir env timeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := mustJSON(t, tc.spec)
			if got := strings.Join(fields(t, tc.spec.Validate()), " "); got != tc.want {
				t.Errorf("got problems with %q, want %q (%v)", got, tc.want, tc.spec.Validate())
			}
			if after := mustJSON(t, tc.spec); after != before {
				t.Errorf("Validate changed %s to %s", before, after)
			}
		})
	}
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestJSONKeepsEverything goes through every field by reflection, so that a new
// one without a JSON name of its own is noticed.
func TestJSONKeepsEverything(t *testing.T) {
	var s Sandbox
	fill(reflect.ValueOf(&s).Elem())
	text := mustJSON(t, s)
	var back Sandbox
	if err := json.Unmarshal([]byte(text), &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, back) {
		t.Errorf("got %+v, want %+v", back, s)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r >= 'A' && r <= 'Z' && r != 'X' }) {
		t.Errorf("a field has no name for JSON: %s", text)
	}
}

// fill gives every field a value that is not zero.
func fill(v reflect.Value) {
	switch v.Interface().(type) {
	case seccomp.Op:
		v.Set(reflect.ValueOf(seccomp.Eq))
		return
	case caps.Set: // its names are in capitals
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.String:
		v.SetString("X")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	}
}

func TestBytesString(t *testing.T) {
	for b, want := range map[Bytes]string{0: "0", 1: "1", 1023: "1023", KiB: "1K", 1536: "1536", 3 * KiB: "3K", MiB: "1M", MiB + KiB: "1025K", GiB: "1G", 5 * TiB: "5T", math.MaxUint64: "18446744073709551615"} {
		if got := b.String(); got != want {
			t.Errorf("%d: got %s, want %s", uint64(b), got, want)
		}
	}
}

func TestLimitsAsked(t *testing.T) {
	for _, tc := range []struct {
		name   string
		limits Limits
		pids   uint64
		cgroup bool
	}{
		{"nothing", Limits{}, DefaultPids, false},
		{"no limit on tasks", Limits{Pids: Unlimited}, 0, false},
		{"tasks", Limits{Pids: 3}, 3, true},
		{"memory", Limits{Memory: MiB}, DefaultPids, true},
		{"processors", Limits{MilliCPUs: 1}, DefaultPids, true},
		{"weight", Limits{CPUWeight: 1}, DefaultPids, true},
		{"devices", Limits{IO: []IOLimit{{}}}, DefaultPids, true},
		{"locked memory", Limits{Memlock: 1}, DefaultPids, false},
	} {
		if p, c := tc.limits.EffectivePids(), tc.limits.NeedsCgroup(); p != tc.pids || c != tc.cgroup {
			t.Errorf("%s: got %d tasks and cgroup %t, want %d and %t", tc.name, p, c, tc.pids, tc.cgroup)
		}
	}
}

// FuzzValidate reads descriptions as JSON. Whatever they say: no panic, every
// error is a *Problem, and what passes can be relied on by those who come after.
func FuzzValidate(f *testing.F) {
	f.Add(`{}`)
	f.Add(`{"name":"x","volumes":[{"source":"a","target":"/b"}],"tmpfs":[{"target":"/c"}],"env":["A=b"],"limits":{"memory":99999999}}`)
	f.Add(`{"context":{"source":""},"workspace":{"source":"\u0000"},"user":{"uid":65535},"timeout":-1,"degrade":["x"]}`)
	f.Add(`{"hostname":"a.b","workdir":"/../..","limits":{"pids":-7,"io":[{}]}}`)
	f.Add(`{"volumes":[{"source":"a","target":"/b"},{"source":"a","target":"/b/."}],"env":["LD_X=1","=",""]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var s Sandbox
		if json.Unmarshal([]byte(text), &s) != nil {
			return
		}
		err := s.Validate()
		if len(fields(t, err)) > 0 {
			return
		}
		if err != nil {
			t.Fatalf("an error without a problem: %v", err)
		}
		for _, place := range places(&s) {
			if !strings.HasPrefix(place, "/") || strings.ContainsRune(place, 0) || slices.Contains(strings.Split(place, "/"), "..") || strings.Trim(place, "/.") == "" {
				t.Errorf("the place %q passes", place)
			}
		}
		for _, kv := range s.Env {
			if k, _, ok := strings.Cut(kv, "="); !ok || k == "" || strings.HasPrefix(k, "LD_") || strings.ContainsRune(kv, 0) {
				t.Errorf("the variable %q passes", kv)
			}
		}
		for _, word := range []string{s.Name, s.Hostname, s.User.Name} {
			if strings.ContainsAny(word, "/:\n\x00 ") || strings.HasPrefix(word, ".") || strings.HasPrefix(word, "-") {
				t.Errorf("the name %q passes", word)
			}
		}
		if s.User.UID > 65534 || s.User.GID > 65534 || s.Timeout < 0 || s.Limits.Memory != 0 && s.Limits.Memory < MinMemory {
			t.Errorf("a number out of range passes: %s", text)
		}
	})
}

func places(s *Sandbox) (all []string) {
	for _, v := range s.Volumes {
		all = append(all, v.Target)
	}
	for _, t := range s.Tmpfs {
		all = append(all, t.Target)
	}
	return all
}
