package nucleus_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probePath is where the probe program lies in a sandbox. It is this test
// binary: static, so it needs no other file, and it makes its system calls
// itself, so no tool decides what is tried.
//
// Each argument is a question, a verb with its arguments; the answers are a JSON
// list on standard output: "ok", "ok:" with more, or the name of an errno.
const probePath = "/probe"

func probeMain(args []string) int {
	if len(args) > 0 {
		word := strings.Fields(args[0])
		if act, ok := acts[word[0]]; ok {
			return act(word[1:])
		}
	}
	answers := []string{}
	for _, q := range args {
		word := strings.Fields(q)
		verb, ok := verbs[word[0]]
		if !ok {
			fmt.Fprintf(os.Stderr, "no verb %q\n", word[0])
			return 99
		}
		answers = append(answers, verb(word[1:]))
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	return 0
}

// verdict names an error the way the tables do.
func verdict(err error) string {
	if err == nil {
		return "ok"
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		if name := unix.ErrnoName(errno); name != "" {
			return name
		}
	}
	return "error: " + err.Error()
}

func content(s string, err error) string {
	if err != nil {
		return verdict(err)
	}
	return "ok:" + s
}

var openModes = map[string]int{
	"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR, "dir": unix.O_DIRECTORY, "path": unix.O_PATH,
	"tmp": unix.O_TMPFILE | unix.O_WRONLY, "new": unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY,
}

// verbs are the questions.
var verbs = map[string]func([]string) string{
	"open": func(a []string) string {
		fd, err := unix.Open(a[1], openModes[a[0]]|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0o644)
		if err == nil {
			err = unix.Close(fd)
		}
		return verdict(err)
	},
	"read": func(a []string) string {
		f, err := os.Open(a[0])
		if err != nil {
			return verdict(err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, 1<<16))
		return content(string(b), err)
	},
	"write": func(a []string) string {
		fd, err := unix.Open(a[0], unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_, err = unix.Write(fd, []byte(strings.Join(a[1:], " ")))
			err = errors.Join(err, unix.Close(fd))
		}
		return verdict(err)
	},
	"ls": func(a []string) string {
		entries, err := os.ReadDir(a[0])
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return content(strings.Join(names, " "), err)
	},
	"stat": func(a []string) string {
		var st unix.Stat_t
		err := unix.Lstat(a[0], &st)
		return content(fmt.Sprintf("%o %d %d", st.Mode, st.Uid, st.Gid), err)
	},
	"exists": func(a []string) string {
		var st unix.Stat_t
		return verdict(unix.Lstat(a[0], &st))
	},
	"readlink": func(a []string) string { return content(os.Readlink(a[0])) },
	"mkdir":    func(a []string) string { return verdict(unix.Mkdir(a[0], 0o755)) },
	"setuid":   setUserID,
	"chmod":    func(a []string) string { return verdict(unix.Chmod(a[0], 0o600)) },
	"remove":   func(a []string) string { return verdict(os.Remove(a[0])) },
	"rename":   func(a []string) string { return verdict(unix.Rename(a[0], a[1])) },
	"chown":    func(a []string) string { return verdict(unix.Lchown(a[0], number(a[1]), number(a[1]))) },
	"run": func(a []string) string { // a middle dot stands for a space in an argument
		var arg []string
		for _, w := range a[1:] {
			arg = append(arg, strings.ReplaceAll(w, "·", " "))
		}
		return runStatus(a[0], arg...)
	},
	// elf writes a small program and runs it.
	"elf": func(a []string) string {
		if err := os.WriteFile(a[0], tinyPrograms[a[1]], 0o755); err != nil {
			return "write: " + verdict(err)
		}
		return runStatus(a[0])
	},
	// mapexec does what a loader does that is told to run a file of a noexec mount.
	"mapexec": func(a []string) string {
		if err := os.WriteFile(a[0], tinyPrograms["exit7"], 0o755); err != nil {
			return "write: " + verdict(err)
		}
		fd, err := unix.Open(a[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return verdict(err)
		}
		m, err := unix.Mmap(fd, 0, 64, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		if err == nil {
			err = unix.Munmap(m)
		}
		return verdict(errors.Join(err, unix.Close(fd)))
	},
	"listen": func(a []string) string {
		l, err := net.Listen(a[0], a[1])
		if err == nil {
			err = l.Close()
		}
		return verdict(err)
	},
	"connect": func(a []string) string {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return "socket: " + verdict(err)
		}
		defer unix.Close(fd)
		return verdict(unix.Connect(fd, &unix.SockaddrUnix{Name: a[0]}))
	},
	"call":     call,
	"restrict": restrict,
	"fds":      func([]string) string { return "ok:" + openDescriptors() },
	"status":   status,
	"env":      func([]string) string { return "ok:" + strings.Join(os.Environ(), "\n") },
	"rlimit": func(a []string) string {
		var l unix.Rlimit
		err := unix.Getrlimit(number(a[0]), &l)
		return content(fmt.Sprintf("%d %d", int64(l.Cur), int64(l.Max)), err)
	},
	// nofile is the limit on files of a program that is no Go program: those
	// raise their own.
	"nofile": func(a []string) string {
		if err := os.WriteFile(a[0], tinyPrograms["pause"], 0o755); err != nil {
			return "write: " + verdict(err)
		}
		pid, err := syscall.ForkExec(a[0], []string{"pause"}, &syscall.ProcAttr{})
		if err != nil {
			return verdict(err)
		}
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
		_, after, _ := strings.Cut(string(limits), "Max open files")
		f := append(strings.Fields(after), "", "")
		return content(f[0]+" "+f[1], err)
	},
	// sid says whether this is a session of the sandbox's own: its leader is in sight.
	"sid": func([]string) string {
		sid, err := unix.Getsid(0)
		return content(strconv.FormatBool(sid > 0), err)
	},
	"umask": func([]string) string { return fmt.Sprintf("ok:%04o", unix.Umask(0)) },
	"cwd": func([]string) string {
		buf := make([]byte, 4096) // the raw call: a path outside the root begins with "(unreachable)"
		n, _, errno := unix.RawSyscall(unix.SYS_GETCWD, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0)
		if errno != 0 {
			return verdict(errno)
		}
		return "ok:" + string(buf[:n-1])
	},
	"ids": func([]string) string {
		groups, err := unix.Getgroups()
		return content(fmt.Sprintf("%d %d %d %d %v", unix.Getuid(), unix.Geteuid(), unix.Getgid(), unix.Getegid(), groups), err)
	},
	"net": func([]string) string {
		all, err := net.Interfaces()
		var out []string
		for _, i := range all {
			out = append(out, i.Name+" "+i.Flags.String())
		}
		return content(strings.Join(out, "; "), err)
	},
	// loopback talks TCP to itself.
	"loopback": func([]string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return verdict(err)
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			err = c.Close()
		}
		return verdict(err)
	},
	"dial": func(a []string) string {
		c, err := net.DialTimeout(a[0], a[1], 5*time.Second)
		if err == nil {
			err = c.Close()
		}
		return verdict(err)
	},
	"hostname": func([]string) string { return content(os.Hostname()) },
	"isatty": func(a []string) string {
		_, err := unix.IoctlGetTermios(number(a[0]), unix.TCGETS)
		return verdict(err)
	},
	"winsize": func(a []string) string {
		w, err := unix.IoctlGetWinsize(number(a[0]), unix.TIOCGWINSZ)
		if err != nil {
			return verdict(err)
		}
		return fmt.Sprintf("ok:%dx%d", w.Row, w.Col)
	},
	"prctl": func(a []string) string {
		n, err := unix.PrctlRetInt(number(a[0]), 0, 0, 0, 0)
		return content(strconv.Itoa(n), err)
	},
	"keyring": func([]string) string {
		id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
		return content(strconv.Itoa(id), err)
	},
	"kill": func(a []string) string { return verdict(unix.Kill(number(a[0]), syscall.Signal(number(a[1])))) },
	"fork": forkUntilRefused,
	"mlock": func(a []string) string {
		m, err := unix.Mmap(-1, 0, number(a[0]), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			err = unix.Mlock(m)
		}
		return verdict(err)
	},
	"files": func(a []string) string { // makes so many empty ones in a directory
		for i := range number(a[1]) {
			if fd, err := unix.Open(a[0]+"/"+strconv.Itoa(i), unix.O_CREAT|unix.O_WRONLY, 0o600); err != nil {
				return verdict(err)
			} else if err := unix.Close(fd); err != nil {
				return verdict(err)
			}
		}
		return "ok"
	},
	"fill": func(a []string) string {
		err := os.WriteFile(a[0], make([]byte, number(a[1])<<20), 0o600)
		_ = os.Remove(a[0])
		return verdict(err)
	},
	// orphans makes processes that end after their parents have, and counts what
	// is left of them.
	"orphans": func(a []string) string {
		var all sync.WaitGroup
		for range number(a[0]) {
			all.Go(func() { _ = exec.Command(probePath, "orphan").Run() })
		}
		all.Wait()
		left := 0
		for range 200 { // they may still be running
			left = 0
			found, _ := filepath.Glob("/proc/[0-9]*")
			for _, p := range found {
				if p != fmt.Sprintf("/proc/%d", os.Getpid()) {
					left++
				}
			}
			if left == 0 {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		return fmt.Sprintf("ok:%d", left)
	},
	"isfile": func(a []string) string { // what a descriptor is
		return content(os.Readlink("/proc/self/fd/" + a[0]))
	},
	"readfd": func(a []string) string {
		b := make([]byte, 4096)
		n, err := unix.Read(number(a[0]), b)
		return content(string(b[:max(n, 0)]), err)
	},
}

func number(s string) int {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		u, _ := strconv.ParseUint(s, 0, 64)
		return int(u)
	}
	return int(n)
}

// runStatus runs a program and says how it ended, or why it did not start.
func runStatus(path string, arg ...string) string {
	cmd := exec.Command(path, arg...)
	cmd.Env = []string{"GOTRACEBACK=none"}
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "ok:" + strings.TrimSpace(string(out))
	case !errors.As(err, &exit):
		return verdict(err)
	}
	if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
		return unix.SignalName(ws.Signal())
	}
	return "exit " + strconv.Itoa(exit.ExitCode())
}

