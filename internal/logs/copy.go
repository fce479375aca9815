package logs

import (
	"context"
	"io"
	"time"
)

// Options say what Copy prints. The zero value prints nothing.
type Options struct {
	Stdout, Stderr bool
	Tail           int // only so many of the last lines that are asked for; -1: all
	// Only lines that began in this time, both ends included; zero: without an end.
	Since, Until time.Time
	Timestamps   bool // begin each line with the time at which it began

	Follow bool        // wait for more
	Done   func() bool // the writer has ended: print the rest and return; nil: never
}

// A log that is followed is looked at again soon after something came, and ever
// less often, down to this, when nothing does.
const (
	soonest  = time.Millisecond
	interval = 50 * time.Millisecond
)

// Copy prints what was written to standard output to out, and to standard error
// to err, in the order in which it was written; out and err may lead to one place.
// What Copy itself has to say goes to err. It returns when everything that was
// there at the call has been printed; with Follow, when Done or Until says so.
func (l *Log) Copy(ctx context.Context, out, err io.Writer, o Options) error {
	p := newPrinter(out, err, o)
	r := &reader{log: l, ctx: ctx, each: p.frame, gap: p.gap}
	limit, e := l.position(ctx, r, p)
	if e != nil {
		return e
	}
	if !o.Follow {
		if limit == nil {
			return nil
		}
		if e := r.more(limit); e != nil {
			return e
		}
		return p.flush()
	}
	for pause := soonest; ; pause = min(2*pause, interval) {
		last, turn, off := o.Done != nil && o.Done() || !o.Until.IsZero() && time.Now().After(o.Until), r.at.turn, r.off
		if e := r.more(nil); e != nil {
			return e
		}
		if e := p.flush(); e != nil || last {
			return e
		}
		if r.at.turn != turn || r.off != off {
			pause = soonest
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// position sets r and p to where printing begins, and returns the end of what
// there is, nil if that is nothing.
func (l *Log) position(ctx context.Context, r *reader, p *printer) (*mark, error) {
	all, err := l.segments()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	limit, err := l.end(all)
	if err != nil || p.o.Tail < 0 {
		return &limit, err
	}
	// Count in the newest file; where that is not enough, in twice as many. A line
	// may have begun before them.
	for k := 1; ; k *= 2 {
		k = min(k, len(all))
		c := &printer{o: p.o, count: true}
		from := &reader{log: l, ctx: ctx, each: c.frame, gap: c.gap}
		from.enter(all[len(all)-k])
		if err := from.more(&limit); err != nil {
			return nil, err
		}
		if c.lines >= p.o.Tail && c.torn == 0 || k == len(all) {
			p.skip = max(0, c.lines-p.o.Tail)
			r.enter(all[len(all)-k])
			return &limit, nil
		}
	}
}
