#include "textflag.h"

// The log writer's program for arm64: see logger_amd64.s, which it follows block
// for block.
//
//	R20 = buffer     R21 = bytes in the current file   R22 = bytes in the buffer
//	R19 = the pipe at hand   R25 = bytes to write   R23 = scratch
//	R24 = the configuration, behind its sock_fprog
TEXT ·loggerARM64(SB), NOSPLIT|NOFRAME, $0-0
	MOVD RSP, R9
	SUB  $256, R9, R23
	AND  $~63, R23, R23
	SUB  $65536, R23, R20
	AND  $~4095, R20, R20
	MOVD R20, RSP

	MOVD $-1, R9
	MOVD R9, 0(R23)
	MOVD $135, R8                // rt_sigprocmask(SIG_SETMASK, all, nil, 8)
	MOVD $2, R0
	MOVD R23, R1
	MOVD ZR, R2
	MOVD $8, R3
	SVC

	MOVD $167, R8                // prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	MOVD $38, R0
	MOVD $1, R1
	MOVD ZR, R2
	MOVD ZR, R3
	MOVD ZR, R4
	SVC
	CBNZ R0, broken
	MOVD $167, R8                // prctl(PR_SET_DUMPABLE, 0)
	MOVD $4, R0
	MOVD ZR, R1
	SVC
	CBNZ R0, broken
	MOVD $167, R8                // prctl(PR_SET_NAME, name): for people
	MOVD $15, R0
	MOVD $0x400c38, R1
	SVC

	MOVD $0x400c10, R24          // the pipes
	MOVD $25, R8                 // fcntl(out, F_SETFL, O_NONBLOCK)
	MOVWU (R24), R0
	MOVD $4, R1
	MOVD $0x800, R2
	SVC
	MOVD $25, R8                 // fcntl(err, F_SETFL, O_NONBLOCK)
	MOVWU 4(R24), R0
	MOVD $4, R1
	MOVD $0x800, R2
	SVC

	MOVD $277, R8                // seccomp(SECCOMP_SET_MODE_FILTER, 0, fprog)
	MOVD $1, R0
	MOVD ZR, R1
	MOVD $0x400c00, R2
	SVC
	CBNZ R0, broken

	MOVWU (R24), R9
	MOVW R9, 0(R23)
	MOVWU 4(R24), R9
	MOVW R9, 8(R23)
	MOVD $1, R9
	MOVW R9, 4(R23)              // POLLIN
	MOVW R9, 12(R23)
	MOVD ZR, 80(R23)
	MOVD R20, 120(R23)
	MOVWU 0x24(R24), R9
	MOVW R9, 136(R23)
	MOVD $2, R9
	MOVW R9, 140(R23)
	MOVW ZR, 144(R23)
	MOVWU 0x20(R24), R9
	MOVW R9, 148(R23)
	MOVD ZR, 152(R23)
	MOVD 0x10(R24), R21

	ADD  $0x38, R24, R10         // the files
	MOVWU (R10)(R9<<2), R0
	MOVD $46, R8                 // ftruncate(file, used)
	MOVD R21, R1
	SVC
	CBZ  R0, loop
	MOVD 8(R24), R21             // not to be used: call it full

loop:
	MOVW 140(R23), R9
	TBNZ $31, R9, done
	CBZW R9, last
	MOVD ZR, R2                  // wait for ever, or, after output, a second
	MOVWU 144(R23), R9
	CBZ  R9, wait
	MOVD $1, R9
	MOVD R9, 16(R23)
	MOVD ZR, 24(R23)
	ADD  $16, R23, R2
wait:
	MOVD $73, R8                 // ppoll(pipes, 2, timeout, nil, 8)
	MOVD R23, R0
	MOVD $2, R1
	MOVD ZR, R3
	MOVD $8, R4
	SVC
	TBNZ $63, R0, loop           // EINTR
	CBZ  R0, quiet
	MOVD ZR, R19
	B    pipe
next:
	ADD  $1, R19, R19
	CMP  $2, R19
	BHS  loop
pipe:
	ADD  R19<<3, R23, R10
	MOVHU 6(R10), R9             // what poll says
	CBZ  R9, next
	MOVWU (R10), R0
	MOVD R20, R1
	MOVWU 0x18(R24), R2          // so much that a frame fits in a file
	MOVD $63, R8                 // read(pipe, buffer, chunk)
	SVC
	CMN  $11, R0                 // EAGAIN
	BEQ  next
	CMN  $4, R0                  // EINTR
	BEQ  next
	CMP  $0, R0
	BLE  closed
	MOVD R0, R22
	MOVD $1, R9
	MOVW R9, 144(R23)
	ADD  R19<<2, R23, R10
	MOVWU 152(R10), R9
	MOVW R9, 160(R23)
	MOVD ZR, R9
	ADD  R22, R20, R11
	MOVBU -1(R11), R11
	CMP  $10, R11
	BEQ  ended
	MOVD $1, R9
