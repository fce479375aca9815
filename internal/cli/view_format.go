package cli

import (
	"encoding/json"
	"strings"
)

// format is what --format asks for.
type format struct {
	layout *layout
	table  bool // the cells stand below each other, with a heading
	json   bool // a line of JSON each
}

// format reads --format for values like v; nil if it was not given.
func (c *call) format(v any, table bool) (*format, error) {
	text := c.opts.view.format
	switch {
	case text == "":
		return nil, nil
	case c.opts.json:
		return nil, usageError("--format and --json exclude each other")
	case text == "json":
		return &format{json: true}, nil
	}
	f := &format{}
	if rest, ok := strings.CutPrefix(text, "table"); ok && (rest == "" || rest[0] == ' ' || rest[0] == '\t') {
		text, f.table = strings.TrimSpace(rest), true
		if !table {
			return nil, usageError("--format: nucleus " + c.cmd.name + " has no table")
		}
		if text == "" {
			return nil, usageError("--format: table needs columns, such as 'table {{.ID}}\\t{{.Name}}'")
		}
	}
	var err error
	f.layout, err = parseLayout(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text), v)
	return f, err
}

// line is one, as it is printed on a line of its own.
func (f *format) line(v any) (string, error) {
	if f.json {
		return jsonText(v, "")
	}
	text, err := f.layout.fill(v)
	return text + "\n", err
}

// printRows prints what there is: as --format or --json say, or as a table of
// cells below a heading.
func printRows[R any](c *call, f *format, heading R, rows []R, cells func(R) []string) int {
	if c.opts.json {
		return printJSON(rows)
	}
	text, err := rowsText(f, heading, rows, cells)
	if err != nil {
		return fail(c.cmd, err)
	}
	return outputText(text)
}

func rowsText[R any](f *format, heading R, rows []R, cells func(R) []string) (string, error) {
	if f != nil && !f.table {
		var b strings.Builder
		for _, r := range rows {
			line, err := f.line(r)
			if err != nil {
				return "", err
			}
			b.WriteString(line)
		}
		return b.String(), nil
	}
	lines := make([][]string, 0, 1+len(rows))
	for _, r := range append([]R{heading}, rows...) {
		if f == nil {
			lines = append(lines, cells(r))
			continue
		}
		line, err := f.line(r)
		if err != nil {
			return "", err
		}
		for part := range strings.Lines(line) {
			lines = append(lines, strings.Split(strings.TrimSuffix(part, "\n"), "\t"))
		}
	}
	return textTable(lines), nil
}

// asItem is embedded in rows whose JSON is not their cells.
type asItem struct{ item any }

// MarshalJSON prints the item.
func (a asItem) MarshalJSON() ([]byte, error) { return json.Marshal(a.item) }
