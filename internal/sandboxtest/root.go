package sandboxtest

import (
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Rootfs makes a directory that can be the root of a sandbox: the programs, found
// in PATH, with the libraries that they need, all in the places that they have
// here. /bin/sh is one of them.
func Rootfs(t testing.TB, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range append([]string{"sh"}, programs...) {
		path, err := exec.LookPath(p)
		if err != nil {
			t.Fatal(err)
		}
		copyTo(t, dir, path, filepath.Join("/bin", filepath.Base(p)))
		for _, lib := range libraries(t, path) {
			copyTo(t, dir, lib, lib)
		}
	}
	for _, d := range []string{"etc", "usr"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0:of the root:/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The test's own directory is its owner's alone.
	for d := dir; strings.HasPrefix(filepath.Base(filepath.Dir(d)), "Test"); d = filepath.Dir(d) {
		if err := os.Chmod(filepath.Dir(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// libraries are the files that a program cannot be executed without: its loader,
// and what that would load.
func libraries(t testing.TB, program string) []string {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	section := f.Section(".interp")
	if section == nil {
		return nil // it is static
	}
	b, err := section.Data()
	if err != nil {
		t.Fatal(err)
	}
	loader := strings.TrimRight(string(b), "\x00")
	out, err := exec.Command(loader, "--list", program).Output()
	if err != nil {
		t.Fatalf("%s --list %s: %v", loader, program, err)
	}
	list := []string{loader}
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") && word != loader {
				list = append(list, word)
			}
		}
	}
	return list
}

func copyTo(t testing.TB, root, from, to string) {
	t.Helper()
	at := filepath.Join(root, to)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
