package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// consoleFlags is what commands have that make terminals.
var consoleFlags = []flag{
	{name: "console-socket", arg: "PATH", choice: "<file>",
		help: "With --tty, hand the terminal to the program that listens on this unix socket, as OCI runtimes do, instead of joining it to this one.",
		set:  func(o *options, v string) (err error) { o.exec.console, err = given(v); return err }},
}

// sendConsole hands the master of a terminal to the program that listens on a
// unix socket, as the OCI runtimes do it: one message, the descriptor and its
// name. The caller closes its own, so that the program is hung up on when they do.
func sendConsole(path string, master *os.File) error {
	if master == nil {
		return fmt.Errorf("--console-socket: there is no terminal: %w", os.ErrInvalid)
	}
	s, err := kernel.ConnectUnix(path)
	if err != nil {
		return fmt.Errorf("--console-socket: connect to %s: %w", quote(path), err)
	}
	err = kernel.SendFile(s, "/dev/ptmx", master)
	if err = errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("--console-socket: send the terminal to %s: %w", quote(path), err)
	}
	return nil
}
