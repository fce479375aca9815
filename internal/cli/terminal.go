package cli

import (
	"fmt"
	"os"
	"strings"
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
	if rows, cols, ok := t.size(); ok {
		_ = p.Resize(rows, cols) // it has ended
	}
}

// size is the size of the caller's terminal.
func (t *terminal) size() (rows, cols uint16, ok bool) {
	if t == nil {
		return 0, 0, false
	}
	c, r, err := term.GetSize(int(os.Stdin.Fd()))
	return uint16(r), uint16(c), err == nil && r > 0 && c > 0
}

// defaultKeys are ctrl-p ctrl-q, as docker has them.
const defaultKeys = "\x10\x11"

// noKeys stands for keys that nobody can type.
const noKeys = "\xff"

// parseKeys reads the keys with which a terminal is left: letters, or ctrl- and a
// letter or one of @[\]^_, separated by commas.
func parseKeys(v string) (string, error) {
	if v == "none" {
		return noKeys, nil
	}
	var keys []byte
	for one := range strings.SplitSeq(v, ",") {
		name, ctrl := strings.CutPrefix(strings.ToLower(one), "ctrl-")
		switch {
		case ctrl && len(name) == 1 && (name[0] >= 'a' && name[0] <= 'z'):
			keys = append(keys, name[0]-'a'+1)
		case ctrl && len(name) == 1 && strings.Contains("@[\\]^_", name):
			keys = append(keys, name[0]&0x1f)
		case !ctrl && len(one) == 1 && one[0] > ' ' && one[0] < 0x7f:
			keys = append(keys, one[0])
		default:
			return "", fmt.Errorf("%s is not a list of keys such as ctrl-p,ctrl-q", quote(v))
		}
	}
	return string(keys), nil
}

// keyFilter finds the keys with which a terminal is left in what is typed.
type keyFilter struct {
	keys string
	held int // how many of keys have been typed, and are held back
}

// filter returns what was typed for the program, and whether the keys were.
func (f *keyFilter) filter(b []byte) (out []byte, found bool) {
	if f.keys == noKeys {
		return b, false
	}
	for _, c := range b {
		typed := f.keys[:f.held] + string(c)
		for !strings.HasPrefix(f.keys, typed) {
			out = append(out, typed[0])
			typed = typed[1:]
		}
		if f.held = len(typed); f.held == len(f.keys) {
			return out, true
		}
	}
	return out, false
}
