// Command soak makes and ends sandboxes until something goes wrong.
//
// It uses the nucleus program as people do, thousands of times and several at a
// time, with names that collide on purpose, and with -kill it kills the program,
// keepers, loggers and whole sandboxes at random moments. All the time it
// compares what `nucleus ps` says with what the kernel says, keeps processes
// around that no signal may ever reach, and lets process numbers come back
// quickly. At the end nothing may be left. It exits with 1 if anything was wrong.
//
//	go run ./internal/soak [-many 1000] [-cycles 10000] [-at-once 8] [-kill] [-nucleus PATH]
//
// It works in a process namespace of its own (unshare(1) makes it), with a state
// directory of its own: what is left behind is found by looking at all there is,
// and nothing of it can outlive the program.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

func main() { os.Exit(program(os.Args)) }

// options are the flags.
type options struct {
	cycles, atOnce, many int
	kill, hurry, early   bool
	nucleus              string
	seed                 uint64
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	f.IntVar(&o.many, "many", 1000, "sandboxes that live at the same time; 0: leave that phase out")
	f.IntVar(&o.cycles, "cycles", 10000, "lives of a sandbox; 0: leave that phase out")
	f.IntVar(&o.atOnce, "at-once", 8, "lives at the same time")
	f.BoolVar(&o.kill, "kill", false, "kill programs of nucleus and sandboxes at random moments")
	f.BoolVar(&o.early, "early", true, "try to join sandboxes while they are being made")
	f.BoolVar(&o.hurry, "hurry", false, "make leftovers look old instead of waiting a minute for nucleus gc to take them for such")
	f.StringVar(&o.nucleus, "nucleus", os.Getenv("NUCLEUS_BIN"), "the program to use; empty: build it")
	f.Uint64Var(&o.seed, "seed", rand.Uint64(), "what the random choices come from")
	if err = f.Parse(args); err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return o, err
}

// roleEnv says which of the processes of a soak this is.
const roleEnv = "NUCLEUS_SOAK_ROLE"

// program runs the process that the environment says: first the one that a
// person starts, then process 1 of the new namespace, then the one that works.
func program(args []string) int {
	var err error
	role := os.Getenv(roleEnv)
	switch {
	case len(args) > 1 && args[1] == canaryArg:
		return canary(args[2:])
	case role == "":
		err = alone(args)
	case role == "init":
		code, err := adopt(args)
		return exitCode(code, err)
	default:
		var o options
		if o, err = parse(args[1:]); err == nil {
			err = run(o, os.Stdout)
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) { // it has said what is wrong
		return 1
	}
	return exitCode(0, err)
}

func exitCode(code int, err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		return 1
	}
	return code
}

// alone runs the program again as process 1 of a process namespace of its own.
// The machine's own mounts stay as they are.
func alone(args []string) error {
	o, err := parse(args[1:])
	if err != nil {
		return err
	}
	bin, clean, err := build(o.nucleus)
	if err != nil {
		return err
	}
	defer clean()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv := []string{"--pid", "--fork", "--kill-child", "--mount", "--mount-proc"}
	if os.Geteuid() != 0 {
		argv = append([]string{"--user", "--map-current-user"}, argv...)
	}
	argv = append(argv, "--", self)
	argv = append(argv, args[1:]...)
	c := exec.Command("unshare", append(argv, "-nucleus", bin, "-seed", strconv.FormatUint(o.seed, 10))...)
	outside, err := os.ReadFile(pidMax)
	if err != nil {
		return err
	}
	c.Env = append(os.Environ(), roleEnv+"=init", pidMaxEnv+"="+string(outside))
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	return errors.Join(c.Run(), removeGroups(prefix(o.seed)))
}

// prefix is what all names of a run begin with.
func prefix(seed uint64) string { return fmt.Sprintf("soak%05d-", seed%100000) }

// build returns the program to use.
func build(given string) (bin string, clean func(), err error) {
	if given != "" {
		bin, err = filepath.Abs(given)
		return bin, func() {}, err
	}
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return "", nil, err
	}
	clean = func() { _ = os.RemoveAll(dir) } // it is only a copy of what is in the build cache
	bin = filepath.Join(dir, "nucleus")
	c := exec.Command("go", "build", "-o", bin, "github.com/nucleus-container/nucleus/cmd/nucleus")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		clean()
		return "", nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, clean, os.Chmod(dir, 0o755)
}

