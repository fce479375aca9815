package logger

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// What the log writer may cost, in KiB: before any output and after a silence,
// and under load.
const (
	maxIdlePSS = 24
	maxBusyPSS = 24 + 64
)

func (w *writer) proc(name string) string {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", w.Process.Pid, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// pss returns the proportional set size in KiB.
func (w *writer) pss() (kib int) {
	w.t.Helper()
	rollup := w.proc("smaps_rollup")
	_, after, _ := strings.Cut(rollup, "\nPss:")
	if _, err := fmt.Sscan(after, &kib); err != nil {
		w.t.Fatalf("%v in\n%s", err, rollup)
	}
	return kib
}

// waiting returns when the program sleeps in its loop.
func (w *writer) waiting() {
	w.t.Helper()
	eventually(w.t, "a sleeping log writer under its filter", func() (bool, string) {
		status := w.proc("status")
		return strings.Contains(status, "\nState:\tS") && strings.Contains(status, "\nSeccomp:\t2\n"), status
	})
}

func TestWriterIsSmall(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns) // others may not look: it is not dumpable
	w := start(t, setup{userns: true, size: 8 << 20})
	w.waiting()
	idle, maps := w.pss(), w.proc("maps")
	w.say(1, strings.Repeat(strings.Repeat("x", 99)+"\n", 10000))
	busy := w.pss()
	var quiet int
	eventually(t, "the buffer back within seconds", func() (bool, string) {
		quiet = w.pss()
		return quiet <= maxIdlePSS, fmt.Sprint(quiet, " KiB")
	})
	t.Logf("PSS %d KiB idle, %d with output, %d after it; %d bytes of code; mapped:\n%s", idle, busy, quiet, len(Code()), maps)
	if idle > maxIdlePSS || busy > maxBusyPSS || busy <= idle {
		t.Errorf("PSS %d KiB idle and %d with output, want at most %d and %d", idle, busy, maxIdlePSS, maxBusyPSS)
	}
	for _, pipe := range []string{"fdinfo/3", "fdinfo/4"} {
		if info := w.proc(pipe); !strings.Contains(info, "flags:\t04000\n") {
			t.Errorf("got %s:\n%s\nwant a pipe that never makes a reader wait", pipe, info)
		}
	}
	for line := range strings.Lines(maps) {
		f := strings.Fields(line)
		if len(f) > 5 && strings.HasPrefix(f[5], "/") && !strings.HasPrefix(f[5], "/memfd:test-log") {
			t.Errorf("the log writer maps a file: %s", line)
		}
		if strings.Contains(f[1], "w") && strings.Contains(f[1], "x") {
			t.Errorf("writable and executable: %s", line)
		}
	}
	w.say(2, "more\n") // with a new buffer
	w.end()
	if out, err := read(t, w.dir); len(out) != 1000000 || err != "more\n" {
		t.Errorf("got %d bytes and %q, want 1000000 and more", len(out), err)
	}
}

func TestWriterIsConfined(t *testing.T) {
	w := start(t, setup{})
	w.waiting()
	status := w.proc("status")
	for _, want := range []string{
		"Name:\t" + comm + "\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n", "\nSeccomp_filters:\t1\n",
		"\nSigBlk:\tfffffffffffbfeff\n", // all but KILL and STOP
	} {
		if !strings.Contains("\n"+status, want) {
			t.Errorf("got\n%s\nwant %q in it", status, want)
		}
	}
}

// TestWriterCannotBeRead looks at a writer of an ordinary user: that user may not.
func TestWriterCannotBeRead(t *testing.T) {
	s := setup{}
	if os.Geteuid() == 0 {
		s.user = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	w := start(t, s)
	w.waiting()
	info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", w.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 || info.Mode() != 0o400 {
		t.Errorf("%v belongs to %d, want that only root may read it", info.Mode(), owner)
	}
}

// TestUnknownCallKills starts images whose filter lacks what the program does
// first of all: they die of SIGSYS.
func TestUnknownCallKills(t *testing.T) {
	for i, name := range calls()[:2] { // others come only after some output
		img := Image(Config{Out: 3, Err: 4, Files: []int{5}, Size: MinSize})
		at := filterAt + 8*(3+i) + 4
		copy(img[at:], []byte{0xff, 0xff, 0xff, 0x0f}) // in place of its number
		w := start(t, setup{image: img, files: 1})
		_, _ = w.pipe[0].WriteString("x") // it may be dead already
		if err := w.Wait(); err == nil || !strings.Contains(err.Error(), "bad system call") {
			t.Errorf("%s: got %v, want death by SIGSYS", name, err)
		}
	}
}
