package plan

import (
	"fmt"
	"path"
	"strings"

	"github.com/nucleus-container/nucleus/internal/facts"
)

// EtcDirs are the directories of the host's /etc that programs of its toolchain
// need and that hold no secret: what alternatives point to, certificates,
// fonts, and what a Java runtime keeps there. Each costs a mount, so what
// programs do without is not here.
var EtcDirs = []string{
	"/etc/alternatives", "/etc/ca-certificates/extracted", "/etc/crypto-policies", "/etc/fonts", "/etc/java-11-openjdk",
	"/etc/java-17-openjdk", "/etc/java-21-openjdk", "/etc/java-25-openjdk", "/etc/pki/ca-trust", "/etc/pki/java",
	"/etc/pki/tls/certs", "/etc/ssl/certs", "/etc/static",
}

// EtcFiles are the files of the host's /etc that a sandbox gets: the loader's
// cache, the time zone, certificates, the names of protocols. Start-up files of
// shells are not among them: people keep proxies and tokens there.
var EtcFiles = []string{
	"/etc/ld.so.cache", "/etc/localtime", "/etc/locale.conf", "/etc/lsb-release", "/etc/os-release",
	"/etc/pki/tls/cert.pem", "/etc/protocols", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf",
}

// MaxCopy is the size in bytes up to which a file is copied; a larger one is
// mounted, which costs the same whatever its size.
const MaxCopy = 4 << 10

// etc plans an /etc that is the sandbox's own. Nothing of the host's is shown
// that is not listed by name above: not its accounts, keys or machine id.
func (b *builder) etc() {
	if b.rootHas("/etc") {
		return // a root brings its own
	}
	b.mkdir("/etc", "etc")
	for _, f := range b.etcOwn() {
		if p := "/etc/" + f[0]; !b.specFills(p) {
			b.child("etc", WriteFile{Path: p, Mode: 0o644, Data: f[1]})
		}
	}
	if !b.spec.Toolchain {
		return
	}
	for _, d := range EtcDirs {
		switch p := b.host.Paths[d]; p.Kind {
		case facts.Dir:
			b.mkdir(d, "toolchain")
			b.child("toolchain", MoveMount{From: FD(d), To: d})
		case facts.Symlink:
			b.link(p.Target, d, "toolchain")
		}
	}
	for _, f := range EtcFiles {
		switch p := b.host.Paths[f]; p.Kind {
		case facts.Symlink:
			b.link(p.Target, f, "toolchain")
		case facts.File:
			if p.Size <= MaxCopy {
				if !b.specFills(f) {
					b.mkdir(path.Dir(f), "toolchain")
					b.child("toolchain", CopyFile{Source: f, Path: f, Size: int(p.Size)})
				}
				continue
			}
			b.touch(f, "toolchain")
			b.child("toolchain", MoveMount{From: FD(f), To: f})
		}
	}
}

// etcOwn are the files that are made up: name and content.
func (b *builder) etcOwn() [][2]string {
	name, uid, gid := b.userName(), b.spec.User.UID, b.spec.User.GID
	passwd, group := []string{}, []string{}
	if uid != 0 {
		passwd = append(passwd, "root:x:0:0:root:/:/bin/sh")
	}
	if gid != 0 {
		group = append(group, "root:x:0:")
	}
	passwd = append(passwd, fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh", name, uid, gid, b.home()), "nobody:x:65534:65534:nobody:/:/bin/false")
	group = append(group, fmt.Sprintf("%s:x:%d:", name, gid), "tty:x:5:", "nogroup:x:65534:")
	host := b.hostname()
	return [][2]string{
		{"passwd", lines(passwd...)},
		{"group", lines(group...)},
		{"hostname", lines(host)},
		{"hosts", lines("127.0.0.1 localhost "+host, "::1 localhost ip6-localhost ip6-loopback")},
		{"nsswitch.conf", lines("passwd: files", "group: files", "hosts: files dns", "services: files", "protocols: files")},
		{"resolv.conf", lines("# this sandbox has no network")},
	}
}

func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }

func (b *builder) userName() string {
	switch {
	case b.spec.User.Name != "":
		return b.spec.User.Name
	case b.spec.User.UID == 0:
		return "root"
	}
	return "user"
}

// home is the workload's home directory, which is writable.
func (b *builder) home() string {
	if b.spec.User.UID == 0 {
		return "/root"
	}
	return "/home/" + b.userName()
}
