package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// maxManifest bounds a manifest: a million files, more or less.
const maxManifest = 256 << 20

// shown is how many differences an error names.
const shown = 5

// Mismatch is the error about a tree that is not what its manifest says.
type Mismatch struct{ Differences []Difference }

func (m *Mismatch) Error() string {
	var list []string
	for _, d := range m.Differences[:min(len(m.Differences), shown)] {
		list = append(list, d.String())
	}
	if more := len(m.Differences) - len(list); more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return "it is not what its manifest says: " + strings.Join(list, "; ")
}

// Verify reads a directory and compares it with a manifest: the one in it, or
// the file that is named. The manifest's own digest must be pin, if there is one.
func Verify(ctx context.Context, dir, manifest, pin string, p *Progress) error {
	root, err := Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(VerifyOpen(ctx, root, manifest, pin, p), root.Close())
}

// VerifyOpen is Verify for a directory that is open.
func VerifyOpen(ctx context.Context, root kernel.FD, manifest, pin string, p *Progress) error {
	want, err := load(root, manifest, pin)
	if err != nil {
		return err
	}
	got, err := AttestOpen(ctx, root, p)
	if err != nil {
		return err
	}
	if d := Compare(want, got); len(d) > 0 {
		return &Mismatch{d}
	}
	return nil
}

// load reads the manifest of a directory.
func load(root kernel.FD, manifest, pin string) (*Manifest, error) {
	name := manifest
	var f kernel.FD
	var err error
	if manifest == "" {
		name = ManifestName
		f, err = kernel.OpenAt(root, name, kernel.ReadOnly|kernel.NoFollow|kernel.NonBlock, 0, inside)
	} else {
		f, err = kernel.Open(manifest, kernel.ReadOnly|kernel.NonBlock, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open the manifest %s: %w", name, err)
	}
	text, err := readAll(f, maxManifest)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read the manifest %s: %w", name, err)
	}
	if sum := sha256.Sum256(text); pin != "" && hex.EncodeToString(sum[:]) != pin {
		return nil, fmt.Errorf("the manifest %s has the sha256 %x, not %s", name, sum, pin)
	}
	m, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the manifest %s: %w", name, err)
	}
	return m, nil
}
