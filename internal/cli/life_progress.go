package cli

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/term"
)

// statusLine is the line on the terminal that says what is waited for. Only what
// takes longer than a second is worth one, and only a person reads it.
type statusLine struct {
	mu      sync.Mutex
	waiting []*waiting
	shown   bool
}

// waiting is something that is waited for.
type waiting struct {
	line *statusLine
	text string
	end  time.Time // when patience is over; zero: never, or nobody knows
	more *time.Timer
}

// show says on a terminal what is waited for, until done is called. With a
// patience, it says how much of that is left.
func (l *statusLine) show(text string, patience time.Duration) (done func()) {
	if !onTerminal() {
		return func() {}
	}
	w := &waiting{line: l, text: text}
	if patience > 0 && patience < forever {
		w.end = time.Now().Add(patience)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, w)
	w.more = time.AfterFunc(time.Second, w.again)
	return w.done
}

// again writes the line, if it is this one's turn, and comes back in a second.
func (w *waiting) again() {
	l := w.line
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.Index(l.waiting, w)
	if at < 0 {
		return
	}
	w.more.Reset(time.Second)
	if at > 0 {
		return
	}
	text := w.text
	if n := len(l.waiting) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	if !w.end.IsZero() {
		text += fmt.Sprintf(" (%d s left)", max(0, int(time.Until(w.end).Round(time.Second)/time.Second)))
	}
	say("\r%s\x1b[K", text)
	l.shown = true
}

// done ends the waiting. What is printed next begins at the left.
func (w *waiting) done() {
	w.more.Stop()
	l := w.line
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = slices.DeleteFunc(l.waiting, func(x *waiting) bool { return x == w })
	if l.shown {
		say("\r\x1b[K")
		l.shown = false
	}
}

func onTerminal() bool { return term.IsTerminal(int(os.Stderr.Fd())) }
