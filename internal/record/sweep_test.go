package record

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func makePipe(path string) error { return syscall.Mkfifo(path, 0o600) }

const (
	idA = "aaaa000000000000"
	idB = "bbbb000000000000"
)

// killed are the states that a program leaves that is killed between two steps.
// Each starts from a sandbox idA that is called web.
var killed = []struct {
	name    string
	leave   func(t *testing.T, d *Dir)
	want    []string          // what Sweep removes
	names   map[string]string // whom Find finds, before and after
	free    []string          // names that Create can take
	sandbox bool              // whether idA is there
}{
	{"nothing", func(*testing.T, *Dir) {}, nil, map[string]string{"web": idA}, []string{"db"}, true},
	{"create: directory", func(t *testing.T, d *Dir) {
		must(t, os.Mkdir(filepath.Join(d.sandboxes(), newPrefix+idB), 0o700))
	}, []string{"sandboxes/.new-" + idB}, map[string]string{"web": idA}, []string{"db"}, true},
	{"create: name", func(t *testing.T, d *Dir) {
		must(t, os.Mkdir(filepath.Join(d.sandboxes(), newPrefix+idB), 0o700))
		must(t, os.WriteFile(filepath.Join(d.sandboxes(), newPrefix+idB, lockFile), nil, 0o600))
		must(t, os.Symlink(linkPrefix+idB, d.linkPath("db")))
	}, []string{"names/db", "sandboxes/.new-" + idB}, map[string]string{"web": idA}, []string{"db"}, true},
	{"take a dead name", func(t *testing.T, d *Dir) {
		must(t, os.Symlink(linkPrefix+idB, d.linkPath("db")))
		must(t, os.Symlink(linkPrefix+idB, d.linkPath(newPrefix+idB)))
	}, []string{"names/.new-" + idB, "names/db"}, map[string]string{"web": idA}, []string{"db"}, true},
	{"rename: name", func(t *testing.T, d *Dir) {
		must(t, os.Symlink(linkPrefix+idA, d.linkPath("db")))
	}, []string{"names/db"}, map[string]string{"web": idA}, []string{"db"}, true},
	{"rename: half a file", func(t *testing.T, d *Dir) {
		must(t, os.Symlink(linkPrefix+idA, d.linkPath("db")))
		must(t, os.WriteFile(d.entry(idA).Path(configFile+tempSuffix), []byte("{"), 0o600))
	}, []string{"names/db", "sandboxes/" + idA + "/config.json.new"}, map[string]string{"web": idA}, []string{"db"}, true},
	{"rename: file", func(t *testing.T, d *Dir) {
		e := d.entry(idA)
		must(t, os.Symlink(linkPrefix+idA, d.linkPath("db")))
		c, err := e.Config()
		must(t, err)
		c.Name = "db"
		must(t, e.writeConfig(c))
	}, []string{"names/web"}, map[string]string{"db": idA}, []string{"web"}, true},
	{"record: half a file", func(t *testing.T, d *Dir) {
		must(t, os.WriteFile(d.entry(idA).Path(recordFile+tempSuffix), nil, 0o600))
	}, []string{"sandboxes/" + idA + "/record.json.new"}, map[string]string{"web": idA}, []string{"db"}, true},
	{"remove: directory", func(t *testing.T, d *Dir) {
		must(t, os.Rename(d.entry(idA).Path(""), filepath.Join(d.sandboxes(), gonePrefix+idA)))
	}, []string{"names/web", "sandboxes/.gone-" + idA}, nil, []string{"web"}, false},
	{"remove: name", func(t *testing.T, d *Dir) {
		must(t, os.Rename(d.entry(idA).Path(""), filepath.Join(d.sandboxes(), gonePrefix+idA)))
		must(t, os.Remove(d.linkPath("web")))
		must(t, os.Remove(filepath.Join(d.sandboxes(), gonePrefix+idA, lockFile)))
	}, []string{"sandboxes/.gone-" + idA}, nil, []string{"web"}, false},
}

