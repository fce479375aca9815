package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// tree makes a directory with a bit of everything that a root has.
func tree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"bin/sh": "#!", "usr/lib/libc.so": strings.Repeat("x", 300<<10), "usr/share/doc/a b\tc\n\\d\xff": "odd", "etc/passwd": "root:x:0:0::/:/bin/sh\n", "etc/empty": "",
	} {
		file := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(content), 0o644))
	}
	must(t, os.Mkdir(filepath.Join(dir, "srv"), 0o755))
	must(t, os.Symlink("bin/sh", filepath.Join(dir, "sh")))
	must(t, os.Symlink("/etc/shadow", filepath.Join(dir, "etc/out")))
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// attestTo writes the manifest of a directory to its place.
func attestTo(t testing.TB, dir string) *Manifest {
	t.Helper()
	m, err := Attest(context.Background(), dir, nil)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, ManifestName), m.Bytes(), 0o644))
	return m
}

func TestAttest(t *testing.T) {
	dir := tree(t)
	m := attestTo(t, dir)
	if len(m.Entries) != 15 {
		t.Errorf("got %d entries, want 15:\n%s", len(m.Entries), m.Bytes())
	}
	p := &Progress{}
	must(t, Verify(context.Background(), dir, "", m.SHA256(), p))
	if p.Files.Load() != 15 || p.Bytes.Load() < 300<<10 {
		t.Errorf("progress: got %d files, %d bytes", p.Files.Load(), p.Bytes.Load())
	}
	back, err := Parse(m.Bytes())
	if err != nil || !bytes.Equal(back.Bytes(), m.Bytes()) {
		t.Errorf("reading it back: %v", err)
	}
	if !strings.Contains(string(m.Bytes()), ` usr/share/doc/a\x20b\x09c\x0a\x5cd\xff`+"\n") || !strings.Contains(string(m.Bytes()), " /etc/shadow etc/out\n") {
		t.Errorf("got\n%s", m.Bytes())
	}
	other := filepath.Join(t.TempDir(), "manifest")
	must(t, os.Rename(filepath.Join(dir, ManifestName), other))
	must(t, Verify(context.Background(), dir, other, "", nil))
	if err := Verify(context.Background(), dir, "", "", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a manifest: got %v", err)
	}
	if err := Verify(context.Background(), dir, other, strings.Repeat("0", 64), nil); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("with another pin: got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Attest(ctx, dir, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

// changes are single changes to a tree, each of one thing. The file is one of the
// tree's, the directory too.
var changes = []struct {
	name string
	root bool // needs it
	do   func(t *testing.T, file, dir, link string)
}{
	{"content", false, func(t *testing.T, file, _, _ string) { flip(t, file) }},
	{"length", false, func(t *testing.T, file, _, _ string) {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString("x")
		must(t, errors.Join(err, f.Close()))
	}},
	{"mode of a file", false, func(t *testing.T, file, _, _ string) { must(t, os.Chmod(file, 0o600)) }},
	{"set-user-id", false, func(t *testing.T, file, _, _ string) { must(t, os.Chmod(file, 0o644|os.ModeSetuid)) }},
	{"mode of a directory", false, func(t *testing.T, _, dir, _ string) { must(t, os.Chmod(dir, 0o700)) }},
	{"sticky bit", false, func(t *testing.T, _, dir, _ string) { must(t, os.Chmod(dir, 0o755|os.ModeSticky)) }},
	{"owner", true, func(t *testing.T, file, _, _ string) { must(t, os.Chown(file, 1, -1)) }},
	{"group", true, func(t *testing.T, file, _, _ string) { must(t, os.Chown(file, -1, 1)) }},
	{"owner of a link", true, func(t *testing.T, _, _, link string) { must(t, os.Lchown(link, 1, 1)) }},
	{"target", false, func(t *testing.T, _, _, link string) {
		must(t, os.Remove(link))
		must(t, os.Symlink("elsewhere", link))
	}},
	{"removed", false, func(t *testing.T, file, _, _ string) { must(t, os.Remove(file)) }},
	{"added", false, func(t *testing.T, _, dir, _ string) { must(t, os.WriteFile(filepath.Join(dir, "new"), nil, 0o644)) }},
	{"added directory", false, func(t *testing.T, _, dir, _ string) { must(t, os.Mkdir(filepath.Join(dir, "new"), 0o755)) }},
	{"added link", false, func(t *testing.T, _, dir, _ string) { must(t, os.Symlink("x", filepath.Join(dir, "new"))) }},
	{"renamed", false, func(t *testing.T, file, _, _ string) { must(t, os.Rename(file, file+"x")) }},
	{"a link to the same", false, func(t *testing.T, file, _, _ string) {
		must(t, os.Rename(file, file+"x"))
		must(t, os.Symlink(filepath.Base(file)+"x", file))
		must(t, os.Rename(file+"x", file+"y"))
	}},
	{"a pipe", false, func(t *testing.T, _, dir, _ string) { must(t, syscall.Mkfifo(filepath.Join(dir, "p"), 0o644)) }},
	{"a socket", false, func(t *testing.T, _, dir, _ string) {
		must(t, syscall.Mknod(filepath.Join(dir, "s"), syscall.S_IFSOCK|0o644, 0))
	}},
	{"a file becomes a pipe", false, func(t *testing.T, file, _, _ string) {
		must(t, os.Remove(file))
		must(t, syscall.Mkfifo(file, 0o644))
	}},
}

// flip changes one bit, and puts the times back.
func flip(t *testing.T, file string) {
	t.Helper()
	st, err := os.Stat(file)
	must(t, err)
	b, err := os.ReadFile(file)
	must(t, err)
	if len(b) == 0 {
		must(t, os.WriteFile(file, []byte("x"), 0))
		return
	}
	b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
	must(t, os.WriteFile(file, b, 0))
	must(t, os.Chtimes(file, st.ModTime(), st.ModTime()))
}

// TestEveryChangeIsFound makes single changes in every place of a tree.
func TestEveryChangeIsFound(t *testing.T) {
	files := []string{"bin/sh", "usr/lib/libc.so", "usr/share/doc/a b\tc\n\\d\xff", "etc/passwd", "etc/empty"}
	dirs := []string{".", "bin", "usr/share", "etc", "srv"}
	for _, c := range changes {
		for i := range files {
			t.Run(fmt.Sprintf("%s/%d", c.name, i), func(t *testing.T) {
				if c.root {
					sandboxtest.Need(t, sandboxtest.Root)
				}
				dir := tree(t)
				m := attestTo(t, dir)
				c.do(t, filepath.Join(dir, files[i]), filepath.Join(dir, dirs[i]), filepath.Join(dir, []string{"sh", "etc/out"}[i%2]))
				err := Verify(context.Background(), dir, "", "", nil)
				if err == nil {
					t.Fatal("the change was not found")
				}
				var wrong *Mismatch
				if errors.As(err, &wrong) && (len(wrong.Differences) == 0 || len(wrong.Differences) > 3) {
					t.Errorf("got %v, want what changed and no more", err)
				}
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("got %q, want one line", err)
				}
				_ = m
			})
		}
	}
}

// TestRandomChanges makes trees and single changes at random.
func TestRandomChanges(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 40 {
		dir, files, dirs := randomTree(t, r)
		attestTo(t, dir)
		must(t, Verify(context.Background(), dir, "", "", nil))
		file, sub := files[r.IntN(len(files))], dirs[r.IntN(len(dirs))]
		link := filepath.Join(sub, "link")
		must(t, os.Symlink("a", link))
		attestTo(t, dir)
		c := changes[r.IntN(len(changes))]
		if c.root && os.Geteuid() != 0 {
			continue
		}
		c.do(t, file, sub, link)
		if err := Verify(context.Background(), dir, "", "", nil); err == nil {
			t.Fatalf("%s of %s, %s: not found", c.name, file, sub)
		}
	}
}

func randomTree(t *testing.T, r *rand.Rand) (root string, files, dirs []string) {
	root = t.TempDir()
	dirs = []string{root}
	for i := range 1 + r.IntN(60) {
		at := dirs[r.IntN(len(dirs))]
		name := filepath.Join(at, fmt.Sprintf("%d%s", i, strings.Repeat("é ", r.IntN(5))))
		if r.IntN(4) == 0 {
			must(t, os.Mkdir(name, 0o755))
			dirs = append(dirs, name)
			continue
		}
		b := make([]byte, r.IntN(2000))
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
		must(t, os.WriteFile(name, b, 0o644))
		files = append(files, name)
	}
	name := filepath.Join(root, "last")
	must(t, os.WriteFile(name, nil, 0o644))
	return root, append(files, name), dirs
}

// TestStoreParts: parts of a store are read and shown by their names alone.
func TestStoreParts(t *testing.T) {
	dir, store := tree(t), t.TempDir()
	one, two := strings.Repeat("a", 32)+"-one-1.0", strings.Repeat("b", 32)+"-two"
	must(t, os.MkdirAll(filepath.Join(store, one, "bin"), 0o755))
	must(t, os.WriteFile(filepath.Join(store, one, "bin/x"), []byte("x"), 0o755))
	must(t, os.Symlink("/nix/store/"+one, filepath.Join(store, two)))
	must(t, os.WriteFile(filepath.Join(store, strings.Repeat("c", 32)+"-three"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, StoreName), []byte("/nix/store/"+two+"\n/nix/store/"+one+"\n"), 0o644))
	root, err := Open(dir)
	must(t, err)
	defer root.Close()
	m, err := attest(context.Background(), root, store, nil)
	must(t, err)
	for _, want := range []string{" /nix/store/" + one + "/bin/x\n", " /nix/store/" + one + " /nix/store/" + two + "\n"} {
		if !strings.Contains(string(m.Bytes()), want) {
			t.Errorf("%q is not in\n%s", want, m.Bytes())
		}
	}
	if strings.Contains(string(m.Bytes()), "three") {
		t.Errorf("it has more of the store than was named:\n%s", m.Bytes())
	}
	must(t, os.WriteFile(filepath.Join(store, one, "bin/x"), []byte("y"), 0o755))
	n, err := attest(context.Background(), root, store, nil)
	must(t, err)
	if d := Compare(m, n); len(d) != 1 || d[0].Path != "/nix/store/"+one+"/bin/x" {
		t.Errorf("got %v", d)
	}
}

func TestStorePaths(t *testing.T) {
	h := strings.Repeat("0", 32)
	for _, tc := range []struct {
		text string
		ok   bool
	}{
		{"/nix/store/" + h + "-a\n", true},
		{"/nix/store/" + h + "-a", true},
		{"/nix/store/" + h + "-a\n/nix/store/" + h + "-a\n", true},
		{"/nix/store/" + h + "-A+b-1._?=z", true},
		{"", false},
		{"\n", false},
		{"/nix/store", false},
		{"/nix/store/", false},
		{"/nix/store/" + h, false},
		{"/nix/store/" + h + "-", false},
		{"/nix/store/" + h + "-a/bin", false},
		{"/nix/store/../" + h + "-a", false},
		{"/nix/store/" + h + "-../../etc", false},
		{"/nix/store/" + h + "-.", false},
		{"/nix/store/" + h + "-..", false},
		{"/nix/store//" + h + "-a", false},
		{" /nix/store/" + h + "-a", false},
		{"/nix/store/" + h + "-a ", false},
		{"/nix/store/" + h + "-a\r\n", false},
		{"/nix/store/" + h + "-a\n\n", false},
		{"# a comment", false},
		{"/nix/store/" + strings.Repeat("e", 32) + "-a", false},
		{"/nix/store/" + strings.Repeat("0", 31) + "-a", false},
		{"/nix/store/" + h + "-a\x00", false},
		{"/gnu/store/" + h + "-a", false},
	} {
		got, err := StorePaths(tc.text)
		if (err == nil) != tc.ok || tc.ok && len(got) != 1 {
			t.Errorf("%q: got %q, %v", tc.text, got, err)
		}
	}
}

// TestHostileManifests are read by nobody.
func TestHostileManifests(t *testing.T) {
	dir := tree(t)
	good := attestTo(t, dir).Bytes()
	lines := strings.SplitAfter(string(good), "\n")
	for name, text := range map[string]string{
		"empty": "", "header alone": header, "another version": strings.Replace(string(good), " 1\n", " 2\n", 1), "cut off": string(good[:len(good)-1]),
		"a line twice": header + lines[1] + lines[1], "out of order": header + lines[2] + lines[1], "more after it": string(good) + "\n",
		"upper case": strings.Replace(string(good), `\xff`, `\xFF`, 1), "an escape too much": strings.Replace(string(good), "bin/sh", `b\x69n/sh`, 1),
		"a plus": strings.Replace(string(good), " 0:", " +0:", 1), "carriage returns": strings.ReplaceAll(string(good), "\n", "\r\n"),
	} {
		if name == "a plus" && text == string(good) {
			continue // nothing is owned by root here
		}
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: it is read", name)
		}
	}
	must(t, os.Remove(filepath.Join(dir, ManifestName)))
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, ManifestName)))
	if err := Verify(context.Background(), dir, "", "", nil); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link in the manifest's place: got %v", err)
	}
	must(t, os.Remove(filepath.Join(dir, ManifestName)))
	must(t, syscall.Mkfifo(filepath.Join(dir, ManifestName), 0o644))
	if err := Verify(context.Background(), dir, "", "", nil); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a pipe in the manifest's place: got %v", err)
	}
}

