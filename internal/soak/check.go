package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/record"
)

// seen is what a record said, and then the kernel, at one moment.
type seen struct {
	record.Record
	alive bool
}

// records reads all records there are, by id.
func (s *soak) records() map[string]seen {
	all := map[string]seen{}
	files, err := filepath.Glob(s.state + "/sandboxes/????????????????/record.json")
	if err != nil {
		return nil
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // removed meanwhile
		}
		var r seen
		if err := json.Unmarshal(b, &r.Record); err != nil {
			s.fail("%s: %v: %q", f, err, b)
			continue
		}
		r.alive = r.Pid != 0 && lives(record.Proc{Pid: r.Pid, Start: r.StartTicks})
		all[filepath.Base(filepath.Dir(f))] = r
	}
	return all
}

func lives(p record.Proc) bool {
	start, err := kernel.StartTime(p.Pid)
	return err == nil && start == p.Start
}

// listed is a sandbox as `nucleus ps` shows it.
type listed struct {
	ID, Name, State, Problem string
	Pid                      int
}

func (l listed) running() bool { return l.State == "running" || l.State == "paused" }

// list is `nucleus ps -a`; ok is false if it was killed or failed.
func (s *soak) list(run func(...string) result) (all []listed, ok bool) {
	r := run("ps", "-a", "--json")
	if r.killed {
		return nil, false
	}
	if what := r.broken(); what != "" || r.code != 0 {
		s.fail("%s %v", what, r)
		return nil, false
	}
	if err := json.Unmarshal([]byte(r.out), &all); err != nil {
		s.fail("nucleus ps: %v: %q", err, r.out)
		return nil, false
	}
	return all, true
}

// checker compares all the time what is said with what is so.
func (s *soak) checker(done <-chan struct{}) {
	answers, sandboxes := 0, 0
	for n := 0; ; n++ {
		select {
		case <-done:
			s.say("%d answers of nucleus ps about %d sandboxes were compared with the kernel", answers, sandboxes)
			return
		case <-time.After(5 * time.Millisecond):
		}
		run := s.run
		if n%10 == 0 { // it settles, and may be killed over that
			run = s.expose
		}
		before := s.records()
		all, ok := s.list(run)
		if !ok {
			continue
		}
		s.compare(before, all, s.records())
		answers++
		sandboxes += len(all)
	}
}

// compare finds answers that were wrong at every moment between before and after.
// What has changed meanwhile proves nothing.
func (s *soak) compare(before map[string]seen, all []listed, after map[string]seen) {
	listed := map[string]bool{}
	for _, l := range all {
		listed[l.ID] = true
		b, there := before[l.ID]
		a, still := after[l.ID]
		if !there || !still {
			continue
		}
		same := b.Pid == a.Pid && b.StartTicks == a.StartTicks && b.Run == a.Run
		switch {
		case l.State == "broken":
			s.fail("nucleus ps says of %s %s: broken: %s", l.ID, l.Name, l.Problem)
		case !same:
		case l.State == "created" && b.State == record.StateCreated:
			// Its process was alive and still the starter's: it is no sandbox yet.
		case a.Pid != 0 && a.alive && (!l.running() || l.Pid != a.Pid):
			s.fail("nucleus ps says of %s %s: %s, process %d, but process %d has lived all the time (record before: %+v; after: %+v)", l.ID, l.Name, l.State, l.Pid, a.Pid, b.Record, a.Record)
		case !b.alive && l.running():
			s.fail("nucleus ps says of %s %s: %s, process %d, but that had ended before (record before: %+v; after: %+v)", l.ID, l.Name, l.State, l.Pid, b.Record, a.Record)
		}
	}
	for id, b := range before {
		a, still := after[id]
		if still && !listed[id] {
			s.fail("nucleus ps leaves out %s, which was there before and after", id)
		}
		if b.State == record.StateEnded && b.alive {
			s.fail("the record of %s says that it has ended, but process %d lives: %+v", id, b.Pid, b.Record)
		}
		_ = a
	}
}
