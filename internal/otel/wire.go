package otel

import (
	"encoding/binary"
	"math"
	"time"
)

// message is a message of protocol buffers in the making. Fields that have their
// zero value are left out, as proto3 wants it.
type message []byte

func (m *message) tag(field, wire int) { *m = binary.AppendUvarint(*m, uint64(field)<<3|uint64(wire)) }

func (m *message) number(field int, v uint64) {
	if v != 0 {
		m.tag(field, 0)
		*m = binary.AppendUvarint(*m, v)
	}
}

func (m *message) fixed(field int, v uint64) {
	if v != 0 {
		m.always(field, v)
	}
}

// always is fixed for a member of a oneof, or where zero says something.
func (m *message) always(field int, v uint64) {
	m.tag(field, 1)
	*m = binary.LittleEndian.AppendUint64(*m, v)
}

func (m *message) double(field int, v float64) { m.always(field, math.Float64bits(v)) }

func (m *message) time(field int, t time.Time) {
	if !t.IsZero() {
		m.fixed(field, uint64(t.UnixNano()))
	}
}

func (m *message) bytes(field int, b []byte) {
	m.tag(field, 2)
	*m = binary.AppendUvarint(*m, uint64(len(b)))
	*m = append(*m, b...)
}

func (m *message) text(field int, s string) {
	if s != "" {
		m.bytes(field, []byte(s))
	}
}

// doubles and fixeds are packed lists.
func (m *message) doubles(field int, list []float64) {
	var b []byte
	for _, v := range list {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	m.bytes(field, b)
}

func (m *message) fixeds(field int, list []uint64) {
	var b []byte
	for _, v := range list {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	m.bytes(field, b)
}

// Attr is an attribute: a string, bool, int64, float64 or list of strings with a name.
type Attr struct {
	Key   string
	Value any
}

func (m *message) attrs(field int, all []Attr) {
	for _, a := range all {
		var kv message
		kv.text(1, a.Key)
		kv.bytes(2, value(a.Value))
		m.bytes(field, kv)
	}
}

// value is an AnyValue.
func value(v any) message {
	var m message
	switch v := v.(type) {
	case string:
		m.bytes(1, []byte(v))
	case bool:
		m.tag(2, 0)
		if v {
			m = append(m, 1)
		} else {
			m = append(m, 0)
		}
	case int64:
		m.tag(3, 0)
		m = binary.AppendUvarint(m, uint64(v))
	case float64:
		m.double(4, v)
	case []string:
		var list message
		for _, s := range v {
			list.bytes(1, value(s))
		}
		m.bytes(5, list)
	}
	return m
}

// rejected reads the partial success of an answer: how much was not taken, and why.
func rejected(b []byte) (n int64, why string) {
	partial, _ := field(b, 1)
	text, _ := field(partial, 2)
	_, count := field(partial, 1)
	return int64(count), string(text)
}

// field finds a field of a message that somebody else has made. What does not
// make sense is not there.
func field(b []byte, want uint64) (data []byte, n uint64) {
	for len(b) > 0 {
		tag, used := binary.Uvarint(b)
		if used <= 0 {
			return data, n
		}
		b = b[used:]
		switch tag & 7 {
		case 0:
			v, used := binary.Uvarint(b)
			if used <= 0 {
				return data, n
			}
			if tag>>3 == want {
				n = v
			}
			b = b[used:]
		case 2:
			length, used := binary.Uvarint(b)
			if used <= 0 || length > uint64(len(b)-used) {
				return data, n
			}
			if tag>>3 == want {
				data = b[used : used+int(length)]
			}
			b = b[used+int(length):]
		default: // an answer has no others
			return data, n
		}
	}
	return data, n
}
