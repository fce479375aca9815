package store

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/record"
	"github.com/nucleus-container/nucleus/spec"
)

// systemdTool finds a program of systemd where systems have it. A PATH that
// somebody else set does not choose what root runs.
func systemdTool(name string) (string, error) {
	for _, dir := range []string{"/usr/bin/", "/bin/", "/run/current-system/sw/bin/"} {
		if st, err := os.Stat(dir + name); err == nil && st.Mode().IsRegular() && ownedByRoot(st) {
			return dir + name, nil
		}
	}
	return "", fmt.Errorf("there is no %s here: %w", name, nucleus.ErrUnsupported)
}

// ownedByRoot reports whether only root can change a file.
func ownedByRoot(st os.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Uid == 0 && st.Mode().Perm()&0o022 == 0
}

// managed checks that there is a service manager for us.
func managed() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return fmt.Errorf("systemd does not manage this machine: leave out --systemd: %w", nucleus.ErrUnsupported)
	}
	if os.Geteuid() == 0 {
		return nil
	}
	if _, err := os.Stat(os.Getenv("XDG_RUNTIME_DIR") + "/systemd/private"); err != nil {
		return fmt.Errorf("you have no service manager of your own: log in, or have root run `loginctl enable-linger %d`, and set XDG_RUNTIME_DIR: %w", os.Geteuid(), nucleus.ErrUnsupported)
	}
	return nil
}

// unitName is the unit of a sandbox.
func unitName(id string) string { return "nucleus-" + id + ".service" }

// startUnit has the service manager start the keeper, in a unit with a control
// group of its own to divide. Nothing about the sandbox is in the unit: the
// keeper reads it from the state directory.
func (b *Sandbox) startUnit(ctx context.Context) error {
	if len(b.store.Keeper) == 0 {
		return fmt.Errorf("this sandbox needs somebody to stay with it, and no keeper is known: %w", nucleus.ErrUnsupported)
	}
	if err := managed(); err != nil {
		return err
	}
	tool, err := systemdTool("systemd-run")
	if err != nil {
		return err
	}
	var args []string
	err = b.locked(ctx, func(s *state) error {
		if s.running() {
			return fmt.Errorf("%s: %w", s.cfg.Display(), ErrRunning)
		}
		args, err = s.unitArgs()
		s.rec.Unit = unitName(s.ID())
		return errors.Join(err, s.save())
	})
	if err != nil {
		return err
	}
	var said bytes.Buffer
	run := exec.CommandContext(ctx, tool, args...)
	run.Stderr = &said
	if err := run.Run(); err != nil {
		return b.whyNot(ctx, strings.TrimSpace(said.String()), err)
	}
	return nil
}

// unitArgs are the arguments of systemd-run.
func (s *state) unitArgs() ([]string, error) {
	stop := cmp.Or(s.cfg.Service.StopTimeout, spec.DefaultStopTimeout) + 5*time.Second
	args := []string{
		"--unit=" + unitName(s.ID()), "--description=Nucleus sandbox " + s.cfg.Display(), "--collect", "--quiet", "--service-type=notify",
		"--property=Delegate=yes", "--property=DelegateSubgroup=nucleus", "--property=KillMode=mixed", "--property=NotifyAccess=main",
		"--property=TasksMax=infinity", "--property=OOMPolicy=continue", "--property=TimeoutStopSec=" + strconv.Itoa(int(stop.Seconds())),
	}
	if os.Geteuid() != 0 {
		args = append(args, "--user")
	}
	root, err := s.store.dir.LogRoot()
	if err != nil {
		return nil, err
	}
	args = append(args, "--setenv=NUCLEUS_STATE_DIR="+s.store.Path(), "--setenv=NUCLEUS_LOG_DIR="+root)
	for _, key := range keeperEnv[2:] {
		if v, ok := os.LookupEnv(key); ok && key != "NOTIFY_SOCKET" {
			args = append(args, "--setenv="+key+"="+v)
		}
	}
	return append(append(append(args, "--"), s.store.Keeper...), s.ID()), nil
}

