package enter

// syscallExecveat is execveat (Linux 3.19), which package syscall does not name.
const syscallExecveat = 322
