#include "textflag.h"

// The program of process 1 for arm64: see init_amd64.s, which it follows block
// for block.
//
//	R20 = argv[1:]   R21 = envp   R22 = the workload's pid, 0 before there is one
//	R19 = the status descriptor, later the exit's
//	R23 = scratch:   0 signal mask, 8 errno of the workload's start, 12 kind of
//	                 its message, 16 wait status, 24 message (kind, value), 32 siginfo
TEXT ·initARM64(SB), NOSPLIT|NOFRAME, $0-0
	MOVD RSP, R9
	MOVD (R9), R10               // argc
	ADD  $16, R9, R20            // &argv[1]
	ADD  R10<<3, R20, R21        // envp = &argv[argc+1]
	SUB  $256, R9, R23
	AND  $~15, R23, R23
	MOVD R23, RSP
	MOVD ZR, R22
	MOVD $0x401010, R9
	MOVWU (R9), R19              // the status descriptor

	MOVD $-1, R9
	MOVD R9, 0(R23)
	MOVW ZR, 8(R23)
	MOVW $-8, R9                 // what fails from here on is process 1
	MOVW R9, 12(R23)
	MOVD $135, R8                // rt_sigprocmask(SIG_SETMASK, all, nil, 8)
	MOVD $2, R0
	MOVD R23, R1
	MOVD ZR, R2
	MOVD $8, R3
	SVC

	MOVD $167, R8                // prctl(PR_SET_DUMPABLE, 0)
	MOVD $4, R0
	MOVD ZR, R1
	MOVD ZR, R2
	MOVD ZR, R3
	MOVD ZR, R4
	SVC
	CBNZ R0, broken

	MOVD $25, R8                 // fcntl(status, F_SETFD, FD_CLOEXEC)
	MOVD R19, R0
	MOVD $2, R1
	MOVD $1, R2
	SVC
	CBNZ R0, broken

	MOVD $172, R8                // getpid()
	SVC
	MOVD R0, R2
	MOVD $25, R8                 // fcntl(status, F_SETOWN, pid)
	MOVD R19, R0
	MOVD $8, R1
	SVC
	CBNZ R0, broken

	MOVD $0x401018, R9
	MOVW (R9), R0                // the exit descriptor, or -1
	TBNZ $63, R0, private
	MOVD $25, R8                 // fcntl(exit, F_SETFD, FD_CLOEXEC)
	MOVD $2, R1
	MOVD $1, R2
	SVC
	CBNZ R0, broken
private:

	MOVD ZR, R3
	MOVD $0x401014, R9           // flags: 8: there will be a byte to read
	MOVWU (R9), R9
	TBNZ $3, R9, look
	MOVD $0x42, R3               // MSG_PEEK|MSG_DONTWAIT
look:
	MOVD $207, R8                // recvfrom(status, info, 1, flags, nil, nil)
	MOVD R19, R0
	ADD  $32, R23, R1
	MOVD $1, R2
	MOVD ZR, R4
	MOVD ZR, R5
	SVC
	CMN  $11, R0                 // EAGAIN: there is nothing to read, and somebody there
	BEQ  supervised
	CMP  $0, R0
	BLE  orphaned                // end of file, or a reset
supervised:

	MOVD $220, R8                // clone(CLONE_VM|CLONE_VFORK|SIGCHLD)
	MOVD $0x4111, R0
	MOVD ZR, R1
	MOVD ZR, R2
	MOVD ZR, R3
	MOVD ZR, R4
	SVC
	CBZ  R0, workload
	TBNZ $63, R0, broken
	MOVD R0, R22
	MOVWU 8(R23), R9             // did it execute?
	CBNZ R9, report

	MOVW $-1, R9                 // say: started, as this pid
	MOVW R9, 24(R23)
	MOVW R22, 28(R23)
	MOVD $64, R8                 // write(status, message, 8)
	MOVD R19, R0
	ADD  $24, R23, R1
	MOVD $8, R2
	SVC

	MOVD $0x401014, R9           // flags: 2 detaches us
	MOVWU (R9), R9
	TBZ  $1, R9, drop
	MOVD $0x401018, R9
	MOVWU (R9), R19              // what is said from here on is the exit
