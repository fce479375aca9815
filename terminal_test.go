package nucleus_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/spec"
)

// TestTerminal: a terminal of the sandbox's own on all three streams, into which
// nothing can be typed from inside.
func TestTerminal(t *testing.T) {
	needSandbox(t)
	for _, uid := range []uint32{0, 1000} {
		FailsWithout(t, func(a *attempt) error {
			return a.want(&spec.Sandbox{Terminal: true, User: spec.User{UID: uid, GID: uid}},
				line{"isatty 0", "ok"}, line{"isatty 1", "ok"}, line{"isatty 2", "ok"}, line{"open rw /dev/tty", "ok"}, line{"ls /dev/pts", "ok:0 ptmx"},
				line{"fds", "ok:0 1 2"}, line{"sid", "ok:true"},
				line{fmt.Sprint("call ", unix.SYS_IOCTL, " 0 0x5412 s:x"), "EPERM"}, line{fmt.Sprint("call ", unix.SYS_IOCTL, " 0 0xabc00005412 s:x"), "EPERM"},
				line{fmt.Sprint("call ", unix.SYS_IOCTL, " 0 0x541c s:x"), "EPERM"})
		}, without(plan.OpenTerminal{}).needed())
	}
	if err := (&attempt{TB: t}).want(&spec.Sandbox{}, line{"isatty 0", "!ok"}, line{"isatty 1", "!ok"}, line{"ls /dev/pts", "ok:ptmx"}); err != nil {
		t.Errorf("without a terminal: %v", err)
	}
}

// TestTerminalStreams: input is echoed and read, output comes through Stdout.
func TestTerminalStreams(t *testing.T) {
	needSandbox(t)
	var out bytes.Buffer
	c := (&attempt{TB: t}).command(withProbe(&spec.Sandbox{Terminal: true}), probePath, "cat")
	c.Stdin, c.Stdout = strings.NewReader("one\ntwo\n\x04"), &out
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if want := "one\r\ntwo\r\none\r\ntwo\r\n"; len(out.String()) != len(want) || strings.Count(out.String(), "one") != 2 || strings.Count(out.String(), "two") != 2 {
		t.Errorf("got %q, want each line echoed and repeated", &out)
	}
	var lots bytes.Buffer
	c = (&attempt{TB: t}).command(withProbe(&spec.Sandbox{Terminal: true}), probePath, "many 5000")
	c.Stdout = &lots
	if err := c.Run(); err != nil || strings.Count(lots.String(), "\n") != 5000 {
		t.Errorf("got %d lines, %v, want 5000", strings.Count(lots.String(), "\n"), err)
	}
}

func TestResize(t *testing.T) {
	needSandbox(t)
	r, w := io.Pipe()
	c := (&attempt{TB: t}).command(withProbe(&spec.Sandbox{Terminal: true}), probePath, "resized")
	c.Stdout = w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(r)
	for _, step := range []struct {
		rows, cols uint16
		want       string
	}{{40, 80, "40x80"}, {50, 99, "50x99"}} {
		if !lines.Scan() { // the size before
			t.Fatal("no size")
		}
		if err := c.Process.Resize(step.rows, step.cols); err != nil {
			t.Fatal(err)
		}
		if step.cols == 99 {
			if lines.Scan(); strings.TrimSpace(lines.Text()) != step.want {
				t.Errorf("got %q, want %s", lines.Text(), step.want)
			}
		}
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	_ = w.Close()
}
