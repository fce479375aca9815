package logs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// reader goes through the frames of a ring, from the oldest, while the writer may
// be overwriting it.
type reader struct {
	log  *Log
	ctx  context.Context // nil: never cancelled
	each func(Frame) error
	// gap is told that frames are missing before the next one; overtaken: while
	// they were being read.
	gap func(overtaken bool) error

	buf []byte
	at  segment // without a file: before the oldest
	off int64   // behind the last frame that was read

	// entered holds, by index, the segments that were read. None is read twice, so
	// no turns that files may hold lead around for ever.
	entered [MaxFiles][headSize]byte
}

// mark is an end that does not move while the writer goes on.
type mark struct {
	turn uint16
	off  int64
}

// outcome is why reading a segment ended.
type outcome int

const (
	ended    outcome = iota // it holds no further whole frame, up to the mark
	recycled                // the writer has emptied it
)

const bufferLen = 4 * maxData // whole frames for certain

// end returns the mark behind all that there is now.
func (l *Log) end(all []segment) (mark, error) {
	if len(all) == 0 {
		return mark{}, nil
	}
	last := all[len(all)-1]
	info, err := last.file.Stat()
	if err != nil {
		return mark{}, fmt.Errorf("read log: %w", err)
	}
	return mark{last.turn, info.Size()}, nil
}

func (r *reader) enter(s segment) {
	r.at, r.off = s, 0
	r.entered[s.index] = s.first
}

// fresh returns the segments that were not entered yet, the oldest first.
func (r *reader) fresh() ([]segment, error) {
	all, err := r.log.segments()
	return slices.DeleteFunc(all, func(s segment) bool { return r.entered[s.index] == s.first }), err
}

// more reads all that is there, up to limit if it is not nil.
func (r *reader) more(limit *mark) error {
	for {
		if r.at.file == nil {
			all, err := r.fresh()
			if err != nil || len(all) == 0 || limit != nil && newer(all[0].turn, limit.turn) > 0 {
				return err
			}
			r.enter(all[0])
		}
		why, err := r.drain(limit)
		if err != nil {
			return err
		}
		if why == ended {
			if why, err = r.advance(limit); err != nil || why != recycled {
				return err
			}
		}
		// The writer empties the oldest file first: whatever there is, is newer.
		r.at = segment{}
		if err := r.gap(true); err != nil {
			return err
		}
	}
}

// advance goes on with the files after the one that was read to its end.
func (r *reader) advance(limit *mark) (outcome, error) {
	for {
		all, err := r.fresh()
		if err != nil {
			return 0, err
		}
		next := segment{}
		for _, s := range all {
			if newer(s.turn, r.at.turn) > 0 && (next.file == nil || newer(s.turn, next.turn) < 0) {
				next = s
			}
		}
		// The writer may have added to this file before it left it.
		why, err := r.drain(limit)
		if err != nil || why != ended {
			return why, err
		}
		if next.file == nil || limit != nil && newer(next.turn, limit.turn) > 0 {
			return ended, nil
		}
		missed := newer(next.turn, r.at.turn) > 1
		r.enter(next)
		if missed {
			if err := r.gap(false); err != nil {
				return 0, err
			}
		}
		if why, err := r.drain(limit); err != nil || why != ended {
			return why, err
		}
	}
}

// drain reads the rest of the current file, but nothing that begins behind limit.
func (r *reader) drain(limit *mark) (outcome, error) {
	if r.buf == nil {
		r.buf = make([]byte, bufferLen)
	}
	for {
		if r.ctx != nil && r.ctx.Err() != nil {
			return 0, r.ctx.Err()
		}
		// A frame beyond this size may be one that the writer has to cut again,
		// and what is read of it may be of two frames.
		info, err := r.at.file.Stat()
		if err != nil {
			return 0, fmt.Errorf("read log: %w", err)
		}
		size := info.Size()
		if size < r.off {
			return recycled, nil
		}
		b := r.buf[:min(int64(len(r.buf)), size-r.off)]
		n, err := r.at.file.ReadAt(b, r.off)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("read log: %w", err)
		}
		// The file was the one that we know when we read from it if it still is.
		var first [headSize]byte
		if _, err := r.at.file.ReadAt(first[:], 0); err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("read log: %w", err)
		}
		if !bytes.Equal(first[:], r.at.first[:]) {
			return recycled, nil
		}
		used, err := r.parse(b[:n], limit)
		if err != nil {
			return 0, err
		}
		if used == 0 {
			return ended, nil
		}
	}
}

// parse hands on the whole frames in b, which is what stands at r.off.
func (r *reader) parse(b []byte, limit *mark) (used int, err error) {
	for {
		h, ok := parseHead(b[used:])
		if !ok || h.turn != r.at.turn || len(b)-used < headSize+h.length {
			return used, nil
		}
		if limit != nil && limit.turn == r.at.turn && r.off >= limit.off {
			return used, nil
		}
		data := b[used+headSize:][:h.length]
		used += headSize + h.length
		r.off += int64(headSize + h.length)
		f := Frame{Time: time.Unix(0, h.stamp), Stream: h.stream, Continues: h.goesOn, Data: data}
		if err := r.each(f); err != nil {
			return used, err
		}
	}
}

// Frames calls each with every frame that is there now, the oldest first. An
// error from each ends it.
func (l *Log) Frames(each func(Frame) error) error {
	all, err := l.segments()
	if err != nil || len(all) == 0 {
		return err
	}
	end, err := l.end(all)
	if err != nil {
		return err
	}
	r := reader{log: l, each: each, gap: func(bool) error { return nil }}
	return r.more(&end)
}

// lostBytes is the content of a frame of stream Lost.
func (f Frame) lostBytes() uint64 { return binary.LittleEndian.Uint64(f.Data) }
