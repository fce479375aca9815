package plan

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/spec"
)

// ToolchainDirs are the host's directories of programs and libraries. A
// symbolic link among them is made again rather than mounted.
var ToolchainDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"}

// devices are the nodes of a sandbox's /dev that are the host's.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// DevicePaths are the host files that those come from.
func DevicePaths() []string {
	out := make([]string, len(devices))
	for i, d := range devices {
		out[i] = "/dev/" + d
	}
	return out
}

// volume is a host file or directory with its place.
type volume struct {
	source  facts.Path
	name    string // as the user wrote it
	target  string
	write   bool
	exec    bool
	because string
	fd      FD
}

func (v volume) attr() Attr {
	a := noSuidDev
	if !v.write {
		a |= readOnly
	}
	if !v.exec {
		a |= noExec
	}
	return a
}

// volumes are the host paths that the Spec names, parents before children.
func (b *builder) volumes() []volume {
	var out []volume
	add := func(name, target, because string, write, exec bool) {
		out = append(out, volume{source: b.host.Paths[name], name: name, target: path.Clean(target), write: write, exec: exec, because: because, fd: FD(because)})
	}
	if c := b.spec.Context; c != nil {
		add(c.Source, "/context", "context", false, c.Exec)
	}
	if w := b.spec.Workspace; w != nil {
		add(w.Source, "/workspace", "workspace", true, w.Exec)
	}
	for i, v := range b.spec.Volumes {
		add(v.Source, v.Target, fmt.Sprintf("volumes[%d]", i), v.Writable, v.Exec)
	}
	slices.SortStableFunc(out, func(x, y volume) int { return strings.Compare(x.target+"/", y.target+"/") })
	return out
}

// hostTree takes a volume with root's rights, before the sandbox exists. In a
// sandbox with ids of its own, its owner is the sandbox's user: the mount
// translates, the files keep their owner.
func (b *builder) hostTree(v volume) {
	t := HostTree{Source: v.name, As: v.fd, Attr: v.attr()}
	if b.ranged {
		t.IDMap = true
		t.FromUID, t.FromGID = v.source.UID, v.source.GID
		t.ToUID, t.ToGID = b.spec.User.UID, b.spec.User.GID
	}
	b.add(Host, v.because, t)
}

// fill mounts what the Spec asks for, parents before children.
func (b *builder) fill() {
	type place struct {
		target string
		mount  func()
	}
	var places []place
	for _, v := range b.volumes() {
		places = append(places, place{v.target, func() { b.volume(v) }})
	}
	for i, t := range b.spec.Tmpfs {
		places = append(places, place{path.Clean(t.Target), func() { b.tmpfs(t, fmt.Sprintf("tmpfs[%d]", i)) }})
	}
	slices.SortStableFunc(places, func(x, y place) int { return strings.Compare(x.target+"/", y.target+"/") })
	for _, p := range places {
		p.mount()
	}
}

func (b *builder) volume(v volume) {
	dir := v.source.Kind == facts.Dir
	if b.leadsAway(v.target, v.because) || !b.fits(v, dir) {
		return
	}
	if dir {
		b.mkdir(v.target, v.because)
	} else {
		b.touch(v.target, v.because)
	}
	b.child(v.because, MoveMount{From: v.fd, To: v.target})
	b.cover(b.real(v.target))
	b.mounts = append(b.mounts, mountPoint{path: v.target, file: !dir, host: true, writable: v.write, exec: v.exec, because: v.because})
}

// fits refuses a file in a directory's place, and the other way round.
func (b *builder) fits(v volume, dir bool) bool {
	at := b.real(v.target)
	switch {
	case !dir && (v.because == "context" || v.because == "workspace"):
		b.fail(v.because+".source", v.name+" is not a directory", "")
	case !dir && b.dirs[at]:
		b.fail(v.because+".target", fmt.Sprintf("%s is a directory in the sandbox, and %s is not one", v.target, v.name), "choose the file's own place below it")
	case dir && b.files[at]:
		b.fail(v.because+".target", fmt.Sprintf("%s is a file in the sandbox, and %s is a directory", v.target, v.name), "choose another place")
	default:
		return true
	}
	return false
}

// leadsAway refuses a place that a link of the root leads to one of the
// sandbox's own.
func (b *builder) leadsAway(target, because string) bool {
	at := b.real(target)
	if at == target {
		return false
	}
	for _, own := range []string{"/proc", "/dev", "/sys"} {
		if at == own || strings.HasPrefix(at, own+"/") {
			b.fail(because+".target", fmt.Sprintf("%s is %s in the sandbox, by a link of its root", target, at), "choose another place")
			return true
		}
	}
	return false
}

// inMount reports whether dir is inside something of the host's, where the plan
// makes nothing: it must be there.
func (b *builder) inMount(dir string) bool {
	for _, m := range slices.Backward(b.mounts) { // the last one is on top
		if !m.file && strings.HasPrefix(dir, m.path+"/") {
			return m.host
		}
	}
	return false
}

