package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// result is what one package did in one environment. It travels as one line of
// JSON. A line with Begun starts the stream of an environment, one with Done ends
// it, so that one that never starts or is cut is noticed.
type result struct {
	Env, Pkg string
	Exit     int
	Output   string
	Seconds  float64
	TimedOut bool
	Leaks    []string
	Again    *result // of what failed, run once more by itself
	Begun    bool
	Done     bool
}

// graceTime is how long a binary may go on after its own -test.timeout.
const graceTime = 20 * time.Second

// execute runs the staged binaries one after the other and writes results to w.
func execute(ctx context.Context, st stage, env string, w io.Writer) error {
	m, err := st.manifest()
	if err != nil {
		return err
	}
	r, err := newReaper()
	if err != nil {
		return err
	}
	defer r.stop()
	out := json.NewEncoder(w)
	if err := out.Encode(result{Env: env, Begun: true}); err != nil {
		return err
	}
	for _, t := range m.of(env) {
		res, err := r.runTest(ctx, st, m, t)
		if failed := res.worthAgain(); err == nil && failed != "" {
			t.Run = failed
			var second result
			second, err = r.runTest(ctx, st, m, t)
			res.Again = &second
		}
		if err != nil {
			return fmt.Errorf("%s: %w", t.Pkg, err)
		}
		res.Env, res.Pkg = env, t.Pkg
		if err := out.Encode(res); err != nil {
			return err
		}
	}
	return out.Encode(result{Env: env, Done: true})
}

// runTest runs one binary in the directory of its package.
func (r *reaper) runTest(ctx context.Context, st stage, m manifest, t test) (result, error) {
	before, err := sandboxtest.TakeSnapshot()
	if err != nil {
		return result{}, err
	}
	timeout := m.Timeout * min(sandboxtest.Slow(), 4)
	ctx, cancel := context.WithTimeout(ctx, timeout+graceTime*sandboxtest.Slow())
	defer cancel()
	cmd := exec.CommandContext(ctx, st.path(t.Binary), "-test.v=test2json",
		"-test.timeout="+timeout.String(), "-test.run="+cmp.Or(t.Run, m.Run))
	cmd.Dir = st.path("src", t.Pkg)
	cmd.Env = append(os.Environ(), "NUCLEUS_BIN="+st.path("bin/nucleus"), "PWD="+cmd.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// Not a buffer that Wait would fill: a process that a test lost could hold
	// the pipe open for ever.
	output, err := os.CreateTemp("", "suite-output-")
	if err != nil {
		return result{}, err
	}
	defer os.Remove(output.Name())
	cmd.Stdout, cmd.Stderr = output, output

	began := time.Now()
	if err := r.start(cmd); err != nil {
		output.Close()
		return result{}, err
	}
	err = cmd.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		return result{}, err
	}
	res := result{
		Exit: cmd.ProcessState.ExitCode(), Seconds: time.Since(began).Seconds(),
		TimedOut: errors.Is(ctx.Err(), context.DeadlineExceeded),
	}
	// Closed before the comparison, which would count it.
	if err := output.Close(); err != nil {
		return result{}, err
	}
	res.Leaks = before.Leaks()
	data, err := os.ReadFile(output.Name())
	res.Output = string(data)
	return res, errors.Join(err, r.killLost())
}

// reaper is init for the processes that tests lose: they become children of
// this one, which can then say so and end them.
type reaper struct {
	mu      sync.Mutex
	running int // the test binary, which its exec.Cmd waits for
	signals chan os.Signal
	ended   chan struct{}
}

func newReaper() (*reaper, error) {
	const setChildSubreaper = 36
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		return nil, fmt.Errorf("prctl: %w", errno)
	}
	r := &reaper{signals: make(chan os.Signal, 1), ended: make(chan struct{})}
	signal.Notify(r.signals, syscall.SIGCHLD)
	go func() {
		defer close(r.ended)
		for range r.signals {
			r.reap()
		}
	}()
	return r, nil
}

func (r *reaper) stop() {
	signal.Stop(r.signals)
	close(r.signals)
	<-r.ended
}

// start holds the lock across the fork, so that no child is taken for a lost one.
func (r *reaper) start(cmd *exec.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	r.running = cmd.Process.Pid
	return nil
}

// reap collects every ended child but the running test binary.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	pids, err := sandboxtest.Children()
	if err != nil {
		return // the next signal is another chance
	}
	for _, pid := range pids {
		if pid == r.running {
			continue
		}
		for {
			if _, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.EINTR) {
				break
			}
		}
	}
}

// killLost ends what the last test binary lost, so that it cannot disturb the
// next one. The children of each become ours when it ends.
func (r *reaper) killLost() error {
	for deadline := time.Now().Add(10 * time.Second * sandboxtest.Slow()); ; time.Sleep(10 * time.Millisecond) {
		r.reap()
		pids, err := sandboxtest.Children()
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not end", pids)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill %d: %w", pid, err)
			}
		}
	}
}
