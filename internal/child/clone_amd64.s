#include "textflag.h"

// func clone3Run(args *cloneArgs, size, entry uintptr, ops unsafe.Pointer, n, errfd uintptr) (pid, errno uintptr)
TEXT ·clone3Run(SB),NOSPLIT,$0-64
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	entry+16(FP), R12
	MOVQ	ops+24(FP), R8
	MOVQ	n+32(FP), R9
	MOVQ	errfd+40(FP), R10
	MOVQ	$435, AX	// clone3
	SYSCALL
	CMPQ	AX, $0xfffffffffffff001
	JCC	fail
	TESTQ	AX, AX
	JZ	child
	MOVQ	AX, pid+48(FP)
	MOVQ	$0, errno+56(FP)
	RET
fail:
	NEGQ	AX
	MOVQ	$0, pid+48(FP)
	MOVQ	AX, errno+56(FP)
	RET
child:
	// New process, new stack. Nothing of the parent's frame is touched again.
	XORL	BP, BP
	XORPS	X15, X15	// compiled code takes it for zero
	SUBQ	$48, SP
	MOVQ	R8, 0(SP)
	MOVQ	R9, 8(SP)
	MOVQ	R10, 16(SP)
	CALL	R12
	INT	$3
