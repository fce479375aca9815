package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/internal/transfer"
)

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestPipesAndDevicesAreNotOpened: a pipe without a writer would keep us
// waiting, a device may do anything.
func TestPipesAndDevicesAreNotOpened(t *testing.T) {
	from := dir(t)
	mkfifo(t, from+"/d-pipe")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	t.Chdir(from)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "d-socket"}); err != nil {
		t.Fatal(err)
	}
	names := []string{"d-pipe", "d-socket"}
	if sandboxtest.Probe(sandboxtest.Root) == nil {
		if err := unix.Mknod("d-device", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
			t.Fatal(err)
		}
		names = append(names, "d-device")
	}
	files(t, from, "f=1")
	holds(t, own(), transfer.WeakKind, func(o transfer.Options) error {
		to := dir(t)
		var said []string
		o.Skip = func(s string) { said = append(said, s) }
		res, err := transfer.Out(within(t, 10*time.Second), opened(t, from), ".", to, o)
		if err != nil || res.Skipped != int64(len(names)) || res.Failed != 0 || len(said) != len(names) {
			return fmt.Errorf("got %+v, %v, said %q", res, err, said)
		}
		if got := tree(t, to); got != "f=1" {
			return fmt.Errorf("got %s", got)
		}
		return nil
	})
	for _, name := range names {
		if _, err := transfer.Out(within(t, 10*time.Second), opened(t, from), name, dir(t), own()); err == nil || !strings.Contains(err.Error(), "cannot be copied") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestNoSetuid: a program of the sandbox does not become a program of the caller's.
func TestNoSetuid(t *testing.T) {
	from := dir(t)
	files(t, from, "d/prog=1", "d/s/")
	if err := errors.Join(os.Chmod(from+"/d/prog", 0o755|os.ModeSetuid|os.ModeSetgid), os.Chmod(from+"/d/s", 0o777|os.ModeSticky|os.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	for _, archive := range []bool{true, false} {
		o := own()
		o.Archive = archive
		holds(t, o, transfer.WeakMode, func(o transfer.Options) error {
			to, in := dir(t), dir(t)
			var b bytes.Buffer
			_, err := transfer.Out(context.Background(), opened(t, from), "d", to, o)
			_, err2 := transfer.OutTar(context.Background(), opened(t, from), "d", &b, o.Without(transfer.WeakMode))
			_, err3 := transfer.InTar(context.Background(), &b, opened(t, in), ".", o)
			if err := errors.Join(err, err2, err3); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{to + "/d/prog", to + "/d/s", in + "/d/prog"} {
				st, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if st.Mode()&(os.ModeSetuid|os.ModeSetgid|os.ModeSticky) != 0 {
					return fmt.Errorf("%s is %v", path, st.Mode())
				}
			}
			return nil
		})
	}
}

// TestModes: the umask holds, unless permissions are kept.
func TestModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o027))
	from := dir(t)
	files(t, from, "d/f=1", "d/r=1", "d/ro/f=1")
	when := time.Unix(1234567890, 123456789)
	if err := errors.Join(os.Chmod(from+"/d/f", 0o666), os.Chmod(from+"/d/r", 0o444), os.Chtimes(from+"/d/f", when, when),
		os.Chtimes(from+"/d/ro", when, when), os.Chmod(from+"/d/ro", 0o555), os.Chmod(from+"/d", 0o777)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(from+"/d/ro", 0o755) })
	for _, tc := range []struct {
		archive bool
		want    string
	}{{false, "750 640 440 550"}, {true, "777 666 444 555"}} {
		o := own()
		o.Archive = tc.archive
		to, in := dir(t), dir(t)
		var b bytes.Buffer
		_, err := transfer.Out(context.Background(), opened(t, from), "d", to, o)
		_, err2 := transfer.OutTar(context.Background(), opened(t, from), "d", &b, o)
		_, err3 := transfer.InTar(context.Background(), &b, opened(t, in), ".", o)
		if err := errors.Join(err, err2, err3); err != nil {
			t.Fatal(err)
		}
		for _, top := range []string{to, in} {
			var got []string
			for _, name := range []string{"/d", "/d/f", "/d/r", "/d/ro"} {
				st, err := os.Stat(top + name)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprintf("%o", st.Mode().Perm()))
				kept := st.ModTime().Sub(when).Abs() < time.Second
				if (name == "/d/f" || name == "/d/ro") && kept != tc.archive {
					t.Errorf("archive %v: %s is of %v", tc.archive, top+name, st.ModTime())
				}
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("archive %v: got %s, want %s", tc.archive, s, tc.want)
			}
			t.Cleanup(func() { os.Chmod(top+"/d/ro", 0o755) })
		}
	}
}

