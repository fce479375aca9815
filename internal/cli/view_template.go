package cli

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// layout is a template in the part of Go's language that docker's users write:
// {{.Field.Sub}}, {{json .Field}}, {{.Field | json}} and a few functions. The
// whole language costs each start of this program more than it is worth: see
// docs/design/003-cli.md on what imports cost, and the change that added this.
type layout struct {
	parts []part
}

// part is text, or an expression.
type part struct {
	text   string
	stages [][]word // a pipeline; empty: text
}

// word is a field's path, a string, a number or the name of a function.
type word struct {
	text string
	kind byte // '.', '"', '0', 'a'
}

const layoutHelp = "there are fields such as {{.Name}}, the functions json, join, index, upper and lower, and pipes; for more, use --json and a program such as jq"

// parseLayout reads a template for values like v.
func parseLayout(text string, v any) (*layout, error) {
	l := &layout{}
	for text != "" {
		before, rest, found := strings.Cut(text, "{{")
		l.parts = append(l.parts, part{text: before})
		if !found {
			break
		}
		stages, after, err := parsePipe(rest)
		if err == nil {
			err = checkPipe(stages, reflect.TypeOf(v))
		}
		if err != nil {
			return nil, usageError("--format: " + err.Error())
		}
		l.parts, text = append(l.parts, part{stages: stages}), after
	}
	return l, nil
}

// parsePipe reads up to the braces that end an expression.
func parsePipe(text string) (stages [][]word, rest string, err error) {
	stages = [][]word{nil}
	for {
		text = strings.TrimLeft(text, " \t\n")
		last := len(stages) - 1
		switch {
		case text == "":
			return nil, "", errors.New("a {{ has no }}")
		case strings.HasPrefix(text, "}}"):
			if len(stages[last]) == 0 {
				return nil, "", errors.New("between {{ and }}, or after a |, something is missing: " + layoutHelp)
			}
			return stages, text[2:], nil
		case text[0] == '|':
			if len(stages[last]) == 0 {
				return nil, "", errors.New("nothing stands before a |")
			}
			stages, text = append(stages, nil), text[1:]
			continue
		}
		w, after, err := parseWord(text)
		if err != nil {
			return nil, "", err
		}
		stages[last], text = append(stages[last], w), after
	}
}

func parseWord(text string) (w word, rest string, err error) {
	if text[0] == '"' || text[0] == '`' {
		q, err := strconv.QuotedPrefix(text)
		if err != nil {
			return w, "", errors.New("a string has no end: " + quote(text))
		}
		s, err := strconv.Unquote(q)
		return word{s, '"'}, text[len(q):], err
	}
	end := strings.IndexAny(text, " \t\n|}\"`(")
	if end < 0 {
		return w, "", errors.New("a {{ has no }}")
	}
	w.text, rest = text[:end], text[end:]
	switch {
	case w.text == "":
		return w, "", errors.New(quote(text[:1]) + " is not understood: " + layoutHelp)
	case w.text[0] == '.':
		w.kind = '.'
		if strings.HasSuffix(w.text, ".") && w.text != "." || strings.Contains(w.text, "..") {
			return w, "", errors.New(quote(w.text) + " is no field")
		}
	case w.text[0] >= '0' && w.text[0] <= '9':
		w.kind = '0'
		_, err = number(w.text, 1<<31-1)
	default:
		w.kind = 'a'
		if _, ok := layoutArgs(w.text); !ok {
			return w, "", errors.New(quote(w.text) + " is not understood: " + layoutHelp)
		}
	}
	return w, rest, err
}

// layoutArgs is what a function is given, the value included.
func layoutArgs(name string) (n int, ok bool) {
	switch name {
	case "json", "upper", "lower":
		return 1, true
	case "join", "index":
		return 2, true
	}
	return 0, false
}

// labelled is what has labels: {{.Label "key"}}.
type labelled interface{ Label(key string) string }

// checkPipe finds mistakes before there is anything to print.
func checkPipe(stages [][]word, t reflect.Type) error {
	for i, stage := range stages {
		n := len(stage)
		if i > 0 {
			n++
		}
		for at, w := range stage {
			if w.kind == 'a' && at > 0 {
				return errors.New(quote(w.text) + " stands where a value should: " + layoutHelp)
			}
			if w.kind != '.' || w.text == ".Label" && t.Implements(reflect.TypeFor[labelled]()) {
				continue
			}
			if err := checkPath(w.text, t); err != nil {
				return err
			}
		}
		first := stage[0]
		want, isFunc := layoutArgs(first.text)
		switch {
		case first.kind == 'a' && isFunc && n != want+1:
			return fmt.Errorf("%s takes %s", first.text, tally(want, "value", "values"))
		case first.kind == 'a':
		case first.text == ".Label" && n == 2 && i == 0 && len(stage) == 2 && stage[1].kind == '"':
		case first.text == ".Label" && t.Implements(reflect.TypeFor[labelled]()):
			return errors.New(`.Label takes a key: {{.Label "key"}}`)
		case n != 1:
			return errors.New(quote(first.text) + " is followed by a value, and is no function")
		}
	}
	return nil
}

