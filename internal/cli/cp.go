package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/transfer"
	"github.com/nucleus-container/nucleus/spec"
	"github.com/nucleus-container/nucleus/store"
)

// cpOptions is what the flags of the commands in this file said.
type cpOptions struct{ archive, quiet bool }

// cpCommands are the commands in this file.
var cpCommands = []*command{&cpCommand}

var cpCommand = command{
	name:  "cp",
	args:  "SANDBOX:SRC DST | SRC SANDBOX:DST",
	short: "Copy files between a sandbox and the host",
	long: `Copies a file or a directory out of a running sandbox, or into it. Paths in
the sandbox begin at its root, and are what the sandbox sees. A name with a
colon that is no sandbox is written ./NAME.

If DST is a directory, the copy is made in it; SRC/. is what is in SRC. If DST
does not exist its parent directory must, and a file needs a DST without a
slash at its end. A link is copied as a link, and followed only if a slash
follows it. - instead of the host's path is an archive, as tar(1) has them, on
standard input or output.

What is done in the sandbox is done as its user, without the caller's rights.
Files made there are that user's; files made on the host are the caller's, and
never setuid, setgid or sticky. Pipes, sockets and devices are left out, and
so are /proc, /dev and /sys of the sandbox.

It exits with 1 if something could not be copied.`,
	examples: [][2]string{
		{"nucleus cp web:/tmp/report.pdf .", "take a file out"},
		{"nucleus cp config.json web:/tmp/", "put one in"},
		{"nucleus cp site/. web:/workspace", "put in what is in a directory"},
		{"nucleus cp web:/workspace - | tar -t", "look at what is there"},
	},
	flags: [][]flag{cpFlags, helpFlags},
	run:   runCp,
}

var cpFlags = []flag{
	{group: "Copying", name: "archive", short: "a",
		help: "Keep permissions and times. Without it, permissions are subject to the umask and the copy is new.",
		set:  func(o *options, _ string) error { o.cp.archive = true; return nil }},
	{name: "quiet", short: "q",
		help: "Show no progress, and do not tell what is left out because it is no file.",
		set:  func(o *options, _ string) error { o.cp.quiet = true; return nil }},
}

// runCp is `nucleus cp`.
func runCp(c *call) int {
	if len(c.args) != 2 {
		return fail(c.cmd, usageError("name what to copy and where to; see nucleus cp --help"))
	}
	src, dst := parsePlace(c.args[0]), parsePlace(c.args[1])
	if err := checkPlaces(src, dst); err != nil {
		return fail(c.cmd, err)
	}
	ctx, cancel := interruptible()
	defer cancel()
	defer context.AfterFunc(ctx, cancel)() // a second signal ends us as it would others
	res, err := copyBetween(ctx, src, dst, &c.opts)
	switch {
	case err != nil && ctx.Err() != nil:
		say("nucleus: interrupted after %d files\n", res.Files)
		return exitSignal + 2 // SIGINT, as a shell says it
	case err != nil:
		return failVerb(c.cmd, err)
	case res.Failed > 0:
		say("nucleus: %d of %d files were not copied\n", res.Failed, res.Failed+res.Files)
		return exitNo
	}
	return exitOK
}

// cpPlace is one end of a copy.
type cpPlace struct {
	box    string // empty: the host
	path   string
	stream bool
}

// parsePlace reads SANDBOX:PATH, PATH or "-". What begins like a path is one.
func parsePlace(arg string) cpPlace {
	if arg == "-" {
		return cpPlace{stream: true}
	}
	box, rest, found := strings.Cut(arg, ":")
	if !found || box == "" || arg[0] == '.' || strings.Contains(box, "/") {
		return cpPlace{path: arg}
	}
	return cpPlace{box: box, path: rest}
}

func checkPlaces(src, dst cpPlace) error {
	switch {
	case src.box != "" && dst.box != "":
		return usageError(fmt.Sprintf("files are not copied from sandbox to sandbox; pass them on with nucleus cp %s:... - | nucleus cp - %s:...", src.box, dst.box))
	case src.box == "" && dst.box == "":
		return usageError("neither path is in a sandbox: one must be SANDBOX:PATH")
	case src.path == "" && !src.stream, dst.path == "" && !dst.stream:
		return usageError("the path is empty")
	case dst.stream && term.IsTerminal(int(os.Stdout.Fd())):
		return usageError("an archive is not written to a terminal")
	case src.stream && term.IsTerminal(int(os.Stdin.Fd())):
		return usageError("an archive is not read from a terminal")
	}
	return nil
}

