package audit_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/audit"
)

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "audit.jsonl") }

func open(t *testing.T, path string) *audit.Log {
	t.Helper()
	l, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t *testing.T, l *audit.Log, b event.Body) audit.Head {
	t.Helper()
	r, err := event.New(time.Now(), event.Sandbox{ID: "0123456789abcdef", Name: "web"}, b)
	if err != nil {
		t.Fatal(err)
	}
	head, err := l.Append(r, false)
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// written is a log of n records.
func written(t *testing.T, n int) (path string, head audit.Head) {
	t.Helper()
	path = newPath(t)
	l := open(t, path)
	for i := range n {
		head = add(t, l, event.Started{Pid: i + 1, Seconds: 0.25})
	}
	return path, head
}

func verify(t *testing.T, path string, known audit.Known) *audit.Result {
	t.Helper()
	r, err := audit.VerifyFile(path, known)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
}

func TestLogVerifies(t *testing.T) {
	path, head := written(t, 5)
	r := verify(t, path, audit.Known{Head: head.Hash, Count: 5})
	if !r.OK || r.Records != 5 || r.Head != head || *r.Since != 0 {
		t.Errorf("got %+v, want five records and head %+v", r, head)
	}
	if got, err := audit.HeadFile(path); err != nil || got != head {
		t.Errorf("HeadFile: got %+v, %v, want %+v", got, err, head)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", st.Mode(), err)
	}
	old := audit.Head{}
	l := open(t, path) // another writer, later
	for range 3 {
		old = add(t, l, event.Paused{})
	}
	if r := verify(t, path, audit.Known{Head: head.Hash}); !r.OK || *r.Since != 3 || r.Head != old {
		t.Errorf("after three more: got %+v", r)
	}
}

// TestEveryChangeIsFound changes a log in each way that there is, at each place.
func TestEveryChangeIsFound(t *testing.T) {
	path, head := written(t, 6)
	whole := lines(t, path)
	for i := range whole {
		without := append(append([]string{}, whole[:i]...), whole[i+1:]...)
		twice := append(append(append([]string{}, whole[:i]...), whole[i]), whole[i:]...)
		changed := append([]string{}, whole...)
		changed[i] = strings.Replace(changed[i], `"pid":`, `"pid":1`, 1)
		swapped := append([]string{}, whole...)
		swapped[i], swapped[(i+1)%6] = swapped[(i+1)%6], swapped[i]
		strange := append(append(append([]string{}, whole[:i]...), "{}\n"), whole[i:]...)
		for name, tc := range map[string]struct {
			lines []string
			first int // the first line that may be named
		}{
			"dropped": {without, i + 1}, "twice": {twice, i + 2}, "changed": {changed, i + 1}, "swapped": {swapped, 1}, "strange": {strange, i + 1},
			"cut": {append(append([]string{}, whole[:i]...), whole[i][:len(whole[i])/2]), i + 1},
		} {
			if err := os.WriteFile(path, []byte(strings.Join(tc.lines, "")), 0o600); err != nil {
				t.Fatal(err)
			}
			r := verify(t, path, audit.Known{Head: head.Hash})
			if r.OK {
				t.Errorf("line %d %s: it verifies", i+1, name)
				continue
			}
			if p := r.Problems[0]; name != "swapped" && i < 5 && p.Line != tc.first {
				t.Errorf("line %d %s: line %d is named (%s), want %d", i+1, name, p.Line, p.Why, tc.first)
			}
		}
	}
}

// TestCutEndNeedsTheHead: a chain cannot know that it was longer. The head does.
func TestCutEndNeedsTheHead(t *testing.T) {
	path, head := written(t, 4)
	whole := lines(t, path)
	if err := os.WriteFile(path, []byte(strings.Join(whole[:3], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, path, audit.Known{}); !r.OK {
		t.Errorf("got %+v: what is left is a chain", r)
	}
	if r := verify(t, path, audit.Known{Head: head.Hash}); r.OK {
		t.Error("the head is missing and it verifies")
	}
	if r := verify(t, path, audit.Known{Count: 4}); r.OK {
		t.Error("a record of four is missing and it verifies")
	}
}

// TestRewrittenNeedsTheHead: who rewrites everything makes another chain.
func TestRewrittenNeedsTheHead(t *testing.T) {
	_, head := written(t, 4)
	forged, _ := written(t, 4)
	if r := verify(t, forged, audit.Known{Count: 4}); !r.OK {
		t.Errorf("got %+v: another log is a chain too", r)
	}
	if r := verify(t, forged, audit.Known{Head: head.Hash}); r.OK {
		t.Error("another log has this one's head")
	}
}

func TestTornTailIsReported(t *testing.T) {
	for _, torn := range []string{"x", `{"v":1,"seq":3`, strings.Repeat("y", 5000)} {
		path, _ := written(t, 2)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(torn)
		f.Close()
		if _, err := audit.HeadFile(path); err == nil {
			t.Error("the head of a log that is not whole is told")
		}
		add(t, open(t, path), event.Paused{})
		r := verify(t, path, audit.Known{})
		if r.OK || len(r.Problems) != 1 || r.Problems[0].Line != 3 || r.Records != 4 {
			t.Errorf("got %+v, want line 3 told and four records", r)
		}
		if got := lines(t, path); got[2] != torn+"\n" || !strings.Contains(got[3], `"type":"log_torn"`) || !strings.Contains(got[3], fmt.Sprintf(`"bytes":%d`, len(torn))) {
			t.Errorf("got %.200q, want the torn line as it was, and a report", got[2:])
		}
	}
	path := newPath(t) // a log of nothing but half a record
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	add(t, open(t, path), event.Paused{})
	if r := verify(t, path, audit.Known{}); r.OK || r.Records != 2 || r.Problems[0].Line != 1 {
		t.Errorf("got %+v", r)
	}
}

func TestWhatIsNoLogIsRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file("target", "", 0o600), link); err != nil {
		t.Fatal(err)
	}
	linked := file("linked", "", 0o600)
	if err := os.Link(linked, filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if s, err := audit.OpenStream(linked); err == nil {
		t.Error("a file with two names is opened for a stream")
		s.Close()
	}
	whole, _ := written(t, 1)
	record := lines(t, whole)[0]
	for name, path := range map[string]string{
		"another file": file("text", "hello\n", 0o600), "a changed end": file("end", strings.Replace(record, "0.25", "0.26", 1)+"\n", 0o600),
		"writable by others": file("open", "", 0o622), "a pipe": fifo, "a link": link, "a device": "/dev/null", "a directory": dir, "a file with two names": linked,
	} {
		if l, err := audit.Open(path); err == nil {
			t.Errorf("%s is opened", name)
			l.Close()
		}
	}
}

// TestManyWriters: programs that write at once make one chain.
func TestManyWriters(t *testing.T) {
	path := newPath(t)
	var wg sync.WaitGroup
	for range 8 {
		l := open(t, path)
		wg.Go(func() {
			for i := range 100 {
				r, err := event.New(time.Now(), event.Sandbox{ID: "x"}, event.Started{Pid: i})
				if err == nil {
					_, err = l.Append(r, false)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if r := verify(t, path, audit.Known{Count: 800}); !r.OK || r.Head.Seq != 800 {
		t.Errorf("got %+v, want 800 records", r)
	}
}

// FuzzVerify changes bytes of a valid log: whatever is not the log itself must
// not verify against its head, and without it only what is a part of the log from
// its beginning.
func FuzzVerify(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "log")
	l, err := audit.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	defer l.Close()
	var head audit.Head
	for i := range 4 {
		r, err := event.New(time.Unix(int64(i), 5), event.Sandbox{ID: "0123456789abcdef"}, event.Ended{Reason: "exited", Code: i})
		if err != nil {
			f.Fatal(err)
		}
		if head, err = l.Append(r, false); err != nil {
			f.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(3), uint32(1), []byte("x"))
	f.Add(uint32(0), uint32(0), []byte("{}\n"))
	f.Add(uint32(100), uint32(1000), []byte{})
	f.Add(uint32(len(whole)-1), uint32(1), []byte{})
	f.Add(uint32(bytes.IndexByte(whole, '\n')+1), uint32(len(whole)), []byte{})
	f.Fuzz(func(t *testing.T, at, length uint32, with []byte) {
		at %= uint32(len(whole) + 1)
		length %= uint32(len(whole)) - at + 1
		changed := append(append(append([]byte{}, whole[:at]...), with...), whole[at+length:]...)
		same := bytes.Equal(changed, whole)
		r, err := audit.Verify(bytes.NewReader(changed), audit.Known{Head: head.Hash})
		if err != nil || r.OK != same {
			t.Errorf("%d bytes at %d became %q: verifies: %t, %v; the same: %t", length, at, with, r.OK, err, same)
		}
		part := bytes.HasPrefix(whole, changed) && (len(changed) == 0 || changed[len(changed)-1] == '\n')
		if r, err := audit.Verify(bytes.NewReader(changed), audit.Known{}); err != nil || r.OK != part {
			t.Errorf("without the head: %d bytes at %d became %q: verifies: %t, %v; a part: %t", length, at, with, r.OK, err, part)
		}
	})
}
