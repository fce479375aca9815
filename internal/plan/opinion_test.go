package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/spec"
)

// secondOpinion reads a plan knowing what was asked for, and says what is wrong
// with it. It shares no code with Check: where the two disagree, one is wrong.
func secondOpinion(s *spec.Sandbox, h *facts.Host, p *Plan) []string {
	o := &opinion{spec: s, host: h, plan: p, fds: map[FD]*source{}, files: map[string]string{"/": "dir"}}
	for i, st := range p.Steps {
		o.at, o.step = i, st
		o.place()
		o.look(st.Do)
	}
	o.whole()
	return o.wrong
}

type opinion struct {
	spec *spec.Sandbox
	host *facts.Host
	plan *Plan

	at      int
	step    Step
	pivoted bool
	fds     map[FD]*source
	files   map[string]string // of the new root: "dir", "file", "mount", "link to"
	wrong   []string
}

// source is where a mount comes from and what holds for it.
type source struct {
	path    string // on the host, or of the new root
	host    bool
	device  bool
	attr    Attr
	attrSet bool
	used    bool
}

func (o *opinion) bad(format string, args ...any) {
	o.wrong = append(o.wrong, fmt.Sprintf("step %d, %s %s: ", o.at, o.step.Do.Call(), o.step.Do)+fmt.Sprintf(format, args...))
}

// place checks who performs a step, by the step's type.
func (o *opinion) place() {
	want := Child
	switch o.step.Do.(type) {
	case ReserveIDs, OwnPipes, Attest, CgroupCreate, CgroupWrite, MakeInit, HostTree:
		want = Host
	case CloneInto:
		want = Clone
	case WriteMap, DenySetgroups, CgroupAdd:
		want = Gate
	case Seccomp, Exec:
		want = Init
	}
	if o.step.Where != want {
		o.bad("is performed by %s, want %s", o.step.Where, want)
	}
}

func (o *opinion) look(a Action) {
	switch a := a.(type) {
	case HostTree:
		o.make(a.As, &source{path: a.Source, host: true, attr: a.Attr, attrSet: true})
	case OpenTree:
		src := &source{path: a.Source, host: !o.pivoted}
		src.device = o.host.Paths[a.Source].Kind == facts.Device && strings.HasPrefix(a.Source, "/dev/") && !a.Recursive
		if !src.host && !src.device && o.kind(a.Source) == "" && !strings.HasPrefix(a.Source, "/proc/") {
			o.bad("the new root has no such place")
		}
		o.make(a.As, src)
	case NewMount:
		o.make(a.As, &source{path: "(" + a.Type + ")", attr: a.Attr, attrSet: true})
	case SetAttr:
		if a.FD != "" {
			if src := o.fds[a.FD]; src == nil {
				o.bad("nothing has made %q", a.FD)
			} else {
				src.attr, src.attrSet = src.attr|a.Attr, true
			}
		} else if !o.pivoted {
			o.bad("the path is the host's")
		}
	case MoveMount:
		o.move(a)
	case MountFS:
		o.mountFS(a)
	case Show:
		o.show(a)
	case Unmount:
		delete(o.files, a.Path)
	case Attest:
		if r := o.spec.Rootfs; r == nil || o.host.Paths[r.Source].Real != a.Source || r.SHA256 != a.SHA256 || r.Manifest != a.Manifest {
			o.bad("nobody asked for it")
		}
	case PivotRoot:
		if o.pivoted {
			o.bad("again")
		}
		o.pivoted = true
	case Mkdir:
		o.create(a.Path, "dir")
	case Touch:
		o.create(a.Path, "file")
	case WriteFile:
		o.create(a.Path, "file")
	case CopyFile:
		if !o.spec.Toolchain || !slices.Contains(EtcFiles, a.Source) {
			o.bad("nobody asked for the host's %s", a.Source)
		}
		o.create(a.Path, "file")
	case MakeLink:
		o.create(a.Path, "link "+a.Target)
	case Chdir:
		if !o.pivoted {
			o.bad("the path is the host's")
		}
	}
}

