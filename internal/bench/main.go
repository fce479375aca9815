// Command bench measures Nucleus beside its peers, on the machine it runs on.
//
// Every row of its table is measured in rounds: one run of each program in a
// random order, then the next round. So a machine that becomes slow is slow for
// all, and what one program leaves the kernel to clean up falls on each alike. It prints
// medians and ratios as Markdown, for docs/PROMISES.md. It installs nothing; a
// peer that is not there is a row that says so.
//
//	go run ./internal/bench [-n 300] [-nucleus bin/nucleus] [-only TITLE]
package main

import (
	"errors"
	"flag"
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
)

func main() {
	n := flag.Int("n", 300, "rounds")
	bin := flag.String("nucleus", "bin/nucleus", "the program to measure")
	only := flag.String("only", "", "measure only the tables with this in their title")
	heap := flag.Int("heap", 0, "internal: run the API rows with this heap in MiB and print them")
	flag.Parse()
	if n, err := strconv.Atoi(os.Getenv(callsEnv)); err == nil {
		makeCalls(n)
		return
	}
	if n, err := strconv.Atoi(os.Getenv(spawnsEnv)); err == nil {
		if err := makeSpawns(n); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if *heap > 0 {
		heapRow(*heap, *n)
		return
	}
	again, err := alone()
	if again {
		os.Exit(exitCode(err))
	}
	path, aerr := filepath.Abs(*bin)
	if err = errors.Join(err, aerr); err == nil {
		err = run(path, *n, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// unified is the version 2 hierarchy of a hybrid machine, which crun refuses.
const unified = "/sys/fs/cgroup/unified"

// alone runs the benchmark again in a mount namespace of its own without that
// hierarchy, so that crun can be measured, and reports whether it did. The
// machine's own mounts stay as they are.
func alone() (again bool, err error) {
	const mark = "NUCLEUS_BENCH_ALONE"
	if os.Getenv(mark) != "" {
		return false, syscall.Unmount(unified, syscall.MNT_DETACH)
	}
	if _, err := os.Stat(unified + "/cgroup.procs"); err != nil || os.Getuid() != 0 {
		return false, nil
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	c := exec.Command(self, os.Args[1:]...)
	c.Env = append(os.Environ(), mark+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // and private, as package syscall does it
	return true, c.Run()
}

func exitCode(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

// row is one thing that is measured.
type row struct {
	name    string
	command string // how a person repeats it
	run     func() error
	after   func() error // what is not measured; nil: nothing
	skip    string       // why it cannot be measured here
	times   []time.Duration
}

func run(bin string, n int, only string) (err error) {
	dir, err := os.MkdirTemp("", "nucleus-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := newLife(dir, bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	fmt.Printf("%s, %d processors, user id %d, %d rounds; milliseconds, start to exit, median; load before: %s\n\n", kernel(), runtime.NumCPU(), os.Getuid(), n, load())
	tables := []struct {
		title string
		base  int // row that ratios are to
		rows  func(dir, bin string) ([]*row, error)
	}{
		{"From the shell: `/bin/true` in a sandbox", 1, shellRows},
		{"Starting the program", 0, versionRows},
		{"In one process, through the Go API: `/bin/true`", 0, apiRows},
		{"Life: `/bin/true` in a sandbox that runs already", 0, l.joinRows},
		{"Life: a sandbox that goes on by itself", 0, l.detachRows},
		{"Life: in one process, through the Go API, a static `true`", 0, l.joinAPIRows},
	}
	for _, t := range tables {
		if !strings.Contains(t.title, only) {
			continue
		}
		rows, err := t.rows(dir, bin)
		if err != nil {
			return err
		}
		if err := measure(rows, n); err != nil {
			return err
		}
		printTable(t.title, rows, t.base)
	}
	for _, t := range []struct {
		title string
		run   func() error
	}{
		{"Life: output", l.logTable},
		{"Policy: calls", callTable},
		{"Policy: programs", spawnTable},
		{"Policy: files", func() error { return treeTable(dir, bin) }},
		{"Heap", func() error { return heapTable(n) }},
		{"Rate", func() error { return rateTable(dir, bin) }},
	} {
		if strings.Contains(t.title, only) {
			if err := t.run(); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure runs the rows in rounds.
func measure(rows []*row, n int) error {
	const warm = 5
	for i := range n + warm {
		for _, k := range rand.Perm(len(rows)) {
			r := rows[k]
			if r.skip != "" {
				continue
			}
			if r.slow() && i%10 != 0 {
				continue
			}
			if err := r.once(i >= warm); err != nil {
				return err
			}
		}
		if i%50 == 0 {
			fmt.Fprintf(os.Stderr, "\r%d of %d rounds ", i, n)
		}
	}
	fmt.Fprint(os.Stderr, "\r                      \r")
	return nil
}

// once runs a row once; if it counts, its time is noted.
func (r *row) once(counts bool) error {
	t0 := time.Now()
	err := r.run()
	if err == nil && counts {
		r.times = append(r.times, time.Since(t0))
	}
	if err == nil && r.after != nil {
		err = r.after()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	return nil
}

// slow reports whether a row takes so long that a tenth of the rounds must do.
func (r *row) slow() bool { return len(r.times) > 3 && r.median() > 12*time.Millisecond }

func (r *row) median() time.Duration { return r.quantile(0.5) }

func (r *row) quantile(q float64) time.Duration {
	s := slices.Sorted(slices.Values(r.times))
	if len(s) == 0 {
		return 0
	}
	return s[int(float64(len(s)-1)*q)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }

func printTable(title string, rows []*row, base int) {
	fmt.Printf("### %s\n\n| what | median | fastest tenth | ratio | command |\n|---|---|---|---|---|\n", title)
	for _, r := range rows {
		if r.skip != "" {
			fmt.Printf("| %s | not measured: %s | | | %s |\n", r.name, r.skip, r.command)
			continue
		}
		ratio := "-"
		if b := rows[base].median(); b > 0 {
			ratio = fmt.Sprintf("%.2f", float64(r.median())/float64(b))
		}
		fmt.Printf("| %s | %s | %s | %s | %s |\n", r.name, ms(r.median()), ms(r.quantile(0.1)), ratio, r.command)
	}
	fmt.Println()
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "Linux"
	}
	return "Linux " + string(b[:len(b)-1])
}

// load is how busy the machine is with other things.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}
