package logs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// f is a frame as the tests write it; at is seconds after epoch.
type f struct {
	at     float64
	stream int
	data   string
	goesOn bool
}

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func (x f) encode(turn uint16) []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, uint64(epoch.UnixNano()+int64(x.at*1e9)))
	b = le.AppendUint32(b, uint32(len(x.data)))
	m := byte(magic)
	if x.goesOn {
		m |= 1
	}
	b = append(b, byte(x.stream), m)
	return append(le.AppendUint16(b, turn), x.data...)
}

func encode(turn uint16, all ...f) (b []byte) {
	for _, x := range all {
		b = append(b, x.encode(turn)...)
	}
	return b
}

func lost(at float64, n uint64) f {
	return f{at: at, stream: Lost, data: string(binary.LittleEndian.AppendUint64(nil, n))}
}

// ring makes a directory with these files.
func ring(t testing.TB, files ...[]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	made, err := Create(dir, len(files))
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range files {
		_, err := made[i].Write(b)
		if err := errors.Join(err, made[i].Close()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func openDir(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// copied returns what Copy prints: each write to out and err, marked, in order.
func copied(t testing.TB, dir string, o Options) string {
	t.Helper()
	var all bytes.Buffer
	l := openDir(t, dir)
	if err := l.Copy(context.Background(), marked{&all, "1"}, marked{&all, "2"}, o); err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// marked marks each line that is written through it.
type marked struct {
	to   *bytes.Buffer
	mark string
}

func (m marked) Write(b []byte) (int, error) {
	for part := range strings.Lines(string(b)) {
		m.to.WriteString(m.mark + "|" + part)
	}
	return len(b), nil
}

var all = Options{Tail: -1, Stdout: true, Stderr: true}

func with(change func(*Options)) Options {
	o := all
	change(&o)
	return o
}

func at(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * 1e9)) }

// long is a ring with its oldest file in the middle, the clock going back, and
// the turns starting again at 0.
func long() [][]byte {
	return [][]byte{
		encode(0, f{5, 1, "o5\n", false}, f{6, 2, "e6\n", false}),
		encode(1, f{1, 1, "o7\no8 ", false}, f{2, 2, "e9\n", false}, f{3, 1, "goes on\n", true}),
		nil,
		encode(65534, f{2, 1, "ail\no2\n", true}, f{3, 2, "e3\n", false}),
		encode(65535, f{4, 1, "o4", false}),
	}
}

func TestCopy(t *testing.T) {
	simple := [][]byte{encode(0, f{1, 1, "a\n", false}, f{2, 2, "b\n", false}, f{3, 1, "c\nd\n", false}, f{4, 1, "e", false})}
	for _, tc := range []struct {
		name  string
		files [][]byte
		o     Options
		want  string
	}{
		{"nothing is asked for", simple, Options{}, ""},
		{"no files with frames", [][]byte{nil, nil}, all, ""},
		{"all", simple, all, "1|a\n2|b\n1|c\n1|d\n1|e"},
		{"standard output", simple, with(func(o *Options) { o.Stderr = false }), "1|a\n1|c\n1|d\n1|e"},
		{"standard error", simple, with(func(o *Options) { o.Stdout = false }), "2|b\n"},
		{"the order of the ring", long(), all, "1|o2\n2|e3\n1|o4\n1|o5\n2|e6\n1|o7\n1|o8 2|e9\n1|goes on\n"},
		{"since", simple, with(func(o *Options) { o.Since = at(2) }), "2|b\n1|c\n1|d\n1|e"},
		{"until", simple, with(func(o *Options) { o.Until = at(2) }), "1|a\n2|b\n"},
		{"between", simple, with(func(o *Options) { o.Since, o.Until = at(1.5), at(3.5) }), "2|b\n1|c\n1|d\n"},
		{"a line that begins in time is whole", [][]byte{encode(0, f{1, 1, "a", false}, f{9, 1, "b\nc\n", true})},
			with(func(o *Options) { o.Until = at(2) }), "1|ab\n"},
		{"a line that began before is left out", [][]byte{encode(0, f{1, 1, "a", false}, f{9, 1, "b\nc\n", true})},
			with(func(o *Options) { o.Since = at(2) }), "1|c\n"},
		{"lost", [][]byte{encode(0, f{1, 2, "a", false}, lost(2, 1<<40), f{3, 2, "b\n", true})}, all,
			"2|a\n2|nucleus: 1099511627776 bytes of output were lost: the disk was full\n2|b\n"},
		{"lost between lines", [][]byte{encode(0, f{1, 1, "a\n", false}, lost(2, 1), f{3, 1, "b\n", false})}, all,
			"1|a\n2|nucleus: 1 bytes of output were lost: the disk was full\n1|b\n"},
		{"the rest of a line never came", [][]byte{encode(0, f{1, 1, "a", false}, f{2, 1, "b\n", false})}, all, "1|a\n1|b\n"},
		{"an empty frame", [][]byte{encode(0, f{1, 1, "a", false}, f{2, 2, "", true}, f{3, 1, "b\n", true})}, all, "1|ab\n"},
		{"a line without a beginning and without an end", [][]byte{encode(9, f{1, 1, "abc", true}, f{2, 1, "d\n", true})}, all, "1|abcd\n"},
		{"torn header", [][]byte{append(encode(0, f{1, 1, "a\n", false}), encode(0, f{2, 1, "b\n", false})[:15]...)}, all, "1|a\n"},
		{"torn data", [][]byte{append(encode(0, f{1, 1, "a\n", false}), encode(0, f{2, 1, "b\n", false})[:17]...)}, all, "1|a\n"},
		{"zeros at the end", [][]byte{append(encode(0, f{1, 1, "a\n", false}), make([]byte, 100)...)}, all, "1|a\n"},
		{"torn, and the ring went on", [][]byte{append(encode(0, f{1, 1, "a\n", false}), 1, 2, 3), encode(1, f{2, 1, "b\n", false})}, all, "1|a\n1|b\n"},
		{"what an earlier turn left behind", [][]byte{append(encode(3, f{1, 1, "a\n", false}), encode(2, f{2, 1, "b\n", false})...)}, all, "1|a\n"},
		{"a file of nothing valid", [][]byte{bytes.Repeat([]byte("garbage "), 100), encode(1, f{2, 1, "b\n", false})}, all, "1|b\n"},
		{"an empty file that comes next", [][]byte{nil, encode(1, f{2, 1, "b\n", false})}, all, "1|b\n"},
		{"a frame that is too long", [][]byte{encode(0, f{1, 1, "a\n", false}, f{2, 1, strings.Repeat("x", maxData) + "\n", false})}, all, "1|a\n"},
		{"a count that is too short", [][]byte{encode(0, f{1, 1, "a\n", false}, f{2, Lost, "1234567", false}, f{3, 1, "b\n", false})}, all, "1|a\n"},
		{"a stream that is none", [][]byte{encode(0, f{1, 1, "a\n", false}, f{2, 4, "b\n", false})}, all, "1|a\n"},
		{"a turn was skipped", [][]byte{encode(1, f{1, 1, "a\n", false}), encode(3, f{2, 1, "b\n", false})}, all, "1|a\n2|" + overwritten + "1|b\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := copied(t, ring(t, tc.files...), tc.o); got != tc.want {
				t.Errorf("got\n%q, want\n%q", got, tc.want)
			}
		})
	}
}

func TestTail(t *testing.T) {
	dir := ring(t, long()...)
	const whole = "1|o2\n2|e3\n1|o4\n1|o5\n2|e6\n1|o7\n1|o8 2|e9\n1|goes on\n"
	for n, want := range map[int]string{
		0: "", 1: "2|e9\n", 2: "1|o8 2|e9\n1|goes on\n", 3: "1|o7\n1|o8 2|e9\n1|goes on\n", 4: "2|e6\n1|o7\n1|o8 2|e9\n1|goes on\n",
		6: "1|o4\n1|o5\n2|e6\n1|o7\n1|o8 2|e9\n1|goes on\n", 8: whole, 9: whole, 1 << 40: whole,
	} {
		if got := copied(t, dir, with(func(o *Options) { o.Tail = n })); got != want {
			t.Errorf("%d lines: got\n%q, want\n%q", n, got, want)
		}
	}
	o := with(func(o *Options) { o.Tail, o.Stdout = 2, false })
	if got, want := copied(t, dir, o), "2|e6\n2|e9\n"; got != want {
		t.Errorf("of standard error: got %q, want %q", got, want)
	}
	o = with(func(o *Options) { o.Tail, o.Until = 2, at(3.5) }) // in the order of the ring
	if got, want := copied(t, dir, o), "1|o8 2|e9\n1|goes on\n"; got != want {
		t.Errorf("until: got %q, want %q", got, want)
	}
	notes := ring(t, encode(0, f{1, 1, "a\n", false}, lost(2, 7), f{3, 1, "b\n", false}, f{4, 1, "c\n", false}))
	for n, want := range map[int]string{1: "1|c\n", 2: "2|nucleus: 7 bytes of output were lost: the disk was full\n1|b\n1|c\n"} {
		if got := copied(t, notes, with(func(o *Options) { o.Tail = n })); got != want {
			t.Errorf("%d lines around a note: got %q, want %q", n, got, want)
		}
	}
}

func TestTailAcrossAGap(t *testing.T) {
	dir := ring(t, encode(1, f{1, 1, "a\nb\n", false}), encode(3, f{2, 1, "c\nd\n", false}))
	for n, want := range map[int]string{0: "", 1: "1|d\n", 3: "1|b\n2|" + overwritten + "1|c\n1|d\n"} {
		if got := copied(t, dir, with(func(o *Options) { o.Tail = n })); got != want {
			t.Errorf("%d lines: got %q, want %q", n, got, want)
		}
	}
}

// TestTailReadsNoMoreThanItNeeds makes the older files unreadable.
func TestTailReadsNoMoreThanItNeeds(t *testing.T) {
	dir := ring(t, encode(0, f{1, 1, "a\n", false}), encode(1, f{2, 1, "b\nc\n", false}))
	l := openDir(t, dir)
	segments, err := l.segments()
	if err != nil {
		t.Fatal(err)
	}
	for tail, want := range map[int]uint16{1: 1, 2: 1, 3: 0} {
		r := &reader{log: l}
		if _, err := l.position(context.Background(), r, &printer{o: with(func(o *Options) { o.Tail = tail })}); err != nil {
			t.Fatal(err)
		}
		if r.at.turn != want || len(segments) != 2 {
			t.Errorf("%d lines: begins in turn %d, want %d", tail, r.at.turn, want)
		}
	}
}

func TestTimestamps(t *testing.T) {
	defer func(l *time.Location) { time.Local = l }(time.Local)
	time.Local = time.FixedZone("elsewhere", 3600)
	dir := ring(t,
		encode(0, f{0, 1, "one\ntwo ", false}, f{1, 2, "err", false}, f{2.5, 1, "goes on\nthree\n", true}),
		encode(1, f{3, 2, "or\n", true}, f{4.000000001, 1, "\n", false}, f{5, 1, "part", false}))
	o := with(func(o *Options) { o.Timestamps = true })
	const want = "1|2030-01-02T03:04:05.000000000Z one\n1|2030-01-02T03:04:05.000000000Z two 2|2030-01-02T03:04:06.000000000Z err" +
		"1|goes on\n1|2030-01-02T03:04:07.500000000Z three\n2|or\n1|2030-01-02T03:04:09.000000001Z \n1|2030-01-02T03:04:10.000000000Z part"
	if got := copied(t, dir, o); got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

// TestEndDoesNotMove has the log grow with each frame that is read.
func TestEndDoesNotMove(t *testing.T) {
	dir := ring(t, encode(0, f{1, 1, "a", false}, f{2, 1, "b", true}), nil)
	var got []string
	err := openDir(t, dir).Frames(func(x Frame) error {
		got = append(got, string(x.Data))
		appendTo(t, dir, 0, encode(0, f{3, 1, "c", true}))
		appendTo(t, dir, 1, encode(1, f{4, 1, "d", true}))
		if len(got) > 9 {
			return errors.New("no end")
		}
		return nil
	})
	if err != nil || strings.Join(got, "") != "ab" {
		t.Errorf("got %q (%v), want what was there at first", got, err)
	}
}

// TestEndDoesNotMoveAround has the writer empty what is being read.
func TestEndDoesNotMoveAround(t *testing.T) {
	dir := ring(t, encode(0, f{1, 1, "a", false}), encode(1, f{2, 1, "b", true}))
	var got []string
	err := openDir(t, dir).Frames(func(x Frame) error {
		got = append(got, string(x.Data))
		for i := range 2 {
			if err := os.Truncate(fileName(dir, i), 0); err != nil {
				return err
			}
			appendTo(t, dir, i, encode(uint16(2+i), f{3, 1, "c", true}))
		}
		return nil
	})
	if err != nil || strings.Join(got, "") != "a" {
		t.Errorf("got %q (%v), want what is left of what was there", got, err)
	}
}

// TestOvertakenWhileSkipping has lines counted that are gone when they are to be
// passed over.
func TestOvertakenWhileSkipping(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(marked{&out, "1"}, marked{&out, "2"}, all)
	p.skip = 5
	gone := p.frame(Frame{Stream: Stdout, Data: []byte("skipped\n")})
	err := errors.Join(gone, p.gap(true), p.gap(true),
		p.frame(Frame{Stream: Stdout, Continues: true, Data: []byte("ail\nnext\n")}), p.flush())
	if want := "2|" + overwritten + "1|next\n"; err != nil || out.String() != want {
		t.Errorf("got %q (%v), want %q", out.String(), err, want)
	}
}

func TestNext(t *testing.T) {
	one := encode(7, f{1, 1, "a\n", false})
	for _, tc := range []struct {
		name  string
		files [][]byte
		want  Place
	}{
		{"nothing", [][]byte{nil, nil}, Place{}},
		{"garbage", [][]byte{[]byte(strings.Repeat("x", 99)), nil}, Place{}},
		{"one", [][]byte{nil, one}, Place{1, 18, 7}},
		{"torn", [][]byte{append(bytes.Clone(one), one[:17]...)}, Place{0, 18, 7}},
		{"two", [][]byte{append(bytes.Clone(one), one...)}, Place{0, 36, 7}},
		{"ring", long(), Place{1, 3*16 + 6 + 3 + 8, 1}},
	} {
		got, err := Next(ring(t, tc.files...))
		if err != nil || got != tc.want {
			t.Errorf("%s: got %+v (%v), want %+v", tc.name, got, err, tc.want)
		}
	}
	if _, err := Next(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that it does not exist", err)
	}
}

func TestCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a/log")
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	make := func(n int) {
		t.Helper()
		files, err := Create(dir, n)
		if err != nil || len(files) != n {
			t.Fatalf("got %d files (%v), want %d", len(files), err, n)
		}
		for i, file := range files {
			if info, err := file.Stat(); err != nil || info.Mode() != 0o600 || info.Name() != fmt.Sprintf("log.%d", i) {
				t.Errorf("got %v (%v), want a file log.%d for its owner only", info, err, i)
			}
			if err := file.Close(); err != nil {
				t.Error(err)
			}
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) != n {
			t.Errorf("got %v (%v), want %d files", names, err, n)
		}
	}
	make(3)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v (%v), want a directory for its owner only", info, err)
	}
	if err := os.WriteFile(dir+"/log.1", []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	make(16)
	make(2)
	if b, err := os.ReadFile(dir + "/log.1"); err != nil || string(b) != "kept" {
		t.Errorf("got %q (%v), want what was there", b, err)
	}
	for _, n := range []int{-1, 0, 17} {
		if _, err := Create(dir, n); err == nil {
			t.Errorf("%d files: no error", n)
		}
	}
}

// TestLinksAndPipesAreRefused puts other things where a log file should be.
func TestLinksAndPipesAreRefused(t *testing.T) {
	for name, put := range map[string]func(string) error{
		"link": func(at string) error { return os.Symlink("/etc/passwd", at) },
		"pipe": func(at string) error { return syscall.Mkfifo(at, 0o600) },
		"dir":  func(at string) error { return os.Mkdir(at, 0o700) },
	} {
		dir := t.TempDir()
		if err := put(dir + "/log.0"); err != nil {
			t.Fatal(err)
		}
		if l, err := OpenDir(dir); err == nil {
			t.Errorf("%s: OpenDir takes it", name)
			l.Close()
		}
		if _, err := Create(dir, 1); err == nil {
			t.Errorf("%s: Create takes it", name)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(file); err == nil {
		t.Error("OpenDir takes a file for a directory")
	}
}
