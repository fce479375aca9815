package transfer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/transfer"
)

// made is an archive of these entries.
func made(t *testing.T, entries ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		h.Mode = 0o644
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		err := w.WriteHeader(&h)
		if err == nil && h.Typeflag == tar.TypeReg {
			_, err = w.Write([]byte("evil"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// TestArchiveStaysInside: nobody knows who made an archive.
func TestArchiveStaysInside(t *testing.T) {
	reg := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	sym := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	hard := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
	}
	for _, tc := range []struct {
		name    string
		entries []tar.Header
		failed  int64
		want    string // of the directory
		without transfer.Weakness
	}{
		{"upwards", []tar.Header{reg("../f")}, 1, "", transfer.WeakName | transfer.WeakLinks},
		{"down and upwards", []tar.Header{reg("a/../../f")}, 1, "", 0},
		{"only upwards", []tar.Header{reg("..")}, 1, "", 0},
		{"absolute", []tar.Header{reg("/canary/f")}, 0, "canary/ canary/f=evil", 0},
		{"below an absolute link", []tar.Header{sym("l", "CANARY"), reg("l/f")}, 1, "l>CANARY", transfer.WeakLinks},
		{"below a link upwards", []tar.Header{sym("l", "../canary"), reg("l/f")}, 1, "l>../canary", transfer.WeakLinks},
		{"below a link inside", []tar.Header{{Typeflag: tar.TypeDir, Name: "d"}, sym("l", "d"), reg("l/f")}, 1, "d/ l>d", 0},
		{"a directory over a link", []tar.Header{sym("l", "CANARY"), {Typeflag: tar.TypeDir, Name: "l/"}, reg("l/f")}, 2, "l>CANARY", transfer.WeakLinks},
		{"over a link", []tar.Header{sym("l", "../canary/f"), reg("l")}, 0, "l=evil", 0},
		{"a name for a file outside", []tar.Header{hard("h", "../canary/f"), reg("h")}, 1, "h=evil", transfer.WeakName | transfer.WeakLinks},
		{"an absolute name for a file outside", []tar.Header{hard("h", "CANARY/f"), reg("x")}, 1, "x=evil", transfer.WeakName | transfer.WeakLinks},
		{"a name through a link", []tar.Header{sym("l", "../canary"), hard("h", "l/f")}, 1, "l>../canary", transfer.WeakLinks},
		{"a name for a link", []tar.Header{sym("l", "../canary/f"), hard("h", "l")}, 1, "l>../canary/f", 0},
		{"a name", []tar.Header{reg("a"), hard("b/c", "a")}, 0, "a=evil b/ b/c=evil", 0},
		{"a name for itself", []tar.Header{reg("a"), hard("a", "a")}, 0, "a=evil", 0},
		{"this", []tar.Header{{Typeflag: tar.TypeDir, Name: "./"}, reg("./a")}, 0, "a=evil", 0},
		{"a file called this", []tar.Header{reg(".")}, 1, "", 0},
		{"a device", []tar.Header{{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}, {Typeflag: tar.TypeFifo, Name: "p"}, reg("a")}, 0, "a=evil", 0},
		{"parents", []tar.Header{reg("a/b/c")}, 0, "a/ a/b/ a/b/c=evil", 0},
		{"a file as a parent", []tar.Header{reg("a"), reg("a/b")}, 1, "a=evil", 0},
		{"a file over a directory", []tar.Header{reg("a/b"), reg("a")}, 1, "a/ a/b=evil", 0},
		{"twice", []tar.Header{reg("a"), sym("a", "b"), reg("a")}, 0, "a=evil", 0},
		{"a long name", []tar.Header{reg(strings.Repeat("a/", 3000) + "b"), reg(strings.Repeat("b", 300)), reg("c")}, 2, "c=evil", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			try := func(o transfer.Options) error {
				top := dir(t)
				files(t, top, "canary/f=canary", "root/")
				canary := top + "/canary"
				var entries []tar.Header
				for _, h := range tc.entries {
					h.Linkname = strings.Replace(h.Linkname, "CANARY", canary, 1)
					entries = append(entries, h)
				}
				res, err := transfer.InTar(context.Background(), made(t, entries...), opened(t, top+"/root"), "/", o)
				if err != nil || res.Failed != tc.failed {
					return fmt.Errorf("got %+v, %v, want %d failures", res, err, tc.failed)
				}
				want := strings.TrimSpace("canary/ canary/f=canary root/ " + below("root", strings.ReplaceAll(tc.want, "CANARY", canary)))
				if got := tree(t, top); got != want {
					return fmt.Errorf("got  %s\nwant %s", got, want)
				}
				return nil
			}
			if tc.without != 0 {
				holds(t, own(), tc.without, try)
			} else if err := try(own()); err != nil {
				t.Error(err)
			}
		})
	}
}

func below(top, list string) string {
	if list == "" {
		return ""
	}
	return top + "/" + strings.ReplaceAll(list, " ", " "+top+"/")
}

// TestBrokenArchives are told, and leave no half file.
func TestBrokenArchives(t *testing.T) {
	whole := made(t, tar.Header{Typeflag: tar.TypeReg, Name: "a"}).Bytes()
	for name, b := range map[string][]byte{"cut in the content": whole[:514], "cut in the header": whole[:300], "no archive": bytes.Repeat([]byte("x"), 2000)} {
		to := dir(t)
		_, err := transfer.InTar(context.Background(), bytes.NewReader(b), opened(t, to), ".", own())
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if got := tree(t, to); got != "" {
			t.Errorf("%s: left %s", name, got)
		}
	}
	to := dir(t)
	files(t, to, "f=1")
	for _, dst := range []string{"f", "none", ""} {
		if _, err := transfer.InTar(context.Background(), bytes.NewReader(whole), opened(t, to), dst, own()); err == nil {
			t.Errorf("%q: no error", dst)
		}
	}
}

// TestArchivesAreClean looks at our own archive of a hostile tree.
func TestArchivesAreClean(t *testing.T) {
	from := dir(t)
	long := strings.Repeat("long", 40)
	files(t, from, "d/f=1", "d/"+long+"/"+long+"=2", "d/l>/etc", "d/up>../../../x", "d/bad\xff\n\x1b=3", "d/..x=4", "d/ =5")
	mkfifo(t, from+"/d/pipe")
	for _, sec := range []int64{math.MinInt32 * 2, math.MaxInt64 / 4} { // not every file system keeps them
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, from+"/d/f", []unix.Timespec{{Sec: sec}, {Sec: sec}}, 0); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		res, err := transfer.OutTar(context.Background(), opened(t, from), "/d", &b, own())
		if err != nil || res.Failed != 0 || res.Skipped != 1 {
			t.Fatalf("got %+v, %v", res, err)
		}
		seen := map[string]bool{}
		for r := tar.NewReader(&b); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimSuffix(h.Name, "/")
			if path.IsAbs(name) || path.Clean(name) != name || strings.HasPrefix(name, "..") || seen[name] || name != "d" && !strings.HasPrefix(name, "d/") {
				t.Errorf("the name is %q", h.Name)
			}
			seen[name] = true
			if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Mode&^0o777 != 0 || !strings.ContainsRune("025", rune(h.Typeflag)) {
				t.Errorf("%q: got %+v", h.Name, h)
			}
		}
		if len(seen) != 9 {
			t.Errorf("got %d entries: %v", len(seen), seen)
		}
	}
}

