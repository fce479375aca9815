package observe

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/nucleus-container/nucleus/policy/landlock"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// key is what makes two calls the same for a reader.
type key struct {
	name, process, path, second, addr, rule string
	refused                                 seccomp.Action
	change                                  bool
	words                                   [3]uint64
	kinds                                   int
	flags                                   uint64
}

// table counts calls. It is bounded: a workload decides what is in it.
type table struct {
	look  Look
	mu    sync.Mutex
	most  int
	at    map[key]int
	kinds map[string]int // different words of a call
	calls []Call
	lost  int
}

func newTable(most int, l Look) table {
	return table{look: l, most: most, at: map[key]int{}, kinds: map[string]int{}}
}

// mostWords bounds the different words of one call that are told apart: what
// asks for more asks for anything.
const mostWords = 256

func (t *table) key(c *Call) key {
	k := key{name: c.Name, rule: c.Rule, refused: c.Refused}
	if t.look == Names {
		return k
	}
	k.path, k.second, k.addr, k.words, k.kinds, k.flags = c.Path, c.Second, c.Addr, c.Words, c.WordCount, c.flags
	if t.look == Processes {
		k.process, k.change = c.Process, c.Change
	}
	return k
}

func (t *table) add(c Call) {
	k := t.key(&c)
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, ok := t.at[k]; ok {
		t.calls[i].merge(&c)
		return
	}
	if c.WordCount > 0 {
		if t.kinds[c.Name]++; t.kinds[c.Name] > mostWords {
			c.Words, c.WordCount = [3]uint64{}, 0
			t.put(c)
			return
		}
	}
	t.put(c)
}

// put adds a call that may be there already.
func (t *table) put(c Call) {
	k := t.key(&c)
	if i, ok := t.at[k]; ok {
		t.calls[i].merge(&c)
		return
	}
	if len(t.calls) >= t.most {
		t.lost++
		return
	}
	t.at[k] = len(t.calls)
	t.calls = append(t.calls, c)
}

// merge adds a call that is the same but for the state in which it found files.
func (c *Call) merge(o *Call) {
	c.Count++
	c.Change = c.Change || o.Change
	c.Access |= o.Access
	c.Access2 |= o.Access2
	if c.Blocked == "" {
		c.Blocked = o.Blocked
	}
	if c.At.Kind == Nothing && o.At.Kind != Nothing {
		c.At, c.Interpreters = o.At, o.Interpreters
	}
	if c.At2.Kind == Nothing && o.At2.Kind != Nothing {
		c.At2 = o.At2
	}
}

// isNew reports whether no call like c was seen.
func (t *table) isNew(c *Call) bool {
	k := t.key(c)
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.at[k]
	return !ok
}

// settled reports whether looking at the files of c again can tell nothing new.
func (t *table) settled(c *Call) bool {
	if strings.HasPrefix(c.Name, "rename") || strings.HasPrefix(c.Name, "link") {
		return false
	}
	k := t.key(c)
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.at[k]
	if !ok {
		return false
	}
	had := &t.calls[i]
	if c.flags&syscall.O_CREAT != 0 {
		return had.Access&landlock.MakeReg != 0 || had.Blocked != ""
	}
	return had.Access != 0 || had.Blocked != ""
}

func (t *table) all() ([]Call, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.calls), t.lost
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// words are the arguments by which calls of one name differ in what they are:
// never addresses, descriptors or sizes, which differ from run to run.
func words(c *Call) (w [3]uint64, n int) {
	low := func(args ...int) ([3]uint64, int) {
		for i, a := range args {
			w[i] = uint64(uint32(c.Args[a]))
		}
		return w, len(args)
	}
	switch c.Name {
	case "socket", "socketpair":
		const typeMask = 0xf // without SOCK_CLOEXEC and SOCK_NONBLOCK
		low(0, 1, 2)
		w[1] &= typeMask
		return w, 3
	case "ioctl":
		return low(1)
	case "prctl", "arch_prctl", "personality", "unshare", "setuid", "setgid", "setfsuid", "setfsgid":
		return low(0)
	case "clone":
		return [3]uint64{c.Args[0] &^ 0xff}, 1 // without the signal at its end
	case "setsockopt", "chown", "lchown", "fchown":
		return low(1, 2)
	case "fchownat":
		return low(2, 3)
	case "setresuid", "setresgid":
		return low(0, 1, 2)
	case "setreuid", "setregid":
		return low(0, 1)
	case "mknod":
		return [3]uint64{c.Args[1] & syscall.S_IFMT}, 1
	case "mknodat":
		return [3]uint64{c.Args[2] & syscall.S_IFMT}, 1
	}
	return w, 0
}
