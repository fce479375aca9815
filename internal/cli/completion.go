package cli

import (
	"fmt"
	"strings"
)

var completionCommand = command{
	name:  "completion",
	args:  "bash|zsh|fish",
	short: "Print a shell's completion script",
	long: `Prints a script with which a shell completes commands, flags and their values.

  bash   source <(nucleus completion bash)
  zsh    nucleus completion zsh >"${fpath[1]}/_nucleus"
  fish   nucleus completion fish >~/.config/fish/completions/nucleus.fish`,
	words: "bash zsh fish",
	flags: [][]flag{helpFlags},
	run:   runCompletion,
}

// runCompletion is `nucleus completion`.
func runCompletion(c *call) int {
	scripts := map[string]func([]*command) string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	if len(c.args) != 1 || scripts[c.args[0]] == nil {
		return fail(c.cmd, usageError("completion: name one shell: bash, zsh or fish"))
	}
	return output(scripts[c.args[0]](c.commands))
}

// visible leaves out commands that are no use to people.
func visible(commands []*command) (out []*command) {
	for _, c := range commands {
		if !c.hidden {
			out = append(out, c)
		}
	}
	return out
}

func names(commands []*command) string {
	var all []string
	for _, c := range visible(commands) {
		all = append(all, c.name)
	}
	return strings.Join(all, " ")
}

// spellings lists a command's flags as they are typed, those for which want is true.
func (c *command) spellings(want func(*flag) bool) (out []string) {
	for f := range c.all() {
		if !want(f) {
			continue
		}
		out = append(out, "--"+f.name)
		if f.short != "" {
			out = append(out, "-"+f.short)
		}
	}
	return out
}

// takesWord reports whether the next word belongs to the flag.
func takesWord(f *flag) bool { return f.arg != "" && !f.optional }

func bashCompletion(commands []*command) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# bash completion for nucleus
_nucleus() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} i begun=
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W %q -- "$cur"))
		return
	fi
	for ((i = 2; i < COMP_CWORD; i++)); do
		case "$verb ${COMP_WORDS[i]}" in
`, names(commands)+" --help --version")
	for _, c := range visible(commands) {
		if words := c.spellings(takesWord); len(words) > 0 {
			fmt.Fprintf(&b, "\t\t%s) ((i++)) ;;\n", patterns(c.name, words))
		}
	}
	b.WriteString(`		*" --") begun=yes; break ;;
		*" -"*) ;;
		*) begun=yes; break ;;
		esac
	done
	if ((i > COMP_CWORD)); then
		case "$verb $prev" in
