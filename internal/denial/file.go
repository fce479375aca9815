package denial

import (
	"path"
	"strings"

	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/spec"
)

// file explains what became of a call about a file, as far as that follows from
// what the kernel said of the path.
func (j *Judge) file(d Denial, c Call) (Denial, bool) {
	if !c.Seen.Asked {
		return d, false
	}
	d.Inferred = true
	name := c.Path
	if c.Second != "" && !strings.HasPrefix(c.Name, "symlink") {
		name = c.Second
	}
	what, creates := does(c)
	d.What, d.Object = what, name
	switch {
	case !c.Seen.Exists && !creates, !c.Seen.Exists && !c.Seen.Parent:
		return j.absent(d, c, name)
	case c.Exec && c.Seen.NoExec:
		return j.mounted(d, real(c, name), "EACCES", true), true
	case c.Change && c.Seen.ReadOnly && !c.Seen.Special && changes(c, creates):
		return j.mounted(d, real(c, name), "EROFS", false), true
	case c.Change && !changes(c, creates):
		return d, false
	}
	return j.ruled(d, c)
}

// real is where a path leads to, if the kernel said so.
func real(c Call, name string) string {
	if c.Seen.Real != "" {
		return c.Seen.Real
	}
	return name
}

// Flags of open(2), which are the same on the machines that we know.
const (
	oAccess = 3
	oCreat  = 0o100
	oExcl   = 0o200
	oTrunc  = 0o1000
)

// does says what a call does, and whether it makes something new.
func does(c Call) (what string, creates bool) {
	name := strings.TrimSuffix(c.Name, "at")
	switch {
	case c.Exec:
		return "execute", false
	case name == "mkdir":
		return "make the directory", true
	case name == "mknod":
		return "make", true
	case strings.HasPrefix(name, "symlink"):
		return "make the link", true
	case strings.HasPrefix(name, "link"):
		return "make the link", true
	case name == "unlink", name == "rmdir":
		return "remove", false
	case strings.HasPrefix(name, "rename"):
		return "rename to", true
	case c.Name == "creat":
		return "write", true
	case strings.HasPrefix(name, "open"):
		flags, known := openFlags(c)
		if !c.Change {
			return "read", false
		}
		return "write", known && flags&oCreat != 0 || !known
	case strings.HasPrefix(name, "chmod"), strings.HasPrefix(name, "fchmod"):
		return "change the mode of", false
	case strings.Contains(name, "chown"):
		return "change the owner of", false
	case strings.Contains(name, "utime"):
		return "change the times of", false
	case name == "truncate":
		return "cut", false
	case c.Change:
		return "change", false
	}
	return "use", false
}

// openFlags are the flags of an open; those of openat2 lie behind a pointer.
func openFlags(c Call) (uint64, bool) {
	switch c.Name {
	case "open":
		return c.Args[1], true
	case "openat":
		return c.Args[2], true
	}
	return 0, false
}

// changes reports whether the call changes something, as its path is now: what
// is to be made and exists is another error, or none.
func changes(c Call, creates bool) bool {
	flags, known := openFlags(c)
	switch {
	case known && c.Seen.Exists && flags&(oCreat|oExcl) == oCreat|oExcl: // EEXIST
		return false
	case known && c.Seen.Exists:
		return flags&(oAccess|oTrunc) != 0
	case strings.HasPrefix(c.Name, "rename"):
		return true
	case creates && !strings.HasPrefix(c.Name, "open") && c.Name != "creat":
		return !c.Seen.Exists // EEXIST
	}
	return true
}

