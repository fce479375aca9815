#include "textflag.h"

// func clone3Run(args *cloneArgs, size uintptr, ops unsafe.Pointer, n, errfd uintptr) (pid, errno uintptr)
TEXT ·clone3Run(SB),NOSPLIT,$0-56
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	ops+16(FP), R9
	MOVD	n+24(FP), R10
	MOVD	errfd+32(FP), R11
	MOVD	$435, R8	// clone3
	SVC
	CMN	$4095, R0
	BCS	fail
	CBZ	R0, child
	MOVD	R0, pid+40(FP)
	MOVD	ZR, errno+48(FP)
	RET
fail:
	NEG	R0, R0
	MOVD	ZR, pid+40(FP)
	MOVD	R0, errno+48(FP)
	RET
child:
	// New process, new stack. Nothing of the parent's frame is touched again.
	MOVD	ZR, R29
	SUB	$48, RSP, RSP
	MOVD	R9, 8(RSP)
	MOVD	R10, 16(RSP)
	MOVD	R11, 24(RSP)
	CALL	·run(SB)
	BRK
