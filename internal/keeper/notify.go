package keeper

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nucleus-container/nucleus/internal/notify"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// notifyPatience is how long a program may take to say READY=1: as long as with
// systemd (DefaultTimeoutStartSec). It can ask for more with EXTEND_TIMEOUT_USEC.
const notifyPatience = 90 * time.Second

// notifyDir holds the socket of a run, which alone is shown inside.
const notifyDir = "notify"

// listen makes the socket of this run. A new one: what the last run has said is
// not this one's word.
func (r *run) listen(l *store.Launch) error {
	dir := r.box.Path(notifyDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	path := dir + "/socket"
	s, err := notify.Listen(path)
	if err != nil {
		return err
	}
	r.socket = s
	l.Volumes = append(l.Volumes, spec.Volume{Source: path, Target: notify.Inside})
	l.Env = append(l.Env, "NOTIFY_SOCKET="+notify.Inside)
	if t := watchdogTime(); t > 0 {
		l.Env = append(l.Env, "WATCHDOG_USEC="+strconv.FormatInt(t.Microseconds(), 10))
	}
	return nil
}

// watchdogTime is how long whoever manages us lets us be silent, and so the
// program in our place (sd_watchdog_enabled(3)); zero: for ever.
func watchdogTime() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || us <= 0 || us > notify.MaxTimeout.Microseconds() {
		return 0
	}
	return time.Duration(us) * time.Microsecond
}

// hear passes on what the program says, to our own manager and to follow.
func (r *run) hear() {
	for {
		m, err := r.socket.Receive(r.ctx)
		if err != nil { // the run is over
			return
		}
		r.relay.pass(m)
		select {
		case r.heard <- m:
		case <-r.ctx.Done():
			return
		}
	}
}

// listened takes what the program says about itself.
func (r *run) listened(m notify.Message, now time.Time) {
	r.watchdog.Observe(m, now)
	if m.Status != "" {
		r.write(func(n *store.Note) { n.Status = m.Status })
	}
	if m.Extend > 0 && now.Add(m.Extend).After(r.patience) {
		r.patience = now.Add(m.Extend)
	}
	if m.Ready {
		r.spoken = true
		r.progress()
	}
	r.judge(now)
}

// What a program may have said just before its end.
const (
	lastWordsMost = 16
	lastWordsTime = 10 * time.Millisecond // from each to the next
)

// lastWords takes what is left in the socket of a sandbox that has ended: nobody
// can add to it.
func (r *run) lastWords() {
	if r.socket == nil {
		return
	}
	for range lastWordsMost {
		select {
		case m := <-r.heard:
			r.listened(m, time.Now())
		case <-time.After(lastWordsTime):
			return
		}
	}
}

// mustSpeak reports whether READY=1 is still to come.
func (r *run) mustSpeak() bool { return r.about.Service.Notify && !r.spoken }

// relay speaks to the service manager that has started us, if there is one. A
// manager that is slow holds up who speaks, for seconds; it is not the sandbox's.
type relay struct {
	mu   sync.Mutex
	open bool // we are ready: READY=1 may go through
}

// pass sends what the program has said. That it is ready is not said before it
// is: there may be more to it than its own word.
func (r *relay) pass(m notify.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.open {
		m.Ready = false
	}
	send(m)
}

// ready says that we are ready. From here on it is the keeper that stands for
// the service.
func (r *relay) ready() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = true
	send(notify.Message{Ready: true})
}

func (r *relay) send(m notify.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	send(m)
}

func send(m notify.Message) {
	path := os.Getenv("NOTIFY_SOCKET")
	b := notify.Encode(m)
	if path == "" || len(b) == 0 {
		return
	}
	if m.Ready {
		b = append(b, "MAINPID="+strconv.Itoa(os.Getpid())+"\n"...)
	}
	_ = notify.Send(path, b) // a manager that does not listen is none
}