// call makes one system call. An argument is a number, s:TEXT for a string,
// x:HEX for bytes or z:N for so many zeros; the last three are passed by address.
func call(a []string) string {
	var arg [6]uintptr
	var keep [][]byte
	pointer := func(b []byte) uintptr {
		b = append(b, make([]byte, 8)...)
		keep = append(keep, b)
		return uintptr(unsafe.Pointer(&b[0]))
	}
	nr := uintptr(number(a[0]))
	for i, w := range a[1:] {
		kind, rest, ok := strings.Cut(w, ":")
		switch {
		case !ok:
			arg[i] = uintptr(number(w))
		case kind == "s":
			arg[i] = pointer(append([]byte(rest), 0))
		case kind == "z":
			arg[i] = pointer(make([]byte, number(rest)))
		case kind == "x":
			b, _ := hex.DecodeString(rest)
			arg[i] = pointer(b)
		}
	}
	r, _, errno := unix.RawSyscall6(nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5])
	if r == 0 && errno == 0 && (nr == unix.SYS_CLONE || nr == unix.SYS_CLONE3) {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	for _, b := range keep {
		b[len(b)-1] = 0 // alive until here
	}
	if errno != 0 {
		return verdict(errno)
	}
	return "ok"
}

func openDescriptors() string {
	var open []string
	for fd := range 4096 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			open = append(open, strconv.Itoa(fd))
		}
	}
	return strings.Join(open, " ")
}

