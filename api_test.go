package nucleus_test

import (
	"flag"
	"os"
	"os/exec"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

var update = flag.Bool("update", false, "write golden files anew; read them before they are committed")

// TestAPI makes every change to what others build on show up in review.
func TestAPI(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Program("go"))
	for _, tc := range []struct{ pkg, golden string }{
		{".", "testdata/api/nucleus.txt"},
		{"./spec", "testdata/api/spec.txt"},
	} {
		t.Run(tc.pkg, func(t *testing.T) {
			cmd := exec.Command("go", "doc", "-all", tc.pkg)
			cmd.Stderr = os.Stderr
			got, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(tc.golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(tc.golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("the API of %s is not that of %s; if it should change, run `go test -run TestAPI . -update` and read the difference", tc.pkg, tc.golden)
			}
		})
	}
}
