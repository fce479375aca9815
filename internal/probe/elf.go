package probe

import "encoding/binary"

// Image is an executable of 64 bits, or of 32, that holds nothing but code.
func Image(machine uint16, code []byte, wide bool) []byte {
	le := binary.LittleEndian
	const base = 0x400000
	class, headers := byte(2), 64+56
	if !wide {
		class, headers = 1, 52+32
	}
	size := headers + len(code)
	b := append([]byte{0x7f, 'E', 'L', 'F', class, 1, 1}, make([]byte, 9)...)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	if !wide {
		for _, v := range []uint32{base + uint32(headers), 52, 0, 0} {
			b = le.AppendUint32(b, v)
		}
		for _, v := range []uint16{52, 32, 1, 0, 0, 0} {
			b = le.AppendUint16(b, v)
		}
		for _, v := range []uint32{1, 0, base, base, uint32(size), uint32(size), 5, 0x1000} {
			b = le.AppendUint32(b, v)
		}
		return append(b, code...)
	}
	for _, v := range []uint64{base + uint64(headers), 64, 0} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(le.AppendUint32(b, 1), 5)
	for _, v := range []uint64{0, base, base, uint64(size), uint64(size), 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
