package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/nucleus-container/nucleus/store"
)

// openStore opens the caller's state directory. What needs a keeper gets this
// program as one.
func openStore() (*store.Store, error) {
	s, err := store.Open("")
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s.Keeper = []string{self, "supervise"}
	return s, nil
}

// interruptible returns a context that ends when the user wants to.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
}

// atOnce is how many sandboxes a verb works on at the same time.
const atOnce = 16

// each does something to every sandbox that the arguments name, several at the
// same time, and prints the reference of each that it is done with. What fails
// is said, and does not keep the others from it.
func (c *call) each(f func(ctx context.Context, b *store.Sandbox) error) int {
	if len(c.args) == 0 {
		return fail(c.cmd, usageError("no sandbox is named; see nucleus "+c.cmd.name+" --help"))
	}
	s, err := openStore()
	if err != nil {
		return fail(c.cmd, err)
	}
	ctx, cancel := interruptible()
	defer cancel()
	errs := make([]error, len(c.args))
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, ref := range c.args {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			b, err := lookUp(s, ref)
			if err == nil {
				err = f(ctx, b)
			}
			errs[i] = err
		})
	}
	all.Wait()
	code := exitOK
	for i, err := range errs {
		if err != nil {
			fail(c.cmd, err)
			code = exitNo
			continue
		}
		fmt.Println(c.args[i])
	}
	return code
}

// one opens the one sandbox that the first argument names.
func (c *call) one() (*store.Sandbox, error) {
	if len(c.args) == 0 {
		return nil, usageError("no sandbox is named; see nucleus " + c.cmd.name + " --help")
	}
	s, err := openStore()
	if err != nil {
		return nil, err
	}
	return lookUp(s, c.args[0])
}

// failVerb is fail for a verb about a sandbox: what is wrong with that is 1, as
// docker has it.
func failVerb(cmd *command, err error) int {
	if code := fail(cmd, err); code != exitFailed {
		return code
	}
	return exitNo
}
