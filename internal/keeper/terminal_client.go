package keeper

import (
	"bytes"
	"encoding/binary"
	"os"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// What a client says to the keeper is frames: a kind, the length in two bytes
// (the high one first), and so many bytes. What the keeper says is what the
// program writes to its terminal, and nothing else.
const (
	frameKeys = 0 // typed
	frameSize = 1 // rows and columns, two bytes each

	frameHead = 3
	frameMost = 1<<16 - 1
)

// Attached is a connection to the terminal of a sandbox that a keeper holds.
type Attached struct{ conn *os.File }

// Attach connects to the keeper that listens at a path. What is read first is
// what makes the terminal of the caller show what the sandbox's shows.
func Attach(path string) (*Attached, error) {
	conn, err := kernel.ConnectUnix(path)
	if err != nil {
		return nil, err
	}
	return &Attached{conn}, nil
}

// Read reads what the program writes. It ends with the sandbox, or when this end
// has not read for too long.
func (a *Attached) Read(p []byte) (int, error) { return a.conn.Read(p) }

// Write types.
func (a *Attached) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(len(p), n+frameMost)]
		if err := a.send(frameKeys, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// Resize tells the size of the terminal of the caller. The sandbox's has the
// size of the one that was attached last.
func (a *Attached) Resize(rows, cols uint16) error {
	return a.send(frameSize, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, rows), cols))
}

// send sends a frame, in one call: two goroutines may send.
func (a *Attached) send(kind byte, body []byte) error {
	frame := append([]byte{kind, byte(len(body) >> 8), byte(len(body))}, body...)
	_, err := a.conn.Write(frame)
	return err
}

// Close lets go of the terminal. The program runs on.
func (a *Attached) Close() error { return a.conn.Close() }

// Follower follows what is shown on a terminal, to leave that as it was found.
type Follower struct{ v *vt }

// NewFollower returns the follower of a terminal in its normal modes.
func NewFollower() *Follower { return &Follower{newVT()} }

// Write takes what is shown. It never fails.
func (f *Follower) Write(p []byte) (int, error) {
	for _, b := range p {
		f.v.step(b)
	}
	return len(p), nil
}

// Normal is what to write to the terminal to have its normal modes again.
func (f *Follower) Normal() []byte {
	var b bytes.Buffer
	if f.v.at != vtGround {
		b.WriteByte(0x18) // CAN ends what was begun
	}
	for range f.v.modes.pushed {
		b.WriteString("\x1b[<u")
	}
	if f.v.modes.alt {
		b.WriteString("\x1b[?1049l")
	}
	f.v.modes.unset(&b)
	return b.Bytes()
}
