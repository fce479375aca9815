#include "textflag.h"

// The whole program of the log writer. It is never called: its bytes are copied
// into an ELF image at a fixed address and executed there, on the stack that
// execve made. It uses no Go ABI and no memory but that stack and the image's
// read-only configuration (layout: image.go).
//
//	R12 = buffer: 64 KiB, aligned to a page, below the scratch
//	R13 = bytes in the current file      R14 = bytes in the buffer
//	BX  = the pipe at hand, 0 or 1       R9  = bytes to write
//	R15 = scratch:
//	   0 two pollfd (and first the signal mask)   16 timeout   32 clock
//	  64 frame of stream 3: stamp, word, 80 the number of lost bytes
//	  88 frame of the output: stamp, word         104 two iovec
//	 136 turn   140 open pipes   144 not idle for long   148 index of the file
//	 152 for each pipe: its last byte ended no line   160 the one for this frame
TEXT ·loggerAMD64(SB), NOSPLIT|NOFRAME, $0-0
	LEAQ -256(SP), R15
	ANDQ $~63, R15
	LEAQ -65536(R15), R12
	ANDQ $~4095, R12
	MOVQ R12, SP

	// The end of the output ends the program; nothing else should.
	MOVQ $-1, 0(R15)
	MOVL $14, AX                 // rt_sigprocmask(SIG_SETMASK, all, nil, 8)
	MOVL $2, DI
	LEAQ 0(R15), SI
	XORL DX, DX
	MOVL $8, R10
	SYSCALL

	MOVL $157, AX                // prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	MOVL $38, DI
	MOVL $1, SI
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	SYSCALL
	TESTQ AX, AX
	JNZ  broken
	MOVL $157, AX                // prctl(PR_SET_DUMPABLE, 0)
	MOVL $4, DI
	XORL SI, SI
	SYSCALL
	TESTQ AX, AX
	JNZ  broken
	MOVL $157, AX                // prctl(PR_SET_NAME, name): for people
	MOVL $15, DI
	MOVL $0x400c38, SI
	SYSCALL

	// Somebody else may take from a pipe what poll has promised: never wait in read.
	MOVL $0x400c10, R9           // the pipes
	MOVL $72, AX                 // fcntl(out, F_SETFL, O_NONBLOCK)
	MOVL (R9), DI
	MOVL $4, SI
	MOVL $0x800, DX
	SYSCALL
	MOVL $72, AX                 // fcntl(err, F_SETFL, O_NONBLOCK)
	MOVL 4(R9), DI
	MOVL $4, SI
	MOVL $0x800, DX
	SYSCALL

	MOVL $317, AX                // seccomp(SECCOMP_SET_MODE_FILTER, 0, fprog)
	MOVL $1, DI
	XORL SI, SI
	MOVL $0x400c00, DX
	SYSCALL
	TESTQ AX, AX
	JNZ  broken

	MOVL (R9), AX
	MOVL AX, 0(R15)
	MOVL 4(R9), AX
	MOVL AX, 8(R15)
	MOVL $1, 4(R15)              // POLLIN; end of file is always said
	MOVL $1, 12(R15)
	MOVQ $0, 80(R15)
	MOVQ R12, 120(R15)
	MOVL 0x24(R9), AX
	MOVL AX, 136(R15)
	MOVL $2, 140(R15)
	MOVL $0, 144(R15)
	MOVL 0x20(R9), AX
	MOVL AX, 148(R15)
	MOVQ $0, 152(R15)
	MOVQ 0x10(R9), R13

	// What a writer before us left behind its last whole frame goes.
	MOVL 0x38(R9)(AX*4), DI
	MOVL $77, AX                 // ftruncate(file, used)
	MOVQ R13, SI
	SYSCALL
	TESTQ AX, AX
	JZ   loop
	MOVQ 0x8(R9), R13            // not to be used: call it full

loop:
	MOVL 140(R15), AX
	TESTL AX, AX
	JS   done
	JZ   last
	XORL DX, DX                  // wait for ever, or, after output, a second
	MOVL 144(R15), AX
	TESTL AX, AX
	JZ   wait
	MOVQ $1, 16(R15)
	MOVQ $0, 24(R15)
	LEAQ 16(R15), DX
wait:
	MOVL $271, AX                // ppoll(pipes, 2, timeout, nil, 8)
	LEAQ 0(R15), DI
	MOVL $2, SI
	XORL R10, R10
	MOVL $8, R8
	SYSCALL
	TESTQ AX, AX
	JS   loop                    // EINTR
	JZ   quiet
	XORL BX, BX
	JMP  pipe
next:
	ADDL $1, BX
	CMPL BX, $2
	JCC  loop
