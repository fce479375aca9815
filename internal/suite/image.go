package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cacheDir holds the image, one directory per recipe.
const cacheDir = ".cache/guest"

// guestSuite is the release of Debian in the virtual machine: systemd, cgroup v2
// with every controller, and a kernel that is not the host's.
const guestSuite = "trixie"

// guestKernel is a package that depends on the release's kernel, or on the one
// that its backports have.
const guestKernel = "linux-image-cloud-amd64"

var guestPackages = []string{
	guestKernel, "systemd-sysv", "udev", "dbus", "dbus-user-session", "libpam-systemd",
	"uidmap", "iproute2", "nftables", "procps", "busybox-static", "python3", "bubblewrap",
}

// guestService starts the tests; what it runs lies on the second disk, so that
// a change of that needs no new image.
const guestService = "scripts/guest/suite.service"

// guestNewKernel adds a newer kernel to the image, where there is one.
const guestNewKernel = "scripts/guest/newkernel"

// guestHooks are run by mmdebstrap with "$1" as the new root.
var guestHooks = []string{
	`copy-in ` + guestService + ` /etc/systemd/system`,
	`chroot "$1" systemctl enable suite.service`,
	`chroot "$1" systemctl mask getty@tty1.service serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer`,
	`chroot "$1" useradd --create-home --shell /bin/sh nucleus-test`,
	`echo guest >"$1/etc/hostname"`,
	`printf '127.0.0.1 localhost guest\n' >"$1/etc/hosts"`,
	`mkdir "$1/stage" && printf 'LABEL=stage /stage ext4 ro,nodev,nosuid 0 0\n' >"$1/etc/fstab"`,
	`sh ` + guestNewKernel + ` "$1" ` + guestSuite + ` ` + guestKernel,
}

// image is a virtual machine's disk with the kernels that it can be booted with.
type image struct{ dir string }

// A kernel is one of an image's, by what its files' names end with.
type kernel string

const (
	releaseKernel kernel = ""
	newKernel     kernel = "-new"
)

func (i image) disk() string            { return filepath.Join(i.dir, "root.img") }
func (i image) kernel(k kernel) string  { return filepath.Join(i.dir, "vmlinuz"+string(k)) }
func (i image) initrd(k kernel) string  { return filepath.Join(i.dir, "initrd.img"+string(k)) }
func (i image) missing(k kernel) string { return filepath.Join(i.dir, "missing"+string(k)) }

// lacks returns why the image has no such kernel, or "" if it has.
func (i image) lacks(k kernel) (string, error) {
	why, err := os.ReadFile(i.missing(k))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s (remove %s to try again)", strings.TrimSpace(string(why)), i.dir), nil
}

// guestImage returns the image of this recipe, and makes it if there is none.
func guestImage(ctx context.Context) (image, error) {
	service, err := os.ReadFile(guestService)
	if err != nil {
		return image{}, err
	}
	adds, err := os.ReadFile(guestNewKernel)
	if err != nil {
		return image{}, err
	}
	recipe := strings.Join(slices.Concat([]string{guestSuite, string(service), string(adds)}, guestPackages, guestHooks), "\n")
	sum := sha256.Sum256([]byte(recipe))
	img := image{filepath.Join(cacheDir, hex.EncodeToString(sum[:8]))}
	if _, err := os.Stat(img.dir); err == nil {
		progress("guest: image %s from the cache", img.dir)
		return img, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return image{}, err
	}
	if os.Geteuid() != 0 {
		return image{}, errors.New("making the guest's image needs root: run make test-vm as root once")
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return image{}, err
	}
	began := time.Now()
	if err := makeImage(ctx, img); err != nil {
		return image{}, fmt.Errorf("make the guest's image: %w", err)
	}
	progress("guest: image %s made in %.0fs", img.dir, time.Since(began).Seconds())
	return img, nil
}

