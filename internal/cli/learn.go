package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/nucleus-container/nucleus"
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
	switch {
	case l.record != "":
		old, err := c.learned()
		if err != nil {
			return nil, err
		}
		cmd.Watch = &nucleus.Watch{Level: nucleus.Everything, Most: mostLearned}
		return func() error { return saveRecord(l.record, cmd, old) }, nil
	case l.mode == "trace":
		if _, err := replaceable(l.log, isTrace); err != nil {
			return nil, usageError("--seccomp-log: " + err.Error())
		}
		cmd.Watch = &nucleus.Watch{Level: nucleus.Everything, Names: true}
		return func() error { return saveTrace(l.log, cmd) }, nil
	}
	return func() error { return nil }, nil
}

// learned reads the record that is to be added to, and makes sure that nothing
// else is lost.
func (c *call) learned() (*learn.Record, error) {
	l := &c.opts.learn
	data, err := replaceable(l.record, isRecord)
	if err != nil {
		return nil, usageError("--learn: " + err.Error())
	}
	if !l.merge || data == nil {
		return nil, nil
	}
	r, err := files.ParseRecord(l.record, data)
	if err != nil {
		return nil, usageError("--learn-append: " + err.Error())
	}
	return r, nil
}

func isRecord(data []byte) bool { return bytes.HasPrefix(data, []byte(learn.Mark)) }

func isTrace(data []byte) bool { return bytes.HasPrefix(data, []byte(`{"syscall":`)) }

// replaceable reads a file that is about to be written, nil if there is none. Only
// what is of the same kind may be replaced.
func replaceable(path string, ours func([]byte) bool) ([]byte, error) {
	if st, err := os.Stat(filepath.Dir(path)); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("%s is no directory", quote(filepath.Dir(path)))
	}
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", quote(path))
	case st.Size() > files.MaxRecord:
		return nil, fmt.Errorf("%s is too large to be replaced", quote(path))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(data) > 0 && !ours(data) {
		return nil, fmt.Errorf("%s exists and is something else; it is not overwritten", quote(path))
	}
	return data, nil
}

func saveRecord(path string, cmd *nucleus.Cmd, old *learn.Record) error {
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
	return replace("--learn", path, r.Encode(), isRecord)
}

// replace writes a file at once, or leaves what is there.
func replace(flag, path string, data []byte, ours func([]byte) bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", flag, err)
		}
	}()
	if _, err := replaceable(path, ours); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // for its owner alone
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// traced is a line of the log of --seccomp-mode trace.
type traced struct {
	Syscall uint32 `json:"syscall"`
	Name    string `json:"name"`
	Count   int    `json:"count"`
	Refused string `json:"refused,omitempty"`
}

// saveTrace writes the calls that were counted, by number.
func saveTrace(path string, cmd *nucleus.Cmd) error {
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
	return replace("--seccomp-log", path, b.Bytes(), isTrace)
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
