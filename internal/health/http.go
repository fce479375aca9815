package health

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
)

// maxAnswer bounds what is read of an answer, which is only its first line.
const maxAnswer = 4096

// maxReads bounds how often a server can make us wake up for a few bytes more.
const maxReads = 64

// HTTP asks for url over an open connection, and reads the status line of the
// answer: 200 to 399 is a yes. What the server does, or fails to do, is a no and
// its detail; an error says that the question itself is at fault.
//
// The server is the sandbox's and may be hostile: it can be slow, which the
// caller's deadline on the connection ends, or long, of which 4 KiB are read. No
// header is parsed, no redirection is followed, and nothing that it says is
// repeated except the status and, quoted, the beginning of what is not HTTP.
func HTTP(conn io.ReadWriter, url string) (ok bool, detail string, err error) {
	ask, err := request(url)
	if err != nil {
		return false, "", err
	}
	if _, err := conn.Write(ask); err != nil {
		return false, fmt.Sprintf("cannot ask: %v", err), nil
	}
	line, err := statusLine(conn)
	if err != nil {
		return false, err.Error(), nil
	}
	code, good := status(line)
	if !good {
		return false, fmt.Sprintf("not an answer in HTTP: %+q", line[:min(len(line), 40)]), nil
	}
	return code >= 200 && code < 400, fmt.Sprintf("status %d", code), nil
}

// request is what is written for a URL. It is one request whatever the URL says:
// net/url lets a space through in a query, which would end the line early.
func request(raw string) ([]byte, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("health check: %w", err)
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if u.Scheme != "http" || u.Opaque != "" || u.User != nil || err != nil {
		return nil, fmt.Errorf("health check: %q is not a URL such as http://127.0.0.1:8080/healthz", raw)
	}
	host := addr.WithZone("").String() // a zone is for this machine only (RFC 6874)
	if addr.Is6() {
		host = "[" + host + "]"
	}
	if port := u.Port(); port != "" {
		host += ":" + port
	}
	target := u.RequestURI()
	if strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, fmt.Errorf("health check: %q has a character that must be escaped", raw)
	}
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: nucleus\r\nAccept: */*\r\nConnection: close\r\n\r\n", target, host), nil
}

// statusLine reads the first line of an answer, without its end.
func statusLine(r io.Reader) ([]byte, error) {
	b, used := make([]byte, maxAnswer), 0
	for range maxReads {
		n, err := r.Read(b[used:])
		if n > 0 && n <= len(b)-used {
			used += n
		}
		if i := bytes.IndexByte(b[:used], '\n'); i >= 0 {
			return bytes.TrimSuffix(b[:i], []byte("\r")), nil
		}
		switch {
		case used == len(b):
			return nil, fmt.Errorf("the first line of the answer is longer than %d bytes", maxAnswer)
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("the connection was closed after %d bytes of an answer", used)
		case err != nil:
			return nil, fmt.Errorf("no answer: %w", err)
		}
	}
	return nil, fmt.Errorf("no line in %d reads", maxReads)
}

// status takes a status line apart (RFC 9112, section 4): HTTP/1.x, a space,
// three digits, and then a space or nothing.
func status(line []byte) (code int, ok bool) {
	const prefix = "HTTP/1."
	rest, found := bytes.CutPrefix(line, []byte(prefix))
	if !found || len(rest) < 5 || !digit(rest[0]) || rest[1] != ' ' || len(rest) > 5 && rest[5] != ' ' {
		return 0, false
	}
	for _, c := range rest[2:5] {
		if !digit(c) {
			return 0, false
		}
		code = code*10 + int(c-'0')
	}
	return code, code >= 100
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
