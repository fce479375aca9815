package keeper_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// probe is the program inside.
func probe(args []string) int {
	var err error
	switch args[0] {
	case "serve":
		err = serve(args[1], args[2])
	case "notify":
		err = say(args[1:])
	case "flood":
		err = flood(args[1])
	case "hold": // take connections into the queue and never answer
		err = hold(args[1])
	default:
		err = fmt.Errorf("no verb %q", args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serve answers to every connection what a file says at that moment: a status,
// or something that is none.
func serve(addr, file string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go answer(c, file)
	}
}

func answer(c net.Conn, file string) {
	defer c.Close()
	text, _ := os.ReadFile(file)
	word := strings.TrimSpace(string(text))
	b := make([]byte, 4096)
	n, _ := c.Read(b)
	switch word {
	case "silent":
		time.Sleep(time.Minute)
	case "garbage":
		fmt.Fprint(c, "\x1b[31mhello\x00\r\n\r\n")
	case "endless":
		for {
			if _, err := c.Write(make([]byte, 1024)); err != nil {
				return
			}
		}
	case "request":
		_ = os.WriteFile(file+".request", b[:n], 0o666)
		word = "200"
		fallthrough
	default:
		fmt.Fprintf(c, "HTTP/1.1 %s Said So\r\nContent-Length: 0\r\n\r\n", word)
	}
}

func hold(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	var short error // listening again shortens the queue
	if err := raw.Control(func(fd uintptr) { short = syscall.Listen(int(fd), 1) }); err != nil || short != nil {
		return errors.Join(err, short)
	}
	time.Sleep(time.Minute)
	return nil
}

// say sends each argument as a datagram to NOTIFY_SOCKET. A descriptor goes with
// those that begin with FD.
func say(args []string) error {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	to := &syscall.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	for _, text := range args {
		text = strings.NewReplacer(`\n`, "\n", `\0`, "\x00", `\e`, "\x1b").Replace(text)
		if size, ok := strings.CutPrefix(text, "SIZE"); ok {
			n := 0
			fmt.Sscan(size, &n)
			text = "STATUS=" + strings.Repeat("x", n)
		}
		var oob []byte
		if strings.HasPrefix(text, "FD") {
			oob = syscall.UnixRights(0, 1, 2)
		}
		if err := syscall.Sendmsg(fd, []byte(text), oob, to, 0); err != nil {
			return fmt.Errorf("send %.20q: %w", text, err)
		}
	}
	return nil
}

// flood says as much as it can for a while, and then that it is done.
func flood(file string) error {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	to := &syscall.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	n := 0
	for i, end := 0, time.Now().Add(time.Second); time.Now().Before(end); i++ {
		if syscall.Sendto(fd, fmt.Appendf(nil, "STATUS=%d", i), 0, to) == nil {
			n++
		}
	}
	return os.WriteFile(file, fmt.Appendf(nil, "%d\n", n), 0o666)
}
