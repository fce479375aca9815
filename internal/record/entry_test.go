package record

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/spec"
)

func TestCreateAndReadBack(t *testing.T) {
	d := testDir(t)
	c := &Config{
		Name: "web", Sandbox: spec.Sandbox{Toolchain: true, Env: []string{"A=<&>\ufffd\\ufffd"}}, Command: []string{"sleep", "1"},
		Service: spec.Service{StopTimeout: time.Second}, LogDir: "/var/log/x", Labels: map[string]string{"a": "b"},
	}
	before := time.Now()
	e, err := d.Create(c)
	must(t, err)
	unlockLater(t, e)
	if !validID(c.ID) || c.ID != e.ID() || c.Version != Version || c.Created.Before(before) || e.Dir() != d {
		t.Errorf("got id %q of %q, version %d, created %v", e.ID(), c.ID, c.Version, c.Created)
	}
	got, err := e.Config()
	must(t, err)
	if !reflect.DeepEqual(got, c) {
		t.Errorf("got %+v, want %+v", got, c)
	}
	r, err := e.Record()
	must(t, err)
	boot, err := kernel.BootID()
	must(t, err)
	if want := (&Record{Version: Version, State: StateCreated, Boot: boot}); !reflect.DeepEqual(r, want) {
		t.Errorf("got %+v, want %+v", r, want)
	}
	r = &Record{
		State: StateEnded, Boot: boot, Identity: json.RawMessage(`{"a":1}`), Pid: 7, StartTicks: 1 << 60, Run: 3, Restarts: 2,
		Started: time.Now(), Ended: time.Now(), Outcome: &Outcome{Reason: "exited", Code: 1, Signal: 9, Detail: "why", Hint: "so"}, Stopped: true, Paused: true,
		Keeper: &Proc{1, 2}, Logger: &Proc{3, 4}, Health: "healthy", HealthDetail: "yes", Ready: true, Status: "bad \xff byte", Unit: "u.service",
	}
	must(t, e.SetRecord(r))
	back, err := e.Record()
	must(t, err)
	want := *r
	want.Version, want.Started, want.Ended, want.Status = Version, plain(r.Started), plain(r.Ended), "bad \ufffd byte"
	if !reflect.DeepEqual(back, &want) {
		t.Errorf("got %+v, want %+v", back, &want)
	}
	c.Labels = nil
	must(t, e.SetConfig(c))
	if got, err := e.Config(); err != nil || got.Labels != nil {
		t.Errorf("got %+v, %v, want no labels", got, err)
	}
	for _, file := range []string{configFile, recordFile, lockFile, useFile} {
		if st, err := os.Lstat(e.Path(file)); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: got %v, %v, want mode 0600", file, st, err)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	d := testDir(t)
	web := create(t, d, "web")
	for name, c := range map[string]*Config{
		"dash":           {Name: "-a"},
		"path":           {Name: "../a"},
		"long":           {Name: strings.Repeat("a", 65)},
		"short id":       {ID: "12"},
		"id path":        {ID: "../../../../../../aa"},
		"upper id":       {ID: "AAAAAAAAAAAAAAAA"},
		"log":            {LogDir: "relative"},
		"not UTF-8":      {Command: []string{"a\xff"}},
		"too big":        {Command: []string{strings.Repeat("a", maxFile)}},
		"name is own id": {Name: "00000000000000aa", ID: "00000000000000aa"},
	} {
		if e, err := d.Create(c); err == nil {
			t.Errorf("%s: made %s", name, e.ID())
		}
	}
	for _, c := range []*Config{{Name: "web"}, {Name: web.ID()}, {Name: Short(web.ID())}, {ID: web.ID()}} {
		_, err := d.Create(c)
		wantErr(t, err, ErrExists, Short(web.ID()))
	}
	_, err := d.Create(&Config{Name: "web"})
	wantErr(t, err, ErrExists, "name web is taken by sandbox "+Short(web.ID()), "nucleus rm web")
	for _, name := range []string{"123456789abc0000", "123456789abd"} {
		create(t, d, name)
		_, err := d.Create(&Config{ID: (name + "0000")[:idLen]})
		wantErr(t, err, ErrExists, name)
	}
	if got := listed(t, d); len(got) != 3 || len(names(t, d)) != 3 {
		t.Errorf("got %q, %v, want three sandboxes", got, names(t, d))
	}
	left, err := readDir(d.sandboxes())
	if must(t, err); len(left) != 3 {
		t.Errorf("got %q, want nothing left by refusals", left)
	}
}

func TestFind(t *testing.T) {
	d := testDir(t)
	ids := map[string]string{"web": "abcd000000000001", "ab": "abcd000000000002", "": "abcd000000000003", "other": "ffff000000000001", "torn": "eeee000000000001"}
	for name, id := range ids {
		e, err := d.Create(&Config{ID: id, Name: name})
		must(t, err)
		must(t, e.Unlock())
	}
	must(t, os.WriteFile(d.entry(ids["torn"]).Path(configFile), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(d.Path(), "file"), nil, 0o600))
	must(t, os.Symlink("../..", filepath.Join(d.names(), "evil")))
	must(t, os.Symlink(linkPrefix+"../x", filepath.Join(d.names(), "evil2")))
	for _, c := range []struct {
		ref, id string
		err     error
	}{
		{"web", "abcd000000000001", nil},
		{"ab", "abcd000000000002", nil}, // a name goes before a beginning
		{"abcd000000000003", "abcd000000000003", nil},
		{"ff", "ffff000000000001", nil},
		{"ffff00000000", "ffff000000000001", nil},
		{"f", "", ErrNotFound},
		{"abcd", "", ErrAmbiguous},
		{"ffff000000000002", "", ErrNotFound},
		{"ffff0000000000010", "", ErrNotFound},
		{"FF", "", ErrNotFound},
		{"", "", ErrNotFound},
		{".", "", ErrNotFound},
		{"..", "", ErrNotFound},
		{"../file", "", ErrNotFound},
		{"/", "", ErrNotFound},
		{"web/", "", ErrNotFound},
		{"web\x00", "", ErrNotFound},
		{"evil", "", ErrNotFound},
		{"evil2", "", ErrNotFound},
		{"torn", "eeee000000000001", nil},
		{"../names/torn", "", ErrNotFound},
		{"./torn", "", ErrNotFound},
		{strings.Repeat("a", 1<<20), "", ErrNotFound},
	} {
		e, err := d.Find(c.ref)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || err == nil && e.ID() != c.id {
			t.Errorf("%.40q: got %v, %v, want %q, %v", c.ref, e, err, c.id, c.err)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%.40q: the error has %d bytes", c.ref, len(err.Error()))
		}
	}
	_, err := d.Find("abcd")
	wantErr(t, err, ErrAmbiguous, "abcd000000000001 (web), abcd000000000002 (ab), abcd000000000003")
	_, err = d.Find("nothing")
	wantErr(t, err, ErrNotFound, `no sandbox "nothing"; nucleus ps -a lists them`)
}

func TestRename(t *testing.T) {
	d := testDir(t)
	web, db, none := create(t, d, "web"), create(t, d, "db"), create(t, d, "")
	wantErr(t, web.Rename("www"), ErrLock)
	lock(t, web)
	wantErr(t, web.Rename("db"), ErrExists, Short(db.ID()))
	wantErr(t, web.Rename(none.ID()), ErrExists)
	for _, bad := range []string{"", "..", "a/b", "-x"} {
		if web.Rename(bad) == nil {
			t.Errorf("renamed to %q", bad)
		}
	}
	must(t, web.Rename("www"))
	must(t, web.Rename("www"))
	lock(t, none)
	must(t, none.Rename("web"))
	want := map[string]string{"www": web.ID(), "db": db.ID(), "web": none.ID()}
	if got := names(t, d); !reflect.DeepEqual(got, want) {
		t.Errorf("got names %v, want %v", got, want)
	}
	for name, id := range want {
		e, err := d.Find(name)
		must(t, err)
		if c, err := e.Config(); err != nil || e.ID() != id || c.Name != name {
			t.Errorf("%s: got %s, %+v, %v, want %s", name, e.ID(), c, err, id)
		}
	}
	c, err := web.Config()
	must(t, err)
	c.Name = "db"
	if web.SetConfig(c) == nil {
		t.Error("SetConfig gave the sandbox a name that another has")
	}
}

// TestFailedRename makes the one step fail that can for want of room.
func TestFailedRename(t *testing.T) {
	d := testDir(t)
	e := create(t, d, "web")
	lock(t, e)
	must(t, os.Mkdir(e.Path(configFile+tempSuffix), 0o700))
	if e.Rename("db") == nil {
		t.Fatal("renamed without writing the configuration")
	}
	if got, want := names(t, d), (map[string]string{"web": e.ID()}); !reflect.DeepEqual(got, want) {
		t.Errorf("got names %v, want %v", got, want)
	}
}

func TestRemove(t *testing.T) {
	d := testDir(t)
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.WriteFile(outside, []byte("x"), 0o600))
	web := create(t, d, "web")
	wantErr(t, web.Remove(), ErrLock)
	must(t, os.Symlink(filepath.Dir(outside), web.Path("trap")))
	lock(t, web)
	must(t, web.Remove())
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("removed through a link: %v", err)
	}
	if got := listed(t, d); len(got) != 0 || len(names(t, d)) != 0 {
		t.Errorf("got %q, %v, want nothing", got, names(t, d))
	}
	_, useErr := web.Use()
	_, _, idleErr := web.Idle()
	_, confErr := web.Config()
	_, recErr := web.Record()
	_, _, exitErr := web.ReadExit()
	for i, err := range []error{web.Lock(context.Background()), useErr, idleErr, confErr, recErr, exitErr} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%d: got %v, want %v", i, err, ErrNotFound)
		}
	}
	wantErr(t, web.Unlock(), ErrLock)
	create(t, d, "web")
}

