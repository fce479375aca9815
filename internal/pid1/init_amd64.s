#include "textflag.h"

// init is the whole program of process 1. It is never called: its bytes are
// copied into an ELF image at a fixed address and executed there, on the stack
// that execve made (argc, argv and envp at SP). It uses no Go ABI and no memory
// but that stack and the image's read-only data page (layout: image.go).
//
//	R12 = argv[1:]: the workload's candidate paths, "", then its arguments
//	R13 = envp      R14 = the workload's pid, 0 before there is one
//	BX = the status descriptor, later the exit's
//	R15 = scratch:  0 signal mask, 8 errno of the workload's start, 12 kind of
//	                its message, 16 wait status, 24 message (kind, value), 32 siginfo
TEXT ·initAMD64(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ (SP), AX                // argc
	LEAQ 16(SP), R12             // &argv[1]
	LEAQ 16(SP)(AX*8), R13       // envp = &argv[argc+1]
	SUBQ $256, SP
	ANDQ $~15, SP
	MOVQ SP, R15
	XORL R14, R14
	MOVL $0x401010, AX
	MOVL (AX), BX                // the status descriptor

	// No signal may be lost between here and the loop: block them all.
	MOVQ $-1, 0(R15)
	MOVL $0, 8(R15)
	MOVL $-8, 12(R15)            // what fails from here on is process 1
	MOVL $14, AX                 // rt_sigprocmask(SIG_SETMASK, all, nil, 8)
	MOVL $2, DI
	LEAQ 0(R15), SI
	XORL DX, DX
	MOVL $8, R10
	SYSCALL

	// The workload has our user id. Not dumpable: it can neither trace us nor
	// read our memory or descriptors through /proc/1.
	MOVL $157, AX                // prctl(PR_SET_DUMPABLE, 0)
	MOVL $4, DI
	XORL SI, SI
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	SYSCALL
	TESTQ AX, AX
	JNZ  broken

	MOVL $72, AX                 // fcntl(status, F_SETFD, FD_CLOEXEC): not the workload's
	MOVL BX, DI
	MOVL $2, SI
	MOVL $1, DX
	SYSCALL
	TESTQ AX, AX
	JNZ  broken

	// Whoever made the socket asynchronous could not know our number.
	MOVL $39, AX                 // getpid()
	SYSCALL
	MOVQ AX, DX
	MOVL $72, AX                 // fcntl(status, F_SETOWN, pid)
	MOVL BX, DI
	MOVL $8, SI
	SYSCALL
	TESTQ AX, AX
	JNZ  broken

	MOVL $0x401018, AX
	MOVL (AX), DI                // the exit descriptor, or -1
	TESTL DI, DI
	JS   private
	MOVL $72, AX                 // fcntl(exit, F_SETFD, FD_CLOEXEC): nor that one
	MOVL $2, SI
	MOVL $1, DX
	SYSCALL
	TESTQ AX, AX
	JNZ  broken
private:

	// Gone already? From here on, SIGIO tells. Or not ready yet: then wait for a word.
	XORL R10, R10
	MOVL $0x401014, AX           // flags: 8: there will be a byte to read
	MOVL (AX), AX
	TESTL $8, AX
	JNZ  look
	MOVL $0x42, R10              // MSG_PEEK|MSG_DONTWAIT
look:
	MOVL $45, AX                 // recvfrom(status, mask, 1, flags, nil, nil)
	MOVL BX, DI
	LEAQ 32(R15), SI
	MOVL $1, DX
	XORL R8, R8
	XORL R9, R9
	SYSCALL
	CMPQ AX, $-11                // EAGAIN: there is nothing to read, and somebody there
	JEQ  supervised
	TESTQ AX, AX
	JLE  orphaned                // end of file, or a reset
supervised:

	// The workload's process shares our memory until it executes, and we sleep
	// until then. So it can tell us what went wrong without a system call, which
	// its filter might refuse.
	MOVL $56, AX                 // clone(CLONE_VM|CLONE_VFORK|SIGCHLD)
	MOVL $0x4111, DI
	XORL SI, SI
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	SYSCALL
	TESTQ AX, AX
	JZ   workload
	JS   broken
	MOVQ AX, R14
	MOVL 8(R15), AX              // did it execute?
	TESTL AX, AX
	JNZ  report

	MOVL $-1, 24(R15)            // say: started, as this pid
	MOVL R14, 28(R15)
	MOVL $1, AX                  // write(status, message, 8)
	MOVL BX, DI
	LEAQ 24(R15), SI
	MOVL $8, DX
	SYSCALL

	MOVL $0x401014, AX           // flags: 2 detaches us: nobody supervises us any more
	MOVL (AX), AX
	TESTL $2, AX
	JZ   drop
	MOVL $0x401018, AX
	MOVL (AX), BX                // what is said from here on is the exit
drop:

	// What the workload inherited is not ours to hold.
	MOVL $436, AX                // close_range(0, status-1, 0)
	XORL DI, DI
	LEAL -1(BX), SI
	XORL DX, DX
	SYSCALL
	MOVL $436, AX                // close_range(status+1, max, 0)
	LEAL 1(BX), DI
	MOVL $-1, SI
	XORL DX, DX
	SYSCALL

wait:
	MOVL $128, AX                // rt_sigtimedwait(all, info, nil, 8)
	LEAQ 0(R15), DI
	LEAQ 32(R15), SI
	XORL DX, DX
	MOVL $8, R10
	SYSCALL
	CMPQ AX, $17                 // SIGCHLD
	JEQ  reap
	CMPQ AX, $29                 // SIGIO: something about the status socket
	JEQ  lifeline
	CMPQ AX, $14                 // SIGALRM
	JEQ  alarm
	TESTQ AX, AX
	JLE  wait                    // EINTR
forward:
	MOVQ AX, SI                  // anything else is for the workload
	MOVQ R14, DI
	MOVL $62, AX                 // kill(workload, signal)
	SYSCALL
	JMP  wait

alarm:
	MOVL $0x401014, AX           // flags: 16: there is a timer
	MOVL (AX), AX
	TESTL $16, AX
	JZ   theirs
	MOVL $36, AX                 // getitimer(ITIMER_REAL, value): who else sends the signal may
	XORL DI, DI                  // have had that of the timer's end merged into his
	LEAQ 32(R15), SI
	SYSCALL
	MOVQ 48(R15), AX             // what is left: seconds
	ORQ  56(R15), AX             // and microseconds
	JZ   expired
theirs:
	MOVL $14, AX
	JMP  forward
expired:
	MOVL $-5, 24(R15)            // say so, with the wait status of a killed one
	MOVL $9, 28(R15)
	MOVL $1, AX                  // write(exit, message, 8)
	MOVL BX, DI
	LEAQ 24(R15), SI
	MOVL $8, DX
	SYSCALL
	MOVL $137, DI
	JMP  exit

lifeline:
	MOVL $0x401014, AX           // flags: 2, as above
	MOVL (AX), AX
	TESTL $2, AX
	JNZ  wait
	MOVL $45, AX                 // recvfrom, as above: end of file or a reset means that nobody supervises us
	MOVL BX, DI
	LEAQ 32(R15), SI
	MOVL $1, DX
	MOVL $0x42, R10
	XORL R8, R8
	XORL R9, R9
	SYSCALL
	CMPQ AX, $-11                // EAGAIN, as above
	JEQ  wait
	TESTQ AX, AX
	JG   wait
orphaned:
	MOVL $0x401014, AX           // flags: 4: we joined a sandbox, and are not its process 1
	MOVL (AX), AX
	TESTL $4, AX
	JZ   end                     // the kernel kills all the others
	TESTL R14, R14
	JZ   end                     // there is none yet
	MOVQ R14, DI
	NEGQ DI
	MOVL $9, SI
	MOVL $62, AX                 // kill(-workload, SIGKILL): its process group
	SYSCALL
	MOVQ R14, DI
	MOVL $9, SI
	MOVL $62, AX                 // kill(workload, SIGKILL)
	SYSCALL
	JMP  wait                    // its end is ours
end:
	MOVL $137, DI                // as if killed
	JMP  exit

reap:
	MOVL $61, AX                 // wait4(-1, &status, WNOHANG, nil)
	MOVQ $-1, DI
	LEAQ 16(R15), SI
	MOVL $1, DX
	XORL R10, R10
	SYSCALL
	TESTQ AX, AX
	JLE  wait                    // none left to reap now
	CMPQ AX, R14
	JNE  reap                    // an orphan: gone, and no business of ours

	MOVL 16(R15), R14            // the workload's status: say it, then exit alike
	MOVL $-3, 24(R15)
	MOVL R14, 28(R15)
	MOVL $1, AX                  // write(status, message, 8)
	MOVL BX, DI
	LEAQ 24(R15), SI
	MOVL $8, DX
	SYSCALL
	MOVL R14, DI
	ANDL $0x7f, DI
	JNZ  signalled
	MOVL R14, DI
	SHRL $8, DI
	ANDL $0xff, DI
	JMP  exit
signalled:
	ADDL $128, DI
	JMP  exit

workload:
	MOVL $-6, 12(R15)            // what fails from here on is its session
	MOVL $0x401014, AX           // flags: 1 makes descriptor 0 the controlling terminal
	MOVL (AX), R8
	TESTL $4, R8
	JZ   place
	MOVL $157, AX                // prctl(PR_SET_PDEATHSIG, SIGKILL): joined, it ends with us
	MOVL $1, DI
	MOVL $9, SI
	XORL DX, DX
	XORL R10, R10
	SYSCALL
	TESTQ AX, AX
	JS   failed
place:
	TESTL $1, R8
	JNZ  session
	MOVL $109, AX                // setpgid(0, 0): in our session it can be stopped by a signal
	XORL DI, DI
	XORL SI, SI
	SYSCALL
	TESTQ AX, AX
	JS   failed
	JMP  unmask
session:
	MOVL $112, AX                // setsid(): a terminal needs a session of its own
	SYSCALL
	TESTQ AX, AX
	JS   failed
	MOVL $16, AX                 // ioctl(0, TIOCSCTTY, 0)
	XORL DI, DI
	MOVL $0x540e, SI
	XORL DX, DX
	SYSCALL
	TESTQ AX, AX
	JS   failed
unmask:
	MOVQ $0, 32(R15)
	MOVL $14, AX                 // rt_sigprocmask(SIG_SETMASK, none, nil, 8)
	MOVL $2, DI
	LEAQ 32(R15), SI
	XORL DX, DX
	MOVL $8, R10
	SYSCALL
	MOVL $0x401000, DX           // the data page: sock_fprog, or length 0
	MOVWLZX (DX), AX
	TESTL AX, AX
	JZ   find
	MOVL $-7, 12(R15)            // its filter
	MOVL $317, AX                // seccomp(SECCOMP_SET_MODE_FILTER, 0, fprog)
	MOVL $1, DI
	XORL SI, SI
	SYSCALL
	TESTQ AX, AX
	JNZ  failed

find:                            // the arguments begin after the empty string
	MOVL $-2, 12(R15)            // its program
	MOVQ R12, R8
next:
	MOVQ (R8), AX
	ADDQ $8, R8
	MOVBLZX (AX), AX
	TESTL AX, AX
	JNZ  next
	MOVL $-2, R9                 // nothing found yet: ENOENT
try:
	MOVQ (R12), DI
	ADDQ $8, R12
	MOVBLZX (DI), AX
	TESTL AX, AX
	JZ   none
	MOVL $59, AX                 // execve(candidate, arguments, envp)
	MOVQ R8, SI
	MOVQ R13, DX
	SYSCALL
	CMPQ AX, $-2                 // ENOENT
	JEQ  try
	CMPQ AX, $-20                // ENOTDIR
	JEQ  try
	CMPQ AX, $-13                // EACCES: remember it, look further
	JNE  failed
	MOVL AX, R9
	JMP  try
none:
	MOVL R9, AX
failed:                          // leave -errno where process 1 finds it
	MOVL AX, 8(R15)
	XORL DI, DI
	JMP  exit

broken:                          // process 1 itself could not go on: -errno in AX
	MOVL AX, 8(R15)
report:
	TESTL R14, R14
	JZ   say
	MOVL $61, AX                 // wait4(workload, nil, 0, nil): joined, nobody else in the
	MOVQ R14, DI                 // sandbox could take it away
	XORL SI, SI
	XORL DX, DX
	XORL R10, R10
	SYSCALL
say:
	MOVL 12(R15), AX             // say: not started because of this, this -errno
	MOVL AX, 24(R15)
	MOVL 8(R15), AX
	MOVL AX, 28(R15)
	MOVL $1, AX                  // write(status, message, 8)
	MOVL BX, DI
	LEAQ 24(R15), SI
	MOVL $8, DX
	SYSCALL
	MOVL $127, DI
exit:
	MOVL $231, AX                // exit_group
	SYSCALL
	UNDEF                        // the workload's filter refuses even that
	BYTE $'p'; BYTE $'i'; BYTE $'d'; BYTE $'1'; BYTE $'e'; BYTE $'n'; BYTE $'d'; BYTE $'!'
	RET

// func codeAddr() uintptr
TEXT ·codeAddr(SB), NOSPLIT, $0-8
	LEAQ ·initAMD64(SB), AX
	MOVQ AX, ret+0(FP)
	RET
