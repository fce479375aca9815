package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// report collects the results of all environments.
type report struct {
	mu      sync.Mutex // of add: environments may run at the same time
	results []result
	tests   []outcome
}

// outcome is what became of one test.
type outcome struct {
	Env, Pkg, Test string
	Action         string // pass, fail or skip, or again
	Output         string
}

// add takes a result in and says so to whoever waits.
func (r *report) add(res result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	tests := res.outcomes()
	if res.Again != nil {
		forgive(tests, res.Again.outcomes())
	}
	for i := range tests {
		tests[i].Env, tests[i].Pkg = res.Env, res.Pkg
	}
	r.results = append(r.results, res)
	r.tests = append(r.tests, tests...)
	state := "ok"
	if slices.ContainsFunc(tests, func(o outcome) bool { return o.Action == "fail" }) {
		state = "FAIL"
	}
	progress("%s: %-22s %5.1fs %s", res.Env, res.Pkg, res.Seconds, state)
	for _, o := range tests {
		if o.Action == "fail" || o.Action == again { // now: who waits for the rest may not see the end
			progress("%s: %s %s %s\n%s", res.Env, res.Pkg, o.Test, o.Action, o.Output)
		}
	}
}

// outcomes is what became of each test of a result, and of the whole.
func (res *result) outcomes() []outcome {
	tests, err := parseOutput(*res)
	if err != nil {
		tests = append(tests, outcome{Test: "(output)", Action: "fail", Output: err.Error()})
	}
	if res.TimedOut {
		tests = append(tests, outcome{Test: "(time limit)", Action: "fail", Output: tail(res.Output)})
	}
	if len(res.Leaks) > 0 {
		tests = append(tests, outcome{Test: "(left behind)", Action: "fail", Output: strings.Join(res.Leaks, "\n")})
	}
	failed := slices.ContainsFunc(tests, func(o outcome) bool { return o.Action == "fail" })
	if res.Exit != 0 && !failed {
		tests = append(tests, outcome{Test: fmt.Sprintf("(exit status %d)", res.Exit), Action: "fail", Output: tail(res.Output)})
	}
	return tests
}

// skip notes an environment that cannot be had, as one test that sandboxtest.Need
// skipped: a run that was meant to be is always in the table.
func (r *report) skip(env, feature, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := outcome{Env: env, Pkg: "(environment)", Test: "(boot)", Action: "skip", Output: "needs " + feature + ": " + why}
	r.results = append(r.results, result{Env: o.Env, Pkg: o.Pkg})
	r.tests = append(r.tests, o)
	progress("%s: skipped, it %s", env, o.Output)
}

// tail returns the end of a long text: a crash prints every goroutine.
func tail(s string) string {
	const most = 8 << 10
	s = strings.ReplaceAll(s, "\x16", "")
	if len(s) <= most {
		return s
	}
	return "...\n" + s[len(s)-most:]
}

// parseOutput lets the Go distribution's own converter read what -test.v wrote.
func parseOutput(res result) ([]outcome, error) {
	if res.Env == "build" || res.Output == "" {
		return nil, nil
	}
	cmd := exec.Command("go", "tool", "test2json")
	cmd.Stdin = strings.NewReader(res.Output)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go tool test2json: %w\n%s", err, stderr.Bytes())
	}
	return parseEvents(bytes.NewReader(out))
}

// parseEvents returns the tests that stand for themselves: a test whose subtests
// are counted is left out, unless it failed with none of them failing.
func parseEvents(in io.Reader) ([]outcome, error) {
	tests := map[string]*outcome{}
	var order []string
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e struct{ Action, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, err
		}
		if e.Test == "" {
			continue
		}
		o := tests[e.Test]
		if o == nil {
			o = &outcome{Test: e.Test, Action: "fail"} // until it says something else
			tests[e.Test] = o
			order = append(order, e.Test)
		}
		switch e.Action {
		case "output":
			o.Output += e.Output
		case "pass", "fail", "skip":
			o.Action = e.Action
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	var all []outcome
	for _, name := range order {
		if o := tests[name]; !standsBehind(tests, o) {
			all = append(all, *o)
		}
	}
	return all, nil
}

// standsBehind reports whether subtests speak for o.
func standsBehind(tests map[string]*outcome, o *outcome) bool {
	has, failed := false, false
	for name, sub := range tests {
		if strings.HasPrefix(name, o.Test+"/") {
			has, failed = true, failed || sub.Action == "fail"
		}
	}
	return has && (o.Action != "fail" || failed)
}

func (r *report) count(action string) (n int) {
	for _, o := range r.tests {
		if o.Action == action {
			n++
		}
	}
	return n
}

// good is false as well for a run that ran nothing.
func (r *report) good() bool {
	return r.count("fail") == 0 && r.count("pass") > 0
}

// print writes a table, then the skips, then the failures where the end of a long
// log is looked at, then the counts alone on the last line. What passed when it
// was run again counts as passed, and is told of like a failure.
func (r *report) print(w io.Writer) error {
	if err := r.printTable(w); err != nil {
		return err
	}
	r.printSkips(w)
	for _, word := range []struct{ action, title string }{{again, "FAILED ONCE"}, {"fail", "FAIL"}} {
		for _, o := range r.tests {
			if o.Action == word.action {
				fmt.Fprintf(w, "%s %s %s %s\n%s\n\n", word.title, o.Env, o.Pkg, o.Test, indent(o.Output))
			}
		}
	}
	_, err := fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", r.count("pass")+r.count(again), r.count("fail"), r.count("skip"))
	return err
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}

func (r *report) printTable(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "ENVIRONMENT\tPACKAGE\tPASSED\tFAILED\tSKIPPED\tSECONDS")
	for _, res := range r.results {
		n := map[string]int{}
		for _, o := range r.tests {
			if o.Env == res.Env && o.Pkg == res.Pkg {
				n[o.Action]++
			}
		}
		fmt.Fprintf(tab, "%s\t%s\t%d\t%d\t%d\t%.1f\n", res.Env, res.Pkg, n["pass"]+n[again], n["fail"], n["skip"], res.Seconds)
	}
	fmt.Fprintln(tab)
	return tab.Flush()
}

// needs finds the reason in the output of a test that sandboxtest.Need skipped.
var needs = regexp.MustCompile(`needs \S+: .*`)

func (r *report) printSkips(w io.Writer) {
	groups := map[string]int{}
	for _, o := range r.tests {
		if o.Action == "skip" {
			reason := needs.FindString(o.Output)
			if reason == "" {
				reason = "no reason of the form that sandboxtest.Need gives"
			}
			groups[o.Env+": "+reason]++
		}
	}
	if len(groups) == 0 {
		return
	}
	fmt.Fprintln(w, "Skipped:")
	for _, reason := range slices.Sorted(maps.Keys(groups)) {
		fmt.Fprintf(w, "%5d  %s\n", groups[reason], reason)
	}
	fmt.Fprintln(w)
}
