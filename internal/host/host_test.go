package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

func TestProbeSeesThisMachine(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("12345"), 0o600), os.Symlink("file", link)); err != nil {
		t.Fatal(err)
	}
	h, err := Probe([]string{dir, file, link, "/dev/null", filepath.Join(dir, "missing"), filepath.Join(file, "below")}, true)
	if err != nil {
		t.Fatal(err)
	}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	if h.Arch != runtime.GOARCH || h.UID != uid || h.GID != gid || h.Kernel == "" || h.NoFile == 0 {
		t.Errorf("got %+v", h)
	}
	if h.LastCap < 40 || h.LastCap > 63 { // 40 since 5.9
		t.Errorf("the last capability is %d", h.LastCap)
	}
	if (h.LandlockABI > 0) != (sandboxtest.Probe(sandboxtest.Landlock) == nil) {
		t.Errorf("got Landlock ABI %d, and a test that tries says %v", h.LandlockABI, sandboxtest.Probe(sandboxtest.Landlock))
	}
	for path, want := range map[string]facts.Path{
		dir:         {Kind: facts.Dir, UID: uid, GID: h.Paths[dir].GID},
		file:        {Kind: facts.File, UID: uid, GID: h.Paths[file].GID, Size: 5},
		link:        {Kind: facts.Symlink, UID: uid, GID: h.Paths[link].GID, Target: "file"},
		"/dev/null": {Kind: facts.Device, UID: h.Paths["/dev/null"].UID, GID: h.Paths["/dev/null"].GID},
	} {
		if got := h.Paths[path]; got != want {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
	}
	if len(h.Paths) != 4 {
		t.Errorf("got %d paths, want the four that are there: %v", len(h.Paths), h.Paths)
	}
}

// TestProbeWithoutCgroups leaves them out when nobody asks.
func TestProbeWithoutCgroups(t *testing.T) {
	h, err := Probe(nil, false)
	if err != nil || h.Cgroup.Mode != "" || len(h.Paths) != 0 {
		t.Errorf("got %+v, %v", h, err)
	}
}

func TestSourceFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "d"), 0o700), os.Symlink("d", filepath.Join(dir, "l")), os.Symlink("gone", filepath.Join(dir, "broken"))); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	h := &facts.Host{Paths: map[string]facts.Path{}}
	for _, name := range []string{"l", "./d", filepath.Join(dir, "l"), ".."} {
		if err := Source(h, name); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := filepath.Join(real, "d")
		if name == ".." {
			want = filepath.Dir(real)
		}
		if got := h.Paths[name]; got.Kind != facts.Dir || got.Real != want {
			t.Errorf("%s: got %+v, want the directory %s", name, got, want)
		}
	}
	for _, name := range []string{"broken", "missing", "d/x"} {
		if err := Source(h, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want %v", name, err, fs.ErrNotExist)
		}
		if _, ok := h.Paths[name]; ok {
			t.Errorf("%s: is among the facts", name)
		}
	}
}
