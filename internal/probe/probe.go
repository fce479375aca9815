// Package probe is the program that a self-test runs inside a sandbox: it puts
// questions to the kernel and says what the answers were. It judges nothing, and
// what it tries is harmless where it succeeds: the same questions are put outside
// of any sandbox, so that there is something to compare with.
//
// It makes its system calls itself, so that no tool decides what is tried, and
// needs no other file.
//
//	nucleus probe 'open w /usr/bin/env' 'call unshare 0x10000000'
//	["EROFS","EPERM"]
package probe

import (
	"encoding/json"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// What the exit codes of Main say, beside 0.
const (
	exitUnknown = 99 // a question makes no sense
	exitFailed  = 98
)

// Main answers the questions, each a verb with its arguments, by a JSON list on
// standard output: "ok", "ok:" with more, or the name of an errno. A blank in an
// argument is written \040. After the question "wait" it stays until its
// standard input ends.
func Main(questions []string) int {
	if len(questions) > 0 {
		if code, ok := act(strings.Fields(questions[0])); ok {
			return code
		}
	}
	answers, wait := make([]string, 0, len(questions)), false
	open := descriptors() // before any question makes more
	for _, q := range questions {
		if q == "wait" {
			wait = true
			continue
		}
		if q == "fds" {
			answers = append(answers, "ok:"+open)
			continue
		}
		words := strings.Fields(q)
		for i, w := range words {
			words[i] = strings.ReplaceAll(w, `\040`, " ")
		}
		answer, ok := answer(words)
		if !ok {
			os.Stderr.WriteString("nucleus: no question: " + strconv.Quote(q) + "\n")
			return exitUnknown
		}
		answers = append(answers, answer)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		return exitFailed
	}
	if wait {
		_, _ = io.Copy(io.Discard, os.Stdin) // that it ended is all that matters
	}
	return 0
}

// answer puts one question.
func answer(w []string) (string, bool) {
	for _, ask := range [...]func(string, []string) (string, bool){askFiles, askSelf, askOthers, askPrograms} {
		if len(w) == 0 {
			break
		}
		if a, ok := ask(w[0], w[1:]); ok {
			return a, true
		}
	}
	return "", false
}

// verdict names an error.
func verdict(err error) string {
	if err == nil {
		return "ok"
	}
	if name := kernel.ErrnoName(err); name != "" {
		return name
	}
	return "error: " + err.Error()
}

// content is the answer to a question about something.
func content(s string, err error) string {
	if err != nil {
		return verdict(err)
	}
	return "ok:" + s
}

// word is an argument that need not be there.
func word(a []string, i int) string {
	if i < len(a) {
		return a[i]
	}
	return ""
}

// number reads an argument; a negative one is as C would convert it.
func number(s string) uint64 {
	if n, err := strconv.ParseInt(s, 0, 64); err == nil {
		return uint64(n)
	}
	n, _ := strconv.ParseUint(s, 0, 64) // the questions are ours
	return n
}
