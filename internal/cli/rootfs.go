package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/term"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
)

var rootfsCommand = command{
	name:  "rootfs",
	args:  "attest|verify DIR",
	words: "attest verify",
	short: "Write down what a root is made of, or compare it with that",
	long: `rootfs attest DIR reads a directory that is to be the root of sandboxes and writes
a manifest: type, mode, owner, and content or target of everything in it, and in
the parts of /nix/store that its file .nucleus-rootfs-store-paths lists. It prints
the manifest's sha256, which stands for the whole tree.

rootfs verify DIR compares the directory with its manifest and names what has
changed; it exits with 1 then. nucleus run --verify-rootfs-attestation does so
before anything starts; --rootfs-sha256 demands a certain manifest, which who can
change DIR cannot forge.

Nothing in DIR is followed. What is mounted in it, devices, pipes and sockets are
errors. A directory that somebody may write to can change after it was compared.`,
	examples: [][2]string{
		{"nucleus rootfs attest /srv/rootfs", "write /srv/rootfs/" + nucleus.RootfsManifest},
		{"nucleus rootfs verify --sha256 5f0c... /srv/rootfs", "compare it"},
	},
	flags: [][]flag{rootfsFlags, helpFlags},
	run:   runRootfs,
}

var rootfsFlags = []flag{
	{name: "output", short: "o", arg: "FILE", choice: "<file>", group: "Manifest",
		help: "Write the manifest to this file (DIR/" + nucleus.RootfsManifest + "); - is standard output.",
		set:  func(o *options, v string) (err error) { o.rootfs.output, err = given(v); return err }},
	{name: "manifest", field: "rootfs.manifest", arg: "FILE", choice: "<file>",
		help: "Compare with this manifest (the one in DIR).",
		set:  func(o *options, v string) (err error) { o.rootfs.manifest, err = given(v); return err }},
	{name: "sha256", field: "rootfs.sha256", arg: "HEX",
		help: "Demand a manifest with this digest.",
		set:  func(o *options, v string) (err error) { o.rootfs.sha256, err = given(v); return err }},
	{name: "json", group: "Output", help: "Print JSON on standard output.", set: setJSON},
}

// rootfsOptions is what the flags of `nucleus rootfs` said.
type rootfsOptions struct{ output, manifest, sha256 string }

// runRootfs is `nucleus rootfs`.
func runRootfs(c *call) int {
	var words []string
	for len(c.args) > 0 && !c.opts.help { // flags may come behind words as well
		words = append(words, c.args[0])
		if err := c.parse(c.args[1:]); err != nil {
			return fail(c.cmd, err)
		}
	}
	c.args = words
	if c.opts.help {
		return output(commandHelp(c.cmd))
	}
	if len(c.args) != 2 || c.args[1] == "" || c.args[0] != "attest" && c.args[0] != "verify" {
		return fail(c.cmd, usageError("it is `nucleus rootfs attest DIR` or `nucleus rootfs verify DIR`"))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	o := c.opts.rootfs
	if c.args[0] == "attest" {
		if o.manifest != "" || o.sha256 != "" {
			return fail(c.cmd, usageError("--manifest and --sha256 belong to verify"))
		}
		return attestRootfs(ctx, c, c.args[1])
	}
	if o.output != "" {
		return fail(c.cmd, usageError("--output belongs to attest"))
	}
	described := spec.Sandbox{Rootfs: &spec.Rootfs{Source: c.args[1], Attested: true, Manifest: o.manifest, SHA256: o.sha256}}
	if err := described.Validate(); err != nil {
		return fail(c.cmd, nucleus.Invalid(err))
	}
	show, done := showProgress()
	err := nucleus.VerifyRootfs(ctx, c.args[1], o.manifest, o.sha256, show)
	done()
	if err != nil {
		fail(c.cmd, err)
		return exitNo // the command line makes sense: the root does not
	}
	if c.opts.json {
		return outputJSON(map[string]bool{"verified": true})
	}
	return exitOK
}

func attestRootfs(ctx context.Context, c *call, dir string) int {
	show, done := showProgress()
	a, err := nucleus.AttestRootfs(ctx, dir, show)
	done()
	if err != nil {
		return failVerb(c.cmd, err)
	}
	file := c.opts.rootfs.output
	if file == "-" {
		return output(string(a.Text))
	}
	if file == "" {
		file = filepath.Join(dir, nucleus.RootfsManifest)
	}
	if err := replaceFile(file, a.Text); err != nil {
		return failVerb(c.cmd, err)
	}
	if c.opts.json {
		return outputJSON(map[string]any{"manifest": file, "sha256": a.SHA256, "entries": a.Entries})
	}
	return output(a.SHA256 + "\n")
}

// replaceFile writes a file beside its place and moves it there: what has the
// name, a link out of the directory for one, is neither followed nor half written.
func replaceFile(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// showProgress tells a person what has been read, if it takes longer than a second.
func showProgress() (show func(files, bytes int64), done func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil, func() {}
	}
	begun, shown := time.Now(), false
	show = func(files, bytes int64) {
		if time.Since(begun) > time.Second {
			shown = true
			say("\r\x1b[K%d files, %d MiB read", files, bytes>>20)
		}
	}
	return show, func() {
		if shown {
			say("%s", "\r\x1b[K")
		}
	}
}
