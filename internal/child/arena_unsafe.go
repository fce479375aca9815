package child

import (
	"syscall"
	"unsafe"
)

const (
	stackSize = 8 << 10
	pageSize  = 4 << 10
)

// Arena holds a child's stack, its operations and everything they point to, in
// one mapping outside the Go heap: the stack first, then the operations, then
// the data. After Seal all but the stack is read-only.
type Arena struct {
	mem   []byte
	maxOp int
	n     int
	off   int
}

// NewArena maps an arena for at most ops operations and data bytes of data.
func NewArena(ops, data int) (*Arena, error) {
	size := stackSize + ops*int(opSize) + data
	size = (size + pageSize - 1) &^ (pageSize - 1)
	// All of it is about to be used: one call is cheaper than a fault a page.
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	return &Arena{mem: mem, maxOp: ops, off: stackSize + ops*int(opSize)}, nil
}

func (a *Arena) base() uintptr { return uintptr(unsafe.Pointer(&a.mem[0])) }

func (a *Arena) ops() unsafe.Pointer { return unsafe.Pointer(&a.mem[stackSize]) }

// Full reports whether the last Data or Op did not fit. Such an arena must not be started.
func (a *Arena) Full() bool { return a.off > len(a.mem) || a.n > a.maxOp }

// Data copies b into the arena, aligned to eight bytes, and returns its address there.
func (a *Arena) Data(b []byte) uintptr {
	at := (a.off + 7) &^ 7
	a.off = at + len(b)
	if a.off > len(a.mem) {
		return 0
	}
	copy(a.mem[at:], b)
	// SAFETY: at is inside the mapping, which never moves.
	return a.base() + uintptr(at)
}

// String copies s into the arena with a terminating zero byte and returns its address there.
func (a *Arena) String(s string) uintptr {
	at := a.off
	a.off = at + len(s) + 1
	if a.off > len(a.mem) {
		return 0
	}
	copy(a.mem[at:], s)
	return a.base() + uintptr(at)
}

// Strings copies list into the arena as a null-terminated array of strings,
// the form that execve takes, and returns its address there.
func (a *Arena) Strings(list []string) uintptr {
	ptrs := make([]uintptr, 0, len(list)+1)
	for _, s := range list {
		ptrs = append(ptrs, a.String(s))
	}
	ptrs = append(ptrs, 0)
	// SAFETY: the bytes of ptrs are copied at once, while ptrs is alive; they
	// are addresses inside the mapping, which Go does not track.
	return a.Data(unsafe.Slice((*byte)(unsafe.Pointer(&ptrs[0])), len(ptrs)*int(unsafe.Sizeof(ptrs[0]))))
}

// Op appends an operation.
func (a *Arena) Op(o Op) {
	if a.n < a.maxOp {
		// SAFETY: the slot is inside the part of the mapping kept for operations.
		*(*Op)(unsafe.Pointer(&a.mem[stackSize+a.n*int(opSize)])) = o
	}
	a.n++
}

// Len is the number of operations.
func (a *Arena) Len() int { return a.n }

// Seal makes the operations and their data read-only. It must be called before Start.
func (a *Arena) Seal() error {
	return syscall.Mprotect(a.mem[stackSize:], syscall.PROT_READ)
}

// Free unmaps the arena. No child may be using it.
func (a *Arena) Free() error {
	return syscall.Munmap(a.mem)
}
