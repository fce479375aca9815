package hook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// trusted is a new directory that only root and we could change: not one of
// t.TempDir, which lie in /tmp.
func trusted(t testing.TB) string {
	t.Helper()
	home := "/root"
	if os.Geteuid() != 0 {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp(home, "nucleus-hook-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	must(t, os.Chmod(dir, 0o755)) // whatever the umask
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes a file with a mode, whatever the umask.
func write(t testing.TB, path, content string, mode os.FileMode) string {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
	must(t, os.Chmod(path, mode))
	return path
}

func script(t testing.TB, path, text string) string {
	t.Helper()
	return write(t, path, "#!/bin/sh\n"+text+"\n", 0o755)
}

func mkdir(t testing.TB, path string, mode os.FileMode) string {
	t.Helper()
	must(t, os.Mkdir(path, 0o700))
	must(t, os.Chmod(path, mode))
	return path
}

func link(t testing.TB, target, path string) string {
	t.Helper()
	must(t, os.Symlink(target, path))
	return path
}

// gets checks a hook: want is part of the error, "" is none.
func gets(t *testing.T, path string, uid int, want string) {
	t.Helper()
	err := Check(spec.Hook{Path: path}, uid)
	if want == "" {
		if err != nil {
			t.Errorf("%s: got %v, want it to be fine", path, err)
		}
		return
	}
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
		t.Errorf("%s: got %v, want it refused: %s", path, err, want)
	}
}

func TestCheck(t *testing.T) {
	dir, uid := trusted(t), os.Geteuid()
	good := script(t, dir+"/good", "exit 0")
	up := strings.Repeat("../", 40)
	mkdir(t, dir+"/sub", 0o755)
	for _, path := range []string{
		"/bin/sh", "/usr/bin/env", good, dir + "/sub/../good", dir + "//./good", "/" + up + good,
		link(t, "good", dir+"/relative"), link(t, good, dir+"/absolute"), link(t, "absolute", dir+"/twice"),
		link(t, "sub", dir+"/tosub") + "/../good", link(t, up+good, dir+"/far"),
		write(t, dir+"/unreadable", "", 0o711),
	} {
		gets(t, path, uid, "")
	}
	for path, want := range map[string]string{
		"":                                "not an absolute path",
		"good":                            "not an absolute path",
		"./good":                          "not an absolute path",
		"/":                               "is a directory",
		dir:                               "is a directory",
		dir + "/sub/..":                   "is a directory",
		dir + "/none":                     "no such file",
		dir + "/none/../good":             "no such file",
		good + "/x":                       "is not a directory",
		good + "/../good":                 "is not a directory",
		"/dev/null":                       "is not a regular file",
		link(t, "loop", dir+"/loop"):      "too many levels",
		link(t, "gone", dir+"/dangling"):  "no such file",
		write(t, dir+"/data", "x", 0o644): "is not executable",
		write(t, dir+"/setuid", "x", 0o755|os.ModeSetuid): "set-user-ID",
		write(t, dir+"/setgid", "x", 0o755|os.ModeSetgid): "set-user-ID",
		write(t, dir+"/group", "x", 0o775):                "/group can be written to by group",
		write(t, dir+"/world", "x", 0o757):                "/world can be written to by everybody",
	} {
		gets(t, path, uid, want)
	}
}

// TestCheckDirectories is B33: what counts is every directory that the way leads
// through, however the path is written.
func TestCheckDirectories(t *testing.T) {
	dir, uid := trusted(t), os.Geteuid()
	for name, mode := range map[string]os.FileMode{"open": 0o777, "sticky": 0o777 | os.ModeSticky, "group": 0o775} {
		script(t, mkdir(t, dir+"/"+name, 0o755)+"/x", "exit 0")
		mkdir(t, dir+"/"+name+"/deep", 0o755)
		script(t, dir+"/"+name+"/deep/x", "exit 0")
		link(t, "../good", dir+"/"+name+"/out")
		must(t, os.Chmod(dir+"/"+name, mode))
	}
	good := script(t, dir+"/good", "exit 0")
	root := strings.Repeat("../", 40)
	for path, want := range map[string]string{
		dir + "/open/x":                             "/open can be written to by everybody",
		dir + "/open/deep/x":                        "/open can be written to by everybody",
		dir + "/sticky/x":                           "/sticky can be written to by everybody",
		dir + "/group/x":                            "/group can be written to by group",
		"/usr/bin/" + root + dir + "/open/x":        "/open can be written to by everybody",
		link(t, "open/x", dir+"/tofile"):            "/open can be written to by everybody",
		link(t, "open", dir+"/todir") + "/x":        "/open can be written to by everybody",
		link(t, dir+"/open/deep", dir+"/in") + "/x": "/open can be written to by everybody",
		// Good in the end, but others decide whether the way leads there.
		dir + "/open/out":     "/open can be written to by everybody",
		dir + "/open/../good": "/open can be written to by everybody",
	} {
		gets(t, path, uid, want)
	}
	gets(t, good, uid, "")
}

func TestCheckTmp(t *testing.T) {
	path := script(t, filepath.Join(t.TempDir(), "x"), "exit 0")
	gets(t, path, os.Geteuid(), "can be written to by everybody")
}

// TestCheckOwners asks as somebody else, which needs no rights.
func TestCheckOwners(t *testing.T) {
	dir, uid := trusted(t), os.Geteuid()
	good := script(t, dir+"/good", "exit 0")
	gets(t, "/bin/sh", 0, "")
	gets(t, "/bin/sh", 12345, "")
	if uid != 0 {
		gets(t, good, 0, "must belong to root")
		gets(t, good, 12345, "must belong to root or to user 12345")
	}
}

// TestCheckForeignOwners gives parts of a way to another user.
func TestCheckForeignOwners(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	account, err := sandboxtest.EnsureUser()
	must(t, err)
	uid := int(account.UID)
	dir := trusted(t) + "/d"
	must(t, os.Mkdir(dir, 0o755))
	x := script(t, mkdir(t, dir+"/e", 0o755)+"/x", "exit 0")
	out := link(t, "e/x", dir+"/out")
	for _, tc := range []struct {
		name, owned string
		forRoot     string
	}{
		{"nothing", "", ""},
		{"the file", x, "/e/x belongs to user"},
		{"its directory", dir + "/e", "/e belongs to user"},
		{"a directory above", dir, "/d belongs to user"},
		{"a link", out, ""}, // where it points to cannot be changed, and it lies in root's directory
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.owned != "" {
				must(t, os.Lchown(tc.owned, uid, uid))
				defer func() { must(t, os.Lchown(tc.owned, 0, 0)) }()
			}
			gets(t, x, 0, tc.forRoot)
			gets(t, out, 0, tc.forRoot)
			gets(t, x, uid, "")
			if tc.forRoot != "" {
				gets(t, x, uid+1, tc.forRoot)
			}
		})
	}
}
