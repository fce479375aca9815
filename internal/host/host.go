// Package host asks the kernel what this machine can do and who we are on it.
//
// It fills a facts.Host and decides nothing. A fact is found by trying or by
// reading what the kernel says of itself, never from a version number.
package host

import (
	"fmt"
	"path/filepath"
	"runtime"

	"os"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Probe gathers the facts that every plan asks for, looks at the given system
// paths, and finds out about control groups if asked to. It is on the way of
// every start: about a hundred system calls.
func Probe(system []string, cgroups bool) (*facts.Host, error) {
	h := &facts.Host{
		Kernel: kernel.Uname(), Arch: runtime.GOARCH,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		LandlockABI: kernel.LandlockABI(),
		Paths:       make(map[string]facts.Path, len(system)),
	}
	var err error
	if h.CapEff, err = kernel.Capabilities(); err != nil {
		return nil, fmt.Errorf("read our capabilities: %w", err)
	}
	h.LastCap = lastCap()
	if h.NoFile, err = kernel.HardLimit(abi.RlimitNofile); err != nil {
		return nil, fmt.Errorf("read RLIMIT_NOFILE: %w", err)
	}
	if h.Memlock, err = kernel.HardLimit(abi.RlimitMemlock); err != nil {
		return nil, fmt.Errorf("read RLIMIT_MEMLOCK: %w", err)
	}
	if cgroups {
		if h.Cgroup, err = Cgroup(); err != nil {
			return nil, fmt.Errorf("find our control groups: %w", err)
		}
	}
	for _, name := range system {
		p, ok, err := look(name)
		if err != nil {
			return nil, err
		}
		if ok {
			h.Paths[name] = p
		}
	}
	return h, nil
}

// lastCap is the highest capability that the kernel knows.
func lastCap() int {
	const newest = 40 // CAP_CHECKPOINT_RESTORE, 5.9
	n := newest
	for !kernel.HasCap(n) {
		n--
	}
	for kernel.HasCap(n + 1) {
		n++
	}
	return n
}

// look returns what is at a path. Something that we may not look at is as good
// as not there.
func look(name string) (p facts.Path, ok bool, err error) {
	var st kernel.Stat
	if err := kernel.Lstat(name, &st); err != nil {
		if kernel.NotExist(err) || kernel.IsErrno(err, kernel.EACCES) {
			return p, false, nil
		}
		return p, false, fmt.Errorf("look at %s: %w", name, err)
	}
	p = facts.Path{UID: st.Uid, GID: st.Gid, Kind: facts.Other}
	switch st.Mode & kernel.ModeType {
	case kernel.ModeDir:
		p.Kind = facts.Dir
	case kernel.ModeRegular:
		p.Kind, p.Size = facts.File, st.Size
	case kernel.ModeChar:
		p.Kind = facts.Device
	case kernel.ModeLink:
		p.Kind = facts.Symlink
		if p.Target, err = kernel.Readlink(name); err != nil {
			return p, false, fmt.Errorf("read the link %s: %w", name, err)
		}
	}
	return p, true, nil
}

// Source looks at a path that the user named, through symbolic links, and adds
// it to the facts under that name.
func Source(h *facts.Host, name string) error {
	abs, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return err
	}
	p, ok, err := look(real)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%s: %w", real, os.ErrNotExist)
	}
	p.Real = real
	h.Paths[name] = p
	return nil
}

// Listeners finds out who tells what a sandbox refuses: seccomp filters with a
// listener, and Landlock.
func Listeners(h *facts.Host) {
	h.SeccompFlags = kernel.SeccompFlags()
	h.AuditLog = h.LandlockABI >= abi.LandlockLogs && auditReadable()
}

// auditReadable tries to read the kernel's audit log. Who may not is not told why.
func auditReadable() bool {
	on, err := kernel.AuditEnabled()
	if err != nil || !on {
		return false
	}
	l, err := kernel.OpenAuditLog()
	return err == nil && l.Close() == nil
}
