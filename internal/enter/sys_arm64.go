package enter

// syscallExecveat is execveat (Linux 3.19).
const syscallExecveat = 281
