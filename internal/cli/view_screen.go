package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"
)

// What a terminal is told. All that still are made know these.
const (
	screenEnter = "\x1b[?1049h\x1b[?25l" // another page, without a cursor
	screenLeave = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	screenLine  = "\x1b[K\r\n" // nothing more on this one; the next
	screenRest  = "\x1b[K\x1b[J"
	bold, plain = "\x1b[1m", "\x1b[m"
)

// canvas is the user's terminal while a view fills it.
type canvas struct {
	mu    sync.Mutex
	keys  *os.File // nil: there are none
	saved *term.State
	on    bool

	read sync.WaitGroup
}

// openCanvas takes the terminal. Keys are read through a descriptor of our own:
// reading from one that is shared with others could not be ended.
func openCanvas() (*canvas, chan byte) {
	s := &canvas{}
	typed := make(chan byte)
	if term.IsTerminal(int(os.Stdin.Fd())) {
		if keys, err := os.OpenFile("/dev/tty", os.O_RDONLY|syscall.O_NOCTTY, 0); err == nil { // without a keyboard, signals are left
			s.keys = keys
			s.read.Go(func() { readKeys(keys, typed) })
		}
	}
	s.show()
	return s, typed
}

func readKeys(from *os.File, to chan<- byte) {
	defer close(to)
	b := make([]byte, 64)
	for {
		n, err := from.Read(b)
		for _, key := range b[:n] {
			to <- key
		}
		if err != nil {
			return
		}
	}
}

// show begins to use the terminal, also again after hide.
func (s *canvas) show() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on {
		return
	}
	if s.keys != nil {
		s.saved, _ = term.MakeRaw(int(os.Stdin.Fd())) // without it, keys need Enter
	}
	s.on = true
	_, _ = os.Stdout.WriteString(screenEnter) // who cannot write sees it at the next frame
}

// hide leaves the terminal as it was found.
func (s *canvas) hide() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on {
		return
	}
	s.on = false
	_, _ = os.Stdout.WriteString(screenLeave) // the terminal may be gone
	if s.saved != nil {
		_ = term.Restore(int(os.Stdin.Fd()), s.saved) // as above
		s.saved = nil
	}
}

func (s *canvas) shown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on
}

// close gives the terminal back.
func (s *canvas) close(typed <-chan byte) {
	s.hide()
	if s.keys == nil {
		return
	}
	_ = s.keys.Close() // nothing was written
	for range typed {  // one may be on its way
	}
	s.read.Wait()
}

// draw fills the terminal with lines of printable text, the first of them bold.
func (s *canvas) draw(lines []string) error {
	cols, rows, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil || cols <= 0 || rows <= 0 {
		cols, rows = 80, 24
	}
	if len(lines) > rows {
		lines = lines[:rows]
	}
	var b strings.Builder
	b.WriteString(screenHome)
	for i, line := range lines {
		line = clip(line, cols)
		if i == 0 && os.Getenv("NO_COLOR") == "" {
			line = bold + line + plain
		}
		b.WriteString(line)
		if i < len(lines)-1 {
			b.WriteString(screenLine)
		}
	}
	b.WriteString(screenRest)
	_, err = os.Stdout.WriteString(b.String())
	return err
}

// view is the state of the view of `nucleus stats`.
type view struct {
	*canvas
	sort    string
	samples []sample
}

// statsView shows samples on the terminal, as top(1) does.
func (c *call) statsView(m *meters) int {
	caught := make(chan os.Signal, 8)
	signal.Notify(caught, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGCONT, syscall.SIGWINCH)
	defer signal.Stop(caught)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	screen, typed := openCanvas()
	v := &view{canvas: screen, sort: c.opts.view.sort}
	code, err := v.run(ctx, m, typed, caught)
	v.close(typed)
	if err != nil {
		return failVerb(c.cmd, err)
	}
	return code
}

// run shows samples until a key, a signal or an error ends it.
func (v *view) run(ctx context.Context, m *meters, typed <-chan byte, caught <-chan os.Signal) (int, error) {
	next := time.NewTimer(0)
	defer next.Stop()
	pause := statsFirst
	for {
		select {
		case <-next.C:
			all, err := m.look(ctx)
			if err != nil {
				return exitFailed, err
			}
			v.samples = all
			next.Reset(pause)
			pause = statsEvery
		case key, ok := <-typed:
			if !ok { // the terminal hung up
				return exitSignal + int(syscall.SIGHUP), nil
			}
			if code, done := v.key(key); done {
				return code, nil
			}
		case s := <-caught:
			switch s {
			case syscall.SIGWINCH:
			case syscall.SIGCONT:
				v.show()
			case syscall.SIGTSTP:
				v.suspend()
			default:
				return exitSignal + int(s.(syscall.Signal)), nil
			}
		}
		if !v.shown() {
			continue
		}
		if err := v.redraw(); err != nil {
			if errors.Is(err, syscall.EIO) { // the terminal hung up
				return exitSignal + int(syscall.SIGHUP), nil
			}
			return exitFailed, err
		}
	}
}

// key does what a key says.
func (v *view) key(key byte) (code int, done bool) {
	const interrupt, quit, suspend = 0x03, 0x1c, 0x1a // as a terminal that is not raw takes them
	switch key {
	case 'q', 'Q':
		return exitOK, true
	case interrupt:
		return exitSignal + int(syscall.SIGINT), true
	case quit:
		return exitSignal + int(syscall.SIGQUIT), true
	case suspend:
		v.suspend()
	}
	for _, k := range sortKeys {
		if string(key) == k[0] {
			v.sort = k[1]
		}
	}
	return exitOK, false
}

// suspend lets the shell that waits for us have the terminal, until SIGCONT
// comes: this thread may go on for a moment after the stop.
func (v *view) suspend() {
	v.hide()
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // oneself may always be stopped
}

func (v *view) redraw() error {
	by := v.sort
	if by == "" {
		by = "name"
	}
	order(v.samples, v.sort)
	rows := [][]string{statsHeading().cells()}
	for _, s := range v.samples {
		rows = append(rows, newStatsRow(s).cells())
	}
	lines := []string{time.Now().Format(time.TimeOnly) + "  " + tally(len(v.samples), "sandbox", "sandboxes") + " by " + by + "   q: quit, sort by c: cpu m: mem p: pids n: name i: io"}
	table := strings.TrimSuffix(textTable(rows), "\n")
	return v.draw(append(lines, strings.Split(table, "\n")...))
}
