package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus"
)

// Report is what a keeper writes, once, on descriptor 3: that the program runs
// (and is ready, if it has to say so), or why it does not.
type Report struct {
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
	Code  int    `json:"code,omitempty"` // exit code for the command line
}

// StartError is a keeper's report of a start that failed.
type StartError struct{ Report }

func (e *StartError) Error() string { return e.Report.Error }

// keeperEnv are the variables that a keeper needs; nothing else of the caller's
// environment reaches a program that outlives the caller.
var keeperEnv = []string{"NUCLEUS_STATE_DIR", "NUCLEUS_LOG_DIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME", "PATH", "NOTIFY_SOCKET", "DBUS_SESSION_BUS_ADDRESS"}

// startKept has a keeper start the sandbox and stay with it.
func (b *Sandbox) startKept(ctx context.Context) error {
	if len(b.store.Keeper) == 0 {
		return fmt.Errorf("this sandbox needs somebody to stay with it, and no keeper is known: %w", nucleus.ErrUnsupported)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, w.Close())
	}
	env := []string{"NUCLEUS_STATE_DIR=" + b.store.Path()}
	for _, key := range keeperEnv[1:] {
		if v, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+v)
		}
	}
	root, err := b.store.dir.LogRoot()
	if err != nil {
		return errors.Join(err, w.Close(), null.Close())
	}
	env = append(env, "NUCLEUS_LOG_DIR="+root)
	argv := append(append([]string(nil), b.store.Keeper...), b.ID())
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Dir: "/", Env: env, Files: []*os.File{null, null, null, w}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err = errors.Join(err, w.Close(), null.Close()); err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	return readReport(ctx, r, p)
}

// readReport waits for the keeper's word. A caller that does not want to wait
// any longer takes the keeper along: nobody else knows of it.
func readReport(ctx context.Context, r *os.File, p *os.Process) error {
	stop := context.AfterFunc(ctx, func() { _ = p.Signal(syscall.SIGTERM) }) // it has ended if this fails
	defer stop()
	data, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return errors.Join(err, p.Release())
	}
	var rep Report
	if err := json.Unmarshal(data, &rep); err != nil {
		state, werr := p.Wait()
		if werr != nil {
			return fmt.Errorf("the keeper ended without a word: %w", werr)
		}
		return fmt.Errorf("the keeper ended without a word: %s", strings.ToLower(state.String()))
	}
	if rep.Error != "" {
		_, _ = p.Wait() // it has said what there is to say
		return &StartError{rep}
	}
	go func() { _, _ = p.Wait() }() // its corpse is ours, for as long as we live
	return nil
}
