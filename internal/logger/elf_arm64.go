package logger

import "github.com/nucleus-container/nucleus/policy/seccomp"

const elfMachine = 183 // EM_AARCH64

const arch = seccomp.ARM64
