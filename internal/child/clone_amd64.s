#include "textflag.h"

// func clone3Run(args *cloneArgs, size uintptr, ops unsafe.Pointer, n, errfd uintptr) (pid, errno uintptr)
TEXT ·clone3Run(SB),NOSPLIT,$0-56
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	ops+16(FP), R8
	MOVQ	n+24(FP), R9
	MOVQ	errfd+32(FP), R10
	MOVQ	$435, AX	// clone3
	SYSCALL
	CMPQ	AX, $0xfffffffffffff001
	JCC	fail
	TESTQ	AX, AX
	JZ	child
	MOVQ	AX, pid+40(FP)
	MOVQ	$0, errno+48(FP)
	RET
fail:
	NEGQ	AX
	MOVQ	$0, pid+40(FP)
	MOVQ	AX, errno+48(FP)
	RET
child:
	// New process, new stack. Nothing of the parent's frame is touched again.
	XORL	BP, BP
	SUBQ	$32, SP
	MOVQ	R8, 0(SP)
	MOVQ	R9, 8(SP)
	MOVQ	R10, 16(SP)
	CALL	·run(SB)
	INT	$3
