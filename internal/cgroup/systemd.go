package cgroup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/facts"
)

// manager is a service manager that can be asked for a scope.
type manager facts.CgroupSystemd

// startScope makes a transient scope around processes and waits until they are
// in it.
func (m manager) startScope(unit string, pids ...int) error {
	return m.ask("StartTransientUnit", "ssa(sv)a(sa(sv))", scopeBody(unit, pids), true)
}

// attach puts a process into a group below a scope's.
func (m manager) attach(unit, below string, pid int) error {
	e := &encoder{}
	e.text(unit)
	e.text("/" + below)
	u32sValue([]uint32{uint32(pid)}).put(e)
	return m.ask("AttachProcessesToUnit", "ssau", e.b, false) // since systemd 238
}

// ask calls a method of the manager and waits for its answer and, if it starts
// one, for the end of the job.
func (m manager) ask(method, signature string, body []byte, job bool) error {
	c, err := dial(m.Socket, scopeTime)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Socket, err)
	}
	defer c.close()
	const serial = 1
	err = c.send(managerCall(serial, method, signature, body))
	if err == nil {
		err = wait(c.r, serial, job)
	}
	if errors.Is(err, syscall.EAGAIN) {
		err = fmt.Errorf("no answer in %v: %w", scopeTime, os.ErrDeadlineExceeded)
	}
	return err
}

// scopeBody is the argument list of StartTransientUnit: name, mode, properties,
// and units to start along with it, of which there are none.
func scopeBody(unit string, pids []int) []byte {
	var list []uint32
	for _, pid := range pids {
		list = append(list, uint32(pid))
	}
	properties := []property{
		{"Description", stringValue("Nucleus sandbox " + unit)},
		{"PIDs", u32sValue(list)},
		// Groups below the scope are ours to make.
		{"Delegate", boolValue(true)},
		// A failed scope is forgotten like any other.
		{"CollectMode", stringValue("inactive-or-failed")},
	}
	e := &encoder{}
	e.text(unit)
	e.text("fail") // rather than replace one of that name
	e.array(len(properties), func(i int) {
		e.text(properties[i].name)
		e.signature(properties[i].signature)
		properties[i].put(e)
	})
	e.array(0, nil)
	return e.b
}

// wait waits for the answer to a call and, if it starts a job, for the end of
// the job. A manager's private connection gets its signals unasked.
func wait(r io.Reader, serial uint32, starts bool) error {
	var job string
	results := map[string]string{} // of jobs; one may end before we know that it is ours
	for {
		if result, ok := results[job]; ok && job != "" {
			if result != "done" {
				return fmt.Errorf("its start was %q", result)
			}
			return nil
		}
		m, err := readMessage(r)
		if err != nil {
			return err
		}
		switch {
		case m.kind == typeError && m.replyTo == serial:
			return &managerError{name: m.error, text: m.body.text()}
		case m.kind == typeReply && m.replyTo == serial && !starts:
			return nil
		case m.kind == typeReply && m.replyTo == serial:
			job = m.body.text()
		case m.kind == typeSignal && m.member == "JobRemoved":
			m.body.u32()
			path := m.body.text()
			m.body.text()
			results[path] = m.body.text()
		}
		if m.body.bad {
			return errProtocol
		}
	}
}

// managerError is a manager's refusal.
type managerError struct{ name, text string }

func (e *managerError) Error() string { return e.text + " (" + e.name + ")" }

// Is makes the refusals that callers tell apart comparable to the usual errors.
func (e *managerError) Is(target error) bool {
	switch e.name {
	case "org.freedesktop.DBus.Error.AccessDenied":
		return target == fs.ErrPermission
	case "org.freedesktop.systemd1.UnitExists":
		return target == fs.ErrExist
	case "org.freedesktop.systemd1.NoSuchUnit":
		return target == fs.ErrNotExist
	}
	return false
}
