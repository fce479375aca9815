package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// cyclePhase lets sandboxes live and die.
func (s *soak) cyclePhase() error {
	s.fewNumbers()
	done := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() { s.checker(done) })
	if s.options.kill {
		others.Go(func() { s.killer(done) })
	}
	t := &tally{counts: map[string]int{}}
	began := time.Now()
	var begun atomic.Int64
	var all sync.WaitGroup
	for range s.atOnce {
		all.Go(func() {
			for n := begun.Add(1); n <= int64(s.cycles) && !s.failed(); n = begun.Add(1) {
				s.cycle.Store(n)
				newLife(s, t, int(n)).live()
				if n%500 == 0 {
					s.say("%d cycles", n)
				}
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	close(done)
	others.Wait()
	s.say("%d cycles, %d at a time, in %v: %.1f a second; %v", s.cycles, s.atOnce, took.Round(time.Second), float64(s.cycles)/took.Seconds(), t.counts)
	for _, n := range s.shared() { // who comes last does not remove them for the others
		s.must(0, s.run("rm", "-f", n))
	}
	return nil
}

// tally counts what was done.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}

// life is one cycle: a sandbox is made, something happens to it, it ends.
type life struct {
	*soak
	tally *tally
	rng   *rand.Rand
	n     int
	name  string
	names []string // all that it has had
	free  bool     // others may do anything to it at any time
	rm    bool     // it is removed at its end
	kept  bool     // it is started again when it ends
	group bool
	early bool // somebody tries to join it while it is being made
	prog  workload
	said  []string
	later sync.WaitGroup
}

// workload is what runs in the sandbox.
type workload struct {
	argv []string
	out  string // what it says
	code int    // with which it ends, by itself or when it is asked to; -1: a signal ends it
	ends bool   // by itself
}

// The pool of programs.
var programs = []workload{
	{argv: []string{"sleep", "1000000"}, code: 143},
	{argv: []string{"sh", "-c", "echo hello; exec sleep 1000000"}, out: "hello\n", code: 143},
	{argv: []string{"sh", "-c", "trap 'exit 3' TERM; echo hello; while :; do sleep 0.02; done"}, out: "hello\n", code: 3},
	{argv: []string{"sh", "-c", "echo bye; exit 7"}, out: "bye\n", code: 7, ends: true},
}

const sharedNames = 4

func (s *soak) shared() (all []string) {
	for i := range sharedNames {
		all = append(all, fmt.Sprintf("%sshared-%d", s.prefix, i))
	}
	return all
}

func newLife(s *soak, t *tally, n int) *life {
	l := &life{soak: s, tally: t, n: n, rng: rand.New(rand.NewPCG(s.seed, uint64(1000+n))), name: fmt.Sprintf("%sc%d", s.prefix, n), free: s.options.kill}
	if l.rng.IntN(4) == 0 {
		l.name, l.free = s.shared()[l.rng.IntN(sharedNames)], true
	}
	l.names = []string{l.name}
	l.prog = programs[l.rng.IntN(len(programs))]
	l.rm = l.rng.IntN(5) == 0
	l.free = l.free || l.rm && l.prog.ends // it may be gone at any time
	l.early = s.early && l.rng.IntN(6) == 0
	l.group = s.groups && l.rng.IntN(4) == 0
	l.kept = !l.rm && !l.prog.ends && l.rng.IntN(12) == 0
	return l
}

// live is the cycle.
func (l *life) live() {
	defer l.clean()
	args := []string{"run", "-d", "--name", l.name}
	if l.rm {
		args = append(args, "--rm")
	}
	if l.group {
		args = append(args, "--pids", "64")
	}
	if l.kept {
		args = append(args, "--restart", "on-failure:3")
	}
	l.tally.add("run")
	if l.early {
		l.tally.add("exec, while it starts")
		l.execEarly()
	}
	if r := l.do(append(append(args, "--"), l.prog.argv...)...); r.code != 0 || l.prog.ends {
		if r.code == 0 {
			l.ending()
		}
		return
	}
	for range l.rng.IntN(4) {
		a := actions[l.rng.IntN(len(actions))]
		l.tally.add(a.name)
		a.act(l)
	}
	l.ending()
}

// actions are what can happen to a sandbox that runs.
var actions = []struct {
	name string
	act  func(*life)
}{
	{"exec", (*life).exec},
	{"exec, fails", func(l *life) {
		if r := l.do2(5, "exec", l.name, "--", "sh", "-c", "exit 5"); !l.free && r.code != 5 {
			l.wrong(r, "want exit code 5")
		}
	}},
	{"exec, outlives the sandbox", func(l *life) {
		name := l.name
		l.later.Go(func() {
			r := l.expose("exec", name, "--", "sleep", "1000000")
			if what := r.broken(); what != "" || r.code == 0 {
				l.fail("%s %v", what, r)
			}
		})
	}},
	{"logs", func(l *life) {
		if r := l.do("logs", l.name); r.code == 0 && !l.free && !strings.HasPrefix(strings.Repeat(l.prog.out, 10), r.out) {
			l.wrong(r, fmt.Sprintf("got %q", r.out)) // it may not have said it yet, and of each run
		}
	}},
	{"inspect", func(l *life) { l.do("inspect", l.name) }},
	{"rename", func(l *life) {
		if slices.Contains(l.shared(), l.name) {
			return
		}
		name := fmt.Sprintf("%sr%d-%d", l.prefix, l.n, len(l.names))
		l.names = append(l.names, name)
		if r := l.do("rename", l.name, name); r.code == 0 {
			l.name = name
		}
	}},
	{"restart", func(l *life) {
		if !l.rm {
			l.do("restart", "-t", "0", l.name)
		}
	}},
	{"stop, start", func(l *life) {
		if !l.rm {
			l.do("stop", "-t", "0", l.name)
			l.do("start", l.name)
		}
	}},
	{"pause, unpause", func(l *life) {
		if l.group {
			l.do("pause", l.name)
			l.do("unpause", l.name)
		}
	}},
	{"wait for the killed", func(l *life) {
		if l.rm || l.kept {
			return
		}
		l.do("kill", l.name)
		if r := l.do("wait", l.name); r.code == 0 && !l.free && r.out != "137\n" {
			l.wrong(r, fmt.Sprintf("got %q, want 137", r.out))
		}
		l.do("start", l.name)
	}},
}

// exec joins the sandbox, and looks whether it is there and not on the host.
func (l *life) exec() {
	args, want := l.probe(l.rng.Uint64())
	if r := l.do(args...); r.code == 0 && r.out != want {
		l.wrong(r, fmt.Sprintf("got %q, want %q", r.out, want))
	}
}

func (l *life) probe(n uint64) (args []string, want string) {
	word := fmt.Sprintf("%x", n)
	return []string{"exec", l.name, "--", "sh", "-c", `test -e "$1" && echo this is the host; echo "$2"`, "sh", l.dir, word}, word + "\n"
}

// execEarly tries to join the sandbox from before it exists until a try has
// worked: the first one that can must find what all others find.
func (l *life) execEarly() {
	args, want := l.probe(l.rng.Uint64())
	l.later.Go(func() {
		for until := time.Now().Add(l.patience / 60); time.Now().Before(until); {
			r := l.run(args...)
			if what := r.broken(); what != "" || strings.Contains(r.out, "host") || r.code == 0 && r.out != want {
				l.fail("%s, joined early: %v: got %q, want %q", what, r, r.out, want)
			}
			if r.code == 0 {
				return
			}
		}
	})
}

// ending ends the sandbox in one way or another.
func (l *life) ending() {
	how := l.rng.IntN(3)
	switch {
	case l.prog.ends && !l.rm && how > 0:
		l.tally.add("wait, rm")
		l.wait()
		l.do("rm", l.name)
	case how == 0, how == 2 && l.rm: // kill does not wait for the end
		l.tally.add("rm -f")
		l.do("rm", "-f", l.name)
	case how == 1 || l.kept:
		l.tally.add("stop, rm")
		l.do("stop", "-t", "5", l.name)
		if !l.rm {
			l.wait()
			l.do("rm", l.name)
		}
	default:
		l.tally.add("kill, rm")
		l.do("kill", l.name)
		l.do("wait", l.name)
		l.do("rm", l.name)
	}
}

// wait compares how it ended with how it should have.
func (l *life) wait() {
	if r := l.do("wait", l.name); r.code == 0 && !l.free && r.out != fmt.Sprintf("%d\n", l.prog.code) {
		l.wrong(r, fmt.Sprintf("got %q, want %d", r.out, l.prog.code))
	}
}

// clean makes sure that nothing is left of it, and that nothing was before.
func (l *life) clean() {
	if !l.free {
		if r := l.run("inspect", l.name); r.code == 0 {
			l.wrong(r, "it is still there at the end")
		}
	}
	for _, name := range l.names {
		for range 20 {
			if r := l.do("rm", "-f", name); !r.killed {
				break
			}
		}
	}
	l.later.Wait()
}

// do is a step; what is not expected of it is told.
func (l *life) do(args ...string) result { return l.do2(0, args...) }

func (l *life) do2(code int, args ...string) result {
	r := l.expose(args...)
	l.said = append(l.said, r.String())
	what := r.broken()
	switch {
	case what != "":
		l.wrong(r, what)
	case r.killed, r.code == code:
	case args[0] == "rm" && args[1] == "-f" && !strings.Contains(r.err, "no sandbox"): // works whatever others do
		l.wrong(r, "want exit code 0")
	case l.options.kill && killed.MatchString(r.err):
	case l.free && (meanwhile.MatchString(r.err) || args[0] == "exec" && r.code == 137):
	default:
		l.wrong(r, fmt.Sprintf("want exit code %d", code))
	}
	return r
}

// meanwhile is what may be said of a sandbox that others stop, remove, rename,
// kill or start at the same time.
var meanwhile = regexp.MustCompile(`no sandbox|no such sandbox|is taken|is still running|is running|is not running|is paused|paused already|was removed|has ended|is being started|` +
	unclear)

// unclear is what is said, less clearly, of a sandbox that ends in the very
// moment in which it is joined or its logs are opened.
const unclear = `already finished|killed before the workload ran|enter: (process 1|setns|clone3|cgroup).*(cannot allocate memory|operation not permitted|no such file)|` +
	`wait for .*memory.* no such file|open log: .* no such file`

// killed is what may be said when a process that is needed was killed.
var killed = regexp.MustCompile(`open the gate: broken pipe|keeper ended without a word: signal: killed|the sandbox is being started|` + unclear)

func (l *life) wrong(r result, what string) {
	l.fail("%s: %v\n    its life:\n      %s", what, r, strings.Join(l.said, "\n      "))
}
