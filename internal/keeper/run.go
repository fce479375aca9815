package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/health"
	"github.com/nucleus-container/nucleus/internal/notify"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// run is one run of the sandbox, from its start to its end. Its fields belong to
// the goroutine of follow, except where they say otherwise.
type run struct {
	*keeper
	again   bool // not the first
	p       *nucleus.Process
	started time.Time
	created bool // its createRuntime hooks have begun
	term    *terminal
	socket  *notify.Socket
	relay   relay // has a lock of its own

	ctx     context.Context // until it has ended
	work    sync.WaitGroup  // its other goroutines
	ended   chan struct{}
	answers chan answer
	heard   chan notify.Message

	ready    bool
	question *health.Machine // for readiness
	live     *health.Machine // for health; nil until it is ready
	asking   bool            // a check is being asked
	asked    int
	spoken   bool      // READY=1 has come
	patience time.Time // until then it must come
	watchdog notify.Watchdog
	note     store.Note // as written
	idleAt   time.Time  // when to look whether it is used; zero: never
	usedAt   time.Time  // when it was seen to be
	notUntil time.Time  // while it is paused nothing is asked

	ending   bool  // it has been asked to end
	restart  bool  // and is to be started again, whatever the policy
	failure  error // why it was asked to
	lastWord string
}

// outcome is what is left of a run.
type outcome struct {
	err     error // it was not started, or did not become ready
	over    bool  // this keeper is not needed any more
	again   bool  // it is to be started again whatever the policy says
	ran     time.Duration
	success bool
	stopped bool
}

// once runs the sandbox once.
func (r *run) once(ctx context.Context) outcome {
	rctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	r.ctx = rctx
	r.ended, r.answers, r.heard = make(chan struct{}), make(chan answer), make(chan notify.Message)
	err := r.launch(ctx)
	if err == nil {
		r.follow(ctx, r.begin(ctx))
	}
	cancel()
	r.work.Wait()
	ctx = context.WithoutCancel(ctx) // what follows is done however it has come to its end
	r.letGo()
	o := r.outcome(ctx, err)
	if r.p != nil || r.created {
		r.poststop(ctx)
	}
	return o
}

// letGo closes what was open for the run, which has ended: what fails here holds
// up nothing, and there is nobody to tell.
func (r *run) letGo() {
	if r.socket != nil {
		_ = r.socket.Close()
	}
	if r.term != nil {
		_ = r.term.close()
	}
	if r.p != nil {
		_ = r.p.Close()
	}
}

// launch starts the sandbox.
func (r *run) launch(ctx context.Context) (err error) {
	l := store.Launch{Keep: true}
	if hooks := r.about.Service.Hooks.CreateRuntime; len(hooks) > 0 {
		// The sandbox is there, with its namespaces, and the program cannot run yet.
		l.Born = func(pid int) error {
			r.created = true
			return r.hooks(ctx, createRuntime, "creating", hooks, pid)
		}
	}
	if r.about.Service.Notify {
		if err := r.listen(&l); err != nil {
			return err
		}
	}
	if r.again {
		r.p, err = r.box.Relaunch(ctx, l)
	} else {
		r.p, err = r.box.Launch(ctx, l)
	}
	return err
}

// begin starts what accompanies the run. An error makes it end.
func (r *run) begin(ctx context.Context) error {
	now := time.Now()
	r.started = now
	service := r.about.Service
	r.question = health.New(service.Ready, health.Readiness, now)
	if service.Notify {
		r.patience = now.Add(notifyPatience)
		r.watchdog.Timeout = watchdogTime()
	}
	if service.IdleTimeout > 0 {
		r.idleAt = now
	}
	r.work.Go(r.await)
	if r.socket != nil {
		r.work.Go(r.hear)
	}
	if console := r.p.Terminal(); console != nil {
		if err := r.attach(ctx, console); err != nil {
			return err
		}
	}
	return r.hooks(ctx, poststart, "running", service.Hooks.Poststart, r.p.Pid())
}

// await waits for the end. If that cannot be waited for now, for want of a
// descriptor, it is tried again: nobody else would notice.
func (r *run) await() {
	defer close(r.ended)
	for r.p.Wait(context.Background()) != nil && !errors.Is(r.p.Signal(syscall.Signal(0)), os.ErrProcessDone) {
		time.Sleep(time.Second)
	}
}

// attach gives the terminal to those who attach, and to the log.
func (r *run) attach(ctx context.Context, console *os.File) error {
	out, err := r.box.Output(ctx)
	if err != nil {
		return err
	}
	var logTo io.WriteCloser
	if out != nil {
		logTo = out
	}
	r.term, err = newTerminal(console, logTo, r.box.Path("keeper.sock"))
	return err
}

// follow decides what is done, until the sandbox has ended.
func (r *run) follow(ctx context.Context, err error) {
	if err != nil {
		r.fail(err)
	}
	r.progress()
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done()
	for {
		r.act(time.Now())
		timer.Reset(r.wait(time.Now()))
		select {
		case <-r.ended:
			r.lastWords()
			return
		case <-stop:
			stop = nil
			r.end("signal", true)
		case a := <-r.answers:
			r.answered(a)
		case m := <-r.heard:
			r.listened(m, time.Now())
		case <-timer.C:
		}
	}
}

