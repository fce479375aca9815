package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/store"
)

// life measures sandboxes that outlive their starter. It keeps one of each kind
// running, to join it.
type life struct {
	dir, bin string
	box      string // ours
	runtimes []ociRuntime
	process  *nucleus.Process
	next     int // number of the next sandbox
}

// ociRuntime is an OCI runtime with a bundle whose program sleeps.
type ociRuntime struct {
	name, bundle, state, skip string
}

const sleeper = "1000000"

// newLife starts what is joined. State and logs are the benchmark's own.
func newLife(dir, bin string) (*life, error) {
	l := &life{dir: dir, bin: bin, box: "nucleus-bench"}
	err := errors.Join(os.Setenv("NUCLEUS_STATE_DIR", dir+"/state"), os.Setenv("NUCLEUS_LOG_DIR", dir+"/log"))
	if err != nil {
		return nil, err
	}
	if err := quiet(bin, "run", "-d", "--name", l.box, "--", "sleep", sleeper); err != nil {
		return nil, err
	}
	s, err := store.Open("")
	if err != nil {
		return nil, err
	}
	box, err := s.Sandbox(l.box)
	if err != nil {
		return nil, err
	}
	if l.process, err = box.Process(); err != nil {
		return nil, err
	}
	for _, name := range []string{"crun", "runc"} {
		l.runtimes = append(l.runtimes, newRuntime(dir, name))
	}
	return l, nil
}

func newRuntime(dir, name string) ociRuntime {
	r := ociRuntime{name: name, bundle: filepath.Join(dir, "life-"+name), state: filepath.Join(dir, "life-state-"+name)}
	if _, err := exec.LookPath(name); err != nil {
		r.skip = name + " is not installed"
		return r
	}
	if os.Getuid() != 0 {
		r.skip = "measured as root only"
		return r
	}
	err := ociBundle(r.bundle, name)
	if err == nil {
		err = sleepingBundle(r.bundle)
	}
	if err == nil {
		err = quiet(r.detached("joined")...)
	}
	if err != nil {
		r.skip = "it does not start here: " + err.Error()
	}
	return r
}

// sleepingBundle makes the bundle's program one that goes on.
func sleepingBundle(bundle string) error {
	file := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		return err
	}
	doc["process"].(map[string]any)["args"] = []string{"/bin/sleep", sleeper}
	if b, err = json.Marshal(doc); err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// id is the name of one of the runtime's containers.
func (r ociRuntime) id(what string) string { return "nucleus-bench-" + r.name + "-" + what }

func (r ociRuntime) detached(what string) []string {
	return []string{r.name, "--root", r.state, "run", "--detach", "--bundle", r.bundle, r.id(what)}
}

func (r ociRuntime) remove(what string) error {
	return quiet(r.name, "--root", r.state, "delete", "--force", r.id(what))
}

