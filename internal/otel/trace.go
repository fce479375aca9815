package otel

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/event"
)

// Span is a finished part of a sandbox's life.
type Span struct {
	Trace      [16]byte
	ID, Parent [8]byte
	Name       string
	Start, End time.Time
	Attrs      []Attr
	Events     []Moment
	Lost       int    // events beyond what a span holds
	Failed     bool   // its status is an error
	Why        string // what the status says
}

// Moment is an event of a span.
type Moment struct {
	At    time.Time
	Name  string
	Attrs []Attr
}

const (
	maxLives   = 4096 // that are followed at once
	maxMoments = 128  // of a span, as is the custom
	maxText    = 4096 // of an attribute
)

// Lives turns events into spans, a trace for each run of a sandbox:
//
//	sandbox NAME           from sandbox_created to sandbox_ended
//	  start                until the program was executed, or was not
//	    enter              until the sandbox was complete
//	    verify             reading back what the kernel enforces
//	    exec               until the program was executed
//	  program              until all its processes had ended
//
// Identities are made from the sandbox's id and its beginning: who reads a log
// again makes the same spans again.
type Lives struct {
	Forgotten int // lives without an end, more than can be followed

	open map[string]*life
}

// life is a run that has begun.
type life struct {
	root                       Span
	entered, verified, started time.Time
	mounts                     int64
}

// Take takes an event, and returns spans if it is the last of a run.
func (l *Lives) Take(r event.Record) []Span {
	if l.open == nil {
		l.open = map[string]*life{}
	}
	if r.Type == (event.Created{}).Kind() {
		l.begin(r)
		return nil
	}
	at := l.open[r.Sandbox.ID]
	if at == nil {
		return nil
	}
	switch r.Type {
	case (event.Mounted{}).Kind(): // there are many, and each says little
		at.mounts++
		return nil
	case (event.Ended{}).Kind():
		var e event.Ended
		if json.Unmarshal(r.Data, &e) != nil {
			return nil
		}
		delete(l.open, r.Sandbox.ID)
		return at.ended(r.Time, e)
	case (event.NotStarted{}).Kind():
		var e event.NotStarted
		if json.Unmarshal(r.Data, &e) != nil {
			return nil
		}
		delete(l.open, r.Sandbox.ID)
		return at.notStarted(r.Time, e)
	}
	at.moment(r)
	return nil
}

// Rest are the spans of runs whose end has not been told.
func (l *Lives) Rest(now time.Time) (out []Span) {
	for _, id := range slices.Sorted(maps.Keys(l.open)) {
		at := l.open[id]
		at.root.Attrs = append(at.root.Attrs, Attr{"nucleus.incomplete", true})
		out = append(out, at.spans(now)...)
	}
	clear(l.open)
	return out
}

func (l *Lives) begin(r event.Record) {
	var c event.Created
	if json.Unmarshal(r.Data, &c) != nil {
		return
	}
	if l.open[r.Sandbox.ID] == nil && len(l.open) >= maxLives {
		l.Forgotten++
		return
	}
	trace := sha256.Sum256([]byte("nucleus " + r.Sandbox.ID + " " + strconv.FormatInt(r.Time.UnixNano(), 10)))
	at := &life{root: Span{Trace: [16]byte(trace[:16]), Name: limit("sandbox " + c.Command.Program), Start: r.Time}}
	at.root.ID = spanID(at.root.Trace, "")
	at.root.Attrs = []Attr{{"container.id", r.Sandbox.ID}, {"container.runtime.name", "nucleus"}, {"process.command", limit(c.Command.Program)}}
	if r.Sandbox.Name != "" {
		at.root.Attrs = append(at.root.Attrs, Attr{"container.name", limit(r.Sandbox.Name)})
	}
	if c.Command.Omitted == 0 {
		args := []string{limit(c.Command.Program)}
		for _, a := range c.Command.Args {
			args = append(args, limit(a))
		}
		at.root.Attrs = append(at.root.Attrs, Attr{"process.command_args", args})
	}
	if c.Detached {
		at.root.Attrs = append(at.root.Attrs, Attr{"nucleus.detached", true})
	}
	l.open[r.Sandbox.ID] = at
}

// spanID is the identity of a part of a trace.
func spanID(trace [16]byte, part string) [8]byte {
	sum := sha256.Sum256(append(trace[:], part...))
	return [8]byte(sum[:8])
}

// moment keeps an event of the life.
func (a *life) moment(r event.Record) {
	switch r.Type {
	case (event.Namespaces{}).Kind():
		a.entered = r.Time
	case (event.Seccomp{}).Kind():
		var e event.Seccomp
		if json.Unmarshal(r.Data, &e) == nil {
			a.root.Attrs = append(a.root.Attrs, Attr{"nucleus.seccomp.policy", limit(e.Policy)}, Attr{"nucleus.seccomp.sha256", limit(e.SHA256)})
		}
	case (event.Started{}).Kind():
		a.started = r.Time
		var e event.Started
		if json.Unmarshal(r.Data, &e) == nil {
			a.root.Attrs = append(a.root.Attrs, Attr{"process.pid", int64(e.Pid)})
		}
	}
	if a.started.IsZero() && !a.entered.IsZero() && r.Type != (event.Seccomp{}).Kind() {
		a.verified = r.Time
	}
	if len(a.root.Events) >= maxMoments {
		a.root.Lost++
		return
	}
	a.root.Events = append(a.root.Events, Moment{r.Time, r.Type, flat(r.Data)})
}

