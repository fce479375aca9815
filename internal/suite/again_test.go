package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// TestAgain: what fails once in an emulated machine is run again, by itself, and
// told of; what fails twice, or here, has failed.
func TestAgain(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Program("go")) // reads the output
	const (                                        // as -test.v=test2json has it, for printf
		runB   = `\026=== RUN   TestB\n\026=== RUN   TestB/one\n`
		passed = `\026--- PASS: TestA (0.00s)\n` + runB + `\026--- PASS: TestB/one (0.00s)\n\026--- PASS: TestB (0.00s)\n\026PASS\n`
		failed = `\026--- FAIL: TestA (0.00s)\n` + runB + `\026--- PASS: TestB/one (0.00s)\n\026--- PASS: TestB (0.00s)\n\026FAIL\n`
		script = `
case "$*" in *'-test.run=^(TestA|TestB)$'*) printf '\026=== RUN   TestA\nSECOND'; exit CODE;; esac
printf '\026=== RUN   TestA\n    a_test.go:1: because\n\026--- FAIL: TestA (0.00s)\n` + runB + `\026--- FAIL: TestB/one (0.00s)\n\026--- FAIL: TestB (0.00s)\n\026FAIL\n'
exit 1`
	)
	for _, tc := range []struct {
		name, slow, second, code, want string
	}{
		{"passes then", "20", passed, "0", "2 passed, 0 failed, 0 skipped"},
		{"one fails again", "20", failed, "1", "0 passed, 2 failed, 0 skipped"},
		{"ends early", "20", `\026--- PASS: TestA (0.00s)\n`, "2", "0 passed, 2 failed, 0 skipped"},
		{"here", "1", passed, "0", "0 passed, 2 failed, 0 skipped"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("NUCLEUS_TEST_SLOW", tc.slow)
			s := strings.NewReplacer("SECOND", tc.second, "CODE", tc.code).Replace(script)
			res := execOne(t, fakeStage(t, time.Minute, map[string]string{"pkg": s}), "here")
			var all report
			all.add(res)
			var out bytes.Buffer
			if err := all.print(&out); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(out.String(), "\n"+tc.want+"\n") || !strings.Contains(out.String(), "a_test.go:1: because") {
				t.Errorf("got\n%s\nwant at its end %q, and why it failed", out.String(), tc.want)
			}
		})
	}
}

func TestWorthAgain(t *testing.T) {
	t.Setenv("NUCLEUS_TEST_SLOW", "20")
	const one = "x\x16--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\n"
	for _, tc := range []struct {
		name string
		res  result
		want string
	}{
		{"a test", result{Output: one}, "^(TestA)$"},
		{"left something behind", result{Output: one, Leaks: []string{"x"}}, ""},
		{"left a descriptor", result{Output: one + sandboxtest.LeftBehind + " descriptor 7\n"}, ""},
		{"took too long", result{Output: one, TimedOut: true}, ""},
		{"crashed", result{Output: "panic: x\n", Exit: 2}, ""},
		{"many", result{Output: strings.Repeat(one, mostAgain+1)}, ""},
	} {
		if got := tc.res.worthAgain(); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
