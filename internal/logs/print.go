package logs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// stampFormat is what docker prints: RFC 3339 with always nine digits, in UTC.
const stampFormat = "2006-01-02T15:04:05.000000000Z07:00"

const overwritten = "nucleus: the log was overwritten while it was read: some output may be missing\n"

// line is where one stream stands.
type line struct {
	known bool // something of the stream was seen since the start or a gap
	open  bool // in the middle of a line
	shown bool // which is one that is to be printed
}

// printer turns frames into lines and prints those that were asked for.
type printer struct {
	o       Options
	count   bool // print nothing, count only
	skip    int  // lines that are not printed, although they were asked for
	lines   int  // lines that began and were asked for
	torn    int  // of these, those whose beginning is not there
	noted   bool // nothing was printed since the note about a gap
	streams [2]line

	to    [2]*bufio.Writer // standard output and error
	last  *bufio.Writer    // written to last; the other one is flushed
	stamp []byte
}

func newPrinter(out, err io.Writer, o Options) *printer {
	return &printer{o: o, to: [2]*bufio.Writer{bufio.NewWriterSize(out, 64<<10), bufio.NewWriterSize(err, 64<<10)}}
}

// wants reports whether what began with f is in the time that was asked for.
func (p *printer) wants(f Frame) bool {
	return (p.o.Since.IsZero() || !f.Time.Before(p.o.Since)) && (p.o.Until.IsZero() || !f.Time.After(p.o.Until))
}

// frame is what a reader calls with each.
func (p *printer) frame(f Frame) error {
	p.noted = false
	if f.Stream == Lost {
		return p.lost(f)
	}
	s, data := &p.streams[f.Stream-1], f.Data
	if len(data) == 0 {
		return nil
	}
	if !f.Continues {
		if err := p.breakLine(f.Stream); err != nil { // the rest of that line was never written
			return err
		}
	}
	if f.Continues && !s.known { // its beginning is gone: leave it out if it ends here
		data = data[bytes.IndexByte(data, '\n')+1:]
	}
	torn := f.Continues && !s.known && len(data) == len(f.Data)
	s.known = true
	for len(data) > 0 {
		if !s.open {
			before := p.lines
			if err := p.begin(f); err != nil {
				return err
			}
			if torn {
				p.torn += p.lines - before
			}
		}
		part := data
		if end := bytes.IndexByte(data, '\n'); end >= 0 {
			part, s.open = data[:end+1], false
		}
		if s.shown {
			if err := p.write(f.Stream, part); err != nil {
				return err
			}
		}
		data = data[len(part):]
	}
	return nil
}

// begin opens a line.
func (p *printer) begin(f Frame) error {
	s := &p.streams[f.Stream-1]
	wanted := (f.Stream == Stdout && p.o.Stdout || f.Stream == Stderr && p.o.Stderr) && p.wants(f)
	if wanted {
		p.lines++
	}
	s.open, s.shown = true, wanted && p.lines > p.skip
	if !s.shown || !p.o.Timestamps {
		return nil
	}
	p.stamp = append(f.Time.UTC().AppendFormat(p.stamp[:0], stampFormat), ' ')
	return p.write(f.Stream, p.stamp)
}

// breakLine ends a line of which no more will come.
func (p *printer) breakLine(stream int) error {
	s := &p.streams[stream-1]
	was := *s
	s.open = false
	if was.open && was.shown {
		return p.write(stream, []byte("\n"))
	}
	return nil
}

func (p *printer) lost(f Frame) error {
	if !p.wants(f) {
		return nil
	}
	return p.note(fmt.Sprintf("nucleus: %d bytes of output were lost: the disk was full\n", f.lostBytes()))
}

// gap is what a reader calls where frames are missing. Once it was overtaken, the
// lines that were counted to be skipped may be among them.
func (p *printer) gap(overtaken bool) error {
	if overtaken {
		p.skip = 0
	}
	if p.noted {
		return nil
	}
	err := p.breakLine(Stdout)
	if err == nil {
		err = p.note(overwritten)
	}
	p.streams, p.noted = [2]line{}, true
	return err
}

// note prints a line of ours to standard error, unless it belongs to the lines
// that are skipped.
func (p *printer) note(text string) error {
	if err := p.breakLine(Stderr); err != nil {
		return err
	}
	if p.lines < p.skip {
		return nil
	}
	return p.write(Stderr, []byte(text))
}

// write keeps the order between the two writers, which may lead to one place.
func (p *printer) write(stream int, b []byte) error {
	if p.count {
		return nil
	}
	w := p.to[stream-1]
	if p.last != nil && p.last != w {
		if err := p.last.Flush(); err != nil {
			return err
		}
	}
	p.last = w
	_, err := w.Write(b)
	return err
}

func (p *printer) flush() error {
	if p.last == nil {
		return nil
	}
	return p.last.Flush()
}
