package audit_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/audit"
)

type buffer struct{ bytes.Buffer }

func (*buffer) Close() error { return nil }

func records(t *testing.T, text string) (out []event.Record) {
	t.Helper()
	for line := range strings.Lines(text) {
		var r event.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, r)
	}
	return out
}

// TestTellerTellsTheHead: the stream gets the log's last record, to be kept elsewhere.
func TestTellerTellsTheHead(t *testing.T) {
	path := newPath(t)
	var out buffer
	teller := &audit.Teller{Sandbox: event.Sandbox{ID: "1"}, Log: open(t, path), Streams: []*audit.Stream{audit.NewStream(&out)}}
	for _, b := range []event.Body{event.Started{Pid: 5}, event.Ended{Reason: "exited"}} {
		if err := teller.Tell(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := teller.Streams[0].Close(); err != nil {
		t.Fatal(err)
	}
	all := records(t, out.String())
	if len(all) != 3 || all[2].Type != "audit_head" || all[2].Seq != 3 {
		t.Fatalf("got %s", out.String())
	}
	var head event.LogHead
	if err := json.Unmarshal(all[2].Data, &head); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, path, audit.Known{Head: head.Hash, Count: head.Seq}); !r.OK {
		t.Errorf("got %+v", r)
	}
}

// TestSlowReaderHoldsUpNothing: what a full pipe does not take is counted, and
// what comes later says so.
func TestSlowReaderHoldsUpNothing(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := audit.NewStream(w)
	for range 20_000 {
		rec, err := event.New(testTime, event.Sandbox{ID: "1"}, event.Weakened{Feature: "x", Why: strings.Repeat("y", 100)})
		if err != nil {
			t.Fatal(err)
		}
		s.Tell(rec) // must return although nobody reads
	}
	text := make(chan string)
	go func() { b, _ := io.ReadAll(r); text <- string(b) }()
	for range 500 { // as soon as there is room, the loss is told
		rec, err := event.New(testTime, event.Sandbox{ID: "1"}, event.Paused{})
		if err != nil {
			t.Fatal(err)
		}
		s.Tell(rec)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "were not written") {
		t.Errorf("got %v, want how many were lost", err)
	}
	all := records(t, <-text)
	for i, r := range all {
		if r.Seq != uint64(i+1) {
			t.Fatalf("record %d has number %d", i+1, r.Seq)
		}
	}
	if len(all) < 4096 || len(all) >= 20_000 {
		t.Errorf("got %d records", len(all))
	}
}

func TestReaderThatIsGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	s := audit.NewStream(w)
	rec, err := event.New(testTime, event.Sandbox{ID: "1"}, event.Paused{})
	if err != nil {
		t.Fatal(err)
	}
	s.Tell(rec)
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "1 events were not written") {
		t.Errorf("got %v", err)
	}
}

// inherit gives this program a descriptor as a shell would: not close-on-exec.
func inherit(t *testing.T, f *os.File) int {
	t.Helper()
	n, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 50)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(n) })
	return n
}

func TestInheritedDescriptor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for name, fd := range map[string]int{"standard error": 2, "not open": 999, "negative": -1, "our own": int(w.Fd()), "only readable": inherit(t, r)} {
		if s, err := audit.InheritStream(fd); err == nil {
			t.Errorf("%s: descriptor %d is taken", name, fd)
			s.Close()
		}
	}
	n := inherit(t, w)
	s, err := audit.InheritStream(n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err == nil {
		t.Error("the descriptor is still open under its number: it would be inherited again")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestStreamFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	for range 2 {
		s, err := audit.OpenStream(path)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := event.New(testTime, event.Sandbox{ID: "1"}, event.Paused{})
		if err != nil {
			t.Fatal(err)
		}
		s.Tell(rec)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil || len(records(t, string(b))) != 2 {
		t.Errorf("got %q, %v, want two records", b, err)
	}
	for _, bad := range []string{"/dev/null", t.TempDir()} {
		if _, err := audit.OpenStream(bad); err == nil {
			t.Errorf("%s is taken for a file", bad)
		}
	}
}

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
