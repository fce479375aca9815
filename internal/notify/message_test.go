package notify

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	dropped := func(names ...string) Message { return Message{Dropped: names} }
	for _, tc := range []struct {
		name, datagram string
		want           Message
	}{
		{"nothing", "", Message{}},
		{"ready", "READY=1", Message{Ready: true}},
		{"ready, as libsystemd and C programs send it", "READY=1\nSTATUS=Serving é 日本\n\x00", Message{Ready: true, Status: "Serving é 日本"}},
		{"stopping", "STOPPING=1\n", Message{Stopping: true}},
		{"everything", "RELOADING=1\nSTATUS=s\nERRNO=2\nEXTEND_TIMEOUT_USEC=5000000\nWATCHDOG_USEC=7\nWATCHDOG=1\nWATCHDOG=trigger",
			Message{Reloading: true, Status: "s", Errno: 2, Extend: 5 * time.Second, WatchdogTimeout: 7 * time.Microsecond, Watchdog: true, Trigger: true}},
		{"the last state counts", "STOPPING=1\nREADY=1\nRELOADING=1", Message{Reloading: true}},
		{"the first value counts", "STATUS=a\nSTATUS=b\nERRNO=1\nERRNO=2\nWATCHDOG_USEC=1\nWATCHDOG_USEC=2", Message{Status: "a", Errno: 1, WatchdogTimeout: time.Microsecond}},

		{"no state", "READY=0\nREADY=11\nREADY\nready=1\n READY=1", dropped("READY", "READY", "READY", "ready", "?READY")},
		{"another's process", "MAINPID=1\nMAINPIDFD=1\nMAINPIDFDID=9", dropped("MAINPID", "MAINPIDFD", "MAINPIDFDID")},
		{"descriptors", "FDSTORE=1\nFDNAME=x\nFDPOLL=0\nFDSTOREREMOVE=1\nBARRIER=1", dropped("FDSTORE", "FDNAME", "FDPOLL", "FDSTOREREMOVE", "BARRIER")},
		{"who may speak", "NOTIFYACCESS=all\nMONOTONIC_USEC=1\nX_SYSTEMD_CPUS=1", dropped("NOTIFYACCESS", "MONOTONIC_USEC", "X_SYSTEMD_CPUS")},
		{"numbers", "ERRNO=-1\nERRNO=+1\nERRNO=4096\nERRNO=0x1\nERRNO=\nERRNO=0\nERRNO=18446744073709551617", dropped(strings.Fields(strings.Repeat("ERRNO ", 7))...)},
		{"the watchdog off", "WATCHDOG_USEC=0\nWATCHDOG=0\nWATCHDOG=TRIGGER", dropped("WATCHDOG_USEC", "WATCHDOG", "WATCHDOG")},
		{"too long a time", "WATCHDOG_USEC=86400000001\nEXTEND_TIMEOUT_USEC=3600000001\nEXTEND_TIMEOUT_USEC=18446744073709551615",
			dropped("WATCHDOG_USEC", "EXTEND_TIMEOUT_USEC", "EXTEND_TIMEOUT_USEC")},
		{"as long a time as may be", "WATCHDOG_USEC=86400000000\nEXTEND_TIMEOUT_USEC=3600000000", Message{WatchdogTimeout: MaxTimeout, Extend: MaxExtend}},
		{"hostile status", "STATUS=\x1b[2J\x9b\u009b\r\u202ea\xffb", Message{Status: "?[2J????a?b"}},
		{"long status", "STATUS=" + strings.Repeat("a", 511) + "日本", Message{Status: strings.Repeat("a", 511)}},
		{"hostile name", "\x1b]0;x\a=1\n=\n" + strings.Repeat("A", 40) + "=1", dropped("??0?x?", "", strings.Repeat("A", 32))},
		{"many unknown", strings.Repeat("X=1\n", 100), dropped(strings.Fields(strings.Repeat("X ", 16))...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse([]byte(tc.datagram))
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, tc.want)
			}
		})
	}
	for _, bad := range []string{"READY=1\x00", "READY=1\x00\x00", "STATUS=a\x00MAINPID=1"} {
		m, err := Parse([]byte(bad))
		if one := bad == "READY=1\x00"; one != (err == nil) || m.Ready != one {
			t.Errorf("%q: got %+v, %v", bad, m, err)
		}
	}
	if _, err := Parse(bytes.Repeat([]byte("\n"), MaxDatagram)); err != nil {
		t.Errorf("a datagram of %d bytes: got %v", MaxDatagram, err)
	}
	if _, err := Parse(bytes.Repeat([]byte("\n"), MaxDatagram+1)); err == nil {
		t.Errorf("a datagram of %d bytes: got no error", MaxDatagram+1)
	}
}

