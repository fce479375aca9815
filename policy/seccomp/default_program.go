package seccomp

//go:generate go test . -run TestDefaultProgramIsCurrent -update

// DefaultProgram returns [Default] compiled for a, and a program without
// instructions for an unknown architecture. It is a table made beforehand, so
// that starting a sandbox does not compile; a test fails when it is stale.
func DefaultProgram(a Arch) Program {
	switch a {
	case AMD64:
		return Program{Arch: a, Insns: defaultAMD64[:len(defaultAMD64):len(defaultAMD64)]}
	case ARM64:
		return Program{Arch: a, Insns: defaultARM64[:len(defaultARM64):len(defaultARM64)]}
	}
	return Program{}
}
