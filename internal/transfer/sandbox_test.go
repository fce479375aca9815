package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/internal/transfer"
	"github.com/nucleus-container/nucleus/spec"
)

// TestInAndOut: a real sandbox, with the program's view of it as the judge.
func TestInAndOut(t *testing.T) {
	for _, uid := range []uint32{0, 1000} {
		host, work := dir(t), dir(t)
		files(t, host, "in/f=1", "in/s/g=2", "in/l>f")
		if os.Geteuid() == 0 {
			if err := os.Chown(work, 4242, 4243); err != nil {
				t.Fatal(err)
			}
		}
		s := &spec.Sandbox{User: spec.User{UID: uid, GID: uid}, Workspace: &spec.Bind{Source: work}, Tmpfs: []spec.Tmpfs{{Target: "/big"}}}
		b := shell(t, s, "mkdir /tmp/made; echo hello >/tmp/made/f")
		for _, place := range []string{"/tmp", "/workspace", "/big", "/dev/shm"} {
			if _, err := transfer.In(context.Background(), host+"/in", b.root, place, b.o); err != nil {
				t.Errorf("%s: %v", place, err)
				continue
			}
			out, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s/in/s/g", b.Process.Pid(), place))
			if err != nil || string(out) != "2" {
				t.Errorf("%s: got %q, %v", place, out, err)
			}
			var st unix.Stat_t
			if err := unix.Stat(fmt.Sprintf("/proc/%d/root%s/in/f", b.Process.Pid(), place), &st); err != nil || st.Uid != b.o.UID || st.Gid != b.o.GID {
				t.Errorf("%s: belongs to %d:%d, %v, want %d:%d", place, st.Uid, st.Gid, err, b.o.UID, b.o.GID)
			}
			back := dir(t)
			if _, err := transfer.Out(context.Background(), b.root, place+"/in", back, b.o); err != nil {
				t.Errorf("%s: %v", place, err)
			} else if got := tree(t, back); got != "in/ in/f=1 in/l>f in/s/ in/s/g=2" {
				t.Errorf("%s: got %s", place, got)
			}
			if err := unix.Stat(back+"/in/f", &st); err != nil || int(st.Uid) != os.Geteuid() {
				t.Errorf("on the host it belongs to %d, %v", st.Uid, err)
			}
		}
		var st unix.Stat_t
		if err := unix.Stat(work+"/in/f", &st); err != nil || os.Geteuid() == 0 && (st.Uid != 4242 || st.Gid != 4243) {
			t.Errorf("in the workspace it belongs to %d:%d, %v", st.Uid, st.Gid, err)
		}
	}
}

// TestReadOnlyStaysSo: what the sandbox cannot write, copying cannot.
func TestReadOnlyStaysSo(t *testing.T) {
	context, host := dir(t), dir(t)
	files(t, context, "f=1", "d/")
	files(t, host, "f=2")
	b := shell(t, &spec.Sandbox{Context: &spec.Bind{Source: context}}, "")
	for _, place := range []string{"/context/f", "/context/new", "/context", "/context/d", "/usr", "/etc/hostname", "/new"} {
		if _, err := transfer.In(t.Context(), host+"/f", b.root, place, b.o); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: got %v, want %v", place, err, unix.EROFS)
		}
	}
	if got := tree(t, context); got != "d/ f=1" {
		t.Errorf("got %s", got)
	}
}