// TestNamesComeOnce: a directory whose entries are exchanged while it is read
// has the same name twice, as a file first and then as a link.
func TestNamesComeOnce(t *testing.T) {
	shm, err := os.MkdirTemp("/dev/shm", "transfer") // new names come last there since Linux 6.6
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(shm)
	twice := func(o transfer.Options, top string) (n int) {
		files(t, top, "./")
		for i := range 400 {
			files(t, top, fmt.Sprintf("%s%d=1", strings.Repeat("long", 50), i))
		}
		o.Progress = func(b int64) {
			for i := range 100 {
				name := fmt.Sprintf("%s/%s%d", top, strings.Repeat("long", 50), i)
				if b == 300 && os.Remove(name) == nil {
					_ = os.Symlink("/etc", name) // if it fails, the name is not there twice
				}
			}
		}
		var b bytes.Buffer
		if _, err := transfer.OutTar(context.Background(), opened(t, top), ".", &b, o); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for r := tar.NewReader(&b); ; {
			h, err := r.Next()
			if err == io.EOF {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
			if seen[h.Name] {
				n++
			}
			seen[h.Name] = true
		}
	}
	if n := twice(own(), shm+"/a"); n > 0 {
		t.Errorf("%d names come twice", n)
	}
	if n := twice(own().Without(transfer.WeakName), shm+"/b"); n == 0 {
		t.Log("this kernel does not show new names to who reads the directory")
	}
}

// TestThereAndBack: what goes out as an archive comes in as it was.
func TestThereAndBack(t *testing.T) {
	from, to := dir(t), dir(t)
	files(t, from, "d/f=1", "d/e/", "d/l>f", "d/big="+strings.Repeat("0123456789", 300000))
	pr, pw := io.Pipe()
	go func() {
		_, err := transfer.OutTar(context.Background(), opened(t, from), "d/.", pw, own())
		pw.CloseWithError(err)
	}()
	if _, err := transfer.InTar(context.Background(), pr, opened(t, to), ".", own()); err != nil {
		t.Fatal(err)
	}
	if got, want := tree(t, to), tree(t, from+"/d"); got != want {
		t.Errorf("got %.200s\nwant %.200s", got, want)
	}
	// a reader that goes away
	if _, err := transfer.OutTar(context.Background(), opened(t, from), "d", broken{}, own()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestFileThatShrinks: what was announced comes.
func TestFileThatShrinks(t *testing.T) {
	from, to := dir(t), dir(t)
	files(t, from, "f="+strings.Repeat("x", 5<<20))
	shrink := func(int64) {
		if err := os.Truncate(from+"/f", 2<<20); err != nil {
			t.Error(err)
		}
	}
	o := own()
	o.Progress = shrink
	var b bytes.Buffer
	if _, err := transfer.OutTar(context.Background(), opened(t, from), "f", &b, o); err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.InTar(context.Background(), &b, opened(t, to), ".", own()); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(to + "/f"); err != nil || st.Size() != 5<<20 {
		t.Errorf("got %v, %v", st, err)
	}
	files(t, from, "f="+strings.Repeat("x", 5<<20))
	if _, err := transfer.Out(within(t, 10*time.Second), opened(t, from), "f", to, o); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(to + "/f"); err != nil || st.Size() != 2<<20 {
		t.Errorf("got %v, %v", st, err)
	}
	// one that grows without end is copied as it was
	o.Progress = func(int64) {
		f, err := os.OpenFile(from+"/f", os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString(strings.Repeat("y", 2<<20))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Error(err)
		}
	}
	if res, err := transfer.Out(within(t, 10*time.Second), opened(t, from), "f", to, o); err != nil || res.Bytes != 2<<20 {
		t.Errorf("got %+v, %v", res, err)
	}
}
