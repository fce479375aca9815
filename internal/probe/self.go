package probe

import (
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// askSelf answers questions about this process and what it may ask for.
func askSelf(verb string, a []string) (string, bool) {
	switch verb {
	case "call":
		return call(a), true
	case "status":
		return status(word(a, 0)), true
	case "env":
		return "ok:" + variables(), true
	case "limit":
		soft, hard, err := kernel.ReadLimit(int(number(word(a, 0))))
		return content(fmt.Sprintf("%d %d", int64(soft), int64(hard)), err), true
	case "prctl":
		n, err := kernel.PrctlGet(int(number(word(a, 0))))
		return content(strconv.Itoa(n), err), true
	case "cwd":
		return content(kernel.WorkingDir()), true
	case "layers":
		return layers(), true
	}
	return "", false
}

// call makes one system call, by its name or number. An argument is a number,
// s:TEXT for a string, or z:N for so many zeros, both of which are passed by address.
func call(a []string) string {
	nr, ok := arch().Number(word(a, 0))
	if !ok {
		nr = uint32(number(word(a, 0)))
	}
	var args []kernel.Arg
	for _, w := range a[min(1, len(a)):] {
		kind, rest, _ := strings.Cut(w, ":")
		switch kind {
		case "s":
			args = append(args, kernel.Arg{Bytes: append([]byte(rest), make([]byte, 8)...)})
		case "z":
			args = append(args, kernel.Arg{Bytes: make([]byte, number(rest)+8)})
		case "x":
			b, _ := hex.DecodeString(rest) // the questions are ours
			args = append(args, kernel.Arg{Bytes: append(b, make([]byte, 8)...)})
		default:
			args = append(args, kernel.Arg{Value: number(w)})
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return verdict(kernel.Try(nr, args...))
}

func arch() seccomp.Arch {
	if runtime.GOARCH == "arm64" {
		return seccomp.ARM64
	}
	return seccomp.AMD64
}

// status is one field of /proc/self/status.
func status(field string) string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return verdict(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return "ok:" + strings.Join(strings.Fields(v), " ")
		}
	}
	return "no such field"
}

// descriptors are the open descriptors, but for those that the Go runtime makes.
func descriptors() string {
	var open []string
	for fd := range 1024 {
		if !kernel.IsOpen(fd) {
			continue
		}
		if name, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); strings.HasPrefix(name, "anon_inode:") {
			continue
		}
		open = append(open, strconv.Itoa(fd))
	}
	return strings.Join(open, " ")
}

// variables are the names of the environment; values are nobody's business.
func variables() string {
	var names []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// layers counts how many Landlock domains can still be stacked, on a thread that
// is thrown away.
func layers() string {
	done := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		n, err := kernel.LandlockLayers()
		done <- content(strconv.Itoa(n), err)
	}()
	return <-done
}
