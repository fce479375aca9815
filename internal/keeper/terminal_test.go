package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// held is a terminal that a keeper holds, and the program's end of it.
type held struct {
	*terminal
	path    string
	program *os.File
	log     bytes.Buffer // written by one goroutine; read after close
}

func (h *held) Write(p []byte) (int, error) { return h.log.Write(p) }
func (h *held) Close() error                { return nil }

// hold makes one of 33 rows and 77 columns, on which nothing is translated.
func hold(t *testing.T) *held {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	console := os.NewFile(uintptr(fd), "console")
	h := &held{path: filepath.Join(t.TempDir(), strings.Repeat("long", 40), "keeper.sock")} // longer than an address
	must(t, os.Mkdir(filepath.Dir(h.path), 0o700))
	h.program = openProgram(t, console)
	must(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}))
	raw, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	must(t, err)
	raw.Oflag, raw.Lflag, raw.Iflag = 0, 0, 0
	must(t, unix.IoctlSetTermios(fd, unix.TCSETS, raw))
	h.terminal, err = newTerminal(console, h, h.path)
	must(t, err)
	t.Cleanup(func() {
		must(t, h.close())
		h.program.Close()
		console.Close()
	})
	return h
}

func openProgram(t *testing.T, console *os.File) *os.File {
	t.Helper()
	n, err := unix.IoctlGetInt(int(console.Fd()), unix.TIOCGPTN)
	must(t, err)
	f, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *held) attach(t *testing.T) *Attached {
	t.Helper()
	a, err := Attach(h.path)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

// wait reads until a text has come, and returns what came.
func wait(t *testing.T, r *Attached, text string) string {
	t.Helper()
	must(t, r.conn.SetReadDeadline(time.Now().Add(10*time.Second*sandboxtest.Slow())))
	var got []byte
	b := make([]byte, 4096)
	for !strings.Contains(string(got), text) {
		n, err := r.Read(b)
		got = append(got, b[:n]...)
		if err != nil {
			t.Fatalf("got %q, %v; want %q", got[max(0, len(got)-200):], err, text)
		}
	}
	return string(got)
}

func (h *held) writes(t *testing.T, text string) {
	t.Helper()
	_, err := h.program.WriteString(text)
	must(t, err)
}

func (h *held) reads(t *testing.T, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(h.program, got); err != nil || string(got) != want {
		t.Errorf("the program reads %q, %v; want %q", got, err, want)
	}
}

// size is the terminal's size as the program sees it.
func (h *held) size(t *testing.T) [2]uint16 {
	t.Helper()
	ws, err := unix.IoctlGetWinsize(int(h.program.Fd()), unix.TIOCGWINSZ)
	must(t, err)
	return [2]uint16{ws.Row, ws.Col}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second * sandboxtest.Slow())
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("it never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestAttachTwice: both see what was and what is, and both can type.
func TestAttachTwice(t *testing.T) {
	h := hold(t)
	h.writes(t, "before\r\n")
	a := h.attach(t)
	wait(t, a, "before\r\n")
	h.writes(t, "between\r\n")
	wait(t, a, "between\r\n")
	b := h.attach(t)
	if got := wait(t, b, "between\r\n"); !strings.HasSuffix(got, "before\r\nbetween\r\n") {
		t.Errorf("the second sees %q", got)
	}
	for _, c := range []*Attached{a, b} {
		_, err := c.Write([]byte("typed"))
		must(t, err)
		h.reads(t, "typed")
	}
	h.writes(t, "after")
	wait(t, a, "after")
	wait(t, b, "after")
	must(t, a.Close())
	h.writes(t, "alone")
	wait(t, b, "alone")
	long := strings.Repeat("0123456789abcdef", 1<<12) // more than a frame can hold
	go b.Write([]byte(long + long))
	h.reads(t, long+long)
}

// TestNobodyHoldsUpTheProgram: neither that nobody is attached, nor somebody who
// does not read. That one is dropped; others see everything.
func TestNobodyHoldsUpTheProgram(t *testing.T) {
	h := hold(t)
	text := strings.Repeat(strings.Repeat("x", 98)+"\r\n", 100)
	write := func() {
		for range 2 * behindMost / len(text) {
			h.writes(t, text)
		}
	}
	write()
	stuck, reader := h.attach(t), h.attach(t)
	wait(t, stuck, "x")
	seen := make(chan int)
	go func() {
		n, end := 0, []byte("the end")
		b := make([]byte, 64<<10)
		for {
			got, err := reader.Read(b)
			n += got
			if err != nil || bytes.Contains(b[:got], end) {
				seen <- n
				return
			}
		}
	}()
	write()
	h.writes(t, "the end")
	if n := <-seen; n < 2*behindMost-len(text) {
		t.Errorf("the one that reads has got %d bytes", n)
	}
	must(t, stuck.conn.SetReadDeadline(time.Now().Add(10*time.Second*sandboxtest.Slow())))
	if n, err := io.Copy(io.Discard, stuck.conn); n > 2*behindMost || err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the stuck one has got %d bytes, %v; want an end", n, err)
	}
	wait(t, h.attach(t), "the end") // and can come back
}

// TestSizeFollowsTheLast: the last that came rules, until it leaves.
func TestSizeFollowsTheLast(t *testing.T) {
	h := hold(t)
	has := func(rows, cols uint16) {
		t.Helper()
		want := [2]uint16{rows, cols}
		eventually(t, fmt.Sprintf("the size is %v", want), func() bool { return h.size(t) == want })
	}
	a, b, watcher := h.attach(t), h.attach(t), h.attach(t)
	wait(t, watcher, "\x1b[2J") // it has come last, and has no size
	must(t, a.Resize(40, 100))
	has(40, 100)
	must(t, b.Resize(50, 120))
	has(50, 120)
	must(t, a.Resize(41, 101))
	must(t, b.Resize(51, 121))
	has(51, 121)
	must(t, b.Close())
	has(41, 101)
	must(t, a.Resize(0, 0)) // nonsense
	must(t, a.Close())
	has(41, 101)
}

// TestFullScreenIsDrawnAnew: somebody with the size that the terminal has makes
// the program notice all the same.
func TestFullScreenIsDrawnAnew(t *testing.T) {
	h := hold(t)
	a := h.attach(t)
	wait(t, a, "\x1b[2J")
	must(t, a.Resize(33, 77))
	eventually(t, "another size", func() bool { return h.size(t) == [2]uint16{32, 77} })
	eventually(t, "the size", func() bool { return h.size(t) == [2]uint16{33, 77} })
}

// TestTheEndIsShown: what was written last reaches those who are attached and the
// log, then they are let go, and nothing is left.
func TestTheEndIsShown(t *testing.T) {
	h := hold(t)
	a := h.attach(t)
	wait(t, a, "\x1b[2J")
	last := strings.Repeat("last words\r\n", 200)
	h.writes(t, last)
	h.program.Close()
	must(t, h.close())
	must(t, a.conn.SetReadDeadline(time.Now().Add(10*time.Second*sandboxtest.Slow())))
	if got, err := io.ReadAll(a); err != nil || string(got) != last {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(last))
	}
	if h.log.String() != last {
		t.Errorf("logged: %d bytes, want %d", h.log.Len(), len(last))
	}
	if _, err := os.Lstat(h.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if _, err := Attach(h.path); err == nil {
		t.Error("somebody attached to what is over")
	}
}

// TestClosedByTheProgram: a program may have nobody at its terminal for a while.
func TestClosedByTheProgram(t *testing.T) {
	h := hold(t)
	a := h.attach(t)
	h.program.Close()
	_, err := a.Write([]byte("lost")) // to nobody
	must(t, err)
	time.Sleep(2 * goneEvery)
	h.program = openProgram(t, h.console)
	h.writes(t, "back")
	wait(t, a, "back")
	_, err = a.Write([]byte("typed"))
	must(t, err)
}

// TestBadClients: what makes no sense is passed over, and hurts nobody else.
func TestBadClients(t *testing.T) {
	h := hold(t)
	good := h.attach(t)
	for _, frame := range []string{"\x07\x00\x03abc", "\x01\x00\x01a", "\x00\x00\x00", "\x01\xff\xff" + strings.Repeat("z", 1<<16-1), "\x00\xff"} {
		bad := h.attach(t)
		_, err := bad.conn.WriteString(frame)
		must(t, err)
		wait(t, bad, "\x1b[2J")
		must(t, bad.Close())
	}
	_, err := good.Write([]byte("typed"))
	must(t, err)
	h.reads(t, "typed")
	if got := h.size(t); got != [2]uint16{33, 77} {
		t.Errorf("the size is %v", got)
	}
	// So many that there is no room: they are let go, nobody else is.
	var many []*Attached
	for range clientsMost + 3 {
		many = append(many, h.attach(t))
	}
	eventually(t, "one is let go", func() bool {
		must(t, many[len(many)-1].conn.SetReadDeadline(time.Now().Add(10*time.Second*sandboxtest.Slow())))
		_, err := many[len(many)-1].Read(make([]byte, 10))
		return err == io.EOF || errors.Is(err, unix.ECONNRESET)
	})
	h.writes(t, "still here")
	wait(t, good, "still here")
}

// TestOnlyOurUser: another user who gets at the socket is let go.
func TestOnlyOurUser(t *testing.T) {
	h := hold(t)
	st, err := os.Stat(h.path)
	must(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v", st.Mode())
	}
	sandboxtest.Need(t, sandboxtest.Root)
	must(t, os.Chmod(h.path, 0o666))
	must(t, os.Chmod(filepath.Dir(h.path), 0o711))
	h.writes(t, "secret")
	for uid, want := range map[int]error{0: nil, 12345: io.EOF} {
		got := make(chan error)
		go func() { got <- lookAs(uid, h.path) }()
		if err := <-got; !errors.Is(err, want) {
			t.Errorf("uid %d: got %v, want %v", uid, err, want)
		}
	}
}

// lookAs attaches in a thread that is another user, however that comes to the
// socket: the directories would keep it away. It spoils its goroutine's thread.
func lookAs(uid int, path string) error {
	runtime.LockOSThread() // for good: the thread ends with this goroutine
	if _, _, err := unix.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_FS, 0, 0); err != 0 {
		return err
	}
	if err := unix.Chdir(filepath.Dir(path)); err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	conn := os.NewFile(uintptr(s), "connection")
	defer conn.Close()
	if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); err != 0 {
		return err
	}
	// Search permission of the current directory is asked for too.
	if err := unix.Connect(s, &unix.SockaddrUnix{Name: "keeper.sock"}); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 100))
	if errors.Is(err, unix.ECONNRESET) {
		err = io.EOF
	}
	return err
}
