package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/facts"
)

// rootFacts asks about a root that is described by its path alone.
func rootFacts(t *testing.T, dir string) (*facts.Rootfs, error) {
	t.Helper()
	h := &facts.Host{Paths: map[string]facts.Path{}}
	if err := Source(h, dir); err != nil {
		t.Fatal(err)
	}
	err := Rootfs(h, dir)
	return h.Rootfs, err
}

func TestRootfs(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "usr"), 0o755), os.Symlink("/etc", filepath.Join(dir, "link")), os.Symlink("nowhere\n", filepath.Join(dir, "dangling")),
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o644), syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644),
		os.WriteFile(filepath.Join(dir, ".nucleus-rootfs-manifest"), nil, 0o644), os.Symlink("/", filepath.Join(dir, ".nucleus-rootfs")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := rootFacts(t, dir)
	want := []facts.Entry{{Name: "dangling", Kind: facts.Symlink, Target: "nowhere\n"}, {Name: "fifo", Kind: facts.Other}, {Name: "file", Kind: facts.File},
		{Name: "link", Kind: facts.Symlink, Target: "/etc"}, {Name: "usr", Kind: facts.Dir}}
	if err != nil || !slices.Equal(got.Entries, want) || got.Store != nil {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, ".nucleus-rootfs-store-paths")); err != nil {
		t.Fatal(err)
	}
	if _, err := rootFacts(t, dir); err == nil {
		t.Error("a list that is a link is followed")
	}
	if _, err := rootFacts(t, filepath.Join(dir, "file")); err == nil {
		t.Error("a file is taken for a root")
	}
}

func TestRootfsIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range maxEntries + 1 {
		if err := os.Mkdir(filepath.Join(dir, fmt.Sprint(i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rootFacts(t, dir); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

func TestParseMounts(t *testing.T) {
	got, err := parseMounts(`65 72 0:6 /null /dev/null rw,relatime - devtmpfs devtmpfs rw,size=1k
72 43 0:41 / / ro,nosuid,nodev,relatime shared:1 master:2 - tmpfs tmp\040fs rw
73 72 254:0 /a /a\040b\134c\012d rw - ext4 /dev/vda rw
74 72 254:0 /a /back\0slash rw - ext4 /dev/vda rw
`)
	want := []facts.Mount{{Target: "/dev/null", Type: "devtmpfs", Options: "rw,relatime", Device: "0:6"}, {Target: "/", Type: "tmpfs", Options: "ro,nosuid,nodev,relatime", Device: "0:41"},
		{Target: "/a b\\c\nd", Type: "ext4", Options: "rw", Device: "254:0"}, {Target: `/back\0slash`, Type: "ext4", Options: "rw", Device: "254:0"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, text := range []string{"\n", "1 2 3 4 5\n", "65 72 0:6 /null /dev/null rw,relatime\n", "65 72 0:6 / / - x y z\n"} {
		if got, err := parseMounts(text); err == nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
	if own, err := ReadMounts(os.Getpid()); err != nil || len(own) == 0 {
		t.Errorf("our own: got %d, %v", len(own), err)
	}
}
