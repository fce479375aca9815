package rootfs

import (
	"fmt"
	"slices"
	"strings"
)

// Reserved begins the names at the top of a directory that are about it: no
// sandbox shows them.
const Reserved = ".nucleus-rootfs"

// StoreName is the file at the top of a directory that lists the parts of the
// Nix store that belong to it, a path a line, as `nix-store -qR` prints them.
const StoreName = ".nucleus-rootfs-store-paths"

// Store is where the parts of a Nix store are.
const Store = "/nix/store"

// MaxStorePaths bounds how many parts a root has, each of which is a mount.
const MaxStorePaths = 4096

// maxStoreFile is the size of a list of so many names, at most.
const maxStoreFile = 1 << 20

// StorePaths reads such a list and returns the names below the store, sorted.
// A line is exactly /nix/store/HASH-NAME: a path that goes on could lead through
// a symbolic link, and one that is shorter would show the whole store.
func StorePaths(text string) ([]string, error) {
	var names []string
	for n, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		name, ok := strings.CutPrefix(line, Store+"/")
		if !ok || !storeName(name) {
			return nil, fmt.Errorf("line %d: %q is not %s/HASH-NAME", n+1, line, Store)
		}
		names = append(names, name)
	}
	if len(names) > MaxStorePaths {
		return nil, fmt.Errorf("it names %d store paths, more than %d", len(names), MaxStorePaths)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// hashLen is the length of the hash that a store path begins with, and
// hashDigits are its digits: without e, o, u and t.
const (
	hashLen    = 32
	hashDigits = "0123456789abcdfghijklmnpqrsvwxyz"
	nameChars  = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?="
)

func storeName(s string) bool {
	return len(s) > hashLen+1 && len(s) <= 255 && s[hashLen] == '-' &&
		strings.Trim(s[:hashLen], hashDigits) == "" && s[hashLen+1] != '.' && strings.Trim(s[hashLen+1:], nameChars) == ""
}
