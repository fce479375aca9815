package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/kernel"
)

// queue is how many events wait for a slow reader before some are dropped.
const queue = 4096

// closeWait is how long Close waits for a reader.
const closeWait = 2 * time.Second

// Stream writes events as lines of JSON, and never waits for who reads them: a
// pipe may be full. What could not be written is counted.
type Stream struct {
	out  io.WriteCloser
	work chan event.Record
	done chan struct{}

	mu      sync.Mutex
	seq     uint64
	dropped uint64 // not told yet
	lost    uint64
	err     error
	closed  bool
}

// NewStream takes over out.
func NewStream(out io.WriteCloser) *Stream {
	s := &Stream{out: out, work: make(chan event.Record, queue), done: make(chan struct{})}
	go s.run()
	return s
}

// OpenStream opens a file for a stream, or makes it, and appends to it.
func OpenStream(path string) (*Stream, error) {
	path = filepath.Clean(path) // as Unseen reads it
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file; a pipe can be given as a descriptor", path)
	case names(st) > 1:
		err = manyNames(path, st)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return NewStream(f), nil
}

// InheritStream takes a descriptor that this program was started with. The
// sandbox does not get it.
func InheritStream(fd int) (*Stream, error) {
	if fd < 3 {
		return nil, errors.New("0, 1 and 2 are the program's")
	}
	writable, err := kernel.InheritedWritable(fd)
	switch {
	case kernel.IsErrno(err, syscall.EBADF):
		return nil, errors.New("it is not open")
	case err != nil:
		return nil, err
	case !writable:
		return nil, errors.New("it cannot be written to")
	}
	dup, err := kernel.DupAbove(fd, 3) // close-on-exec, unlike the one that was inherited
	if err != nil {
		return nil, err
	}
	if err := kernel.FD(fd).Close(); err != nil {
		return nil, errors.Join(err, dup.Close())
	}
	return NewStream(dup.File("events")), nil
}

// Tell writes a record as soon as the reader takes it.
func (s *Stream) Tell(r event.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.dropped > 0 {
		if note, err := event.New(r.Time, r.Sandbox, event.Dropped{Events: s.dropped}); err == nil && s.put(note) {
			s.dropped = 0
		}
	}
	if !s.put(r) {
		s.dropped++
		s.lost++
	}
}

func (s *Stream) put(r event.Record) bool {
	r.Seq = s.seq + 1
	select {
	case s.work <- r:
		s.seq++
		return true
	default:
		return false
	}
}

// run writes. After an error nothing more is tried: the reader is gone.
func (s *Stream) run() {
	defer close(s.done)
	for r := range s.work {
		s.mu.Lock()
		failed := s.err != nil
		if failed {
			s.lost++
		}
		s.mu.Unlock()
		if failed {
			continue
		}
		line, err := r.Line()
		if err == nil {
			_, err = s.out.Write(append(line, '\n'))
		}
		if err != nil {
			s.mu.Lock()
			s.err = err
			s.lost++
			s.mu.Unlock()
		}
	}
}

// Close waits a little for what is still to be written, and says what was not.
func (s *Stream) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.work)
	late := time.NewTimer(closeWait)
	defer late.Stop()
	var err error
	select {
	case <-s.done:
		err = s.out.Close()
	case <-late.C: // the writer is stuck: it ends with this program
		s.mu.Lock()
		s.lost += uint64(len(s.work)) + 1
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 {
		err = errors.Join(fmt.Errorf("%d events were not written: the reader was too slow or is gone", s.lost), s.err, err)
	}
	return err
}
