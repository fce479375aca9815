package health

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

// talk is a connection: a server that says something, whatever it is asked.
type talk struct {
	io.Reader
	asked    bytes.Buffer
	writeErr error
}

func (c *talk) Write(b []byte) (int, error) {
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	return c.asked.Write(b)
}

// endless says one character for ever, and counts.
type endless struct{ said int }

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'H'
	}
	e.said += len(b)
	return len(b), nil
}

// silent never says anything, and never fails.
type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

func TestAnswers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		says   io.Reader
		ok     bool
		detail string
	}{
		{"200", strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), true, "status 200"},
		{"1.0, no reason, no CR, nothing after", strings.NewReader("HTTP/1.0 204\n"), true, "status 204"},
		{"byte after byte", iotest.OneByteReader(strings.NewReader("HTTP/1.1 200 OK\r\n")), true, "status 200"},
		{"the end comes with the line", iotest.DataErrReader(strings.NewReader("HTTP/1.1 200 OK\r\n")), true, "status 200"},
		{"199", strings.NewReader("HTTP/1.1 199 x\r\n"), false, "status 199"},
		{"399", strings.NewReader("HTTP/1.1 399 x\r\n"), true, "status 399"},
		{"400", strings.NewReader("HTTP/1.1 400 x\r\n"), false, "status 400"},
		{"503", strings.NewReader("HTTP/1.1 503 \x1b[2J\r\n"), false, "status 503"},
		{"999", strings.NewReader("HTTP/1.1 999 x\r\n"), false, "status 999"},
		{"099", strings.NewReader("HTTP/1.1 099 x\r\n"), false, `not an answer in HTTP: "HTTP/1.1 099 x"`},
		{"2000", strings.NewReader("HTTP/1.1 2000 OK\r\n"), false, `not an answer in HTTP: "HTTP/1.1 2000 OK"`},
		{"two digits", strings.NewReader("HTTP/1.1 20\r\n"), false, `not an answer in HTTP: "HTTP/1.1 20"`},
		{"sign", strings.NewReader("HTTP/1.1 +20 OK\r\n"), false, `not an answer in HTTP: "HTTP/1.1 +20 OK"`},
		{"HTTP/2", strings.NewReader("HTTP/2.0 200 OK\r\n"), false, `not an answer in HTTP: "HTTP/2.0 200 OK"`},
		{"no version", strings.NewReader("200 OK\r\n"), false, `not an answer in HTTP: "200 OK"`},
		{"a banner", strings.NewReader("\x1b]0;x\a220 mail ready, and much more than forty bytes\n"), false,
			`not an answer in HTTP: "\x1b]0;x\a220 mail ready, and much more than"`},
		{"cut off", strings.NewReader("HTTP/1.1 200"), false, "the connection was closed after 12 bytes of an answer"},
		{"nothing", strings.NewReader(""), false, "the connection was closed after 0 bytes of an answer"},
		{"a line without end", &endless{}, false, "the first line of the answer is longer than 4096 bytes"},
		{"drops", iotest.OneByteReader(&endless{}), false, "no line in 64 reads"},
		{"silence", silent{}, false, "no line in 64 reads"},
		{"too late", iotest.ErrReader(os.ErrDeadlineExceeded), false, "no answer: i/o timeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ok, detail, err := HTTP(&talk{Reader: tc.says}, "http://127.0.0.1:8080/healthz")
			if err != nil || ok != tc.ok || detail != tc.detail {
				t.Errorf("got %v, %s, %v, want %v, %s", ok, detail, err, tc.ok, tc.detail)
			}
			if e, is := tc.says.(*endless); is && e.said > maxAnswer {
				t.Errorf("read %d bytes, want at most %d", e.said, maxAnswer)
			}
		})
	}
	ok, detail, err := HTTP(&talk{writeErr: errors.New("broken pipe")}, "http://127.0.0.1/")
	if ok || detail != "cannot ask: broken pipe" || err != nil {
		t.Errorf("a connection that was closed: got %v, %s, %v", ok, detail, err)
	}
}

func TestQuestions(t *testing.T) {
	for _, tc := range []struct{ url, target, host string }{
		{"http://127.0.0.1:8080/healthz", "/healthz", "127.0.0.1:8080"},
		{"http://127.0.0.1", "/", "127.0.0.1"},
		{"http://127.0.0.1:80/a b/c?x=y#part", "/a%20b/c?x=y", "127.0.0.1:80"},
		{"http://[::1]:8080/", "/", "[::1]:8080"},
		{"http://[fe80::1%25eth0]/", "/", "[fe80::1]"},
		{"http://127.0.0.1/é", "/%C3%A9", "127.0.0.1"},
		{"http://127.0.0.1?", "/?", "127.0.0.1"},
	} {
		c := &talk{Reader: strings.NewReader("")}
		_, _, err := HTTP(c, tc.url)
		want := "GET " + tc.target + " HTTP/1.1\r\nHost: " + tc.host + "\r\nUser-Agent: nucleus\r\nAccept: */*\r\nConnection: close\r\n\r\n"
		if err != nil || c.asked.String() != want {
			t.Errorf("%s: got %q, %v, want %q", tc.url, &c.asked, err, want)
		}
	}
	for _, url := range []string{
		"", "127.0.0.1", "http:", "http://", "http:127.0.0.1", "https://127.0.0.1/", "http://localhost/", "http://u:p@127.0.0.1/",
		"http://127.0.0.1/?a b", "http://127.0.0.1/\r\nHost: x", "http://127.0.0.1/?\xff", "http://127.0.0.1:x/", "http://127.0.0.1 x/",
	} {
		c := &talk{Reader: strings.NewReader("HTTP/1.1 200 OK\r\n")}
		if ok, _, err := HTTP(c, url); err == nil || ok || c.asked.Len() != 0 {
			t.Errorf("%q: got %v, %v and asked %q, want an error and no question", url, ok, err, &c.asked)
		}
	}
}

func FuzzHTTP(f *testing.F) {
	f.Add("http://127.0.0.1/", []byte("HTTP/1.1 200 OK\r\n\r\n"), false)
	f.Add("http://[::1%25x]:1/?\x7f", []byte("HTTP/1.1 999"), true)
	f.Add("http://127.0.0.1/?é ", []byte("\n"), true)
	f.Fuzz(func(t *testing.T, url string, says []byte, drops bool) {
		c := &talk{Reader: bytes.NewReader(says)}
		if drops {
			c.Reader = iotest.HalfReader(c.Reader)
		}
		ok, detail, err := HTTP(c, url)
		if err != nil {
			if ok || detail != "" || c.asked.Len() != 0 {
				t.Fatalf("got %v, %q with %v, and asked %q", ok, detail, err, &c.asked)
			}
			return
		}
		if got := c.asked.String(); strings.Count(got, "\r\n") != 6 || strings.Count(got, "\n") != 6 || strings.Count(got, "\r") != 6 ||
			!strings.HasPrefix(got, "GET /") || strings.Count(got[:strings.Index(got, "\r\n")], " ") != 2 {
			t.Fatalf("asked %q", got)
		}
		if Clean(detail) != detail || len(detail) > 300 {
			t.Fatalf("detail %q", detail)
		}
		line, _, found := bytes.Cut(says, []byte("\n"))
		if want := found && len(line) >= 12 && bytes.HasPrefix(line, []byte("HTTP/1.")) && (line[9] == '2' || line[9] == '3'); ok && !want {
			t.Fatalf("%q is a yes", line)
		}
	})
}
