package learn_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/learn"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

func record(calls ...learn.Call) *learn.Record {
	r := learn.New(learn.Job{Command: []string{"x"}, Arch: seccomp.AMD64})
	for _, c := range calls {
		c.Count = max(c.Count, 1)
		r.Add(c)
	}
	r.Compact()
	return r
}

// policy is what the record's rules decide.
func policy(r *learn.Record, base seccomp.Policy) seccomp.Policy {
	rules, _ := r.Seccomp(base)
	p := seccomp.Policy{Default: base.Default, Unknown: base.Unknown}
	for _, rule := range rules {
		p.Rules = append(p.Rules, rule.Rule)
	}
	return p
}

// TestNothingMoreThanTheBase: whatever was seen, each decision is the base's or a
// refusal; and what was seen is decided as the base does.
func TestNothingMoreThanTheBase(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	words := []uint64{0, 1, 2, 3, 6, 8, 10, 16, 17, 31, 35, 0x5412, 0x541c, 0x5423, 0x5401, 0x1000, 0x8000, 0x20000, 0x7e020000, 0xffffffff, 1<<32 | 0x5412, ^uint64(0)}
	base, all := seccomp.Default(), seccomp.AMD64.Names()
	for range 10 {
		r := learn.New(learn.Job{Arch: seccomp.AMD64})
		used := map[string]bool{}
		for range 30 {
			name := all[rng.IntN(len(all))]
			nr, _ := seccomp.AMD64.Number(name)
			if base.Decide(seccomp.AMD64, nr, [6]uint64{1}) == seccomp.Allow {
				r.Add(learn.Call{Name: name, Count: 1})
				used[name] = true
			}
		}
		p := policy(r, base)
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Compile(seccomp.AMD64); err != nil {
			t.Fatal(err)
		}
		for range 5_000 {
			name := all[rng.IntN(len(all))]
			nr, _ := seccomp.AMD64.Number(name)
			var args [6]uint64
			for i := range args {
				args[i] = words[rng.IntN(len(words))]
			}
			got, want := p.Decide(seccomp.AMD64, nr, args), base.Decide(seccomp.AMD64, nr, args)
			if got == seccomp.Allow && want != seccomp.Allow || used[name] && got != want {
				t.Fatalf("%s%v (used: %t): got %s, the base says %s", name, args, used[name], got, want)
			}
		}
	}
}

func TestSocketsAreNarrowed(t *testing.T) {
	p := policy(record(learn.Call{Name: "socket", Words: []uint64{1, 1, 0}}, learn.Call{Name: "socket", Words: []uint64{2, 2, 17}}), seccomp.Default())
	nr, _ := seccomp.AMD64.Number("socket")
	for _, tc := range []struct {
		args [6]uint64
		want seccomp.Action
	}{
		{[6]uint64{1, 1 | 0x80000}, seccomp.Allow},
		{[6]uint64{2, 2, 17}, seccomp.Allow},
		{[6]uint64{2, 1, 6}, "EPROTONOSUPPORT"},
		{[6]uint64{10, 2, 17}, "EPROTONOSUPPORT"},
		{[6]uint64{16, 3}, "EAFNOSUPPORT"},
	} {
		if got := p.Decide(seccomp.AMD64, nr, tc.args); got != tc.want {
			t.Errorf("socket%v: got %s, want %s", tc.args, got, tc.want)
		}
	}
}

// TestRefusedIsNotLearned: what was refused stays refused and is told.
func TestRefusedIsNotLearned(t *testing.T) {
	r := record(
		learn.Call{Name: "setns", Refused: "EPERM", Rule: "no", Process: "x", Path: learn.Use{Asked: "/p", Path: "/p", Access: landlock.Read}},
		learn.Call{Name: "openat", Blocked: "EROFS", Path: learn.Use{Asked: "/usr/x", Path: "/usr/x", Kind: learn.File}},
	)
	nr, _ := seccomp.AMD64.Number("setns")
	if got := policy(r, seccomp.Default()).Decide(seccomp.AMD64, nr, [6]uint64{}); got != "EPERM" {
		t.Errorf("setns: got %s", got)
	}
	if got := r.Landlock().Allows("/p"); got != 0 {
		t.Errorf("/p: got %s", got)
	}
	if len(r.Refusals) != 2 || r.Refusals[0].Errno != "EPERM" || r.Refusals[1].By != "mount" || r.Refusals[1].Object != "/usr/x" {
		t.Errorf("got %+v", r.Refusals)
	}
}

func opened(path string, a landlock.Access) learn.Call {
	return learn.Call{Name: "openat", Process: "p", Path: learn.Use{Asked: path, Path: path, Kind: learn.File, Access: a}}
}

func made(call, path string, a landlock.Access) learn.Call {
	return learn.Call{Name: call, Process: "p", Path: learn.Use{Asked: path, Path: path, Access: a}}
}