drop:

	MOVD $436, R8                // close_range(0, status-1, 0)
	MOVD ZR, R0
	SUB  $1, R19, R1
	MOVD ZR, R2
	SVC
	MOVD $436, R8                // close_range(status+1, max, 0)
	ADD  $1, R19, R0
	MOVD $0xffffffff, R1
	MOVD ZR, R2
	SVC

wait:
	MOVD $137, R8                // rt_sigtimedwait(all, info, nil, 8)
	MOVD R23, R0
	ADD  $32, R23, R1
	MOVD ZR, R2
	MOVD $8, R3
	SVC
	CMP  $17, R0                 // SIGCHLD
	BEQ  reap
	CMP  $29, R0                 // SIGIO
	BEQ  lifeline
	CMP  $14, R0                 // SIGALRM
	BEQ  alarm
	CMP  $0, R0
	BLE  wait                    // EINTR
forward:
	MOVD R0, R1
	MOVD R22, R0
	MOVD $129, R8                // kill(workload, signal)
	SVC
	B    wait

alarm:
	MOVD $0x401014, R9           // flags: 16: there is a timer
	MOVWU (R9), R9
	TBZ  $4, R9, theirs
	MOVD $102, R8                // getitimer(ITIMER_REAL, value)
	MOVD ZR, R0
	ADD  $32, R23, R1
	SVC
	MOVD 48(R23), R9             // what is left: seconds
	MOVD 56(R23), R10            // and microseconds
	ORR  R10, R9, R9
	CBZ  R9, expired
theirs:
	MOVD $14, R0
	B    forward
expired:
	MOVW $-5, R9
	MOVW R9, 24(R23)
	MOVW $9, R9
	MOVW R9, 28(R23)
	MOVD $64, R8                 // write(exit, message, 8)
	MOVD R19, R0
	ADD  $24, R23, R1
	MOVD $8, R2
	SVC
	MOVD $137, R0
	B    exit

lifeline:
	MOVD $0x401014, R9           // flags: 2, as above
	MOVWU (R9), R9
	TBNZ $1, R9, wait
	MOVD $207, R8                // recvfrom, as above
	MOVD R19, R0
	ADD  $32, R23, R1
	MOVD $1, R2
	MOVD $0x42, R3
	MOVD ZR, R4
	MOVD ZR, R5
	SVC
	CMN  $11, R0                 // EAGAIN, as above
	BEQ  wait
	CMP  $0, R0
	BGT  wait
orphaned:
	MOVD $0x401014, R9           // flags: 4: we joined a sandbox
	MOVWU (R9), R9
	TBZ  $2, R9, end
	CBZ  R22, end
	NEG  R22, R0
	MOVD $9, R1
	MOVD $129, R8                // kill(-workload, SIGKILL)
	SVC
	MOVD R22, R0
	MOVD $9, R1
	MOVD $129, R8                // kill(workload, SIGKILL)
	SVC
	B    wait                    // its end is ours
end:
	MOVD $137, R0
	B    exit

reap:
	MOVD $260, R8                // wait4(-1, &status, WNOHANG, nil)
	MOVD $-1, R0
	ADD  $16, R23, R1
	MOVD $1, R2
	MOVD ZR, R3
	SVC
	CMP  $0, R0
	BLE  wait
	CMP  R22, R0
	BNE  reap

	MOVWU 16(R23), R22           // the workload's status: say it, then exit alike
	MOVW $-3, R9
	MOVW R9, 24(R23)
	MOVW R22, 28(R23)
	MOVD $64, R8                 // write(status, message, 8)
	MOVD R19, R0
	ADD  $24, R23, R1
	MOVD $8, R2
	SVC
	AND  $0x7f, R22, R0
	CBNZ R0, signalled
	LSR  $8, R22, R0
	AND  $0xff, R0, R0
	B    exit
