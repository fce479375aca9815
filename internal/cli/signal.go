package cli

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/audit"
	"github.com/nucleus-container/nucleus/spec"
)

// forwarded are the signals that are for the program and not for nucleus.
var forwarded = [...]syscall.Signal{
	syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGTSTP,
}

// signals holds what arrived, from before the program runs so that nothing is lost.
type signals chan os.Signal

// catchSignals has cmd collect them from the time when that costs least: it
// takes 0.15 ms and starts threads, which slow a clone down. A signal that our
// parent had us ignore, as nohup(1) does, stays ignored. With a terminal they
// are caught at once: it is about to become raw, and must be put back whatever
// ends us.
func catchSignals(cmd *nucleus.Cmd) signals {
	c := make(signals, 32)
	for _, s := range forwarded {
		if !signal.Ignored(s) {
			cmd.Signals = append(cmd.Signals, s)
		}
	}
	cmd.Caught = c
	if cmd.Sandbox.Terminal {
		signal.Notify(c, cmd.Signals...)
	}
	return c
}

// catch begins to collect signals, but for those that our parent had us ignore.
func (c signals) catch(which ...syscall.Signal) {
	for _, s := range which {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
}

// forward passes signals on for as long as this process lives. A stop or a
// continuation is ours as well: the shell that waits for us must see it.
func (c signals) forward(p *nucleus.Process, tty *terminal, teller *audit.Teller) {
	for s := range c {
		sig := s.(syscall.Signal)
		if sig == syscall.SIGCONT {
			tty.raw()
		}
		if sig == syscall.SIGWINCH || sig == syscall.SIGCONT {
			tty.resize(p)
		}
		// The only failure is that it has ended, which Wait tells.
		if err := p.Signal(sig); err == nil && teller != nil && sig != syscall.SIGWINCH {
			_ = teller.Tell(event.SignalForwarded{Signal: spec.SignalName(int(sig))}) // a log that fails is told at the end
		}
		if sig == syscall.SIGTSTP {
			tty.restore()
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // oneself may always be stopped
		}
	}
}