// TestKernelsOwnFilesStay: /proc, /dev and /sys hold no files of anybody.
func TestKernelsOwnFilesStay(t *testing.T) {
	host := dir(t)
	files(t, host, "f=2")
	b := shell(t, &spec.Sandbox{}, "ln -s /proc /tmp/p; ln -s /proc/1/environ /tmp/e; ln -s /dev/zero /tmp/z; ln -s /proc/1/root /tmp/r")
	for _, src := range []string{"/proc", "/proc/", "/proc/1/status", "/proc/version", "/tmp/p/", "/tmp/p/1/status", "/dev", "/dev/.", "/dev/zero", "/dev/pts", "/dev/pts/ptmx",
		"/proc/1/root/etc/passwd", "/proc/1/cwd/etc/passwd", "/tmp/r/etc/passwd", "/dev/fd/0", "/proc/sys/kernel/hostname", "/sys"} {
		to := dir(t)
		if res, err := transfer.Out(within(t, 20*time.Second), b.root, src, to, b.o); err == nil {
			t.Errorf("%s: got %+v, %s", src, res, tree(t, to))
		}
	}
	for _, dst := range []string{"/proc", "/proc/1", "/tmp/p", "/dev", "/dev/pts", "/proc/sys/kernel/hostname", "/dev/null", "/tmp/z"} {
		if res, err := transfer.In(within(t, 20*time.Second), host+"/f", b.root, dst, b.o); err == nil {
			t.Errorf("%s: got %+v", dst, res)
		}
	}
	for _, dst := range []string{"/proc", "/proc/1", "/tmp/p", "/dev", "/dev/pts"} {
		if _, err := transfer.In(within(t, 20*time.Second), host+"/f", b.root, dst, b.o); err == nil || !strings.Contains(err.Error(), "no place for files") {
			t.Errorf("%s: got %v", dst, err)
		}
	}
	var said []string
	o := b.o
	o.Warn = func(s string) { said = append(said, s) }
	files(t, host, "t/proc/self/f=1", "t/dev/f=1", "t/tmp/fine=1")
	res, err := transfer.In(within(t, 20*time.Second), host+"/t/.", b.root, "/", o)
	if err != nil || res.Failed != 2 || strings.Count(strings.Join(said, ""), "no place for files") != 2 {
		t.Errorf("over all of it: got %+v, %v, %q", res, err, said)
	}
	holds(t, b.o, transfer.WeakFS, func(o transfer.Options) error {
		if _, err := transfer.Out(within(t, 20*time.Second), b.root, "/proc/1/status", dir(t), o); err == nil {
			return errors.New("a file of proc was copied")
		}
		return nil
	})
	// all of it, but for those
	to := dir(t)
	res, err = transfer.Out(within(t, 60*time.Second), b.root, "/etc", to, b.o)
	if err != nil || res.Files < 3 {
		t.Errorf("/etc: got %+v, %v", res, err)
	}
	var left []string
	o = b.o
	o.Skip, o.MaxFiles = func(s string) { left = append(left, s) }, 1000 // the host's programs take too long
	_, _ = transfer.Out(within(t, 60*time.Second), b.root, "/", to, o)
	for _, l := range left {
		if !strings.HasPrefix(l, `"dev"`) && !strings.HasPrefix(l, `"proc"`) && !strings.HasPrefix(l, `"sys"`) {
			t.Errorf("left out: %s", l)
		}
	}
}

// TestHostsFilesNeedTheSandboxsRights: the caller is root, and reads what only
// root may. A directory of the host that is mounted in the sandbox must not
// become a way to it.
func TestHostsFilesNeedTheSandboxsRights(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	for _, userns := range []spec.Userns{spec.UsernsPrivate, spec.UsernsHost} {
		work, host := dir(t), dir(t)
		files(t, work, "secret=secret", "closed/f=1", "groups=group")
		files(t, host, "f=evil")
		owner, group := 4321, 4
		if userns == spec.UsernsPrivate {
			owner, group = 1234, 1234 // whom the mount translates: other owners' files are closed to root as well
		}
		if err := errors.Join(os.Chown(work+"/secret", owner, owner), os.Chmod(work+"/secret", 0), os.Chmod(work+"/closed", 0), os.Chown(work+"/closed", owner, owner),
			os.Chown(work+"/groups", owner, group), os.Chmod(work+"/groups", 0o040), os.Chown(work, owner, owner), os.Chmod(work, 0o777)); err != nil {
			t.Fatal(err)
		}
		b := shell(t, &spec.Sandbox{Userns: userns, Volumes: []spec.Volume{{Source: work, Target: "/v", Writable: true}}}, "! cat /v/secret 2>/dev/null")
		for _, tc := range []struct {
			name string
			do   func(o transfer.Options) error
		}{
			{"read", func(o transfer.Options) error {
				_, err := transfer.Out(t.Context(), b.root, "/v/secret", dir(t), o)
				return err
			}},
			{"read by the group of the caller", func(o transfer.Options) error {
				_, err := transfer.Out(t.Context(), b.root, "/v/groups", dir(t), o)
				return err
			}},
			{"read below", func(o transfer.Options) error {
				_, err := transfer.Out(t.Context(), b.root, "/v/closed/f", dir(t), o)
				return err
			}},
			{"list", func(o transfer.Options) error {
				_, err := transfer.OutTar(t.Context(), b.root, "/v/closed", io.Discard, o)
				return err
			}},
			{"write below", func(o transfer.Options) error {
				_, err := transfer.In(t.Context(), host+"/f", b.root, "/v/closed", o)
				return err
			}},
		} {
			t.Run(fmt.Sprintf("%v %s", userns, tc.name), func(t *testing.T) {
				if err := tc.do(b.o); !errors.Is(err, unix.EACCES) {
					t.Errorf("got %v, want %v", err, unix.EACCES)
				}
				if err := tc.do(b.o.Without(transfer.WeakUser)); errors.Is(err, unix.EACCES) {
					t.Errorf("the test does not notice the rights of root: %v", err)
				}
			})
		}
	}
}

