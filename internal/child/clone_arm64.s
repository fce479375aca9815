#include "textflag.h"

// func clone3Run(args *cloneArgs, size, entry uintptr, ops unsafe.Pointer, n, errfd uintptr) (pid, errno uintptr)
TEXT ·clone3Run(SB),NOSPLIT,$0-64
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	entry+16(FP), R12
	MOVD	ops+24(FP), R9
	MOVD	n+32(FP), R10
	MOVD	errfd+40(FP), R11
	MOVD	$435, R8	// clone3
	SVC
	CMN	$4095, R0
	BCS	fail
	CBZ	R0, child
	MOVD	R0, pid+48(FP)
	MOVD	ZR, errno+56(FP)
	RET
fail:
	NEG	R0, R0
	MOVD	ZR, pid+48(FP)
	MOVD	R0, errno+56(FP)
	RET
child:
	// New process, new stack. Nothing of the parent's frame is touched again.
	MOVD	ZR, R29
	SUB	$64, RSP, RSP
	MOVD	R9, 8(RSP)
	MOVD	R10, 16(RSP)
	MOVD	R11, 24(RSP)
	CALL	(R12)
	BRK
