package keeper

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// terminal holds the terminal of a sandbox that nobody need look at. It reads
// all the time, so that the program never waits for somebody to; keeps what the
// last screen needs; and shows all to those who attach.
//
// What the program writes is bytes to it. An attacker in the sandbox can have
// anything shown to those who attach, as on every terminal, but takes no more
// memory than historyMost twice and can hold up nobody but itself: who attaches
// and does not read is dropped.
type terminal struct {
	console  *os.File
	listener *kernel.Listener
	logTo    io.WriteCloser // only the reader's
	path     string

	work    sync.WaitGroup
	closing chan struct{}

	mu      sync.Mutex
	screen  *screen
	clients []*client // in the order in which they came
	over    bool
}

const (
	clientsMost = 32
	behindMost  = 2 << 20                // bytes that a client may be behind
	goneEvery   = 50 * time.Millisecond  // how often to look for a program that has come back to its terminal
	kickTime    = 30 * time.Millisecond  // that a program has to notice another size
	lastWords   = 500 * time.Millisecond // that a client has to read the end
	drainMost   = 4 << 20                // bytes of the end
)

// newTerminal takes over the supervisor's end of a terminal and listens at a
// path for those who attach. What the program writes is also written to logTo,
// unless that is nil, which belongs to the terminal from here on. The console
// does not; but it must not be read any more.
func newTerminal(console *os.File, logTo io.WriteCloser, socketPath string) (*terminal, error) {
	own, err := kernel.Pollable(console)
	if err != nil {
		return nil, errors.Join(err, closeLog(logTo))
	}
	if rows, cols, err := kernel.WindowSize(own); err == nil && (rows == 0 || cols == 0) {
		_ = kernel.SetWindowSize(own, 24, 80) // programs ask for it all the same
	}
	l, err := kernel.ListenUnix(socketPath)
	if err != nil {
		return nil, errors.Join(err, own.Close(), closeLog(logTo))
	}
	t := &terminal{console: own, listener: l, logTo: logTo, path: socketPath, closing: make(chan struct{}), screen: newScreen()}
	t.work.Go(t.read)
	t.work.Go(t.accept)
	return t, nil
}

func closeLog(w io.WriteCloser) error {
	if w == nil {
		return nil
	}
	return w.Close()
}

// close shows what the program has written last, and lets everybody go.
func (t *terminal) close() error {
	t.mu.Lock()
	if t.over {
		t.mu.Unlock()
		return nil
	}
	t.over = true
	t.mu.Unlock()
	close(t.closing)
	err := errors.Join(os.Remove(t.path), t.listener.Close())
	_ = t.console.SetDeadline(time.Unix(1, 0)) // it can be polled: this does not fail
	t.work.Wait()
	return errors.Join(err, t.console.Close())
}

// read reads what the program writes, until close.
func (t *terminal) read() {
	b := make([]byte, 32<<10)
	for {
		n, err := t.console.Read(b)
		t.show(b[:n])
		if err == nil {
			continue
		}
		// Nobody has the terminal open: that may change, as long as there is a sandbox.
		select {
		case <-t.closing:
			t.drain(b)
			return
		case <-time.After(goneEvery):
		}
	}
}

// drain reads what is left and tells everybody that this was all.
func (t *terminal) drain(b []byte) {
	for rest := drainMost; rest > 0; {
		n, err := kernel.ReadReady(t.console, b)
		t.show(b[:n])
		rest -= n
		if n == 0 || err != nil {
			break
		}
	}
	if t.logTo != nil {
		_ = t.logTo.Close() // what could not be written is lost
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.clients {
		c.finish()
	}
}

// show shows something to everybody.
func (t *terminal) show(p []byte) {
	if len(p) == 0 {
		return
	}
	t.mu.Lock()
	t.screen.write(p)
	if len(t.clients) > 0 {
		p := slices.Clone(p)
		for _, c := range t.clients {
			c.show(p)
		}
	}
	t.mu.Unlock()
	if t.logTo == nil {
		return
	}
	if _, err := t.logTo.Write(p); err != nil { // the logger is gone: the terminal is not
		_ = t.logTo.Close() // as above
		t.logTo = nil
	}
}

// accept lets in who may: the user that the keeper runs as, and root.
func (t *terminal) accept() {
	for {
		conn, uid, err := t.listener.Accept()
		if err != nil {
			select {
			case <-t.closing:
				return
			case <-time.After(goneEvery): // too many open files: it may pass
				continue
			}
		}
		if uid != 0 && int(uid) != os.Geteuid() || !t.add(conn) {
			_ = conn.Close() // it was none of ours
		}
	}
}

// add attaches a client.
func (t *terminal) add(conn *os.File) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over || len(t.clients) == clientsMost {
		return false
	}
	c := &client{conn: conn, wake: make(chan struct{}, 1)}
	c.show(t.screen.replay())
	t.clients = append(t.clients, c)
	t.work.Go(c.write)
	t.work.Go(func() { t.hear(c) })
	return true
}

