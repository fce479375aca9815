package cgroup

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// callBody is the argument list of StartTransientUnit, taken apart by hand.
const callBody = `
	07000000 612e73636f7065 00                         # name: 7 bytes, a.scope, end
	04000000 6661696c 00 000000                        # mode: fail; to 4
	93000000 00000000                                  # properties: 147 bytes; to 8
	0b000000 4465736372697074696f6e 00                 # Description
	01 73 00 00 17000000                               # s; to 4; 23 bytes
	4e75636c6575732073616e64626f7820612e73636f7065 00  # Nucleus sandbox a.scope
	04000000 50494473 00                               # PIDs
	02 6175 00 000000                                  # au; to 4
	08000000 01000000 02000000 00000000                # 8 bytes: 1, 2; to 8
	08000000 44656c6567617465 00                       # Delegate
	01 62 00 01000000 00000000                         # b: true; to 8
	0b000000 436f6c6c6563744d6f6465 00                 # CollectMode
	01 73 00 00 12000000                               # s; to 4; 18 bytes
	696e6163746976652d6f722d6661696c6564 00 00         # inactive-or-failed; to 4
	00000000                                           # no further units; at 8 already
`

func TestCallOnTheWire(t *testing.T) {
	var want []byte
	for line := range strings.Lines(callBody) {
		code, _, _ := strings.Cut(line, "#")
		b, err := hex.DecodeString(strings.Join(strings.Fields(code), ""))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, b...)
	}
	if got := scopeBody("a.scope", []int{1, 2}); !bytes.Equal(got, want) {
		t.Errorf("got\n%swant\n%s", hex.Dump(got), hex.Dump(want))
	}
}

// answer encodes what a manager sends.
func answer(kind byte, replyTo uint32, member, name, signature string, put func(*encoder)) []byte {
	body := &encoder{}
	if put != nil {
		put(body)
	}
	e := &encoder{b: []byte{'l', kind, 0, 1}}
	e.u32(uint32(len(body.b)))
	e.u32(77)
	type field struct {
		code byte
		kind string
		text string
	}
	fields := []field{{fieldSignature, "g", signature}, {fieldReplySerial, "u", ""}}
	if member != "" {
		fields = append(fields, field{fieldPath, "o", "/org/freedesktop/systemd1"}, field{fieldMember, "s", member})
	}
	if name != "" {
		fields = append(fields, field{fieldError, "s", name})
	}
	e.array(len(fields), func(i int) {
		e.b = append(e.b, fields[i].code)
		e.signature(fields[i].kind)
		switch fields[i].kind {
		case "g":
			e.signature(fields[i].text)
		case "u":
			e.u32(replyTo)
		default:
			e.text(fields[i].text)
		}
	})
	e.align(8)
	return append(e.b, body.b...)
}

func reply(job string) []byte {
	return answer(typeReply, 1, "", "", "o", func(e *encoder) { e.text(job) })
}

func jobRemoved(job, result string) []byte {
	return answer(typeSignal, 0, "JobRemoved", "", "uoss", func(e *encoder) {
		e.u32(5)
		e.text(job)
		e.text("a.scope")
		e.text(result)
	})
}

func refusal(name, text string) []byte {
	return answer(typeError, 1, "", name, "s", func(e *encoder) { e.text(text) })
}

func TestStartScope(t *testing.T) {
	noise := answer(typeSignal, 0, "UnitNew", "", "so", func(e *encoder) { e.text("x"); e.text("/x") })
	for _, tt := range []struct {
		name string
		auth string
		send [][]byte
		is   error  // nil: success
		says string // part of the error
	}{
		{name: "done", send: [][]byte{noise, reply("/j/5"), noise, jobRemoved("/j/4", "failed"), jobRemoved("/j/5", "done")}},
		{name: "done before the reply", send: [][]byte{jobRemoved("/j/5", "done"), reply("/j/5")}},
		{name: "job failed", send: [][]byte{reply("/j/5"), jobRemoved("/j/5", "failed")}, is: errAny, says: `"failed"`},
		{name: "exists", send: [][]byte{refusal("org.freedesktop.systemd1.UnitExists", "is there")}, is: fs.ErrExist, says: "is there"},
		{name: "denied", send: [][]byte{refusal("org.freedesktop.DBus.Error.AccessDenied", "no")}, is: fs.ErrPermission, says: "no"},
		{name: "answer to another call", send: [][]byte{answer(typeReply, 9, "", "", "o", func(e *encoder) { e.text("/j/5") })}, is: io.ErrUnexpectedEOF},
		{name: "hangs up", is: io.ErrUnexpectedEOF},
		{name: "not authenticated", auth: "REJECTED EXTERNAL\r\n", is: fs.ErrPermission, says: "REJECTED"},
		{name: "big endian", send: [][]byte{append([]byte{'B'}, reply("/j/5")[1:]...)}, is: errProtocol},
		{name: "no body", send: [][]byte{answer(typeReply, 1, "", "", "o", nil)}, is: errProtocol},
		{name: "hangs up before it knows us", auth: "none", is: io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := manager{Socket: fakeManager(t, tt.auth, tt.send)}
			err := m.startScope("a.scope", 1, 2)
			switch {
			case tt.is == errAny && err != nil, errors.Is(err, tt.is):
				if err != nil && !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %q, want something with %q", err, tt.says)
				}
			default:
				t.Errorf("got %v, want %v", err, tt.is)
			}
		})
	}
}

var errAny = errors.New("any error")

// fakeManager answers one call and checks what it was.
func fakeManager(t *testing.T, auth string, send [][]byte) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "private")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		r := bufio.NewReader(c)
		hello, err := r.ReadString('\n')
		if err != nil || !strings.HasPrefix(hello, "\x00AUTH EXTERNAL ") {
			t.Errorf("got %q, %v, want an authentication", hello, err)
		}
		if begin, err := r.ReadString('\n'); err != nil || begin != "BEGIN\r\n" {
			t.Errorf("got %q, %v, want BEGIN", begin, err)
		}
		call, err := readMessage(r)
		if err != nil || call.kind != typeCall || call.member != "StartTransientUnit" {
			t.Errorf("got %+v, %v, want a call", call, err)
		}
		switch auth {
		case "none":
			return
		case "":
			auth = "OK 0123456789abcdef\r\n"
		}
		c.Write(append([]byte(auth), bytes.Join(send, nil)...))
	}()
	return socket
}

// FuzzMessage feeds readMessage what no manager would send.
func FuzzMessage(f *testing.F) {
	for _, b := range [][]byte{reply("/j/5"), jobRemoved("/j/5", "done"), refusal("a.b", "c"), managerCall(1, "M", "s", nil)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		wait(bytes.NewReader(b), 1, true)
	})
}
