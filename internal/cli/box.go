package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/spec"
)

// boxFlags, limitFlags and moreFlags describe a sandbox: those of `nucleus run`
// and `nucleus plan`.
var boxFlags = []flag{
	{group: "Files", name: "context", arg: "DIR[,exec]", choice: "<dir>", field: "context",
		help: "Show a host directory read-only at /context; with ,exec its programs may be executed.",
		set:  func(o *options, v string) (err error) { o.box.Context, err = bind(v); return err }},
	{name: "workspace", arg: "DIR[,exec]", choice: "<dir>", field: "workspace",
		help: "Share a host directory read-write at /workspace, which becomes the working directory.",
		set:  func(o *options, v string) (err error) { o.box.Workspace, err = bind(v); return err }},
	{name: "volume", short: "v", arg: "SRC:DST[:ro|rw][,exec]", choice: "<dir>", field: "volumes",
		help: "Show a host file or directory at DST. Read-only and not executable unless rw and exec say so. Repeatable.",
		set: func(o *options, v string) error {
			vol, err := volume(v)
			o.box.Volumes = append(o.box.Volumes, vol)
			return err
		}},
	{name: "tmpfs", arg: "DST[:SIZE][,exec]", field: "tmpfs",
		help: "Put an empty writable directory in memory at DST, of 64M unless SIZE is given. Repeatable.",
		set: func(o *options, v string) error {
			t, err := tmpfs(v)
			o.box.Tmpfs = append(o.box.Tmpfs, t)
			return err
		}},
	{name: "scratch", arg: "SIZE", field: "scratch",
		help: "Bound what may be written to /tmp, the home directory and /dev/shm together (256M).",
		set:  func(o *options, v string) (err error) { o.box.Scratch, err = size(v); return err }},
	{name: "rootfs", arg: "DIR", choice: "<dir>", field: "rootfs",
		help: "Make this host directory the root, read-only, instead of the host's programs. Parts of /nix/store that its file .nucleus-rootfs-store-paths lists belong to it.",
		set:  func(o *options, v string) (err error) { o.root().Source, err = given(v); return err }},
	{name: "verify-rootfs-attestation", field: "rootfs.attested",
		help: "Compare the root with its manifest before anything starts; see nucleus rootfs.",
		set:  func(o *options, _ string) error { o.root().Attested = true; return nil }},
	{name: "rootfs-manifest", arg: "FILE", choice: "<file>", field: "rootfs.manifest",
		help: "Compare it with this manifest (the one in DIR).",
		set:  func(o *options, v string) (err error) { o.root().Manifest, err = given(v); return err }},
	{name: "rootfs-sha256", arg: "HEX", field: "rootfs.sha256",
		help: "Compare it with a manifest that has this digest, as nucleus rootfs attest printed it.",
		set:  func(o *options, v string) (err error) { o.root().SHA256, err = given(v); return err }},
	{name: "no-toolchain", field: "toolchain",
		help: "Do not show the host's programs and libraries (/usr, /bin, /lib, a made-up /etc).",
		set:  func(o *options, _ string) error { o.noToolchain = true; return nil }},

	{group: "Program", name: "env", short: "e", arg: "KEY[=VALUE]", field: "env",
		help: "Set a variable; without a value it is the caller's, if that has one. Nothing else of the caller's environment is passed on but TERM and LANG. Repeatable.",
		set:  setEnv},
	{name: "workdir", short: "w", arg: "DIR", field: "workdir",
		help: "Start in this directory of the sandbox (/workspace if there is one, else /).",
		set: func(o *options, v string) (err error) {
			o.box.Workdir, err = given(v)
			return err
		}},
	{name: "user", short: "u", arg: "UID|NAME[:GID|GROUP]", field: "user",
		help: "Be this user inside (root, without any capability). Names are the host's; a number is also its group unless one is given.",
		set:  func(o *options, v string) (err error) { o.userArg, err = given(v); return err }},
	{name: "group", arg: "GID|GROUP",
		help: "Be in this group inside.",
		set:  func(o *options, v string) (err error) { o.groupArg, err = given(v); return err }},
	{name: "tty", short: "t", field: "terminal",
		help: "Give the program a terminal of its own, joined to this one.",
		set:  func(o *options, _ string) error { o.box.Terminal = true; return nil }},
	{name: "interactive", short: "i",
		help: "Accepted for habit's sake: standard input is always passed on, but to what is detached.",
		set:  func(*options, string) error { return nil }},
	{name: "timeout", arg: "DURATION", field: "timeout",
		help: "Kill the sandbox after this long, such as 90s, 5m or a number of seconds, and exit with 124.",
		set:  func(o *options, v string) (err error) { o.box.Timeout, err = duration(v); return err }},
}