// makeImage builds beside the cache and moves the result there in one step.
func makeImage(ctx context.Context, img image) error {
	work, err := os.MkdirTemp(cacheDir, "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	mirror, err := debianMirror(ctx)
	if err != nil {
		return err
	}
	progress("guest: making the image from %s", mirror)
	root, made := filepath.Join(work, "root"), image{filepath.Join(work, "image")}
	arg := []string{"--variant=minbase", "--include=" + strings.Join(guestPackages, ","),
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*"}
	for _, hook := range guestHooks {
		arg = append(arg, "--customize-hook="+hook)
	}
	options, err := aptOptions(ctx)
	if err != nil {
		return err
	}
	for _, o := range options {
		arg = append(arg, "--aptopt="+o)
	}
	if err := command(ctx, "mmdebstrap", append(arg, guestSuite, root+".tar", mirror)...); err != nil {
		return err
	}
	for _, dir := range []string{root, made.dir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := command(ctx, "tar", "-C", root, "-xf", root+".tar", "--exclude=./dev/*"); err != nil {
		return err
	}
	if err := copyKernels(filepath.Join(root, "boot"), made); err != nil {
		return err
	}
	if err := makeDisk(ctx, root, made.disk(), "root", "3G"); err != nil {
		return err
	}
	return os.Rename(made.dir, img.dir)
}

// copyKernels copies what the machines boot out of a root's boot directory: the
// oldest kernel there is the release's, one more is the newer one.
func copyKernels(boot string, to image) error {
	found, err := filepath.Glob(filepath.Join(boot, "vmlinuz-*"))
	if err != nil {
		return err
	}
	var versions []string
	for _, f := range found {
		versions = append(versions, strings.TrimPrefix(filepath.Base(f), "vmlinuz-"))
	}
	slices.SortFunc(versions, compareVersions)
	// What the hook could not complete may have left a kernel.
	why, err := os.ReadFile(filepath.Join(boot, "no-new-kernel"))
	switch {
	case err == nil:
		versions = versions[:min(len(versions), 1)]
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case len(versions) == 1:
		why = []byte(guestSuite + "-backports: its kernel is the release's")
	}
	kernels := []kernel{releaseKernel, newKernel}
	if len(versions) < 1 || len(versions) > len(kernels) {
		return fmt.Errorf("%s: got kernels %q, want one or two", boot, versions)
	}
	for i, v := range versions {
		progress("guest: kernel %s", v)
		err := errors.Join(copyFile(filepath.Join(boot, "vmlinuz-"+v), to.kernel(kernels[i])),
			copyFile(filepath.Join(boot, "initrd.img-"+v), to.initrd(kernels[i])))
		if err != nil {
			return err
		}
	}
	if why == nil {
		return nil
	}
	return os.WriteFile(to.missing(newKernel), why, 0o644)
}

var digits = regexp.MustCompile(`\d+`)

// compareVersions orders what uname -r says by its numbers: 6.9 is before 6.12.
func compareVersions(a, b string) int {
	numbers := func(version string) (all []int) {
		for _, d := range digits.FindAllString(version, -1) {
			n, _ := strconv.Atoi(d) // too large a number is the largest
			all = append(all, n)
		}
		return all
	}
	return slices.Compare(numbers(a), numbers(b))
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// makeDisk writes a file system with the contents of dir, without a mount.
func makeDisk(ctx context.Context, dir, file, label, size string) error {
	return command(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-d", dir, file, size)
}

// debianMirror returns where this machine gets Debian packages from.
func debianMirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format",
		"$(ORIGIN) $(LABEL) $(COMPONENT) $(CODENAME) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("apt-get indextargets: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 5 && f[0] == "Debian" && f[1] == "Debian" && f[2] == "main" && !strings.Contains(f[3], "-") {
			return f[4], nil
		}
	}
	return "", errors.New("apt has no Debian mirror here, or has not been updated yet")
}

// aptOptions returns what this machine's apt needs to reach its mirrors.
func aptOptions(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "--no-empty").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-config dump: %w", err)
	}
	var options []string
	for line := range strings.Lines(string(out)) {
		for _, prefix := range []string{"Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::Force"} {
			if strings.HasPrefix(line, prefix) {
				options = append(options, strings.TrimSpace(line))
				break
			}
		}
	}
	return options, nil
}

// command runs a program whose output matters only when it fails.
func command(ctx context.Context, name string, arg ...string) error {
	out, err := exec.CommandContext(ctx, name, arg...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, tail(string(out)))
	}
	return nil
}
