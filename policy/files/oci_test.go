package files

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// profile is an OCI profile with one group, and something after it.
func profile(group, more string) string {
	return fmt.Sprintf("{\n\"defaultAction\": \"SCMP_ACT_ERRNO\",\n\"syscalls\": [\n%s\n]%s}", group, more)
}

func TestParseSeccompRefuses(t *testing.T) {
	group := func(more string) string {
		return profile(`{"names": ["read"], "action": "SCMP_ACT_ALLOW"`+more+`}`, "")
	}
	arg := func(a string) string { return group(`, "args": [` + a + `]`) }
	for _, tt := range []struct{ name, text, err string }{
		{"plain", group(""), ""},
		{"nothing", "", ":1: unexpected end"},
		{"no profile", "[]", "a profile is not an object"},
		{"null", "null", "a profile is not an object"},
		{"text behind", group("") + "{}", ":5: invalid character"},
		{"cut off", group("")[:40], "unexpected end"},
		{"no default", `{"syscalls": []}`, "defaultAction is missing"},
		{"an unknown key", profile("", `, "sysCalls": []`), ":5: a profile has no key \"sysCalls\""},
		{"a key by another case", strings.Replace(group(""), "names", "Names", 1), ":4: a group of syscalls has no key \"Names\""},
		{"a key twice", group(`, "action": "SCMP_ACT_KILL"`), ":4: the key \"action\" is there twice"},
		{"an unknown call", strings.Replace(group(""), "read", "raed", 1), ":4: no system call is named \"raed\""},
		{"a call of another machine", strings.Replace(group(""), "read", "s390_sthyi", 1), ""},
		{"no names", profile(`{"names": [], "action": "SCMP_ACT_ALLOW"}`, ""), "names none"},
		{"no action", profile(`{"names": ["read"]}`, ""), "has no action"},
		{"names that is text", profile(`{"names": "read", "action": "SCMP_ACT_ALLOW"}`, ""), ":4: names is not a list"},
		{"a number for a name", profile(`{"names": [1], "action": "SCMP_ACT_ALLOW"}`, ""), "not a string"},
		{"an unknown action", strings.Replace(group(""), "ALLOW", "ALOW", 1), ":4: no action is called \"SCMP_ACT_ALOW\""},
		{"notify", strings.Replace(group(""), "ALLOW", "NOTIFY", 1), "leaves the decision to another program"},
		{"trace", strings.Replace(group(""), "ALLOW", "TRACE", 1), "needs a tracer"},
		{"a listener", profile("", `, "listenerPath": "/x"`), "hands decisions to another program"},
		{"an errno", strings.Replace(group(`, "errnoRet": 38`), "ALLOW", "ERRNO", 1), ""},
		{"an errno of 0", strings.Replace(group(`, "errnoRet": 0`), "ALLOW", "ERRNO", 1), "errno 0 has no name"},
		{"an errno without a name", strings.Replace(group(`, "errnoRet": 4000`), "ALLOW", "ERRNO", 1), "errno 4000 has no name"},
		{"a large errno", strings.Replace(group(`, "errnoRet": 65536`), "ALLOW", "ERRNO", 1), "16 bits"},
		{"a negative errno", strings.Replace(group(`, "errnoRet": -1`), "ALLOW", "ERRNO", 1), "not a whole number"},
		{"an errno of something else", group(`, "errnoRet": 1`), "an errno means nothing to SCMP_ACT_ALLOW"},
		{"no errno", group(`, "errnoRet": null, "args": null`), ""},
		{"an argument", arg(`{"index": 5, "value": 18446744073709551615, "op": "SCMP_CMP_LT"}`), ""},
		{"a seventh argument", arg(`{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}`), "arguments 0 to 5"},
		{"no index", arg(`{"value": 1, "op": "SCMP_CMP_EQ"}`), "no index"},
		{"a broken number", arg(`{"index": 0, "value": 1.5, "op": "SCMP_CMP_EQ"}`), "not a whole number of 64 bits"},
		{"a number in words", arg(`{"index": 0, "value": "1", "op": "SCMP_CMP_EQ"}`), "not a whole number"},
		{"too large a number", arg(`{"index": 0, "value": 18446744073709551616, "op": "SCMP_CMP_EQ"}`), "64 bits"},
		{"an unknown comparison", arg(`{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}`), "no comparison is called"},
		{"a second value", arg(`{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}`), "valueTwo means nothing"},
		{"a mask", arg(`{"index": 0, "value": 15, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}`), ""},
		{"a mask that never holds", arg(`{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}`), "it never holds"},
		{"one argument twice", arg(`{"index": 0, "value": 1, "op": "SCMP_CMP_GE"}, {"index": 0, "value": 9, "op": "SCMP_CMP_LE"}`), "engines disagree"},
		{"two answers", profile(`{"names": ["read"], "action": "SCMP_ACT_ALLOW"}, {"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}`, ""), "read: two groups may hold at once"},
		{"two answers apart", profile(`{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}, {"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}`, ""), ""},
		{"our architecture", profile("", `, "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"]`), ""},
		{"others' architectures", profile("", `, "architectures": ["SCMP_ARCH_AARCH64"]`), "do not include amd64"},
		{"an unknown architecture", profile("", `, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_Z80"]`), "no architecture is called"},
		{"a map without ours", profile("", `, "archMap": [{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_X86_64"]}]`), "do not include amd64"},
		{"a map", profile("", `, "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]`), ""},
		{"flags", profile("", `, "flags": ["SECCOMP_FILTER_FLAG_TSYNC"]`), ""},
		{"flags that weaken", profile("", `, "flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]`), "speculative"},
		{"an unknown capability", group(`, "includes": {"caps": ["CAP_FLY"]}`), "no capability is named"},
		{"an unknown kernel", group(`, "includes": {"minKernel": "four"}`), "minKernel"},
		{"included architectures", group(`, "includes": {"arches": ["x86", "amd64", "x32", "arm", "arm64", "mips3l64n32", "loongarch64", "riscv64", "s390x"]}`), ""},
		{"an included architecture that is none", group(`, "includes": {"arches": ["amd64", "x86_64"]}`), ":4: includes has no architecture \"x86_64\""},
		{"an excluded architecture that is none", group(`, "excludes": {"arches": ["amd46"]}`), ":4: excludes has no architecture \"amd46\""},
		{"an architecture without a word", group(`, "excludes": {"arches": [""]}`), "no architecture \"\""},
		{"an unknown condition", group(`, "includes": {"moon": "full"}`), "includes has no key \"moon\""},
		{"nested deeply", strings.Repeat("[", 100) + strings.Repeat("]", 100), "nested too deeply"},
		{"no text", "{\"defaultAction\": \"\xff\"}", "not UTF-8"},
	} {
		if tt.text == profile("", "") || strings.Contains(tt.text, "[\n\n]") {
			tt.text = strings.Replace(tt.text, "[\n\n]", "[\n{\"name\": \"read\", \"action\": \"SCMP_ACT_ALLOW\"}\n]", 1)
		}
		_, err := ParseSeccomp("f", []byte(tt.text), Target{Arch: seccomp.AMD64, Kernel: "6.1.0"})
		wantError(t, tt.name, err, tt.err)
	}
}