// hear reads what a client says, until it leaves.
func (t *terminal) hear(c *client) {
	var head [frameHead]byte
	b := make([]byte, frameMost)
	for {
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			break
		}
		body := b[:int(head[1])<<8|int(head[2])]
		if _, err := io.ReadFull(c.conn, body); err != nil {
			break
		}
		if head[0] == frameKeys {
			if _, err := t.console.Write(body); err != nil && !errors.Is(err, errGone) {
				break
			}
		}
		if head[0] == frameSize && len(body) == 4 {
			t.resize(c, [2]uint16{binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])})
		}
	}
	t.leave(c)
}

var errGone error = kernel.TerminalGone

// leave forgets a client.
func (t *terminal) leave(c *client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.finish()
	before := t.last()
	t.clients = slices.DeleteFunc(t.clients, func(x *client) bool { return x == c })
	if now := t.last(); now != nil && now != before {
		_ = kernel.SetWindowSize(t.console, now.size[0], now.size[1]) // what is shown is wrong, no more
	}
}

// last is the client that came last and has a size.
func (t *terminal) last() *client {
	for _, c := range slices.Backward(t.clients) {
		if c.size != [2]uint16{} {
			return c
		}
	}
	return nil
}

// resize takes a client's size. When it has just come, the program must notice
// even if that is the size that the terminal has: what fills the screen draws it
// anew then.
func (t *terminal) resize(c *client, size [2]uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := c.size == [2]uint16{}
	c.size = size
	if t.last() != c || size[0] == 0 || size[1] == 0 {
		return
	}
	rows, cols, err := kernel.WindowSize(t.console)
	if first && err == nil && [2]uint16{rows, cols} == size {
		other := rows - 1
		if other == 0 {
			other = 2
		}
		_ = kernel.SetWindowSize(t.console, other, cols) // as below
		t.work.Go(func() { t.sizeLater(c) })
		return
	}
	_ = kernel.SetWindowSize(t.console, size[0], size[1]) // what is shown is wrong, no more
}

func (t *terminal) sizeLater(c *client) {
	select {
	case <-t.closing:
		return
	case <-time.After(kickTime):
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if last := t.last(); last != nil {
		c = last
	}
	_ = kernel.SetWindowSize(t.console, c.size[0], c.size[1]) // as above
}

// client is somebody who is attached. Its methods but write are called with the
// terminal's mu held.
type client struct {
	conn *os.File
	size [2]uint16 // of its own terminal; zero: it has none, or has not said so

	wake chan struct{}

	mu     sync.Mutex
	queue  [][]byte
	behind int
	over   bool // nothing is to come
	left   bool // nobody reads any more
}

// show queues something, and drops a client that is too far behind.
func (c *client) show(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.left {
		return
	}
	if c.behind > behindMost {
		c.queue, c.left = nil, true
		_ = c.conn.SetDeadline(time.Unix(1, 0)) // wakes both its goroutines
	} else {
		c.queue = append(c.queue, p)
		c.behind += len(p)
	}
	c.nudge()
}

// finish has it read what is queued, for a while, and then leave.
func (c *client) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.over = true
		_ = c.conn.SetWriteDeadline(time.Now().Add(lastWords)) // it can be polled
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))            // as above
	}
	c.nudge()
}

func (c *client) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write writes what is queued until nothing is to come, and closes the connection.
func (c *client) write() {
	for range c.wake {
		c.mu.Lock()
		queue, done := c.queue, c.over || c.left
		c.queue = nil
		c.mu.Unlock()
		for _, p := range queue {
			n, err := c.conn.Write(p)
			c.mu.Lock()
			c.behind -= n
			c.left = c.left || err != nil
			done = done || c.left
			c.mu.Unlock()
			if err != nil {
				break
			}
		}
		if done {
			break
		}
	}
	_ = c.conn.Close() // hear ends with it, if it has not
}
