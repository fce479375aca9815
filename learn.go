package nucleus

import (
	"runtime"
	"time"

	"github.com/nucleus-container/nucleus/internal/observe"
	"github.com/nucleus-container/nucleus/policy/learn"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// Learned returns what a Watch of Level Everything saw, as a record that a policy
// can be made from. It is complete once Wait has returned.
func (c *Cmd) Learned() *learn.Record {
	job := learn.Job{Command: c.Args, Began: c.started, Ended: time.Now(), End: "it had not ended"}
	job.Arch, _ = seccomp.ParseArch(runtime.GOARCH) // the program itself runs on it
	job.UID, job.GID = c.Sandbox.User.UID, c.Sandbox.User.GID
	if o := c.Outcome; o != nil {
		job.Ended, job.End = o.Ended, o.String()
	}
	r := learn.New(job)
	if c.Watch == nil || c.Watch.recorder == nil {
		return r
	}
	seen, lost := c.Watch.recorder.Calls()
	for i := range seen {
		r.Add(learnedCall(&seen[i]))
	}
	r.Lost += lost
	r.Compact()
	return r
}

func learnedCall(c *observe.Call) learn.Call {
	out := learn.Call{
		Name: c.Name, Count: c.Count, Process: c.Process, Refused: string(c.Refused), Rule: c.Rule, Blocked: c.Blocked, Addr: c.Addr,
		Path:         learn.Use{Asked: c.Path, Path: c.At.Real, Kind: learn.Kind(c.At.Kind), Access: c.Access},
		Second:       learn.Use{Asked: c.Second, Path: c.At2.Real, Kind: learn.Kind(c.At2.Kind), Access: c.Access2},
		Interpreters: c.Interpreters,
	}
	if n := c.WordCount; n > 0 {
		out.Words = c.Words[:n]
	}
	return out
}
