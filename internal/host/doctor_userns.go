package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/facts"
)

// tryUserns makes a user namespace with one id, and a mount namespace in it:
// some systems permit the first and take its powers away.
func tryUserns() error {
	attr := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	if err := try(attr); err != nil {
		return fmt.Errorf("making one: %w", err)
	}
	attr.Unshareflags = syscall.CLONE_NEWNS
	if err := try(attr); err != nil {
		return fmt.Errorf("a mount namespace inside one: %w", err)
	}
	return nil
}

// try starts a process that becomes a program that does not exist: being told
// so means that everything before worked.
func try(attr *syscall.SysProcAttr) error {
	_, err := os.StartProcess("/proc/self/nonexistent", []string{"probe"}, &os.ProcAttr{Sys: attr})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		return errors.New("a program that does not exist was started")
	}
	return errors.Unwrap(err)
}

// userns says by what user namespaces are restricted, if they are.
func (m examiner) userns(h *facts.Host, tried error) Finding {
	f := Finding{Name: "userns", Status: OK, Value: "works", Enables: "sandboxes; without root, every one"}
	if tried == nil {
		return f
	}
	f.Status, f.Value = Missing, "fails: "+tried.Error()
	why, fix := m.restriction()
	f.Value += why
	f.Fix = fix
	if h.Privileged() {
		f.Fix = strings.TrimPrefix(f.Fix+"; or give up that wall: nucleus run --userns host", "; ")
	}
	return f
}

// restriction finds the switch that is off, and how it is switched on.
func (m examiner) restriction() (why, fix string) {
	sysctl := func(name, value string) string {
		return fmt.Sprintf("echo %s=%s | sudo tee /etc/sysctl.d/60-nucleus.conf && sudo sysctl --system", name, value)
	}
	switch {
	case m.line("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "; kernel.unprivileged_userns_clone is 0", sysctl("kernel.unprivileged_userns_clone", "1")
	case m.line("/proc/sys/user/max_user_namespaces") == "0":
		return "; user.max_user_namespaces is 0", sysctl("user.max_user_namespaces", "15000")
	case m.line("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "; AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns is 1)", apparmorFix()
	case m.container().Value != "none" || m.filtered():
		return "; the container around us does not permit it", "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined ..."
	}
	return "", "use a kernel with CONFIG_USER_NS, and leave chroot environments"
}

// apparmorFix is the command that permits this program alone to make user namespaces.
func apparmorFix() string {
	self, err := os.Executable()
	if err != nil {
		self = "/usr/local/bin/nucleus"
	}
	return fmt.Sprintf(`printf 'abi <abi/4.0>,\ninclude <tunables/global>\nprofile nucleus "%s" flags=(unconfined) {\n  userns,\n}\n' | sudo tee /etc/apparmor.d/nucleus && sudo apparmor_parser -r /etc/apparmor.d/nucleus`, self)
}
