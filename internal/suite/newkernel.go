package main

import (
	"context"
	"fmt"
	"os/exec"
)

// newKernelTests are what the machine with the newer kernel runs, as a regular
// expression for each package: what a kernel could change for us. The machine is
// emulated, so everything would take as long as on the others.
var newKernelTests = map[string]string{
	".": newKernelName + "|Landlock|^TestReport|^TestErrorText$|^TestDenials|^TestSelftestIsGreen$" +
		"|^TestRootIsReadOnly$|^TestReadOnlyVolume$|^TestNoExec$|^TestHostSockets$|^TestOwn|^TestJoinedHasTheOwnPolicy$",
	"internal/cli":         newKernelName + "|^TestStreams$|^TestKilled$",
	"internal/host":        ".",
	"internal/sandboxtest": newKernelName + "|^TestProbes",
	"policy/landlock":      ".",
}

// newKernelName is in the name of a test, in any package, that needs what only
// newer kernels have.
const newKernelName = "NewKernel"

// forNewKernel selects from tests what the machine with the newer kernel runs.
// What somebody has asked for with -run is run there too, all of it.
func forNewKernel(tests []test, run string, has func(test) (bool, error)) ([]test, error) {
	if run != "" {
		return tests, nil
	}
	var selected []test
	for _, t := range tests {
		named, ok := newKernelTests[t.Pkg]
		if !ok {
			named = newKernelName
			var err error
			if ok, err = has(t); err != nil {
				return nil, fmt.Errorf("list the tests of %s: %w", t.Pkg, err)
			}
		}
		if ok {
			t.Run = named
			selected = append(selected, t)
		}
	}
	return selected, nil
}

// hasNewKernelTest asks a staged test binary. A package without such a test would
// cost the machine a second, and everybody who reads the table a row.
func (s stage) hasNewKernelTest(ctx context.Context, t test) (bool, error) {
	cmd := exec.CommandContext(ctx, s.path(t.Binary), "-test.list="+newKernelName)
	cmd.Dir = s.path("src", t.Pkg)
	out, err := cmd.Output()
	return len(out) > 0, err
}
