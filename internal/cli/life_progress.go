package cli

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/term"
)

// status is the line on the terminal that says what is waited for. Only what
// takes longer than a second is worth one, and only a person reads it.
var status struct {
	mu      sync.Mutex
	waiting []*waiting
	shown   bool
}

// waiting is something that is waited for.
type waiting struct {
	text string
	end  time.Time // when patience is over; zero: never, or nobody knows
	more *time.Timer
}

// showProgress says on a terminal what is waited for, until done is called. With
// a patience, it says how much of that is left.
func showProgress(text string, patience time.Duration) (done func()) {
	if !onTerminal() {
		return func() {}
	}
	w := &waiting{text: text}
	if patience > 0 && patience < forever {
		w.end = time.Now().Add(patience)
	}
	status.mu.Lock()
	defer status.mu.Unlock()
	status.waiting = append(status.waiting, w)
	w.more = time.AfterFunc(time.Second, w.show)
	return w.done
}

// show writes the line, if it is this one's turn, and comes back in a second.
func (w *waiting) show() {
	status.mu.Lock()
	defer status.mu.Unlock()
	at := slices.Index(status.waiting, w)
	if at < 0 {
		return
	}
	w.more.Reset(time.Second)
	if at > 0 {
		return
	}
	line := w.text
	if n := len(status.waiting) - 1; n > 0 {
		line += fmt.Sprintf(" and %d more", n)
	}
	if !w.end.IsZero() {
		line += fmt.Sprintf(" (%d s left)", max(0, int(time.Until(w.end).Round(time.Second)/time.Second)))
	}
	say("\r%s\x1b[K", line)
	status.shown = true
}

// done ends the waiting. What is printed next begins at the left.
func (w *waiting) done() {
	w.more.Stop()
	status.mu.Lock()
	defer status.mu.Unlock()
	status.waiting = slices.DeleteFunc(status.waiting, func(x *waiting) bool { return x == w })
	if status.shown {
		say("\r\x1b[K")
		status.shown = false
	}
}

func onTerminal() bool { return term.IsTerminal(int(os.Stderr.Fd())) }
