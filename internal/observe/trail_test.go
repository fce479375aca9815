package observe

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// written is a log of what a test says was written.
type written struct {
	records []record
	mu      sync.Mutex
	wake    chan struct{}
	until   time.Time
	closed  bool
}

type record struct {
	kind int
	text string
	err  error
}

func (w *written) Next() (int, string, error) {
	for {
		w.mu.Lock()
		if len(w.records) > 0 {
			r := w.records[0]
			w.records = w.records[1:]
			w.mu.Unlock()
			return r.kind, r.text, r.err
		}
		until := w.until
		w.mu.Unlock()
		if !until.IsZero() && time.Now().After(until) {
			return 0, "", os.ErrDeadlineExceeded
		}
		select {
		case <-w.wake:
		case <-time.After(time.Millisecond):
		}
	}
}

func (w *written) SetDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = t
	return nil
}

func (w *written) Close() error { w.closed = true; return nil }

// read has a trail read records to the end.
func read(t *testing.T, records ...record) *Trail {
	t.Helper()
	w := &written{records: records, wake: make(chan struct{})}
	trail := follow(w)
	if err := trail.Stop(time.Second); err != nil || !w.closed {
		t.Errorf("stop: %v, closed: %t", err, w.closed)
	}
	return trail
}

func access(serial int, rest string) record {
	return record{kind: kernel.AuditLandlockAccess, text: fmt.Sprintf("audit(1732186800.349:%d): %s", serial, rest)}
}

func domain(serial int, id string, pid int) record {
	return record{kind: kernel.AuditLandlockDomain, text: fmt.Sprintf(`audit(1732186800.349:%d): domain=%s status=allocated mode=enforcing pid=%d uid=0 exe="/usr/bin/x" comm="x"`, serial, id, pid)}
}

// TestTrail: what one sandbox was refused, among what others were.
func TestTrail(t *testing.T) {
	trail := read(t,
		access(44, `domain=195ba459b blockers=fs.write_file path="/data/tool" dev="vda2" ino=351`), domain(44, "195ba459b", 300),
		record{kind: kernel.AuditSyscall, text: `audit(1732186800.349:44): arch=c000003e syscall=257 success=no exit=-13 ppid=272 pid=301 auid=0 comm="sh" exe="/usr/bin/dash" key=(null)`},
		access(45, `domain=195ba459c blockers=fs.read_file path="/other" dev="vda2" ino=1`), domain(45, "195ba459c", 7),
		access(46, `domain=195ba459b blockers=fs.write_file path="/data/tool" dev="vda2" ino=351`),
		access(47, `domain=195ba459d blockers=fs.make_reg,fs.refer path=2F612062 dev="vda2" ino=2`), domain(47, "195ba459d", 300),
		access(48, `domain=195ba459b blockers=net.connect_tcp daddr=127.0.0.1 dest=80`),
		access(49, `domain=195ba459b blockers=net.bind_tcp src=8080`),
		access(50, `domain=195ba459b blockers=scope.signal opid=1 ocomm="systemd"`),
		record{kind: kernel.AuditLandlockDomain, text: `audit(1732186801.000:51): domain=195ba459b status=deallocated denials=5`},
	)
	at := time.Unix(1732186800, 349e6)
	want := []Blocked{
		{Blockers: []string{"fs.write_file"}, Path: "/data/tool", Port: -1, Pid: 301, Process: "sh", Time: at, Count: 2},
		{Blockers: []string{"fs.make_reg", "fs.refer"}, Path: "/a b", Port: -1, Time: at, Count: 1},
		{Blockers: []string{"net.connect_tcp"}, Port: 80, Time: at, Count: 1},
		{Blockers: []string{"net.bind_tcp"}, Port: 8080, Time: at, Count: 1},
		{Blockers: []string{"scope.signal"}, Port: -1, Time: at, Count: 1},
	}
	if got, whole := trail.Of(300); !reflect.DeepEqual(got, want) || !whole {
		t.Errorf("got  %+v (whole: %t)\nwant %+v", got, whole, want)
	}
	if got, _ := trail.Of(8); len(got) != 0 {
		t.Errorf("somebody who was refused nothing: got %+v", got)
	}
}

// TestTrailLoses: what is missing is not said to be all.
func TestTrailLoses(t *testing.T) {
	one := access(1, "domain=1 blockers=fs.read_file path=\"/x\"")
	var many []record
	for i := range mostBlocked + 1 {
		many = append(many, access(i, fmt.Sprintf(`domain=1 blockers=fs.read_file path="/%d"`, i)))
	}
	for name, row := range map[string]struct {
		records []record
		whole   bool
	}{
		"all":      {[]record{one, domain(1, "1", 300)}, true},
		"overrun":  {[]record{{err: kernel.ErrAuditLost}, one, domain(1, "1", 300)}, false},
		"broken":   {[]record{one, domain(1, "1", 300), {err: errors.New("no")}}, false},
		"too many": {append(many, domain(1, "1", 300)), false},
	} {
		got, whole := read(t, row.records...).Of(300)
		if whole != row.whole || len(got) == 0 {
			t.Errorf("%s: got %d, whole: %t, want %t", name, len(got), whole, row.whole)
		}
	}
}

// FuzzTrail: text from the kernel holds text of programs, which can be anything.
func FuzzTrail(f *testing.F) {
	f.Add(`audit(1732186800.349:44): domain=195ba459b blockers=fs.write_file path="/data/tool" dev="vda2" ino=351`)
	f.Add(`audit(: path="`)
	f.Add(`audit(1.2:3): path=2F1b5b domain= =  blockers`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []int{kernel.AuditLandlockAccess, kernel.AuditLandlockDomain, kernel.AuditSyscall} {
			all, _ := read(t, record{kind: kind, text: text}, domain(9, fields(text)["domain"], 300)).Of(300)
			for _, b := range all {
				if clean(b.Path) != b.Path || clean(b.Process) != b.Process {
					t.Errorf("%q: a terminal would obey %q, %q", text, b.Path, b.Process)
				}
			}
		}
	})
}
