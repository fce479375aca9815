package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/keeper"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// What this binary is besides the tests: the keeper, a starter that can be
// killed, and the program inside.
const (
	keeperEnv = "KEEPER_TEST_KEEPER"
	probePath = "/probe"
)

func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == probePath:
		os.Exit(probe(os.Args[1:]))
	case os.Getenv(keeperEnv) != "":
		os.Exit(keep(os.Args[len(os.Args)-1]))
	case os.Getenv(userEnv) != "":
		os.Exit(user(os.Getenv(userEnv)))
	case os.Getenv(starterEnv) != "":
		os.Exit(starter(os.Getenv(starterEnv)))
	}
	sandboxtest.Main(m)
}

// keep is what `nucleus supervise` does.
func keep(id string) int {
	syscall.CloseOnExec(3)
	s, err := store.Open("")
	if err != nil {
		return 1
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if err := keeper.Run(ctx, s, id, os.NewFile(3, "report")); err != nil {
		return 1
	}
	return 0
}

// self is this binary; see the root package's tests.
var self = func() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}()

func patience() time.Duration { return 10 * time.Second * sandboxtest.Slow() }

// keeperCommand is the command of a keeper, with more in its environment than a
// store gives it.
func keeperCommand(env ...string) []string {
	mark := "NUCLEUS_TEST_RUN" // what sandboxtest finds lost processes by
	env = append([]string{"/usr/bin/env", keeperEnv + "=1", mark + "=" + os.Getenv(mark)}, env...)
	return append(env, self)
}

// open makes a store, whose sandboxes are gone when the test is over, and whose
// keepers are too.
func open(t *testing.T, env ...string) *store.Store {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Userns)
	dir := t.TempDir() + "/state"
	t.Setenv("NUCLEUS_STATE_DIR", dir)
	s, err := store.Open("")
	if err != nil {
		t.Fatal(err)
	}
	s.Keeper = keeperCommand(env...)
	t.Cleanup(func() {
		all, err := s.List(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, i := range all {
			b, err := s.Sandbox(i.ID)
			if err == nil {
				err = b.Remove(context.Background(), true)
			}
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Errorf("remove %s: %v", i.ID, err)
			}
		}
	})
	return s
}

// box is a sandbox of a test, with a directory that both sides can write to.
type box struct {
	*store.Sandbox
	t     *testing.T
	store *store.Store
	dir   string // /x inside
}

// create makes a sandbox that runs a script of the shell. It can run the probe.
func create(t *testing.T, s *store.Store, service spec.Service, script string, change ...func(*store.Config)) *box {
	t.Helper()
	dir := t.TempDir()
	c := store.Config{Service: service, Command: []string{"sh", "-c", script}, Sandbox: spec.Sandbox{
		Toolchain: true, Workdir: "/x",
		Volumes: []spec.Volume{{Source: dir, Target: "/x", Writable: true}, {Source: self, Target: probePath, Exec: true}},
	}}
	for _, f := range change {
		f(&c)
	}
	b, err := s.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	return &box{Sandbox: b, t: t, store: s, dir: dir}
}

func start(t *testing.T, s *store.Store, service spec.Service, script string, change ...func(*store.Config)) *box {
	t.Helper()
	b := create(t, s, service, script, change...)
	b.start()
	return b
}

func (b *box) start() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience())
	defer cancel()
	if err := b.Start(ctx); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) info() store.Info {
	b.t.Helper()
	i, err := b.Info(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

// until waits until something is the case.
func (b *box) until(what string, f func(store.Info) bool) store.Info {
	b.t.Helper()
	for deadline := time.Now().Add(patience()); ; time.Sleep(5 * time.Millisecond) {
		i := b.info()
		if f(i) {
			return i
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("never %s; events: %v; now it is %+v", what, b.events(), i)
		}
	}
}

// ended waits until the sandbox has ended and nobody stays with it.
func (b *box) ended() store.Info {
	b.t.Helper()
	return b.until("ended", func(i store.Info) bool { return i.State == "exited" && !i.Kept })
}

// write makes a file that the sandbox sees.
func (b *box) write(name, text string) {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o666); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		b.t.Fatal(err)
	}
}

// lines are the lines of a file that the sandbox writes.
func (b *box) lines(name string) []string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// events are the types of the sandbox's events, each with its attributes in order.
func (b *box) events() (all []string) {
	b.t.Helper()
	list, err := b.store.Events(time.Time{}, time.Time{})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range list {
		if e.ID != b.ID() {
			continue
		}
		text := e.Type
		keys := []string{}
		for k := range e.Attrs {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			text += fmt.Sprintf(" %s=%s", k, e.Attrs[k])
		}
		all = append(all, text)
	}
	return all
}

// wantEvents checks that there are events that begin so, in this order.
func (b *box) wantEvents(want ...string) {
	b.t.Helper()
	all := b.events()
	rest := all
	for _, w := range want {
		i := slices.IndexFunc(rest, func(e string) bool { return strings.HasPrefix(e, w) })
		if i < 0 {
			b.t.Errorf("no event %q where it should be, in %q", w, all)
			return
		}
		rest = rest[i+1:]
	}
}

func (b *box) count(event string) (n int) {
	for _, e := range b.events() {
		if strings.HasPrefix(e, event) {
			n++
		}
	}
	return n
}

// keeperPid is the keeper's process.
func (b *box) keeperPid() int {
	b.t.Helper()
	data, err := os.ReadFile(b.Path("record.json"))
	if err != nil {
		b.t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), `"keeper":`)
	_, rest, ok2 := strings.Cut(rest, `"pid":`)
	n := strings.IndexAny(rest, ",}\n")
	if !ok || !ok2 || n < 0 {
		b.t.Fatalf("no keeper in %s", data)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(rest[:n]))
	if err != nil {
		b.t.Fatal(err)
	}
	return pid
}

// exec runs a program in the sandbox.
func (b *box) exec(arg ...string) string {
	b.t.Helper()
	p, err := b.Process()
	if err != nil {
		b.t.Fatal(err)
	}
	defer p.Close()
	out, err := p.Command(arg[0], arg[1:]...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%q: %v: %s", arg, err, out)
	}
	return string(out)
}

// gone waits until a process has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(patience()); ; time.Sleep(5 * time.Millisecond) {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(data), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives on: %s", pid, data)
		}
	}
}

// rssOf is the memory of a process that is resident, in bytes.
func rssOf(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		t.Fatal(err)
	}
	return n * os.Getpagesize()
}