func TestRulesOverFiles(t *testing.T) {
	calls := []learn.Call{
		opened("/usr/lib/python3/a.py", landlock.ReadFile),
		opened("/usr/bin/python3", landlock.ReadFile|landlock.Execute),
		opened("/etc/passwd", landlock.ReadFile),
		opened("/proc/17/stat", landlock.ReadFile),
		opened("/dev/null", landlock.Write),
		{Name: "ioctl", Words: []uint64{0x5401}},
		opened("/workspace/one", landlock.ReadFile),
		made("mkdir", "/tmp/tmpk3j2h", landlock.MakeDir),
		made("openat", "/tmp/tmpk3j2h/f", landlock.MakeReg|landlock.Write),
		opened("/tmp/tmpk3j2h/f", landlock.ReadFile),
		made("openat", "/workspace/out/result", landlock.MakeReg|landlock.Write),
		{Name: "rename", Path: learn.Use{Asked: "/workspace/a/x", Path: "/workspace/a/x", Kind: learn.File, Access: landlock.RemoveFile | landlock.Refer},
			Second: learn.Use{Asked: "/workspace/b/x", Path: "/workspace/b/x", Access: landlock.MakeReg | landlock.Refer}},
	}
	for i := range 4 {
		calls = append(calls, opened(fmt.Sprintf("/context/src/f%d", i), landlock.ReadFile))
	}
	r := record(calls...)
	c := r.Landlock()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path string
		want landlock.Access
	}{
		{"/usr/lib/python3/other.py", landlock.ReadFile},
		{"/usr/bin/python3", landlock.ReadFile | landlock.Execute},
		{"/usr/bin/perl", landlock.ReadFile},
		{"/etc/other", landlock.ReadFile},
		{"/proc/1/maps", landlock.ReadFile},
		{"/dev/null", landlock.Write | landlock.IoctlDev},
		{"/dev/zero", 0},
		{"/workspace/one", landlock.ReadFile},
		{"/workspace/two", 0},
		{"/tmp", landlock.MakeDir | landlock.MakeReg | landlock.Write | landlock.Read | landlock.Remove},
		{"/workspace/out/other", landlock.MakeReg | landlock.Write | landlock.ReadFile | landlock.RemoveFile},
		{"/context/src/f9", landlock.ReadFile},
		{"/context/other", 0},
	} {
		if got := c.Allows(tc.path); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.path, got, tc.want)
		}
	}
	if a, b := c.Allows("/workspace/a"), c.Allows("/workspace/b"); a != b || a&landlock.Refer == 0 {
		t.Errorf("files move between directories of other rights: %s, %s", a, b)
	}
	if text := string(r.Encode()); strings.Contains(c.String(), "tmpk3j2h") || !strings.Contains(text, `path = "/tmp/tmpk3j2h"`) {
		t.Errorf("rules:\n%s\nrecord:\n%s", c, text)
	}
}

// TestCompactKeepsThePolicy compares the rules of a record with those of its
// compact form.
func TestCompactKeepsThePolicy(t *testing.T) {
	var calls []learn.Call
	for i := range 100 {
		calls = append(calls,
			made("openat", fmt.Sprintf("/tmp/x%d", i), landlock.MakeReg|landlock.Write),
			made("mkdir", fmt.Sprintf("/workspace/copy/d%d", i), landlock.MakeDir),
			made("openat", fmt.Sprintf("/workspace/copy/d%d/f", i), landlock.MakeReg|landlock.Write),
			opened(fmt.Sprintf("/usr/share/f%d", i), landlock.ReadFile),
			opened(fmt.Sprintf("/workspace/in/f%d", i), landlock.ReadFile),
			learn.Call{Name: "stat", Path: learn.Use{Asked: fmt.Sprintf("/opt/x/%d", i)}},
		)
	}
	calls = append(calls, made("mkdir", "/workspace/copy", landlock.MakeDir))
	r := learn.New(learn.Job{Arch: seccomp.AMD64})
	for _, c := range calls {
		c.Count = 1
		r.Add(c)
	}
	before, many := allows(r), len(r.Paths)
	r.Compact()
	if after := allows(r); !slices.Equal(before, after) {
		t.Errorf("before\n%s\nafter\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if len(r.Paths) > 12 || many < 500 {
		t.Errorf("%d paths became %d: %+v", many, len(r.Paths), r.Paths)
	}
}

func allows(r *learn.Record) (out []string) {
	for _, rule := range r.Landlock().Merged() {
		out = append(out, rule.Path+" "+rule.Allow.String())
	}
	return out
}

// TestBounds: a hostile job does not fill the memory.
func TestBounds(t *testing.T) {
	r := learn.New(learn.Job{Arch: seccomp.AMD64})
	for i := range 100_000 {
		r.Add(learn.Call{Name: "ioctl", Words: []uint64{uint64(i)}, Count: 1})
		r.Add(learn.Call{Name: "connect", Addr: fmt.Sprint(i), Count: 1, Refused: "EPERM"})
		r.Add(opened(fmt.Sprintf("/x/%d/y", i), landlock.ReadFile))
	}
	if len(r.Paths) > 20_000 || len(r.Refusals) > 20_000 || len(r.Calls[0].Values) > 64 || r.Lost == 0 {
		t.Errorf("got %d paths, %d refusals, %d values, %d lost", len(r.Paths), len(r.Refusals), len(r.Calls[0].Values), r.Lost)
	}
}

// TestInferred: which capability a call needs follows from the call.
func TestInferred(t *testing.T) {
	r := record(
		learn.Call{Name: "bind", Addr: "0.0.0.0:80"}, learn.Call{Name: "bind", Addr: "0.0.0.0:8080"},
		learn.Call{Name: "fchownat", Words: []uint64{0, 0}}, learn.Call{Name: "chown", Words: []uint64{1000, 1<<32 - 1}},
		learn.Call{Name: "setuid", Words: []uint64{33}}, learn.Call{Name: "mknod", Words: []uint64{0x8000}},
	)
	var got []string
	for _, c := range r.Caps {
		got = append(got, c.Cap.String()+" "+c.Call)
	}
	want := []string{"CAP_NET_BIND_SERVICE bind", "CAP_CHOWN chown", "CAP_SETUID setuid"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if text, _ := r.EncodePolicy(seccomp.Default()); strings.Contains(string(text), "[caps") {
		t.Error("a capability that was not kept while learning is kept")
	}
}
