package kernel

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSealIsPatient: somebody holds the file's memory when it is to be sealed, and
// lets go a little later.
func TestSealIsPatient(t *testing.T) {
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 4096); err != nil {
		t.Fatal(err)
	}
	held, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	let := make(chan error)
	go func() {
		time.Sleep(50 * time.Millisecond)
		let <- unix.Munmap(held)
	}()
	if err := FD(fd).seal(); err != nil {
		t.Errorf("got %v, want it sealed", err)
	}
	if err := <-let; err != nil {
		t.Error(err)
	}
	if _, err := unix.Write(fd, []byte("x")); err == nil {
		t.Error("it can be written to")
	}
}