// cover forgets what was made below a place that something is mounted on.
func (b *builder) cover(place string) {
	below := func(p string) bool { return strings.HasPrefix(p, place+"/") }
	maps.DeleteFunc(b.dirs, func(p string, _ bool) bool { return below(p) })
	maps.DeleteFunc(b.files, func(p string, _ bool) bool { return below(p) })
	maps.DeleteFunc(b.links, func(p, _ string) bool { return below(p) })
}

// real is where a path of the new root leads to by the links made so far. The
// host's own links are among them, so a loop must end: it is left as it is.
func (b *builder) real(p string) string {
	at := p
	for range 40 {
		next := b.follow(at)
		if next == at {
			return at
		}
		at = next
	}
	return p
}

// follow replaces the first link in a path.
func (b *builder) follow(p string) string {
	for i := 1; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		target, ok := b.links[p[:i]]
		if !ok {
			continue
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(p[:i]), target)
		}
		return path.Join("/", target, p[i:])
	}
	return p
}

// mkdir makes a directory and its missing parents in the new root.
func (b *builder) mkdir(dir, because string) {
	dir = b.real(dir)
	if b.dirs[dir] || b.inMount(dir) {
		return
	}
	if b.files[dir] {
		b.fail(because, dir+" is a file in the sandbox, and something is to be mounted below it", "choose another place")
		return
	}
	if parent := path.Dir(dir); parent != dir {
		b.mkdir(parent, because)
	}
	b.dirs[dir] = true
	b.child(because, Mkdir{Path: dir, Mode: 0o755})
}

func (b *builder) touch(file, because string) {
	file = b.real(file)
	if b.inMount(file) || b.dirs[file] || b.files[file] {
		return
	}
	b.mkdir(path.Dir(file), because)
	b.files[file] = true
	b.child(because, Touch{Path: file})
}

// link makes a link where the Spec does not put something else.
func (b *builder) link(target, at, because string) {
	if b.specFills(at) {
		return
	}
	b.mkdir(path.Dir(at), because)
	b.links[at] = target
	b.child(because, MakeLink{Target: target, Path: at})
}

// toolchainSources takes hold of the host's programs, by paths that only root can change.
func (b *builder) toolchainSources() {
	for _, d := range ToolchainDirs {
		if b.host.Paths[d].Kind == facts.Dir {
			b.child("toolchain", OpenTree{Source: d, Recursive: true, As: FD(d)},
				SetAttr{FD: FD(d), Attr: noSuidDev | readOnly, Recursive: true})
		}
	}
	hold := func(p string) {
		b.child("toolchain", OpenTree{Source: p, As: FD(p)}, SetAttr{FD: FD(p), Attr: noSuidDev | noExec | readOnly})
	}
	for _, p := range EtcDirs {
		if b.host.Paths[p].Kind == facts.Dir {
			hold(p)
		}
	}
	for _, p := range EtcFiles {
		if f := b.host.Paths[p]; f.Kind == facts.File && f.Size > MaxCopy {
			hold(p)
		}
	}
}

func (b *builder) toolchain() {
	for _, d := range ToolchainDirs {
		switch p := b.host.Paths[d]; p.Kind {
		case facts.Dir:
			b.mkdir(d, "toolchain")
			b.child("toolchain", MoveMount{From: FD(d), To: d})
			b.mounts = append(b.mounts, mountPoint{path: d, host: true, exec: true, because: "toolchain"})
		case facts.Symlink:
			b.link(p.Target, d, "toolchain")
		}
	}
}

// dev plans a /dev that works for every user.
func (b *builder) dev() {
	if !b.device("null") { // it also covers what a sandbox must not read
		b.fail("dev", "there is no device /dev/null", "mount a devtmpfs at /dev, or make it with mknod(1)")
	}
	b.mkdir("/dev", "dev")
	for _, d := range devices {
		if b.device(d) {
			b.touch("/dev/"+d, "dev")
			b.child("dev", MoveMount{From: FD("dev/" + d), To: "/dev/" + d})
		}
	}
	b.mkdir("/dev/pts", "dev")
	data := "newinstance,ptmxmode=0666,mode=0620"
	if b.ranged || !b.owned {
		data += ",gid=5"
	}
	b.child("dev", MountFS{Type: "devpts", Target: "/dev/pts", Flags: abi.MSNoSuid | abi.MSNoExec, Data: data})
	b.link("pts/ptmx", "/dev/ptmx", "dev")
	b.link("/proc/self/fd", "/dev/fd", "dev")
	b.link("/proc/self/fd/0", "/dev/stdin", "dev")
	b.link("/proc/self/fd/1", "/dev/stdout", "dev")
	b.link("/proc/self/fd/2", "/dev/stderr", "dev")
}

func (b *builder) device(d string) bool { return b.host.Paths["/dev/"+d].Kind == facts.Device }