ended:
	MOVW R9, 152(R10)

frame:
	MOVD $113, R8                // clock_gettime(CLOCK_REALTIME, clock)
	MOVD ZR, R0
	ADD  $32, R23, R1
	SVC
	MOVD $1000000000, R9
	MOVD 32(R23), R10
	MUL  R9, R10, R9
	MOVD 40(R23), R10
	ADD  R10, R9, R9
	MOVD R9, 64(R23)
	MOVD R9, 88(R23)
	MOVD R22, 128(R23)
	ADD  $88, R23, R9            // one frame, or two when some were lost before
	MOVD $16, R25
	MOVD 80(R23), R10
	CBZ  R10, whole
	ADD  $64, R23, R9
	MOVD $40, R25
whole:
	MOVD R9, 104(R23)
	MOVD R25, 112(R23)
	ADD  R22, R25, R25
	ADD  R25, R21, R9
	MOVD 8(R24), R10             // the size of a file
	CMP  R10, R9
	BLS  write

	MOVD ZR, R21
	MOVWU 148(R23), R9
	ADD  $1, R9, R9
	MOVWU 0x1c(R24), R10         // the number of files
	CMP  R10, R9
	BLO  inside
	MOVD ZR, R9
inside:
	MOVW R9, 148(R23)
	MOVWU 136(R23), R10
	ADD  $1, R10, R10
	MOVW R10, 136(R23)
	ADD  $0x38, R24, R10
	MOVWU (R10)(R9<<2), R0
	MOVD $46, R8                 // ftruncate(file, 0)
	MOVD ZR, R1
	SVC
	CBZ  R0, write
	MOVD 80(R23), R9
	ADD  R22, R9, R9
	MOVD R9, 80(R23)
	B    full

write:
	MOVWU 136(R23), R10          // words: length, stream, magic, turn
	LSL  $48, R10, R10
	MOVD $0x4e0300000008, R9
	ORR  R10, R9, R9
	MOVD R9, 72(R23)
	MOVWU 160(R23), R9
	LSL  $8, R9, R9
	MOVD $0x4e01, R11
	ORR  R11, R9, R9
	ADD  R19, R9, R9
	LSL  $32, R9, R9
	ORR  R10, R9, R9
	ORR  R22, R9, R9
	MOVD R9, 96(R23)
	MOVWU 148(R23), R9
	ADD  $0x38, R24, R10
	MOVWU (R10)(R9<<2), R26
	MOVD R26, R0
	MOVD $70, R8                 // pwritev(file, frames, 2, used, 0)
	ADD  $104, R23, R1
	MOVD $2, R2
	MOVD R21, R3
	MOVD ZR, R4
	SVC
	CMP  R25, R0
	BNE  short
	ADD  R25, R21, R21
	MOVD ZR, 80(R23)
	B    next

short:                           // no space: never wait for it, but count
	MOVD 80(R23), R9
	ADD  R22, R9, R9
	MOVD R9, 80(R23)
	CMP  $0, R0
	BLE  next
	MOVD $46, R8                 // ftruncate(file, used)
	MOVD R26, R0
	MOVD R21, R1
	SVC
	CBZ  R0, next
full:
	MOVD 8(R24), R21
	B    next

closed:
	MOVW $-1, R9
	ADD  R19<<3, R23, R10
	MOVW R9, (R10)               // poll passes over it
	MOVWU 140(R23), R9
	SUB  $1, R9, R9
	MOVW R9, 140(R23)
	B    next

quiet:                           // give the buffer back; say what was lost, if that can be written now
	MOVD $233, R8                // madvise(buffer, 64 KiB, MADV_DONTNEED)
	MOVD R20, R0
	MOVD $0x10000, R1
	MOVD $4, R2
	SVC
	MOVW ZR, 144(R23)
	MOVD 80(R23), R9
	CBZ  R9, loop
	MOVD $1, R9
	MOVW R9, 144(R23)
	B    notice
last:
	MOVW $-1, R9
	MOVW R9, 140(R23)
	MOVD 80(R23), R9
	CBZ  R9, loop
notice:
	MOVD ZR, R22                 // with an empty frame behind it
	MOVD $1, R19
	B    frame

done:
	MOVD ZR, R0
	B    exit
broken:
	MOVD $1, R0
exit:
	MOVD $94, R8                 // exit_group
	SVC
	B    exit
	WORD $0x67676f6c             // "logg"
	WORD $0x21646e65             // "end!"
	RET

// func codeAddr() uintptr
TEXT ·codeAddr(SB), NOSPLIT, $0-8
	MOVD $·loggerARM64(SB), R0
	MOVD R0, ret+0(FP)
	RET