// TestParseSeccompChooses: groups are for capabilities, architectures and kernels.
func TestParseSeccompChooses(t *testing.T) {
	for _, tt := range []struct {
		name, filter string
		arch         seccomp.Arch
		kernel       string
		caps         caps.Set
		want         bool
	}{
		{"none", ``, seccomp.AMD64, "6.1.0-8-amd64", 0, true},
		{"capability missing", `,"includes":{"caps":["CAP_KILL"]}`, seccomp.AMD64, "6.1", 0, false},
		{"capability there", `,"includes":{"caps":["CAP_KILL"]}`, seccomp.AMD64, "6.1", caps.Of(caps.Kill), true},
		{"one of two there", `,"includes":{"caps":["CAP_KILL","CAP_CHOWN"]}`, seccomp.AMD64, "6.1", caps.Of(caps.Kill), false},
		{"excluded by one", `,"excludes":{"caps":["CAP_KILL","CAP_CHOWN"]}`, seccomp.AMD64, "6.1", caps.Of(caps.Kill), false},
		{"architecture", `,"includes":{"arches":["amd64","x32"]}`, seccomp.AMD64, "6.1", 0, true},
		{"another architecture", `,"includes":{"arches":["arm64"]}`, seccomp.AMD64, "6.1", 0, false},
		{"excluded architecture", `,"excludes":{"arches":["arm64"]}`, seccomp.ARM64, "6.1", 0, false},
		{"new enough", `,"includes":{"minKernel":"4.8"}`, seccomp.AMD64, "4.8.0", 0, true},
		{"newer", `,"includes":{"minKernel":"4.8"}`, seccomp.AMD64, "5.1", 0, true},
		{"too old", `,"includes":{"minKernel":"4.8"}`, seccomp.AMD64, "4.7.9", 0, false},
		{"not by text", `,"includes":{"minKernel":"4.18"}`, seccomp.AMD64, "4.9.1", 0, false},
		{"a kernel that says nothing", `,"includes":{"minKernel":"4.8"}`, seccomp.AMD64, "unknown", 0, false},
		{"excluded from", `,"excludes":{"minKernel":"4.8"}`, seccomp.AMD64, "4.8", 0, false},
	} {
		p, err := ParseSeccomp("f", []byte(profile(`{"names":["ptrace"],"action":"SCMP_ACT_ALLOW","comment":"x"`+tt.filter+`}`, "")), Target{tt.arch, tt.kernel, tt.caps})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		nr, _ := tt.arch.Number("ptrace")
		if got := p.Decide(tt.arch, nr, [6]uint64{}).Runs(); got != tt.want {
			t.Errorf("%s: allowed is %t, want %t", tt.name, got, tt.want)
		}
	}
}
