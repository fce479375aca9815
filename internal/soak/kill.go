package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/record"
)

// killer kills, at random moments, programs of nucleus that run and processes
// that the records name. Those it opens first, and then compares their start:
// it must not do itself what it looks for in others.
func (s *soak) killer(done <-chan struct{}) {
	rng := rand.New(rand.NewPCG(s.seed, 1))
	counts := map[string]int{}
	for {
		select {
		case <-done:
			s.say("killed: %d programs, %v", s.kills, counts)
			return
		case <-time.After(time.Duration(rng.IntN(40)) * time.Millisecond):
		}
		if rng.IntN(2) == 0 {
			s.killOne(rng)
			continue
		}
		what, p := s.victim(rng)
		if what == "" {
			continue
		}
		fd, err := kernel.OpenProcess(p.Pid, p.Start)
		if err != nil {
			continue // it has ended
		}
		if kernel.SignalProcess(fd, 9) == nil {
			counts[what]++
		}
		_ = fd.Close() // nothing was written to it
	}
}

// victim chooses a process that a record names.
func (s *soak) victim(rng *rand.Rand) (what string, p record.Proc) {
	all := s.records()
	if len(all) == 0 {
		return "", p
	}
	skip := rng.IntN(len(all))
	for _, r := range all {
		if skip--; skip >= 0 {
			continue
		}
		switch kind := rng.IntN(4); {
		case kind == 0 && r.Logger != nil:
			return "loggers", *r.Logger
		case kind == 1 && r.Keeper != nil:
			return "keepers", *r.Keeper
		case r.Pid != 0:
			return "sandboxes", record.Proc{Pid: r.Pid, Start: r.StartTicks}
		}
	}
	return "", p
}

// canaryArg makes this program a canary: it lives for so many milliseconds,
// catches every signal, and exits with 100 and the number of one that came.
const canaryArg = "canary"

func canary(args []string) int {
	all := make(chan os.Signal, 16)
	for sig := syscall.Signal(1); sig < 65; sig++ {
		if sig != syscall.SIGURG { // Go's runtime sends that to itself
			signal.Notify(all, sig)
		}
	}
	life, err := strconv.Atoi(args[0])
	if err != nil {
		return 1
	}
	select {
	case sig := <-all:
		if n, ok := sig.(syscall.Signal); ok {
			return 100 + int(n)
		}
		return 1
	case <-time.After(time.Duration(life) * time.Millisecond):
		return 0
	}
}

// startCanaries keeps processes around that no signal may reach, most of them
// short-lived so that they get the numbers of what has just ended. As root the
// numbers come back quickly. stop returns when they are gone.
func (s *soak) startCanaries() (stop func()) {
	const at, once = 6, 400
	done := make(chan struct{})
	var all sync.WaitGroup
	var lived, wraps atomic.Int64
	for i := range at {
		rng := rand.New(rand.NewPCG(s.seed, uint64(100+i)))
		all.Go(func() {
			last := 0
			for {
				select {
				case <-done:
					return
				default:
				}
				pid := s.oneCanary(1 + rng.IntN(once))
				if lived.Add(1); pid < last {
					wraps.Add(1)
				}
				last = pid
			}
		})
	}
	return func() {
		close(done)
		all.Wait()
		s.say("%d canaries lived and died undisturbed unless said otherwise; process numbers began again about %d times", lived.Load(), wraps.Load()/at)
	}
}

func (s *soak) oneCanary(life int) (pid int) {
	c := exec.Command("/proc/self/exe", canaryArg, strconv.Itoa(life))
	c.Env = append(os.Environ(), "GOMAXPROCS=1")
	if err := c.Start(); err != nil {
		s.fail("start a canary: %v", err)
		return 0
	}
	err := c.Wait()
	status, _ := c.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled():
		s.fail("canary %d, which is none of nucleus's business, was killed: %v", c.Process.Pid, status.Signal())
	case status.ExitStatus() > 100:
		s.fail("canary %d, which is none of nucleus's business, got a signal: %v", c.Process.Pid, syscall.Signal(status.ExitStatus()-100))
	case err != nil:
		s.fail("canary %d: %v", c.Process.Pid, err)
	}
	return c.Process.Pid
}

// fewNumbers makes process numbers come back quickly, where each process
// namespace has a limit of its own (6.14): it is another one than outside.
func (s *soak) fewNumbers() {
	const few = "2000"
	here, err := os.ReadFile(pidMax)
	if err != nil || os.Geteuid() != 0 || string(here) == os.Getenv(pidMaxEnv) {
		s.say("process numbers come back slowly here")
		return
	}
	if err := os.WriteFile(pidMax, []byte(few), 0o644); err != nil {
		s.say("process numbers come back slowly here: %v", err)
		return
	}
	s.say("process numbers are below %s", few)
}

// pidMax is the highest process number; pidMaxEnv says what that is outside.
const (
	pidMax    = "/proc/sys/kernel/pid_max"
	pidMaxEnv = "NUCLEUS_SOAK_PID_MAX"
)
