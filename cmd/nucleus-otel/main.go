// Command nucleus-otel sends the events of sandboxes to an OpenTelemetry collector.
//
//	nucleus run --events-fd 3 -- make test 3>&1 >&4 | nucleus-otel   (with 4>&1 around it)
//	nucleus-otel --follow /var/log/nucleus-audit.jsonl
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/otel"
)

// version is set by the linker.
var version string

// versionString is the release, or what the go command noted of the source.
func versionString() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

const (
	exitOK      = 0
	exitLost    = 1 // not everything has arrived
	exitUsage   = 2
	flushWithin = 15 * time.Second
	poll        = 200 * time.Millisecond
)

func main() { os.Exit(run(os.Args[1:])) }

// options is what the command line said.
type options struct {
	from    string // the flag that says what is read
	file    string
	follow  bool
	fd      int
	quiet   bool
	timeout time.Duration
}

func run(args []string) int {
	o, done, err := parse(args)
	if done {
		return exitOK
	}
	cfg, cerr := otel.FromEnv(os.Getenv)
	if err = errors.Join(err, cerr); err != nil {
		fmt.Fprintf(os.Stderr, "nucleus-otel: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		return exitUsage
	}
	cfg.Version = versionString()
	last := ""
	cfg.Log = func(format string, a ...any) {
		if text := fmt.Sprintf(format, a...); text != last && !o.quiet { // the same every five seconds helps nobody
			fmt.Fprintf(os.Stderr, "nucleus-otel: %s\n", text)
			last = text
		}
	}
	return send(o, cfg)
}

// send reads to the end, or until it is told to end, and sends what that says.
func send(o options, cfg otel.Config) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if o.follow {
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt)
		defer stop()
	} else {
		signal.Ignore(os.Interrupt) // it is for the other end of the pipe, whose last words are still to come
	}
	x := otel.Start(cfg)
	strange, err := read(ctx, o, x.Take)
	flush, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	sent := x.Close(flush)
	if err != nil {
		fmt.Fprintf(os.Stderr, "nucleus-otel: %v\n", err)
	}
	if strange > 0 {
		fmt.Fprintf(os.Stderr, "nucleus-otel: %d lines were no events\n", strange)
	}
	if !sent.Complete() {
		fmt.Fprintf(os.Stderr, "nucleus-otel: sent %d spans; dropped %d, failed %d, rejected %d; %d reports of metrics, %d missed\n",
			sent.Spans, sent.Dropped, sent.Failed, sent.Rejected, sent.Reports, sent.Missed)
	}
	if err != nil || strange > 0 || !sent.Complete() {
		return exitLost
	}
	return exitOK
}

// read reads from where the command line says.
func read(ctx context.Context, o options, take func(event.Record)) (int, error) {
	var in io.ReadCloser = os.Stdin
	switch {
	case o.follow:
		return otel.Follow(ctx, o.file, poll, take)
	case o.file != "":
		f, err := os.Open(o.file)
		if err != nil {
			return 0, err
		}
		in = f
	case o.fd > 0:
		in = os.NewFile(uintptr(o.fd), "events")
	}
	type result struct {
		strange int
		err     error
	}
	done := make(chan result, 1)
	events := make(chan event.Record, 1024)
	go func() { // a read cannot be interrupted: it is left behind at the end
		n, err := otel.Read(in, func(r event.Record) { events <- r })
		done <- result{n, err}
		close(events)
	}()
	for {
		select {
		case r, ok := <-events:
			if !ok {
				end := <-done
				return end.strange, end.err
			}
			take(r)
		case <-ctx.Done():
			return 0, nil
		}
	}
}

// parse reads the command line. done says that everything is said.
func parse(args []string) (o options, done bool, err error) {
	o.timeout = flushWithin
	for len(args) > 0 {
		name, v, has := strings.Cut(args[0], "=")
		args = args[1:]
		value := func() string {
			if !has && len(args) > 0 {
				v, args = args[0], args[1:]
			} else if !has {
				err = fmt.Errorf("%s needs a value", name)
			}
			return v
		}
		switch name {
		case "--help", "-h":
			fmt.Print(help())
			return o, true, nil
		case "--version":
			fmt.Println("nucleus-otel", versionString())
			return o, true, nil
		case "--man":
			fmt.Print(manPage())
			return o, true, nil
		case "--follow":
			o.file, o.follow = value(), true
		case "--file":
			o.file = value()
		case "--fd":
			n, e := strconv.Atoi(value())
			if o.fd = n; e != nil || n < 3 {
				return o, false, errors.New("--fd: a number, 3 or more, is meant")
			}
		case "--flush-timeout":
			var e error
			if o.timeout, e = time.ParseDuration(value()); e != nil || o.timeout <= 0 {
				return o, false, errors.New("--flush-timeout: a duration such as 15s is meant")
			}
		case "--quiet", "-q":
			o.quiet = true
		default:
			return o, false, unknown(name)
		}
		if err == nil {
			err = o.reads(name)
		}
		if err != nil {
			return o, false, err
		}
	}
	return o, false, nil
}

// reads notes which flag says what is read: there can be one.
func (o *options) reads(flag string) error {
	if flag != "--follow" && flag != "--file" && flag != "--fd" {
		return nil
	}
	if o.from != "" && o.from != flag {
		return fmt.Errorf("%s and %s exclude each other", o.from, flag)
	}
	o.from = flag
	return nil
}

func unknown(arg string) error {
	if !strings.HasPrefix(arg, "-") {
		return fmt.Errorf("unexpected argument %q: nucleus-otel takes flags only; see nucleus-otel --help", arg)
	}
	return fmt.Errorf("there is no flag %q; see nucleus-otel --help", arg)
}
