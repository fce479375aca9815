package sandboxtest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
)

// UserName is the unprivileged user that suites run as.
const UserName = "nucleus-test"

// Account is a user by number, with its home directory.
type Account struct {
	Name     string
	UID, GID uint32
	Home     string
}

// EnsureUser returns the account of UserName and, run by root, makes whatever of
// it is missing: the user, its home and its ranges of subordinate ids.
func EnsureUser() (Account, error) {
	if _, err := user.Lookup(UserName); err != nil {
		if err := system("useradd", "--create-home", "--shell", "/bin/sh", UserName); err != nil {
			return Account{}, err
		}
	}
	u, err := user.Lookup(UserName)
	if err != nil {
		return Account{}, err
	}
	if err := ensureSubids(); err != nil {
		return Account{}, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return Account{}, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return Account{}, err
	}
	return Account{Name: UserName, UID: uint32(uid), GID: uint32(gid), Home: u.HomeDir}, nil
}

// ensureSubids gives UserName a range where useradd did not: it gives one only
// if /etc/subuid existed and login.defs says so.
func ensureSubids() error {
	for _, kind := range []struct{ file, flag string }{
		{"/etc/subuid", "--add-subuids"},
		{"/etc/subgid", "--add-subgids"},
	} {
		if _, err := subidStart(kind.file, UserName); err == nil {
			continue
		}
		first, err := freeSubid(kind.file)
		if err != nil {
			return err
		}
		if err := system("usermod", kind.flag, fmt.Sprintf("%d-%d", first, first+1<<16-1), UserName); err != nil {
			return err
		}
	}
	return nil
}

// freeSubid returns the first id above every range in file.
func freeSubid(file string) (uint64, error) {
	first := uint64(100000)
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		part := strings.Split(strings.TrimSpace(line), ":")
		if len(part) != 3 {
			continue
		}
		start, err := strconv.ParseUint(part[1], 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		count, err := strconv.ParseUint(part[2], 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		first = max(first, start+count)
	}
	return first, nil
}

// subidStart returns the first id of the first range that file gives to name.
func subidStart(file, name string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		part := strings.Split(strings.TrimSpace(line), ":")
		if len(part) == 3 && part[0] == name {
			return part[1], nil
		}
	}
	return "", fmt.Errorf("%s has no range for %s", file, name)
}

func currentName() (string, error) {
	u, err := user.LookupId(strconv.Itoa(os.Getuid()))
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

func system(name string, arg ...string) error {
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(arg, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