// mounted explains what a mount forbids.
func (j *Judge) mounted(d Denial, at, errno string, exec bool) Denial {
	d.Layer, d.Errno = Mount, errno
	p, ok := j.place(at)
	if exec {
		d.Rule = "nothing in " + Clean(p.Path) + " may be executed"
		d.Say = "Programs in this place cannot be executed; run it through its interpreter, or from a place that the guide " + plan.GuidePath + " names."
	} else {
		d.Say = "This place is read-only; write to another one that the guide " + plan.GuidePath + " names."
	}
	switch {
	case !ok && exec:
		d.Rule = "nothing in the sandbox's own root may be executed"
		d.Otherwise = "run it from a --workspace, a volume or a --tmpfs with exec"
	case !ok && within(at, "/proc"):
		d.Rule = "what would change the kernel or other processes is read-only in /proc"
	case !ok:
		d.Rule, d.Otherwise = j.ownRoot()
		if dir := top(at, d.What == "make the directory"); dir != "" {
			d.Allow = flag("--tmpfs ", dir)
		}
	case p.Because == "toolchain":
		d.Rule = "the host's programs and libraries in " + Clean(p.Path) + " are read-only in every sandbox"
		d.Otherwise = "nothing makes them writable: install into /workspace, the home directory or a --tmpfs, or on the host"
	case p.Because == "rootfs":
		d.Rule, d.Otherwise = j.ownRoot()
	case p.Because == "root": // scratch
		d.Allow = flag("--tmpfs ", p.Path, ":"+scratch(j.spec).String(), ",exec")
	default:
		j.explainPlace(&d, p, exec)
	}
	return d
}

// ownRoot says that the root is read-only, and what to do.
func (j *Judge) ownRoot() (rule, otherwise string) {
	rule, otherwise = "the sandbox's own root is read-only", "write to /tmp, the home directory or a --workspace"
	if r := j.spec.Rootfs; r != nil {
		rule = "the root (--rootfs " + Clean(r.Source) + ") is read-only in every sandbox"
	}
	return rule, otherwise
}

// explainPlace explains a place that the Spec names.
func (j *Judge) explainPlace(d *Denial, p plan.Place, exec bool) {
	source := j.source(p.Because)
	if !exec {
		d.Rule = "the volume " + Clean(p.Path) + " is read-only"
	}
	i, tmpfs := index(p.Because, "tmpfs")
	switch {
	case tmpfs && i < len(j.spec.Tmpfs):
		t := j.spec.Tmpfs[i]
		d.Allow = flag("--tmpfs ", p.Path, ":"+size(t.Size, 64*spec.MiB).String(), ",exec")
	case p.Because == "context" && exec:
		d.Allow = flag("--context ", source, ",exec")
	case p.Because == "workspace":
		d.Allow = flag("--workspace ", source, ",exec")
	case p.Because == "context":
		d.Rule = "the context is read-only"
		d.Allow = flag("--workspace ", source)
		d.Otherwise = "its place is /workspace then"
	case exec && p.Writable:
		d.Allow = flag("-v ", source, ":", p.Path, ":rw,exec")
	case exec:
		d.Allow = flag("-v ", source, ":", p.Path, ":ro,exec")
	case p.Exec:
		d.Allow = flag("-v ", source, ":", p.Path, ":rw,exec")
	default:
		d.Allow = flag("-v ", source, ":", p.Path, ":rw")
	}
}

// allowed is what the rules of a layer allow at a path: what they allow at it
// and at all that it is in.
func allowed(l landlock.Ruleset, at string) landlock.Access {
	var sum landlock.Access
	for _, r := range l.Rules {
		if within(at, r.Path) {
			sum |= r.Allow
		}
	}
	return sum
}

// absent explains a path that is not in the sandbox, if it is one of the host.
func (j *Judge) absent(d Denial, c Call, name string) (Denial, bool) {
	switch {
	case within(name, "/proc"):
		return d, false // processes come and go
	case within(name, "/sys"), within(name, "/dev"):
		return j.kernels(d, name)
	}
	mode := "ro"
	switch {
	case c.Exec:
		mode = "ro,exec"
	case c.Change:
		mode = "rw"
	}
	for _, on := range j.hostNames(name) {
		at, show := name, on
		_, ok := j.host.has(on)
		if !ok && c.Change && !c.Seen.Parent { // a new file in a directory of the host
			at, show = path.Dir(name), path.Dir(on)
			dir, has := j.host.has(show)
			ok = dir && has && show != "/"
		}
		if !ok {
			continue
		}
		what := d.What
		d = j.missing(d, show, at, mode)
		if at != name {
			d.Rule = "its directory exists on the host and is not in the sandbox, which sees only what it is given"
		}
		d.What, d.Object = what, name
		return d, true
	}
	return d, false
}

