package cli

import (
	"os"
	"sync"

	"golang.org/x/term"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
)

// terminal is the caller's terminal while a program in a sandbox has it. The
// nil terminal is that of a program without one.
type terminal struct {
	mu    sync.Mutex
	saved *term.State // nil: as it was found
	over  bool
}

// openTerminal joins the caller's terminal to the sandbox's, if that has one:
// every key is the program's from here on, until restore.
func openTerminal(box *spec.Sandbox) (*terminal, error) {
	if !box.Terminal {
		return nil, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, usageError("--tty: the input device is not a terminal")
	}
	t := &terminal{}
	t.raw()
	return t, nil
}

// raw hands keys on as they are. It can be done again after restore.
func (t *terminal) raw() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved == nil && !t.over {
		t.saved, _ = term.MakeRaw(int(os.Stdin.Fd())) // a terminal that hung up needs no restoring
	}
}

// restore makes the terminal as it was found.
func (t *terminal) restore() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		_ = term.Restore(int(os.Stdin.Fd()), t.saved) // as above
		t.saved = nil
	}
}

// close restores it for good: a late SIGCONT must not make it raw again.
func (t *terminal) close() {
	if t == nil {
		return
	}
	t.restore()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}

// resize tells the sandbox's terminal the size of the caller's.
func (t *terminal) resize(p *nucleus.Process) {
	if t == nil {
		return
	}
	if cols, rows, err := term.GetSize(int(os.Stdin.Fd())); err == nil {
		_ = p.Resize(uint16(rows), uint16(cols)) // it has ended
	}
}
