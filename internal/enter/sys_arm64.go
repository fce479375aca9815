package enter

// System calls that package syscall does not name.
const (
	syscallExecveat = 281 // execveat, Linux 3.19
	sysSetns        = 268 // setns, 3.0
	sysSeccomp      = 277 // seccomp, 3.17
)
