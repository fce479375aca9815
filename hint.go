package nucleus

import (
	"errors"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/enter"
)

// hints say what a person can do about a failed step. The first row that fits
// counts; an empty field fits all, and so does no errno.
var hints = []struct {
	op      string
	because string
	errno   syscall.Errno
	root    bool // only for privileged callers
	hint    string
}{
	{op: "clone3", errno: syscall.EPERM, hint: "user namespaces are restricted here; `nucleus doctor`, line userns, says by what"},
	{op: "clone3", errno: syscall.ENOSPC, hint: "a limit on namespaces is reached; see /proc/sys/user/max_user_namespaces and its neighbours"},
	{op: "clone3", errno: syscall.ENOSYS, hint: "the kernel or an outer seccomp filter does not let clone3 through; Nucleus needs Linux 5.14 and, in a container, a profile that allows clone3"},
	{op: "clone3", errno: syscall.EAGAIN, hint: "the limit on processes is reached: of this user (ulimit -u), of the control group, or of the sandbox (--pids)"},
	{op: "open_tree", errno: syscall.EINVAL, root: true, hint: "the file system of this directory, or one that is mounted below it, cannot translate owners (idmapped mounts); name only what is needed below it, use another file system, or --userns host"},
	{op: "open_tree", errno: syscall.EPERM, root: true, hint: "the file system of this directory, or one that is mounted below it, cannot translate owners (idmapped mounts); name only what is needed below it, use another file system, or --userns host"},
	{op: "open_tree", errno: syscall.EACCES, hint: "you may not look into this directory, or into one that leads to it"},
	{op: "move_mount", errno: syscall.ENOENT, hint: "the place is inside another volume and does not exist there: create it on the host first"},
	{op: "move_mount", errno: syscall.ENOTDIR, hint: "a directory can only be mounted on a directory, a file only on a file"},
	{op: "mkdir", errno: syscall.EROFS, hint: "the place is inside something read-only and does not exist there"},
	{op: "fsconfig", because: "proc", errno: syscall.EPERM, hint: "the kernel lets a user namespace mount proc only where the outer proc has nothing mounted over it; inside a container, start that with an unmasked /proc"},
	{op: "fsmount", because: "proc", errno: syscall.EPERM, hint: "the kernel lets a user namespace mount proc only where the outer proc has nothing mounted over it; inside a container, start that with an unmasked /proc"},
	{op: "chdir", because: "workdir", errno: syscall.ENOENT, hint: "the working directory does not exist inside the sandbox; --workdir chooses another"},
	{op: "execve", errno: syscall.ENOENT, hint: "it must exist inside the sandbox: in a directory of PATH, or by a path that is mounted; for a script, its interpreter must exist too"},
	{op: "execve", errno: syscall.EACCES, hint: "it is not executable, or its mount is: host directories and scratch space are noexec unless `exec` is added (--volume SRC:DST:ro,exec)"},
	{op: "execve", errno: syscall.ENOEXEC, hint: "it is not a program for this machine, or a script without a #! line"},
	{op: "rootfs.verify", hint: "if the change was yours, look at it and write a new manifest with `nucleus rootfs attest DIR`"},
	{op: "read", because: "mode", hint: "`nucleus plan` shows what should be mounted; a mount below a directory that is shown comes with it, and a link in it leads what is mounted below elsewhere"},
	{op: "execve", errno: syscall.EPERM, hint: "the policy of system calls refuses execve, without which no program starts; `nucleus policy show --call execve` explains it"},
	{op: "open", because: "policy.landlock", errno: syscall.ENOENT, hint: "a path of the Landlock policy does not exist in the sandbox: leave out its rule, or mount something there"},
	{op: "landlock_add_rule", because: "policy.landlock", errno: syscall.EINVAL, hint: "a rule of the Landlock policy is about a file: say file = true there"},
	{op: "cgroup.create", errno: syscall.EEXIST, hint: "another sandbox has this name; choose one with --name"},
	{op: "cgroup.create", errno: syscall.EACCES, hint: "you may not create control groups here; `nucleus doctor`, line cgroup, says what to do"},
}

func hint(step *enter.StepError, h *Host) string {
	for _, row := range hints {
		call, _, _ := strings.Cut(step.Call, " ") // some say what they are about
		if row.op == call && (row.because == "" || row.because == step.Step.Because) &&
			(row.errno == 0 || errors.Is(step.Err, row.errno)) && (!row.root || h.facts.Privileged()) {
			return row.hint
		}
	}
	return ""
}
