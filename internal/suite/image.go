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
	"slices"
	"strings"
	"time"
)

// cacheDir holds the image, one directory per recipe.
const cacheDir = ".cache/guest"

// guestSuite is the release of Debian in the virtual machine: systemd, cgroup v2
// with every controller, and a kernel that is not the host's.
const guestSuite = "trixie"

var guestPackages = []string{
	"linux-image-cloud-amd64", "systemd-sysv", "udev", "dbus", "dbus-user-session", "libpam-systemd",
	"uidmap", "iproute2", "nftables", "procps", "busybox-static", "python3", "bubblewrap",
}

// guestService starts the tests; what it runs lies on the second disk, so that
// a change of that needs no new image.
const guestService = "scripts/guest/suite.service"

// guestHooks are run by mmdebstrap with "$1" as the new root.
var guestHooks = []string{
	`copy-in ` + guestService + ` /etc/systemd/system`,
	`chroot "$1" systemctl enable suite.service`,
	`chroot "$1" systemctl mask getty@tty1.service serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer`,
	`chroot "$1" useradd --create-home --shell /bin/sh nucleus-test`,
	`echo guest >"$1/etc/hostname"`,
	`printf '127.0.0.1 localhost guest\n' >"$1/etc/hosts"`,
	`mkdir "$1/stage" && printf 'LABEL=stage /stage ext4 ro,nodev,nosuid 0 0\n' >"$1/etc/fstab"`,
}

// image is a virtual machine's disk with what it boots from.
type image struct{ dir string }

func (i image) disk() string   { return filepath.Join(i.dir, "root.img") }
func (i image) kernel() string { return filepath.Join(i.dir, "vmlinuz") }
func (i image) initrd() string { return filepath.Join(i.dir, "initrd.img") }

// guestImage returns the image of this recipe, and makes it if there is none.
func guestImage(ctx context.Context) (image, error) {
	service, err := os.ReadFile(guestService)
	if err != nil {
		return image{}, err
	}
	recipe := strings.Join(slices.Concat([]string{guestSuite, string(service)}, guestPackages, guestHooks), "\n")
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
	for name, to := range map[string]string{"vmlinuz-*": made.kernel(), "initrd.img-*": made.initrd()} {
		if err := copyBoot(filepath.Join(root, "boot", name), to); err != nil {
			return err
		}
	}
	if err := makeDisk(ctx, root, made.disk(), "root", "3G"); err != nil {
		return err
	}
	return os.Rename(made.dir, img.dir)
}

func copyBoot(pattern, to string) error {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%s: got %d files, want 1", pattern, len(found))
	}
	data, err := os.ReadFile(found[0])
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
