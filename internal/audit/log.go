// Package audit writes what happens to sandboxes where it was asked for: to an
// audit log, whose records are chained by hashes, and to streams.
//
//	log, err := audit.Open("/var/log/nucleus-audit.jsonl")
//	teller := &audit.Teller{Sandbox: event.Sandbox{ID: id}, Log: log}
//	cmd.Events = teller.Tell
//
// A record is one line of JSON (package event). Its hash is SHA-256 over the
// line's bytes before ,"hash": and these hold the hash of the record before it.
// So a log that was changed anywhere does not verify, unless everything after the
// change was written anew: against that the last hash has to be known elsewhere
// (docs/design/006-audit.md).
//
// It decides nothing about sandboxes, and keeps no state but the file.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/kernel"
)

// maxLine bounds a record: more is no record of ours.
const maxLine = 1 << 20

// hashKey separates what is hashed from the hash.
const hashKey = `,"hash":"`

// tailLen is the length of a line from hashKey on.
const tailLen = len(hashKey) + 2*sha256.Size + len(`"}`)

// None is what a log's first record has for the hash of the one before it.
func None() string { return strings.Repeat("0", 2*sha256.Size) }

// Head is the last record of a log. A log without one has number 0 and None.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// Log is an audit log that is open for writing. Any number of programs may write
// to the same one. Its methods may be called at the same time.
type Log struct {
	path string

	mu    sync.Mutex
	file  *os.File
	size  int64 // of the file, when the lock was taken
	whole int64 // of the file, when head was its last record and nothing came after it; -1: look
	head  Head
}

// Open opens an audit log, and makes it if it is not there. It must be a regular
// file that nobody but its owner, us or root, may write: what others may write
// proves nothing. No symbolic link is followed at the end of the path, and it has
// no other name, which may be in a directory that a sandbox sees.
func Open(path string) (*Log, error) {
	path = filepath.Clean(path) // as Unseen reads it
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	l := &Log{path: path, file: f, whole: -1}
	err = private(f)
	if err == nil {
		err = l.locked(func() error { _, err := l.last(); return err }) // now, rather than in the middle of a run
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

// private checks who may write to a file.
func private(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	owner := -1
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		owner = int(s.Uid)
	}
	switch {
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", f.Name())
	case names(st) > 1:
		return manyNames(f.Name(), st)
	case owner != os.Geteuid() && owner != 0:
		return fmt.Errorf("%s belongs to another user (%d), who can change it", f.Name(), owner)
	case st.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written by others (mode %#o); take that away with chmod go-w", f.Name(), st.Mode().Perm())
	}
	return nil
}

// names is how many names a file has.
func names(st os.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink) // its type differs between architectures
	}
	return 1
}

func manyNames(path string, st os.FileInfo) error {
	return fmt.Errorf("%s has %d names (hard links), and a sandbox may see another of them: choose another file", path, names(st))
}

// Close lets go of the log.
func (l *Log) Close() error { return l.file.Close() }

// Path is where the log was opened.
func (l *Log) Path() string { return l.path }

// locked calls f while nobody else writes.
func (l *Log) locked(f func() error) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fd := kernel.FD(l.file.Fd())
	if err := kernel.Lock(fd); err != nil {
		return fmt.Errorf("lock %s: %w", l.path, err)
	}
	defer func() { err = errors.Join(err, kernel.Unlock(fd)) }()
	return f()
}

// Append writes a record at the end of the chain, and returns what is the log's
// last record then. With sync, it is on the disk when Append returns.
func (l *Log) Append(r event.Record, sync bool) (head Head, err error) {
	err = l.locked(func() error {
		torn, err := l.last()
		if err != nil {
			return err
		}
		var out []byte
		if torn != nil {
			if out, err = l.report(torn, r.Sandbox); err != nil {
				return err
			}
		}
		if out, err = l.chain(out, r); err == nil {
			err = l.write(out)
		}
		if err == nil && sync {
			err = l.file.Sync()
		}
		if err != nil {
			l.whole = -1 // what we know of the head may not be so
		}
		head = l.head
		return err
	})
	if err != nil {
		err = fmt.Errorf("write %s to the audit log: %w", r.Type, err)
	}
	return head, err
}

