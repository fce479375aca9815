package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/health"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// answer is what came of a question.
type answer struct {
	ok     bool
	detail string
}

// maxOutput is how much is kept of what a check's program says.
const maxOutput = 4 << 10

// lingering is how long the output of what a check leaves running is waited for.
const lingering = 500 * time.Millisecond

// ask asks once, and tells follow.
func (r *run) ask(c *spec.Check, limit time.Duration) {
	var a answer
	switch {
	case len(c.Command) > 0:
		a = r.askProgram(c.Command, limit)
	default:
		a = r.askNetwork(c, limit)
	}
	select {
	case r.answers <- a:
	case <-r.ctx.Done():
	}
}

// askProgram runs a program inside, with the sandbox's policy.
func (r *run) askProgram(command []string, limit time.Duration) answer {
	out := &head{}
	c := r.p.Command(command[0], command[1:]...)
	c.Sandbox.Timeout = max(limit, time.Millisecond)
	c.Stdout, c.Stderr = out, out
	c.WaitDelay = lingering
	err := c.Run()
	var exit *nucleus.ExitError
	text := strings.TrimSpace(out.String())
	switch {
	case err == nil, c.Outcome != nil && c.Outcome.Success() && errors.Is(err, nucleus.ErrWaitDelay):
		return answer{true, text}
	case errors.As(err, &exit) && exit.Reason == nucleus.DeadlineExceeded:
		err = fmt.Errorf("no answer within %v", limit)
	}
	if text != "" {
		return answer{false, err.Error() + ": " + text}
	}
	return answer{false, err.Error()}
}

// head keeps the beginning of what is written to it. What a check leaves running
// may write to it for ever.
type head struct {
	mu sync.Mutex
	b  []byte
}

func (h *head) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, b[:min(len(b), maxOutput-len(h.b))]...)
	return len(b), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.b)
}

// askNetwork connects to something in the sandbox's network, and says GET there
// if that is the question.
func (r *run) askNetwork(c *spec.Check, limit time.Duration) answer {
	ctx, cancel := context.WithTimeoutCause(r.ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	to, err := address(c)
	if err != nil {
		return answer{false, err.Error()}
	}
	conn, err := r.p.DialTCP(ctx, to)
	if err != nil {
		return answer{false, err.Error()}
	}
	defer conn.Close() // nothing was written that could get lost
	if c.HTTP == "" {
		return answer{true, "connected"}
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return answer{false, err.Error()}
	}
	ok, detail, err := health.HTTP(conn, c.HTTP)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.Cause(ctx)
	}
	if err != nil {
		return answer{false, err.Error()}
	}
	return answer{ok, detail}
}

// address is where a check connects to.
func address(c *spec.Check) (netip.AddrPort, error) {
	if c.HTTP == "" {
		return netip.ParseAddrPort(c.TCP)
	}
	u, err := url.Parse(c.HTTP)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "80"), 10, 16)
	return netip.AddrPortFrom(ip, uint16(port)), err
}

// describe is a check in a few words.
func describe(c *spec.Check) string {
	switch {
	case len(c.Command) > 0:
		return "the command " + strings.Join(c.Command, " ")
	case c.HTTP != "":
		return "GET " + c.HTTP
	}
	return "a connection to " + c.TCP
}

// answered takes an answer.
func (r *run) answered(a answer) {
	r.asking = false
	if i, err := r.box.Info(r.ctx); err == nil && i.State == "paused" {
		return // it was not asked fairly; act asks again
	}
	now := time.Now()
	r.lastWord = health.Clean(a.detail)
	if r.ready {
		r.live.Result(a.ok, a.detail, now)
		r.judge(now)
		return
	}
	state, _ := r.question.Result(a.ok, a.detail, now)
	if state == health.Unhealthy {
		r.fail(r.notReady(""))
		return
	}
	r.progress()
}

// progress notices that the start is complete.
func (r *run) progress() {
	asked := r.question.State()
	if r.ready || r.ending || r.mustSpeak() || asked != health.None && asked != health.Healthy {
		return
	}
	now := time.Now()
	r.ready = true
	r.live = health.New(r.about.Service.Health, health.Liveness, now)
	if s := r.about.Service; s.Notify || s.Systemd || s.Log.Inherit { // a manager waits for us, perhaps
		r.relay.ready()
	}
	if asked != health.None || r.about.Service.Notify {
		r.log("ready", nil)
		r.write(func(n *store.Note) { n.Ready = true })
	}
	r.judge(now)
	_ = r.tell(nil) // it is the first start's reader who may be gone
}

// notReady is the error of a start that is not complete: what was asked, and what
// was the last answer.
func (r *run) notReady(why string) error {
	text := r.about.Display() + " did not become ready"
	if why != "" {
		text += ": " + why
	}
	if c := r.about.Service.Ready; c != nil {
		text += fmt.Sprintf("; %s was asked for %d times in %v", describe(c), r.asked, time.Since(r.started).Round(time.Millisecond))
		text += "; the last answer: " + cmp.Or(r.lastWord, "none")
	}
	if r.about.Service.Notify && r.note.Status != "" {
		text += "; its last status: " + r.note.Status
	}
	return errors.New(text)
}

// judge says what is thought of the sandbox, and acts on it when that changes.
func (r *run) judge(now time.Time) {
	if !r.ready {
		return
	}
	state, detail := r.live.State(), r.live.Detail()
	switch {
	case r.watchdog.Expired(now):
		state, detail = health.Unhealthy, "it has asked for help (WATCHDOG=trigger)"
		if due := r.watchdog.Due(); !due.IsZero() && !now.Before(due) {
			detail = fmt.Sprintf("it has not said WATCHDOG=1 for %v", r.watchdog.Timeout)
		}
	case state == health.None && !r.watchdog.Due().IsZero():
		state = health.Healthy
	}
	if state == health.None {
		return
	}
	changed := r.note.Health != string(state)
	if changed && state != health.Starting {
		r.log("health", map[string]string{"state": string(state), "detail": detail})
	}
	r.write(func(n *store.Note) { n.Health, n.HealthDetail = string(state), detail })
	if !changed || state != health.Unhealthy {
		return
	}
	switch r.about.Service.OnUnhealthy {
	case spec.UnhealthyKill:
		r.log("kill", map[string]string{"signal": "KILL", "reason": "unhealthy"})
		r.ending = true
		r.warn("the program is unhealthy and is killed: " + detail)
		_ = r.p.Kill() // it has ended by itself if this fails
	case spec.UnhealthyRestart:
		r.restart = true
		r.end("unhealthy", false)
	}
}

// late reports whether the watchdog's time is over and that is known.
func (r *run) late() bool {
	return !r.ready || r.note.Health == string(health.Unhealthy) && r.watchdog.Expired(time.Now())
}

// write changes the sandbox's record, if that changes anything. Files that are
// gone, or a disk that is full, are no reason to leave the sandbox alone.
func (r *run) write(f func(*store.Note)) {
	next := r.note
	f(&next)
	if next == r.note {
		return
	}
	r.note = next
	_ = r.box.Note(r.ctx, func(n *store.Note) { *n = next })
}
