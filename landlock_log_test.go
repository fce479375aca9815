package nucleus_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/abi"
	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// restrict makes a Landlock domain of its own in which a file cannot be written
// to, and tries to.
func restrict(a []string) string {
	runtime.LockOSThread() // the domain is the thread's, and ends with it
	attr := abi.LandlockRulesetAttr(abi.LandlockFSWriteFile, 0, 0)
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), 8, 0)
	if e != 0 {
		return "create: " + verdict(e)
	}
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); e != 0 {
		return "restrict: " + verdict(e)
	}
	file, err := unix.Open(a[0], unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Close(file)
	}
	return verdict(err)
}

// unlogged changes what Landlock steps have written into the audit log.
func unlogged(name string, flags uint32) control {
	return change(name, func(a *plan.Landlock) bool {
		had := a.Log&flags != 0
		a.Log &^= flags
		return had
	})
}

// TestLandlockTellsNewKernel: what only Landlock refuses is explained as the
// kernel wrote it down, without a look at any file; and not if it writes nothing.
func TestLandlockTellsNewKernel(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Audit)
	pol := narrow("/root")
	FailsWithout(t, func(a *attempt) error {
		c := a.probe(&spec.Sandbox{Policy: pol}, "open new /root/allowed", "open new /tmp/new")
		c.Watch = &nucleus.Watch{}
		answers, err := a.askCmd(c, 2)
		if err != nil || !slices.Equal(answers, []string{"ok", "EACCES"}) {
			return fmt.Errorf("got %q, %v", answers, err)
		}
		all := c.Denials()
		if len(all) != 1 {
			return fmt.Errorf("got %+v, want one denial", all)
		}
		got := all[0]
		got.Time, got.Pid, got.Process, got.Say = time.Time{}, 0, "", ""
		want := nucleus.Denial{
			Layer: "landlock", What: "make a file in", Object: "/tmp", Errno: "EACCES", Rule: "the policy's Landlock rules do not allow make-file there", Count: 1,
			Allow: `in the policy, [[landlock.rules]]: { path = "/tmp", access = ["make-file"] }`,
		}
		if got != want {
			return fmt.Errorf("got  %+v\nwant %+v", got, want)
		}
		return nil
	}, unlogged("telling", abi.LandlockRestrictSelfLogNewExecOn))
}

// TestOthersAreNotToldNewKernel: two sandboxes at the same time are not mixed up.
func TestOthersAreNotToldNewKernel(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Audit)
	at := &attempt{TB: t}
	other := at.probe(&spec.Sandbox{Policy: narrow("/root")}, "open new /tmp/other")
	other.Watch = &nucleus.Watch{}
	c := at.probe(&spec.Sandbox{Policy: narrow("/tmp")}, "open new /root/mine")
	c.Watch = &nucleus.Watch{}
	for _, c := range []*nucleus.Cmd{other, c} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for c, want := range map[*nucleus.Cmd]string{other: "/tmp", c: "/root"} {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		if all := c.Denials(); len(all) != 1 || all[0].Object != want {
			t.Errorf("got %+v, want one about %s", all, want)
		}
	}
}

// TestDomainsInsideAreQuietNewKernel: what a program refuses itself does not go
// into the machine's audit log.
func TestDomainsInsideAreQuietNewKernel(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Audit)
	FailsWithout(t, func(a *attempt) error {
		log, err := kernel.OpenAuditLog()
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		name := fmt.Sprintf("/tmp/mark-%d", time.Now().UnixNano())
		if err := a.want(&spec.Sandbox{}, line{"open new " + name, "ok"}, line{"restrict " + name, "EACCES"}); err != nil {
			return err
		}
		if err := log.SetDeadline(time.Now().Add(300 * time.Millisecond * sandboxtest.Slow())); err != nil {
			t.Fatal(err)
		}
		for {
			_, text, err := log.Next()
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				return nil
			case err != nil:
				t.Fatal(err)
			case strings.Contains(text, name):
				return fmt.Errorf("the audit log says: %s", text)
			}
		}
	}, unlogged("silence", abi.LandlockRestrictSelfLogSubdomainsOff))
}
