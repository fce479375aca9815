package plan

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/spec"
)

// GuidePath is where a sandbox tells its programs what they may do. There is no
// variable of the environment that says so: the place is always the same, and the
// environment stays as small as it is.
const GuidePath = "/run/nucleus/policy.md"

// guide plans the file that tells what the sandbox allows. Where the Spec puts
// something of its own over the place, there is none: that is not ours to change.
func (b *builder) guide() {
	covers := func(m mountPoint) bool { return strings.HasPrefix(GuidePath+"/", b.real(m.path)+"/") }
	if b.dirs[GuidePath] || slices.ContainsFunc(b.mounts, covers) {
		return
	}
	b.mkdir(path.Dir(GuidePath), "guide")
	b.child("guide", WriteFile{Path: GuidePath, Mode: 0o444, Data: b.guideText()})
}

// places are the mounts as others see them.
func (b *builder) places() []Place {
	all := make([]Place, len(b.mounts))
	for i, m := range b.mounts {
		all[i] = Place{Path: b.real(m.path), File: m.file, Host: m.host, Writable: m.writable, Exec: m.exec, Because: m.because}
	}
	return all
}

// guideText is what a program inside reads about its sandbox, made from what is
// planned. Sources of volumes are not in it: where a file lies on the host is
// nothing that a sandbox shows.
func (b *builder) guideText() string {
	var t strings.Builder
	t.Grow(4 << 10)
	line := func(parts ...string) {
		for _, p := range parts {
			t.WriteString(p)
		}
		t.WriteByte('\n')
	}
	line("# What this sandbox allows\n")
	line("This is a Nucleus sandbox. The kernel refuses what is not allowed here. Trying again")
	line("does not help, and nothing inside can change it; the last section says how to ask.\n")
	b.guideFiles(line)
	line("\n## Network\n\nNone. Connecting to other machines and resolving names fail at once; that is no outage.")
	line("127.0.0.1 and ::1 are this sandbox's own: no service of the host answers there.")
	b.guideLimits(line)
	b.guideRights(line)
	line("\n## What errors mean here\n")
	line("- \"Read-only file system\": the place may be read and not written.")
	line("- \"Permission denied\" for a program: its place may not be executed from.")
	line("- \"No such file or directory\" for a file of the host: it was not shown to this sandbox.")
	line("- \"Operation not permitted\": the system call is refused, see Rights.")
	line("- \"Network is unreachable\", \"Temporary failure in name resolution\": see Network.")
	line("- \"No space left on device\": the scratch space is full, see Files.")
	line("- \"Resource temporarily unavailable\" when a process starts: see Limits.")
	b.guideAsk(line)
	return t.String()
}

// guideFiles tells of the places, most useful first.
func (b *builder) guideFiles(line func(...string)) {
	var write, scratch, run, read []string
	for _, m := range b.mounts {
		p := printable(m.path)
		switch {
		case m.writable && m.host:
			write = append(write, p)
		case m.writable && m.because == "root":
			scratch = append(scratch, p)
		case m.writable:
			write = append(write, p+" (in memory)")
		case m.because != "toolchain":
			read = append(read, p)
		}
		if m.exec {
			run = append(run, p)
		}
	}
	line("## Files\n")
	list := func(what string, places []string) {
		if len(places) > 0 {
			line("- ", what, ": ", strings.Join(places, " "))
		}
	}
	list("read and write", write)
	list("read and write, in memory, "+orDefault(b.spec.Scratch, 256*spec.MiB).String()+" together, gone at the end", scratch)
	list("read", read)
	list("run programs from", run)
	line("- everything else that is here may be read, and not written or run")
	line("- working directory: ", printable(b.workdir()))
}

func (b *builder) guideLimits(line func(...string)) {
	l := b.spec.Limits
	line("\n## Limits\n")
	if l.Memory != 0 {
		line("- memory: ", l.Memory.String(), "; who needs more is killed")
	}
	if n := l.EffectivePids(); n != 0 {
		line("- processes and threads: ", number(n))
	}
	if l.MilliCPUs != 0 {
		line("- processors: ", number(l.MilliCPUs/1000), ".", number(l.MilliCPUs%1000 + 1000)[1:])
	}
	if b.spec.Timeout != 0 {
		line("- time: ", b.spec.Timeout.String(), " from the start, then everything is killed")
	}
	if l.Memory == 0 && b.spec.Timeout == 0 {
		line("- memory and time: not limited for this sandbox")
	}
}

func (b *builder) guideRights(line func(...string)) {
	kept := "without capabilities"
	if set := b.spec.Policy.Kept().Ambient; set != 0 {
		kept = "with the capabilities " + set.String() + " inside the sandbox"
	}
	line("\n## Rights\n\nUser ", number(uint64(b.spec.User.UID)), ", ", kept, ". Refused are: mounting, namespaces (containers, the own")
	line("sandboxes of browsers), raw sockets, devices, tracing across sandboxes, loading kernel")
	line("code, setting the clock, and becoming another user.")
	if p := b.spec.Policy; p != nil && (p.Seccomp != nil || p.Landlock != nil) {
		line("A policy of its own decides about system calls or files here, and may refuse more.")
	}
}

func (b *builder) guideAsk(line func(...string)) {
	line("\n## How to ask for more\n")
	line("Only the person who started this sandbox can allow more, by starting another with more")
	line("flags. Say what is needed and what for, and name the flag of `nucleus run`:\n")
	line("- to read a file or directory of the host: `-v PATH:PATH`; to write it: `-v PATH:PATH:rw`")
	line("- to run programs from it: `-v PATH:PATH:ro,exec`, `--workspace DIR,exec`, `--tmpfs /tmp:1G,exec`")
	line("- more scratch space: `--scratch SIZE`; more memory: `--memory SIZE`")
	line("- more processes: `--pids N`; more time: `--timeout DURATION`")
	line("- a system call or a capability: `--policy FILE`; the network, mounts: no flag allows them")
	if b.spec.Mode != spec.ModeAgent {
		line("- it runs in the mode ", b.spec.Mode.String(), ", which may refuse some of these flags")
	}
	line("\nOutside, `nucleus why PATH` tries what a sandbox may do, and names the flag.")
}

func orDefault(b, otherwise spec.Bytes) spec.Bytes {
	if b == 0 {
		return otherwise
	}
	return b
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// printable is a path on one line. Whoever describes a sandbox may choose any.
func printable(p string) string {
	if strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd || r == '`' }) {
		return strconv.QuoteToASCII(p)
	}
	return p
}