// TestLinkThenDirectory: a first copy brings a link, a second one a file below it.
func TestLinkThenDirectory(t *testing.T) {
	holds(t, own(), transfer.WeakLinks, func(o transfer.Options) error {
		from, to, canary := dir(t), dir(t), dir(t)
		files(t, canary, "f=canary")
		files(t, from, "one/x>"+canary, "two/x/f=evil", "two/x/g=evil")
		_, err := transfer.Out(context.Background(), opened(t, from), "one/.", to, o.Without(0))
		if err != nil {
			t.Fatal(err)
		}
		res, err := transfer.Out(context.Background(), opened(t, from), "two/.", to, o)
		if got := tree(t, canary); got != "f=canary" {
			return fmt.Errorf("the canary became %s", got)
		}
		if err != nil || res.Failed != 1 {
			return fmt.Errorf("got %+v, %v, want one failure", res, err)
		}
		return nil
	})
}

// TestLinksInTrees: a link is copied as a link, wherever it leads.
func TestLinksInTrees(t *testing.T) {
	holds(t, own(), transfer.WeakLinks, func(o transfer.Options) error {
		from, to, canary := dir(t), dir(t), dir(t)
		files(t, canary, "f=canary")
		files(t, from, "d/x>"+canary+"/f", "d/y>"+canary)
		if _, err := transfer.Out(context.Background(), opened(t, from), "d", to, o); err != nil {
			return err
		}
		if got, want := tree(t, to), "d/ d/x>"+canary+"/f d/y>"+canary; got != want {
			return fmt.Errorf("got %s", got)
		}
		return nil
	})
}

