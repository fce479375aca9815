package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/keeper"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// attached refuses flags that make sense only for what is detached: who is
// waited for, is started again by who waits.
func (o *options) attached() error {
	s := o.life.service
	switch {
	case s.Restart.Policy != spec.RestartNo:
		return usageError("--restart needs --detach: a program that nucleus waits for is started again by whoever started nucleus")
	case s.OnUnhealthy == spec.UnhealthyRestart:
		return usageError("--on-unhealthy restart needs --detach: a program that nucleus waits for is started again by whoever started nucleus; --on-unhealthy kill ends it")
	case s.IdleTimeout != 0:
		return usageError("--idle-timeout needs --detach: a program that nucleus waits for is in use")
	case s.Systemd:
		return usageError("--systemd needs --detach")
	case o.life.driver != "" || s.Log != (spec.Log{}):
		return usageError("--" + o.life.asked + " needs --detach: the output of a program that nucleus waits for is not kept")
	case o.box.Terminal:
		return usageError("--" + o.life.asked + " and --tty exclude each other without --detach")
	case o.logFile != "" || o.report != "":
		return usageError("--" + o.life.asked + " excludes --log and --report")
	}
	return nil
}

// keepHere is `nucleus run` of a program that is looked after while it is waited
// for: this program is its keeper.
func (c *call) keepHere(box *spec.Sandbox) int {
	service, err := c.describeService()
	if err != nil {
		return fail(c.cmd, err)
	}
	service.Remove, service.Log.Inherit = true, true
	cmd := nucleus.Command(box, c.args[0], c.args[1:]...)
	cmd.Detach = &nucleus.Detach{}
	if _, err := cmd.Plan(); err != nil { // bad input must not leave a trace: find out before
		return fail(c.cmd, err)
	}
	if err := checkAudit(box, service.Audit); err != nil {
		return fail(c.cmd, err)
	}
	s, err := openStore()
	if err != nil {
		return fail(c.cmd, err)
	}
	b, err := s.Create(store.Config{Name: box.Name, Sandbox: *box, Command: c.args, Service: service, Labels: c.opts.life.labels})
	if err != nil {
		return fail(c.cmd, err)
	}
	warn(box)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	passOn(ctx, cancel, b, service)
	var started unread
	err = keeper.Run(ctx, s, b.ID(), &started)
	i, werr := b.Wait(context.WithoutCancel(ctx))
	if err != nil || werr != nil {
		_ = b.Remove(context.WithoutCancel(ctx), true) // what never ran is still there; the rest has removed itself
	}
	switch {
	case err != nil:
		return fail(c.cmd, err)
	case werr != nil:
		return fail(c.cmd, werr)
	}
	if i.Detail != "" {
		say("nucleus: %s\n", i.Detail)
	}
	if i.Reason == string(nucleus.DeadlineExceeded) {
		return exitTimeout
	}
	return i.ExitCode
}

// unread takes the keeper's report, which is the same as what Run returns.
type unread struct{}

func (*unread) Write(b []byte) (int, error) { return len(b), nil }
func (*unread) Close() error                { return nil }

// passOn passes signals on to the program. Those that ask it to end have the
// keeper stop it: with its own stop signal, and for good.
func passOn(ctx context.Context, stop func(), b *store.Sandbox, service spec.Service) {
	caught := make(chan os.Signal, 8)
	for _, s := range forwarded {
		if s != syscall.SIGTSTP && s != syscall.SIGCONT && !signal.Ignored(s) {
			signal.Notify(caught, s)
		}
	}
	asked := syscall.Signal(spec.SignalNumber(service.StopSignal))
	go func() {
		for s := range caught {
			if sig := s.(syscall.Signal); sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == asked {
				stop()
				continue
			}
			_ = b.Signal(ctx, s.(syscall.Signal)) // it has ended, or not begun
		}
	}()
}
