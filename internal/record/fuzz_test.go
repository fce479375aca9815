package record

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func FuzzFind(f *testing.F) {
	d := testDir(f)
	e := create(f, d, "web")
	other := create(f, d, "abcd")
	must(f, os.WriteFile(filepath.Join(d.Path(), "outside"), nil, 0o600))
	for _, s := range []string{"web", e.ID(), e.ID()[:2], "..", ".", "/", "../names/web", "web/.", "\x00", strings.Repeat("a", 5000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		got, err := d.Find(ref)
		if err != nil {
			if len(err.Error()) > 600 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		c, err := got.Config()
		must(t, err)
		if ref != c.Name && (len(ref) < minPrefix || !strings.HasPrefix(c.ID, ref)) {
			t.Errorf("%q is %s, called %s", ref, c.ID, c.Name)
		}
		if got.ID() != e.ID() && got.ID() != other.ID() {
			t.Errorf("%q is %s, which nobody made", ref, got.ID())
		}
	})
}

// FuzzDecode checks that what is accepted can be written and read again.
func FuzzDecode(f *testing.F) {
	conf, err := json.Marshal(&Config{Version: Version, ID: idA, Name: "web", Command: []string{"a"}, LogDir: "/x"})
	must(f, err)
	rec, err := json.Marshal(&Record{Version: Version, State: StateEnded, Outcome: &Outcome{}, Identity: json.RawMessage("1"), Started: time.Now()})
	must(f, err)
	for _, b := range [][]byte{conf, rec, []byte(`{"version":2}`), []byte(`{"version":1,"state":"ended","identity":null}`), nil, []byte("null")} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeConfig(idA, "config", b); err == nil {
			out, err := encodeConfig(idA, "config", c)
			if err != nil || c.ID != idA || c.Version != Version || c.Name != "" && checkName(c.Name) != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			again, err := decodeConfig(idA, "config", out)
			must(t, err)
			sameJSON(t, out, again)
		}
		if r, err := decodeRecord("record", b); err == nil {
			out, err := encode("record", r)
			must(t, err)
			again, err := decodeRecord("record", out)
			must(t, err)
			sameJSON(t, out, again)
		}
	})
}

func sameJSON(t *testing.T, want []byte, v any) {
	t.Helper()
	got, err := encode("again", v)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzEvents puts anything into the file of events: what is logged afterwards
// is found all the same, by readers and by followers.
func FuzzEvents(f *testing.F) {
	for _, s := range []string{"", "\n", "{", `{"time":"2030-01-02T03:04:05Z","type":"a"}`, "\x00\xff\n\n", "[]"} {
		f.Add([]byte(s))
	}
	d := testDir(f)
	f.Fuzz(func(t *testing.T, junk []byte) {
		must(t, os.RemoveAll(d.eventsPath())) // ext4 would wait for the disk at a file that is made empty
		must(t, os.WriteFile(d.eventsPath(), junk, 0o600))
		before, err := d.Events(time.Time{}, time.Time{})
		must(t, err)
		old, r, err := d.openBoth()
		must(t, err)
		followed := 0
		count := func(Event) error { followed++; return nil }
		must(t, r.read(count))
		must(t, d.Log(Event{Type: "mine", ID: "1"}))
		must(t, d.Log(Event{Type: "mine", ID: "2"}))
		must(t, r.read(count))
		must(t, old.close())
		must(t, r.close())
		after, err := d.Events(time.Time{}, time.Time{})
		must(t, err)
		// The last line of the junk may be an event that lacked its newline.
		if n := len(after) - len(before); n != 2 && n != 3 || followed != len(after) {
			t.Errorf("got %d events, %d followed, after %d, want two more", len(after), followed, len(before))
		}
	})
}
