package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/selftest"
)

// TestClaimsHaveTests checks that every test exists that the tables of claims and
// of attacks name.
func TestClaimsHaveTests(t *testing.T) {
	for doc, least := range map[string]int{"docs/SECURITY.md": 40, "docs/REGRESSIONS.md": 60} {
		text, err := os.ReadFile("../../" + doc)
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile("`(?:([a-z0-9/]+) )?((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1)
		if len(named) < least {
			t.Fatalf("%s names %d tests: is the table still there?", doc, len(named))
		}
		for _, m := range named {
			if !testExists(t, m[1], m[2]) {
				t.Errorf("%s: package %q has no test %s", doc, m[1], m[2])
			}
		}
	}
}

func testExists(t *testing.T, pkg, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(src), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

// TestAttacksHaveTests checks that every row of docs/REGRESSIONS.md has a test, or
// says what is missing.
func TestAttacksHaveTests(t *testing.T) {
	doc, err := os.ReadFile("../../docs/REGRESSIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(doc)) {
		cell := strings.Split(strings.TrimSpace(line), "|")
		if len(cell) != 5 || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| attack |") {
			if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| attack |") {
				t.Errorf("a row of %d cells: %s", len(cell)-2, line)
			}
			continue
		}
		n++
		if !strings.Contains(cell[2], "`") && strings.TrimSpace(cell[3]) == "" {
			t.Errorf("neither a test nor a reason: %s", line)
		}
	}
	if n < 35 {
		t.Errorf("got %d rows, want at least 35", n)
	}
}

// rows are the claims of docs/SECURITY.md.
func rows(t *testing.T) []string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "| claim | tests | what it does not cover |\n|---|---|---|\n")
	if !ok {
		t.Fatal("docs/SECURITY.md has no table of claims")
	}
	var out []string
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") {
			break
		}
		out = append(out, strings.TrimSpace(strings.SplitN(line, "|", 3)[1]))
	}
	return out
}

// TestClaimsAreTheDocuments compares the two tables: no claim is without a probe
// or the reason why there is none.
func TestClaimsAreTheDocuments(t *testing.T) {
	doc := rows(t)
	var ours []string
	for _, c := range selftest.Claims() {
		ours = append(ours, c.Text)
	}
	for _, claim := range doc {
		if !slices.Contains(ours, claim) {
			t.Errorf("docs/SECURITY.md claims %q: add it to the tables of internal/selftest, with a probe or with the reason why there is none", claim)
		}
	}
	for _, claim := range ours {
		if !slices.Contains(doc, claim) {
			t.Errorf("%q is not in docs/SECURITY.md", claim)
		}
	}
}
