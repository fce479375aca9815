package probe

import "slices"

// program is the image of a small program: exit7 ends with 7; pause waits; the
// others make a call by another of the kernel's interfaces first.
func program(name string) []byte {
	const machine, i386 = 62, 3
	exit7 := []byte{
		0xbf, 7, 0, 0, 0, // mov edi, 7
		0xb8, 60, 0, 0, 0, // mov eax, 60: exit
		0x0f, 0x05, // syscall
	}
	switch name {
	case "exit7":
		return Image(machine, exit7, true)
	case "pause":
		return Image(machine, []byte{
			0xb8, 34, 0, 0, 0, // mov eax, 34: pause
			0x0f, 0x05, // syscall
			0xeb, 0xf7, // jmp back
		}, true)
	case "int80":
		return Image(machine, slices.Concat([]byte{
			0xb8, 20, 0, 0, 0, // mov eax, 20: getpid of i386
			0xcd, 0x80, // int 0x80
		}, exit7), true)
	case "x32":
		return Image(machine, slices.Concat([]byte{
			0xb8, 39, 0, 0, 0x40, // mov eax, 39: getpid, of x32
			0x0f, 0x05, // syscall
		}, exit7), true)
	case "socketcall": // of i386: socket(AF_UNIX, SOCK_STREAM, 0), its arguments in memory
		return Image(i386, []byte{
			0x6a, 0, 0x6a, 1, 0x6a, 1, // push 0; push 1; push 1
			0x89, 0xe1, // mov ecx, esp
			0xbb, 1, 0, 0, 0, // mov ebx, 1: SYS_SOCKET
			0xb8, 102, 0, 0, 0, // mov eax, 102: socketcall
			0xcd, 0x80, // int 0x80
			0xbb, 7, 0, 0, 0, // mov ebx, 7
			0xb8, 1, 0, 0, 0, // mov eax, 1: exit
			0xcd, 0x80, // int 0x80
		}, false)
	}
	return nil
}