// chain adds the line of a record that follows the head, which it then is.
func (l *Log) chain(out []byte, r event.Record) ([]byte, error) {
	r.Seq, r.Prev, r.Hash = l.head.Seq+1, l.head.Hash, ""
	line, err := r.Line()
	if err != nil {
		return nil, err
	}
	line = bytes.TrimSuffix(line, []byte("}"))
	sum := sha256.Sum256(line)
	l.head = Head{r.Seq, hex.EncodeToString(sum[:])}
	line = append(append(append(line, hashKey...), l.head.Hash...), "\"}\n"...)
	if len(line) > maxLine {
		return nil, fmt.Errorf("a record of %d bytes is more than %d", len(line), maxLine)
	}
	return append(out, line...), nil
}

// write appends. What could not be written as a whole is taken back.
func (l *Log) write(b []byte) error {
	_, err := l.file.Write(b)
	if err != nil {
		return errors.Join(err, l.file.Truncate(l.size))
	}
	l.size += int64(len(b))
	l.whole = l.size
	return nil
}

// report ends a line that is not whole, and tells of it in the chain. It is not
// repaired: whoever verifies the log will see it.
func (l *Log) report(torn []byte, s event.Sandbox) ([]byte, error) {
	sum := sha256.Sum256(torn)
	r, err := event.New(time.Now(), s, event.LogTorn{Bytes: len(torn), SHA256: hex.EncodeToString(sum[:])})
	if err != nil {
		return nil, err
	}
	return l.chain([]byte{'\n'}, r)
}

// last finds the last record, and the bytes after it if they are no whole line.
// Precondition: the lock is held.
func (l *Log) last() (torn []byte, err error) {
	st, err := l.file.Stat()
	if err != nil {
		return nil, err
	}
	l.size = st.Size()
	if l.size == l.whole {
		return nil, nil
	}
	l.whole, l.head = -1, Head{0, None()}
	window := make([]byte, min(l.size, 2*maxLine))
	from := l.size - int64(len(window))
	if _, err := l.file.ReadAt(window, from); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	end := bytes.LastIndexByte(window, '\n') + 1
	if torn = window[end:]; len(torn) > maxLine {
		return nil, fmt.Errorf("%s is no audit log: its last line is longer than any record", l.path)
	}
	if end == 0 { // nothing, or an only record that is not whole
		return notEmpty(torn), nil
	}
	line := window[:end-1]
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	r, err := parse(line)
	if err != nil {
		return nil, fmt.Errorf("the last whole line of %s is no record of an audit log (%w); see nucleus audit verify", l.path, err)
	}
	l.head = Head{r.Seq, r.Hash}
	return notEmpty(torn), nil
}

func notEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// parse reads a line, without its newline, and checks what it says about itself.
func parse(line []byte) (*event.Record, error) {
	at := len(line) - tailLen
	if at <= 0 || string(line[at:at+len(hashKey)]) != hashKey || string(line[len(line)-2:]) != `"}` {
		return nil, errors.New("it does not end with a hash")
	}
	var r event.Record
	in := json.NewDecoder(bytes.NewReader(line))
	in.DisallowUnknownFields()
	if err := in.Decode(&r); err != nil {
		return nil, fmt.Errorf("it is not a record: %w", err)
	}
	if in.InputOffset() != int64(len(line)) {
		return nil, errors.New("there is something after the record")
	}
	sum := sha256.Sum256(line[:at])
	switch {
	case r.V != event.Version:
		return nil, fmt.Errorf("it has version %d, this program reads version %d", r.V, event.Version)
	case r.Hash != hex.EncodeToString(sum[:]):
		return nil, errors.New("its content does not have its hash")
	}
	return &r, nil
}