// MaskedPaths are the files of /proc that a sandbox must not read, as the OCI
// runtimes have them.
var MaskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
}

// RootMaskedPaths are more of them, which only the host's root could read:
// masked where the sandbox's root is that.
var RootMaskedPaths = []string{"/proc/kallsyms", "/proc/kmsg", "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags"}

// ReadOnlyPaths are the files of /proc that a sandbox must not write.
var ReadOnlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// proc attaches the sandbox's own proc and covers what it should not show. The
// covers come from the sandbox's own root and /dev/null, never from proc.
func (b *builder) proc() {
	if b.host.Paths["/proc/sys"].Kind != facts.Dir {
		// The sandbox's own has it all, whatever this one shows.
		b.fail("proc", "the host's /proc does not show what has to be covered in the sandbox's (it is mounted with subset=pid, or something lies over /proc/sys)",
			"run it where /proc is whole; in a systemd service, without ProcSubset=pid")
		return
	}
	b.mkdir("/proc", "proc")
	b.child("proc", MoveMount{From: "proc", To: "/proc"})
	empty, masked := false, MaskedPaths
	if !b.owned {
		masked = append(slices.Clone(masked), RootMaskedPaths...)
	}
	for _, p := range masked {
		switch b.host.Paths[p].Kind {
		case facts.Dir:
			if !empty {
				b.child("proc", Mkdir{Path: "/dev/.empty", Mode: 0o555})
				empty = true
			}
			b.child("proc", OpenTree{Source: "/dev/.empty", As: FD("mask " + p)}, SetAttr{FD: FD("mask " + p), Attr: noSuidDev | noExec | readOnly},
				MoveMount{From: FD("mask " + p), To: p})
		case facts.File, facts.Device: // a device where somebody around us has masked it already
			b.child("proc", OpenTree{Source: "/dev/null", As: FD("mask " + p)}, MoveMount{From: FD("mask " + p), To: p})
		}
	}
	for _, p := range ReadOnlyPaths {
		if b.host.Paths[p].Kind != "" {
			b.child("proc", OpenTree{Source: p, As: FD("ro " + p)}, SetAttr{FD: FD("ro " + p), Attr: noSuidDev | noExec | readOnly},
				MoveMount{From: FD("ro " + p), To: p})
		}
	}
}

// scratch plans the writable places, which share one bounded memory file
// system with the root: they become mounts of their own before the root is
// made made read-only. A place that the Spec fills itself is left to it.
func (b *builder) scratch() {
	places := []struct {
		path string
		mode uint32
	}{{"/tmp", 0o1777}, {"/dev/shm", 0o1777}, {b.home(), 0o700}}
	for _, p := range places {
		if b.specFills(p.path) {
			continue
		}
		b.mkdir(path.Dir(p.path), "root")
		b.dirs[p.path] = true
		fd := FD("scratch " + p.path)
		b.child("root", Mkdir{Path: p.path, Mode: p.mode}, OpenTree{Source: p.path, As: fd},
			SetAttr{FD: fd, Attr: noSuidDev | noExec}, MoveMount{From: fd, To: p.path})
		b.mounts = append(b.mounts, mountPoint{path: p.path, writable: true, because: "root"})
	}
	if b.rootHas("/var") {
		b.mkdir("/run", "root")
		return // with its own links in it
	}
	b.mkdir("/var", "root")
	b.mkdir("/run", "root")
	b.link("/tmp", "/var/tmp", "root")
	b.link("/run", "/var/run", "root")
}

// specFills reports whether the Spec mounts something at p itself.
func (b *builder) specFills(p string) bool {
	for _, t := range b.spec.Tmpfs {
		if path.Clean(t.Target) == p {
			return true
		}
	}
	return slices.ContainsFunc(b.volumes(), func(v volume) bool { return v.target == p })
}

// inodesFor is how many files a memory file system of that size may have. Empty
// ones take nothing of it, but about 1 KiB each of the kernel's memory: one for
// each page of the size bounds that to a quarter more.
func inodesFor(size spec.Bytes) spec.Bytes { return max(size/(4*spec.KiB), 1024) }

func (b *builder) tmpfs(t spec.Tmpfs, because string) {
	target, size := path.Clean(t.Target), t.Size
	if size == 0 {
		size = 64 * spec.MiB
	}
	if b.leadsAway(target, because) {
		return
	}
	b.mkdir(target, because)
	flags := uint64(abi.MSNoSuid | abi.MSNoDev)
	if !t.Exec {
		flags |= abi.MSNoExec
	}
	b.child(because, MountFS{Type: "tmpfs", Target: target, Flags: flags, Data: fmt.Sprintf("mode=1777,size=%d,nr_inodes=%d", size, inodesFor(size))})
	b.cover(b.real(target))
	b.mounts = append(b.mounts, mountPoint{path: target, writable: true, exec: t.Exec, because: because})
}