// TestDeepTree: a tree without a bottom ends where descriptors would.
func TestDeepTree(t *testing.T) {
	from, to := dir(t), dir(t)
	defer removeDeep(t, from+"/d")
	defer removeDeep(t, to+"/d")
	fd, err := unix.Open(from, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range transfer.MaxDepth + 50 {
		if err := unix.Mkdirat(fd, "d", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, "d", unix.O_PATH, 0)
		unix.Close(fd)
		if fd = next; err != nil {
			t.Fatal(err)
		}
	}
	unix.Close(fd)
	var said string
	o := own()
	o.Warn = func(s string) { said += s }
	res, err := transfer.Out(context.Background(), opened(t, from), "d", to, o)
	if err != nil || res.Failed != 1 || res.Files != transfer.MaxDepth || !strings.Contains(said, "more than") {
		t.Errorf("got %+v, %v, %q", res, err, said)
	}
}

// removeDeep removes directories called d, from the bottom: not every RemoveAll can.
func removeDeep(t *testing.T, top string) {
	if err := os.RemoveAll(top); err != nil {
		t.Error(err)
	}
}

// TestEndlessFiles: who makes files faster than we copy them is told to stop.
func TestEndlessFiles(t *testing.T) {
	from := dir(t)
	for i := range 50 {
		files(t, from, fmt.Sprintf("d/%d=1", i))
	}
	o := own()
	o.MaxFiles = 20
	res, err := transfer.Out(context.Background(), opened(t, from), "d", dir(t), o)
	if err == nil || res.Files > 20 {
		t.Errorf("got %+v, %v", res, err)
	}
}

// TestHugeHoles: a file of exabytes takes no room and no time.
func TestHugeHoles(t *testing.T) {
	from, to := dir(t), dir(t)
	f, err := os.Create(from + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 1 << 40
	if err := errors.Join(f.Truncate(size), second(f.WriteAt([]byte("middle"), size/2))); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 20*time.Second)
	res, err := transfer.Out(ctx, opened(t, from), "f", to, own())
	if err != nil || res.Bytes > 1<<20 {
		t.Fatalf("got %+v, %v", res, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(to+"/f", &st); err != nil || st.Size != size || st.Blocks > 1<<12 {
		t.Errorf("got %d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
	var b [6]byte
	g, err := os.Open(to + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.ReadAt(b[:], size/2); err != nil || string(b[:]) != "middle" {
		t.Errorf("got %q, %v", b, err)
	}
	var out bytes.Buffer
	if res, err := transfer.OutTar(ctx, opened(t, from), ".", &out, own()); err != nil || res.Failed != 1 || out.Len() > 1<<20 {
		t.Errorf("archive: got %+v, %v, %d bytes", res, err, out.Len())
	}
}

func second(_ int, err error) error { return err }

// TestLease: a program that holds a lease on its file could make who opens it
// wait for 45 seconds.
func TestLease(t *testing.T) {
	from := dir(t)
	files(t, from, "f=1")
	f, err := os.OpenFile(from+"/f", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err = transfer.Out(context.Background(), opened(t, from), "f", dir(t), own())
	if err == nil || !strings.Contains(err.Error(), "lease") || time.Since(began) > 5*time.Second*sandboxtest.Slow() {
		t.Errorf("got %v after %v", err, time.Since(began))
	}
}

// TestSeveralNames: they stay names of one file, so that a thousand of them are
// not a thousand copies.
func TestSeveralNames(t *testing.T) {
	from, to := dir(t), dir(t)
	files(t, from, "d/a=data", "d/s/")
	if err := errors.Join(os.Link(from+"/d/a", from+"/d/b"), os.Link(from+"/d/a", from+"/d/s/c")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time over what is there
		res, err := transfer.Out(context.Background(), opened(t, from), "d", to, own())
		if err != nil || res.Bytes != 4 || res.Files != 5 {
			t.Fatalf("got %+v, %v", res, err)
		}
		if got := tree(t, to); got != "d/ d/a=data d/b=data d/s/ d/s/c=data" {
			t.Errorf("got %s", got)
		}
		var a, c unix.Stat_t
		if err := errors.Join(unix.Stat(to+"/d/a", &a), unix.Stat(to+"/d/s/c", &c)); err != nil || a.Ino != c.Ino || a.Nlink != 3 {
			t.Errorf("got files %d and %d of %d names, %v", a.Ino, c.Ino, a.Nlink, err)
		}
	}
	in := dir(t)
	var b bytes.Buffer
	_, err := transfer.OutTar(context.Background(), opened(t, from), "d", &b, own())
	if _, err2 := transfer.InTar(context.Background(), &b, opened(t, in), ".", own()); errors.Join(err, err2) != nil {
		t.Fatal(err, err2)
	}
	var st unix.Stat_t
	if err := unix.Stat(in+"/d/s/c", &st); err != nil || st.Nlink != 3 || st.Size != 4 {
		t.Errorf("got %d names, %v", st.Nlink, err)
	}
}

// TestSeveralNamesOfAnother: only a file that we made gets more names. Here
// somebody puts another in its place meanwhile.
func TestSeveralNamesOfAnother(t *testing.T) {
	from, to := dir(t), dir(t)
	files(t, from, "d/a0=data")
	for i := range 20 {
		files(t, from, fmt.Sprintf("d/r%d=x", i))
		if err := os.Link(from+"/d/a0", fmt.Sprintf("%s/d/a%d", from, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	o := own()
	o.Progress = func(int64) {
		for i := range 21 {
			name := fmt.Sprintf("%s/d/a%d", to, i)
			if _, err := os.Stat(name); err == nil {
				files(t, to, "planted=planted") // first: it must not get the other's number
				if err := os.Rename(to+"/planted", name); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if _, err := transfer.Out(context.Background(), opened(t, from), "d", to, o); err != nil {
		t.Fatal(err)
	}
	planted := 0
	for i := range 21 {
		name := fmt.Sprintf("%s/d/a%d", to, i)
		var st unix.Stat_t
		b, err := os.ReadFile(name)
		if err := errors.Join(err, unix.Stat(name, &st)); err != nil {
			t.Fatal(err)
		}
		if string(b) == "planted" {
			planted++
			if st.Nlink != 1 {
				t.Errorf("a file that is not ours has %d names", st.Nlink)
			}
		}
	}
	if planted == 0 {
		t.Error("nothing was exchanged in time")
	}
}

// TestIntoItself: a copy of a directory into itself ends.
func TestIntoItself(t *testing.T) {
	top := dir(t)
	files(t, top, "d/f=1", "d/s/g=2")
	if _, err := transfer.Out(context.Background(), opened(t, top), "d", top+"/d/s", own()); err != nil {
		t.Error(err)
	}
	if got := tree(t, top); got != "d/ d/f=1 d/s/ d/s/d/ d/s/d/f=1 d/s/d/s/ d/s/d/s/g=2 d/s/g=2" {
		t.Errorf("got %s", got)
	}
	if _, err := transfer.Out(context.Background(), opened(t, top), "d/.", top+"/d", own()); err == nil {
		t.Error("a directory was copied over itself")
	}
}

// TestInterrupted: nothing half is left.
func TestInterrupted(t *testing.T) {
	from, to := dir(t), dir(t)
	files(t, from, "d/a=1", "d/big="+strings.Repeat("x", 8<<20))
	ctx, cancel := context.WithCancel(context.Background())
	o := own()
	o.Progress = func(n int64) {
		if n > 2<<20 {
			cancel()
		}
	}
	files(t, to, "d/big=old")
	if _, err := transfer.Out(ctx, opened(t, from), "d", to, o); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := strings.ReplaceAll(tree(t, to), "d/a=1 ", ""); got != "d/ d/big=old" {
		t.Errorf("got %s", got)
	}
	if _, err := transfer.In(ctx, from+"/d", opened(t, to), "e", o); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestWordsAreOneLine: names are the sandbox's to choose.
func TestWordsAreOneLine(t *testing.T) {
	from := dir(t)
	name := "a\nnucleus: all is well\x1b]0;x\a\u202e"
	mkfifo(t, filepath.Join(from, name))
	files(t, from, "d/f"+name+"=1")
	if os.Geteuid() != 0 {
		os.Chmod(from+"/d/f"+name, 0)
	}
	to := dir(t)
	files(t, to, "d/f"+name+"/")
	var said []string
	o := own()
	o.Warn = func(s string) { said = append(said, s) }
	if _, err := transfer.Out(context.Background(), opened(t, from), ".", to, o); err != nil || len(said) != 2 {
		t.Errorf("got %v, said %q", err, said)
	}
	if s := strings.Join(said, ""); strings.ContainsAny(s, "\n\x1b\a\u202e") {
		t.Errorf("said %q", s)
	}
}