// TestMountsAreNotTheTree: what is mounted below is not the directory's own.
func TestMountsAreNotTheTree(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	dir := tree(t)
	must(t, syscall.Mount("tmpfs", filepath.Join(dir, "srv"), "tmpfs", 0, ""))
	defer syscall.Unmount(filepath.Join(dir, "srv"), syscall.MNT_DETACH)
	if _, err := Attest(context.Background(), dir, nil); err == nil || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("got %v", err)
	}
}

// TestSwappedNames exchanges a directory for a link out of the tree the whole
// time: what is read is always the tree's own.
func TestSwappedNames(t *testing.T) {
	dir, out := tree(t), t.TempDir()
	must(t, os.WriteFile(filepath.Join(out, "passwd"), []byte("of the host"), 0o644))
	must(t, os.Symlink(out, filepath.Join(dir, "spare")))
	stop, done := make(chan bool), make(chan bool)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = exchange(filepath.Join(dir, "etc"), filepath.Join(dir, "spare"))
			}
		}
	}()
	for range 200 {
		m, err := Attest(context.Background(), dir, nil)
		if err != nil {
			continue // it moved away
		}
		for _, e := range m.Entries {
			if e.Type == 'f' && e.Size == int64(len("of the host")) {
				t.Fatalf("%s was read outside of the tree", e.Path)
			}
		}
	}
	close(stop)
	<-done
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(header + "d 0755 0:0 - .\nf 0644 0:0 0:" + strings.Repeat("0", 64) + " a\nl 0777 1:2 x\\x20y b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(text)
		if err == nil && !bytes.Equal(m.Bytes(), text) {
			t.Errorf("%q is read as %q", text, m.Bytes())
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	dir := tree(b)
	attestTo(b, dir)
	for b.Loop() {
		must(b, Verify(context.Background(), dir, "", "", nil))
	}
}

// exchange swaps two names at once.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}
