package probe

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// askPrograms answers questions about programs that are started.
func askPrograms(verb string, a []string) (string, bool) {
	switch verb {
	case "exec":
		return end(exec.Command(word(a, 0)).Run()), true
	case "elf": // written to a place, and run
		if err := os.WriteFile(word(a, 0), program(word(a, 1)), 0o755); err != nil {
			return "write: " + verdict(err), true
		}
		defer os.Remove(word(a, 0))
		return end(exec.Command(word(a, 0)).Run()), true
	case "memory": // run from memory
		return inMemory(word(a, 0), func(path string) string { return end(exec.Command(path).Run()) }), true
	case "fork":
		return inMemory("pause", func(path string) string { return forks(path, int(number(word(a, 0)))) }), true
	case "setuid":
		return setuid(word(a, 0), word(a, 1)), true
	}
	return "", false
}

// end says how a program ended, or why it did not start.
func end(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return verdict(err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return kernel.SignalName(ws.Signal())
	}
	return "exit " + strconv.Itoa(exit.ExitCode())
}

// inMemory makes a program that is in no file system.
func inMemory(name string, use func(path string) string) string {
	code := program(name)
	if code == nil {
		return "no such program here"
	}
	image, err := kernel.SealedImage(name, code)
	if err != nil {
		return "memfd: " + verdict(err)
	}
	f := image.File(name)
	defer f.Close()
	return use(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), image))
}

// forks starts small programs until the kernel says no, at most so many, and
// ends them again.
func forks(path string, most int) string {
	var pids []int
	var err error
	for len(pids) < most && err == nil {
		var pid int
		if pid, err = syscall.ForkExec(path, []string{"pause"}, &syscall.ProcAttr{}); err == nil {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // our own child, not yet waited for
	}
	for _, pid := range pids {
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
	return fmt.Sprintf("%s after %d", verdict(err), len(pids))
}

// setuid runs a program that asks to become another user, and says whether it
// did. The program is to print its help, and finds the pipe full. With a user, it
// is started as that one, which takes root.
func setuid(path, as string) string {
	r, w, err := os.Pipe()
	if err != nil {
		return verdict(err)
	}
	defer r.Close()
	if err := kernel.FillPipe(kernel.FD(w.Fd())); err != nil {
		return verdict(err)
	}
	cmd := exec.Command(path, "--help")
	cmd.Stdout, cmd.Stderr = w, w
	want := os.Getuid()
	if as != "" {
		want = int(number(as))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(want), Gid: uint32(want)}}
	}
	err = cmd.Start()
	_ = w.Close() // the program has it
	if err != nil {
		return verdict(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for range 100 {
		ids, state := effective(cmd.Process.Pid)
		switch {
		case ids == "":
			return "it cannot be looked at"
		case ids != strconv.Itoa(want):
			return "ok:became " + ids
		case strings.HasPrefix(state, "S"), strings.HasPrefix(state, "Z"): // it waits for the pipe
			return "ok:stayed"
		}
		time.Sleep(time.Millisecond)
	}
	return "ok:stayed"
}

// effective is the effective user of a process, and its state.
func effective(pid int) (uid, state string) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // gone is nothing
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 2 && f[0] == "Uid:":
			uid = f[2]
		case len(f) > 1 && f[0] == "State:":
			state = f[1]
		}
	}
	return uid, state
}

// act does something instead of answering.
func act(w []string) (code int, ok bool) {
	switch word(w, 0) {
	case "eat": // so many MiB
		var kept [][]byte
		for range number(word(w, 1)) {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			kept = append(kept, b)
		}
		fmt.Println("ate", len(kept))
		return 0, true
	case "hang":
		fmt.Println("hanging")
		time.Sleep(time.Hour)
		return 0, true
	case "daemon": // leave somebody behind who does not hang on us
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = append(os.Args[:len(os.Args)-1:len(os.Args)-1], "hang")
		cmd.Stdout = os.Stdout
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return exitFailed, true
		}
		fmt.Println("left")
		return 0, true
	}
	return 0, false
}