func TestLock(t *testing.T) {
	d := testDir(t)
	a := create(t, d, "web")
	b, err := d.Find("web")
	must(t, err)
	lock(t, a)
	if ok, err := b.TryLock(); ok || err != nil {
		t.Fatalf("got %v, %v, want it to be locked", ok, err)
	}
	wantErr(t, a.Lock(context.Background()), ErrLock)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	wantErr(t, b.Lock(ctx), why)

	got := make(chan error, 1)
	go func() { got <- b.Lock(context.Background()) }()
	must(t, a.Unlock())
	must(t, <-got)
	go func() { got <- a.Lock(context.Background()) }()
	must(t, b.Remove())
	wantErr(t, <-got, ErrNotFound)

	for _, err := range []error{b.SetRecord(&Record{State: StateEnded}), b.SetConfig(&Config{ID: b.ID()})} {
		wantErr(t, err, ErrLock)
	}
	_, err = b.NewExit()
	wantErr(t, err, ErrLock)
}

// TestNamesake removes a sandbox, and then puts another in its place, between
// the two steps of locking and of using it: neither must believe that it has it.
func TestNamesake(t *testing.T) {
	d := testDir(t)
	a := create(t, d, "web")
	for range 2 {
		mine := d.entry(a.ID())
		locks, err := a.openOwn(lockFile)
		must(t, err)
		uses, err := a.openOwn(useFile)
		must(t, err)
		lock(t, a)
		must(t, a.Remove())
		if ok, stale, err := mine.take(locks); ok || !stale || err != nil {
			t.Errorf("got %v, %v, %v, want the lock to be stale", ok, stale, err)
		}
		_, err = mine.use(uses)
		wantErr(t, err, ErrNotFound)
		if a, err = d.Create(&Config{ID: a.ID()}); err != nil {
			t.Fatal(err)
		}
		if ok, err := mine.TryLock(); ok || err != nil {
			t.Errorf("got %v, %v, want the lock of the new sandbox to be held", ok, err)
		}
		must(t, a.Unlock())
	}
	locks, err := a.openOwn(lockFile)
	must(t, err)
	uses, err := a.openOwn(useFile)
	must(t, err)
	lock(t, a)
	must(t, a.Remove())
	e := create(t, d, "")
	must(t, os.Rename(e.Path(""), a.Path("")))
	if ok, stale, err := a.take(locks); ok || !stale || err != nil {
		t.Errorf("got %v, %v, %v, want the lock of the old sandbox to be stale", ok, stale, err)
	}
	_, err = a.use(uses)
	wantErr(t, err, ErrNotFound)
}

