package pid1

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy/seccomp"
)

func TestStatusDescriptorIsTheInitsOwn(t *testing.T) {
	b := start(t, setup{workload: "fds"})
	b.wantMessage(t, Started, 2)
	all, err := io.ReadAll(b.out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(all, []byte("1 pipe:")) {
		t.Errorf("got\n%s, want descriptor 1 to be a pipe", all)
	}
	if bytes.Contains(all, []byte(b.statusName)) {
		t.Errorf("the workload holds\n%s, want no %s", all, b.statusName)
	}
	b.wantExit(t, 0)
}

func TestInitHoldsOneDescriptor(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root) // others may not look
	b := start(t, setup{workload: "signals"})
	b.wantMessage(t, Started, 2)
	b.line(t)
	dir := fmt.Sprintf("/proc/%d/fd", b.Process.Pid)
	eventually(t, "one descriptor: 3 "+b.statusName, func() (bool, string) {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range list {
			to, err := os.Readlink(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Name()+" "+to)
		}
		return len(got) == 1 && got[0] == "3 "+b.statusName, fmt.Sprintf("%q", got)
	})
}

// maxPSS is what the init may cost, in KiB.
const maxPSS = 64

func TestInitIsSmall(t *testing.T) {
	b := start(t, setup{config: Config{Filter: seccomp.DefaultProgram(arch(t)).Insns}, workload: "signals"})
	b.wantMessage(t, Started, 2)
	b.line(t)
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", b.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(rollup), "\nPss:")
	var kib int
	if _, err := fmt.Sscan(after, &kib); err != nil {
		t.Fatalf("%v in\n%s", err, rollup)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", b.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("PSS %d KiB, %d bytes of code; mapped:\n%s", kib, len(Code()), maps)
	if kib > maxPSS {
		t.Errorf("PSS %d KiB, want at most %d", kib, maxPSS)
	}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) > 5 && strings.HasPrefix(f[5], "/") && !strings.HasPrefix(f[5], "/memfd:test-init") {
			t.Errorf("the init maps a file: %s", line)
		}
		if strings.Contains(f[1], "w") && strings.Contains(f[1], "x") {
			t.Errorf("writable and executable: %s", line)
		}
	}
}

func arch(t *testing.T) seccomp.Arch {
	t.Helper()
	a, err := seccomp.ParseArch(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestWorkloadCannotLookIntoInit has the workload, which has the init's user
// id, try. What it may read of itself shows that trying works.
func TestWorkloadCannotLookIntoInit(t *testing.T) {
	b := start(t, setup{workload: "spy"})
	b.wantMessage(t, Started, 2)
	all, err := io.ReadAll(b.out)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for line := range strings.Lines(string(all)) {
		denied := strings.Contains(line, "denied: true")
		if strings.HasPrefix(line, "init ") {
			tried++
			if !denied {
				t.Errorf("the workload looks into the init: %s", line)
			}
		} else if denied {
			t.Errorf("the workload cannot even look at itself: %s", line)
		}
	}
	if tried != 8 {
		t.Errorf("got %d attempts, want 8:\n%s", tried, all)
	}
	b.wantExit(t, 0)
}

func TestLifeline(t *testing.T) {
	b := start(t, shell(t, `sleep 1000 & echo ready; sleep 1000`))
	b.wantMessage(t, Started, 2)
	b.line(t)
	b.hangUp(t)
	b.wantExit(t, 137)
}

func TestOrphanDoesNotStart(t *testing.T) {
	b := start(t, setup{workload: "state", orphan: true})
	out, err := io.ReadAll(b.out)
	if err != nil || len(out) > 0 {
		t.Errorf("the workload ran: %s (%v)", out, err)
	}
	b.wantExit(t, 137)
}

// TestSIGIOAloneEndsNothing has the workload send the lifeline's signal.
func TestSIGIOAloneEndsNothing(t *testing.T) {
	b := start(t, shell(t, `kill -s IO 1 || kill -29 1; kill -s TERM 1; sleep 1000`))
	b.wantMessage(t, Started, 2)
	// Signals are taken in the order of their numbers: TERM comes back to the
	// shell, with or without the other before it.
	b.wantMessage(t, Ended, int(syscall.SIGTERM))
	b.wantExit(t, 128+int(syscall.SIGTERM))

	b = start(t, shell(t, `kill -s IO 1 || kill -29 1; echo sent; read x; exit 4`))
	b.wantMessage(t, Started, 2)
	b.line(t)
	b.stdin.Close()
	b.wantMessage(t, Ended, 4<<8)
	b.wantExit(t, 4)
}

// refuse returns a filter under which some calls fail with errno 99.
func refuse(t *testing.T, names ...string) []seccomp.Insn {
	t.Helper()
	prog := []seccomp.Insn{{Code: 0x20}} // the number
	for _, name := range names {
		nr, ok := arch(t).Number(name)
		if !ok {
			continue // this architecture has no such call
		}
		prog = append(prog, seccomp.Insn{Code: 0x15, JF: 1, K: nr}, seccomp.Insn{Code: 6, K: 0x50000 | 99})
	}
	return append(prog, seccomp.Insn{Code: 6, K: 0x7fff0000})
}

func TestFilterIsTheWorkloads(t *testing.T) {
	nr, _ := arch(t).Number("sethostname")
	for _, tc := range []struct {
		name   string
		filter []seccomp.Insn
		errno  int
	}{
		{"none", nil, int(syscall.EPERM)}, // no capability
		{"one", refuse(t, "sethostname"), 99},
		// What the init itself needs after the filter is in place, and a Go
		// program does not.
		{"against the init", refuse(t, "sethostname", "wait4", "rt_sigtimedwait", "recvfrom", "close_range"), 99},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := start(t, setup{config: Config{Filter: tc.filter}, workload: fmt.Sprint("call ", nr)})
			b.wantMessage(t, Started, 2)
			if got, want := b.line(t), fmt.Sprint("errno ", tc.errno); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			b.wantMessage(t, Ended, 0)
			b.wantExit(t, 0)
		})
	}
}

func TestDefaultFilter(t *testing.T) {
	nr, _ := arch(t).Number("io_uring_setup")
	b := start(t, setup{config: Config{Filter: seccomp.DefaultProgram(arch(t)).Insns}, workload: fmt.Sprint("call ", nr)})
	b.wantMessage(t, Started, 2)
	if got, want := b.line(t), fmt.Sprint("errno ", int(syscall.ENOSYS)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	b.wantExit(t, 0)
}

// TestFilterOfNothing: who may not even end is ended.
func TestFilterOfNothing(t *testing.T) {
	filter := []seccomp.Insn{{Code: 6, K: 0x50000 | uint32(syscall.EPERM)}}
	b := start(t, setup{config: Config{Filter: filter}, workload: "state"})
	b.wantMessage(t, NotStarted, -int(syscall.EPERM))
	b.wantExit(t, 127)
}

func TestBadFilterStartsNothing(t *testing.T) {
	b := start(t, setup{config: Config{Filter: []seccomp.Insn{{Code: 0xffff}}}, workload: "state"})
	b.wantMessage(t, NoFilter, -int(syscall.EINVAL))
	b.wantExit(t, 127)
}

func TestTerminalMustBeOne(t *testing.T) {
	b := start(t, setup{config: Config{Terminal: true}, workload: "state"})
	b.wantMessage(t, NoSession, -int(syscall.ENOTTY))
	b.wantExit(t, 127)
}
