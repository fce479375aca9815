package logger

import "github.com/nucleus-container/nucleus/policy/seccomp"

const elfMachine = 62 // EM_X86_64

const arch = seccomp.AMD64
