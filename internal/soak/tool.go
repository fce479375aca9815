package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tool runs the program under test.
type tool struct {
	bin, state, logs string
	env              []string
	patience         time.Duration

	mu      sync.Mutex
	running map[*job]bool // those that may be killed
	kills   int
}

// job is one run of the program that goes on.
type job struct {
	process interface{ Kill() error }
	killed  bool
}

// result is how a run ended.
type result struct {
	args     []string
	out, err string
	code     int
	signal   syscall.Signal // that ended the program itself
	killed   bool           // by us
	late     bool           // it did not end in time
	held     bool           // somebody kept its output open
	took     time.Duration
}

func (r result) String() string {
	s := fmt.Sprintf("nucleus %s: exit code %d", strings.Join(r.args, " "), r.code)
	switch {
	case r.killed:
		s = fmt.Sprintf("nucleus %s: killed by us", strings.Join(r.args, " "))
	case r.late:
		s += ", too late"
	case r.held:
		s += ", and somebody holds its output"
	case r.signal != 0:
		s += ", " + r.signal.String()
	}
	s += fmt.Sprintf(", after %v", r.took.Round(time.Millisecond))
	if r.err != "" {
		s += ": " + strings.TrimSpace(r.err)
	}
	return s
}

// run runs the program to its end; nobody kills it.
func (t *tool) run(args ...string) result { return t.start(false, args) }

// expose runs the program to its end, unless it is killed on the way.
func (t *tool) expose(args ...string) result { return t.start(true, args) }

func (t *tool) start(exposed bool, args []string) result {
	ctx, cancel := context.WithTimeout(context.Background(), t.patience)
	defer cancel()
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, t.bin, args...)
	c.Env, c.Stdout, c.Stderr = t.env, &out, &errs
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGQUIT) } // Go says where it is then
	c.WaitDelay = t.patience / 6
	begin := time.Now()
	r := result{args: args, code: -1}
	if err := c.Start(); err != nil {
		r.err = err.Error()
		return r
	}
	j := &job{process: c.Process}
	if exposed {
		t.mu.Lock()
		t.running[j] = true
		t.mu.Unlock()
	}
	err := c.Wait()
	t.mu.Lock()
	delete(t.running, j)
	killed := j.killed
	t.mu.Unlock()
	r.out, r.err, r.took = out.String(), errs.String(), time.Since(begin)
	r.late, r.held = ctx.Err() != nil, errors.Is(err, exec.ErrWaitDelay)
	if c.ProcessState == nil {
		r.err += err.Error()
		return r
	}
	status, _ := c.ProcessState.Sys().(syscall.WaitStatus)
	r.code = c.ProcessState.ExitCode()
	if status.Signaled() {
		r.signal = status.Signal()
	}
	r.killed = killed && r.signal == syscall.SIGKILL
	return r
}

// killOne kills a program that runs, if there is one.
func (t *tool) killOne(rng *rand.Rand) {
	t.mu.Lock()
	defer t.mu.Unlock()
	skip := rng.IntN(max(len(t.running), 1))
	for j := range t.running {
		if skip--; skip >= 0 {
			continue
		}
		if j.process.Kill() == nil {
			j.killed = true
			t.kills++
		}
		return
	}
}

// broken says what no run may end with, whatever else goes on; "" if nothing.
func (r result) broken() string {
	switch {
	case r.late:
		return "it hangs"
	case r.held:
		return "its output is still open after its end"
	case r.signal != 0 && !r.killed:
		return "a signal that we did not send: " + r.signal.String()
	case strings.Contains(r.err, "panic:"), strings.Contains(r.err, "goroutine "), strings.Contains(r.err, "bug in nucleus"):
		return "it broke down"
	}
	return ""
}
