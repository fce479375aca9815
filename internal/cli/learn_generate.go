package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/nucleus-container/nucleus/policy/files"
	"github.com/nucleus-container/nucleus/policy/learn"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

// outFlags are of commands that write a policy.
var outFlags = []flag{
	{group: "Output", name: "output", short: "o", arg: "FILE", choice: "<file>",
		help: "Write to a file that does not exist yet, in place of standard output.",
		set:  func(o *options, v string) (err error) { o.learn.out, err = given(v); return err }},
}

// policyGenerate is `nucleus policy generate`.
func (c *call) policyGenerate(names []string) error {
	if len(names) != 1 {
		return usageError("say nucleus policy generate RECORD, with a record that nucleus run --learn has made")
	}
	path := names[0]
	data, err := readBounded(path, files.MaxRecord)
	if err != nil {
		return err
	}
	r, err := files.ParseRecord(path, data)
	if err != nil {
		return usageError(err.Error())
	}
	text, notes := r.EncodePolicy(seccomp.Default())
	if _, err := files.ParsePolicy("the policy", text); err != nil {
		return fmt.Errorf("this is a bug in nucleus: %w", err)
	}
	if err := created(c.opts.learn.out, text); err != nil {
		return err
	}
	for _, n := range notes {
		say("nucleus: note: %s\n", n)
	}
	return nil
}

// readBounded reads a file that a user names.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usageError(err.Error())
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, usageError(err.Error())
	}
	if int64(len(data)) > most {
		return nil, usageError(fmt.Sprintf("%s is larger than %d bytes", quote(path), most))
	}
	return data, nil
}

var seccompCommand = command{
	name: "seccomp", args: "generate FILE", words: "generate",
	short: "Make a seccomp profile from a count of system calls",
	long: `generate reads what --seccomp-mode trace has counted, and prints a profile in the
form that engines of containers use (OCI JSON), for --seccomp-profile: it allows what
was counted and what every program needs, and refuses the rest with EPERM. Arguments
are looked at where the default policy looks at them. What was refused is not in it.

nucleus policy generate makes more of nucleus run --learn.`,
	examples: [][2]string{
		{"nucleus run --seccomp-mode trace --seccomp-log calls.jsonl -- make test", "count system calls"},
		{"nucleus seccomp generate calls.jsonl -o profile.json", "make a profile of them"},
	},
	flags: [][]flag{outFlags, helpFlags},
	run:   runSeccomp,
}

// runSeccomp is `nucleus seccomp`.
func runSeccomp(c *call) int {
	if err := c.interspersed(); err != nil {
		return fail(c.cmd, err)
	}
	if c.opts.help {
		return output(commandHelp(c.cmd))
	}
	if len(c.args) != 2 || c.args[0] != "generate" {
		return fail(c.cmd, usageError("say nucleus seccomp generate FILE"))
	}
	text, err := profileOf(c.args[1])
	if err == nil {
		err = created(c.opts.learn.out, text)
	}
	if err != nil {
		return fail(c.cmd, err)
	}
	return exitOK
}

// profileOf makes a profile from a file of counts.
func profileOf(path string) ([]byte, error) {
	data, err := readBounded(path, files.MaxRecord)
	if err != nil {
		return nil, err
	}
	arch, err := seccomp.ParseArch(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	r := learn.New(learn.Job{Arch: arch})
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		var t traced
		dec := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&t); err != nil {
			return nil, usageError(fmt.Sprintf("%s, line %d: %v", quote(path), n, err))
		}
		if nr, ok := arch.Number(t.Name); t.Refused == "" && (!ok || nr != t.Syscall) {
			return nil, usageError(fmt.Sprintf("%s, line %d: %s is not call %d of %s", quote(path), n, quote(t.Name), t.Syscall, arch))
		}
		r.Add(learn.Call{Name: t.Name, Count: t.Count, Refused: t.Refused})
	}
	if err := lines.Err(); err != nil {
		return nil, usageError(fmt.Sprintf("%s: %v", quote(path), err))
	}
	return r.EncodeProfile(seccomp.Default())
}
