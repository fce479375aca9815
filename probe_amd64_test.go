package nucleus_test

import "github.com/nucleus-container/nucleus/internal/probe"

import "slices"

var exit7 = []byte{
	0xbf, 7, 0, 0, 0, // mov edi, 7
	0xb8, 60, 0, 0, 0, // mov eax, 60: exit
	0x0f, 0x05, // syscall
}

// tinyPrograms end with 7, or make a call of another architecture first.
var tinyPrograms = map[string][]byte{
	"exit7": probe.Image(62, exit7, true),
	"pause": probe.Image(62, []byte{
		0xb8, 34, 0, 0, 0, // mov eax, 34: pause
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp back
	}, true),
	"int80": probe.Image(62, slices.Concat([]byte{
		0xb8, 20, 0, 0, 0, // mov eax, 20: getpid of i386
		0xcd, 0x80, // int 0x80
	}, exit7), true),
	"x32": probe.Image(62, slices.Concat([]byte{
		0xb8, 39, 0, 0, 0x40, // mov eax, 39: getpid, of x32
		0x0f, 0x05, // syscall
	}, exit7), true),
	"i386": probe.Image(3, []byte{
		0xbb, 7, 0, 0, 0, // mov ebx, 7
		0xb8, 1, 0, 0, 0, // mov eax, 1: exit
		0xcd, 0x80, // int 0x80
	}, false),
}
