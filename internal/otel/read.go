package otel

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"github.com/nucleus-container/nucleus/event"
)

// maxLine bounds an event: more is none.
const maxLine = 1 << 20

// Read calls take for every event of a stream, until its end. Strange is how many
// lines were none.
func Read(in io.Reader, take func(event.Record)) (strange int, err error) {
	s := lines{take: take}
	err = s.read(in)
	if len(s.part) > 0 { // the last line may lack its end
		s.line(s.part)
	}
	return s.strange, err
}

// Follow is Read of a file that grows, until ctx is done. A file that takes its
// place, or is cut, is read from its beginning.
func Follow(ctx context.Context, path string, every time.Duration, take func(event.Record)) (strange int, err error) {
	s := lines{take: take}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := s.read(f); err != nil {
			return s.strange, err
		}
		select {
		case <-ctx.Done():
			return s.strange, nil
		case <-tick.C:
		}
		again, err := replaced(f, path)
		if err != nil {
			return s.strange, err
		}
		if again != nil {
			if err := errors.Join(s.read(f), f.Close()); err != nil { // what was written before it was replaced
				return s.strange, err
			}
			f, s.part, s.long = again, nil, false
		}
	}
}

// replaced opens the file at path if it is not f any more, or was cut.
func replaced(f *os.File, path string) (*os.File, error) {
	now, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) { // it is about to be replaced
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	mine, err := f.Stat()
	if err != nil {
		return nil, err
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil || os.SameFile(mine, now) && now.Size() >= at {
		return nil, err
	}
	return os.Open(path)
}

// lines takes a stream apart.
type lines struct {
	take    func(event.Record)
	part    []byte // of a line whose end is to come
	long    bool   // a line that is too long
	strange int
}

func (s *lines) read(in io.Reader) error {
	r := bufio.NewReaderSize(in, 64<<10)
	for {
		b, err := r.ReadSlice('\n')
		if end := len(b) > 0 && b[len(b)-1] == '\n'; !s.long {
			s.part = append(s.part, b...)
			if s.long = len(s.part) > maxLine; s.long {
				s.part = nil
				s.strange++
			}
			if end && !s.long {
				s.line(s.part)
				s.part = s.part[:0]
			}
			s.long = s.long && !end
		} else if end {
			s.long = false
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

func (s *lines) line(b []byte) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return
	}
	var r event.Record
	if json.Unmarshal(b, &r) != nil || r.V != event.Version || r.Type == "" || r.Time.IsZero() {
		s.strange++
		return
	}
	s.take(r)
}
