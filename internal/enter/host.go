package enter

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/child"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/pid1"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/rootfs"
)

// host performs one host step and remembers how to undo it.
func (r *run) host(a plan.Action) error {
	switch a := a.(type) {
	case plan.ReserveIDs:
		return r.reserveIDs(a)
	case plan.CgroupCreate:
		g, err := cgroup.Create(r.req.Host.Cgroup, "nucleus-"+r.req.Name, a.Controllers)
		if err != nil {
			return err
		}
		r.box.Group = g
		r.box.undo.push(g.Remove)
		return nil
	case plan.CgroupJoin:
		if r.req.Into == nil || r.req.Into.Group == nil {
			return errors.New("this is a bug in nucleus: the sandbox to join has no control group")
		}
		r.box.Group = r.req.Into.Group
		return nil
	case plan.CgroupWrite:
		return r.box.Group.Write(a.Controller, a.File, a.Value)
	case plan.MakeInit:
		return r.makeInit(a)
	case plan.HostTree:
		return r.hostTree(a)
	case plan.Attest:
		return r.attest(a)
	case plan.OwnPipes:
		for _, fd := range r.req.Stdio {
			if err := kernel.OwnPipe(kernel.FD(fd), r.box.IDBase+a.UID, r.box.IDBase+a.GID); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("this is a bug in nucleus: no action for host step %T", a)
}

// gate performs one step that the child waits for.
func (r *run) gate(a plan.Action) error {
	proc := "/proc/" + strconv.Itoa(r.box.Pid) + "/"
	switch a := a.(type) {
	case plan.WriteMap:
		outside := a.Outside
		if a.Reserved {
			outside = r.box.IDBase
		}
		return kernel.WriteFile(proc+a.File, fmt.Appendf(nil, "%d %d %d\n", a.Inside, outside, a.Count))
	case plan.DenySetgroups:
		return kernel.WriteFile(proc+"setgroups", []byte("deny"))
	case plan.CgroupAdd:
		return r.box.Group.Add(r.box.Pid)
	}
	return fmt.Errorf("this is a bug in nucleus: no action for gate step %T", a)
}

func (r *run) makeInit(a plan.MakeInit) error {
	img := pid1.Image(pid1.Config{Filter: a.Filter.Insns, StatusFD: int(r.child), Terminal: a.Terminal,
		Detached: a.Detached, Joined: a.Joined, Awaits: r.req.Meanwhile != nil, Timed: has[plan.Deadline](r.req.Plan), ExitFD: r.req.Exit})
	fd, err := kernel.SealedImage("nucleus-init", img)
	if err != nil {
		return err
	}
	r.init = fd
	r.held.push(func() error { return r.init.Close() })
	return r.high(&r.init)
}

// hostTree takes hold of a host path with the caller's rights, whatever
// directories lead to it, as a mount that belongs to nobody yet.
func (r *run) hostTree(a plan.HostTree) error {
	at, held := r.tested[a.Source]
	var err error
	if !held {
		if at, err = kernel.Open(a.Source, kernel.PathOnly, 0); err != nil {
			return err
		}
	}
	tree, err := kernel.CloneTree(at)
	if !held {
		err = errors.Join(err, at.Close())
	}
	if err != nil {
		return err
	}
	userns := kernel.None
	if a.IDMap {
		if userns, err = r.idmap(a); err != nil {
			return errors.Join(err, tree.Close())
		}
	}
	if err := kernel.SetMountAttr(tree, uint64(a.Attr), userns); err != nil {
		return errors.Join(err, tree.Close())
	}
	if err := r.high(&tree); err != nil {
		return errors.Join(err, tree.Close())
	}
	r.held.push(tree.Close)
	r.trees[a.As] = tree
	return nil
}

// attest compares a directory with its manifest, and keeps hold of it.
func (r *run) attest(a plan.Attest) error {
	dir, err := rootfs.Open(a.Source)
	if err != nil {
		return err
	}
	r.held.push(dir.Close)
	r.tested[a.Source] = dir
	return rootfs.VerifyOpen(context.Background(), dir, a.Manifest, a.SHA256, nil)
}

// idmap returns a user namespace in which the owner on disk is the sandbox's
// user. It is made by a process that lives just long enough to be mapped.
func (r *run) idmap(a plan.HostTree) (userns kernel.FD, err error) {
	count := max(a.Count, 1)
	key := [5]uint32{a.FromUID, a.FromGID, a.ToUID, a.ToGID, count}
	if fd, ok := r.idmaps[key]; ok {
		return fd, nil
	}
	ours, theirs, err := kernel.SocketPair()
	if err != nil {
		return kernel.None, err
	}
	arena, err := child.NewArena(1, 0)
	if err != nil {
		return kernel.None, errors.Join(err, ours.Close(), theirs.Close())
	}
	arena.Op(child.Op{Nr: syscall.SYS_RECVFROM, Arg: [6]uintptr{uintptr(theirs), 0, 0, syscall.MSG_TRUNC}, Want: 1})
	if err := arena.Seal(); err != nil {
		return kernel.None, errors.Join(err, ours.Close(), theirs.Close(), arena.Free())
	}
	runtime.LockOSThread()
	p, errno := child.Start(arena, child.How{Flags: abi.CloneNewUser}, int(theirs), -1)
	runtime.UnlockOSThread()
	if errno != 0 {
		return kernel.None, errors.Join(errno, ours.Close(), theirs.Close(), arena.Free())
	}
	proc := "/proc/" + strconv.Itoa(p.Pid) + "/"
	userns, err = kernel.Open(proc+"ns/user", kernel.ReadOnly, 0)
	if err == nil {
		err = errors.Join(
			kernel.WriteFile(proc+"uid_map", fmt.Appendf(nil, "%d %d %d\n", a.FromUID, r.box.IDBase+a.ToUID, count)),
			kernel.WriteFile(proc+"gid_map", fmt.Appendf(nil, "%d %d %d\n", a.FromGID, r.box.IDBase+a.ToGID, count)))
	}
	pidfd := kernel.FD(p.PidFD)
	err = errors.Join(err, kernel.SignalPid(pidfd, int(syscall.SIGKILL)))
	_, _, rerr := kernel.Reap(p.Pid)
	err = errors.Join(err, rerr, pidfd.Close(), ours.Close(), theirs.Close(), arena.Free())
	if err != nil {
		return kernel.None, errors.Join(err, userns.Close())
	}
	r.held.push(userns.Close)
	r.idmaps[key] = userns
	return userns, nil
}