// whyNot says why a unit did not start: the record knows, if the sandbox was the
// reason.
func (b *Sandbox) whyNot(ctx context.Context, said string, err error) error {
	var rep Report
	lerr := b.locked(ctx, func(s *state) error {
		if o := s.rec.Outcome; o != nil && o.Detail != "" {
			rep = Report{Error: o.Detail, Hint: o.Hint, Code: cmp.Or(o.Code, 125)}
		}
		return nil
	})
	if rep.Error != "" {
		return &StartError{rep}
	}
	return errors.Join(fmt.Errorf("start %s: %s (%w); see journalctl --unit %[1]s", unitName(b.ID()), cmp.Or(said, "no word"), err), lerr)
}

// journal prints what the journal has of the program's output.
func (b *Sandbox) journal(ctx context.Context, c *record.Config, out io.Writer, o LogOptions) error {
	tool, err := systemdTool("journalctl")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := exec.CommandContext(ctx, tool, journalArgs(c.ID, o)...)
	var said bytes.Buffer
	run.Stderr = &said
	lines, err := run.StdoutPipe()
	if err != nil {
		return err
	}
	if err := run.Start(); err != nil {
		return err
	}
	if o.Follow {
		go b.endOfJournal(ctx, cancel)
	}
	n, err := printJournal(lines, out, o)
	werr := run.Wait()
	if n == 0 && err == nil && strings.Contains(said.String(), "permission") {
		err = fmt.Errorf("you may not read the journal: %s", firstLine(said.String()))
	}
	if werr != nil && ctx.Err() == nil {
		err = errors.Join(err, fmt.Errorf("%s: %w: %s", tool, werr, strings.TrimSpace(said.String())))
	}
	return err
}

// journalArgs are the arguments of journalctl: only what came through the
// unit's streams, not what the manager says about the unit.
func journalArgs(id string, o LogOptions) []string {
	args := []string{"--output=json", "--no-pager", "_TRANSPORT=stdout"}
	if os.Geteuid() == 0 {
		args = append(args, "_SYSTEMD_UNIT="+unitName(id))
	} else {
		args = append(args, "--user", "_SYSTEMD_USER_UNIT="+unitName(id))
	}
	if o.Tail >= 0 {
		args = append(args, "--lines="+strconv.Itoa(o.Tail))
	} else if o.Follow {
		args = append(args, "--no-tail")
	}
	if !o.Since.IsZero() {
		args = append(args, "--since=@"+strconv.FormatInt(o.Since.Unix(), 10))
	}
	if !o.Until.IsZero() {
		args = append(args, "--until=@"+strconv.FormatInt(o.Until.Unix()+1, 10))
	}
	if o.Follow {
		args = append(args, "--follow")
	}
	return args
}

// endOfJournal ends following when the sandbox has ended and the journal has had
// time to take its last words.
func (b *Sandbox) endOfJournal(ctx context.Context, cancel func()) {
	for ctx.Err() == nil && b.Writing() {
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(500 * time.Millisecond)
	cancel()
}

// printJournal prints the entries that journalctl writes as JSON, a line each, and
// counts them.
func printJournal(in io.Reader, out io.Writer, o LogOptions) (n int, err error) {
	const longest = 8 << 20
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, longest)
	for lines.Scan() {
		var e struct {
			Message json.RawMessage `json:"MESSAGE"`
			Time    string          `json:"__REALTIME_TIMESTAMP"`
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return n, fmt.Errorf("journalctl wrote what is not JSON: %w", err)
		}
		us, err := strconv.ParseInt(e.Time, 10, 64)
		if err != nil {
			return n, fmt.Errorf("journalctl wrote the time %q", e.Time)
		}
		at := time.UnixMicro(us)
		if !o.Since.IsZero() && at.Before(o.Since) || !o.Until.IsZero() && at.After(o.Until) {
			continue
		}
		line := message(e.Message)
		if o.Timestamps {
			line = append([]byte(at.UTC().Format(time.RFC3339Nano)+" "), line...)
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return n, err
		}
		n++
	}
	return n, lines.Err()
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// message is an entry's text: a string, or an array of numbers if it is not
// UTF-8, or null if it is too long.
func message(raw json.RawMessage) []byte {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return []byte(s)
	}
	var bytes []int
	if json.Unmarshal(raw, &bytes) != nil {
		return nil
	}
	out := make([]byte, len(bytes))
	for i, b := range bytes {
		out[i] = byte(b)
	}
	return out
}
