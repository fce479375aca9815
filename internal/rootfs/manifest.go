// Package rootfs knows directories that become the root of a sandbox: what they
// are made of (a [Manifest]), whether they still are ([Verify]), and which parts
// of a Nix store belong to them ([StorePaths]).
//
// A directory is hostile: nothing in it is followed, and what is looked at is
// held by a descriptor. A manifest says nothing about what changes after it was
// compared; the mounts of a sandbox are read-only, but whoever may write to the
// directory on the host still may.
//
//	m, err := rootfs.Attest(ctx, "/srv/rootfs", nil)
//	os.WriteFile("/srv/rootfs/"+rootfs.ManifestName, m.Bytes(), 0o644)
package rootfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ManifestName is the manifest's place in the directory that it is about. The
// file itself is never part of it, and no sandbox shows it.
const ManifestName = ".nucleus-rootfs-manifest"

// header is the first line: what it is, and in which version.
const header = "nucleus-rootfs-manifest 1\n"

// Entry is one file, directory or symbolic link.
type Entry struct {
	Path   string // relative to the directory, which is "."; parts of a store begin with /
	Type   byte   // 'd', 'f' or 'l'
	Mode   uint32 // permissions, set-id and sticky bits included
	UID    uint32
	GID    uint32
	Size   int64             // of a file
	SHA256 [sha256.Size]byte // of a file
	Target string            // of a link
}

// Manifest is everything in a directory, sorted by path.
type Manifest struct{ Entries []Entry }

// Bytes is the manifest as a file: a line each of type, mode, owner, what it is
// (of a file size:sha256, of a link its target, of a directory -) and path. In
// names, what is not a printable ASCII character is \xNN, and so are blanks and
// backslashes.
func (m *Manifest) Bytes() []byte {
	b := append(make([]byte, 0, len(header)+128*len(m.Entries)), header...)
	for i := range m.Entries {
		b = m.Entries[i].appendLine(b)
	}
	return b
}

func (e *Entry) appendLine(b []byte) []byte {
	b = fmt.Appendf(b, "%c %04o %d:%d ", e.Type, e.Mode, e.UID, e.GID)
	switch e.Type {
	case 'f':
		b = fmt.Appendf(b, "%d:%x", e.Size, e.SHA256)
	case 'l':
		b = appendEscaped(b, e.Target)
	default:
		b = append(b, '-')
	}
	b = append(b, ' ')
	b = appendEscaped(b, e.Path)
	return append(b, '\n')
}

const hexDigits = "0123456789abcdef"

func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '\\' {
			b = append(b, c)
		} else {
			b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return b
}

