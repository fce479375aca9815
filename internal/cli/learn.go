package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/audit"
	"github.com/nucleus-container/nucleus/policy/files"
	"github.com/nucleus-container/nucleus/policy/learn"
	"github.com/nucleus-container/nucleus/spec"
)

// learnOptions is what the flags about learning said.
type learnOptions struct {
	record string
	merge  bool
	mode   string // of --seccomp-mode
	log    string // of --seccomp-log
	out    string // where what is generated goes
}

// learnFlags have what a program does be recorded.
var learnFlags = []flag{
	{group: "Learning", name: "learn", arg: "FILE", choice: "<file>",
		help: "Record what the program does in a file, for nucleus policy generate. What is refused is refused all the same. The program runs slower.",
		set:  func(o *options, v string) (err error) { o.learn.record, err = given(v); return err }},
	{name: "learn-append",
		help: "Add to the record that the file holds, in place of writing it anew.",
		set:  func(o *options, _ string) error { o.learn.merge = true; return nil }},
	{name: "seccomp-mode", arg: "normal|trace", choice: "normal trace",
		help: "With trace, count the system calls that the program makes in the file of --seccomp-log. What is refused is refused all the same.",
		set: func(o *options, v string) (err error) {
			if v == "enforce" { // another name of the same, for habit's sake
				v = "normal"
			}
			o.learn.mode, err = oneOf(v, "normal", "trace")
			return err
		}},
	{name: "seccomp-log", arg: "FILE", choice: "<file>",
		help: "Where --seccomp-mode trace writes its counts, a line of JSON for each call.",
		set:  func(o *options, v string) (err error) { o.learn.log, err = given(v); return err }},
}

// learning refuses flags about learning that contradict each other or others.
func (o *options) learning() error {
	l := &o.learn
	flag := "--learn"
	if l.mode == "trace" {
		flag = "--seccomp-mode trace"
	}
	switch {
	case l.mode == "trace" && l.log == "":
		return usageError("--seccomp-mode trace needs --seccomp-log FILE")
	case l.mode != "trace" && l.log != "":
		return usageError("--seccomp-log needs --seccomp-mode trace")
	case l.merge && l.record == "":
		return usageError("--learn-append needs --learn FILE")
	case l.mode == "trace" && l.record != "":
		return usageError("--learn and --seccomp-mode trace exclude each other: --learn counts system calls too")
	case l.record == "" && l.mode != "trace":
		return nil
	case o.box.Mode.Demands(spec.ModeStrictAgent):
		return usageError(o.box.Mode.String() + ": no-trace: " + flag + " has every call of the program watched; learn in agent mode, with the same policy")
	case o.life.detach:
		return usageError(flag + " and --detach exclude each other: nobody would be there to learn")
	case o.life.asked != "":
		return usageError(flag + " and --" + o.life.asked + " exclude each other")
	}
	return nil
}

// mostLearned bounds the different calls that are remembered while learning, in
// some tens of megabytes.
const mostLearned = 100_000

// learn has cmd watched as the flags say, and returns what writes down what was
// seen once it has ended.
func (c *call) learn(cmd *nucleus.Cmd) (save func() error, err error) {
	l := &c.opts.learn
	if err := c.opts.distinct(); err != nil { // this is called before anything is opened
		return nil, err
	}
	switch {
	case l.record != "":
		out, data, err := holdOutput(cmd.Sandbox, "--learn", l.record, isRecord)
		if err != nil {
			return nil, err
		}
		var old *learn.Record
		if l.merge && data != nil {
			if old, err = files.ParseRecord(l.record, data); err != nil {
				return nil, errors.Join(usageError("--learn-append: "+err.Error()), out.dir.Close())
			}
		}
		cmd.Watch = &nucleus.Watch{Level: nucleus.Everything, Most: mostLearned}
		return func() error { return errors.Join(saveRecord(out, cmd, old), out.dir.Close()) }, nil
	case l.mode == "trace":
		out, _, err := holdOutput(cmd.Sandbox, "--seccomp-log", l.log, isTrace)
		if err != nil {
			return nil, err
		}
		cmd.Watch = &nucleus.Watch{Level: nucleus.Everything, Names: true}
		return func() error { return errors.Join(saveTrace(out, cmd), out.dir.Close()) }, nil
	}
	return func() error { return nil }, nil
}

