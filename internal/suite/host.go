package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// runRoot runs the staged tests as root on this machine.
func runRoot(ctx context.Context, st stage, work string, all *report) error {
	if os.Geteuid() != 0 {
		return errors.New("-root needs root")
	}
	return runHere(ctx, st, "root", work, nil, all)
}

// runUser runs the staged tests as an ordinary user on this machine: as the one
// who calls, or for root as a user made for that.
func runUser(ctx context.Context, st stage, work string, all *report) error {
	if os.Geteuid() != 0 {
		return runHere(ctx, st, "user", work, nil, all)
	}
	account, err := sandboxtest.EnsureUser()
	if err != nil {
		return err
	}
	return runHere(ctx, st, "user", work, &account, all)
}

// runHere runs this program's staged copy with -exec, in a process of its own
// that adopts what tests lose.
func runHere(ctx context.Context, st stage, env, work string, as *sandboxtest.Account, all *report) error {
	tmp := filepath.Join(work, "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, st.path("bin/suite"), "-exec", string(st), "-env", env)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	if as != nil {
		run := filepath.Join(work, "run")
		if err := os.Mkdir(run, 0o700); err != nil {
			return err
		}
		for _, dir := range []string{tmp, run} {
			if err := os.Chown(dir, int(as.UID), int(as.GID)); err != nil {
				return err
			}
		}
		cmd.Env = userEnv(*as, tmp, run)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: as.UID, Gid: as.GID}}
	}
	cmd.Stderr = os.Stderr
	// Its tests get a chance to clean up; exec kills it if they do not.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = graceTime
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := readResults(stdout, []string{env}, all, func() {})
	return errors.Join(readErr, cmd.Wait())
}

// userEnv is what a login would set, with what tests may want to know.
func userEnv(as sandboxtest.Account, tmp, run string) []string {
	env := []string{
		"USER=" + as.Name, "LOGNAME=" + as.Name, "HOME=" + as.Home, "SHELL=/bin/sh",
		"TMPDIR=" + tmp, "XDG_RUNTIME_DIR=" + run, "PATH=" + os.Getenv("PATH"),
	}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "NUCLEUS_TEST_") || strings.HasPrefix(v, "GOTOOLCHAIN=") || strings.HasPrefix(v, "CI=") {
			env = append(env, v)
		}
	}
	return env
}

// readResults reads one stream of results for each name in envs, and calls begun
// at the start of each. A stream that ends before it says so, or lines that are
// no result, are errors.
func readResults(r io.Reader, envs []string, all *report, begun func()) error {
	done := map[string]bool{}
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var res result
			if err := json.Unmarshal(line, &res); err != nil {
				return fmt.Errorf("no result: %s", strconv.Quote(string(line)))
			}
			switch {
			case res.Begun:
				begun()
			case res.Done:
				done[res.Env] = true
			default:
				all.add(res)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	for _, env := range envs {
		if !done[env] {
			return fmt.Errorf("%s ended before its last package", env)
		}
	}
	return nil
}