// status is one field of /proc/self/status.
func status(a []string) string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return verdict(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, a[0]+":"); ok {
			return "ok:" + strings.Join(strings.Fields(v), " ")
		}
	}
	return "no such field"
}

// forkUntilRefused starts small programs until the kernel says no, at most as
// many as it is told, and ends them again.
func forkUntilRefused(a []string) string {
	path := filepath.Join(os.TempDir(), "pause")
	if len(a) > 1 {
		path = filepath.Join(a[1], "pause")
	}
	if err := os.WriteFile(path, tinyPrograms["pause"], 0o755); err != nil {
		return "write: " + verdict(err)
	}
	var pids []int
	var err error
	for len(pids) < number(a[0]) && err == nil {
		var pid int
		if pid, err = syscall.ForkExec(path, []string{"pause"}, &syscall.ProcAttr{}); err == nil {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	for _, pid := range pids {
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	return fmt.Sprintf("%s after %d", verdict(err), len(pids))
}

// acts are what the probe does instead of answering.
var acts = map[string]func([]string) int{
	"exit": func(a []string) int { return number(a[0]) },
	"die": func(a []string) int {
		_ = unix.Kill(os.Getpid(), syscall.Signal(number(a[0])))
		time.Sleep(time.Minute)
		return 98
	},
	"hang": func([]string) int { fmt.Println("hanging"); time.Sleep(time.Hour); return 0 },
	"spin": func([]string) int {
		fmt.Println("spinning")
		for {
		}
	},
	"say": func(a []string) int { fmt.Println(strings.Join(a, " ")); return 0 },
	"both": func([]string) int {
		fmt.Fprint(os.Stdout, "out")
		fmt.Fprint(os.Stderr, "err")
		return 0
	},
	"many": func(a []string) int {
		for i := range number(a[0]) {
			fmt.Println(i)
		}
		return 0
	},
	"cat": func([]string) int {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return code(err)
	},
	// signals names the signals that it gets, until HUP.
	"signals": func([]string) int {
		c := make(chan os.Signal, 16)
		signal.Notify(c, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP)
		fmt.Println("ready")
		for s := range c {
			fmt.Println(unix.SignalName(s.(syscall.Signal)))
			if s == unix.SIGHUP {
				return 9
			}
		}
		return 0
	},
	// resized prints the size of its terminal now and at every change, three times in all.
	"resized": func([]string) int {
		c := make(chan os.Signal, 16)
		signal.Notify(c, unix.SIGWINCH)
		for range 3 {
			w, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
			if err != nil {
				return code(err)
			}
			fmt.Printf("%dx%d\n", w.Row, w.Col)
			if w.Col == 99 {
				return 0
			}
			<-c
		}
		return 0
	},
	// daemon leaves a process behind that has nothing to do with us any more. With
	// "stay" it does not end itself either.
	"daemon": func(a []string) int {
		cmd := exec.Command(probePath, "fork-away")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Run(); err != nil {
			return code(err)
		}
		fmt.Println("gone")
		if len(a) > 0 {
			time.Sleep(time.Hour)
		}
		return 0
	},
	"fork-away": func([]string) int {
		cmd := exec.Command(probePath, "hang")
		cmd.Stdout = os.Stdout
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return code(cmd.Start())
	},
	// eat touches that many MiB and keeps them.
	"eat": func(a []string) int {
		var all [][]byte
		for range number(a[0]) {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
		}
		fmt.Println("ate", len(all))
		return 0
	},
	"orphan": func([]string) int {
		return code(exec.Command(probePath, "exit 0").Start())
	},
}

func code(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 97
	}
	return 0
}
