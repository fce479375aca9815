package files

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// document is a TOML file while it is read.
type document struct {
	path string
	data []byte
}

// decode reads a document into a struct. Keys that the struct lacks are errors,
// and so are those that differ from its own by case, of which the decoder would
// take both.
func (d document) decode(into any) error {
	dec := toml.NewDecoder(bytes.NewReader(d.data))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	var missing *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &missing) && len(missing.Errors) > 0:
		line, _ := missing.Errors[0].Position()
		return fmt.Errorf("%s: unknown key %q", place(d.path, line), strings.Join(missing.Errors[0].Key(), "."))
	case errors.As(err, &bad):
		line, _ := bad.Position()
		return fmt.Errorf("%s: %s", place(d.path, line), strings.TrimPrefix(bad.Error(), "toml: "))
	case err != nil:
		return fmt.Errorf("%s: %s", d.path, strings.TrimPrefix(err.Error(), "toml: "))
	}
	var raw map[string]any
	if err := toml.Unmarshal(d.data, &raw); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	return d.cases(raw)
}

// cases refuses keys in capitals.
func (d document) cases(v any) error {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if key != strings.ToLower(key) {
				return fmt.Errorf("%s: unknown key %q", place(d.path, d.lineOf(key)), key)
			}
			if err := d.cases(value); err != nil {
				return err
			}
		}
	case []any:
		for _, e := range v {
			if err := d.cases(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// lineOf is the line on which a text is first, for messages.
func (d document) lineOf(text string) int {
	at := bytes.Index(d.data, []byte(text))
	if at < 0 {
		return 0
	}
	return lineAt(d.data, at)
}

// value is an error about a text of the document, which is between quotes there.
func (d document) value(text string, err error) error {
	return fmt.Errorf("%s: %w", place(d.path, d.lineOf(strconv.Quote(text))), err)
}

// element is an error about the nth table of an array.
func (d document) element(table string, n int, err error) error {
	return fmt.Errorf("%s: %s[%d]: %w", place(d.path, d.lineOfElement(table, n)), table, n, err)
}

func (d document) lineOfElement(table string, n int) int {
	line := 0
	for text := range bytes.Lines(d.data) {
		line++
		head := strings.ReplaceAll(strings.TrimSpace(string(text)), " ", "")
		if strings.HasPrefix(head, "[["+table+"]]") {
			if n--; n < 0 {
				return line
			}
		}
	}
	return 0
}