func (o *opinion) make(name FD, src *source) {
	if o.fds[name] != nil {
		o.bad("%q is made twice", name)
	}
	o.fds[name] = src
	if src.host {
		o.fromHost(src)
	}
}

// fromHost checks that somebody asked for a file of the host.
func (o *opinion) fromHost(src *source) {
	switch {
	case src.device && slices.Contains(DevicePaths(), src.path):
	case o.spec.Toolchain && (slices.Contains(ToolchainDirs, src.path) || slices.Contains(EtcDirs, src.path) || slices.Contains(EtcFiles, src.path)):
	case o.isRoot(src.path):
	case o.asked(src.path) != nil:
	default:
		o.bad("nobody asked for the host's %s", src.path)
	}
}

// isRoot reports whether a host path is the root that was asked for, or the
// store that it has parts of.
func (o *opinion) isRoot(host string) bool {
	r := o.spec.Rootfs
	return r != nil && (host == o.host.Paths[r.Source].Real || host == "/nix/store" && len(o.host.Rootfs.Store) > 0)
}

// root checks that every part of a root is shown that should be.
func (o *opinion) root() {
	if o.spec.Rootfs == nil {
		return
	}
	ours := []string{"/dev", "/proc", "/run", "/sys", "/tmp"}
	switch {
	case o.spec.User.UID == 0:
		ours = append(ours, "/root")
	default:
		ours = append(ours, "/home")
	}
	parts := map[string]facts.Kind{}
	for _, e := range o.host.Rootfs.Entries {
		parts["/"+e.Name] = e.Kind
	}
	for _, e := range o.host.Rootfs.Store {
		parts["/nix/store/"+e.Name] = e.Kind
		ours = append(ours, "/nix")
	}
	for at, kind := range parts {
		shown := o.files[at]
		if (kind == facts.Dir || kind == facts.File) && shown != "mount" && shown != "dir" && !slices.Contains(ours, at) {
			o.bad("%s of the root is not shown", at)
		}
		if kind == facts.Dir && shown == "dir" && !slices.Contains(ours, at) && !slices.ContainsFunc(o.spec.Tmpfs, func(t spec.Tmpfs) bool { return path.Clean(t.Target) == at }) {
			o.bad("%s of the root is there and empty", at)
		}
	}
}

// show checks a part of a root: it must be one that was listed, in its own place,
// and not one that the sandbox furnishes.
func (o *opinion) show(a Show) {
	stage, name := path.Split(a.Source)
	list, want := o.host.Rootfs.Entries, "/"+name
	if stage == "/.nucleus-rootfs-store/" {
		list, want = o.host.Rootfs.Store, "/nix/store/"+name
	} else if stage != "/.nucleus-rootfs/" {
		o.bad("no tree is staged there")
	}
	if o.files[path.Clean(stage)] != "mount" {
		o.bad("the tree is not there")
	}
	if !slices.ContainsFunc(list, func(e facts.Entry) bool { return e.Name == name && (e.Kind == facts.Dir || e.Kind == facts.File) }) {
		o.bad("the root has no such part")
	}
	if a.Target != want || slices.Contains([]string{"/proc", "/dev", "/sys", "/tmp", "/run"}, a.Target) {
		o.bad("it is shown in another's place")
	}
	if k := o.files[a.Target]; k != "dir" && k != "file" {
		o.bad("there is nothing to mount on, but %q", k)
	}
	o.files[a.Target] = "mount"
}

// wish is what a Spec says about one host path.
type wish struct{ write, exec bool }

func (o *opinion) asked(host string) (w *wish) {
	add := func(source string, write, exec bool) {
		if source == host || o.host.Paths[source].Real == host {
			if w == nil {
				w = &wish{}
			}
			w.write, w.exec = w.write || write, w.exec || exec
		}
	}
	if c := o.spec.Context; c != nil {
		add(c.Source, false, c.Exec)
	}
	if k := o.spec.Workspace; k != nil {
		add(k.Source, true, k.Exec)
	}
	for _, v := range o.spec.Volumes {
		add(v.Source, v.Writable, v.Exec)
	}
	return w
}

