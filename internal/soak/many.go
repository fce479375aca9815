package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nucleus-container/nucleus/internal/record"
)

// What is promised of many sandboxes at a time. Times are promises only if the
// machine is idle, so a slow one is told and not counted as wrong.
const (
	promisedPSS  = 64 << 10 // for each sandbox, of our own processes
	promisedList = 100 * time.Millisecond
	promisedStop = 30 * time.Second
)

// manyPhase has many sandboxes that do nothing.
func (s *soak) manyPhase() error {
	names := make([]string, s.many)
	for i := range names {
		names[i] = fmt.Sprintf("%sidle-%d", s.prefix, i)
	}
	began := time.Now()
	s.parallel(len(names), func(i int) {
		s.must(0, s.run("run", "-d", "--name", names[i], "--", "sleep", "1000000"))
	})
	took := time.Since(began)
	s.say("started %d sandboxes, %d at a time: %.0f a second", s.many, s.atOnce, float64(s.many)/took.Seconds())
	all := s.records()
	if len(all) != s.many {
		s.fail("%d sandboxes were started, and there are %d", s.many, len(all))
	}
	s.memory(all)
	s.listTimes()
	s.execSome(names)
	s.endAll(names)
	if left := s.records(); len(left) > 0 {
		s.fail("%d sandboxes are left after all were removed", len(left))
	}
	return nil
}

// parallel calls f with 0 to n-1, several at the same time.
func (s *soak) parallel(n int, f func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range s.atOnce {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !s.failed(); i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	all.Wait()
}

// must counts every end of a program but the one that is expected.
func (s *soak) must(code int, r result) bool {
	if what := r.broken(); what != "" || r.code != code {
		s.fail("%s %v, want exit code %d", what, r, code)
		return false
	}
	return true
}

// memory adds up what our own processes for each sandbox take.
func (s *soak) memory(all map[string]seen) {
	var sum, most, inits, loggers, hidden int
	for id, r := range all {
		i := pss(r.Pid)
		l := 0
		if r.Logger != nil {
			if l = pss(r.Logger.Pid); l == 0 { // it cannot be looked at by an ordinary user
				hidden++
			}
		}
		if i == 0 || r.Keeper != nil {
			s.fail("sandbox %s has no process 1, or has a keeper: %+v", id, r.Record)
		}
		inits, loggers, sum, most = inits+i, loggers+l, sum+i+l, max(most, i+l)
	}
	n := max(len(all), 1)
	s.say("memory of nucleus for a sandbox (PSS): %.1f KiB on average (process 1 %.1f, logger %.1f), %d KiB at most; promised: %d KiB",
		kib(sum)/float64(n), kib(inits)/float64(n), kib(loggers)/float64(n), most>>10, promisedPSS>>10)
	if hidden > 0 {
		s.say("%d loggers do not let themselves be looked at", hidden)
	}
	if most > promisedPSS {
		s.fail("a sandbox takes %d bytes", most)
	}
}

func kib(n int) float64 { return float64(n) / 1024 }

// pss is the proportional set size of a process in bytes.
func pss(pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			n, _ := strconv.Atoi(f[1]) // 0 is told as wrong
			return n << 10
		}
	}
	return 0
}

func (s *soak) listTimes() {
	const times = 20
	var took []time.Duration
	for range times {
		r := s.run("ps")
		s.must(0, r)
		if n := strings.Count(r.out, "\n"); n != s.many+1 {
			s.fail("nucleus ps has %d lines, want %d", n, s.many+1)
		}
		took = append(took, r.took)
	}
	slices.Sort(took)
	s.say("nucleus ps with %d alive: %v median, %v at most of %d; promised: %v%s", s.many, took[times/2], took[times-1], times, promisedList,
		missed(took[times/2] > promisedList))
}

func missed(yes bool) string {
	if yes {
		return " MISSED"
	}
	return ""
}

// execSome joins random ones.
func (s *soak) execSome(names []string) {
	const some = 50
	rng := rand.New(rand.NewPCG(s.seed, 2))
	chosen := make([]int, some)
	for i := range chosen {
		chosen[i] = rng.IntN(len(names))
	}
	began := time.Now()
	s.parallel(some, func(i int) {
		name := names[chosen[i]]
		r := s.run("exec", name, "--", "hostname")
		if s.must(0, r) && r.out != name+"\n" {
			s.fail("%v: got %q", r, r.out)
		}
	})
	s.say("executed a program in %d of them: %v each, %d at a time", some, (time.Since(began) / some).Round(10*time.Microsecond), s.atOnce)
}

// endAll stops and removes everything, with one command each.
func (s *soak) endAll(names []string) {
	all := s.records()
	r := s.run(append([]string{"stop", "-t", "0"}, names...)...)
	s.must(0, r)
	s.say("stopped all: %v; promised: %v%s", r.took, promisedStop, missed(r.took > promisedStop))
	for id, rec := range all {
		if lives(record.Proc{Pid: rec.Pid, Start: rec.StartTicks}) {
			s.fail("sandbox %s lives after nucleus stop has returned", id)
		}
	}
	r = s.run(append([]string{"rm"}, names...)...)
	s.must(0, r)
	s.say("removed all: %v", r.took)
}
