package sandboxtest

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tryClone starts a process with the given attributes and a program that does
// not exist. Reaching "no such file" means that everything before the exec
// worked, so the probe needs no program of its own.
func tryClone(attr *syscall.SysProcAttr) error {
	_, err := os.StartProcess("/nonexistent/nucleus-probe", []string{"probe"}, &os.ProcAttr{Sys: attr})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		return errors.New("a program that does not exist was started")
	}
	return errors.Unwrap(err)
}

func probeRoot() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("running as uid %d", uid)
	}
	if err := tryClone(&syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}); err != nil {
		return fmt.Errorf("uid 0 without a mount namespace: %w", err)
	}
	return nil
}

func probeUser() error {
	if os.Geteuid() == 0 {
		return errors.New("running as root")
	}
	return nil
}

func probeUserns() error {
	attr := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	if err := tryClone(attr); err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	attr.Unshareflags = syscall.CLONE_NEWNS
	if err := tryClone(attr); err != nil {
		return fmt.Errorf("mount namespace inside it: %w", err)
	}
	return nil
}

func probeCgroup() error {
	v2 := haveCgroupV2()
	if v2 == nil {
		return nil
	}
	v1 := haveCgroupV1()
	if v1 == nil {
		return nil
	}
	return fmt.Errorf("v2: %w; v1: %w", v2, v1)
}

func probeLandlock() error {
	_, err := landlockABI()
	return err
}

// landlockABI asks for the ABI version. It does not go through internal/kernel: a
// mistake there must fail its tests, not skip them.
func landlockABI() (int, error) {
	const createRuleset, versionFlag = 444, 1 // the number is the same on every architecture
	abi, _, errno := syscall.RawSyscall(createRuleset, 0, 0, versionFlag)
	if errno != 0 {
		return 0, fmt.Errorf("landlock_create_ruleset: %w", errno)
	}
	if abi < 1 {
		return 0, fmt.Errorf("landlock ABI %d", abi)
	}
	return int(abi), nil
}

func probeProgram(name string) error {
	if _, err := exec.LookPath(name); err != nil {
		return errors.New("not in PATH")
	}
	return nil
}

func probeToolchain() error {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return errors.New("no go in PATH")
	}
	if err != nil {
		return fmt.Errorf("go list: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func probeLong() error {
	if testing.Short() {
		return errors.New("-short")
	}
	return nil
}

// probeSystemd says hello to the bus that the manager listens on.
func probeSystemd() error {
	private, bus := "/run/systemd/private", "/run/dbus/system_bus_socket"
	if os.Geteuid() != 0 {
		dir := os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			return errors.New("XDG_RUNTIME_DIR is not set")
		}
		private, bus = filepath.Join(dir, "systemd/private"), filepath.Join(dir, "bus")
	}
	if _, err := os.Stat(private); err != nil {
		return fmt.Errorf("no service manager: %w", err)
	}
	return busHello(bus)
}

func busHello(path string) error {
	conn, err := net.DialTimeout("unix", path, time.Second*Slow())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second * Slow())); err != nil {
		return err
	}
	uid := hex.EncodeToString([]byte(strconv.Itoa(os.Geteuid())))
	if _, err := fmt.Fprintf(conn, "\x00AUTH EXTERNAL %s\r\n", uid); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(answer, "OK ") {
		return fmt.Errorf("%s answered %q", path, answer)
	}
	return nil
}

// probeSubids maps two ids into the user namespace of a process that waits.
func probeSubids() error {
	who, err := currentName()
	if err != nil {
		return err
	}
	for _, kind := range []struct{ file, program, id string }{
		{"/etc/subuid", "newuidmap", strconv.Itoa(os.Getuid())},
		{"/etc/subgid", "newgidmap", strconv.Itoa(os.Getgid())},
	} {
		first, err := subidStart(kind.file, who)
		if err != nil {
			return err
		}
		if err := tryIDMap(kind.program, kind.id, first); err != nil {
			return err
		}
	}
	return nil
}

func tryIDMap(program, own, first string) error {
	waiter := exec.Command("cat")
	waiter.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	stdin, err := waiter.StdinPipe()
	if err != nil {
		return err
	}
	if err := waiter.Start(); err != nil {
		return err
	}
	pid := strconv.Itoa(waiter.Process.Pid)
	out, err := exec.Command(program, pid, "0", own, "1", "1", first, "1").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
	}
	stdin.Close()
	if waitErr := waiter.Wait(); err == nil && waitErr != nil {
		err = fmt.Errorf("a process with mapped ids: %w", waitErr)
	}
	return err
}

// probeOverlay leaves the mounts to util-linux: a Go process has many threads,
// and such a process cannot enter a user namespace by itself.
func probeOverlay() error {
	const script = `mount -t tmpfs none /mnt && mkdir /mnt/l /mnt/u /mnt/w /mnt/m &&
		mount -t overlay none /mnt/m -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w,userxattr && echo x >/mnt/m/f`
	out, err := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
