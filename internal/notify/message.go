// Package notify speaks sd_notify(3) in both directions: it receives what a
// program in a sandbox says about itself, takes out what must not leave the
// sandbox, and sends the rest to the service manager that started Nucleus.
//
//	m, err := socket.Receive(ctx)
//	if b := notify.Encode(m); len(b) > 0 {
//		err = notify.Send(os.Getenv("NOTIFY_SOCKET"), b)
//	}
//
// The sender is hostile until proven otherwise. It can say that it is ready, that
// it is not, and how it feels. It cannot name processes, hand over descriptors, or
// say who else may speak: see [Parse].
package notify

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a program can say.
const (
	MaxDatagram = 4096           // of one message; systemd takes 4096 as well
	MaxStatus   = 512            // bytes of STATUS
	MaxTimeout  = 24 * time.Hour // WATCHDOG_USEC
	MaxExtend   = time.Hour      // EXTEND_TIMEOUT_USEC
	maxErrno    = 4095           // MAX_ERRNO of the kernel
	maxDropped  = 16             // names in Message.Dropped
	maxName     = 32             // bytes of one of them
)

// Message is what one datagram says. The zero value says nothing.
type Message struct {
	// At most one of these is set: the last that the datagram had, as systemd
	// understands it.
	Ready     bool // READY=1
	Reloading bool // RELOADING=1
	Stopping  bool // STOPPING=1

	Status          string        // STATUS=, valid UTF-8 without control characters
	Errno           int           // ERRNO=
	Extend          time.Duration // EXTEND_TIMEOUT_USEC=
	WatchdogTimeout time.Duration // WATCHDOG_USEC=
	Watchdog        bool          // WATCHDOG=1: alive
	Trigger         bool          // WATCHDOG=trigger: not well

	// Dropped names what the datagram had besides, in order, at most 16.
	Dropped []string
}

// Parse reads a datagram. It fails if the datagram as a whole is none: it is too
// long, or has zero bytes in it, which systemd refuses too. Single fields are
// dropped, and their names listed, if they are unknown or malformed, or
//
//   - MAINPID, MAINPIDFD: a number of the sandbox's pid namespace is somebody
//     else's on the host. An attacker would name a process for systemd to kill.
//   - FDSTORE, FDSTOREREMOVE, FDNAME, FDPOLL: descriptors of a sandbox would be
//     kept by, and later handed to, a program outside of it.
//   - NOTIFYACCESS: would let others speak for the service.
//   - MONOTONIC_USEC: is of the sandbox's clock, which a time namespace shifts.
//   - BARRIER: is answered by having been received: see [Socket.Receive].
//   - WATCHDOG_USEC=0, which would switch the watchdog off.
//
// Of a field that is given twice, the first counts.
func Parse(datagram []byte) (Message, error) {
	var m Message
	if len(datagram) > MaxDatagram {
		return m, fmt.Errorf("a notification of %d bytes, at most %d", len(datagram), MaxDatagram)
	}
	datagram = bytes.TrimSuffix(datagram, []byte{0})
	if bytes.IndexByte(datagram, 0) >= 0 {
		return m, fmt.Errorf("a notification with a zero byte")
	}
	for line := range bytes.SplitSeq(datagram, []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		key, value, _ := strings.Cut(string(line), "=")
		if !m.set(key, value) && len(m.Dropped) < maxDropped {
			m.Dropped = append(m.Dropped, name(key))
		}
	}
	return m, nil
}

// set takes one field, or reports that it must be dropped.
func (m *Message) set(key, value string) bool {
	switch key + "=" + value {
	case "READY=1":
		m.Ready, m.Reloading, m.Stopping = true, false, false
		return true
	case "RELOADING=1":
		m.Ready, m.Reloading, m.Stopping = false, true, false
		return true
	case "STOPPING=1":
		m.Ready, m.Reloading, m.Stopping = false, false, true
		return true
	case "WATCHDOG=1":
		m.Watchdog = true
		return true
	case "WATCHDOG=trigger":
		m.Trigger = true
		return true
	}
	switch key {
	case "STATUS":
		if m.Status == "" {
			m.Status = clean(value)
		}
		return true
	case "ERRNO":
		n, ok := number(value, maxErrno)
		if ok && m.Errno == 0 {
			m.Errno = int(n)
		}
		return ok
	case "EXTEND_TIMEOUT_USEC":
		return first(&m.Extend, value, MaxExtend)
	case "WATCHDOG_USEC":
		return first(&m.WatchdogTimeout, value, MaxTimeout)
	}
	return false
}

// first sets a duration that is not set yet, from microseconds.
func first(d *time.Duration, value string, limit time.Duration) bool {
	n, ok := number(value, uint64(limit/time.Microsecond))
	if ok && *d == 0 {
		*d = time.Duration(n) * time.Microsecond
	}
	return ok
}

// number reads a decimal number from 1 to limit, of digits only.
func number(s string, limit uint64) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n >= 1 && n <= limit
}

// name is a field's name, fit for a log.
func name(key string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '?'
	}, key[:min(len(key), maxName)])
}

// clean makes a status fit for a line of systemctl on somebody's terminal: valid
// UTF-8 of bounded length, with "?" for control characters, escape sequences,
// line ends, and marks that turn the direction of writing.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsGraphic(r) {
			return '?'
		}
		return r
	}, s[:min(len(s), MaxStatus+utf8.UTFMax)])
	for len(s) > MaxStatus {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// Encode is the datagram that says m, without Dropped; nothing if m says nothing.
// It trusts m no more than Parse trusts a datagram: every field is one line.
func Encode(m Message) []byte {
	var b []byte
	say := func(yes bool, format string, args ...any) {
		if yes {
			b = fmt.Appendf(b, format+"\n", args...)
		}
	}
	say(m.Ready, "READY=1")
	say(m.Reloading, "RELOADING=1")
	say(m.Stopping, "STOPPING=1")
	say(m.Status != "", "STATUS=%s", clean(m.Status))
	say(m.Errno > 0, "ERRNO=%d", m.Errno)
	say(m.Extend >= time.Microsecond, "EXTEND_TIMEOUT_USEC=%d", m.Extend.Microseconds())
	say(m.WatchdogTimeout >= time.Microsecond, "WATCHDOG_USEC=%d", m.WatchdogTimeout.Microseconds())
	say(m.Watchdog, "WATCHDOG=1")
	say(m.Trigger, "WATCHDOG=trigger")
	return b
}
