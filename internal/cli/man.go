package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

var manCommand = command{
	name:   "man",
	args:   "DIR",
	short:  "Write the manual pages into a directory",
	long:   "Writes the manual pages, made from what --help prints, into a directory, for those who package Nucleus.",
	hidden: true,
	flags:  [][]flag{helpFlags},
	run:    runMan,
}

// runMan is `nucleus man`.
func runMan(c *call) int {
	if len(c.args) != 1 {
		return fail(c.cmd, usageError("man: name one directory"))
	}
	dir := c.args[0]
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fail(c.cmd, err)
	}
	for name, page := range manPages(c.commands) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(page), 0o644); err != nil {
			return fail(c.cmd, err)
		}
	}
	return exitOK
}

// manPages returns the text of each page by its file name.
func manPages(commands []*command) map[string]string {
	pages := map[string]string{"nucleus.1": rootPage(commands)}
	for _, c := range visible(commands) {
		pages["nucleus-"+c.name+".1"] = commandPage(c)
	}
	return pages
}

// page is text in the man(7) language.
type page struct{ strings.Builder }

func (p *page) title(name, short string) {
	fmt.Fprintf(p, ".TH %s 1 \"\" Nucleus \"Nucleus manual\"\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name), roff(name), roff(short))
}

func (p *page) section(name string) { fmt.Fprintf(p, ".SH %s\n", roff(strings.ToUpper(name))) }

func (p *page) item(term, text string) { fmt.Fprintf(p, ".TP\n.B %s\n%s\n", roff(term), roff(text)) }

func (p *page) examples(examples [][2]string) {
	if len(examples) == 0 {
		return
	}
	p.section("examples")
	for _, e := range examples {
		fmt.Fprintf(p, "%s:\n.PP\n.nf\n.RS\n%s\n.RE\n.fi\n.PP\n", roff(e[1]), roff(e[0]))
	}
}

func (p *page) exits() {
	p.section("exit status")
	for _, e := range exitTable {
		p.item(e[0], e[1])
	}
}

// text prints paragraphs; indented lines stay as they are.
func (p *page) text(long string) {
	for line := range strings.Lines(long) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "":
			p.WriteString(".PP\n")
		case strings.HasPrefix(line, " "):
			fmt.Fprintf(p, ".br\n%s\n.br\n", roff(line))
		default:
			p.WriteString(roff(line) + "\n")
		}
	}
}

func rootPage(commands []*command) string {
	var p page
	p.title("nucleus", "run programs in hardened sandboxes")
	p.section("synopsis")
	p.WriteString(".B nucleus\n.I COMMAND\n[FLAG...] [ARGUMENT...]\n")
	p.section("description")
	p.text(intro)
	p.section("commands")
	for _, c := range visible(commands) {
		p.item("nucleus-"+c.name+"(1)", c.short+".")
	}
	p.section("environment")
	for _, e := range environment {
		p.item(e[0], e[1])
	}
	p.exits()
	return p.String()
}

func commandPage(c *command) string {
	var p page
	p.title("nucleus-"+c.name, strings.ToLower(c.short[:1])+c.short[1:])
	p.section("synopsis")
	fmt.Fprintf(&p, ".B nucleus %s\n%s\n", c.name, roff(strings.TrimSpace("[FLAG...] "+c.args)))
	p.section("description")
	p.text(c.long)
	if c.listed != "" {
		p.section(c.listed)
		p.text(c.words)
	}
	p.section("flags")
	for _, s := range c.sections() {
		fmt.Fprintf(&p, ".SS %s\n", roff(s.name))
		for _, f := range s.flags {
			p.item(f.spelling(), f.help)
		}
	}
	p.examples(c.examples)
	p.exits()
	p.section("see also")
	p.WriteString(".BR nucleus (1)\n")
	return p.String()
}

// roff escapes what the formatter would understand.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
