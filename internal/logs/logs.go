// Package logs reads what the log writer of a detached sandbox (package logger)
// wrote: a directory of regular files log.0, log.1 and so on, used as a ring.
//
//	log, err := logs.OpenDir(dir)
//	...
//	defer log.Close()
//	err = log.Copy(ctx, os.Stdout, os.Stderr, logs.Options{Tail: -1, Stdout: true, Stderr: true})
//
// It reads while the writer writes, and says so where it was overtaken. It does
// not write; [Create] and [Next] are for who starts a writer.
//
// # Format
//
// A file is a sequence of frames, each a header of 16 bytes, little-endian, and
// as many bytes of data as it says:
//
//	 0  uint64  nanoseconds since 1970, by the wall clock
//	 8  uint32  bytes of data, at most 64 KiB
//	12  uint8   stream: 1 standard output, 2 standard error, 3 lost
//	13  uint8   0x4e, or 0x4f where the data goes on with a line: the last byte of
//	            the same stream before it, written or lost, was no end of line
//	14  uint16  turn of the file
//
// The data of a frame of stream 3 is a uint64, the number of bytes that were not
// written between the frames around it because the disk was full.
//
// Whenever the writer empties a file and goes on with it, the turn is one more
// (modulo 65536). So the turns order the files whatever the clock does, and a
// frame with another turn than its file's first one is not valid. A file ends at
// its first byte that begins no whole valid frame: a writer that was killed leaves
// a torn one.
package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// MaxFiles is the greatest number of files in a ring.
const MaxFiles = 16

// Streams of frames.
const (
	Stdout = 1
	Stderr = 2
	Lost   = 3
)

const (
	headSize = 16
	maxData  = 64 << 10
	magic    = 0x4e // the lowest bit is apart
)

// Frame is what the writer read at once from one of the pipes.
type Frame struct {
	Time      time.Time
	Stream    int
	Continues bool   // Data goes on with a line whose beginning was not in Data
	Data      []byte // valid until the next frame is asked for
}

// head is a frame's header.
type head struct {
	stamp  int64
	length int
	stream int
	goesOn bool
	turn   uint16
}

// parseHead reports whether b begins with the header of a valid frame.
func parseHead(b []byte) (h head, ok bool) {
	if len(b) < headSize {
		return head{}, false
	}
	le := binary.LittleEndian
	stamp, length := le.Uint64(b), le.Uint32(b[8:])
	h = head{stamp: int64(stamp), length: int(length), stream: int(b[12]), goesOn: b[13] == magic|1, turn: le.Uint16(b[14:])}
	ok = b[13]&^1 == magic && length <= maxData && h.stamp >= 0 &&
		(h.stream == Stdout || h.stream == Stderr || h.stream == Lost && length == 8)
	return h, ok
}

// newer says how many turns a is after b; it is negative if a was before b.
func newer(a, b uint16) int { return int(int16(a - b)) }

// Log is an open directory of log files.
type Log struct {
	dir   string
	files []*os.File
}

// OpenDir opens the log files in dir. There may be none yet.
func OpenDir(dir string) (*Log, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open log: %s is not a directory", dir)
	}
	l := &Log{dir: dir}
	if err := l.refresh(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Close closes the files.
func (l *Log) Close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	l.files = nil
	return errors.Join(errs...)
}

// refresh opens the files that came since.
func (l *Log) refresh() error {
	for len(l.files) < MaxFiles {
		f, err := open(l.dir, len(l.files), os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		l.files = append(l.files, f)
	}
	return nil
}

func fileName(dir string, i int) string { return filepath.Join(dir, "log."+strconv.Itoa(i)) }

// open opens one of the files. A link in its place would lead elsewhere, and the
// opening of a pipe would wait for its other end.
func open(dir string, i, flags int) (*os.File, error) {
	f, err := os.OpenFile(fileName(dir, i), flags|syscall.O_NOFOLLOW|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", f.Name())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// segment is one file that holds frames, as it was when its head was read.
type segment struct {
	file  *os.File
	index int
	turn  uint16
	first [headSize]byte // the first frame's header: another one, another segment
}

// segments returns the files that hold frames, the oldest first. The writer may
// go on to a file that was looked at already and then to one that was not, so that
// the former would be missing between others. Of the files that were begun before
// a second look, none is.
func (l *Log) segments() ([]segment, error) {
	before, err := l.look()
	for err == nil && len(before) > 0 {
		var now []segment
		if now, err = l.look(); err != nil {
			break
		}
		newest := before[len(before)-1].turn
		known := slices.DeleteFunc(slices.Clone(now), func(s segment) bool { return newer(s.turn, newest) > 0 })
		if len(known) > 0 || len(now) == 0 {
			return known, nil
		}
		before = now
	}
	return nil, err
}

func (l *Log) look() ([]segment, error) {
	if err := l.refresh(); err != nil {
		return nil, err
	}
	var all []segment
	for i, f := range l.files {
		s := segment{file: f, index: i}
		if _, err := f.ReadAt(s.first[:], 0); errors.Is(err, io.EOF) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		if h, ok := parseHead(s.first[:]); ok {
			s.turn = h.turn
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b segment) int { return newer(a.turn, b.turn) })
	return all, nil
}

// Place is where a writer goes on.
type Place struct {
	First int    // index of the file
	Used  uint64 // its bytes that are valid: what is behind them must be cut
	Turn  uint16 // of the file
}

// Next returns the place behind the last valid frame in dir. Nobody may be
// writing there. The writer itself cuts what is behind that place.
func Next(dir string) (p Place, err error) {
	l, err := OpenDir(dir)
	if err != nil {
		return Place{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	all, err := l.segments()
	if err != nil || len(all) == 0 {
		return Place{}, err
	}
	r := reader{log: l, each: func(Frame) error { return nil }}
	r.enter(all[len(all)-1])
	if _, err := r.drain(nil); err != nil {
		return Place{}, err
	}
	return Place{First: r.at.index, Used: uint64(r.off), Turn: r.at.turn}, nil
}

// Create makes dir and n empty files in it, for their owner only, and opens them
// for writing. Files that are there already keep what they hold, so that a writer
// can go on; those beyond n are removed.
func Create(dir string, n int) (files []*os.File, err error) {
	if n < 1 || n > MaxFiles {
		return nil, fmt.Errorf("create log: %d files, want 1 to %d", n, MaxFiles)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	defer func() {
		if err != nil {
			for _, f := range files {
				err = errors.Join(err, f.Close())
			}
			files = nil
		}
	}()
	for i := range MaxFiles {
		if i >= n {
			if err := os.Remove(fileName(dir, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return files, fmt.Errorf("create log: %w", err)
			}
			continue
		}
		f, err := open(dir, i, os.O_WRONLY|os.O_CREATE)
		if err != nil {
			return files, fmt.Errorf("create log: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}