`)
	for _, c := range visible(commands) {
		for f := range c.all() {
			if words := valueWords(f); words != "" {
				fmt.Fprintf(&b, "\t\t%s) COMPREPLY=($(compgen %s -- \"$cur\"))%s ;;\n", patterns(c.name, f.typed()), words, noSpace(f))
			}
		}
	}
	b.WriteString("\t\tesac\n\t\treturn\n\tfi\n\tcase \"$verb$begun\" in\n")
	for _, c := range visible(commands) {
		bashCommand(&b, c, commands)
	}
	b.WriteString("\t*) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n\tesac\n}\ncomplete -o filenames -F _nucleus nucleus\n")
	return b.String()
}

// typed are a flag's spellings.
func (f *flag) typed() []string {
	if f.short == "" {
		return []string{"--" + f.name}
	}
	return []string{"--" + f.name, "-" + f.short}
}

// patterns matches a verb and any of the words after it.
func patterns(verb string, words []string) string {
	var all []string
	for _, w := range words {
		all = append(all, fmt.Sprintf("%q", verb+" "+w))
	}
	return strings.Join(all, "|")
}

// valueWords is how compgen completes a flag's value.
func valueWords(f *flag) string {
	switch {
	case !takesWord(f):
		return ""
	case f.choice == "<dir>":
		return "-d"
	case f.choice == "<file>":
		return "-f"
	case f.choice != "":
		return fmt.Sprintf("-W %q", f.choice)
	}
	return ""
}

// moreWords is how compgen completes what follows the first word.
func (c *command) moreWords() string {
	words, files := strings.CutSuffix(c.more, " <file>")
	rest := fmt.Sprintf("-W %q", words)
	if files {
		rest += " -f"
	}
	return rest
}

// noSpace keeps bash from putting a blank after what goes on behind "=".
func noSpace(f *flag) string {
	if !strings.Contains(f.choice+" ", "= ") {
		return ""
	}
	return "; [[ ${COMPREPLY-} == *= ]] && compopt -o nospace 2>/dev/null"
}

// bashCommand completes what is not a flag's value, before the program has begun.
func bashCommand(b *strings.Builder, c *command, commands []*command) {
	flags := strings.Join(c.spellings(func(*flag) bool { return true }), " ")
	rest, when := "", c.name
	switch {
	case c.words == sandboxWords:
		rest = `-W "$("${COMP_WORDS[0]}" names "$cur" 2>/dev/null)"`
		if !c.program {
			when += "|" + c.name + "yes" // every word is a sandbox
		}
	case c.program:
		rest = "-c"
	case c.words != "":
		rest = fmt.Sprintf("-W %q", c.words)
	case c.name == "help":
		rest = fmt.Sprintf("-W %q", names(commands))
	}
	fmt.Fprintf(b, "\t%s)\n\t\tcase \"$cur\" in\n\t\t-*) COMPREPLY=($(compgen -W %q -- \"$cur\")) ;;\n", when, flags)
	if rest != "" {
		fmt.Fprintf(b, "\t\t*) COMPREPLY=($(compgen %s -- \"$cur\")) ;;\n", rest)
	}
	b.WriteString("\t\tesac\n\t\t;;\n")
	if c.more != "" {
		fmt.Fprintf(b, "\t%syes) COMPREPLY=($(compgen %s -- \"$cur\")) ;;\n", c.name, c.moreWords())
	}
}

func zshCompletion(commands []*command) string {
	var b strings.Builder
	b.WriteString("#compdef nucleus\n_nucleus() {\n\tlocal curcontext=$curcontext state line\n\tlocal -A opt_args\n\tlocal -a verbs=(\n")
	for _, c := range visible(commands) {
		fmt.Fprintf(&b, "\t\t%s\n", shellQuote(c.name+":"+c.short))
	}
	b.WriteString("\t)\n\tif ((CURRENT == 2)); then\n\t\t_describe command verbs\n\t\treturn\n\tfi\n" +
		"\tlocal verb=$words[2]\n\tshift words\n\t((CURRENT--))\n\tcase $verb in\n")
	for _, c := range visible(commands) {
		fmt.Fprintf(&b, "\t%s)\n\t\t_arguments -s -S", c.name)
		for f := range c.all() {
			fmt.Fprintf(&b, " \\\n\t\t\t%s", zshFlag(f))
		}
		const sandboxes = `:sandbox:{compadd -- ${(f)"$(nucleus names 2>/dev/null)"}}'`
		switch {
		case c.words == sandboxWords && c.program:
			b.WriteString(" \\\n\t\t\t'(-)1" + sandboxes + " \\\n\t\t\t'*::argument:_normal'")
		case c.words == sandboxWords:
			b.WriteString(" \\\n\t\t\t'*" + sandboxes)
		case c.program:
			b.WriteString(" \\\n\t\t\t'(-)1:program:_command_names -e' \\\n\t\t\t'*::argument:_normal'")
		case c.words != "":
			fmt.Fprintf(&b, " \\\n\t\t\t'1:word:(%s)'", c.words)
			if words, files := strings.CutSuffix(c.more, " <file>"); files {
				fmt.Fprintf(&b, " \\\n\t\t\t'*:word:{compadd -- %s; _files}'", words)
			} else if words != "" {
				fmt.Fprintf(&b, " \\\n\t\t\t'*:word:(%s)'", words)
			}
		case c.name == "help":
			fmt.Fprintf(&b, " \\\n\t\t\t'1:command:(%s)'", names(commands))
		}
		b.WriteString("\n\t\t;;\n")
	}
	b.WriteString("\t*) _files ;;\n\tesac\n}\n_nucleus \"$@\"\n")
	return b.String()
}

