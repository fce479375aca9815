// Package event is the vocabulary of what happens to sandboxes: a type for each
// kind of event, and the line of JSON that an event is on a stream or in an
// audit log. docs/EVENTS.md is made from it.
//
//	cmd := nucleus.Command(box, "python3", "agent.py")
//	cmd.Events = func(b event.Body) error { return stream.Tell(b) }
//
// What an event says about security is what the kernel said, or it says that
// the kernel cannot be asked: see [Evidence]. No type here has a field for the value of
// an environment variable; what must not be written is kept out by its type.
//
// It is pure: it asks nobody and writes nowhere.
package event

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
)

// Version is the version of a record. It changes when a reader would have to.
const Version = 1

// Body is what one event says. Each type of event is a struct of this package.
type Body interface {
	// Kind is the event's name, such as sandbox_started.
	Kind() string
}

// Sandbox says which sandbox an event is about.
type Sandbox struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

// Record is an event as it is written: one line of JSON. Prev and Hash are there
// in an audit log only.
type Record struct {
	V       int             `json:"v"`
	Seq     uint64          `json:"seq"`
	Time    time.Time       `json:"time"`
	Sandbox Sandbox         `json:"sandbox"`
	Type    string          `json:"type"`
	Data    json.RawMessage `json:"data"`
	Prev    string          `json:"prev,omitempty"`
	Hash    string          `json:"hash,omitempty"`
}

// New makes the record of an event, without a number.
func New(at time.Time, s Sandbox, b Body) (Record, error) {
	data, err := encode(b)
	return Record{V: Version, Time: at.UTC().Round(0), Sandbox: s, Type: b.Kind(), Data: data}, err
}

// Line is the record as it is written, without the newline.
func (r Record) Line() ([]byte, error) { return encode(r) }

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false) // people read it too
	err := out.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Evidence says where a word about security comes from.
type Evidence string

// The kinds of evidence.
const (
	// Kernel: it was read back from the kernel, about the sandbox itself.
	Kernel Evidence = "kernel"
	// Accepted: the kernel took the call that enforces it, and offers no way to read it back.
	Accepted Evidence = "accepted"
)

// Names are the names of environment variables. A value cannot be in there:
// whatever follows an equals sign is cut off when it is written, too.
type Names []string

// NamesOf takes the names of KEY=VALUE.
func NamesOf(env []string) Names {
	out := make(Names, 0, len(env))
	for _, kv := range env {
		key, _, _ := strings.Cut(kv, "=")
		out = append(out, key)
	}
	return out
}

// MarshalJSON writes the names.
func (n Names) MarshalJSON() ([]byte, error) {
	return json.Marshal([]string(NamesOf(n)))
}

// Command is a program with its arguments, as far as they are told.
type Command struct {
	Program string   `json:"program" doc:"the program, as it was named"`
	Args    []string `json:"args,omitempty" doc:"its arguments; bytes that are not UTF-8 are written as \\xNN"`
	Omitted int      `json:"omitted,omitempty" doc:"how many more arguments there were: hidden on request (--redact-args), or too long"`
}

// maxArgs bounds the arguments of one command in an event, in bytes.
const maxArgs = 8 << 10

// CommandOf tells of a program. Hidden keeps its arguments out.
func CommandOf(argv []string, hidden bool) Command {
	if len(argv) == 0 {
		return Command{}
	}
	c := Command{Program: printable(argv[0])}
	if len(c.Program) > maxArgs {
		c.Program = c.Program[:maxArgs]
	}
	if hidden {
		c.Omitted = len(argv) - 1
		return c
	}
	room := maxArgs
	for i, a := range argv[1:] {
		a = printable(a)
		if room -= len(a) + 1; room < 0 {
			c.Omitted = len(argv) - 1 - i
			break
		}
		c.Args = append(c.Args, a)
	}
	return c
}

// printable writes bytes that JSON cannot hold as \xNN.
func printable(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b.WriteString(`\x`)
			b.WriteByte(hex[s[i]>>4])
			b.WriteByte(hex[s[i]&15])
		} else {
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}
