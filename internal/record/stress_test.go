package record

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// works are what the processes of the stress tests do, until they are killed.
var works = map[string]func(dir string) error{"change": workChange, "log": workLog, "use": workUse}

// worker is one of the processes; what it prints goes to lines.
type worker struct {
	cmd   *exec.Cmd
	lines sync.WaitGroup
}

func startWorker(t *testing.T, d *Dir, work string, line func(string)) *worker {
	t.Helper()
	w := &worker{cmd: exec.Command(os.Args[0])}
	w.cmd.Env = append(os.Environ(), workEnv+"="+work+":"+d.Path())
	w.cmd.Stderr = os.Stderr
	out, err := w.cmd.StdoutPipe()
	must(t, err)
	must(t, w.cmd.Start())
	w.lines.Go(func() {
		for in := bufio.NewScanner(out); in.Scan(); {
			line(in.Text())
		}
	})
	return w
}

// kill kills the process, which must not have ended by itself.
func (w *worker) kill(t *testing.T) {
	t.Helper()
	must(t, w.cmd.Process.Kill())
	w.lines.Wait()
	if err := w.cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("a worker ended with %v, want to be killed", err)
	}
}

// stress lets n processes work, kills one after the other, and starts another
// in its place.
func stress(t *testing.T, d *Dir, work string, n, kills int, line func(string)) {
	var all []*worker
	for range n {
		all = append(all, startWorker(t, d, work, line))
	}
	for range kills {
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		i := rand.IntN(n)
		all[i].kill(t)
		all[i] = startWorker(t, d, work, line)
	}
	for _, w := range all {
		w.kill(t)
	}
}

// stressNames are few, so that there are quarrels about them.
var stressNames = []string{"a", "b", "c", "d", "aa", "bb", "cc", "123456789abc"}

// workChange does everything to all sandboxes, as fast as it can. It ends only
// with what must not happen.
func workChange(path string) error {
	d, err := Open(path)
	if err != nil {
		return err
	}
	if _, err := fmt.Println("ready"); err != nil {
		return err
	}
	for {
		err := changeOne(d, stressNames[rand.IntN(len(stressNames))])
		for _, fine := range []error{ErrNotFound, ErrExists, ErrAmbiguous} {
			if errors.Is(err, fine) {
				err = nil
			}
		}
		if err != nil {
			return fmt.Errorf("worker: %w", err)
		}
	}
}

func changeOne(d *Dir, name string) error {
	switch rand.IntN(8) {
	case 0, 1, 2:
		if rand.IntN(4) == 0 {
			name = ""
		}
		e, err := d.Create(&Config{Name: name, Command: []string{"true"}})
		if err != nil {
			return err
		}
		return errors.Join(e.SetRecord(&Record{State: StateRunning, Pid: 1}), e.Unlock())
	case 3, 4:
		return withFound(d, func(e *Entry) error { return e.Rename(name) }, name)
	case 5:
		return withFound(d, func(e *Entry) error {
			if c, err := e.Config(); err != nil || c.ID != e.ID() {
				return errors.Join(err, errors.New("a locked sandbox has no configuration"))
			}
			return e.SetRecord(&Record{State: StateEnded, Pid: 1})
		}, name)
	case 6:
		_, err := d.sweep(context.Background(), 0)
		return err
	}
	return readAll(d)
}

// withFound locks one of the sandboxes, mostly by name, and removes every
// other one of those that have none.
func withFound(d *Dir, f func(*Entry) error, name string) error {
	ref := stressNames[rand.IntN(len(stressNames))]
	if rand.IntN(3) == 0 {
		ref = fmt.Sprintf("%02x", rand.IntN(256))
	}
	e, err := d.Find(ref)
	if err != nil {
		return err
	}
	if ok, err := e.TryLock(); err != nil || !ok {
		return err
	}
	if rand.IntN(3) > 0 || name == "" {
		return e.Remove()
	}
	return errors.Join(f(e), e.Unlock())
}

func readAll(d *Dir) error {
	all, err := d.Load()
	for _, l := range all {
		err = errors.Join(err, l.Err)
	}
	if err != nil {
		return fmt.Errorf("half a sandbox: %v", err) // not as what is fine
	}
	list, err := d.List()
	if len(list) > 200 { // keep it small
		for _, e := range list[:100] {
			if ok, err := e.TryLock(); err == nil && ok {
				err = errors.Join(err, e.Remove())
			}
		}
	}
	return err
}