// TestRightsEnd: the thread that gave its rights up is no more, and no other
// thread lacks any.
func TestRightsEnd(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	from := dir(t)
	files(t, from, "f=1")
	o := transfer.Options{UID: 12345, GID: 12346}
	for range 50 {
		if _, err := transfer.Out(t.Context(), opened(t, from), "f", dir(t), o); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	for deadline := time.Now().Add(5 * time.Second * sandboxtest.Slow()); ; time.Sleep(time.Millisecond) {
		tasks, err := filepath.Glob("/proc/self/task/*/status")
		if err != nil || len(tasks) == 0 {
			t.Fatal(tasks, err)
		}
		left = nil
		for _, path := range tasks {
			b, err := os.ReadFile(path)
			if err == nil && (strings.Contains(string(b), "12345") || strings.Contains(string(b), "CapEff:\t0000000000000000")) {
				left = append(left, path)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
	}
	if len(left) > 0 {
		t.Errorf("threads without rights are left: %s", left)
	}
}

// TestOnlyOneself: who may not become others is told so.
func TestOnlyOneself(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.User)
	o := own()
	o.UID++
	if _, err := transfer.Out(t.Context(), opened(t, dir(t)), ".", dir(t), o); !errors.Is(err, syscall.EPERM) {
		t.Errorf("got %v, want %v", err, syscall.EPERM)
	}
}

// TestRace: 1,000 copies while the sandbox exchanges a directory for a link to
// one of the host's, as fast as it can.
func TestRace(t *testing.T) {
	canary, host := dir(t), dir(t)
	files(t, canary, "f=canary")
	files(t, host, "w=evil")
	if err := os.Chmod(canary, 0o777); err != nil { // the sandbox's user could, if it could reach it
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, &spec.Sandbox{Volumes: []spec.Volume{{Source: self, Target: probePath, Exec: true}}}, probePath, "/tmp/x", canary)
	reached := func(o transfer.Options, times int) error {
		read, missed := 0, 0
		for range times {
			to := dir(t)
			var tar bytes.Buffer
			_, err := transfer.Out(t.Context(), b.root, "/tmp/x/d/f", to+"/out", o)
			_, _ = transfer.Out(t.Context(), b.root, "/tmp/x/d/", to+"/tree", o)
			_, _ = transfer.Out(t.Context(), b.root, "/tmp/x", to, o)
			_, _ = transfer.OutTar(t.Context(), b.root, "/tmp/x/d/.", &tar, o)
			_, _ = transfer.In(t.Context(), host+"/w", b.root, "/tmp/x/d/", o)
			_, _ = transfer.In(t.Context(), host+"/w", b.root, "/tmp/x/d/w2", o)
			if err == nil {
				read++
			} else {
				missed++
			}
			if strings.Contains(tree(t, to), "=canary") || bytes.Contains(tar.Bytes(), []byte("canary")) && !bytes.Contains(tar.Bytes(), []byte(canary)) {
				return fmt.Errorf("the canary was read")
			}
			if got := tree(t, canary); got != "f=canary" {
				return fmt.Errorf("the canary became %s", got)
			}
			os.RemoveAll(to)
		}
		if read == 0 || missed == 0 {
			t.Errorf("no race: %d copies and %d links", read, missed)
		}
		return nil
	}
	holds(t, b.o, transfer.WeakRoot, func(o transfer.Options) error { return reached(o, 1000) })
	if err := errors.Join(os.RemoveAll(canary), os.MkdirAll(canary, 0o777), os.Chmod(canary, 0o777)); err != nil {
		t.Fatal(err)
	}
	files(t, canary, "f=canary")
	if err := reached(b.o.Without(transfer.WeakLinks), 1000); err == nil {
		t.Error("the test does not notice when links are followed")
	}
}