// limitFlags are the limits that `nucleus update` can change.
var limitFlags = []flag{
	{group: "Limits", name: "memory", short: "m", arg: "SIZE", field: "limits.memory",
		help: "Bound memory, such as 512M; what needs more is killed. Swap is off unless --memory-swap allows it.",
		set:  func(o *options, v string) (err error) { o.box.Limits.Memory, err = size(v); return err }},
	{name: "memory-swap", arg: "SIZE", field: "limits.memory_swap",
		help: "Bound memory and swap together; at least as much as --memory.",
		set:  func(o *options, v string) (err error) { o.box.Limits.MemorySwap, err = size(v); return err }},
	{name: "cpus", arg: "N", field: "limits.milli_cpus",
		help: "Bound processor time, in processors, such as 1.5.",
		set:  func(o *options, v string) (err error) { o.box.Limits.MilliCPUs, err = milli(v); return err }},
	{name: "cpu-weight", arg: "N", field: "limits.cpu_weight",
		help: "Set the share of busy processors, 1 to 10000 (100).",
		set: func(o *options, v string) (err error) {
			if o.box.Limits.CPUWeight, err = number(v, 10000); err == nil && o.box.Limits.CPUWeight == 0 {
				err = fmt.Errorf("%s is less than 1", quote(v))
			}
			return err
		}},
	{name: "pids", arg: "N", field: "limits.pids",
		help: "Bound processes and threads (512); 0 or unlimited: no bound.",
		set:  setPids},
	{name: "io-limit", arg: "\"MAJ:MIN KEY=N ...\"", field: "limits.io",
		help: "Bound a block device; the keys are rbps and wbps (bytes a second), riops and wiops (operations a second). Repeatable.",
		set: func(o *options, v string) error {
			l, err := ioLimit(v)
			o.box.Limits.IO = append(o.box.Limits.IO, l)
			return err
		}},
}

var moreFlags = []flag{
	{name: "memlock", arg: "SIZE", field: "limits.memlock",
		help: "Bound the memory that each process may lock (64K).",
		set:  func(o *options, v string) (err error) { o.box.Limits.Memlock, err = size(v); return err }},

	{group: "Sandbox", name: "name", arg: "NAME", field: "name",
		help: "Name the sandbox: nucleus ps lists it and other commands find it by this name. Without a name, one that is not detached is not listed.",
		set:  func(o *options, v string) (err error) { o.box.Name, err = given(v); return err }},
	{name: "hostname", arg: "NAME", field: "hostname",
		help: "Set the host name inside (the sandbox's name).",
		set:  func(o *options, v string) (err error) { o.box.Hostname, err = given(v); return err }},
	{name: "userns", arg: "MODE", choice: "private host", field: "userns",
		help: "Use private, a user namespace of the sandbox's own, or host, which makes root inside root outside: weaker, and said aloud.",
		set:  setUserns},
	{name: "time-namespace", field: "time_namespace",
		help: "Give the sandbox clocks of its own.",
		set:  func(o *options, _ string) error { o.box.TimeNamespace = true; return nil }},
	{name: "allow-degraded", arg: "FEATURE[,...]", choice: spec.DegradeLandlock + " " + spec.DegradeCgroup, field: "degrade",
		help: "Start although this machine cannot enforce a feature: landlock, cgroup.",
		set:  setDegrade},
	{name: "service-mode", arg: "MODE", choice: "agent strict-agent production", field: "mode",
		help: "Demand that more holds, or the sandbox does not start: agent, strict-agent or production (agent). nucleus modes lists what each demands.",
		set:  setMode},
	{name: "strict-agent",
		help: "The same as --service-mode strict-agent.",
		set:  func(o *options, _ string) error { o.box.Mode = spec.ModeStrictAgent; return nil }},
	{name: "require-kernel-lockdown", arg: "STATE", choice: "integrity confidentiality", field: "lockdown",
		help: "Start only if the kernel is locked down, so that root cannot change it: integrity, or confidentiality, which includes it.",
		set: func(o *options, v string) error {
			state, err := oneOf(v, string(spec.LockdownIntegrity), string(spec.LockdownConfidentiality))
			o.box.Lockdown = spec.Lockdown(state)
			return err
		}},
	{name: "trust-level", arg: "LEVEL", choice: "trusted untrusted", field: "trust",
		help: "Say how far the program is trusted: trusted, or untrusted, which demands a kernel of the sandbox's own and is refused as long as there is none.",
		set: func(o *options, v string) error {
			level, err := oneOf(v, string(spec.TrustTrusted), string(spec.TrustUntrusted))
			o.box.Trust = spec.Trust(level)
			return err
		}},

	{group: "Output", name: "report", arg: "text|json", optional: true, choice: "text json",
		help: "Say on standard error what the kernel enforces once the program runs.",
		set: func(o *options, v string) (err error) {
			o.report, err = oneOf(v, "", "text", "json")
			if v == "" {
				o.report = "text"
			}
			return err
		}},
	{name: "log", arg: "FILE", choice: "<file>",
		help: "Append a log of what Nucleus does to a file; - is standard error.",
		set:  func(o *options, v string) (err error) { o.logFile, err = given(v); return err }},
	{name: "log-format", arg: "text|json", choice: "text json",
		help: "Choose the form of the log (text).",
		set:  func(o *options, v string) (err error) { o.logFormat, err = oneOf(v, "text", "json"); return err }},
	{name: "log-level", arg: "LEVEL", choice: "debug info warn",
		help: "Log from this level on: debug, info or warn (info).",
		set: func(o *options, v string) (err error) {
			o.logLevel, err = oneOf(v, "debug", "info", "warn")
			return err
		}},
}

