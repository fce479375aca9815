package kernel

import "golang.org/x/sys/unix"

// Space is what the kernel says of the mount and the file system that a file is on.
type Space struct {
	ReadOnly, NoExec bool
	Free, FreeFiles  uint64 // bytes and files that can still be made
}

// SpaceOf asks about the mount of an open file, also one of O_PATH.
func SpaceOf(f FD) (Space, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(int(f), &st) }); err != nil {
		return Space{}, err
	}
	return Space{
		ReadOnly: st.Flags&unix.ST_RDONLY != 0, NoExec: st.Flags&unix.ST_NOEXEC != 0,
		Free: st.Bavail * uint64(st.Bsize), FreeFiles: st.Ffree,
	}, nil
}

// PathOf is the name that the kernel has for an open file: of one in another
// mount namespace, as seen from that one's root.
func PathOf(f FD) (string, error) { return Readlink(own(f)) }
