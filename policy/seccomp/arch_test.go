package seccomp

import (
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestTableIsSortedAndUnique(t *testing.T) {
	if !slices.IsSortedFunc(calls[:], func(a, b call) int { return strings.Compare(a.name, b.name) }) {
		t.Error("calls is not sorted by name")
	}
	if !slices.IsSortedFunc(errnos[:], func(a, b errno) int { return strings.Compare(a.name, b.name) }) {
		t.Error("errnos is not sorted by name")
	}
	for _, a := range []Arch{AMD64, ARM64} {
		seen := make(map[uint32]string)
		for _, name := range a.Names() {
			nr, ok := a.Number(name)
			if !ok {
				t.Errorf("%s %s: listed and not found", a, name)
			}
			if other, dup := seen[nr]; dup {
				t.Errorf("%s: %s and %s share number %d", a, name, other, nr)
			}
			seen[nr] = name
			if back, ok := a.Name(nr); !ok || back != name {
				t.Errorf("%s %d: got %s, want %s", a, nr, back, name)
			}
		}
		// From 424 on, every architecture gives a new call the same number.
		for nr := uint32(424); nr <= 471; nr++ {
			name, ok := a.Name(nr)
			if _, other := seen[nr]; !ok || !other {
				t.Errorf("%s: no call %d", a, nr)
			}
			if n, _ := AMD64.Number(name); n != nr {
				t.Errorf("%s: %s is %d on amd64 and %d here", a, name, n, nr)
			}
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, tt := range []struct {
		name         string
		amd64, arm64 uint32
	}{
		{"read", 0, 63}, {"write", 1, 64}, {"openat", 257, 56}, {"close", 3, 57}, {"ioctl", 16, 29},
		{"clone", 56, 220}, {"execve", 59, 221}, {"socket", 41, 198}, {"mount", 165, 40},
		{"ptrace", 101, 117}, {"newfstatat", 262, 79}, {"unshare", 272, 97}, {"seccomp", 317, 277},
		{"bpf", 321, 280}, {"io_uring_setup", 425, 425}, {"clone3", 435, 435}, {"mseal", 462, 462},
		{"open_tree_attr", 467, 467}, {"file_setattr", 469, 469},
	} {
		if nr, ok := AMD64.Number(tt.name); !ok || nr != tt.amd64 {
			t.Errorf("amd64 %s: got %d, want %d", tt.name, nr, tt.amd64)
		}
		if nr, ok := ARM64.Number(tt.name); !ok || nr != tt.arm64 {
			t.Errorf("arm64 %s: got %d, want %d", tt.name, nr, tt.arm64)
		}
	}
	if _, ok := ARM64.Number("open"); ok {
		t.Error("arm64 has no open")
	}
	if _, ok := Arch(0).Number("read"); ok {
		t.Error("no architecture has a read")
	}
}

// The numbers agree with those that Go itself uses here.
func TestNumbersOfThisMachine(t *testing.T) {
	a, err := ParseArch(runtime.GOARCH)
	if err != nil {
		t.Logf("%v: nothing to compare", err)
		return
	}
	for name, want := range map[string]uint32{
		"mmap": syscall.SYS_MMAP, "wait4": syscall.SYS_WAIT4, "setsid": syscall.SYS_SETSID,
		"prlimit64": syscall.SYS_PRLIMIT64, "accept4": syscall.SYS_ACCEPT4, "pivot_root": syscall.SYS_PIVOT_ROOT,
	} {
		if nr, ok := a.Number(name); !ok || nr != want {
			t.Errorf("%s: got %d, want %d", name, nr, want)
		}
	}
}

func TestParseArch(t *testing.T) {
	for _, a := range []Arch{AMD64, ARM64} {
		if got, err := ParseArch(a.String()); err != nil || got != a {
			t.Errorf("%s: got %s, %v", a, got, err)
		}
	}
	if a, err := ParseArch("riscv64"); err == nil {
		t.Errorf("riscv64: got %s, want an error", a)
	}
	if got := Arch(0).String(); got != "Arch(0)" {
		t.Errorf("got %s", got)
	}
}

func TestErrnos(t *testing.T) {
	for name, want := range map[string]syscall.Errno{
		"EPERM": syscall.EPERM, "ENOSYS": syscall.ENOSYS, "EAGAIN": syscall.EAGAIN, "EDEADLK": syscall.EDEADLK,
		"EAFNOSUPPORT": syscall.EAFNOSUPPORT, "EPROTONOSUPPORT": syscall.EPROTONOSUPPORT, "ENOPROTOOPT": syscall.ENOPROTOOPT,
	} {
		if no, ok := errnoNumber(name); !ok || no != uint16(want) {
			t.Errorf("%s: got %d, want %d", name, no, want)
		}
		if got := errnoName(uint16(want)); got != name {
			t.Errorf("%d: got %s, want %s", want, got, name)
		}
	}
	if got := errnoName(4095); got != "4095" {
		t.Errorf("got %s, want 4095", got)
	}
}