// copyBetween copies, and makes sure that the sandbox was there all the time.
func copyBetween(ctx context.Context, src, dst cpPlace, o *options) (res transfer.Result, err error) {
	s, err := openStore()
	if err != nil {
		return res, err
	}
	b, err := s.Sandbox(src.box + dst.box)
	if err != nil {
		return res, err
	}
	release, err := b.Use()
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, release()) }()
	p, err := b.Process()
	if err != nil {
		return res, worded(ctx, b, err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	root, err := p.Root()
	if err != nil {
		return res, err
	}
	defer root.Close()
	to, err := cpRights(ctx, b, p)
	if err != nil {
		return res, err
	}
	show := &cpProgress{began: time.Now(), tty: !o.cp.quiet && term.IsTerminal(int(os.Stderr.Fd()))}
	to.Archive, to.Warn, to.Progress = o.cp.archive, show.warn, show.bytes
	if o.cp.quiet {
		to.Skip = func(string) {}
	}
	res, err = copyFiles(ctx, b, root, src, dst, to)
	show.clear()
	// Its mounts go with it: what is still held of its root is not what it was.
	again, gone := p.Root()
	if gone != nil {
		return res, errors.Join(err, errors.New("the sandbox ended meanwhile, and the copy may lack files"))
	}
	return res, errors.Join(err, again.Close())
}

// copyFiles tells that files are copied, and copies them.
func copyFiles(ctx context.Context, b *store.Sandbox, root *os.File, src, dst cpPlace, to transfer.Options) (res transfer.Result, err error) {
	if src.box != "" {
		err = b.LogCopy("out", src.path)
	} else {
		err = b.LogCopy("in", dst.path)
	}
	if err != nil {
		return res, err
	}
	switch {
	case dst.stream:
		out := bufio.NewWriterSize(os.Stdout, 1<<20)
		if res, err = transfer.OutTar(ctx, root, src.path, out, to); err == nil {
			err = out.Flush()
		}
	case src.stream:
		res, err = transfer.InTar(ctx, interruptibleReader(ctx, os.Stdin), root, dst.path, to)
	case src.box != "":
		res, err = transfer.Out(ctx, root, src.path, dst.path, to)
	default:
		res, err = transfer.In(ctx, src.path, root, dst.path, to)
	}
	return res, err
}

// cpRights are those of the sandbox's user, by the numbers that the host knows.
func cpRights(ctx context.Context, b *store.Sandbox, p *nucleus.Process) (transfer.Options, error) {
	i, err := b.Info(ctx)
	if err != nil {
		return transfer.Options{}, err
	}
	user := i.Sandbox.User
	if i.Sandbox.Userns == spec.UsernsPrivate && p.HostID(0) == 0 {
		// No range of ids was reserved: the sandbox's only user is the caller.
		return transfer.Options{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, nil
	}
	return transfer.Options{UID: p.HostID(user.UID), GID: p.HostID(user.GID)}, nil
}

// interruptibleReader reads until ctx is done. A read from a pipe cannot be
// interrupted, so it is left to a goroutine that ends with the program.
func interruptibleReader(ctx context.Context, r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		_, err := io.Copy(pw, r)
		pw.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { pw.CloseWithError(ctx.Err()) })
	return pr
}

// cpProgress tells what happens while a copy takes its time.
type cpProgress struct {
	tty   bool
	began time.Time

	mu     sync.Mutex
	shown  time.Time
	warned int
}

// mostWarnings is how many lines a sandbox can make us print.
const mostWarnings = 50

func (p *cpProgress) warn(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.warned++; p.warned <= mostWarnings {
		p.erase()
		say("nucleus: %s\n", text)
	}
}

func (p *cpProgress) bytes(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.tty || now.Sub(p.began) < time.Second || now.Sub(p.shown) < 200*time.Millisecond {
		return
	}
	p.shown = now
	say("\r%s copied, %s/s\x1b[K", cpAmount(n), cpAmount(int64(float64(n)/now.Sub(p.began).Seconds())))
}

func (p *cpProgress) erase() {
	if !p.shown.IsZero() {
		say("\r\x1b[K")
		p.shown = time.Time{}
	}
}

// clear leaves the terminal as it was.
func (p *cpProgress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	if more := p.warned - mostWarnings; more > 0 {
		say("nucleus: %d more warnings are not shown\n", more)
	}
}

// cpAmount writes an amount for people: 1.5 MiB.
func cpAmount(n int64) string {
	v, unit := float64(n), "B"
	for _, u := range [...]string{"KiB", "MiB", "GiB", "TiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}
