package observe

import (
	"slices"
	"strconv"
	"sync"

	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// key is what makes two calls the same for a reader.
type key struct {
	name, process, path, second, addr, rule string
	refused                                 seccomp.Action
	change                                  bool
}

// table counts calls. It is bounded: a workload decides what is in it.
type table struct {
	mu    sync.Mutex
	most  int
	at    map[key]int
	calls []Call
	lost  int
}

func newTable(most int) table { return table{most: most, at: map[key]int{}} }

func (c *Call) key() key {
	return key{c.Name, c.Process, c.Path, c.Second, c.Addr, c.Rule, c.Refused, c.Change}
}

// has reports whether a call like c was seen.
func (t *table) has(c *Call) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.at[c.key()]
	return ok
}

func (t *table) add(c Call) {
	k := c.key()
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, ok := t.at[k]; ok {
		t.calls[i].Count++
		return
	}
	if len(t.calls) >= t.most {
		t.lost++
		return
	}
	t.at[k] = len(t.calls)
	t.calls = append(t.calls, c)
}

func (t *table) all() ([]Call, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.calls), t.lost
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
