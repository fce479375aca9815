package cli

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/store"
)

var topCommand = command{
	name:  "top",
	args:  "SANDBOX",
	words: sandboxWords,
	short: "List the processes in a sandbox",
	long: `Lists the processes in a sandbox that runs. PID is the host's number of each,
INSIDE the sandbox's. No process of the sandbox can hide from this list.` + references,
	examples: [][2]string{{"nucleus top web", "what does it do?"}},
	flags:    [][]flag{formatFlags, helpFlags},
	run:      runTop,
}

// topRow is a process, for people: printable text.
type topRow struct {
	Pid, Inside, Parent, User, UID, State, Threads, RSS, Time, Command string
	asItem
}

func topHeading() topRow {
	return topRow{
		Pid: "PID", Inside: "INSIDE", Parent: "PARENT", User: "USER", UID: "UID", State: "STATE", Threads: "THREADS",
		RSS: "RSS", Time: "TIME", Command: "COMMAND",
	}
}

// runTop is `nucleus top`.
func runTop(c *call) int {
	if code, done := c.lookup(1, 1); done {
		return code
	}
	f, err := c.format(topRow{}, true)
	if err != nil {
		return fail(c.cmd, err)
	}
	b, err := c.one()
	if err != nil {
		return failVerb(c.cmd, err)
	}
	i, err := b.Info(context.Background())
	if err != nil {
		return failVerb(c.cmd, err)
	}
	all, err := processes(b)
	if err != nil {
		return failVerb(c.cmd, err)
	}
	rows := make([]topRow, len(all))
	for at, p := range all {
		rows[at] = topRow{
			Pid: strconv.Itoa(p.Pid), Inside: strconv.Itoa(p.Inside), Parent: strconv.Itoa(p.Parent),
			User: userInside(&i, p.UID), UID: strconv.Itoa(int(p.UID)), State: printable(p.State), Threads: strconv.Itoa(p.Threads),
			RSS: amount(p.RSS), Time: clock(p.CPU), Command: commandText(&p), asItem: asItem{p},
		}
	}
	return printRows(c, f, topHeading(), rows, func(r topRow) []string {
		return []string{r.Pid, r.Inside, r.User, r.State, r.Threads, r.RSS, r.Time, r.Command}
	})
}

func processes(b *store.Sandbox) ([]nucleus.ProcessInfo, error) {
	p, err := b.Process()
	if err != nil {
		return nil, err
	}
	all, err := p.Processes()
	return all, errors.Join(err, p.Close())
}

// commandText leaves out where the sandbox's init, which is ours, looked for the program.
func commandText(p *nucleus.ProcessInfo) string {
	if p.Inside == 1 {
		name, _, _ := strings.Cut(p.Command, " ")
		return printable(name)
	}
	return printable(p.Command)
}

// userInside is what the sandbox's own /etc/passwd calls a user, as Nucleus makes it.
func userInside(i *store.Info, uid uint32) string {
	switch {
	case uid == i.Sandbox.User.UID && i.Sandbox.User.Name != "":
		return printable(i.Sandbox.User.Name)
	case uid == 0:
		return "root"
	}
	return strconv.FormatUint(uint64(uid), 10)
}
