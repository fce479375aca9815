// Package files reads policies: the seccomp profiles of other engines (OCI JSON),
// capability and Landlock policies (TOML), and policy.toml, which holds all of
// these. docs/POLICY.md describes the formats.
//
//	p, err := files.Load(files.Options{Policy: files.File{Path: "policy.toml"}})
//	box := &spec.Sandbox{Toolchain: true, Policy: p}
//
// A file is opened once, read once, and what is parsed is what was hashed. Every
// reader is strict: an unknown key or name, a key that is there twice, a value of
// another type or text behind the end is an error that names file and line, and
// never a policy that means less than its author thinks.
package files

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/policy"
)

// MaxSize is the size of the largest file that is read.
const MaxSize = 1 << 20

// File is a file to read, and the SHA-256 digest that its content must have:
// 64 hexadecimal digits, or empty.
type File struct {
	Path   string
	SHA256 string
}

// ParseDigest checks a digest as a user gives it, and returns it in lower case.
func ParseDigest(text string) (string, error) {
	lower := strings.ToLower(text)
	if b, err := hex.DecodeString(lower); err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf("%q is not a SHA-256 digest of 64 hexadecimal digits", text)
	}
	return lower, nil
}

// read returns the content of a file and where it is from.
func (f File) read(kind string) ([]byte, policy.Source, error) {
	src := policy.Source{Kind: kind, Path: f.Path, Pinned: f.SHA256 != ""}
	want := ""
	if src.Pinned {
		var err error
		if want, err = ParseDigest(f.SHA256); err != nil {
			return nil, src, err
		}
	}
	data, err := readRegular(f.Path)
	if err != nil {
		return nil, src, err
	}
	sum := sha256.Sum256(data)
	src.SHA256 = hex.EncodeToString(sum[:])
	if src.Pinned && src.SHA256 != want {
		return nil, src, fmt.Errorf("%s: its SHA-256 digest is %s, not the one that was demanded", f.Path, src.SHA256)
	}
	return data, src, nil
}

// readRegular reads a regular file of bounded size. Opening anything else must
// neither wait (a pipe) nor do something (a device), nor go where a link leads
// that somebody else may change between a look and the next.
func readRegular(path string) (data []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	switch {
	case errors.Is(err, syscall.ELOOP):
		return nil, fmt.Errorf("open %s: it is a symbolic link; name the file itself", path)
	case err != nil:
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: it is not a regular file", path)
	}
	data, err = io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("read %s: it is larger than %d bytes", path, MaxSize)
	}
	return data, nil
}

// place is a file and a line of it, for errors.
func place(path string, line int) string {
	if line <= 0 {
		return path
	}
	return fmt.Sprintf("%s:%d", path, line)
}

func lineAt(data []byte, offset int) int {
	return 1 + bytes.Count(data[:min(max(offset, 0), len(data))], []byte("\n"))
}