// kernels explains what a sandbox never has of the kernel's and the machine's.
func (j *Judge) kernels(d Denial, name string) (Denial, bool) {
	d.Layer, d.Errno, d.Inferred, d.Minor, d.Object = Missing, "ENOENT", true, true, name
	d.Rule, d.Otherwise = "a sandbox has no /sys", "no flag shows it"
	if within(name, "/dev") {
		d.Rule = "the sandbox's /dev is its own: null zero full random urandom tty ptmx pts shm fd and the standard streams"
	}
	d.Say = "This belongs to the machine and is in no sandbox; do without it."
	_, ok := j.host.has(name)
	return d, ok
}

// hostNames are the paths of the host that a program may mean by one of the
// sandbox: the same, and for its home directory the caller's.
func (j *Judge) hostNames(name string) []string {
	names := []string{name}
	if home := home(j.spec); j.host.Home != "" && j.host.Home != home && within(name, home) && name != home {
		names = append(names, path.Join(j.host.Home, strings.TrimPrefix(name, home)))
	}
	if p, ok := j.place(name); ok && p.Host { // it would be inside something that is shown, and is not
		return names[1:]
	}
	return names
}

// missing says how to show a file of the host.
func (j *Judge) missing(d Denial, on, at, mode string) Denial {
	d.Layer, d.Errno, d.Inferred, d.Object = Missing, "ENOENT", true, at
	d.Rule = "it exists on the host and is not in the sandbox, which sees only what it is given"
	d.Allow = flag("-v ", on, ":", at, ":"+mode)
	d.Say = "This file exists on the host and was not given to this sandbox. Work without it, or say why it is needed."
	for _, quiet := range [...]string{"/etc/", "/run/", "/var/"} {
		d.Minor = d.Minor || strings.HasPrefix(at, quiet)
	}
	base := path.Base(at)
	if strings.HasPrefix(base, ".") && !hasWord(".gitconfig .git-credentials .npmrc .netrc .pypirc .env .ssh .aws .kube", base) || strings.Contains(at, "/.config/") || strings.Contains(at, "/.cache/") { // start-up files, which programs do without
		d.Minor = true
	}
	for _, secret := range [...]string{"/.ssh/", "/.gnupg/", "/.aws/", "/.kube/", "/.netrc", "/.docker/"} {
		if strings.Contains(at, secret) {
			d.Minor, d.Otherwise = false, "it holds secrets: whatever runs inside could read and send them on as soon as it can"
		}
	}
	if j.host.Unreadable != nil && j.host.Unreadable(on) {
		d.Allow, d.Otherwise = "", "no flag shows it: who starts the sandbox may not read it either"
	}
	return d
}

// flag writes a flag with paths, or nothing if one of them cannot be written so.
func flag(name string, parts ...string) string {
	for _, p := range parts {
		separator := strings.HasPrefix(p, ":") || strings.HasPrefix(p, ",")
		if !separator && (strings.ContainsAny(p, ":,") || p == "") {
			return ""
		}
	}
	q, ok := quote(strings.Join(parts, ""))
	if !ok {
		return ""
	}
	return name + q
}

// top is the directory that could be made writable for a path: not one that the
// sandbox furnishes itself, nor a file's own name.
func top(at string, isDir bool) string {
	for _, own := range [...]string{"/etc", "/dev", "/proc", "/run/nucleus"} {
		if within(at, own) {
			return ""
		}
	}
	switch dir := path.Dir(at); {
	case isDir:
		return at
	case dir == "/":
		return ""
	default:
		return dir
	}
}

func size(b, otherwise spec.Bytes) spec.Bytes {
	if b == 0 {
		return otherwise
	}
	return b
}

func scratch(s *spec.Sandbox) spec.Bytes { return size(s.Scratch, 256*spec.MiB) }

// home is the home directory inside.
func home(s *spec.Sandbox) string {
	switch {
	case s.User.UID == 0:
		return "/root"
	case s.User.Name != "":
		return "/home/" + s.User.Name
	}
	return "/home/user"
}