func isRecord(data []byte) bool { return bytes.HasPrefix(data, []byte(learn.Mark)) }

func isTrace(data []byte) bool { return bytes.HasPrefix(data, []byte(`{"syscall":`)) }

// heldOutput is a file that is written when the program has ended. Its directory
// is held from before the start: whoever moves it, or puts a link in its place,
// does not choose where the file goes.
type heldOutput struct {
	flag, path string
	ours       func([]byte) bool // whether the file may be replaced
	dir        *os.Root
	name       string
}

// holdOutput takes hold of a file's directory, and reads the file, nil if there is none.
func holdOutput(box *spec.Sandbox, flag, path string, ours func([]byte) bool) (_ *heldOutput, data []byte, err error) {
	if err := audit.Straight(box, path); err != nil {
		return nil, nil, usageError(flag + ": " + err.Error())
	}
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, nil, usageError(flag + ": " + err.Error())
	}
	out := &heldOutput{flag, path, ours, dir, filepath.Base(path)}
	if data, err = out.replaceable(); err != nil {
		return nil, nil, errors.Join(usageError(flag+": "+err.Error()), dir.Close())
	}
	return out, data, nil
}

// replaceable reads the file, nil if there is none. Only what is of the same kind
// may be replaced.
func (h *heldOutput) replaceable() ([]byte, error) {
	st, err := h.dir.Lstat(h.name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", quote(h.path))
	case st.Size() > files.MaxRecord:
		return nil, fmt.Errorf("%s is too large to be replaced", quote(h.path))
	}
	data, err := h.dir.ReadFile(h.name)
	if err != nil {
		return nil, err
	}
	if len(data) > 0 && !h.ours(data) {
		return nil, fmt.Errorf("%s exists and is something else; it is not overwritten", quote(h.path))
	}
	return data, nil
}

func saveRecord(out *heldOutput, cmd *nucleus.Cmd, old *learn.Record) error {
	if cmd.Process == nil {
		return nil // it never ran
	}
	r := cmd.Learned()
	if old != nil {
		r.Merge(old)
		r.Compact()
	}
	if r.Lost > 0 {
		say("nucleus: warning: --learn: there were too many different calls to remember; %d were not\n", r.Lost)
	}
	return out.replace(r.Encode())
}

// replace writes the file at once, or leaves what is there.
func (h *heldOutput) replace(data []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", h.flag, err)
		}
	}()
	if _, err := h.replaceable(); err != nil {
		return err
	}
	temp := fmt.Sprintf(".%s.%016x", h.name, rand.Uint64())
	f, err := h.dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // for its owner alone
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.dir.Remove(temp))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return h.dir.Rename(temp, h.name)
}

// traced is a line of the log of --seccomp-mode trace.
type traced struct {
	Syscall uint32 `json:"syscall"`
	Name    string `json:"name"`
	Count   int    `json:"count"`
	Refused string `json:"refused,omitempty"`
}

// saveTrace writes the calls that were counted, by number.
func saveTrace(out *heldOutput, cmd *nucleus.Cmd) error {
	if cmd.Process == nil {
		return nil // it never ran
	}
	calls, lost := cmd.Watch.Calls()
	if lost > 0 {
		say("nucleus: warning: --seccomp-log: there were too many different calls to count; %d were not\n", lost)
	}
	var lines []traced
	for _, call := range calls {
		lines = append(lines, traced{call.NR, call.Name, call.Count, call.Refused})
	}
	slices.SortStableFunc(lines, func(a, b traced) int { return int(a.Syscall) - int(b.Syscall) })
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	return out.replace(b.Bytes())
}

// created writes a file that must not be there yet; without a name, to standard output.
func created(path string, data []byte) error {
	if path == "" {
		_, err := os.Stdout.Write(data)
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o644)
	if errors.Is(err, os.ErrExist) {
		return usageError(quote(path) + " exists; it is not overwritten")
	}
	if err != nil {
		return usageError(err.Error())
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
