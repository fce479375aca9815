// Package profiles holds policies of system calls for kinds of programs, as data.
// Each is narrower than the default policy: it allows what both allow.
//
//	p, err := profiles.Get("python")
//	box.Policy = &policy.Policy{Seccomp: &p.Seccomp}
//
// A profile is made of blocks, each a few families of calls with a reason. What
// no block of a profile names is refused with EPERM, or as the default policy
// refuses it. A profile is about the program and what it usually starts; if it
// lacks something, combine nothing but write a policy of its own.
package profiles

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Profile is a policy for a kind of program.
type Profile struct {
	Name    string
	About   string
	Seccomp seccomp.Policy
}

// entry is a profile in terms of blocks.
type entry struct {
	name, about string
	blocks      []func() []seccomp.Rule
}

func table() []entry {
	program := []func() []seccomp.Rule{start, memory, readFiles}
	full := slices.Concat(program, []func() []seccomp.Rule{writeFiles, processes, threads, waiting, terminal})
	with := func(more ...func() []seccomp.Rule) []func() []seccomp.Rule { return slices.Concat(full, more) }
	return []entry{
		{"default", "the policy of a sandbox that asks for nothing special, to combine with rules of one's own", nil},
		{"none", "a program that reads files and computes: it writes to the descriptors that it has, and starts nothing", program},
		{"python", "the Python interpreter, pip, and programs that they start", with(sockets, memoryFiles)},
		{"node", "Node.js, npm, and programs that they start", with(sockets, memoryFiles, jit, watching, capabilitiesAsked)},
		{"go", "the Go compiler and programs that are written in Go", with(sockets, memoryFiles, watching)},
		{"rust", "cargo, rustc, the linker, and programs that are written in Rust", with(sockets, memoryFiles, watching)},
		{"git", "git with its helpers and hooks", with(sockets)},
		{"postgres", "the PostgreSQL server and its tools", with(sockets, sharedMemory, databaseFiles)},
		{"browser", "Chromium and Firefox, without their own use of namespaces", with(sockets, memoryFiles, jit, watching, sharedMemory, confining, scheduling, capabilitiesAsked)},
	}
}

// Names returns the names of all profiles.
func Names() []string {
	var out []string
	for _, e := range table() {
		out = append(out, e.name)
	}
	return out
}

// About returns the sentence about a profile.
func About(name string) string {
	for _, e := range table() {
		if e.name == name {
			return e.about
		}
	}
	return ""
}

// Get returns the profile of that name.
func Get(name string) (Profile, error) {
	for _, e := range table() {
		if e.name != name {
			continue
		}
		p := Profile{Name: e.name, About: e.about, Seccomp: seccomp.Default()}
		if len(e.blocks) == 0 {
			return p, nil
		}
		own := seccomp.Policy{Default: seccomp.Errno("EPERM")}
		for _, block := range e.blocks {
			own.Rules = append(own.Rules, block()...)
		}
		p.Seccomp = seccomp.Intersect(p.Seccomp, own)
		return p, nil
	}
	return Profile{}, fmt.Errorf("no profile is called %q; they are %s", name, strings.Join(Names(), " "))
}
