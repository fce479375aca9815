package logs

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// FuzzRead gives the reader files of anything. It must end, must not make up
// frames, and must keep to the number of lines.
func FuzzRead(x *testing.F) {
	for _, files := range [][][]byte{
		{long()[0], long()[1], long()[3]},
		{encode(0, f{1, 1, "a\n", false}, lost(2, 7)), encode(30000, f{1, 2, "b", true}), encode(60000, f{1, 1, "c", false})},
		{encode(65535, f{1, 1, "a\n", false}, f{1, 2, "", false}), append(encode(0, f{1, 2, "b", true}), 1, 2, 3), encode(0, f{1, 1, "c", false})},
	} {
		x.Add(files[0], files[1], files[2], 2, int64(3e9))
	}
	x.Fuzz(func(t *testing.T, a, b, c []byte, tail int, since int64) {
		files := [][]byte{a, b, c}
		dir := ring(t, files...)
		l := openDir(t, dir)
		size := 0
		err := l.Frames(func(got Frame) error {
			size += headSize + len(got.Data)
			if !inFiles(files, got) {
				t.Errorf("got a frame that no file holds: %v %d %q", got.Time, got.Stream, got.Data)
			}
			return nil
		})
		if err != nil || size > len(a)+len(b)+len(c) {
			t.Errorf("%d bytes of frames in %d (%v)", size, len(a)+len(b)+len(c), err)
		}
		o := Options{Stdout: true, Tail: max(0, tail), Timestamps: true, Since: time.Unix(0, since)}
		var out bytes.Buffer
		if err := l.Copy(context.Background(), &out, new(bytes.Buffer), o); err != nil {
			t.Error(err)
		}
		if n := strings.Count(out.String(), "\n"); n > o.Tail {
			t.Errorf("got %d lines, want at most %d: %q", n, o.Tail, out.String())
		}
		place, err := Next(dir)
		if err != nil {
			t.Fatal(err)
		}
		if place.Used > uint64(len(files[place.First])) {
			t.Errorf("go on at %+v, behind the end", place)
		}
		// What is there must survive that a writer goes on at that place.
		if err := os.Truncate(fileName(dir, place.First), int64(place.Used)); err != nil {
			t.Fatal(err)
		}
		appendTo(t, dir, place.First, encode(place.Turn, f{1, 1, "next", false}))
		var last string
		segments, err := l.segments()
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i < len(segments); i++ {
			if segments[i].turn != segments[0].turn+uint16(i) {
				return // no writer leaves files like these
			}
		}
		if err := l.Frames(func(got Frame) error { last = string(got.Data); return nil }); err != nil || last != "next" {
			t.Errorf("got %q (%v) last, want what was written last", last, err)
		}
	})
}

// inFiles looks for the frame in full, but for its turn.
func inFiles(files [][]byte, got Frame) bool {
	x := f{0, got.Stream, string(got.Data), got.Continues}.encode(0)
	for _, b := range files {
		for at := 0; len(b)-at >= len(x); at++ {
			same := time.Unix(0, int64(le64(b[at:]))).Equal(got.Time) && bytes.Equal(b[at+8:at+14], x[8:14])
			if same && bytes.Equal(b[at+headSize:][:len(got.Data)], got.Data) {
				return true
			}
		}
	}
	return false
}

func le64(b []byte) (n uint64) {
	for i := range 8 {
		n |= uint64(b[i]) << (8 * i)
	}
	return n
}

// FuzzLines compares what is printed of lines in frames of any cut with the lines.
func FuzzLines(x *testing.F) {
	x.Add("a\nb\n\nc", []byte{1, 2, 3})
	x.Add("one line that is in many frames", []byte{0, 1, 200})
	x.Fuzz(func(t *testing.T, text string, cuts []byte) {
		var frames []f
		rest, goesOn := text, false
		for i := 0; rest != ""; i++ {
			n := len(rest)
			if i < len(cuts) {
				n = min(n, int(cuts[i])+1)
			}
			frames = append(frames, f{float64(i), 1, rest[:n], goesOn})
			goesOn, rest = rest[n-1] != '\n', rest[n:]
		}
		half := len(frames) / 2
		dir := ring(t, encode(0, frames[:half]...), encode(1, frames[half:]...))
		var lines []string
		for part := range strings.Lines(text) {
			lines = append(lines, part)
		}
		for _, tail := range []int{-1, 0, 1, 3, len(lines)} {
			want := lines
			if tail >= 0 {
				want = lines[max(0, len(lines)-tail):]
			}
			var out, text bytes.Buffer
			err := openDir(t, dir).Copy(context.Background(), &out, &text, with(func(o *Options) { o.Tail = tail }))
			if err != nil || out.String() != strings.Join(want, "") || text.Len() > 0 {
				t.Errorf("tail %d: got %q and %q (%v), want %q", tail, out.String(), text.String(), err, want)
			}
		}
	})
}
