package cli

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/caps"
	"github.com/nucleus-container/nucleus/policy/files"
	"github.com/nucleus-container/nucleus/spec"
)

// fill gives every field below v a value that is not its zero value, and that a
// flag can say.
func fill(v reflect.Value, r *rand.Rand) {
	switch v.Interface().(type) {
	case *policy.Policy: // by hand
		return
	case time.Duration:
		v.SetInt(int64(time.Duration(1+r.IntN(5000)) * time.Millisecond))
		return
	case spec.Bytes:
		v.SetUint(uint64(spec.MiB) * uint64(8+r.IntN(100)))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(1 + r.IntN(10)))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(1 + r.IntN(1000)))
	case reflect.String:
		v.SetString("x" + string(rune('a'+r.IntN(26))))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+r.IntN(2), 3))
		for i := range v.Len() {
			fill(v.Index(i), r)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), r)
		}
	default:
		panic("a field of kind " + v.Kind().String() + ": teach fill about it")
	}
}

// filePolicies are the flags of policies that are read from files of testdata.
var filePolicies = []files.Options{
	{Policy: files.File{Path: "policy.toml"}},
	{Policy: files.File{Path: "policy.toml", SHA256: "pin"}, Profiles: []string{"python", "git"}},
	{Caps: files.File{Path: "caps.toml", SHA256: "pin"}, Landlock: files.File{Path: "landlock.toml", SHA256: "pin"}},
	{Seccomp: files.File{Path: "seccomp.json", SHA256: "pin"}, Dangerous: []string{"bpf"}},
	{Landlock: files.File{Path: "landlock.toml"}, Profiles: []string{"none"}},
}

func filePolicy(r *rand.Rand) *policy.Policy {
	o := filePolicies[r.IntN(len(filePolicies))]
	for _, f := range []*files.File{&o.Policy, &o.Seccomp, &o.Caps, &o.Landlock} {
		if f.Path == "" {
			continue
		}
		f.Path, _ = filepath.Abs("testdata/policy/" + f.Path)
		if data, _ := os.ReadFile(f.Path); f.SHA256 != "" {
			f.SHA256 = fmt.Sprintf("%x", sha256.Sum256(data))
		}
	}
	p, err := files.Load(o)
	if err != nil {
		panic(err)
	}
	return p
}

// fullDescription has every field set to something that a flag can say.
func fullDescription(r *rand.Rand) (box spec.Sandbox, s spec.Service) {
	box.Policy = &policy.Policy{}
	fill(reflect.ValueOf(&box).Elem(), r)
	box.Policy = nil
	if r.IntN(2) == 0 {
		box.Policy = filePolicy(r)
	}
	fill(reflect.ValueOf(&s).Elem(), r)
	box.Userns, box.Degrade = spec.UsernsHost, []string{spec.DegradeLandlock}
	box.Mode, box.Lockdown, box.Trust = spec.ModeProduction, spec.LockdownIntegrity, spec.TrustTrusted
	box.User.Name, box.Network, box.Workdir = "", spec.NetworkNone, "/w"
	box.Env = []string{"A=b c", "D="}
	box.Limits.MemorySwap = box.Limits.Memory * 2
	s.Restart = spec.Restart{Policy: spec.RestartOnFailure, Max: 3}
	s.StopSignal, s.OnUnhealthy = "USR1", spec.UnhealthyKill
	s.Health.HTTP, s.Health.TCP = "", ""
	s.Ready.Command, s.Ready.HTTP, s.Ready.TCP, s.Ready.StartPeriod = nil, "", "127.0.0.1:80", 0
	s.Log.Off, s.Log.Inherit = false, false
	for _, hooks := range [][]spec.Hook{s.Hooks.CreateRuntime, s.Hooks.Poststart, s.Hooks.Poststop} {
		for i := range hooks {
			hooks[i] = spec.Hook{Path: "/bin/h"}
		}
	}
	return box, s
}

// readBack parses what flagsOf wrote.
func readBack(t *testing.T, args []string) (spec.Sandbox, spec.Service, map[string]string) {
	t.Helper()
	t.Setenv("TERM", "")
	t.Setenv("LANG", "")
	c := &call{cmd: &runCommand}
	if err := c.parse(append(args, "--", "prog")); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	box, err := c.sandbox()
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return *box, c.opts.life.service, c.opts.life.labels
}

func TestFlagsOfAreTheFlags(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		box, service := fullDescription(r)
		labels := map[string]string{"k": "v w", "l": ""}
		if seed%3 == 0 { // and with fields left out
			clear := reflect.ValueOf(&box).Elem()
			for i := range clear.NumField() {
				if r.IntN(2) == 0 && clear.Type().Field(i).Name != "Env" {
					clear.Field(i).SetZero()
				}
			}
		}
		if box.Rootfs != nil {
			box.Toolchain = false
		}
		args, err := flagsOf(box, service, labels)
		if err != nil {
			t.Fatal(err)
		}
		gotBox, gotService, gotLabels := readBack(t, args)
		if !reflect.DeepEqual(gotBox, box) {
			t.Errorf("%q\n got %+v\nwant %+v", args, gotBox, box)
		}
		if !reflect.DeepEqual(gotService, service) {
			t.Errorf("%q\n got %+v\nwant %+v", args, gotService, service)
		}
		if !reflect.DeepEqual(gotLabels, labels) {
			t.Errorf("got labels %v, want %v", gotLabels, labels)
		}
	}
}

// TestFlagsOfSayWhatTheyCannot: a part that no flag can give is an error, not
// left out.
func TestFlagsOfSayWhatTheyCannot(t *testing.T) {
	made := spec.Sandbox{Policy: &policy.Policy{Caps: &caps.Sets{}}}
	if args, err := flagsOf(made, spec.Service{}, nil); err == nil {
		t.Errorf("a policy without files: got %q, want an error", args)
	}
	for name, s := range map[string]spec.Service{
		"a hook's arguments":   {Hooks: spec.Hooks{Poststop: []spec.Hook{{Path: "/bin/h", Args: []string{"h", "x"}}}}},
		"a ready start period": {Ready: &spec.Check{TCP: "127.0.0.1:1", StartPeriod: time.Second}},
		"inherited output":     {Log: spec.Log{Inherit: true}},
	} {
		if args, err := flagsOf(spec.Sandbox{}, s, nil); err == nil {
			t.Errorf("%s: got %q, want an error", name, args)
		}
	}
	box := spec.Sandbox{Volumes: []spec.Volume{{Source: "/a:b", Target: "/c"}}}
	if args, err := flagsOf(box, spec.Service{}, nil); err == nil {
		t.Errorf("a colon: got %q, want an error", args)
	}
}