func TestUse(t *testing.T) {
	d := testDir(t)
	e := create(t, d, "web")
	long := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(e.Path(useFile), long, long))
	since, used, err := e.Idle()
	if err != nil || used || !since.Equal(long) {
		t.Errorf("got %v, %v, %v, want unused since an hour", since, used, err)
	}
	one, err := e.Use()
	must(t, err)
	two, err := e.Use()
	must(t, err)
	for range 2 { // asking does not look like using
		if _, used, err := e.Idle(); err != nil || !used {
			t.Errorf("got %v, %v, want used", used, err)
		}
	}
	must(t, one())
	must(t, one())
	if _, used, err := e.Idle(); err != nil || !used {
		t.Errorf("got %v, %v, want used by the second", used, err)
	}
	must(t, os.Chtimes(e.Path(useFile), long, long))
	if since, used, err := e.Idle(); err != nil || !used || time.Since(since) > time.Minute {
		t.Errorf("got %v, %v, %v, want used now", since, used, err)
	}
	if st, err := os.Stat(e.Path(useFile)); err != nil || time.Since(st.ModTime()) > time.Minute {
		t.Errorf("got %v, %v, want the use to be noted", st.ModTime(), err)
	}
	must(t, os.Chtimes(e.Path(useFile), long, long))
	must(t, two())
	if since, used, err := e.Idle(); err != nil || used || time.Since(since) > time.Minute {
		t.Errorf("got %v, %v, %v, want unused since now", since, used, err)
	}
	three, err := e.Use()
	must(t, err)
	lock(t, e) // use is no obstacle
	must(t, e.Remove())
	must(t, three())
}