// zshFlag is a flag as _arguments wants it. All may be repeated: the last counts.
func zshFlag(f *flag) string {
	value := ""
	if f.arg != "" {
		value = ":" + zshEscape(f.arg) + ":"
		switch {
		case f.choice == "<dir>":
			value += "_directories"
		case f.choice == "<file>":
			value += "_files"
		case f.choice != "":
			value += "(" + f.choice + ")"
		}
	}
	first, _, _ := strings.Cut(f.help, ". ")
	text := "[" + zshEscape(strings.TrimSuffix(first, ".")) + "]"
	long := "--" + f.name
	switch {
	case f.optional:
		long, value = long+"=-", ":"+value
	case f.arg != "":
		long += "="
	}
	out := shellQuote("*" + long + text + value)
	if f.short != "" {
		plus := ""
		if f.arg != "" {
			plus = "+"
		}
		out += " " + shellQuote("*-"+f.short+plus+text+value)
	}
	return out
}

// zshEscape escapes what ends a part of a specification.
func zshEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, "[", `\[`, "]", `\]`).Replace(s)
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func fishCompletion(commands []*command) string {
	var b strings.Builder
	b.WriteString("# fish completion for nucleus\ncomplete -c nucleus -f\n")
	for _, c := range visible(commands) {
		fmt.Fprintf(&b, "complete -c nucleus -n __fish_use_subcommand -a %s -d %s\n", c.name, fishQuote(c.short))
	}
	for _, c := range visible(commands) {
		in := fishQuote("__fish_seen_subcommand_from " + c.name)
		for f := range c.all() {
			first, _, _ := strings.Cut(f.help, ". ")
			fmt.Fprintf(&b, "complete -c nucleus -n %s -l %s", in, f.name)
			if f.short != "" {
				fmt.Fprintf(&b, " -s %s", f.short)
			}
			switch {
			case f.choice == "<dir>" || f.choice == "<file>":
				b.WriteString(" -r -F")
			case f.choice != "":
				fmt.Fprintf(&b, " -x -a %s", fishQuote(f.choice))
			case f.arg != "":
				b.WriteString(" -x")
			}
			fmt.Fprintf(&b, " -d %s\n", fishQuote(strings.TrimSuffix(first, ".")))
		}
		switch {
		case c.words == sandboxWords:
			fmt.Fprintf(&b, "complete -c nucleus -n %s -a '(nucleus names 2>/dev/null)'\n", in)
		case c.program:
			fmt.Fprintf(&b, "complete -c nucleus -n %s -F -a '(__fish_complete_command)'\n", in)
		case c.words != "":
			b.WriteString(c.fishWords())
		case c.name == "help":
			fmt.Fprintf(&b, "complete -c nucleus -n %s -a %s\n", in, fishQuote(names(commands)))
		}
	}
	return b.String()
}

// fishWords completes what follows a command that takes words.
func (c *command) fishWords() string {
	in := "__fish_seen_subcommand_from " + c.name
	if c.more == "" || c.more == c.words {
		return fmt.Sprintf("complete -c nucleus -n %s -a %s\n", fishQuote(in), fishQuote(c.words))
	}
	words, files := strings.CutSuffix(c.more, " <file>")
	rest := "-a " + fishQuote(words)
	if files {
		rest += " -F"
	}
	first := "__fish_seen_subcommand_from " + c.words
	return fmt.Sprintf("complete -c nucleus -n %s -a %s\ncomplete -c nucleus -n %s %s\n",
		fishQuote(in+"; and not "+first), fishQuote(c.words), fishQuote(in+"; and "+first), rest)
}

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}
