package nucleus_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/spec"
)

// setUserID makes a file with something in it that would run as its owner.
func setUserID(a []string) string {
	const plain, wanted = 0o755, 0o4755
	how, name, mode := a[0], a[1], uint32(wanted)
	if how == "chmod" || how == "fchmod" || how == "fchmodat" {
		mode = plain
	}
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode)
	if err != nil {
		return verdict(err)
	}
	defer unix.Close(fd)
	switch how {
	case "mmap":
		if err = unix.Ftruncate(fd, 4096); err == nil {
			var m []byte
			if m, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
				m[0] = '#'
				err = unix.Munmap(m)
			}
		}
	case "fallocate":
		err = unix.Fallocate(fd, 0, 0, 4096)
	default:
		_, err = unix.Write(fd, []byte("#!/bin/sh\n"))
	}
	if err != nil {
		return verdict(err)
	}
	switch how {
	case "chmod":
		err = unix.Chmod(name, wanted)
	case "fchmod":
		err = unix.Fchmod(fd, wanted)
	case "fchmodat":
		err = unix.Fchmodat(unix.AT_FDCWD, name, wanted, 0)
	}
	if err != nil {
		return verdict(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return verdict(err)
	}
	if st.Mode&unix.S_ISUID != 0 {
		return "ok:set"
	}
	return "ok:plain"
}

// TestNothingRunsAsItsOwner: what a sandbox leaves in a directory of the host's
// would run there as the directory's owner, whoever starts it.
func TestNothingRunsAsItsOwner(t *testing.T) {
	needSandbox(t)
	for _, how := range []string{"chmod", "fchmod", "fchmodat"} {
		FailsWithout(t, func(a *attempt) error {
			s := &spec.Sandbox{Workspace: &spec.Bind{Source: a.TempDir()}}
			return a.want(s, line{"setuid " + how + " /workspace/x", "EPERM"})
		}, withoutSeccomp())
	}
	s := &spec.Sandbox{Workspace: &spec.Bind{Source: t.TempDir()}}
	var lines []line
	for _, how := range []string{"open", "mmap", "fallocate"} { // the kernel takes it away
		lines = append(lines, line{"setuid " + how + " /workspace/" + how, "ok:plain"})
	}
	if err := (&attempt{TB: t}).want(s, lines...); err != nil {
		t.Error(err)
	}
}
