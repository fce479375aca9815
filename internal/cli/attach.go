package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/keeper"
	"github.com/nucleus-container/nucleus/store"
)

var attachCommand = command{
	name:  "attach",
	args:  "SANDBOX",
	words: sandboxWords,
	short: "Come back to a sandbox's terminal, or open a shell in it",
	long: `What it does depends on the sandbox.

A sandbox that was started with a terminal (nucleus run -d -t) is shown on this
one: first what its screen shows, then what happens. Several may be attached at
the same time; the terminal has the size of the last one's. The keys ctrl-p
ctrl-q leave it, and it runs on.

In a sandbox without a terminal it starts a shell, bash or else sh, as nucleus
exec -it does. The shell ends when this terminal does; there are no detach keys.
If standard input is not a terminal, or with --no-stdin, it shows what the
sandbox's program writes from now on, and passes signals on to it.

The exit code is the sandbox's, or the shell's; that of leaving is 0.`,
	examples: [][2]string{
		{"nucleus attach web", "come back to what runs there, or look around"},
		{"nucleus attach --no-stdin web", "only watch"},
		{"nucleus attach --detach-keys ctrl-x,d web", "leave with other keys"},
	},
	flags: [][]flag{attachFlags, helpFlags},
	run:   runAttach,
}

var attachFlags = []flag{
	{group: "Attaching", name: "no-stdin",
		help: "Only watch: no key is passed on, no shell is started.",
		set:  func(o *options, _ string) error { o.exec.noStdin = true; return nil }},
	{name: "detach-keys", arg: "KEYS",
		help: "Leave with these keys (ctrl-p,ctrl-q), such as ctrl-x,d; none: never.",
		set:  func(o *options, v string) (err error) { o.exec.keys, err = parseKeys(v); return err }},
	{name: "sig-proxy", arg: "true|false", optional: true, choice: "true false",
		help: "Pass signals on to a program without a terminal (true); false: leave instead.",
		set: func(o *options, v string) (err error) {
			v, err = oneOf(v, "", "true", "false")
			o.exec.noProxy = v == "false"
			return err
		}},
}

// attaching is somebody on the way to a sandbox.
type attaching struct {
	*call
	box   *store.Sandbox
	store *store.Store
	info  store.Info
	name  string // as the user calls it
}

// runAttach is `nucleus attach`.
func runAttach(c *call) int {
	if len(c.args) > 1 {
		return fail(c.cmd, usageError("unexpected argument "+quote(c.args[1])+"; nucleus exec runs programs"))
	}
	if len(c.args) == 0 {
		return fail(c.cmd, usageError("no sandbox is named; see nucleus attach --help"))
	}
	code, err := attachTo(c, c.args[0])
	if err != nil {
		return failSandbox(c.cmd, c.args[0], err)
	}
	return code
}

func attachTo(c *call, name string) (code int, err error) {
	s, err := openStore()
	if err != nil {
		return 0, err
	}
	box, err := lookUp(s, name)
	if err != nil {
		return 0, err
	}
	a := &attaching{call: c, box: box, store: s, name: name}
	if a.info, err = box.Info(context.Background()); err != nil {
		return 0, err
	}
	switch {
	case a.info.State == "paused":
		return 0, cgroup.ErrFrozen
	case !a.info.Running():
		return 0, fmt.Errorf("%s: %w", name, store.ErrNotRunning)
	}
	watch, here := c.opts.exec.noStdin, term.IsTerminal(int(os.Stdin.Fd()))
	if !a.info.Sandbox.Terminal && !watch && here {
		return a.shell()
	}
	if a.info.Sandbox.Terminal && !watch && !here {
		return 0, usageError("the input device is not a terminal; --no-stdin only watches")
	}
	release, err := box.Use()
	if err != nil {
		return 0, err
	}
	defer release()
	if a.info.Sandbox.Terminal {
		return a.terminal()
	}
	return a.follow()
}

// shell starts the first shell that the sandbox has.
func (a *attaching) shell() (code int, err error) {
	a.opts.box.Terminal = true
	j := &joining{call: a.call, name: a.name, box: a.box}
	for _, sh := range [...]string{"bash", "sh"} {
		if code, err = j.try([]string{sh}, true); err == nil || !nucleus.NotFound(err) {
			return code, err
		}
	}
	return code, err
}

// follow shows what the program writes, and passes signals on to it.
func (a *attaching) follow() (code int, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	caught := make(signals, 32)
	caught.catch(forwarded[:]...)
	var left syscall.Signal
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range caught {
			sig := s.(syscall.Signal)
			if a.opts.exec.noProxy {
				left = sig
				cancel()
				return
			}
			if sig != syscall.SIGWINCH { // there is no terminal
				_ = a.box.Signal(ctx, sig) // it has ended
			}
		}
	}()
	err = a.box.Logs(ctx, os.Stdout, os.Stderr, store.LogOptions{Stdout: true, Stderr: true, Follow: true})
	signal.Stop(caught)
	close(caught)
	<-done
	if left != 0 {
		return exitSignal + int(left), nil
	}
	if err != nil {
		return 0, err
	}
	return a.exit()
}

// exit is the exit code of the run that was attached to: it has ended.
func (a *attaching) exit() (code int, err error) {
	i, err := a.box.Info(context.Background())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	if err != nil || !i.Running() {
		i, err = a.box.Wait(context.Background()) // knows also of what was removed at its end
		return i.ExitCode, err
	}
	events, err := a.store.Events(a.info.Started, time.Time{}) // it was started again
	for _, e := range events {
		if e.ID == a.box.ID() && e.Type == "end" {
			return strconv.Atoi(e.Attrs["exit_code"])
		}
	}
	return 0, errors.Join(err, fmt.Errorf("%s has ended, and nothing says how", a.name))
}