func (o *opinion) move(a MoveMount) {
	src := o.fds[a.From]
	if src == nil {
		o.bad("nothing has made %q", a.From)
		return
	}
	if src.used {
		o.bad("%q has a place already", a.From)
	}
	src.used = true
	if !o.pivoted {
		o.bad("it would be seen in the host's tree")
	}
	if !src.device {
		o.attributes(src)
	}
	switch o.kind(a.To) {
	case "":
		o.bad("there is nothing to mount on")
	default:
		if src.host && !src.device {
			o.files[o.resolve(a.To)] = "mount"
		}
	}
}

// attributes checks what a mount is attached with.
func (o *opinion) attributes(src *source) {
	if src.attr&abi.MountAttrNoSuid == 0 || src.attr&abi.MountAttrNoDev == 0 {
		o.bad("%s without nosuid and nodev", src.path)
	}
	if !src.host {
		return
	}
	w, toolchain := o.asked(src.path), o.spec.Toolchain && slices.Contains(ToolchainDirs, src.path) || o.isRoot(src.path)
	if src.attr&abi.MountAttrReadOnly == 0 && (w == nil || !w.write) {
		o.bad("the host's %s is writable, which nobody asked for", src.path)
	}
	if src.attr&abi.MountAttrNoExec == 0 && !toolchain && (w == nil || !w.exec) {
		o.bad("the host's %s is executable, which nobody asked for", src.path)
	}
}

func (o *opinion) mountFS(a MountFS) {
	if a.Flags&abi.MSNoSuid == 0 {
		o.bad("without nosuid")
	}
	if a.Type != "devpts" && a.Flags&abi.MSNoDev == 0 {
		o.bad("without nodev")
	}
	if a.Type == "tmpfs" && !strings.Contains(a.Data, "size=") {
		o.bad("without a size")
	}
	if !o.pivoted {
		pivot := find[PivotRoot](o.plan)
		if pivot == nil || pivot.Path != a.Target {
			o.bad("on the host's tree")
		}
		return
	}
	if k := o.kind(a.Target); k != "dir" && k != "mount" {
		o.bad("there is no directory to mount on, but %q", k)
	}
	if a.Type == "tmpfs" { // empty, whatever was there
		target := o.resolve(a.Target)
		for f := range o.files {
			if strings.HasPrefix(f, target+"/") {
				delete(o.files, f)
			}
		}
		o.files[target] = "dir"
	}
}

// create makes a file of the new root, in a model of it.
func (o *opinion) create(at, kind string) {
	if !o.pivoted {
		o.bad("the path is the host's")
		return
	}
	parent := o.resolve(path.Dir(at))
	switch k := o.files[parent]; {
	case o.inMount(parent):
		o.bad("below a mount of the host's")
	case k != "dir":
		o.bad("%s is not a directory but %q", parent, k)
	}
	full := path.Join(parent, path.Base(at))
	if k := o.files[full]; k != "" {
		o.bad("it is there already, %q", k)
	}
	o.files[full] = kind
}

// kind is what a path leads to in the model; below a mount of the host's
// everything may be there.
func (o *opinion) kind(at string) string {
	full := o.resolve(at)
	if o.inMount(full) {
		return "mount"
	}
	return o.files[full]
}

func (o *opinion) inMount(full string) bool {
	for f := full; ; f = path.Dir(f) {
		if o.files[f] == "mount" || f == "/proc" {
			return true
		}
		if f == "/" {
			return false
		}
	}
}

// resolve follows links of the model.
func (o *opinion) resolve(at string) string {
	full, rest := "/", strings.Split(strings.Trim(at, "/"), "/")
	for n := 0; len(rest) > 0 && n < 100; n++ {
		next := path.Join(full, rest[0])
		rest = rest[1:]
		if target, ok := strings.CutPrefix(o.files[next], "link "); ok {
			if strings.HasPrefix(target, "/") {
				full = "/"
			}
			rest = append(strings.Split(strings.Trim(target, "/"), "/"), rest...)
			continue
		}
		full = next
	}
	return full
}

