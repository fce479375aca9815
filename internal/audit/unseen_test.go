package audit_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/audit"
	"github.com/nucleus-container/nucleus/spec"
)

// TestWhereASandboxReaches: ws and rw can be written to, ro and root are only seen.
func TestWhereASandboxReaches(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"ws/sub", "rw", "ro", "root", "out/below"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"ws/away": "../out", "ws/deep": "../out/below", "into": "ws/sub", "back": "ws/away"} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	box := &spec.Sandbox{
		Workspace: &spec.Bind{Source: "ws"}, Context: &spec.Bind{Source: "ro"}, Rootfs: &spec.Rootfs{Source: "root"},
		Volumes: []spec.Volume{{Source: filepath.Join("rw", "."), Target: "/rw", Writable: true}, {Source: "one", Target: "/one", Writable: true}},
	}
	if err := os.WriteFile("one", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct{ seen, written, led bool }{
		"log": {}, "out/log": {}, "ws.log": {},
		"ro/log": {seen: true}, "root/log": {seen: true},
		"ws/log": {true, true, false}, "ws/sub/log": {true, true, false}, "rw/log": {true, true, false}, "into/log": {true, true, false}, "one": {true, true, false},
		// A program before this one may have made these links.
		"ws/away/log": {true, true, true}, "back/log": {true, true, true}, "ws/deep/../log": {true, true, false},
	} {
		if err := audit.Unseen(box, path); (err != nil) != want.seen {
			t.Errorf("Unseen %s: got %v, want an error: %t", path, err, want.seen)
		}
		if err := audit.Unwritable(box, path); (err != nil) != want.written {
			t.Errorf("Unwritable %s: got %v, want an error: %t", path, err, want.written)
		}
		if err := audit.Straight(box, path); (err != nil) != want.led {
			t.Errorf("Straight %s: got %v, want an error: %t", path, err, want.led)
		}
	}
	if err := audit.Unwritable(box, "nowhere/log"); err == nil {
		t.Error("a directory that is not there is all right")
	}
	if err := audit.Unwritable(box, "ws/sub/log"); err == nil || !strings.HasSuffix(err.Error(), "ws/sub/log is in ws, which the sandbox can write to: choose a place outside, such as log") {
		t.Errorf("got %v, want a place to choose", err)
	}
}