// given refuses an empty value, which to the library means the default.
func given(v string) (string, error) {
	if v == "" {
		return "", errors.New("the value is empty")
	}
	return v, nil
}

func oneOf(v string, known ...string) (string, error) {
	if !slices.Contains(known, v) {
		return "", fmt.Errorf("%s is not one of %s", quote(v), strings.TrimPrefix(strings.Join(known, ", "), ", "))
	}
	return v, nil
}

// root is the root that the flags are about. A root without a place is an error
// of the description.
func (o *options) root() *spec.Rootfs {
	if o.box.Rootfs == nil {
		o.box.Rootfs = &spec.Rootfs{}
	}
	return o.box.Rootfs
}

// setEnv takes K=V, or K for the caller's value of it.
func setEnv(o *options, v string) error {
	if v == "" {
		return errors.New("the value is empty")
	}
	if !strings.Contains(v, "=") {
		value, ok := os.LookupEnv(v)
		if !ok {
			return nil
		}
		v += "=" + value
	}
	o.box.Env = append(o.box.Env, v)
	return nil
}

func setPids(o *options, v string) error {
	if v == "0" || v == "unlimited" {
		o.box.Limits.Pids = spec.Unlimited
		return nil
	}
	n, err := number(v, 4194304)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s is not a number", quote(v))
	}
	o.box.Limits.Pids = int64(n)
	return err
}

func setUserns(o *options, v string) error {
	mode, err := oneOf(v, "private", "host")
	if o.box.Userns = spec.UsernsPrivate; mode == "host" {
		o.box.Userns = spec.UsernsHost
	}
	return err
}

func setMode(o *options, v string) error {
	mode, err := oneOf(v, spec.ModeAgent.String(), spec.ModeStrictAgent.String(), spec.ModeProduction.String())
	if o.box.Mode = spec.Mode(mode); mode == spec.ModeAgent.String() {
		o.box.Mode = spec.ModeAgent
	}
	return err
}

func setDegrade(o *options, v string) error {
	for f := range strings.SplitSeq(v, ",") {
		if _, err := oneOf(f, spec.DegradeLandlock, spec.DegradeCgroup); err != nil {
			return err
		}
		o.box.Degrade = append(o.box.Degrade, f)
	}
	return nil
}

// sandbox completes the description from flags that depend on each other.
func (c *call) sandbox() (*spec.Sandbox, error) {
	o := &c.opts
	if len(c.args) == 0 {
		return nil, usageError("no program is given; see nucleus " + c.cmd.name + " --help")
	}
	if c.args[0] == "" {
		return nil, usageError("the program's name is empty")
	}
	if o.logFile == "" && (o.logFormat != "" || o.logLevel != "") {
		return nil, usageError("--log-format and --log-level need --log FILE")
	}
	box := o.box
	box.Toolchain = !o.noToolchain && o.box.Rootfs == nil
	if o.userArg != "" || o.groupArg != "" {
		u, err := identity(o.userArg, o.groupArg)
		if err != nil {
			return nil, usageError(err.Error())
		}
		box.User = u
	}
	var err error
	if box.Policy, err = c.loadPolicy(); err != nil {
		return nil, err
	}
	box.Env = append(callerEnv(), box.Env...)
	return &box, nil
}

// callerEnv is what programs need to know about the person before them: what
// the terminal can do and which language to speak. Values that are not plain
// words are left out.
func callerEnv() (env []string) {
	for _, key := range [...]string{"TERM", "LANG"} {
		if v := os.Getenv(key); v != "" && len(v) <= 64 && !strings.ContainsFunc(v, unusual) {
			env = append(env, key+"="+v)
		}
	}
	return env
}

func unusual(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._+@-", r))
}
