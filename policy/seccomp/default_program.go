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

// ObservedProgram returns what a listener at the level Refusals needs for
// [Default], compiled for a, as DefaultProgram does: watching costs a start no
// compiling either.
func ObservedProgram(a Arch) Program {
	switch a {
	case AMD64:
		return Program{Arch: a, Insns: observedAMD64[:len(observedAMD64):len(observedAMD64)]}
	case ARM64:
		return Program{Arch: a, Insns: observedARM64[:len(observedARM64):len(observedARM64)]}
	}
	return Program{}
}
