// Command suite builds every test binary of the module and runs it in the
// environments that a sandbox meets: as root, as an ordinary user, both again in a
// virtual machine with systemd and cgroup v2, and some with a newer kernel. It says what failed, what was
// skipped for which reason, and counts, and it fails if there is nothing to count.
//
//	go run ./internal/suite -root -user
//	go run ./internal/suite -guest -run TestFreeze ./internal/cgroup
//
// It is not a replacement for go test while working on one package.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// config is what the flags say.
type config struct {
	root, user, guest bool
	check             bool
	run               string
	timeout           time.Duration // of one test binary, on this machine
	patterns          []string
}

func main() {
	var c config
	var dir, env string
	flag.BoolVar(&c.root, "root", false, "run as root on this machine")
	flag.BoolVar(&c.user, "user", false, "run as an ordinary user on this machine")
	flag.BoolVar(&c.guest, "guest", false, "run as both in a virtual machine, and some with a newer kernel")
	flag.BoolVar(&c.check, "check", false, "run the tests about the shape of the module, as whoever we are")
	flag.StringVar(&c.run, "run", "", "only tests that match `regexp`")
	flag.DurationVar(&c.timeout, "timeout", 3*time.Minute, "limit of one package")
	flag.StringVar(&dir, "exec", "", "run what is staged in `dir` and write results: used by suite itself")
	flag.StringVar(&env, "env", "", "name of the environment, with -exec")
	flag.Parse()
	c.patterns = flag.Args()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := start(ctx, c, dir, env)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "suite:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, c config, dir, env string) error {
	if dir != "" {
		return execute(ctx, stage(dir), env, os.Stdout)
	}
	if !c.root && !c.user && !c.guest && !c.check {
		return fmt.Errorf("nothing to do: give -check, -root, -user or -guest")
	}
	return orchestrate(ctx, c)
}

// orchestrate builds, runs and reports. The report comes even when a part of it
// could not be run, which is then a failure with a name.
func orchestrate(ctx context.Context, c config) error {
	if c.check {
		c.patterns = []string{"./internal/archtest"}
	}
	work, err := os.MkdirTemp("", "suite-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil { // the ordinary user reads it
		return err
	}
	st := stage(filepath.Join(work, "stage"))
	var all report
	if err := build(ctx, st, c, &all); err != nil {
		return err
	}
	for _, e := range c.environments(work, st) {
		if err := e.run(ctx, &all); err != nil {
			all.add(result{Env: e.name, Pkg: "(environment)", Exit: 1, Output: err.Error()})
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := all.print(os.Stdout); err != nil {
		return err
	}
	if !all.good() {
		os.RemoveAll(work)
		os.Exit(1) // the last line on stdout has said it
	}
	return nil
}

// environment is a place to run the staged tests in.
type environment struct {
	name string
	run  func(context.Context, *report) error
}

func (c config) environments(work string, st stage) []environment {
	var all []environment
	if c.check {
		all = append(all, environment{"check", func(ctx context.Context, r *report) error {
			return runHere(ctx, st, "check", filepath.Join(work, "c"), nil, r)
		}})
	}
	if c.root {
		all = append(all, environment{"root", func(ctx context.Context, r *report) error {
			return runRoot(ctx, st, filepath.Join(work, "r"), r)
		}})
	}
	if c.user {
		all = append(all, environment{"user", func(ctx context.Context, r *report) error {
			return runUser(ctx, st, filepath.Join(work, "u"), r)
		}})
	}
	if c.guest {
		all = append(all, environment{"guest", func(ctx context.Context, r *report) error {
			return runGuest(ctx, st, work, r)
		}})
	}
	return all
}

// progress writes one line for the people who wait.
func progress(format string, args ...any) {
	fmt.Fprintf(io.Writer(os.Stderr), format+"\n", args...)
}
