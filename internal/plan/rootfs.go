package plan

import (
	"path"
	"slices"

	"github.com/nucleus-container/nucleus/internal/facts"
)

// Places of the new root where a host tree is while it is taken apart. Their names
// begin with what a root's own names may not begin with.
const (
	stageRoot  = "/.nucleus-rootfs"
	stageStore = "/.nucleus-rootfs-store"
)

// stages are all of them.
var stages = [...]string{stageRoot, stageStore}

// storeDir is where the parts of a Nix store are, on the host and inside.
const storeDir = "/nix/store"

// ownTop are the names at the top of every sandbox that it furnishes itself.
// What has such a name in a root, be it a link to the host's /proc, is not shown
// and never looked at.
var ownTop = [...]string{"dev", "proc", "run", "sys", "tmp"}

// rootTree plans, for root, taking hold of the root directory with the host's
// rights. All ids on disk are the same inside: files of the host's root belong to
// the sandbox's, which is nobody in particular.
func (b *builder) rootTree() {
	r := b.spec.Rootfs
	if r == nil {
		return
	}
	if r.Verified() {
		b.add(Host, "rootfs", Attest{Source: b.rootSource(), Manifest: r.Manifest, SHA256: r.SHA256})
	}
	if b.host.Privileged() {
		t := HostTree{Source: b.rootSource(), As: "rootfs", Attr: noSuidDev | readOnly}
		if b.ranged {
			t.IDMap, t.Count = true, rangeSize
		}
		b.add(Host, "rootfs", t)
	}
}

func (b *builder) rootSource() string { return b.host.Paths[b.spec.Rootfs.Source].Real }

// rootSources plans taking hold of what the child can take hold of by itself.
func (b *builder) rootSources() {
	if b.spec.Rootfs == nil || b.host.Rootfs == nil {
		return
	}
	if !b.host.Privileged() {
		b.child("rootfs", OpenTree{Source: b.rootSource(), Recursive: true, As: "rootfs"}, SetAttr{FD: "rootfs", Attr: noSuidDev | readOnly, Recursive: true})
	}
	if len(b.host.Rootfs.Store) > 0 {
		b.child("rootfs", OpenTree{Source: storeDir, Recursive: true, As: storeDir}, SetAttr{FD: storeDir, Attr: noSuidDev | readOnly, Recursive: true})
	}
}

// rootfs plans the top of the new root, part by part. The root itself stays a
// small memory file system, so that every place of the sandbox's own can be made,
// whatever the directory holds; a link at its top is made again, so that it leads
// to something of the sandbox's.
func (b *builder) rootfs() {
	if b.spec.Rootfs == nil || b.host.Rootfs == nil {
		return
	}
	facing := b.host.Rootfs
	b.stage(stageRoot, "rootfs")
	for _, e := range facing.Entries {
		if at := "/" + e.Name; !b.ownPlace(at) {
			b.part(e, at, stageRoot)
		}
	}
	b.child("rootfs", Unmount{Path: stageRoot})
	if len(facing.Store) == 0 {
		return
	}
	b.mkdir(storeDir, "rootfs")
	b.mounts = append(b.mounts, mountPoint{path: storeDir, exec: true, because: "rootfs"})
	b.stage(stageStore, storeDir)
	for _, e := range facing.Store {
		b.part(e, storeDir+"/"+e.Name, stageStore)
	}
	b.child("rootfs", Unmount{Path: stageStore})
}

// ownPlace reports whether the sandbox or the Spec puts something else there.
func (b *builder) ownPlace(at string) bool {
	top := "/" + topOf(b.home())
	if at == "/nix" && len(b.host.Rootfs.Store) > 0 {
		return true
	}
	return slices.Contains(ownTop[:], at[1:]) || at == top || b.specFills(at)
}

// topOf is the first name of an absolute path.
func topOf(p string) string {
	for path.Dir(p) != "/" {
		p = path.Dir(p)
	}
	return p[1:]
}

// stage attaches a tree where its parts are taken from.
func (b *builder) stage(at string, tree FD) {
	b.child("rootfs", Mkdir{Path: at, Mode: 0o700}, MoveMount{From: tree, To: at})
}

// part shows one entry of a staged tree. Devices, pipes and sockets are left out.
func (b *builder) part(e facts.Entry, at, stage string) {
	switch e.Kind {
	case facts.Symlink:
		b.links[at] = e.Target
		b.child("rootfs", MakeLink{Target: e.Target, Path: at})
		return
	case facts.Dir:
		b.dirs[at] = true
		b.child("rootfs", Mkdir{Path: at, Mode: 0o755})
	case facts.File:
		b.files[at] = true
		b.child("rootfs", Touch{Path: at})
	default:
		return
	}
	b.child("rootfs", Show{Source: stage + "/" + e.Name, Target: at})
	b.mounts = append(b.mounts, mountPoint{path: at, file: e.Kind == facts.File, host: true, exec: true, within: stage == stageStore, because: "rootfs"})
}

// rootHas reports whether the root that the Spec names has something at its top.
func (b *builder) rootHas(at string) bool {
	return b.spec.Rootfs != nil && b.host.Rootfs != nil && !b.ownPlace(at) &&
		slices.ContainsFunc(b.host.Rootfs.Entries, func(e facts.Entry) bool { return "/"+e.Name == at })
}
