package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Kill ends every process in the group and in groups below it, at once, whether
// they are frozen or not. Where the group has a part in version 2, that decides
// who is in it: every way in leads there too.
// Precondition: no process outside the group adds to it meanwhile.
func (g *Group) Kill() error {
	if p := g.v2(); p != nil {
		err := p.write("cgroup.kill", "1") // since 5.14
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if len(g.parts) == 0 {
		return nil
	}
	// A fork bomb outruns one pass; a pass that finds nobody ends it. With
	// pids.max=0 nobody new can come.
	if p := g.with("pids"); p != nil {
		if err := p.write("pids.max", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return retry(killTime, func() error {
		n, err := killBelow(g.parts[0].Path)
		// A process that version 1 has frozen dies when it is let go, before
		// it runs another instruction: the signal is there already.
		err = errors.Join(err, g.thawLegacy())
		if err == nil && n > 0 {
			err = syscall.EBUSY
		}
		return err
	})
}

// thawLegacy lets version 1's freezer go, in the group and below.
func (g *Group) thawLegacy() error {
	p := g.freezer()
	if p == nil || p.Version != 1 {
		return nil
	}
	return walk(p.Path, func(path string) error { return writeFile(filepath.Join(path, legacyState), "THAWED") })
}

// How long Kill and Remove wait for processes that are on their way out.
const (
	killTime   = 5 * time.Second
	removeTime = 2 * time.Second
)

// heldAtOnce bounds the descriptors that killBelow has open.
const heldAtOnce = 64

// killBelow sends SIGKILL to every process in dir and below and counts them.
func killBelow(dir string) (int, error) {
	total := 0
	err := walk(dir, func(path string) error {
		pids, err := numbers(path)
		if err != nil {
			return err
		}
		total += len(pids)
		for some := range slices.Chunk(pids, heldAtOnce) {
			if err := killHeld(path, some); err != nil {
				return err
			}
		}
		return nil
	})
	return total, err
}

// numbers are the processes in one group.
func numbers(path string) (pids []int, err error) {
	data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	for field := range strings.FieldsSeq(string(data)) {
		// 0 is a process that our own pid namespace cannot see.
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// killHeld kills processes of a group. A number may be of another process by the
// time that it is used, so each is held first; one whose number is still listed
// then is in the group, and the signal goes to what is held.
func killHeld(path string, pids []int) error {
	held := make([]*os.Process, 0, len(pids))
	defer func() {
		for _, p := range held {
			_ = p.Release() // it is not our child: nobody waits for it here
		}
	}()
	for _, pid := range pids {
		p, err := os.FindProcess(pid)
		if err != nil {
			return err
		}
		held = append(held, p)
	}
	still, err := numbers(path)
	if err != nil {
		return err
	}
	for _, p := range held {
		if !slices.Contains(still, p.Pid) {
			continue
		}
		var sent error
		// Without a descriptor os would send it to the number: here that is an error.
		err := p.WithHandle(func(fd uintptr) { sent = kernel.SignalProcess(kernel.FD(fd), int(syscall.SIGKILL)) })
		if err = errors.Join(err, sent); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill process %d in %s: %w", p.Pid, path, err)
		}
	}
	return nil
}

// Remove removes the group, which must have no live process in it, and closes
// it. Groups that were made below it go first. Nothing but empty groups is ever
// removed: a control group file system has no files to delete. A group that is
// gone already is not an error.
func (g *Group) Remove() error {
	var errs []error
	for _, p := range g.parts {
		path := p.Path
		err := retry(removeTime, func() error { return walk(path, rmdir) })
		if err != nil {
			errs = append(errs, fmt.Errorf("remove control group: %w", err))
		}
	}
	g.close()
	errs = append(errs, g.holder.end())
	g.holder = nil
	return errors.Join(errs...)
}

// rmdir removes one empty group.
func rmdir(path string) error {
	for {
		switch err := syscall.Rmdir(path); err {
		case nil, syscall.ENOENT:
			return nil
		case syscall.EINTR:
		default:
			return &fs.PathError{Op: "rmdir", Path: path, Err: err}
		}
	}
}

// walk calls f for every group below dir and at last for dir. Groups that
// disappear meanwhile are passed over.
func walk(dir string, f func(path string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := walk(filepath.Join(dir, e.Name()), f); err != nil {
			return err
		}
	}
	if err := f(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// retry calls f until it does not say EBUSY, with pauses of at most limit in all,
// longer and longer. A killed process stays in its group until it has exited, and
// only in a pause it surely may: time that this process was not given counts not.
func retry(limit time.Duration, f func() error) error {
	waited := time.Duration(0)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := f()
		if !errors.Is(err, syscall.EBUSY) || waited >= limit {
			return err
		}
		time.Sleep(pause)
		waited += pause
	}
}
