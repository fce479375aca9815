package observe

import (
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Blocked is what Landlock refused, as the kernel wrote it into its audit log, or
// several refusals that differ only in when they were.
type Blocked struct {
	// Blockers are the rights that were missing, in the kernel's words, such as
	// fs.write_file, net.connect_tcp, scope.signal.
	Blockers []string
	// Path is the file, or the directory for what is made in it or removed from it.
	Path string
	// Port is the port of a network right; -1: none.
	Port    int
	Pid     int    // who was refused it, on the host; 0: not told
	Process string // its name
	Time    time.Time
	Count   int
}

// log is where audit records come from.
type log interface {
	Next() (kind int, text string, err error)
	SetDeadline(time.Time) error
	Close() error
}

// Trail reads what Landlock refuses from the kernel's audit log. Records of all
// processes of the machine pass there; those of one sandbox are told by who made
// the domain that refused.
type Trail struct {
	log  log
	done chan struct{}

	mu     sync.Mutex
	end    time.Time // of reading, once it was set
	made   map[string]int
	events map[blocked]*Blocked
	order  []blocked
	last   map[string]*Blocked // by event, for what follows of it
	lost   bool
}

// blocked is what makes two refusals one.
type blocked struct {
	domain, blockers, path string
	port                   int
}

// mostBlocked bounds what is remembered: other programs of the machine decide how
// much there is.
const mostBlocked = 2000

// NewTrail begins to read. What was refused before is not seen.
func NewTrail() (*Trail, error) {
	l, err := kernel.OpenAuditLog()
	if err != nil {
		return nil, err
	}
	return follow(l), nil
}

func follow(l log) *Trail {
	t := &Trail{log: l, done: make(chan struct{}), made: map[string]int{}, events: map[blocked]*Blocked{}, last: map[string]*Blocked{}}
	go t.read()
	return t
}

// quiet is how long nothing must come for the log to be read to its end. The kernel writes
// records after what they are about, by a thread of its own.
const quiet = 5 * time.Millisecond

// Stop reads what is still on its way, for at most the time that is given, and ends it.
func (t *Trail) Stop(most time.Duration) error {
	t.mu.Lock()
	t.end = time.Now().Add(most)
	err := t.log.SetDeadline(time.Now().Add(quiet))
	t.mu.Unlock()
	<-t.done
	return errors.Join(err, t.log.Close())
}

// Of returns what domains refused that a process made, in the order of first
// appearance. whole is false if some of it may be missing.
func (t *Trail) Of(pid int) (all []Blocked, whole bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.order {
		if t.made[k.domain] == pid {
			all = append(all, *t.events[k])
		}
	}
	return all, !t.lost
}

func (t *Trail) read() {
	defer close(t.done)
	for {
		kind, text, err := t.log.Next()
		if err != nil && !errors.Is(err, kernel.ErrAuditLost) {
			t.mu.Lock()
			t.lost = t.lost || !errors.Is(err, os.ErrDeadlineExceeded)
			t.mu.Unlock()
			return
		}
		t.mu.Lock()
		if err != nil {
			t.lost = true
		}
		t.take(kind, text)
		if !t.end.IsZero() {
			if soon := time.Now().Add(quiet); soon.Before(t.end) {
				_ = t.log.SetDeadline(soon) // or at the one that was set
			}
		}
		t.mu.Unlock()
	}
}

// take remembers one record: "audit(SECONDS.MILLISECONDS:SERIAL): KEY=VALUE ...".
func (t *Trail) take(kind int, text string) {
	stamp, rest, ok := strings.Cut(text, "): ")
	if !ok {
		return
	}
	stamp = strings.TrimPrefix(stamp, "audit(")
	f := fields(rest)
	switch kind {
	case kernel.AuditLandlockAccess:
		t.refused(stamp, f)
	case kernel.AuditLandlockDomain:
		pid, err := strconv.Atoi(f["pid"])
		switch {
		case err != nil || f["status"] != "allocated":
		case len(t.made) >= mostBlocked:
			t.lost = true
		default:
			t.made[f["domain"]] = pid
		}
	case kernel.AuditSyscall: // the call in which it was, where rules have it told
		if b := t.last[stamp]; b != nil && b.Pid == 0 {
			b.Pid, _ = strconv.Atoi(f["pid"])
			b.Process = clean(f["comm"])
		}
	}
}

func (t *Trail) refused(stamp string, f map[string]string) {
	k := blocked{f["domain"], f["blockers"], tidy(f["path"]), -1}
	for _, name := range [...]string{"dest", "src", "lport", "fport"} {
		if n, err := strconv.Atoi(f[name]); err == nil && n > 0 && strings.HasPrefix(k.blockers, "net.") {
			k.port = n
			break
		}
	}
	at := when(stamp)
	b := t.events[k]
	if b == nil {
		if len(t.order) >= mostBlocked {
			t.lost = true
			return
		}
		b = &Blocked{Blockers: strings.Split(k.blockers, ","), Path: k.path, Port: k.port, Time: at}
		t.events[k] = b
		t.order = append(t.order, k)
	}
	b.Count++
	if len(t.last) >= 64 { // records of one event come soon after each other
		clear(t.last)
	}
	t.last[stamp] = b
}

// fields reads KEY=VALUE, values as the kernel writes them: a word, quoted text
// without quotes in it, or text in hexadecimal digits.
func fields(s string) map[string]string {
	f := map[string]string{}
	for s != "" {
		var key, value string
		key, s, _ = strings.Cut(strings.TrimLeft(s, " "), "=")
		quoted := strings.HasPrefix(s, `"`)
		if quoted {
			value, s, _ = strings.Cut(s[1:], `"`)
		} else {
			value, s, _ = strings.Cut(s, " ")
		}
		if text := slices.Contains([]string{"path", "comm", "exe", "name"}, key); text && !quoted {
			if b, err := hex.DecodeString(value); err == nil {
				value = string(b)
			}
		}
		if _, twice := f[key]; !twice {
			f[key] = value
		}
	}
	return f
}

// when reads SECONDS.MILLISECONDS:SERIAL.
func when(stamp string) time.Time {
	clock, _, _ := strings.Cut(stamp, ":")
	s, ms, _ := strings.Cut(clock, ".")
	sec, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}
	}
	milli, _ := strconv.ParseInt(ms, 10, 64) // 0 where it is not told
	return time.Unix(sec, milli*int64(time.Millisecond))
}
