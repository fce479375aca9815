package selftest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus"
)

func triesJoin(w *world) []try {
	return []try{run("join a sandbox, and compare namespaces, users, capabilities, filters and files with its own program's", "the same", joinedIsTheSame)}
}

func triesJoinEnd(w *world) []try {
	return []try{run("join a sandbox, and end that", "it has ended", joinedEnds)}
}

// host is a sandbox that runs until it is let go.
type host struct {
	cmd     *nucleus.Cmd
	process *nucleus.Process // as somebody else finds it
	answers []string
	in      io.Closer
}

// start starts a sandbox that answers questions and stays.
func (w *world) start(questions ...string) (*host, error) {
	h := &host{cmd: w.command(&w.plain, append(questions, "wait")...)}
	var id nucleus.Identity
	h.cmd.Born = func(i nucleus.Identity) error { id = i; return nil }
	in, err1 := h.cmd.StdinPipe()
	out, err2 := h.cmd.StdoutPipe()
	h.in = in
	if err := errors.Join(err1, err2, h.cmd.Start()); err != nil {
		return nil, err
	}
	err := json.NewDecoder(out).Decode(&h.answers)
	if err == nil {
		h.process, err = nucleus.Open(id)
	}
	if err != nil {
		return nil, errors.Join(err, h.end())
	}
	return h, nil
}

// end lets it go.
func (h *host) end() error {
	if h.process != nil {
		h.process.Close()
	}
	_ = h.in.Close() // it may have ended
	var exit *nucleus.ExitError
	if err := h.cmd.Wait(); !errors.As(err, &exit) {
		return err
	}
	return nil
}

// join is the probe, joining it.
func (w *world) join(h *host, questions ...string) *nucleus.Cmd {
	c := h.process.Command(probePath(), slices.Concat(w.o.Args, questions)...)
	c.Args[0] = "nucleus"
	c.ExtraFiles = []*os.File{w.image, w.hostDir}
	return c
}

func joinedIsTheSame(w *world) (answer, skip string) {
	ask := []string{fmt.Sprint("readat ", dirFD, " secret"), "read /proc/self/uid_map", "cwd", "fds", "env"}
	for _, ns := range []string{"user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time"} {
		ask = append(ask, "readlink /proc/self/ns/"+ns)
	}
	for _, field := range []string{"Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"} {
		ask = append(ask, "status "+field)
	}
	h, err := w.start(ask...)
	if err != nil {
		return err.Error(), ""
	}
	out, err := w.join(h, ask...).Output()
	var joined []string
	if err = errors.Join(err, h.end()); err == nil {
		err = json.Unmarshal(out, &joined)
	}
	if err != nil || len(joined) != len(ask) || len(h.answers) != len(ask) {
		return fmt.Sprint("no answer: ", err), ""
	}
	for i, q := range ask {
		if joined[i] != h.answers[i] {
			return fmt.Sprintf("%s: %s, and for who joins %s", q, h.answers[i], joined[i]), ""
		}
	}
	return "the same", ""
}

func joinedEnds(w *world) (answer, skip string) {
	h, err := w.start()
	if err != nil {
		return err.Error(), ""
	}
	r, out, err := os.Pipe()
	if err != nil {
		return err.Error(), ""
	}
	defer r.Close()
	c := w.join(h, "hang")
	c.Stdout = out
	err = c.Start()
	_ = out.Close() // the program has it
	if err != nil {
		return errors.Join(err, h.end()).Error(), ""
	}
	said, err := bufio.NewReader(r).ReadString('\n')
	_ = h.cmd.Process.Kill() // it may have ended
	_ = h.end()
	all := w.gone(r)
	if !all {
		_ = c.Process.Kill() // what is left is ours to end
	}
	_ = c.Wait() // how it ended is no matter
	switch {
	case err != nil || said != "hanging\n":
		return fmt.Sprintf("it said %q", said), ""
	case !all:
		return "it is still there", ""
	}
	return "it has ended", ""
}

// supervisorKilled has another Nucleus start a sandbox, and kills that.
func supervisorKilled(w *world) (answer, skip string) {
	if len(w.o.Keep) == 0 {
		return "", "there is no other program to kill"
	}
	r, out, err := os.Pipe()
	if err != nil {
		return err.Error(), ""
	}
	defer r.Close()
	var errOut strings.Builder
	cmd := exec.CommandContext(w.ctx, w.o.Keep[0], w.o.Keep[1:]...)
	cmd.Stdout, cmd.Stderr = out, &errOut
	cmd.WaitDelay = time.Millisecond // what it leaves behind may have the pipe
	err = cmd.Start()
	_ = out.Close() // the sandbox has it
	if err != nil {
		return err.Error(), ""
	}
	said, _ := bufio.NewReader(r).ReadString('\n') // what it said decides
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	switch {
	case said != "hanging\n":
		return "", "it did not start: " + strings.TrimSpace(errOut.String())
	case !w.gone(r):
		return "the sandbox goes on", ""
	}
	return "the sandbox has ended", ""
}
