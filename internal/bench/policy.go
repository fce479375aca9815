package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/policy/seccomp"
	"github.com/nucleus-container/nucleus/spec"
)

// callsEnv makes this program one that makes so many calls of getppid and prints
// how long that took: what starting it costs is not in it.
const callsEnv = "NUCLEUS_BENCH_CALLS"

const calls = 5_000_000

// makeCalls is that program.
func makeCalls(n int) {
	t0 := time.Now()
	for range n {
		_ = syscall.Getppid() // one system call, and nothing around it
	}
	fmt.Println(time.Since(t0).Nanoseconds())
}

// spawnsEnv makes this program one that executes so many programs, one after the other.
const spawnsEnv = "NUCLEUS_BENCH_SPAWNS"

const spawns = 500

// makeSpawns is that program.
func makeSpawns(n int) error {
	t0 := time.Now()
	for range n {
		if err := exec.Command("/bin/true").Run(); err != nil {
			return err
		}
	}
	_, err := fmt.Println(time.Since(t0).Nanoseconds())
	return err
}

// spawnTable measures what it costs a program that executes others that somebody
// would see it being refused that.
func spawnTable() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	env := spawnsEnv + "=" + strconv.Itoa(spawns)
	box := &spec.Sandbox{Toolchain: true, Volumes: []spec.Volume{{Source: self, Target: "/bench", Exec: true}}, Env: []string{env}}
	ways := []*way{
		{row{name: "**nucleus**"}, inside(box, nil)},
		{row{name: "**nucleus**, refusals seen and explained"}, inside(box, &nucleus.Watch{})},
		{row{name: "**nucleus**, refused files too"}, inside(box, &nucleus.Watch{Level: nucleus.Files})},
	}
	return table(ways, 15, "Executing a program (`true`), microseconds", spawns*1000)
}

// way is a way to run a program: its own measurement of itself.
type way struct {
	row
	self func() (time.Duration, error)
}

func (w *way) once() error {
	d, err := w.self()
	w.times = append(w.times, d)
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	return nil
}

// callTable measures what a filter costs a call that is allowed.
func callTable() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	env := callsEnv + "=" + strconv.Itoa(calls)
	box := &spec.Sandbox{Volumes: []spec.Volume{{Source: self, Target: "/bench", Exec: true}}, Env: []string{env}}
	ways := []*way{
		{row{name: "no sandbox, no filter"}, func() (time.Duration, error) {
			c := exec.Command(self)
			c.Env = append(os.Environ(), env)
			return took(c.Output())
		}},
		{row{name: "bubblewrap, no namespace, no filter"}, unconfined(self, env, nil)},
		{row{name: "the same with a filter that allows every call: what the kernel takes for having one"}, unconfined(self, env, seccomp.Pass(arch()).Bytes())},
		{row{name: "**nucleus**"}, inside(box, nil)},
		{row{name: "**nucleus**, refusals seen and explained"}, inside(box, &nucleus.Watch{})},
	}
	return table(ways, 15, "One system call (getppid), nanoseconds", calls)
}

func arch() seccomp.Arch {
	if runtime.GOARCH == "arm64" {
		return seccomp.ARM64
	}
	return seccomp.AMD64
}

// unconfined runs the program through bubblewrap on the host's own root, with a filter.
func unconfined(self, env string, filter []byte) func() (time.Duration, error) {
	return func() (_ time.Duration, err error) {
		argv := []string{"--dev-bind", "/", "/", "--seccomp", "3", "--", self}
		if filter == nil {
			argv = slices.Delete(argv, 3, 5)
		}
		c := exec.Command("bwrap", argv...)
		c.Env = append(os.Environ(), env)
		if filter != nil {
			r, w, err := os.Pipe()
			if err != nil {
				return 0, err
			}
			defer r.Close()
			if _, err := w.Write(filter); err != nil { // it fits into the pipe
				return 0, errors.Join(err, w.Close())
			}
			if err := w.Close(); err != nil {
				return 0, err
			}
			c.ExtraFiles = []*os.File{r}
		}
		return took(c.Output())
	}
}

// inside runs this program in a sandbox, as /bench.
func inside(box *spec.Sandbox, w *nucleus.Watch) func() (time.Duration, error) {
	return func() (time.Duration, error) {
		c := nucleus.Command(box, "/bench")
		c.Watch, c.Stderr = w, os.Stderr
		return took(c.Output())
	}
}

func took(out []byte, err error) (time.Duration, error) {
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return time.Duration(n), err
}

// treeTable measures what Landlock and the mounts cost who reads many files.
func treeTable(dir, bin string) error {
	const files = 50_000
	tree := filepath.Join(dir, "tree")
	for i := range files {
		d := filepath.Join(tree, strconv.Itoa(i%100), strconv.Itoa(i/100%10))
		if i < 1000 {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(d, strconv.Itoa(i)), make([]byte, 1024), 0o644); err != nil {
			return err
		}
	}
	defer os.RemoveAll(tree)
	const script = `find "$1" -type f -print0 | xargs -0 cat >/dev/null`
	run := func(argv ...string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			t0 := time.Now()
			c := exec.Command(argv[0], argv[1:]...)
			c.Stderr = os.Stderr
			err := c.Run()
			return time.Since(t0), err
		}
	}
	ways := []*way{
		{row{name: "no sandbox"}, run("sh", "-c", script, "sh", tree)},
		{row{name: "**nucleus run** --context"}, run(bin, "run", "--context", tree, "--", "sh", "-c", script, "sh", "/context")},
	}
	if _, err := exec.LookPath("bwrap"); err == nil {
		ways = append(ways, &way{row{name: "bubblewrap"}, run("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "sh", "-c", script, "sh", tree)})
	}
	return table(ways, 15, fmt.Sprintf("`find` and `cat` over %d files, microseconds for a file", files), files*1000)
}

// table measures ways in rounds and prints them, each time divided by a number.
func table(ways []*way, rounds int, title string, by float64) error {
	for i := range rounds + 1 {
		for _, k := range rand.Perm(len(ways)) {
			if err := ways[k].once(); err != nil {
				return err
			}
			if i == 0 {
				ways[k].times = nil // the first round warms up
			}
		}
	}
	fmt.Printf("### %s, %d rounds\n\n| what | median | fastest tenth | ratio |\n|---|---|---|---|\n", title, rounds)
	for _, w := range ways {
		fmt.Printf("| %s | %.2f | %.2f | %.3f |\n", w.name, float64(w.median())/by, float64(w.quantile(0.1))/by, float64(w.median())/float64(ways[0].median()))
	}
	fmt.Println()
	return nil
}