pipe:
	MOVWLZX 6(R15)(BX*8), AX     // what poll says
	TESTL AX, AX
	JZ   next
	MOVL (R15)(BX*8), DI
	MOVQ R12, SI
	MOVL $0x400c28, DX           // so much that a frame fits in a file
	MOVL (DX), DX
	XORL AX, AX                  // read(pipe, buffer, chunk)
	SYSCALL
	CMPQ AX, $-11                // EAGAIN
	JEQ  next
	CMPQ AX, $-4                 // EINTR
	JEQ  next
	TESTQ AX, AX
	JLE  closed
	MOVQ AX, R14
	MOVL $1, 144(R15)
	MOVL 152(R15)(BX*4), AX
	MOVL AX, 160(R15)
	XORL AX, AX
	MOVBLZX -1(R12)(R14*1), CX
	CMPL CX, $10
	JEQ  ended
	MOVL $1, AX
ended:
	MOVL AX, 152(R15)(BX*4)

frame:
	MOVL $228, AX                // clock_gettime(CLOCK_REALTIME, clock)
	XORL DI, DI
	LEAQ 32(R15), SI
	SYSCALL
	IMUL3Q $1000000000, 32(R15), AX
	ADDQ 40(R15), AX
	MOVQ AX, 64(R15)
	MOVQ AX, 88(R15)
	MOVQ R14, 128(R15)
	LEAQ 88(R15), AX             // one frame, or two when some were lost before
	MOVL $16, R9
	CMPQ 80(R15), $0
	JEQ  whole
	LEAQ 64(R15), AX
	MOVL $40, R9
whole:
	MOVQ AX, 104(R15)
	MOVQ R9, 112(R15)
	ADDQ R14, R9
	LEAQ (R13)(R9*1), AX
	MOVL $0x400c18, CX           // the size of a file
	CMPQ AX, (CX)
	JLS  write

	// The next file of the ring.
	XORL R13, R13
	MOVL 148(R15), AX
	ADDL $1, AX
	MOVL $0x400c2c, CX           // the number of files
	CMPL AX, (CX)
	JCS  inside
	XORL AX, AX
inside:
	MOVL AX, 148(R15)
	ADDL $1, 136(R15)
	MOVL $0x400c48, CX
	MOVL (CX)(AX*4), DI
	MOVL $77, AX                 // ftruncate(file, 0)
	XORL SI, SI
	SYSCALL
	TESTQ AX, AX
	JZ   write
	ADDQ R14, 80(R15)
	JMP  full

write:
	MOVL 136(R15), CX            // words: length, stream, magic, turn
	SHLQ $48, CX
	MOVQ $0x4e0300000008, AX
	ORQ  CX, AX
	MOVQ AX, 72(R15)
	MOVL 160(R15), AX
	SHLL $8, AX
	ORL  $0x4e01, AX
	ADDL BX, AX
	SHLQ $32, AX
	ORQ  CX, AX
	ORQ  R14, AX
	MOVQ AX, 96(R15)
	MOVL 148(R15), AX
	MOVL $0x400c48, CX
	MOVL (CX)(AX*4), DI
	MOVL $296, AX                // pwritev(file, frames, 2, used, 0)
	LEAQ 104(R15), SI
	MOVL $2, DX
	MOVQ R13, R10
	XORL R8, R8
	SYSCALL
	CMPQ AX, R9
	JNE  short
	ADDQ R9, R13
	MOVQ $0, 80(R15)
	JMP  next

short:                           // no space: never wait for it, but count
	ADDQ R14, 80(R15)
	TESTQ AX, AX
	JLE  next
	MOVL $77, AX                 // ftruncate(file, used)
	MOVQ R13, SI
	SYSCALL
	TESTQ AX, AX
	JZ   next
full:
	MOVL $0x400c18, CX
	MOVQ (CX), R13
	JMP  next

closed:
	MOVL $-1, (R15)(BX*8)        // poll passes over it
	SUBL $1, 140(R15)
	JMP  next

quiet:                           // give the buffer back; say what was lost, if that can be written now
	MOVL $28, AX                 // madvise(buffer, 64 KiB, MADV_DONTNEED)
	MOVQ R12, DI
	MOVL $0x10000, SI
	MOVL $4, DX
	SYSCALL
	MOVL $0, 144(R15)
	CMPQ 80(R15), $0
	JEQ  loop
	MOVL $1, 144(R15)
	JMP  notice
last:
	MOVL $-1, 140(R15)
	CMPQ 80(R15), $0
	JEQ  loop
notice:
	XORL R14, R14                // with an empty frame behind it
	MOVL $1, BX
	JMP  frame

done:
	XORL DI, DI
	JMP  exit
broken:
	MOVL $1, DI
exit:
	MOVL $231, AX                // exit_group
	SYSCALL
	JMP  exit
	BYTE $'l'; BYTE $'o'; BYTE $'g'; BYTE $'g'; BYTE $'e'; BYTE $'n'; BYTE $'d'; BYTE $'!'
	RET

// func codeAddr() uintptr
TEXT ·codeAddr(SB), NOSPLIT, $0-8
	LEAQ ·loggerAMD64(SB), AX
	MOVQ AX, ret+0(FP)
	RET
