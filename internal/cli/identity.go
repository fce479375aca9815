package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/nucleus-container/nucleus/spec"
)

// maxID is the last id that means somebody.
const maxID = 65534

// identity reads UID|NAME[:GID|GROUP] and the separate group. Names are those
// of this machine's /etc/passwd and /etc/group: os/user would know more sources,
// but built with cgo it would make nucleus a dynamic program that starts in
// twice the time. A name brings its group; a number is its own group.
func identity(who, group string) (u spec.User, err error) {
	name, second, has := strings.Cut(who, ":")
	switch {
	case has && second == "":
		return u, fmt.Errorf("--user: %s names no group after the colon", quote(who))
	case has && group != "":
		return u, fmt.Errorf("--group: --user %s already names a group", quote(who))
	case has:
		group = second
	}
	if who != "" {
		if u, err = lookUser(name); err != nil {
			return u, fmt.Errorf("--user: %w", err)
		}
	}
	if group == "" {
		return u, nil
	}
	u.GID, err = lookGroup(group)
	if err != nil && has {
		return u, fmt.Errorf("--user: %w", err)
	}
	if err != nil {
		return u, fmt.Errorf("--group: %w", err)
	}
	return u, nil
}

func lookUser(name string) (u spec.User, err error) {
	if name == "root" {
		return u, nil
	}
	if numeric(name) {
		n, err := number(name, maxID)
		return spec.User{UID: uint32(n), GID: uint32(n)}, err
	}
	entry, err := account("/etc/passwd", name, 4)
	if err != nil {
		return u, fmt.Errorf("user %s: %w", quote(name), err)
	}
	uid, err := number(entry[2], maxID)
	if err != nil {
		return u, fmt.Errorf("user %s: the id %w", quote(name), err)
	}
	gid, err := number(entry[3], maxID)
	if err != nil {
		return u, fmt.Errorf("user %s: the group's id %w", quote(name), err)
	}
	return spec.User{UID: uint32(uid), GID: uint32(gid), Name: name}, nil
}

func lookGroup(name string) (uint32, error) {
	if name == "root" {
		return 0, nil
	}
	if numeric(name) {
		n, err := number(name, maxID)
		return uint32(n), err
	}
	entry, err := account("/etc/group", name, 3)
	if err != nil {
		return 0, fmt.Errorf("group %s: %w", quote(name), err)
	}
	n, err := number(entry[2], maxID)
	return uint32(n), err
}

// numeric reports whether a name is meant as a number: names of users do not
// begin with a digit or a sign.
func numeric(name string) bool {
	return name == "" || name[0] >= '0' && name[0] <= '9' || name[0] == '-' || name[0] == '+'
}

// account finds the line of a name in passwd(5) or group(5), which has at least
// so many fields.
func account(file, name string, fields int) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		if entry := strings.Split(strings.TrimSpace(line), ":"); entry[0] == name && len(entry) >= fields {
			return entry, nil
		}
	}
	return nil, fmt.Errorf("%s has no such name", file)
}