// adopt is process 1: it starts the one that works and buries what is orphaned.
func adopt(args []string) (code int, err error) {
	if err := os.Setenv(roleEnv, "work"); err != nil {
		return 0, err
	}
	p, err := os.StartProcess("/proc/self/exe", args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 0, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case pid == p.Pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == p.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// soak is one run.
type soak struct {
	options
	*tool
	dir    string
	prefix string // of all names
	groups bool   // control groups can be made here
	out    io.Writer
	cycle  atomic.Int64 // begun so far
	report sync.Mutex   // out, and what follows
	wrong  int          // failures so far
}

// fail says what was wrong, and after how many cycles.
func (s *soak) fail(format string, arg ...any) {
	const most = 25
	s.report.Lock()
	defer s.report.Unlock()
	if s.wrong++; s.wrong <= most {
		fmt.Fprintf(s.out, "WRONG (cycle %d, %s): %s\n", s.cycle.Load(), time.Now().Format("15:04:05.000"), fmt.Sprintf(format, arg...))
	}
}

// failed reports whether there is no point in going on.
func (s *soak) failed() bool {
	s.report.Lock()
	defer s.report.Unlock()
	return s.wrong > 200
}

func (s *soak) say(format string, arg ...any) {
	s.report.Lock()
	defer s.report.Unlock()
	fmt.Fprintf(s.out, format+"\n", arg...)
}

func run(o options, out io.Writer) (err error) {
	s, clean, err := prepare(o, out)
	if err != nil {
		return err
	}
	before, err := s.snapshot()
	if err != nil {
		return err
	}
	s.say("user id %d, seed %d, control groups %v", os.Geteuid(), o.seed, s.groups)
	stop := s.startCanaries()
	if o.many > 0 {
		err = s.manyPhase()
	}
	if o.cycles > 0 && err == nil {
		err = s.cyclePhase()
	}
	stop()
	if err != nil {
		return err
	}
	s.leaks(before)
	if s.wrong > 0 {
		return fmt.Errorf("%d things were wrong; the same choices again: -seed %d; files are in %s", s.wrong, o.seed, s.dir)
	}
	s.say("nothing was wrong")
	return clean()
}

// prepare makes the directories of the run, and /run/nucleus its own: whoever
// frees ranges of ids there must know all processes that could own one.
func prepare(o options, out io.Writer) (s *soak, clean func() error, err error) {
	s = &soak{options: o, out: out, prefix: prefix(o.seed)}
	if s.dir, err = os.MkdirTemp("", "soak-"); err != nil {
		return nil, nil, err
	}
	s.tool = &tool{
		bin: o.nucleus, state: s.dir + "/state", logs: s.dir + "/log",
		patience: time.Minute * sandboxtest.Slow(), running: map[*job]bool{},
	}
	for _, d := range []string{s.state, s.logs, s.dir + "/tmp", s.dir + "/xdg", s.dir + "/home"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, nil, err
		}
	}
	s.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir + "/home", "TMPDIR=" + s.dir + "/tmp", "XDG_RUNTIME_DIR=" + s.dir + "/xdg",
		"NUCLEUS_STATE_DIR=" + s.state, "NUCLEUS_LOG_DIR=" + s.logs,
	}
	if os.Geteuid() == 0 {
		err = os.MkdirAll("/run/nucleus", 0o700)
		if err == nil {
			err = syscall.Mount("tmpfs", "/run/nucleus", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "mode=700")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("a /run/nucleus of our own: %w", err)
		}
		if err := ownGroups(s.prefix); err != nil {
			return nil, nil, err
		}
	}
	s.groups = s.run("run", "--pids", "64", "--", "true").code == 0
	if r := s.run("run", "--", "true"); r.code != 0 {
		return nil, nil, fmt.Errorf("sandboxes do not work here: %s", strings.TrimSpace(r.err))
	}
	return s, func() error { return os.RemoveAll(s.dir) }, nil
}
