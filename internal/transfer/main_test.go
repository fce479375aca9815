package transfer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/internal/transfer"
	"github.com/nucleus-container/nucleus/spec"
)

// probePath is where this test binary lies in sandboxes, to be their hostile program.
const probePath = "/probe"

func TestMain(m *testing.M) {
	if os.Args[0] == probePath {
		os.Exit(swap(os.Args[1], os.Args[2]))
	}
	sandboxtest.Main(m)
}

// swap makes a directory and a link to canary in dir, and exchanges their names
// as long as it lives.
func swap(dir, canary string) int {
	a, b := dir+"/d", dir+"/l"
	err := errors.Join(os.MkdirAll(a, 0o755), os.WriteFile(a+"/f", []byte("inside"), 0o644), os.Symlink(canary, b))
	fmt.Println("ready")
	for err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	}
	fmt.Println(err)
	return 1
}

// box is a running sandbox.
type box struct {
	*nucleus.Cmd
	root *os.File
	o    transfer.Options
}

// start starts a sandbox and waits until its program says that it is ready.
func start(t *testing.T, s *spec.Sandbox, name string, arg ...string) *box {
	t.Helper()
	sandboxtest.Need(t, sandboxtest.Userns)
	s.Toolchain = true
	b := &box{Cmd: nucleus.Command(s, name, arg...)}
	out, err := b.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.Stderr = os.Stderr
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Process.Kill()
		b.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the program said %q, %v", line, err)
	}
	if b.root, err = b.Process.Root(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.root.Close() })
	b.o = own()
	if os.Geteuid() == 0 {
		b.o.UID, b.o.GID = b.Process.HostID(s.User.UID), b.Process.HostID(s.User.GID)
	}
	return b
}

// shell starts a sandbox in which a script makes something.
func shell(t *testing.T, s *spec.Sandbox, script string) *box {
	t.Helper()
	return start(t, s, "sh", "-ec", script+"\necho ready; exec sleep 1000")
}

// own are options that act as ourselves.
func own() transfer.Options {
	return transfer.Options{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

// dir is a directory that anybody can reach: what a protection keeps the
// sandbox's user from must not be kept from it by the path.
func dir(t *testing.T) string {
	t.Helper()
	d := t.TempDir()
	for p := d; p != os.TempDir(); p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// opened opens a directory in the place of a sandbox's root.
func opened(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// files makes a tree: "a/" is a directory, "a=x" a file, "a>x" a link.
func files(t *testing.T, top string, list ...string) {
	t.Helper()
	for _, f := range list {
		var err error
		name, data, isFile := strings.Cut(f, "=")
		from, target, isLink := strings.Cut(f, ">")
		switch {
		case strings.HasSuffix(f, "/"):
			err = os.MkdirAll(top+"/"+f, 0o755)
		case isFile:
			err = errors.Join(os.MkdirAll(filepath.Dir(top+"/"+name), 0o755), os.WriteFile(top+"/"+name, []byte(data), 0o644))
		case isLink:
			err = errors.Join(os.MkdirAll(filepath.Dir(top+"/"+from), 0o755), os.Symlink(target, top+"/"+from))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tree describes a tree as files does, in order of name.
func tree(t *testing.T, top string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == top {
			return err
		}
		name := strings.TrimPrefix(path, top+"/")
		switch {
		case d.IsDir():
			name += "/"
		case d.Type() == fs.ModeSymlink:
			target, e := os.Readlink(path)
			name, err = name+">"+target, e
		default:
			b, e := os.ReadFile(path)
			name, err = name+"="+string(b), e
		}
		all = append(all, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// holds checks that try is content with how things are, and that it notices when
// a protection is missing.
func holds(t *testing.T, o transfer.Options, without transfer.Weakness, try func(transfer.Options) error) {
	t.Helper()
	if err := try(o); err != nil {
		t.Error(err)
	}
	if err := try(o.Without(without)); err == nil {
		t.Error("the test does not notice when the protection is missing")
	}
}

// within fails a test that takes too long, and is a context that ends then.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d*sandboxtest.Slow())
	t.Cleanup(cancel)
	return ctx
}