// quiet runs a program; what it says is told only if it fails. Its output is a
// file, because what it leaves running may hold on to it.
func quiet(argv ...string) error {
	out, err := os.CreateTemp("", "nucleus-bench-output-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close() // it was only read
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = out, out
	if err := c.Run(); err != nil {
		said, _ := os.ReadFile(out.Name()) // only words about the other error
		return fmt.Errorf("%s: %w: %s", shorten(strings.Join(argv, " ")), err, said)
	}
	return nil
}

// close ends what was started.
func (l *life) close() error {
	err := errors.Join(l.process.Close(), quiet(l.bin, "rm", "-f", l.box))
	for _, r := range l.runtimes {
		if r.skip == "" {
			err = errors.Join(err, r.remove("joined"))
		}
	}
	return err
}

// joinRows start a program in a sandbox that runs.
func (l *life) joinRows(string, string) ([]*row, error) {
	rows := []*row{
		command("**nucleus run**, everything on: a new sandbox", l.bin, "run", "--", program),
		command("**nucleus exec**, everything on", l.bin, "exec", l.box, "--", program),
	}
	for _, r := range l.runtimes {
		exec := command(r.name+" exec, its own defaults", r.name, "--root", r.state, "exec", r.id("joined"), program)
		exec.skip = r.skip
		rows = append(rows, exec)
	}
	return rows, nil
}

// detachRows start a program and return when it runs. It is removed again while
// nobody looks at the clock.
func (l *life) detachRows(string, string) ([]*row, error) {
	detached := &row{name: "**nucleus run --detach**, everything on, with a logger", command: "`nucleus run --detach -- sleep " + sleeper + "`"}
	detached.run = func() error {
		l.next++
		return quiet(l.bin, "run", "--detach", "--name", "nucleus-bench-"+strconv.Itoa(l.next), "--", "sleep", sleeper)
	}
	detached.after = func() error { return quiet(l.bin, "rm", "--force", "nucleus-bench-"+strconv.Itoa(l.next)) }
	whole := &row{name: "**nucleus run**, everything on: a whole life", command: "`nucleus run -- " + program + "`"}
	whole.run = func() error { return quiet(l.bin, "run", "--", program) }
	rows := []*row{whole, detached}
	for _, r := range l.runtimes {
		rows = append(rows, &row{
			name: r.name + " run --detach, its own defaults, no logger", command: "`" + r.name + " run --detach --bundle DIR/" + r.name + " ...`", skip: r.skip,
			run: func() error { return quiet(r.detached("detached")...) }, after: func() error { return r.remove("detached") },
		})
	}
	return rows, nil
}

// joinAPIRows start a static program in one process.
func (l *life) joinAPIRows(string, string) ([]*row, error) {
	const static = "/usr/bin/busybox"
	rows := []*row{
		{name: "no sandbox: fork and exec", command: "os/exec, `" + static + " true`", run: func() error { return exec.Command(static, "true").Run() }},
		{name: "**nucleus**, joined, everything on", command: "Process.Command(...).Run()", run: func() error { return l.process.Command(static, "true").Run() }},
	}
	if _, err := os.Stat(static); err != nil {
		for _, r := range rows {
			r.skip = "busybox is not installed"
		}
	}
	return rows, nil
}

// logTable measures how fast a workload can write its log.
func (l *life) logTable() error {
	const rounds, mib = 7, 1024
	file := filepath.Join(l.dir, "output")
	dd := []string{"dd", "if=/dev/zero", "bs=64k", "count=" + strconv.Itoa(mib*16), "status=none"}
	ways := []*row{
		{name: "standard output is a file", command: "nucleus run -- dd ... >FILE", run: func() error { return toFile(file, append([]string{l.bin, "run", "--"}, dd...)) }},
		{name: "standard output is a pipe, read by cat >FILE", command: "nucleus run -- dd ... \\| cat >FILE", run: func() error {
			return toFile(file, []string{"sh", "-c", `"$@" | cat`, "sh", l.bin, "run", "--", dd[0], dd[1], dd[2], dd[3], dd[4]})
		}},
		{name: "**nucleus's own log**, within its default limit", command: "nucleus run --detach -- dd ...; nucleus wait", run: func() error {
			if err := quiet(append([]string{l.bin, "run", "--detach", "--name", "nucleus-bench-log", "--"}, dd...)...); err != nil {
				return err
			}
			return quiet(l.bin, "wait", "nucleus-bench-log")
		}, after: func() error { return quiet(l.bin, "rm", "nucleus-bench-log") }},
	}
	for range rounds {
		for _, k := range rand.Perm(len(ways)) {
			if err := ways[k].once(true); err != nil {
				return err
			}
		}
	}
	fmt.Printf("### %d MiB of output, %d rounds\n\n| what | MiB per second, median | slowest, fastest | ratio | command |\n|---|---|---|---|---|\n", mib, rounds)
	rate := func(d time.Duration) float64 { return mib / d.Seconds() }
	for _, w := range ways {
		slices.Sort(w.times)
		fmt.Printf("| %s | %.0f | %.0f, %.0f | %.2f | `%s` |\n", w.name, rate(w.median()), rate(w.times[rounds-1]), rate(w.times[0]),
			rate(w.median())/rate(ways[0].median()), w.command)
	}
	fmt.Println()
	return nil
}

// toFile runs a program with its output in a new file, which it removes.
func toFile(path string, argv []string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = f, os.Stderr
	return errors.Join(c.Run(), f.Close(), os.Remove(path))
}