// why says why somebody is not attached any more.
type why int

const (
	whyClosed  why = iota // the keeper has ended it
	whyLeft               // the detach keys
	whyStopped            // job control: it comes back
	whySignal
)

// terminal shows the sandbox's terminal on ours until one of the two does not
// want any more.
func (a *attaching) terminal() (code int, err error) {
	caught := make(signals, 32)
	caught.catch(forwarded[:]...)
	t := &joined{attaching: a, caught: caught, left: make(chan struct{}), keys: make(chan []byte)}
	if !a.opts.exec.noStdin {
		t.tty = &terminal{}
		t.tty.raw()
		defer t.tty.close()
		go t.type_()
	}
	for {
		reason, shown, err := t.session()
		if err != nil {
			return 0, err
		}
		switch reason {
		case whyLeft:
			t.tty.close()
			say("nucleus: %s runs on; nucleus attach %s comes back\n", a.name, a.name)
			return exitOK, nil
		case whySignal:
			return exitSignal + int(t.signal), nil
		case whyStopped:
			if t.stop(); t.signal != 0 {
				return exitSignal + int(t.signal), nil
			}
			continue
		}
		if i, err := a.box.Info(context.Background()); err != nil || !i.Running() || !i.Started.Equal(a.info.Started) {
			t.tty.close()
			return a.exit()
		}
		// It runs: we were too slow for it, stopped for example. The last screen
		// is what counts then.
		if !shown {
			return 0, fmt.Errorf("%s: its keeper lets nobody in: too many are attached", a.name)
		}
	}
}

// joined is our terminal while it shows the sandbox's.
type joined struct {
	*attaching
	tty    *terminal
	caught signals
	keys   chan []byte   // typed, without the detach keys
	left   chan struct{} // closed when those are
	signal syscall.Signal
}

// stop stops this program until it is told to go on, or to end.
func (t *joined) stop() {
	t.tty.restore()
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // oneself may always be stopped; it takes a moment
	for s := range t.caught {
		switch sig := s.(syscall.Signal); sig {
		case syscall.SIGCONT:
			t.tty.raw()
			return
		case syscall.SIGWINCH, syscall.SIGTSTP:
		default:
			t.signal = sig
			return
		}
	}
}

// type_ reads keys for as long as there are some.
func (t *joined) type_() {
	detach := keyFilter{keys: t.opts.exec.keys}
	if detach.keys == "" {
		detach.keys = defaultKeys
	}
	for {
		b := make([]byte, 4096)
		n, err := os.Stdin.Read(b)
		out, done := detach.filter(b[:n])
		if len(out) > 0 {
			t.keys <- out
		}
		if done || err != nil { // a terminal that hangs up tells so by a signal, too
			close(t.left)
			return
		}
	}
}

// session is one connection. shown says that something came through it.
func (t *joined) session() (reason why, shown bool, err error) {
	conn, err := keeper.Attach(t.box.Path("keeper.sock"))
	if err != nil {
		if i, ierr := t.box.Info(context.Background()); ierr != nil || !i.Running() {
			return whyClosed, true, nil
		}
		return whyClosed, false, fmt.Errorf("%s: nobody holds its terminal: %w", t.name, err)
	}
	follower := keeper.NewFollower()
	over := make(chan int64, 1)
	go func() {
		n, _ := io.Copy(io.MultiWriter(follower, os.Stdout), conn) // whatever ends it, it has ended
		over <- n
	}()
	stop, pumped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(pumped)
		t.pump(conn, stop)
	}()
	t.resize(conn)
	reason, n := t.serve(conn, over)
	close(stop)
	soon(pumped) // what was typed before the detach keys is the program's
	_ = conn.Close()
	if n < 0 {
		select {
		case n = <-over:
		case <-time.After(patience): // our terminal takes nothing any more
			return reason, true, nil
		}
	}
	_, _ = os.Stdout.Write(follower.Normal()) // as above
	return reason, n > 0, nil
}

// patience is how long to wait for what should take no time.
const patience = 300 * time.Millisecond

func soon(done <-chan struct{}) {
	select {
	case <-done:
	case <-time.After(patience):
	}
}

// pump types what is typed.
func (t *joined) pump(to io.Writer, stop <-chan struct{}) {
	for {
		select {
		case b := <-t.keys:
			if _, err := to.Write(b); err != nil { // the connection is over, which its reader tells
				return
			}
		case <-stop:
			return
		}
	}
}

// serve follows a connection. n is what came through it if it has ended, else -1.
func (t *joined) serve(conn *keeper.Attached, over <-chan int64) (reason why, n int64) {
	for {
		select {
		case n := <-over:
			return whyClosed, n
		case <-t.left:
			return whyLeft, -1
		case s := <-t.caught:
			switch sig := s.(syscall.Signal); sig {
			case syscall.SIGCONT:
				t.tty.raw()
				t.resize(conn)
			case syscall.SIGWINCH:
				t.resize(conn)
			case syscall.SIGTSTP:
				return whyStopped, -1
			default:
				t.signal = sig
				return whySignal, -1
			}
		}
	}
}

// resize tells the keeper the size of our terminal, unless we only watch.
func (t *joined) resize(conn *keeper.Attached) {
	if rows, cols, ok := t.tty.size(); ok {
		_ = conn.Resize(rows, cols) // the connection is over, which its reader tells
	}
}