func TestExit(t *testing.T) {
	d := testDir(t)
	e := create(t, d, "web")
	_, _, err := e.ReadExit()
	wantErr(t, err, fs.ErrNotExist)
	lock(t, e)
	for _, text := range []string{"12345678", "87654321"} {
		f, err := e.NewExit()
		must(t, err)
		if b, ended, err := e.ReadExit(); len(b) != 0 || !ended.IsZero() || err != nil {
			t.Errorf("got %q, %v, %v, want nothing yet", b, ended, err)
		}
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_GETFL, 0)
		if errno != 0 || flags&syscall.O_APPEND == 0 || flags&syscall.O_ACCMODE != syscall.O_WRONLY {
			t.Errorf("got flags %#x, want writing at the end only", flags)
		}
		_, err = f.WriteString(text)
		must(t, err)
		must(t, f.Close())
		b, ended, err := e.ReadExit()
		if string(b) != text || time.Since(ended) > time.Minute || err != nil {
			t.Errorf("got %q, %v, %v, want %q now", b, ended, err, text)
		}
	}
}

func TestOrder(t *testing.T) {
	d := testDir(t)
	base := time.Now()
	var want []string
	for _, i := range []int{3, 1, 2, 0} {
		c := &Config{Created: base.Add(time.Duration(i) * time.Nanosecond)}
		e, err := d.Create(c)
		must(t, err)
		must(t, e.Unlock())
		want = append(want, c.ID)
	}
	want = []string{want[3], want[1], want[2], want[0]}
	must(t, os.WriteFile(filepath.Join(d.sandboxes(), "0123456789abcdef"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(d.sandboxes(), "junk"), 0o700))
	if got := listed(t, d); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
