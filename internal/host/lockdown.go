package host

import (
	"fmt"
	"os"
	"strings"
)

// lockdownFile says the state of the kernel's lockdown (5.4).
const lockdownFile = "/sys/kernel/security/lockdown"

// Lockdown asks for the state of the kernel's lockdown. Without an answer, why
// says so: a kernel that does not tell is not taken for one that is locked down.
func Lockdown() (state, why string) {
	text, err := os.ReadFile(lockdownFile)
	if err != nil {
		return "", err.Error()
	}
	if state, err = parseLockdown(string(text)); err != nil {
		return "", err.Error()
	}
	return state, ""
}

// parseLockdown finds the word in brackets: "none [integrity] confidentiality".
func parseLockdown(text string) (string, error) {
	state := ""
	for _, word := range strings.Fields(text) {
		inner, ok := strings.CutPrefix(word, "[")
		if !ok {
			continue
		}
		if inner, ok = strings.CutSuffix(inner, "]"); !ok || inner == "" || state != "" {
			return "", fmt.Errorf("%s says %q", lockdownFile, text)
		}
		state = inner
	}
	if state == "" {
		return "", fmt.Errorf("%s names no state: %q", lockdownFile, text)
	}
	return state, nil
}