// checkPath follows a path as far as types tell.
func checkPath(path string, t reflect.Type) error {
	for name := range strings.SplitSeq(strings.Trim(path, "."), ".") {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch {
		case name == "" || t.Kind() == reflect.Interface:
			return nil
		case t.Kind() == reflect.Map:
			t = t.Elem()
			continue
		case t.Kind() != reflect.Struct:
			return fmt.Errorf("there is no %s: what is before .%s has no fields", quote(path), name)
		}
		f, ok := t.FieldByName(name)
		if !ok || !f.IsExported() {
			return fmt.Errorf("there is no %s; the fields there are %s", quote(path), strings.Join(fields(t), ", "))
		}
		t = f.Type
	}
	return nil
}

// fields are the names that a template may use.
func fields(t reflect.Type) (all []string) {
	for _, f := range reflect.VisibleFields(t) {
		if f.IsExported() && !f.Anonymous {
			all = append(all, f.Name)
		}
	}
	return all
}

// fill is the template with a value.
func (l *layout) fill(v any) (string, error) {
	var b strings.Builder
	for _, p := range l.parts {
		b.WriteString(p.text)
		var value any
		for i, stage := range p.stages {
			var err error
			if value, err = evaluate(stage, v, value, i > 0); err != nil {
				return "", fmt.Errorf("--format: %w", err)
			}
		}
		if p.stages != nil {
			b.WriteString(layoutText(value))
		}
	}
	return b.String(), nil
}

// evaluate is one stage of a pipeline.
func evaluate(stage []word, v, piped any, hasPiped bool) (any, error) {
	var args []any
	for _, w := range stage {
		switch w.kind {
		case '"':
			args = append(args, w.text)
		case '0':
			n, err := strconv.Atoi(w.text)
			if err != nil {
				return nil, err
			}
			args = append(args, n)
		case '.':
			args = append(args, lookPath(w.text, v))
		}
	}
	if hasPiped {
		args = append(args, piped)
	}
	switch stage[0].text {
	case "json":
		s, err := jsonText(args[0], "")
		return strings.TrimSuffix(s, "\n"), err
	case "upper":
		return strings.ToUpper(layoutText(args[0])), nil
	case "lower":
		return strings.ToLower(layoutText(args[0])), nil
	case "join":
		return joinText(args[0], args[1])
	case "index":
		return indexOf(args[0], args[1])
	case ".Label":
		if has, ok := v.(labelled); ok && len(stage) == 2 {
			return has.Label(stage[1].text), nil
		}
	}
	return args[0], nil
}

// lookPath follows a path; nil where there is nothing.
func lookPath(path string, v any) any {
	at := reflect.ValueOf(v)
	for name := range strings.SplitSeq(strings.Trim(path, "."), ".") {
		if name == "" {
			break
		}
		for at.Kind() == reflect.Pointer || at.Kind() == reflect.Interface {
			at = at.Elem()
		}
		switch at.Kind() {
		case reflect.Map:
			at = at.MapIndex(reflect.ValueOf(name).Convert(at.Type().Key()))
		case reflect.Struct:
			f, ok := at.Type().FieldByName(name)
			if !ok {
				return nil
			}
			if at, _ = at.FieldByIndexErr(f.Index); !at.IsValid() { // in something embedded that is not there
				return nil
			}
		default:
			return nil
		}
	}
	if !at.IsValid() {
		return nil
	}
	return at.Interface()
}

func joinText(list, with any) (string, error) {
	all := reflect.ValueOf(list)
	if list != nil && all.Kind() != reflect.Slice {
		return "", errors.New("join: the first value is no list")
	}
	var texts []string
	for i := 0; list != nil && i < all.Len(); i++ {
		texts = append(texts, layoutText(all.Index(i).Interface()))
	}
	return strings.Join(texts, layoutText(with)), nil
}

func indexOf(of, at any) (any, error) {
	v := reflect.ValueOf(of)
	switch key := at.(type) {
	case string:
		if of == nil || v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String {
			return lookKey(v, key), nil
		}
		return nil, errors.New("index: only what has names can be asked for " + quote(key))
	case int:
		if of != nil && v.Kind() == reflect.Slice && key < v.Len() {
			return v.Index(key).Interface(), nil
		}
		return nil, fmt.Errorf("index: there is no %d", key)
	}
	return nil, errors.New("index: the second value is neither a name nor a number")
}

func lookKey(of reflect.Value, key string) any {
	if !of.IsValid() {
		return nil
	}
	if v := of.MapIndex(reflect.ValueOf(key).Convert(of.Type().Key())); v.IsValid() {
		return v.Interface()
	}
	return nil
}

// layoutText is a value as it is printed.
func layoutText(v any) string {
	if r := reflect.ValueOf(v); !r.IsValid() || r.Kind() == reflect.Pointer && r.IsNil() {
		return ""
	}
	if t, ok := v.(time.Time); ok {
		return t.Format(time.RFC3339Nano)
	}
	return fmt.Sprint(v)
}