func (a *life) ended(at time.Time, e event.Ended) []Span {
	a.root.Attrs = append(a.root.Attrs, Attr{"process.exit.code", int64(e.Code)}, Attr{"nucleus.reason", limit(e.Reason)})
	if u := e.Usage; u != nil {
		a.root.Attrs = append(a.root.Attrs, Attr{"nucleus.cpu.user_seconds", u.UserSeconds}, Attr{"nucleus.cpu.system_seconds", u.SystemSeconds}, Attr{"nucleus.memory.peak", int64(max(u.MemoryPeak, uint64(u.MaxRSS)))})
	}
	if e.Code != 0 {
		a.fail(e.Reason, e.Detail)
		if e.Detail == "" {
			a.root.Why = fmt.Sprintf("%s: exit code %d", e.Reason, e.Code)
		}
	}
	return a.spans(at)
}

func (a *life) notStarted(at time.Time, e event.NotStarted) []Span {
	a.root.Attrs = append(a.root.Attrs, Attr{"nucleus.reason", "not started"})
	a.fail("not started", e.Error)
	return a.spans(at)
}

func (a *life) fail(kind, why string) {
	a.root.Failed, a.root.Why = true, limit(why)
	a.root.Attrs = append(a.root.Attrs, Attr{"error.type", limit(kind)})
}

// spans are the run and its parts.
func (a *life) spans(end time.Time) []Span {
	root := a.root
	root.End = later(end, root.Start)
	root.Attrs = append(root.Attrs, Attr{"nucleus.mounts", a.mounts})
	out := []Span{root}
	part := func(name string, parent [8]byte, from, to time.Time) Span {
		s := Span{Trace: root.Trace, ID: spanID(root.Trace, name), Parent: parent, Name: name, Start: from, End: later(to, from)}
		out = append(out, s)
		return s
	}
	startEnd := a.started
	if startEnd.IsZero() { // the start failed, or its end is not known
		startEnd = root.End
	}
	start := part("start", root.ID, root.Start, startEnd)
	if a.started.IsZero() {
		out[1].Failed, out[1].Why = root.Failed, root.Why
	}
	if !a.entered.IsZero() {
		part("enter", start.ID, root.Start, a.entered)
		part("verify", start.ID, a.entered, a.verified)
	}
	if !a.started.IsZero() {
		if !a.verified.IsZero() {
			part("exec", start.ID, a.verified, a.started)
		}
		part("program", root.ID, a.started, root.End)
		out[len(out)-1].Failed = root.Failed
	}
	return out
}

// later is end, unless that was before start: clocks are set back.
func later(end, start time.Time) time.Time {
	if end.Before(start) {
		return start
	}
	return end
}

// limit bounds what an attribute says. A collector refuses everything that comes
// with a text that is not UTF-8, so a letter is not cut in two.
func limit(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	return strings.ToValidUTF8(s, "")
}

// flat is the data of an event as attributes.
func flat(data json.RawMessage) []Attr {
	var v map[string]any
	if json.Unmarshal(data, &v) != nil {
		return nil
	}
	return flatten(nil, "nucleus.", v)
}

func flatten(out []Attr, prefix string, v map[string]any) []Attr {
	for _, key := range slices.Sorted(maps.Keys(v)) {
		switch x := v[key].(type) {
		case string:
			out = append(out, Attr{prefix + key, limit(x)})
		case bool:
			out = append(out, Attr{prefix + key, x})
		case float64:
			if x == float64(int64(x)) && !strings.HasSuffix(key, "seconds") { // one type for each name
				out = append(out, Attr{prefix + key, int64(x)})
			} else {
				out = append(out, Attr{prefix + key, x})
			}
		case []any:
			list := []string{}
			for _, e := range x {
				list = append(list, limit(fmt.Sprint(e)))
			}
			out = append(out, Attr{prefix + key, list})
		case map[string]any:
			out = flatten(out, prefix+key+".", x)
		}
	}
	return out
}

// encodeSpans is an ExportTraceServiceRequest.
func encodeSpans(resource message, scope message, spans []Span) []byte {
	var list message
	list.bytes(1, scope)
	for _, s := range spans {
		var m message
		m.bytes(1, s.Trace[:])
		m.bytes(2, s.ID[:])
		if s.Parent != [8]byte{} {
			m.bytes(4, s.Parent[:])
		}
		m.text(5, s.Name)
		m.number(6, 1) // internal
		m.time(7, s.Start)
		m.time(8, s.End)
		m.attrs(9, s.Attrs)
		for _, e := range s.Events {
			var at message
			at.time(1, e.At)
			at.text(2, e.Name)
			at.attrs(3, e.Attrs)
			m.bytes(11, at)
		}
		m.number(12, uint64(s.Lost))
		if s.Failed {
			var status message
			status.text(2, s.Why)
			status.number(3, 2) // error
			m.bytes(15, status)
		}
		list.bytes(2, m)
	}
	return wrap(resource, list)
}

// wrap is a list of signals with who sends them.
func wrap(resource, list message) []byte {
	var all, m message
	m.bytes(1, resource)
	m.bytes(2, list)
	all.bytes(1, m)
	return all
}
