package record

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

func TestOpenMakesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := Open(path + "/")
	must(t, err)
	if d.Path() != path {
		t.Errorf("got %s, want %s", d.Path(), path)
	}
	for _, p := range []string{filepath.Dir(path), path, d.sandboxes(), d.names()} {
		st, err := os.Lstat(p)
		must(t, err)
		if st.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s: got mode %v, want a directory 0700", p, st.Mode())
		}
	}
	_, err = Open(path)
	must(t, err)
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(at("real"), 0o700))
	must(t, os.Symlink("real", at("link")))
	must(t, os.WriteFile(at("file"), nil, 0o600))
	for _, mode := range []os.FileMode{0o710, 0o701, 0o720, 0o777} {
		name := strconv.FormatUint(uint64(mode), 8)
		must(t, os.Mkdir(at(name), mode))
		must(t, os.Chmod(at(name), mode)) // whatever the umask
	}
	for _, c := range []struct {
		path string
		want error
		text string
	}{
		{at("link"), ErrNotDir, "symbolic link"},
		{at("link") + "/", ErrNotDir, "symbolic link"},
		{at("link") + "/.", ErrNotDir, "symbolic link"},
		{at("file"), ErrNotDir, "not a directory"},
		{at("710"), ErrExposed, "chmod 700 " + at("710")},
		{at("701"), ErrExposed, "0701"},
		{at("720"), ErrExposed, "0720"},
		{at("777"), ErrExposed, "0777"},
	} {
		_, err := Open(c.path)
		wantErr(t, err, c.want, c.text)
	}
	for _, path := range []string{"state", "./state", "../x"} {
		if _, err := Open(path); err == nil {
			t.Errorf("%q was opened", path)
		}
	}
	if left, err := os.ReadDir(at("real")); err != nil || len(left) != 0 {
		t.Errorf("got %v, %v in the target of the link, want nothing", left, err)
	}
}

func TestOpenRefusesAnothersAsRoot(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	dir := filepath.Join(t.TempDir(), "state")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.Chown(dir, 12345, 12345))
	_, err := Open(dir)
	wantErr(t, err, ErrNotOwner, "belongs to user 12345", "sudo -u '#12345'")
}

func TestOpenRefusesRootsAsUser(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.User)
	_, err := Open("/usr")
	wantErr(t, err, ErrNotOwner, "belongs to user 0", "sudo -u '#0'")
}

func TestDefault(t *testing.T) {
	t.Setenv(stateEnv, "/elsewhere")
	if got, err := Default(); got != "/elsewhere" || err != nil {
		t.Errorf("got %q, %v, want what %s says", got, err, stateEnv)
	}
	t.Setenv(stateEnv, "relative")
	if got, err := Default(); err == nil {
		t.Errorf("got %q, want an error", got)
	}
	if _, err := Open(""); err == nil {
		t.Error("a relative state directory was opened")
	}
}

func TestDefaultAsRoot(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	t.Setenv(stateEnv, "")
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	if got, err := Default(); got != "/run/nucleus" || err != nil {
		t.Errorf("got %q, %v, want /run/nucleus", got, err)
	}
	t.Setenv(logEnv, "")
	if got, err := (&Dir{path: "/run/nucleus"}).LogRoot(); got != "/var/log/nucleus" || err != nil {
		t.Errorf("got %q, %v, want /var/log/nucleus", got, err)
	}
}

func TestDefaultAsUser(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.User)
	own, home := t.TempDir(), t.TempDir()
	fallback := filepath.Join(home, ".local/state/nucleus/run")
	system := "/run/user/" + strconv.Itoa(os.Geteuid())
	if ownDir(system, os.Geteuid()) {
		fallback = filepath.Join(system, "nucleus")
	}
	t.Setenv(stateEnv, "")
	t.Setenv(logEnv, "")
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", home)
	for _, c := range []struct{ runtime, want string }{
		{own, filepath.Join(own, "nucleus")},
		{"", fallback},
		{"relative", fallback},
		{"/usr", fallback}, // somebody else's
		{filepath.Join(own, "missing"), fallback},
	} {
		t.Setenv("XDG_RUNTIME_DIR", c.runtime)
		if got, err := Default(); got != c.want || err != nil {
			t.Errorf("XDG_RUNTIME_DIR=%q: got %q, %v, want %q", c.runtime, got, err, c.want)
		}
	}
	if got, err := (&Dir{path: own}).LogRoot(); got != filepath.Join(home, ".local/state/nucleus/log") || err != nil {
		t.Errorf("logs: got %q, %v", got, err)
	}
	t.Setenv("XDG_STATE_HOME", own)
	if got, err := (&Dir{path: own}).LogRoot(); got != filepath.Join(own, "nucleus/log") || err != nil {
		t.Errorf("logs: got %q, %v", got, err)
	}
}

func TestLogRoot(t *testing.T) {
	t.Setenv(logEnv, "")
	d := testDir(t)
	if got, err := d.LogRoot(); got != filepath.Join(d.Path(), "log") || err != nil {
		t.Errorf("got %q, %v, want it inside the directory that was chosen", got, err)
	}
	t.Setenv(stateEnv, d.Path())
	env, err := Open("")
	must(t, err)
	if got, err := env.LogRoot(); got != filepath.Join(d.Path(), "log") || err != nil {
		t.Errorf("got %q, %v, want it inside the directory of %s", got, err, stateEnv)
	}
	t.Setenv(logEnv, "/logs")
	if got, err := d.LogRoot(); got != "/logs" || err != nil {
		t.Errorf("got %q, %v, want /logs", got, err)
	}
	t.Setenv(logEnv, "logs")
	if got, err := d.LogRoot(); err == nil {
		t.Errorf("got %q, want an error", got)
	}
}
