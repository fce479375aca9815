package enter

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// networkOf is the network namespace of a socket.
func networkOf(t *testing.T, fd kernel.FD) uint64 {
	t.Helper()
	ns, err := unix.IoctlRetInt(int(fd), unix.SIOCGSKNS)
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.FD(ns).Close()
	var st unix.Stat_t
	if err := unix.Fstat(ns, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func networkOfProcess(t *testing.T, name string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+name+"/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// sleeping starts a sandbox that waits to be killed, and returns its namespaces
// as Socket wants to know them.
func sleeping(t *testing.T, s spec.Sandbox) (b *Sandbox, namespaces uint64) {
	t.Helper()
	a := prepare(t, s, "exec sleep 60")
	b, err := Start(a.Request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kernel.SignalPid(b.PidFD, int(syscall.SIGKILL)); err != nil && !kernel.IsErrno(err, kernel.ESRCH) {
			t.Error(err)
		}
		_, err := finish(b)
		_, werr := a.words()
		if err := errors.Join(err, werr); err != nil {
			t.Error(err)
		}
	})
	return b, a.Plan.Policy().Namespaces
}

func TestSocketIsInTheSandbox(t *testing.T) {
	each(t, func(t *testing.T, s spec.Sandbox) {
		b, namespaces := sleeping(t, s)
		want := networkOfProcess(t, strconv.Itoa(b.Pid))
		if want == networkOfProcess(t, "self") {
			t.Fatal("the sandbox is in our network")
		}
		files := openFiles(t)
		for _, family := range []int{syscall.AF_INET, syscall.AF_INET6} {
			fd, err := Socket(b.PidFD, namespaces, family)
			if err != nil {
				t.Fatal(err)
			}
			if got := networkOf(t, fd); got != want {
				t.Errorf("the socket is in network %d, want the sandbox's %d", got, want)
			}
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			own, err2 := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err != nil || err2 != nil || flags&unix.O_NONBLOCK == 0 || own&unix.FD_CLOEXEC == 0 {
				t.Errorf("got flags %#x and %#x, %v, %v; want non-blocking, closed on exec", flags, own, err, err2)
			}
			if err := fd.Close(); err != nil {
				t.Error(err)
			}
		}
		now := openFiles(t) // who answers for a watched one opens and closes some, too
		for end := time.Now().Add(5 * time.Second); now > files && time.Now().Before(end); now = openFiles(t) {
			time.Sleep(10 * time.Millisecond)
		}
		if now > files {
			t.Errorf("there were %d descriptors, and are %d", files, now)
		}
		if d, err := kernel.Dumpable(); err != nil || !d {
			t.Errorf("our memory cannot be read by us any more: %v, %v", d, err)
		}
	})
}

// TestSocketAtAnyNumber: whichever numbers the descriptors have, next to each
// other, the higher or the lower one first.
func TestSocketAtAnyNumber(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	b, namespaces := sleeping(t, spec.Sandbox{Toolchain: true})
	first, err := kernel.DupAbove(int(b.PidFD), 3) // about where the next ones will be
	if err != nil {
		t.Fatal(err)
	}
	for n := int(first); n < int(first)+8; n++ {
		pidfd, err := kernel.DupAbove(int(b.PidFD), n)
		if err != nil {
			t.Fatal(err)
		}
		if n == int(first)+4 { // from here on there is a hole below
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
		}
		fd, err := Socket(pidfd, namespaces, syscall.AF_INET)
		if err != nil {
			t.Errorf("pidfd %d: %v", pidfd, err)
			continue
		}
		if err := errors.Join(fd.Close(), pidfd.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestSocketThatCannotBe(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	b, namespaces := sleeping(t, spec.Sandbox{Toolchain: true})
	files := openFiles(t)
	for _, tc := range []struct {
		name       string
		pidfd      kernel.FD
		namespaces uint64
		family     int
		want       string
		errno      syscall.Errno
	}{
		{"no such family", b.PidFD, namespaces, 999, "socket: ", syscall.EAFNOSUPPORT},
		{"not a process", 2, namespaces, syscall.AF_INET, "setns: ", syscall.EINVAL},
		{"no descriptor", 1 << 20, namespaces, syscall.AF_INET, "setns: ", syscall.EBADF},
	} {
		fd, err := Socket(tc.pidfd, tc.namespaces, tc.family)
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) || !errors.Is(err, tc.errno) || fd != kernel.None {
			t.Errorf("%s: got %d, %v; want %s%v", tc.name, fd, err, tc.want, tc.errno)
		}
	}
	if now := openFiles(t); now != files {
		t.Errorf("there were %d descriptors, and are %d", files, now)
	}
	fd, err := Socket(b.PidFD, 0, syscall.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // who may ask which network that is
		if networkOf(t, fd) != networkOfProcess(t, "self") {
			t.Error("without namespaces, it is not in our network")
		}
	} else if fd, err := Socket(b.PidFD, abi.CloneNewNet, syscall.AF_INET); !errors.Is(err, syscall.EPERM) {
		t.Errorf("without its user namespace we have no right to its network: got %d, %v, want EPERM", fd, err)
	}
	if err := fd.Close(); err != nil {
		t.Error(err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