// act does what is due.
func (r *run) act(now time.Time) {
	if r.ending {
		return
	}
	if !r.idleAt.IsZero() && !now.Before(r.idleAt) {
		r.idle(now)
	}
	due := r.due()
	if r.ending || due.IsZero() || now.Before(due) || now.Before(r.notUntil) {
		return
	}
	if i, err := r.box.Info(r.ctx); err == nil && i.State == "paused" {
		// It cannot answer, and is not to blame for that.
		r.notUntil, r.patience = now.Add(time.Second), r.patience.Add(time.Second)
		if !r.watchdog.Due().IsZero() {
			r.watchdog.Observe(notify.Message{Watchdog: true}, now)
		}
		return
	}
	machine, check, purpose := r.question, r.about.Service.Ready, health.Readiness
	if r.ready {
		machine, check, purpose = r.live, r.about.Service.Health, health.Liveness
	} else if r.mustSpeak() && !now.Before(r.patience) {
		r.fail(r.notReady(fmt.Sprintf("it has not said READY=1 within %v", r.patience.Sub(r.started).Round(time.Second))))
		return
	}
	r.judge(now)
	if machine != nil && !r.asking && !machine.Due().IsZero() && !now.Before(machine.Due()) {
		r.asking = true
		r.asked++
		r.work.Go(func() { r.ask(check, health.Timeout(check, purpose)) })
	}
}

// due is when something must be done about readiness or health; zero: never.
func (r *run) due() (first time.Time) {
	sooner := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	machine := r.question
	if r.ready {
		machine = r.live
	} else if r.mustSpeak() {
		sooner(r.patience)
	}
	if machine != nil && !r.asking {
		sooner(machine.Due())
	}
	if !r.late() {
		sooner(r.watchdog.Due())
	}
	return first
}

// wait is how long nothing has to be done unless somebody says something.
func (r *run) wait(now time.Time) time.Duration {
	const forever = 24 * time.Hour
	next := now.Add(forever)
	if r.ending {
		return forever
	}
	if due := r.due(); !due.IsZero() {
		if due.Before(r.notUntil) {
			due = r.notUntil
		}
		next = due
	}
	if !r.idleAt.IsZero() && r.idleAt.Before(next) {
		next = r.idleAt
	}
	return max(0, next.Sub(now))
}

// end asks the sandbox to end, and kills it if it does not.
func (r *run) end(reason string, forGood bool) {
	if forGood && r.about.Service.Notify {
		r.relay.send(notify.Message{Stopping: true})
	}
	if r.ending {
		return
	}
	r.ending = true
	r.work.Go(func() {
		if err := r.box.End(context.WithoutCancel(r.ctx), r.p, reason, forGood); err != nil {
			_ = r.p.Kill() // whatever it is that failed, it must not run on unasked
		}
	})
}

// fail ends a run that is not what was asked for. A first start that fails is
// not tried again.
func (r *run) fail(err error) {
	if r.failure == nil {
		r.failure = err
	}
	r.end("failed start", !r.again)
}

// idle stops a sandbox that nobody has used for its time.
func (r *run) idle(now time.Time) {
	limit := r.about.Service.IdleTimeout
	since, used, err := r.box.Idle()
	switch {
	case err != nil: // its files are gone: nobody can use it, and nobody has asked for its end
		r.idleAt = time.Time{}
		return
	case used:
		r.usedAt = now
	}
	// A user that is killed leaves no word: we must have seen it while it lived.
	for _, t := range []time.Time{r.started, r.usedAt} {
		if since.Before(t) {
			since = t
		}
	}
	if now.Sub(since) >= limit {
		r.end("idle", true)
		return
	}
	r.idleAt = now.Add(min(limit-now.Sub(since), max(limit/4, minIdlePoll), maxIdlePoll))
}

// How often is looked whether a sandbox is used.
const (
	minIdlePoll = 50 * time.Millisecond
	maxIdlePoll = 10 * time.Second
)

// outcome says how the run ended. Looking settles it.
func (r *run) outcome(ctx context.Context, err error) (o outcome) {
	if r.p == nil {
		o.err = err
		// What others have done to it meanwhile is not for us to undo.
		o.over = errors.Is(err, store.ErrNotKept) || errors.Is(err, store.ErrNotFound)
		return o
	}
	o.again, o.err = r.restart, r.failure
	i, ierr := r.box.Info(ctx)
	if !r.ready && o.err == nil {
		o.err = r.notReady("it ended before: " + ending(i))
	}
	o.over = errors.Is(ierr, store.ErrNotFound) || ierr == nil && i.Running()
	if o.over || ierr != nil {
		return o
	}
	if o.err == nil { // however long a start took that failed, it was no run
		o.ran = i.Ended.Sub(i.Started)
	}
	o.success = i.Reason == string(nucleus.Exited) && i.ExitCode == 0
	o.stopped, ierr = r.box.Stopped()
	o.over = errors.Is(ierr, store.ErrNotFound)
	return o
}

// ending is a run's end in a few words.
func ending(i store.Info) string {
	switch {
	case i.State == "": // it was removed with its end
		return "nothing more is known"
	case i.Detail != "":
		return i.Detail
	case i.ExitCode > 128:
		return "signal " + spec.SignalName(i.ExitCode-128)
	}
	return fmt.Sprintf("exit status %d", i.ExitCode)
}
