package event_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/event"
)

var update = flag.Bool("update", false, "rewrite docs/EVENTS.md and docs/events.schema.json")

const intro = `# Events

Made from package event by ` + "`go test ./event -update`" + `. Do not edit it.

` + "`nucleus run --events-jsonl FILE`, `--events-fd N` and `--audit-log FILE`" + ` write a line of JSON for everything that happens to a
sandbox. The schema is docs/events.schema.json. A record:

| field | | |
|---|---|---|
| v | number | version of the record: 1 |
| seq | number | of the record in its stream or log, from 1 |
| time | string | RFC 3339 with nanoseconds, UTC |
| sandbox | object | id, and name if it has one |
| type | string | one of those below |
| data | object | what the type says |
| prev | string | audit log only: the hash of the record before; 64 zeros in the first |
| hash | string | audit log only: SHA-256, in hexadecimal, over the bytes of the line before ` + "`,\"hash\":`" + ` |

New types and new fields may come without a new version. Readers leave alone what they do not know.

**Evidence.** Where an event speaks about security, the field evidence says how that is known. ` + "`kernel`" + `: it was read back from the
kernel, about this sandbox, while the program was held before its first instruction. ` + "`accepted`" + `: the kernel took the call that
enforces it, and it cannot be read back: because the kernel offers no way (Landlock), or because the program had ended before its
filter could be asked about; process 1 reports no start without the filter. Nothing is taken from the configuration. What is not
known is absent.

**What is never written.** The value of an environment variable: events have only names, by their type. Arguments are written
as they were given, as every user of the machine can see them in ps; ` + "`--redact-args`" + ` leaves them out. A denial names what was
tried, such as a path; ` + "`--explain=off`" + ` leaves denials out.

**The audit log** is verified by ` + "`nucleus audit verify FILE`" + `. What a chain of hashes proves, and what it cannot, is in
docs/design/006-audit.md. By hand, for line N: ` + "`sed -n Np FILE | sed 's/,\"hash\":.*//' | tr -d '\\n' | sha256sum`" + `.

`

// fields lists the fields of a struct as JSON has them.
func fields(t reflect.Type) (out []reflect.StructField) {
	for i := range t.NumField() {
		out = append(out, t.Field(i))
	}
	return out
}

func jsonName(f reflect.StructField) (name string, optional bool) {
	name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name, strings.Contains(rest, "omitempty")
}

func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "list of " + typeName(t.Elem()) + "s"
	case reflect.Map, reflect.Struct:
		return "object"
	}
	return "number"
}

func markdown() string {
	var b strings.Builder
	b.WriteString(intro + "| type | | written by |\n|---|---|---|\n")
	for _, e := range event.Types() {
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s |\n", e.Kind, e.Kind, e.Doc, e.From)
	}
	for _, e := range event.Types() {
		fmt.Fprintf(&b, "\n## %s\n\n%s Written by: %s.\n", e.Kind, e.Doc, e.From)
		table(&b, reflect.TypeOf(e.Body), "")
	}
	return b.String()
}

func table(b *strings.Builder, t reflect.Type, prefix string) {
	if t.NumField() == 0 {
		return
	}
	if prefix == "" {
		b.WriteString("\n| field | | |\n|---|---|---|\n")
	}
	for _, f := range fields(t) {
		name, optional := jsonName(f)
		kind := typeName(f.Type)
		if optional {
			kind += ", may be absent"
		}
		fmt.Fprintf(b, "| %s%s | %s | %s |\n", prefix, name, kind, f.Tag.Get("doc"))
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			table(b, inner, prefix+name+".")
		}
	}
}

type object map[string]any

func schemaOf(t reflect.Type) object {
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Slice:
		return object{"type": []string{"array", "null"}, "items": schemaOf(t.Elem())}
	case reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": schemaOf(t.Elem())}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Struct:
		props, required := object{}, []string{}
		for _, f := range fields(t) {
			name, optional := jsonName(f)
			p := schemaOf(f.Type)
			if doc := f.Tag.Get("doc"); doc != "" {
				p["description"] = doc
			}
			props[name] = p
			if !optional {
				required = append(required, name)
			}
		}
		return object{"type": "object", "properties": props, "required": required}
	}
	return object{"type": "integer"}
}

func schema(t *testing.T) string {
	hash := object{"type": "string", "pattern": "^[0-9a-f]{64}$"}
	var kinds []string
	var each []object
	for _, e := range event.Types() {
		kinds = append(kinds, e.Kind)
		data := schemaOf(reflect.TypeOf(e.Body))
		data["description"] = e.Doc
		each = append(each, object{"if": object{"properties": object{"type": object{"const": e.Kind}}}, "then": object{"properties": object{"data": data}}})
	}
	b, err := json.MarshalIndent(object{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "An event of Nucleus", "type": "object",
		"properties": object{
			"v": object{"const": event.Version}, "seq": object{"type": "integer", "minimum": 1}, "time": object{"type": "string", "format": "date-time"},
			"sandbox": object{"type": "object", "properties": object{"id": object{"type": "string"}, "name": object{"type": "string"}}, "required": []string{"id"}},
			"type":    object{"type": "string", "description": "one of " + strings.Join(kinds, ", ")}, "data": object{"type": "object"}, "prev": hash, "hash": hash,
		},
		"required": []string{"v", "seq", "time", "sandbox", "type", "data"}, "allOf": each,
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

// TestDocuments compares the documents with the code.
func TestDocuments(t *testing.T) {
	for path, want := range map[string]string{"../docs/EVENTS.md": markdown(), "../docs/events.schema.json": schema(t)} {
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s is not what the code says (%v): run go test ./event -update, and read the difference", path, err)
		}
	}
}

// TestTypesAreComplete: each type is described, once, and each field too.
func TestTypesAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range event.Types() {
		if e.Kind != e.Body.Kind() || e.Doc == "" || e.From == "" || seen[e.Kind] {
			t.Errorf("%+v: its name, description or place is wrong, or it is there twice", e)
		}
		seen[e.Kind] = true
		for _, f := range fields(reflect.TypeOf(e.Body)) {
			name, _ := jsonName(f)
			if name == "" || name != strings.ToLower(name) || f.Tag.Get("doc") == "" {
				t.Errorf("%s: field %s has no name or no description", e.Kind, f.Name)
			}
		}
		if _, err := event.New(testTime, event.Sandbox{}, e.Body); err != nil {
			t.Errorf("%s: %v", e.Kind, err)
		}
	}
}
