package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// reader reads many small files of the kernel one after the other: one buffer for
// all, three system calls each. It goes on after an error and keeps the first.
type reader struct {
	buf []byte
	err error
}

// readSize holds the longest of the files on all but odd machines.
const readSize = 8 << 10

// noLimit is above what any limit can be. Version 1 writes its absence as the
// largest number of whole pages, version 2 as "max".
const noLimit = 1 << 62

// file is the content of a control file until the next one is read, or nil.
func (r *reader) file(p *part, name string) []byte {
	b, err := r.slurp(p, name)
	if err == nil {
		return bytes.TrimRight(b, "\n")
	}
	if !errors.Is(err, fs.ErrNotExist) || !p.exists() {
		r.fail(err)
	}
	return nil
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// slurp reads a file. These make their content at the first read and give out
// whole what fits.
func (r *reader) slurp(p *part, name string) ([]byte, error) {
	fd, err := openat(int(p.dir.Fd()), name, syscall.O_RDONLY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(p.Path, name), Err: err}
	}
	defer syscall.Close(fd)
	for have := 0; ; {
		n, err := syscall.Read(fd, r.buf[have:])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: filepath.Join(p.Path, name), Err: err}
		}
		have += n
		if n == 0 || have < len(r.buf) {
			return r.buf[:have], nil
		}
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
}

// number reads a file that holds one number; no limit is 0.
func (r *reader) number(p *part, name string, to *uint64) {
	b := r.file(p, name)
	if b == nil || string(b) == "max" {
		return
	}
	v, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		r.fail(fmt.Errorf("read %s: %w", filepath.Join(p.Path, name), err))
		return
	}
	if v < noLimit {
		*to = v
	}
}

// field is a line "key number" and where the number goes.
type field struct {
	key string
	to  *uint64
}

// keyed reads lines of a file. A line that this kernel does not have leaves its
// number as it is.
func (r *reader) keyed(p *part, name string, fields ...field) {
	for line := range bytes.SplitSeq(r.file(p, name), []byte{'\n'}) {
		key, value, _ := bytes.Cut(line, []byte{' '})
		for _, f := range fields {
			if string(key) != f.key {
				continue
			}
			v, err := strconv.ParseUint(string(value), 10, 64)
			if err != nil {
				r.fail(fmt.Errorf("read %s from %s: %w", f.key, filepath.Join(p.Path, name), err))
				continue
			}
			*f.to = v
		}
	}
}

// quota is version 2's limit on processor time, "QUOTA PERIOD" or "max PERIOD".
func (r *reader) quota(p *part) uint64 {
	quota, period, _ := bytes.Cut(r.file(p, "cpu.max"), []byte{' '})
	return milli(string(quota), string(period))
}

// legacyQuota is version 1's, in two files; a quota of -1 is none.
func (r *reader) legacyQuota(p *part) uint64 {
	quota := string(r.file(p, "cpu.cfs_quota_us")) // a kernel may lack the limit
	if quota == "" || quota[0] == '-' {
		return 0
	}
	return milli(quota, string(r.file(p, "cpu.cfs_period_us")))
}

// milli is a quota in thousandths of a processor; 0 is none.
func milli(quota, period string) uint64 {
	q, qerr := strconv.ParseUint(quota, 10, 64)
	p, perr := strconv.ParseUint(period, 10, 64)
	if qerr != nil || perr != nil || p == 0 || q > noLimit/1000 {
		return 0
	}
	return (q*1000 + p/2) / p
}

// io sums up version 2's lines, one a device: "8:0 rbytes=1 wbytes=2 rios=3 ...".
func (r *reader) io(p *part, s *Stats) {
	for line := range bytes.SplitSeq(r.file(p, "io.stat"), []byte{'\n'}) {
		for word := range bytes.FieldsSeq(line) {
			key, value, _ := bytes.Cut(word, []byte{'='})
			n, err := strconv.ParseUint(string(value), 10, 64)
			if err != nil {
				continue // the device
			}
			switch string(key) {
			case "rbytes":
				s.ReadBytes += n
			case "wbytes":
				s.WriteBytes += n
			case "rios":
				s.ReadOps += n
			case "wios":
				s.WriteOps += n
			}
		}
	}
}

// legacyIO sums up version 1's. Which files count depends on the scheduler of the
// device; both are tried, and a device has its numbers in one.
func (r *reader) legacyIO(p *part, s *Stats) {
	for _, from := range []string{"blkio.throttle.", "blkio.bfq."} {
		read, write := r.legacyDevices(p, from+"io_service_bytes_recursive")
		if read|write == 0 {
			continue
		}
		s.ReadBytes, s.WriteBytes = read, write
		s.ReadOps, s.WriteOps = r.legacyDevices(p, from+"io_serviced_recursive")
		return
	}
}

// legacyDevices sums up lines such as "8:0 Read 1". The last is "Total 1".
func (r *reader) legacyDevices(p *part, name string) (read, write uint64) {
	for line := range bytes.SplitSeq(r.file(p, name), []byte{'\n'}) {
		_, rest, _ := bytes.Cut(line, []byte{' '})
		kind, value, _ := bytes.Cut(rest, []byte{' '})
		n, err := strconv.ParseUint(string(value), 10, 64)
		if err != nil {
			continue // the total
		}
		switch string(kind) {
		case "Read":
			read += n
		case "Write":
			write += n
		}
	}
	return read, write
}

// pressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and the same
// with "full". A kernel without it has no file, or one that cannot be read.
func (r *reader) pressure(p *part, name string) *Pressure {
	b, err := r.slurp(p, name)
	if err != nil {
		return nil
	}
	out := &Pressure{}
	for line := range bytes.SplitSeq(b, []byte{'\n'}) {
		kind, rest, _ := bytes.Cut(line, []byte{' '})
		switch string(kind) {
		case "some":
			stalls(rest, &out.Some10, &out.Some60, &out.Some300, &out.SomeTotal)
		case "full":
			stalls(rest, &out.Full10, &out.Full60, &out.Full300, &out.FullTotal)
		}
	}
	return out
}

// stalls reads one line of a pressure file.
func stalls(line []byte, avg10, avg60, avg300 *float64, total *time.Duration) {
	for word := range bytes.FieldsSeq(line) {
		key, value, _ := bytes.Cut(word, []byte{'='})
		percent, err := strconv.ParseFloat(string(value), 64)
		if err != nil {
			continue
		}
		switch string(key) {
		case "avg10":
			*avg10 = percent
		case "avg60":
			*avg60 = percent
		case "avg300":
			*avg300 = percent
		case "total":
			// Exact: whole microseconds below 2^53, which are 285 years.
			*total = time.Duration(percent) * time.Microsecond
		}
	}
}
