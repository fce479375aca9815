package cli_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/store"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// program is the nucleus under test: the one that NUCLEUS_BIN names, or one
// built beside the test binary, in a directory that the go command removes.
var program = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("NUCLEUS_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(filepath.Dir(self), "nucleus")
	build := exec.Command("go", "build", "-o", bin, "github.com/nucleus-container/nucleus/cmd/nucleus")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

// nucleus returns the path of the program under test.
func nucleus(t *testing.T) string {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// TestScripts runs testdata/script. A line "# needs: FEATURE..." at the top of a
// script names what it cannot do without.
func TestScripts(t *testing.T) {
	bin := nucleus(t)
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: got %d, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			sandboxtest.Need(t, needs(t, file)...)
			testscript.Run(t, testscript.Params{
				Files:               []string{file},
				RequireExplicitExec: true,
				Setup: func(env *testscript.Env) error {
					env.Setenv("NUCLEUS", bin)
					env.Setenv("UID", strconv.Itoa(os.Getuid()))
					state := filepath.Join(env.WorkDir, "state")
					env.Setenv("NUCLEUS_STATE_DIR", state)
					env.Defer(func() { removeSandboxes(t, state) })
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code, "lines": lines},
			})
		})
	}
}

// removeSandboxes ends what a script has left running: a failed one, above all.
func removeSandboxes(t *testing.T, state string) {
	t.Helper()
	if _, err := os.Lstat(state); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := store.Open(state)
	if err != nil {
		return // a script that is about bad state directories
	}
	all, err := s.List(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, i := range all {
		b, err := s.Sandbox(i.ID)
		if err == nil {
			err = b.Remove(ctx, true)
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Errorf("remove %s: %v", i.ID, err)
		}
	}
}

func needs(t *testing.T, file string) (all []sandboxtest.Feature) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	if list, ok := strings.CutPrefix(first, "# needs:"); ok {
		for _, name := range strings.Fields(list) {
			f := sandboxtest.Feature(name)
			if !slices.Contains(sandboxtest.Features(), f) && f != sandboxtest.Program(strings.TrimPrefix(name, "program-")) {
				t.Fatalf("%s needs %q, which is no feature", file, name)
			}
			all = append(all, f)
		}
	}
	return all
}

// code runs nucleus and wants an exit code: code 7 run -- sh -c 'exit 7'.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N ARGUMENT...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(ts.Getenv("NUCLEUS"), args[1:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("nucleus %s: got exit code %d, want %d\nstderr: %s", strings.Join(args[1:], " "), got, want, ts.ReadFile("stderr"))
	}
}

// lines wants a number of lines: lines stderr 1.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines FILE N")
	}
	if got := strings.Count(ts.ReadFile(args[0]), "\n"); strconv.Itoa(got) != args[1] {
		ts.Fatalf("%s: got %d lines, want %s:\n%s", args[0], got, args[1], ts.ReadFile(args[0]))
	}
}
