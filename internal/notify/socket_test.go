package notify

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d*sandboxtest.Slow())
	t.Cleanup(cancel)
	return ctx
}

// private is a directory that only we can enter.
func private(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func listen(t testing.TB, path string) *Socket {
	t.Helper()
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

func TestSocket(t *testing.T) {
	path := filepath.Join(private(t), "notify")
	s := listen(t, path)
	if st, err := os.Lstat(path); err != nil || st.Mode() != os.ModeSocket|0o666 {
		t.Errorf("got %v, %v, want a socket for everybody", st.Mode(), err)
	}
	for _, tc := range []struct{ name, datagram, want string }{
		{"ready", "READY=1\nSTATUS=up", "READY=1\nSTATUS=up\n"},
		{"empty", "", ""},
		{"as long as can be", "STATUS=a\n" + strings.Repeat("\n", MaxDatagram-9), "STATUS=a\n"},
		{"too long", "STATUS=a\n" + strings.Repeat("\n", MaxDatagram-8), ""},
		{"much too long", "STATUS=a\n" + strings.Repeat("\n", 64<<10), ""},
		{"zero byte", "STATUS=a\x00b", ""},
		{"after all that", "STOPPING=1", "STOPPING=1\n"},
	} {
		if err := Send(path, []byte(tc.datagram)); err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		m, err := s.Receive(within(t, 10*time.Second))
		if err != nil || string(Encode(m)) != tc.want {
			t.Errorf("%s: got %+v, %v, want %q", tc.name, m, err, tc.want)
		}
		if bad := strings.Contains(tc.name, "too") || strings.Contains(tc.name, "zero"); bad != (len(m.Dropped) > 0) {
			t.Errorf("%s: got dropped %q", tc.name, m.Dropped)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want the socket to be gone", err)
	}
}

// TestReceiveEnds leaves Receive in each way without a message.
func TestReceiveEnds(t *testing.T) {
	path := filepath.Join(private(t), "notify")
	s := listen(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the time", err)
	}
	if _, err := s.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second time: got %v, want the end of the time", err)
	}
	// It can be used again.
	if err := Send(path, []byte("READY=1")); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Receive(within(t, 10*time.Second)); err != nil || !m.Ready {
		t.Errorf("got %+v, %v, want ready", m, err)
	}
	failed := make(chan error)
	go func() {
		_, err := s.Receive(context.Background())
		failed <- err
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want that it is closed", err)
	}
}

// TestDescriptors sends the writing end of a pipe, as sd_notify_barrier does: it
// must not stay open with us.
func TestDescriptors(t *testing.T) {
	path := filepath.Join(private(t), "notify")
	s := listen(t, path)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := socket(0)
	if err != nil {
		t.Fatal(err)
	}
	rights := syscall.UnixRights(int(w.Fd()), int(w.Fd()), int(w.Fd()))
	err = errors.Join(syscall.Sendmsg(fd, []byte("BARRIER=1"), rights, &syscall.SockaddrUnix{Name: path}, 0), syscall.Close(fd), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.Receive(within(t, 10*time.Second)); err != nil || len(m.Dropped) != 1 || m.Dropped[0] != "BARRIER" {
		t.Errorf("got %+v, %v, want BARRIER dropped", m, err)
	}
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %d, %v, want the end: nobody has the other end of the pipe", n, err)
	}
}

func TestListen(t *testing.T) {
	t.Run("a directory for others", func(t *testing.T) {
		dir := private(t)
		if err := os.Chmod(dir, 0o710); err != nil {
			t.Fatal(err)
		}
		if s, err := Listen(filepath.Join(dir, "notify")); err == nil {
			t.Errorf("got a socket, want an error; closed: %v", s.Close())
		}
	})
	t.Run("a deep directory", func(t *testing.T) {
		dir := private(t)
		for range 3 {
			dir = filepath.Join(dir, strings.Repeat("d", 100))
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s := listen(t, filepath.Join(dir, "notify"))
		t.Chdir(dir)
		if err := sendHere("notify", "READY=1"); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Receive(within(t, 10*time.Second)); err != nil || !m.Ready {
			t.Errorf("got %+v, %v, want ready", m, err)
		}
	})
	t.Run("left by a killed keeper", func(t *testing.T) {
		path := filepath.Join(private(t), "notify")
		old := listen(t, path)
		if err := old.file.Close(); err != nil {
			t.Fatal(err)
		}
		s := listen(t, path)
		if err := Send(path, []byte("READY=1")); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Receive(within(t, 10*time.Second)); err != nil || !m.Ready {
			t.Errorf("got %+v, %v, want ready", m, err)
		}
	})
	t.Run("a file is in its place", func(t *testing.T) {
		path := filepath.Join(private(t), "notify")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Listen(path); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("got %v, %v, want that it is in use", s, err)
		}
	})
}

// sendHere sends to a socket of the working directory.
func sendHere(name, datagram string) error {
	fd, err := socket(0)
	if err != nil {
		return err
	}
	return errors.Join(syscall.Sendto(fd, []byte(datagram), 0, &syscall.SockaddrUnix{Name: name}), syscall.Close(fd))
}

func TestSend(t *testing.T) {
	fd, err := socket(0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	abstract := "@nucleus-notify-test-" + filepath.Base(t.TempDir()) + t.Name()
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: abstract}); err != nil {
		t.Fatal(err)
	}
	if err := Send(abstract, []byte("READY=1\n")); err != nil {
		t.Fatal(err)
	}
	var b [100]byte
	if n, _, err := syscall.Recvfrom(fd, b[:], syscall.MSG_DONTWAIT); err != nil || string(b[:n]) != "READY=1\n" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	for _, path := range []string{"", "@", "notify", "./notify", "vsock:2:1234", "/a\x00b", "/" + strings.Repeat("a", 107), "/does/not/exist"} {
		if err := Send(path, []byte("READY=1")); err == nil {
			t.Errorf("%q: got no error", path)
		}
	}
}

func TestFlood(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := newBucket()
	for i := range burst {
		if pause := b.take(now); pause != 0 {
			t.Fatalf("message %d waits %v", i, pause)
		}
	}
	// From now on, whoever asks all the time gets perSecond of them a second.
	end, taken := now.Add(10*time.Second), 0
	for now.Before(end) {
		pause := b.take(now)
		if pause == 0 {
			taken++
			continue
		}
		if pause < 0 || pause > time.Second/perSecond {
			t.Fatalf("waits %v", pause)
		}
		now = now.Add(pause)
	}
	if want := 10 * perSecond; taken < want-1 || taken > want {
		t.Errorf("got %d messages in 10 s, want %d", taken, want)
	}
	// An hour of silence gives no more than one burst.
	now, taken = now.Add(time.Hour), 0
	for b.take(now) == 0 {
		taken++
	}
	if taken != burst {
		t.Errorf("got %d messages at once after an hour, want %d", taken, burst)
	}
}