func TestEncode(t *testing.T) {
	for _, tc := range []struct {
		name string
		m    Message
		want string
	}{
		{"nothing", Message{}, ""},
		{"nothing but what was dropped", Message{Dropped: []string{"MAINPID"}}, ""},
		{"ready", Message{Ready: true, Status: "up"}, "READY=1\nSTATUS=up\n"},
		{"everything", Message{Stopping: true, Status: "s", Errno: 2, Extend: time.Second, WatchdogTimeout: time.Minute, Watchdog: true, Trigger: true},
			"STOPPING=1\nSTATUS=s\nERRNO=2\nEXTEND_TIMEOUT_USEC=1000000\nWATCHDOG_USEC=60000000\nWATCHDOG=1\nWATCHDOG=trigger\n"},
		{"a line within a status", Message{Status: "a\nMAINPID=1\r"}, "STATUS=a?MAINPID=1?\n"},
		{"nonsense", Message{Errno: -1, Extend: -time.Second, WatchdogTimeout: 5}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(Encode(tc.m)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzParse passes on whatever a program says.
func FuzzParse(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=x\nMAINPID=1\n"))
	f.Add([]byte("STATUS=\x1b\u202e\xff\nERRNO=5\nWATCHDOG_USEC=1\x00"))
	f.Add([]byte("EXTEND_TIMEOUT_USEC=99999999999999999999\n=\nRELOADING=1\nWATCHDOG=trigger"))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		m, err := Parse(datagram)
		if err != nil {
			if !reflect.DeepEqual(m, Message{}) {
				t.Fatalf("got %+v with %v", m, err)
			}
			return
		}
		out := Encode(m)
		if !utf8.Valid(out) || len(out) > MaxDatagram {
			t.Fatalf("passes on %q", out)
		}
		for _, line := range strings.Split(strings.TrimSuffix(string(out), "\n"), "\n") {
			key, _, _ := strings.Cut(line, "=")
			switch key {
			case "", "READY", "RELOADING", "STOPPING", "STATUS", "ERRNO", "EXTEND_TIMEOUT_USEC", "WATCHDOG_USEC", "WATCHDOG":
			default:
				t.Fatalf("passes on %q", out)
			}
			if strings.ContainsFunc(line, unicode.IsControl) {
				t.Fatalf("passes on %q", out)
			}
		}
		again, err := Parse(out)
		m.Dropped = nil
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("got %+v, %v from %q, want %+v", again, err, out, m)
		}
	})
}

func TestWatchdog(t *testing.T) {
	const sec = time.Second
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	type said struct {
		at time.Duration
		m  Message
	}
	for _, tc := range []struct {
		name    string
		timeout time.Duration
		said    []said
		due     time.Duration // -1: never
	}{
		{"no watchdog", 0, []said{{0, Message{Ready: true}}, {sec, Message{Watchdog: true}}}, -1},
		{"not begun", sec, []said{{sec, Message{Status: "coming up"}}, {sec, Message{Stopping: true}}}, -1},
		{"from ready on", sec, []said{{2 * sec, Message{Ready: true}}}, 3 * sec},
		{"from the first sign on", sec, []said{{2 * sec, Message{Watchdog: true}}}, 3 * sec},
		{"signs", sec, []said{{0, Message{Ready: true}}, {sec, Message{Watchdog: true}}, {sec + 1, Message{Watchdog: true}}}, 2*sec + 1},
		{"a status is no sign", sec, []said{{0, Message{Ready: true}}, {sec / 2, Message{Status: "busy"}}}, sec},
		{"its own time", 0, []said{{0, Message{Ready: true}}, {sec, Message{WatchdogTimeout: 3 * sec}}}, 4 * sec},
		{"its own time, before it is ready", sec, []said{{0, Message{WatchdogTimeout: 3 * sec}}, {sec, Message{Ready: true}}}, 4 * sec},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := Watchdog{Timeout: tc.timeout}
			for _, s := range tc.said {
				w.Observe(s.m, start.Add(s.at))
			}
			if tc.due < 0 {
				if !w.Due().IsZero() || w.Expired(start.Add(time.Hour)) {
					t.Errorf("got due at %v, want never", w.Due())
				}
				return
			}
			if w.Due().Sub(start) != tc.due || w.Expired(start.Add(tc.due-1)) || !w.Expired(start.Add(tc.due)) {
				t.Errorf("got due at %v, want %v", w.Due().Sub(start), tc.due)
			}
			w.Observe(Message{Trigger: true}, start)
			w.Observe(Message{Watchdog: true}, start.Add(time.Hour))
			if !w.Expired(start) {
				t.Error("it asked for help and is not expired")
			}
		})
	}
}