func TestStress(t *testing.T) {
	d := testDir(t)
	kills := 150
	if testing.Short() {
		kills = 30
	}
	stop := make(chan struct{})
	reader := make(chan error, 1)
	go func() {
		for {
			if err := readAll(d); err != nil {
				reader <- err
				return
			}
			select {
			case <-stop:
				reader <- nil
				return
			default:
			}
		}
	}()
	stress(t, d, "change", 6, kills, func(string) {})
	close(stop)
	must(t, <-reader)
	removed, err := d.sweep(context.Background(), 0)
	must(t, err)
	t.Logf("%d sandboxes at the end; swept %q", len(listed(t, d)), removed)
	checkWhole(t, d)
}

// workLog logs events and says which were logged.
func workLog(path string) error {
	d, err := Open(path)
	if err != nil {
		return err
	}
	d.maxEvents = stressEvents
	for i := 0; ; i++ {
		id := fmt.Sprintf("%d.%d", os.Getpid(), i)
		if err := d.Log(Event{Type: "a", ID: id, Attrs: map[string]string{"pad": strings.Repeat("x", rand.IntN(200))}}); err != nil {
			return err
		}
		if _, err := fmt.Println(id); err != nil {
			return err
		}
		time.Sleep(time.Millisecond) // Follow has to see every other file
	}
}

const stressEvents = 256 << 10

// TestEventStress checks that what was logged is seen exactly once, by one who
// follows, while the files are rotated and writers are killed.
func TestEventStress(t *testing.T) {
	d := testDir(t)
	d.maxEvents, d.poll = stressEvents, time.Millisecond
	kills := 60
	if testing.Short() {
		kills = 20
	}
	seen, end := map[string]int{}, errors.New("end")
	followed := make(chan error, 1)
	go func() {
		followed <- d.Follow(t.Context(), time.Time{}, func(e Event) error {
			if e.Type == "end" {
				return end
			}
			seen[e.ID]++
			return nil
		})
	}()
	var mu sync.Mutex
	logged := map[string]bool{}
	rotated := func() error { _, err := os.Stat(d.oldEventsPath()); return err }
	for round := 0; round == 0 || round < 10 && rotated() != nil; round++ { // a busy machine does not write so much
		stress(t, d, "log", 5, kills, func(id string) {
			mu.Lock()
			defer mu.Unlock()
			logged[id] = true
		})
	}
	must(t, d.Log(Event{Type: "end"}))
	if err := <-followed; !errors.Is(err, end) {
		t.Fatal(err)
	}
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		if seen[id] != 1 {
			t.Errorf("event %s was seen %d times", id, seen[id])
		}
	}
	for id := range logged {
		if seen[id] == 0 {
			t.Errorf("event %s was lost", id)
		}
	}
	if err := rotated(); err != nil && sandboxtest.Slow() == 1 {
		t.Errorf("nothing was rotated: %v", err)
	}
	t.Logf("%d events", len(seen))
}

// workUse uses and locks the one sandbox that there is.
func workUse(path string) error {
	d, err := Open(path)
	if err != nil {
		return err
	}
	all, err := d.List()
	if err != nil {
		return err
	}
	_, err = all[0].Use()
	if err == nil {
		err = all[0].Lock(context.Background())
	}
	if err == nil {
		_, err = fmt.Println("ready")
	}
	time.Sleep(time.Hour)
	return err
}

// TestKilledHolders checks that nobody has to clean up after a process that was
// killed while it had locks.
func TestKilledHolders(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Long)
	d := testDir(t)
	e := create(t, d, "web")
	ready := make(chan string, 1)
	w := startWorker(t, d, "use", func(s string) { ready <- s })
	<-ready
	if ok, err := e.TryLock(); ok || err != nil {
		t.Errorf("got %v, %v, want it to be locked", ok, err)
	}
	if _, used, err := e.Idle(); !used || err != nil {
		t.Errorf("got %v, %v, want it to be used", used, err)
	}
	w.kill(t)
	if _, used, err := e.Idle(); used || err != nil {
		t.Errorf("got %v, %v, want it to be unused", used, err)
	}
	lock(t, e)
}
