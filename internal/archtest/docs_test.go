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

// TestClaimsHaveTests checks that every test that docs/SECURITY.md names exists.
func TestClaimsHaveTests(t *testing.T) {
	doc, err := os.ReadFile("../../docs/SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(?:([a-z0-9/]+) )?((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(doc), -1)
	if len(named) < 40 {
		t.Fatalf("docs/SECURITY.md names %d tests: is the table still there?", len(named))
	}
	for _, m := range named {
		files, err := filepath.Glob(filepath.Join("../..", m[1], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range files {
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(src), "\nfunc "+m[2]+"(")
		}
		if !found {
			t.Errorf("docs/SECURITY.md: package %q has no test %s", m[1], m[2])
		}
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