func unescape(s string) (string, error) {
	var out []byte
	for rest := s; rest != ""; {
		before, after, found := strings.Cut(rest, `\`)
		out = append(out, before...)
		if !found {
			break
		}
		if len(after) < 3 || after[0] != 'x' {
			return "", fmt.Errorf("%q ends within an escape", s)
		}
		c, err := hex.DecodeString(after[1:3])
		if err != nil {
			return "", fmt.Errorf("%q has an escape that is none", s)
		}
		out, rest = append(out, c...), after[3:]
	}
	return string(out), nil
}

// SHA256 is the digest of the manifest as a file, which stands for the whole tree.
func (m *Manifest) SHA256() string {
	sum := sha256.Sum256(m.Bytes())
	return hex.EncodeToString(sum[:])
}

// Parse reads what Bytes wrote, and nothing else: there is one way to write a
// manifest, so that its digest is that of its meaning.
func Parse(text []byte) (*Manifest, error) {
	rest, ok := bytes.CutPrefix(text, []byte(header))
	if !ok {
		return nil, errors.New("it does not begin with " + strings.TrimSpace(header))
	}
	m := &Manifest{}
	for n := 2; len(rest) > 0; n++ {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			return nil, fmt.Errorf("line %d: it is cut off", n)
		}
		e, err := parseLine(string(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if k := len(m.Entries); k > 0 && m.Entries[k-1].Path >= e.Path {
			return nil, fmt.Errorf("line %d: %q is not in order", n, e.Path)
		}
		m.Entries = append(m.Entries, e)
		rest = after
	}
	if len(m.Entries) == 0 {
		return nil, errors.New("it is empty")
	}
	if !bytes.Equal(m.Bytes(), text) {
		return nil, errors.New("it is not written as Nucleus writes it")
	}
	return m, nil
}

func parseLine(line string) (e Entry, err error) {
	f := strings.Split(line, " ")
	if len(f) != 5 || len(f[0]) != 1 || f[3] == "" || f[4] == "" {
		return e, fmt.Errorf("%q is not TYPE MODE UID:GID WHAT PATH", line)
	}
	e.Type = f[0][0]
	mode, err := strconv.ParseUint(f[1], 8, 12)
	if err != nil {
		return e, fmt.Errorf("%q is not a mode", f[1])
	}
	e.Mode = uint32(mode)
	uid, gid, _ := strings.Cut(f[2], ":")
	u, uerr := strconv.ParseUint(uid, 10, 32)
	g, gerr := strconv.ParseUint(gid, 10, 32)
	if uerr != nil || gerr != nil {
		return e, fmt.Errorf("%q is not an owner", f[2])
	}
	e.UID, e.GID = uint32(u), uint32(g)
	if e.Path, err = unescape(f[4]); err != nil {
		return e, err
	}
	switch e.Type {
	case 'd':
		if f[3] != "-" {
			err = fmt.Errorf("a directory is %q", f[3])
		}
	case 'l':
		e.Target, err = unescape(f[3])
	case 'f':
		err = e.parseContent(f[3])
	default:
		err = fmt.Errorf("%q is not a type", f[0])
	}
	return e, err
}

func (e *Entry) parseContent(s string) error {
	size, sum, _ := strings.Cut(s, ":")
	n, err := strconv.ParseInt(size, 10, 64)
	b, herr := hex.DecodeString(sum)
	if err != nil || herr != nil || n < 0 || len(b) != len(e.SHA256) {
		return fmt.Errorf("%q is not SIZE:SHA256", s)
	}
	e.Size = n
	copy(e.SHA256[:], b)
	return nil
}

// Difference is one way in which a tree is not what its manifest says.
type Difference struct {
	Path string
	What string
}

func (d Difference) String() string { return fmt.Sprintf("%q: %s", d.Path, d.What) }

// Compare lists how got differs from want, by path.
func Compare(want, got *Manifest) []Difference {
	var out []Difference
	w, g := want.Entries, got.Entries
	for len(w) > 0 || len(g) > 0 {
		switch {
		case len(g) == 0 || len(w) > 0 && w[0].Path < g[0].Path:
			out = append(out, Difference{w[0].Path, "it is missing"})
			w = w[1:]
		case len(w) == 0 || g[0].Path < w[0].Path:
			out = append(out, Difference{g[0].Path, "it was added"})
			g = g[1:]
		default:
			if what := w[0].differs(&g[0]); what != "" {
				out = append(out, Difference{w[0].Path, what})
			}
			w, g = w[1:], g[1:]
		}
	}
	return out
}

// differs says how got is not e, of the same path.
func (e *Entry) differs(got *Entry) string {
	var out []string
	if e.Type != got.Type {
		out = append(out, fmt.Sprintf("its type is %c, not %c", got.Type, e.Type))
	}
	if e.Mode != got.Mode {
		out = append(out, fmt.Sprintf("its mode is %04o, not %04o", got.Mode, e.Mode))
	}
	if e.UID != got.UID || e.GID != got.GID {
		out = append(out, fmt.Sprintf("its owner is %d:%d, not %d:%d", got.UID, got.GID, e.UID, e.GID))
	}
	if e.Size != got.Size || e.SHA256 != got.SHA256 {
		out = append(out, "its content is another")
	}
	if e.Target != got.Target {
		out = append(out, fmt.Sprintf("it leads to %q, not %q", got.Target, e.Target))
	}
	return strings.Join(out, ", ")
}
