package nucleus_test

import (
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
)

// TestGuideInside: a program can read what its sandbox allows, and neither change
// nor remove it, though it belongs to the sandbox's root.
func TestGuideInside(t *testing.T) {
	needSandbox(t)
	const script = `cat /run/nucleus/policy.md
exec 2>&1
chmod 644 /run/nucleus/policy.md; echo lie >/run/nucleus/policy.md; rm -f /run/nucleus/policy.md; mv /run/nucleus /run/other`
	out, _ := nucleus.Command(&spec.Sandbox{Toolchain: true, Workspace: &spec.Bind{Source: t.TempDir()}}, "sh", "-c", script).CombinedOutput()
	if n := strings.Count(string(out), "Read-only file system"); n != 5 || !strings.Contains(string(out), "- read and write: /workspace\n") {
		t.Errorf("got %q; want the guide, and four refusals", out)
	}
}
