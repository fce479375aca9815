package kernel

import "golang.org/x/sys/unix"

// LandlockABI returns the version of Landlock that the kernel has, 0 without it
// (landlock_create_ruleset with LANDLOCK_CREATE_RULESET_VERSION, 5.13).
func LandlockABI() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}
