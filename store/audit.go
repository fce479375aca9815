package store

import (
	"strings"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/audit"
	"github.com/nucleus-container/nucleus/internal/record"
	"github.com/nucleus-container/nucleus/spec"
)

// teller opens the sandbox's audit log for a start; nil if it has none.
func (b *Sandbox) teller(c *record.Config) (*audit.Teller, error) {
	if c.Service.Audit.Log == "" {
		return nil, nil
	}
	l, err := audit.Open(c.Service.Audit.Log)
	if err != nil {
		return nil, err
	}
	return &audit.Teller{Sandbox: event.Sandbox{ID: c.ID, Name: c.Name}, Log: l}, nil
}

// audited writes what happened into the sandbox's audit log, if it has one. What
// has happened cannot be refused for want of a log, so a failure is an event too.
func (b *Sandbox) audited(at time.Time, c *record.Config, body event.Body) {
	if body == nil {
		return
	}
	t, err := b.teller(c)
	if t == nil && err == nil {
		return
	}
	if err == nil {
		err = t.TellAt(at, body)
		_ = t.Close() // it is written, or err says that it is not
	}
	if err != nil {
		_ = b.store.dir.Log(record.Event{Time: at, Type: "audit", ID: c.ID, Name: c.Name, Attrs: map[string]string{"error": err.Error(), "missing": body.Kind()}}) // nobody else can be told
	}
}

// bodyOf is an event of the store as the audit log has it. Nil: it is not told
// there, or by those who start the sandbox (package nucleus), who know more.
func bodyOf(what string, attrs map[string]string) event.Body {
	switch what {
	case "ready":
		return event.Ready{}
	case "health":
		return event.Health{State: attrs["state"], Detail: attrs["detail"]}
	case "hook":
		return event.HookFailed{Phase: attrs["phase"], Error: attrs["error"]}
	case "kill":
		return event.SignalSent{Signal: attrs["signal"], Reason: attrs["reason"]}
	case "stop":
		return event.StopRequested{Reason: attrs["reason"]}
	case "pause":
		return event.Paused{}
	case "unpause":
		return event.Unpaused{}
	case "update":
		return event.Updated{}
	case "rename":
		return event.Renamed{Old: attrs["old"]}
	case "restart":
		return event.Restarting{After: attrs["after"]}
	case "remove":
		return event.Removed{}
	}
	return nil
}

// auditedEnd writes the end of a run that nobody waited for.
func (s *state) auditedEnd(o *record.Outcome, ended time.Time) {
	if a, err := s.attendant(); err == nil && a != nil && a.Outcome != nil {
		return // who waited for it has told, and knows more
	}
	if o.Reason == string(nucleus.OutOfMemory) {
		s.audited(ended, s.cfg, event.OutOfMemory{})
	}
	if o.Reason == string(nucleus.DeadlineExceeded) {
		s.audited(ended, s.cfg, event.TimedOut{Timeout: s.cfg.Sandbox.Timeout.String()})
	}
	end := event.Ended{Reason: o.Reason, Code: o.Code, Detail: o.Detail, Usage: o.Usage}
	if o.Signal != 0 {
		end.Signal, end.Code = spec.SignalName(o.Signal), 128+o.Signal
	}
	if s.rec.Outcome.Detail != "" {
		end.Detail = s.rec.Outcome.Detail
	}
	if !s.rec.Started.IsZero() {
		end.Seconds = ended.Sub(s.rec.Started).Seconds()
	}
	s.audited(ended, s.cfg, end)
}

// LogExec tells that a program was executed in the sandbox.
func (b *Sandbox) LogExec(argv []string) error {
	c, err := b.entry.Config()
	if err != nil {
		return err
	}
	b.audited(time.Now(), c, event.ExecStarted{Command: event.CommandOf(argv, c.Service.Audit.HideArgs)})
	return b.store.dir.Log(record.Event{Type: "exec", ID: c.ID, Name: c.Name, Attrs: map[string]string{"command": strings.Join(argv, " ")}})
}

// LogExecEnd tells how such a program ended. It is told in the audit log alone.
func (b *Sandbox) LogExecEnd(program string, o *nucleus.Outcome) {
	c, err := b.entry.Config()
	if err != nil { // removed meanwhile, and its log with it
		return
	}
	b.audited(o.Ended, c, event.ExecEnded{Program: event.CommandOf([]string{program}, true).Program, Reason: string(o.Reason), Code: o.ExitCode(), Seconds: o.Ended.Sub(o.Started).Seconds()})
}

// LogCopy tells that files are about to be copied in or out.
func (b *Sandbox) LogCopy(direction, path string) error {
	c, err := b.entry.Config()
	if err != nil {
		return err
	}
	b.audited(time.Now(), c, event.Copied{Direction: direction, Path: path})
	return nil
}
