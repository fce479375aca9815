package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Holder is the process that keeps a scope of systemd alive, as it is recorded:
// a number alone may belong to somebody else by the time that it is read.
type Holder struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // field 22 of /proc/PID/stat
}

// A holder is a process that does nothing until we end or let go. Without one,
// systemd would remove the scope and with it the counters of OOM kills at the
// moment when the last process of the sandbox dies and somebody asks why.
type holder struct {
	Holder
	unit    string      // the scope that it holds
	process *os.Process // if it is our child
	rope    *os.File    // the write end of its standard input; nil once it is detached
}

// holderScript ends with its input, which is to say with us, unless it is told a
// line before. Then it reads from a pipe of which it has both ends: for ever,
// without another program and without a turn of the processor.
const holderScript = "read -r line && read -r line <&3"

// startHolder starts one: a shell, which every machine with systemd has. It has
// a session of its own, so that what a terminal sends does not reach it.
func startHolder(unit string) (*holder, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	forever, other, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	defer forever.Close()
	defer other.Close()
	p, err := os.StartProcess("/bin/sh", []string{"nucleus-holder", "-c", holderScript}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{r, nil, nil, forever, other}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the holder of the scope: %w", err), w.Close())
	}
	h := &holder{Holder: Holder{Pid: p.Pid}, unit: unit, process: p, rope: w}
	if h.Start, err = kernel.StartTime(p.Pid); err != nil {
		return nil, errors.Join(err, h.end())
	}
	return h, nil
}

// Detach lets the group live on when this process ends, and says where it is: the
// record that another process gives to Open. It is for the group of a process
// that is started, since a scope does not exist before. Only Remove ends it then.
func (g *Group) Detach() ([]Place, error) {
	if g.scope != nil && !g.scope.made {
		return nil, fmt.Errorf("detach %s: its scope does not exist yet", g.name)
	}
	if err := g.holder.detach(); err != nil {
		return nil, fmt.Errorf("detach %s: %w", g.name, err)
	}
	return g.Places(), nil
}

// detach tells the holder to stay.
func (h *holder) detach() error {
	if h == nil || h.rope == nil {
		return nil
	}
	_, err := h.rope.WriteString("stay\n")
	if err != nil {
		return fmt.Errorf("tell the holder of the scope to stay: %w", err)
	}
	err = h.rope.Close()
	h.rope = nil
	return err
}

// release lets go of the holder: one that was not told to stay ends.
func (h *holder) release() error {
	switch {
	case h == nil:
		return nil
	case h.rope != nil:
		return h.end()
	case h.process != nil:
		p := h.process
		h.process = nil
		return reapLater(p, h.Start)
	}
	return nil
}

// reapLater takes away the corpse of a holder that others end, for as long as we
// live. Only a goroutine waits, no thread.
func reapLater(p *os.Process, start uint64) error {
	fd, err := kernel.OpenProcess(p.Pid, start)
	if errors.Is(err, os.ErrProcessDone) {
		_, err = p.Wait()
		return err
	}
	if err != nil {
		return errors.Join(err, p.Release())
	}
	w, err := kernel.NewProcessWait(fd)
	if err = errors.Join(err, fd.Close()); err != nil {
		return errors.Join(err, p.Release())
	}
	go func() {
		if w.Ended() == nil {
			_, _ = p.Wait() // nobody asks how it ended
		}
		_ = w.Close() // as above
	}()
	return nil
}

// end ends the holder; with the last process gone, systemd removes the scope.
func (h *holder) end() error {
	var err error
	switch {
	case h == nil:
		return nil
	case h.rope != nil:
		err = h.rope.Close()
		h.rope = nil
	case h.process != nil: // nobody else gets the number of a child that we have not waited for
		err = h.process.Kill()
	default:
		return h.kill()
	}
	_, waitErr := h.process.Wait()
	h.process = nil
	return errors.Join(err, waitErr)
}

// kill ends the process that was recorded, and no other. Process numbers are used
// again, and an old record could name anybody: it must have started when the
// record says, and be in the scope. Both are looked up after the process has been
// taken hold of (Go uses a pidfd), so the one that was looked at is the one that
// gets the signal.
func (h *holder) kill() error {
	p, err := os.FindProcess(h.Pid)
	if err != nil {
		return err
	}
	defer p.Release()
	ours, err := h.is(h.Pid)
	if err != nil || !ours {
		return err
	}
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end the holder of %s, process %d: %w", h.unit, h.Pid, err)
	}
	return nil
}

// is reports whether process pid is the holder.
func (h *holder) is(pid int) (bool, error) {
	start, err := kernel.StartTime(pid)
	if err == nil && start != h.Start {
		return false, nil
	}
	var dir string
	if err == nil {
		dir, err = groupOf("/", pid)
	}
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return false, nil // it has ended
	}
	return err == nil && strings.HasSuffix(dir, filepath.Join("/", h.unit, holderName)), err
}
