package kernel_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// alone calls f on a thread that is discarded.
func alone(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	var begin func()
	begin = func() {
		runtime.LockOSThread()
		if kernel.ThreadID() == os.Getpid() { // which is never discarded
			defer runtime.UnlockOSThread()
			back := make(chan struct{})
			go func() { begin(); close(back) }()
			<-back
			return
		}
		done <- f()
	}
	go begin()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestActAs asks the kernel what is left of root's rights.
func TestActAs(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	groups, err := syscall.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint32{0, 1234, 0x7000_0000} {
		alone(t, func() error {
			// Of this thread alone: the syscall package would set those of all, and
			// give up where one before this has no right any more and is not gone yet.
			if err := unix.Setgroups([]int{4, 27}); err != nil {
				return err
			}
			if err := kernel.ActAs(id, id+1); err != nil {
				return err
			}
			b, err := os.ReadFile("/proc/thread-self/status")
			if err != nil {
				return err
			}
			for _, want := range []string{"\nGroups:\t \n", "\nCapEff:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n"} {
				if !strings.Contains(string(b), want) {
					t.Errorf("%d: lacks %q:\n%s", id, want, b)
				}
			}
			for _, field := range []string{"Uid:", "Gid:"} {
				_, rest, _ := strings.Cut(string(b), "\n"+field)
				line, _, _ := strings.Cut(rest, "\n")
				want := id
				if field == "Gid:" {
					want++
				}
				if f := strings.Fields(line); len(f) != 4 || f[3] != fmt.Sprint(want) {
					t.Errorf("%s got %q, want file system id %d", field, line, want)
				}
			}
			return nil
		})
	}
	if now, err := syscall.Getgroups(); err != nil || !slices.Equal(now, groups) {
		t.Errorf("the other threads have groups %v, %v, want %v", now, err, groups)
	}
}

// TestOpenAt: what each way to resolve refuses.
func TestOpenAt(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]string{"up": "..", "root": "/", "in": "d", "self": "/proc/self/fd/0"} {
		if err := os.Symlink(target, dir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(dir+"/d", 0o755), os.WriteFile(dir+"/f", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	top, err := kernel.Open(dir, kernel.PathOnly, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	for _, tc := range []struct {
		path string
		how  uint64
		want error
	}{
		{"up/f", kernel.InRoot, nil}, {"root/f", kernel.InRoot, nil}, {"../../f", kernel.InRoot, nil}, {"/f", kernel.InRoot, nil}, {"root/etc", kernel.InRoot, unix.ENOENT},
		{"up/f", kernel.Beneath, unix.EXDEV}, {"root/f", kernel.Beneath, unix.EXDEV}, {"/f", kernel.Beneath, unix.EXDEV}, {"in/../f", kernel.Beneath, nil},
		{"in", kernel.NoSymlinks, unix.ELOOP}, {"in/.", kernel.NoSymlinks | kernel.Beneath, unix.ELOOP},
		{"self", kernel.NoMagicLinks, unix.ELOOP}, {"root/etc", 0, nil},
	} {
		fd, err := kernel.OpenAt(top, tc.path, kernel.PathOnly, 0, tc.how)
		if !errors.Is(err, tc.want) || err != nil && tc.want == nil {
			t.Errorf("%s, %#x: got %v, want %v", tc.path, tc.how, err, tc.want)
		}
		if err == nil {
			fd.Close()
		}
	}
}

// TestNames reads a directory that does not fit into one buffer.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	for i := range 500 {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", dir, i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := kernel.Open(dir, kernel.ReadOnly|kernel.Directory, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	seen := map[string]bool{}
	for buf := make([]byte, 1024); ; {
		names, err := kernel.Names(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		if len(names) == 0 {
			break
		}
		for _, n := range names {
			seen[n] = true
		}
	}
	if len(seen) != 500 || seen["."] || seen[".."] {
		t.Errorf("got %d names", len(seen))
	}
}
