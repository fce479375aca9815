package enter

// System calls that package syscall does not name.
const (
	syscallExecveat = 322 // execveat, Linux 3.19
	sysSetns        = 308 // setns, 3.0
	sysSeccomp      = 317 // seccomp, 3.17
)