// find returns a plan's first action of a type.
func find[A Action](p *Plan) *A {
	for _, s := range p.Steps {
		if a, ok := s.Do.(A); ok {
			return &a
		}
	}
	return nil
}

func index[A Action](p *Plan) int {
	return slices.IndexFunc(p.Steps, func(s Step) bool { _, ok := s.Do.(A); return ok })
}

// whole checks what is not about one step.
func (o *opinion) whole() {
	o.at = len(o.plan.Steps) - 1
	o.step = o.plan.Steps[o.at]
	o.root()
	for f := range o.files {
		if strings.HasPrefix(f, "/.nucleus-rootfs") {
			o.bad("%s stays", f)
		}
	}
	for name, src := range o.fds {
		if !src.used {
			o.bad("%q is made and never attached", name)
		}
	}
	if r := o.spec.Rootfs; r != nil && (r.Attested || r.SHA256 != "") != (find[Attest](o.plan) != nil) {
		o.bad("the root's attestation: asked for %t", r.Attested)
	}
	o.namespaces()
	o.identity()
	o.limits()
	o.confinement()
	o.sequence()
}

func (o *opinion) namespaces() {
	c := find[CloneInto](o.plan)
	if c == nil {
		o.bad("no clone")
		return
	}
	want := uint64(abi.CloneNewPID | abi.CloneNewNS | abi.CloneNewNet | abi.CloneNewUTS | abi.CloneNewIPC)
	if o.spec.Userns == spec.UsernsPrivate {
		want |= abi.CloneNewUser
	}
	if o.spec.TimeNamespace {
		want |= abi.CloneNewTime
	}
	if find[NewCgroupNS](o.plan) == nil {
		want |= abi.CloneNewCgroup
	}
	if c.Flags != want {
		o.bad("the clone has flags %#x, want %#x", c.Flags, want)
	}
}

func (o *opinion) identity() {
	root := o.host.UID == 0 && o.host.CapEff>>21&1 == 1 && o.host.CapEff>>6&3 == 3
	maps := 0
	for _, s := range o.plan.Steps {
		m, ok := s.Do.(WriteMap)
		if !ok {
			continue
		}
		maps++
		id, host := o.spec.User.UID, o.host.UID
		if m.File == "gid_map" {
			id, host = o.spec.User.GID, o.host.GID
		}
		if root && (!m.Reserved || m.Inside != 0 || m.Count != 65536 || find[ReserveIDs](o.plan) == nil) {
			o.bad("root's map %v is not a reserved range", m)
		}
		if !root && (m.Reserved || m.Inside != id || m.Outside != host || m.Count != 1) {
			o.bad("map %v, want %d to be %d and nobody else", m, id, host)
		}
	}
	if private := o.spec.Userns == spec.UsernsPrivate; private != (maps == 2) {
		o.bad("%d maps", maps)
	}
	if maps == 2 && !root && index[DenySetgroups](o.plan) > index[WriteMap](o.plan) {
		o.bad("setgroups is denied too late for a map of groups")
	}
	set := find[SetIDs](o.plan)
	if set == nil || set.UID != o.spec.User.UID || set.GID != o.spec.User.GID {
		o.bad("the user is %v, want %v", set, o.spec.User)
	} else if set.KeepGroups && root {
		o.bad("root's groups stay")
	}
	for _, s := range o.plan.Steps {
		t, ok := s.Do.(HostTree)
		if ok && root && o.spec.Userns == spec.UsernsPrivate && !t.IDMap {
			o.bad("%s without an id map", t.Source)
		}
		if ok && t.Count > 1 && (!o.isRoot(t.Source) || t.Attr&abi.MountAttrReadOnly == 0) {
			o.bad("%s: many ids, and it is not a read-only root", t.Source)
		}
	}
}
