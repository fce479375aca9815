package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// node is a JSON value with the line on which it begins. encoding/json itself
// takes keys twice and in any case, so that two readers of one profile could
// disagree about what it says.
type node struct {
	line  int
	value any // nil, bool, json.Number, string, []node or []member
}

type member struct {
	key  string
	node node
}

// maxDepth is more than any profile nests.
const maxDepth = 16

type jsonReader struct {
	path string
	data []byte
	dec  *json.Decoder
	at   int // where the last token ended, and on which line
	line int
}

// parseJSON reads one value that is the whole of the data.
func parseJSON(path string, data []byte) (node, error) {
	if !utf8.Valid(data) {
		return node{}, fmt.Errorf("%s: it is not UTF-8 text", path)
	}
	var whole json.RawMessage
	var syntax *json.SyntaxError
	if err := json.Unmarshal(data, &whole); errors.As(err, &syntax) {
		return node{}, fmt.Errorf("%s: %w", place(path, lineAt(data, int(syntax.Offset))), err)
	} else if err != nil {
		return node{}, fmt.Errorf("%s: %w", path, err)
	}
	r := &jsonReader{path: path, data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	r.dec.UseNumber()
	return r.value(0)
}

func (r *jsonReader) fail(format string, args ...any) error {
	return fmt.Errorf("%s: %s", place(r.path, lineAt(r.data, int(r.dec.InputOffset()))), fmt.Sprintf(format, args...))
}

func (r *jsonReader) token() (json.Token, int, error) {
	t, err := r.dec.Token()
	if err != nil {
		return nil, 0, r.fail("%v", err)
	}
	end := int(r.dec.InputOffset())
	r.line += bytes.Count(r.data[r.at:end], []byte("\n"))
	r.at = end
	return t, r.line, nil
}

func (r *jsonReader) value(depth int) (node, error) {
	t, line, err := r.token()
	if err != nil {
		return node{}, err
	}
	if depth > maxDepth {
		return node{}, r.fail("it is nested too deeply")
	}
	switch t {
	case json.Delim('{'):
		return r.object(line, depth)
	case json.Delim('['):
		list := []node{}
		for r.dec.More() {
			n, err := r.value(depth + 1)
			if err != nil {
				return node{}, err
			}
			list = append(list, n)
		}
		_, _, err := r.token()
		return node{line, list}, err
	}
	return node{line, t}, nil
}

func (r *jsonReader) object(line, depth int) (node, error) {
	members := []member{}
	for r.dec.More() {
		t, keyLine, err := r.token()
		if err != nil {
			return node{}, err
		}
		key, ok := t.(string)
		if !ok {
			return node{}, r.fail("a key is not a string")
		}
		for _, m := range members {
			if m.key == key {
				return node{}, r.fail("the key %q is there twice, first on line %d", key, m.node.line)
			}
		}
		n, err := r.value(depth + 1)
		if err != nil {
			return node{}, err
		}
		n.line = keyLine
		members = append(members, member{key, n})
	}
	_, _, err := r.token()
	return node{line, members}, err
}

// form reads nodes into Go values and remembers the first error.
type form struct {
	path string
	err  error
}

func (f *form) fail(n node, format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: %s", place(f.path, n.line), fmt.Sprintf(format, args...))
	}
}

// object hands each member to the function of its key. A key without one is an error.
func (f *form) object(n node, what string, keys map[string]func(node)) {
	members, ok := n.value.([]member)
	if !ok {
		f.fail(n, "%s is not an object", what)
		return
	}
	for _, m := range members {
		read, known := keys[m.key]
		if !known {
			f.fail(m.node, "%s has no key %q", what, m.key)
			return
		}
		read(m.node)
	}
}

func (f *form) list(n node, what string, each func(node)) {
	list, ok := n.value.([]node)
	if !ok {
		if n.value != nil { // null is how some encoders write an empty list
			f.fail(n, "%s is not a list", what)
		}
		return
	}
	for _, e := range list {
		each(e)
	}
}

func (f *form) text(n node, what string) string {
	s, ok := n.value.(string)
	if !ok {
		f.fail(n, "%s is not a string", what)
	}
	return s
}

func (f *form) number(n node, what string, bits int) uint64 {
	num, ok := n.value.(json.Number)
	v, err := strconv.ParseUint(string(num), 10, bits)
	if !ok || err != nil {
		f.fail(n, "%s is not a whole number of %d bits", what, bits)
	}
	return v
}

func (f *form) texts(n node, what string) (out []string) {
	f.list(n, what, func(e node) { out = append(out, f.text(e, "an element of "+what)) })
	return out
}
