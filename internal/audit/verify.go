package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Problem is a place where a log is not what was written.
type Problem struct {
	Line int    `json:"line"` // 0: the log as a whole
	Why  string `json:"why"`
}

// Result is what is known of a log after it was read.
type Result struct {
	OK       bool      `json:"ok"`
	Records  uint64    `json:"records"`
	Head     Head      `json:"head"`
	Since    *uint64   `json:"records_since_head,omitempty"` // after the head that was asked for
	Problems []Problem `json:"problems"`
	More     int       `json:"more_problems,omitempty"`
}

// Known is what somebody has kept elsewhere about a log. The zero value is nothing.
type Known struct {
	Head  string // hash of a record: it must be there
	Count uint64 // there must be so many records, or more
}

// maxProblems is how many problems are told in full.
const maxProblems = 20

// VerifyFile verifies a log as it is now; somebody may be writing to it.
func VerifyFile(path string, known Known) (*Result, error) {
	f, size, err := openRead(path)
	if err != nil {
		return nil, err
	}
	r, err := Verify(io.LimitReader(f, size), known)
	return r, errors.Join(err, f.Close())
}

// openRead opens a log, and says how long it was when nobody was writing.
func openRead(path string) (f *os.File, size int64, err error) {
	if f, err = os.Open(path); err != nil {
		return nil, 0, err
	}
	fd := kernel.FD(f.Fd())
	if err = kernel.LockShared(fd); err == nil {
		var st os.FileInfo
		if st, err = f.Stat(); err == nil {
			size = st.Size()
			if !st.Mode().IsRegular() {
				err = fmt.Errorf("%s is not a regular file", path)
			}
		}
		err = errors.Join(err, kernel.Unlock(fd))
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, size, nil
}

// HeadFile returns the last record of a log, which must be whole.
func HeadFile(path string) (Head, error) {
	f, size, err := openRead(path)
	if err != nil {
		return Head{}, err
	}
	l := &Log{path: path, file: f, whole: -1}
	torn, err := l.last()
	if err == nil && l.size < size {
		err = fmt.Errorf("%s became shorter while it was read", path)
	}
	if err == nil && torn != nil {
		err = fmt.Errorf("the last line of %s is not whole; see nucleus audit verify", path)
	}
	return l.head, errors.Join(err, f.Close())
}

// Verify reads a log and says where it is not what was written. The error is
// about reading, not about what was read.
func Verify(in io.Reader, known Known) (*Result, error) {
	v := &verifier{Result: Result{Head: Head{0, None()}, Problems: []Problem{}}, known: known, follows: true}
	r := bufio.NewReaderSize(in, maxLine+1)
	for n := 1; ; n++ {
		line, err := r.ReadSlice('\n')
		switch {
		case err == nil:
			v.line(n, line[:len(line)-1])
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			v.bad(n, "it is longer than any record")
			if err := skip(r); err == nil {
				v.follows = false
				continue
			} else if !errors.Is(err, io.EOF) {
				return nil, err
			}
		case !errors.Is(err, io.EOF):
			return nil, err
		case len(line) > 0:
			v.bad(n, "it is not whole: its end is missing")
		}
		v.end()
		return &v.Result, nil
	}
}

// skip reads to the end of a line.
func skip(r *bufio.Reader) error {
	for {
		_, err := r.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

type verifier struct {
	Result
	known   Known
	follows bool // the next record is known to follow Head
	seen    bool // the known head
	since   uint64
}

func (v *verifier) bad(line int, format string, args ...any) {
	if len(v.Problems) == maxProblems {
		v.More++
		return
	}
	v.Problems = append(v.Problems, Problem{line, fmt.Sprintf(format, args...)})
}

// line looks at one line. After one that is no record it cannot be said what
// comes next: the record after it is believed, and its number told.
func (v *verifier) line(n int, b []byte) {
	r, err := parse(b)
	if err != nil {
		v.bad(n, "%v", err)
		v.follows = false
		return
	}
	switch want := v.Head.Seq + 1; {
	case r.Seq == want && r.Prev == v.Head.Hash:
	case !v.follows && r.Seq > v.Head.Seq: // told already
	case r.Seq == want:
		v.bad(n, "record %d does not follow the record before it: that one was changed or replaced", r.Seq)
	case r.Seq > want && v.Head.Seq == 0:
		v.bad(n, "the log begins with record %d: those before it are missing", r.Seq)
	case r.Seq > want:
		v.bad(n, "record %d comes after record %d: %d missing between them", r.Seq, v.Head.Seq, r.Seq-want)
	default:
		v.bad(n, "record %d comes after record %d: it is out of order or there twice", r.Seq, v.Head.Seq)
	}
	v.Records++
	v.follows, v.Head = true, Head{r.Seq, r.Hash}
	v.since++
	if v.known.Head != "" && r.Hash == v.known.Head {
		v.seen, v.since = true, 0
	}
}

func (v *verifier) end() {
	if v.known.Head != "" {
		if v.seen {
			v.Since = &v.since
		} else {
			v.bad(0, "the head %s is not in the log: it was cut before it, or written anew", v.known.Head)
		}
	}
	if v.Records < v.known.Count {
		v.bad(0, "there are %d records, and there were %d: the end is missing", v.Records, v.known.Count)
	}
	v.OK = len(v.Problems) == 0
}
