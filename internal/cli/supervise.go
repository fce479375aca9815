package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/keeper"
)

var superviseCommand = command{
	name:   "supervise",
	args:   "ID",
	hidden: true,
	short:  "Start a sandbox and stay with it",
	long: `Starts a sandbox that was created, and stays with it as its keeper: it starts it
again, asks for its health, stops it when it is idle. Nucleus calls this itself
for sandboxes that need it. SIGTERM stops the sandbox and then the keeper.`,
	flags: [][]flag{helpFlags},
	run:   runSupervise,
}

// reportFD is where whoever starts a keeper waits for its word.
const reportFD = 3

// keeperGC makes the collector work more and the keeper smaller: it allocates
// little, and waits most of the time.
const keeperGC = 25

// runSupervise is `nucleus supervise`.
func runSupervise(c *call) int {
	report := reportPipe() // first: another file could get the number
	debug.SetGCPercent(keeperGC)
	if len(c.args) != 1 {
		return fail(c.cmd, usageError("exactly one sandbox is supervised; see nucleus supervise --help"))
	}
	s, err := openStore()
	if err != nil {
		return fail(c.cmd, err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	// Caught, not ignored: what is ignored is so in every program that we start.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	if err := keeper.Run(ctx, s, c.args[0], report); err != nil {
		return fail(c.cmd, err)
	}
	return exitOK
}

// reportPipe is the pipe that this program was started with, which nothing that
// it starts may inherit: its reader waits for the last writer. Started by hand it
// has none, and nobody waits for its report.
func reportPipe() io.WriteCloser {
	var st syscall.Stat_t
	if err := syscall.Fstat(reportFD, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return nobody{}
	}
	syscall.CloseOnExec(reportFD)
	return os.NewFile(reportFD, "report")
}

// nobody reads a report.
type nobody struct{}

func (nobody) Write(b []byte) (int, error) { return len(b), nil }
func (nobody) Close() error                { return nil }
