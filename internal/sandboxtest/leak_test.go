package sandboxtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func snapshot(t *testing.T) Snapshot {
	t.Helper()
	s, err := TakeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantLeak checks that exactly the things with those words are new.
func wantLeak(t *testing.T, before Snapshot, words ...string) {
	t.Helper()
	leaks := before.leaksAfter(100 * time.Millisecond * Slow())
	for _, w := range words {
		if !strings.Contains(strings.Join(leaks, "\n"), w) {
			t.Errorf("got leaks %q, want one with %q", leaks, w)
		}
	}
	if len(leaks) != len(words) {
		t.Errorf("got %d leaks %q, want %d", len(leaks), leaks, len(words))
	}
}

func TestNothingLeaks(t *testing.T) {
	wantLeak(t, snapshot(t))
}

func TestDescriptorLeaks(t *testing.T) {
	before := snapshot(t)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	wantLeak(t, before, "/dev/null")
}

func TestProcessLeaks(t *testing.T) {
	for _, tc := range []struct{ name, script string }{
		{"child", "exec cat"},
		{"orphan", "exec 3<&0; cat <&3 & exit 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			before := snapshot(t)
			cmd := exec.Command("sh", "-c", tc.script)
			cmd.Stdin = r
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if tc.name == "orphan" {
				if err := cmd.Wait(); err != nil {
					t.Fatal(err)
				}
			}
			if tc.name == "child" {
				wantLeak(t, before, "(cat)", "[pidfd]")
			} else {
				wantLeak(t, before, "(cat)")
			}
			w.Close()
			if tc.name == "child" {
				if err := cmd.Wait(); err != nil {
					t.Error(err)
				}
			}
			wantLeak(t, before) // the pipe's ends are older than the snapshot
		})
	}
}

func TestTempAndStateLeak(t *testing.T) {
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	t.Setenv("TMPDIR", run)
	before := snapshot(t)
	for _, dir := range []string{"nucleus", "nucleus/box", "nucleus-123"} {
		if err := os.Mkdir(filepath.Join(run, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	wantLeak(t, before, "state file "+run+"/nucleus/box", "temporary "+run+"/nucleus-123")
}

func TestCgroupLeaks(t *testing.T) {
	Need(t, CgroupV1)
	all, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range all {
		if h.v2 {
			continue
		}
		before := snapshot(t)
		dir := filepath.Join(h.dir, "nucleus-leak-test")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		wantLeak(t, before, dir)
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		return
	}
}

func TestMountLeaks(t *testing.T) {
	Need(t, Root)
	before := snapshot(t)
	dir := t.TempDir()
	if err := system("mount", "-t", "tmpfs", "leak", dir); err != nil {
		t.Fatal(err)
	}
	wantLeak(t, before, "mount on "+dir)
	if err := system("umount", dir); err != nil {
		t.Fatal(err)
	}
}

func TestParseStat(t *testing.T) {
	got, ok := parseStat(7, "7 (a) (b)) S 3 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 4242 1 2")
	want := process{pid: 7, parent: 3, started: "4242", name: "a) (b)"}
	if !ok || got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
	if _, ok := parseStat(7, "7 ("); ok {
		t.Error("a cut line was accepted")
	}
}

func TestProbesLeaveNothing(t *testing.T) {
	before, err := TakeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	for f, probe := range map[Feature]func() error{
		Root: probeRoot, Userns: probeUserns, CgroupV1: probeCgroupV1, CgroupV2: probeCgroupV2,
		Systemd: probeSystemd, Landlock: probeLandlock, Subids: probeSubids, KernelOverlay: probeOverlay,
	} {
		err := probe()
		t.Logf("%s: %v", f, err)
	}
	if leaks := before.Leaks(); len(leaks) != 0 {
		t.Errorf("probes left %q", leaks)
	}
}
