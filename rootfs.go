package nucleus

import (
	"context"
	"errors"

	"github.com/nucleus-container/nucleus/internal/rootfs"
)

// RootfsManifest is the name that a manifest has in the directory that it is
// about. The file is never part of the manifest, and no sandbox shows it.
const RootfsManifest = rootfs.ManifestName

// Attestation is what a directory is made of: the manifest, and its digest,
// which stands for the whole tree.
type Attestation struct {
	Text    []byte
	SHA256  string
	Entries int
}

// AttestRootfs reads a directory that is to be the root of sandboxes, with the
// parts of a Nix store that it names. Nothing in it is followed. Progress, if not
// nil, is called now and then with how much has been read.
func AttestRootfs(ctx context.Context, dir string, progress func(files, bytes int64)) (*Attestation, error) {
	p, done := watched(progress)
	defer done()
	m, err := rootfs.Attest(ctx, dir, p)
	if err != nil {
		return nil, rootfsError("attest", dir, err)
	}
	return &Attestation{Text: m.Bytes(), SHA256: m.SHA256(), Entries: len(m.Entries)}, nil
}

// VerifyRootfs compares a directory with its manifest: the one in it, or a file.
// The manifest must have the digest sha256, unless that is empty. A difference is
// an ErrInvalid.
func VerifyRootfs(ctx context.Context, dir, manifest, sha256 string, progress func(files, bytes int64)) error {
	p, done := watched(progress)
	defer done()
	return rootfsError("verify", dir, rootfs.Verify(ctx, dir, manifest, sha256, p))
}

func rootfsError(op, dir string, err error) error {
	if err == nil {
		return nil
	}
	var wrong *rootfs.Mismatch
	if errors.As(err, &wrong) {
		err = invalidError{err}
	}
	return &Error{Stage: StageResolve, Step: -1, Op: op, Object: dir, Err: err}
}

// watched is progress that somebody is told about.
func watched(f func(files, bytes int64)) (p *rootfs.Progress, done func()) {
	p = &rootfs.Progress{}
	if f == nil {
		return p, func() {}
	}
	return p, p.Watch(f)
}