signalled:
	ADD  $128, R0, R0
	B    exit

workload:
	MOVW $-6, R9                 // what fails from here on is its session
	MOVW R9, 12(R23)
	MOVD $0x401014, R9           // flags: 1 makes descriptor 0 the controlling terminal
	MOVWU (R9), R25
	TBZ  $2, R25, place
	MOVD $167, R8                // prctl(PR_SET_PDEATHSIG, SIGKILL)
	MOVD $1, R0
	MOVD $9, R1
	MOVD ZR, R2
	MOVD ZR, R3
	SVC
	TBNZ $63, R0, failed
place:
	TBNZ $0, R25, session
	MOVD $154, R8                // setpgid(0, 0): in our session it can be stopped by a signal
	MOVD ZR, R0
	MOVD ZR, R1
	SVC
	TBNZ $63, R0, failed
	B    unmask
session:
	MOVD $157, R8                // setsid(): a terminal needs a session of its own
	SVC
	TBNZ $63, R0, failed
	MOVD $29, R8                 // ioctl(0, TIOCSCTTY, 0)
	MOVD ZR, R0
	MOVD $0x540e, R1
	MOVD ZR, R2
	SVC
	TBNZ $63, R0, failed
unmask:
	MOVD ZR, 32(R23)
	MOVD $135, R8                // rt_sigprocmask(SIG_SETMASK, none, nil, 8)
	MOVD $2, R0
	ADD  $32, R23, R1
	MOVD ZR, R2
	MOVD $8, R3
	SVC
	MOVD $0x401000, R2           // the data page: sock_fprog, or length 0
	MOVHU (R2), R9
	CBZ  R9, find
	MOVW $-7, R9                 // its filter
	MOVW R9, 12(R23)
	MOVD $277, R8                // seccomp(SECCOMP_SET_MODE_FILTER, 0, fprog)
	MOVD $1, R0
	MOVD ZR, R1
	SVC
	CBNZ R0, failed

find:
	MOVW $-2, R9                 // its program
	MOVW R9, 12(R23)
	MOVD R20, R10
next:
	MOVD (R10), R9
	ADD  $8, R10, R10
	MOVBU (R9), R9
	CBNZ R9, next
	MOVD $-2, R11                // nothing found yet: ENOENT
try:
	MOVD (R20), R0
	ADD  $8, R20, R20
	MOVBU (R0), R9
	CBZ  R9, none
	MOVD $221, R8                // execve(candidate, arguments, envp)
	MOVD R10, R1
	MOVD R21, R2
	SVC
	CMN  $2, R0                  // ENOENT
	BEQ  try
	CMN  $20, R0                 // ENOTDIR
	BEQ  try
	CMN  $13, R0                 // EACCES
	BNE  failed
	MOVD R0, R11
	B    try
none:
	MOVD R11, R0
failed:
	MOVW R0, 8(R23)
	MOVD ZR, R0
	B    exit

broken:
	MOVW R0, 8(R23)
report:
	CBZ  R22, say
	MOVD $260, R8                // wait4(workload, nil, 0, nil)
	MOVD R22, R0
	MOVD ZR, R1
	MOVD ZR, R2
	MOVD ZR, R3
	SVC
say:
	MOVWU 12(R23), R9            // say: not started because of this, this -errno
	MOVW R9, 24(R23)
	MOVWU 8(R23), R9
	MOVW R9, 28(R23)
	MOVD $64, R8                 // write(status, message, 8)
	MOVD R19, R0
	ADD  $24, R23, R1
	MOVD $8, R2
	SVC
	MOVD $127, R0
exit:
	MOVD $94, R8                 // exit_group
	SVC
	UNDEF                        // the workload's filter refuses even that
	WORD $0x31646970             // "pid1"
	WORD $0x21646e65             // "end!"
	RET

// func codeAddr() uintptr
TEXT ·codeAddr(SB), NOSPLIT, $0-8
	MOVD $·initARM64(SB), R0
	MOVD R0, ret+0(FP)
	RET
