package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
)

const namespaces = syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET |
	syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWCGROUP

// bare starts the program in the same namespaces and nothing else.
func bare() error {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	groups := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	c := exec.Command(program)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, UidMappings: ids, GidMappings: groups}
	return c.Run()
}

func sandboxed() error {
	return nucleus.Command(&spec.Sandbox{Toolchain: true}, program).Run()
}

func apiRows(string, string) ([]*row, error) {
	return []*row{
		{name: "bare clone with the same namespaces, and exec", command: "os/exec with Cloneflags", run: bare},
		{name: "no sandbox: fork and exec", command: "os/exec", run: func() error { return exec.Command(program).Run() }},
		{name: "**nucleus**, everything on", command: "nucleus.Command(...).Run()", run: sandboxed},
	}, nil
}

// heapTable shows whether a start depends on the size of the caller. Each size
// is a process of its own.
func heapTable(n int) error {
	fmt.Printf("### In one process with a large heap\n\n| heap | nucleus, everything on | bare clone with the same namespaces |\n|---|---|---|\n")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, mib := range []int{1, 64, 256, 1024} {
		out, err := exec.Command(self, "-heap", strconv.Itoa(mib), "-n", strconv.Itoa(n/3)).Output()
		if err != nil {
			return fmt.Errorf("heap of %d MiB: %w", mib, err)
		}
		fmt.Print(string(out))
	}
	fmt.Println()
	return nil
}

func heapRow(mib, n int) {
	ballast := make([]byte, mib<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	rows := []*row{{name: "nucleus", run: sandboxed}, {name: "bare", run: bare}}
	if err := measure(rows, n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("| %d MiB | %s | %s |\n", mib, ms(rows[0].median()), ms(rows[1].median()))
	ballast[0]++
}

// rateTable measures 500 sandboxes, 8 at a time.
func rateTable(dir, bin string) error {
	const total, workers, rounds = 500, 8, 3
	bwrap, err := bubblewrap(true)
	if err != nil {
		return err
	}
	fmt.Printf("### %d sandboxes, %d at a time\n\n| what | per second | ratio |\n|---|---|---|\n", total, workers)
	ways := []struct {
		name string
		run  func() error
	}{
		{"bubblewrap from the shell", shellLoop(total, workers, bwrap)},
		{"**nucleus run** from the shell", shellLoop(total, workers, []string{bin, "run", "--", program})},
		{"**nucleus** through the Go API, one process", func() error { return parallel(total, workers, sandboxed) }},
	}
	best := make([]time.Duration, len(ways))
	for range rounds {
		for i, w := range ways {
			t0 := time.Now()
			if err := w.run(); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			if d := time.Since(t0); best[i] == 0 || d < best[i] {
				best[i] = d
			}
		}
	}
	for i, w := range ways {
		fmt.Printf("| %s | %.0f | %.2f |\n", w.name, total/best[i].Seconds(), float64(best[0])/float64(best[i]))
	}
	return nil
}

// shellLoop runs a command many times through xargs.
func shellLoop(total, workers int, argv []string) func() error {
	return func() error {
		c := exec.Command("xargs", append([]string{"-P", strconv.Itoa(workers), "-I", "{}"}, argv...)...)
		c.Stdin = strings.NewReader(strings.Repeat("x\n", total))
		c.Stderr = os.Stderr
		return c.Run()
	}
}

func parallel(total, workers int, f func() error) error {
	var wg sync.WaitGroup
	errs := make(chan error, total)
	var started atomic.Int64
	for range workers {
		wg.Go(func() {
			for started.Add(1) <= int64(total) {
				if err := f(); err != nil {
					errs <- err
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}