func TestKilled(t *testing.T) {
	for _, c := range killed {
		t.Run(c.name, func(t *testing.T) {
			d := testDir(t)
			e, err := d.Create(&Config{ID: idA, Name: "web"})
			must(t, err)
			must(t, e.Unlock())
			c.leave(t, d)
			checkKilled(t, d, c.names, c.free, c.sandbox)
			if got, err := d.Sweep(context.Background()); len(got) != 0 || err != nil {
				t.Errorf("got %q, %v, want nothing removed that is so young", got, err)
			}
			removed, err := d.sweep(context.Background(), 0)
			must(t, err)
			var got []string
			for _, r := range removed {
				path, why, _ := strings.Cut(r, " (")
				if got = append(got, path); len(why) < 5 {
					t.Errorf("%q does not say why", r)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			checkKilled(t, d, c.names, c.free, c.sandbox)
			checkWhole(t, d)
			for _, name := range c.free {
				if e, err := d.Create(&Config{Name: name}); err != nil {
					t.Errorf("%s is not free: %v", name, err)
				} else {
					must(t, e.Unlock())
				}
			}
			checkWhole(t, d)
		})
	}
}

// TestKilledThenCreated is TestKilled without a Sweep in between.
func TestKilledThenCreated(t *testing.T) {
	for _, c := range killed {
		t.Run(c.name, func(t *testing.T) {
			d := testDir(t)
			e, err := d.Create(&Config{ID: idA, Name: "web"})
			must(t, err)
			must(t, e.Unlock())
			c.leave(t, d)
			for _, name := range c.free {
				e, err := d.Create(&Config{ID: idB, Name: name})
				must(t, err)
				must(t, e.Unlock())
				if found, err := d.Find(name); err != nil || found.ID() != idB {
					t.Errorf("got %v, %v, want %s to be %s", found, err, name, idB)
				}
			}
			for name, id := range c.names {
				if found, err := d.Find(name); err != nil || found.ID() != id {
					t.Errorf("got %v, %v, want %s to be %s", found, err, name, id)
				}
			}
			_, err = d.sweep(context.Background(), 0)
			must(t, err)
			checkWhole(t, d)
			if got := len(listed(t, d)); got != len(c.names)+len(c.free) {
				t.Errorf("got %d sandboxes, want %d", got, len(c.names)+len(c.free))
			}
		})
	}
}

func checkKilled(t *testing.T, d *Dir, names map[string]string, free []string, sandbox bool) {
	t.Helper()
	for name, id := range names {
		if e, err := d.Find(name); err != nil || e.ID() != id {
			t.Errorf("got %v, %v, want %s to be %s", e, err, name, id)
		}
	}
	for _, name := range free {
		_, err := d.Find(name)
		wantErr(t, err, ErrNotFound)
	}
	var want []string
	if sandbox {
		want = append(want, idA)
	}
	if got := listed(t, d); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// checkWhole checks that everything fits together when nobody works on it and
// Sweep has been there.
func checkWhole(t testing.TB, d *Dir) {
	t.Helper()
	all, err := d.Load()
	must(t, err)
	holders := map[string]string{}
	for _, l := range all {
		if l.Err != nil {
			t.Errorf("half a sandbox: %v", l.Err)
			continue
		}
		name := l.Config.Name
		if name == "" {
			continue
		}
		if other := holders[name]; other != "" {
			t.Errorf("%s and %s are both called %s", other, l.Config.ID, name)
		}
		holders[name] = l.Config.ID
	}
	for name, id := range names(t, d) {
		if holders[name] != id {
			t.Errorf("%s points to %s, but it is the name of %q", name, id, holders[name])
		}
		delete(holders, name)
	}
	for name, id := range holders {
		t.Errorf("%s is called %s, but the name does not point to it", id, name)
	}
	left, err := readDir(d.sandboxes())
	if must(t, err); len(left) != len(all) {
		t.Errorf("got %q, want %d sandboxes and nothing else", left, len(all))
	}
}

func TestSweepLeavesWhatIsHeld(t *testing.T) {
	d := testDir(t)
	for _, prefix := range []string{newPrefix, gonePrefix} {
		e, err := d.Create(&Config{})
		must(t, err)
		defer func() { must(t, e.Unlock()) }()
		must(t, os.Rename(e.Path(""), filepath.Join(d.sandboxes(), prefix+e.ID())))
	}
	e, err := d.Create(&Config{})
	must(t, err)
	defer func() { must(t, e.Unlock()) }()
	must(t, os.WriteFile(e.Path(recordFile+tempSuffix), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(d.names(), "notes"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(d.sandboxes(), "junk"), 0o700))
	if got, err := d.sweep(context.Background(), 0); len(got) != 0 || err != nil {
		t.Errorf("got %q, %v, want everything to stay", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = d.sweep(ctx, 0)
	wantErr(t, err, context.Canceled)
}

func TestSweepAge(t *testing.T) {
	d := testDir(t)
	path := filepath.Join(d.sandboxes(), newPrefix+idA)
	must(t, os.Mkdir(path, 0o700))
	old := time.Now().Add(-2 * sweepAge)
	must(t, os.Chtimes(path, old, old))
	if got, err := d.Sweep(context.Background()); len(got) != 1 || err != nil {
		t.Errorf("got %q, %v, want what is old enough", got, err)
	}
}

func TestLogOrphans(t *testing.T) {
	t.Setenv(logEnv, "")
	d := testDir(t)
	if got := d.LogOrphans(); got != nil {
		t.Errorf("got %q, want none", got)
	}
	root, err := d.LogRoot()
	must(t, err)
	e := create(t, d, "web")
	for _, name := range []string{e.ID(), idA, "lost+found"} {
		must(t, os.MkdirAll(filepath.Join(root, name), 0o700))
	}
	if got, want := d.LogOrphans(), []string{filepath.Join(root, idA)}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
