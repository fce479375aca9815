package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// detach is `nucleus run --detach`.
func (c *call) detach(box *spec.Sandbox) int {
	b, err := c.launch(box)
	if err != nil {
		return fail(c.cmd, err)
	}
	fmt.Println(b.ID())
	return exitOK
}

// launch makes a sandbox and starts it. One that cannot be started is removed.
func (c *call) launch(box *spec.Sandbox) (*store.Sandbox, error) {
	service, err := c.describeService()
	if err != nil {
		return nil, err
	}
	if c.opts.exec.console != "" && kept(service) {
		return nil, usageError("--console-socket gives the terminal away, and somebody would have to stay with this sandbox: leave out what must be looked after")
	}
	// Bad input must not leave a trace: find out before.
	cmd := nucleus.Command(box, c.args[0], c.args[1:]...)
	cmd.Detach = &nucleus.Detach{}
	if _, err := cmd.Plan(); err != nil {
		return nil, err
	}
	if err := checkAudit(box, service.Audit); err != nil {
		return nil, err
	}
	s, err := openStore()
	if err != nil {
		return nil, err
	}
	ctx, cancel := interruptible()
	defer cancel()
	b, err := s.Create(store.Config{Name: box.Name, Sandbox: *box, Command: c.args, Service: service, Labels: c.opts.life.labels})
	if err != nil {
		return nil, err
	}
	warn(box)
	if err := c.begin(ctx, b, box, service); err != nil {
		if rerr := b.Remove(context.WithoutCancel(ctx), true); rerr != nil {
			err = errors.Join(err, fmt.Errorf("and cleaning up: %w", rerr))
		}
		return nil, err
	}
	return b, nil
}

// begin starts the sandbox. With --console-socket nobody stays to hold its terminal.
func (c *call) begin(ctx context.Context, b *store.Sandbox, box *spec.Sandbox, service spec.Service) error {
	path := c.opts.exec.console
	if path == "" {
		if service.Ready != nil || service.Notify {
			defer new(statusLine).show("waiting for it to be ready", 0)()
		}
		return b.Start(ctx)
	}
	p, err := b.Launch(ctx, store.Launch{})
	if err != nil {
		return err
	}
	return errors.Join(sendConsole(path, p.Terminal()), p.Close())
}

// kept reports whether a keeper has something to do other than to hold a terminal.
func kept(s spec.Service) bool {
	return s.NeedsKeeper() || s.Ready != nil || len(s.Hooks.CreateRuntime)+len(s.Hooks.Poststart) > 0
}
