package unit

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Quote writes one word of a command line of a unit so that systemd reads
// exactly that word: systemd.syntax(7), "Quoting", and systemd.service(5),
// "Command Lines". No shell is involved, and what a shell needs is not enough:
// % and $ begin something in any quotes and are doubled, and a semicolon on its
// own begins another command.
//
// A word with a zero byte cannot be an argument of anything, and one that is not
// UTF-8 cannot stand in a unit.
func Quote(word string) (string, error) {
	return quote(word, "$$")
}

// quotePath writes one word of a list of paths, where $ is a character.
func quotePath(path string) (string, error) {
	return quote(path, "$")
}

func quote(word, dollar string) (string, error) {
	if strings.ContainsRune(word, 0) {
		return "", fmt.Errorf("%q has a zero byte", word)
	}
	if !utf8.ValidString(word) {
		return "", fmt.Errorf("%q is not UTF-8, which a unit must be", word)
	}
	if word != "" && strings.Trim(word, plain) == "" {
		return word, nil
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range word {
		switch {
		case r == '%':
			b.WriteString("%%")
		case r == '$':
			b.WriteString(dollar)
		case r == '\\' || r == '"':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String(), nil
}

// plain are the characters of words that need no quotes.
const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:,=@+-"

// maxLine bounds a command line: a line of a unit is at most 1 MiB long.
const maxLine = 512 << 10

// commandLine quotes a program and its arguments. The name of a program is more
// than a word: systemd takes no control character, quote or backslash in it.
func commandLine(program string, args []string) (string, error) {
	if !strings.HasPrefix(program, "/") {
		return "", fmt.Errorf("program %q is not an absolute path", program)
	}
	if strings.ContainsFunc(program, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`"'\$`, r) }) {
		return "", fmt.Errorf("program %q has a character that systemd does not take in the name of a program", program)
	}
	var words []string
	for _, word := range append([]string{program}, args...) {
		quoted, err := Quote(word)
		if err != nil {
			return "", fmt.Errorf("argument %w", err)
		}
		words = append(words, quoted)
	}
	line := strings.Join(words, " ")
	if len(line) > maxLine {
		return "", errors.New("the command line is too long for a unit; put the sandbox into a file")
	}
	return line, nil
}

// text is a value that systemd takes as it stands, except for %.
func text(s string) (string, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) || !utf8.ValidString(s) || strings.HasSuffix(s, `\`) {
		return "", fmt.Errorf("%q has a control character, or a backslash at its end", s)
	}
	return strings.ReplaceAll(s, "%", "%%"), nil
}
