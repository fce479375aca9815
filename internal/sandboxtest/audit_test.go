package sandboxtest

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestAuditNewKernel writes to the kernel's audit log and reads that again, as
// tests do that look for denials.
func TestAuditNewKernel(t *testing.T) {
	Need(t, Audit)
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	abi, err := landlockABI()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("Linux %s, Landlock ABI %d", bytes.TrimSpace(release), abi)

	log, err := auditSocket(auditReadLog)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(log)
	speaker, err := auditSocket(0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(speaker)
	const auditUser = 1005 // a message from a program
	mark := fmt.Appendf(nil, "op=nucleus-test-%d", os.Getpid())
	if err := auditSend(speaker, auditUser, append(mark, 0)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second * Slow()); time.Now().Before(deadline); {
		messages, err := auditRead(log)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if bytes.Contains(m.Data, mark) {
				return
			}
		}
	}
	t.Errorf("the log has no record with %s", mark)
}
