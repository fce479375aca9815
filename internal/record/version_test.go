package record

import (
	"context"
	"os"
	"strings"
	"testing"
)

// TestOtherVersions checks that files of another version are neither read nor
// touched, and that broken ones are only an obstacle to being read.
func TestOtherVersions(t *testing.T) {
	for _, c := range []struct {
		name, content string
		want          error
		removable     bool
	}{
		{"newer", `{"version":2,"id":[],"state":{}}`, ErrVersion, false},
		{"older", `{"version":0}`, ErrVersion, false},
		{"none", `{}`, ErrBroken, true},
		{"string", `{"version":"1"}`, ErrBroken, true},
		{"two", `{"version":2,"version":1,"Version":3,"state":"ended"}`, ErrVersion, false},
		{"empty", ``, ErrBroken, true},
		{"torn", `{"version":1,"id":"`, ErrBroken, true},
		{"another's", `{"version":1,"id":"0000000000000000","state":"odd"}`, ErrBroken, true},
		{"large", `{"version":1,"state":"ended"}` + strings.Repeat(" ", maxFile), ErrBroken, true},
	} {
		for _, file := range []string{configFile, recordFile} {
			t.Run(c.name+"/"+file, func(t *testing.T) { testOther(t, file, c.content, c.want, c.removable) })
		}
	}
}

func testOther(t *testing.T, file, content string, want error, removable bool) {
	d := testDir(t)
	e := create(t, d, "web")
	conf, err := e.Config()
	must(t, err)
	must(t, os.WriteFile(e.Path(file), []byte(content), 0o600))
	if found, err := d.Find("web"); err != nil || found.ID() != e.ID() {
		t.Fatalf("got %v, %v, want to find it still", found, err)
	}
	if file == configFile {
		_, err = e.Config()
	} else {
		_, err = e.Record()
	}
	wantErr(t, err, want, e.Path(file))
	all, err := d.Load()
	must(t, err)
	if len(all) != 1 || all[0].Entry.ID() != e.ID() {
		t.Fatalf("got %+v, want the one", all)
	}
	wantErr(t, all[0].Err, want)
	_, err = d.Create(&Config{Name: "web"})
	wantErr(t, err, ErrExists)
	_, err = d.sweep(context.Background(), 0)
	must(t, err)
	if got := names(t, d); got["web"] != e.ID() {
		t.Errorf("got %v, want the name to stay", got)
	}
	lock(t, e)
	if !removable {
		wantErr(t, e.Remove(), want)
		if file == configFile {
			wantErr(t, e.SetConfig(conf), want)
			wantErr(t, e.Rename("other"), want)
		} else {
			wantErr(t, e.SetRecord(&Record{State: StateEnded}), want)
		}
		if got, err := os.ReadFile(e.Path(file)); err != nil || string(got) != content {
			t.Errorf("got %q, %v, want it untouched", got, err)
		}
		must(t, e.Unlock())
		return
	}
	if file == configFile {
		must(t, e.SetConfig(conf))
	} else {
		must(t, e.SetRecord(&Record{State: StateEnded}))
	}
	must(t, os.WriteFile(e.Path(file), []byte(content), 0o600))
	must(t, e.Remove())
	if got := names(t, d); len(got) != 0 {
		t.Errorf("got %v, want no name", got)
	}
}

// TestNotAFile puts things in the place of a record that would hold us up.
func TestNotAFile(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(path string) error
	}{
		{"directory", func(path string) error { return os.Mkdir(path, 0o700) }},
		{"link", func(path string) error { return os.Symlink("/dev/zero", path) }},
		{"pipe", makePipe},
		{"nothing", func(string) error { return nil }},
	} {
		d := testDir(t)
		e := create(t, d, "web")
		must(t, os.Remove(e.Path(recordFile)))
		must(t, c.make(e.Path(recordFile)))
		if _, err := e.Record(); err == nil {
			t.Errorf("%s: was read", c.name)
		}
		lock(t, e)
		if err := e.Remove(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
