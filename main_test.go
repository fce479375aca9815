package nucleus_test

import (
	"debug/elf"
	"fmt"
	"os"
	"testing"

	"github.com/nucleus-container/nucleus/internal/probe"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// TestMain is also the way into the program that tests run inside sandboxes:
// the test binary itself, under the name that probe_test.go gives it.
func TestMain(m *testing.M) {
	if os.Args[0] == probePath {
		os.Exit(probeMain(os.Args[1:]))
	}
	if os.Args[0] == "nucleus" && len(os.Args) > 1 && os.Args[1] == "probe" { // as package selftest calls it
		os.Exit(probe.Main(os.Args[2:]))
	}
	if err := standsAlone(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	sandboxtest.Main(m)
}

// standsAlone checks that this binary runs where there is no C library.
func standsAlone() error {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("these tests run their own binary inside empty sandboxes: build them with CGO_ENABLED=0")
		}
	}
	return nil
}
