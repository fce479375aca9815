package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"
)

const (
	// guestSlow is how much slower the emulated machine is, for the deadlines
	// of tests.
	guestSlow = 20
	// guestLimit ends a machine that does not end itself.
	guestLimit = 60 * time.Minute
	// bootLimit ends one that does not come so far as to run a test.
	bootLimit = 5 * time.Minute
	// acceleration is the variable that permits qemu to use /dev/kvm. It is not
	// used unasked: a machine that offers it does not always let a guest run.
	acceleration = "NUCLEUS_TEST_KVM"
)

// guests are the machines: one for root and one for a user who is logged in, at
// the same time, for each is emulated by one processor.
var guests = [...]string{"guest-root", "guest-user"}

// runGuest boots the image once for each of the guests, with the stage as its
// second disk. A machine's serial console goes to a file; results come through a
// port of their own.
func runGuest(ctx context.Context, st stage, work string, all *report) error {
	img, err := guestImage(ctx)
	if err != nil {
		return err
	}
	kvm := os.Getenv(acceleration) == "1"
	slow := guestSlow
	if kvm {
		slow = 2
	}
	size, err := diskSize(string(st))
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	errs := make([]error, len(guests))
	for i, name := range guests {
		vars := fmt.Sprintf("NUCLEUS_TEST_SLOW=%d\nNUCLEUS_TEST_REQUIRE='%s'\nNUCLEUS_TEST_GUEST=%s\n", slow, os.Getenv("NUCLEUS_TEST_REQUIRE"), name)
		if err := os.WriteFile(st.path("environment"), []byte(vars), 0o644); err != nil {
			return errors.Join(err, waitFor(&running))
		}
		disk := filepath.Join(work, name+".img")
		if err := makeDisk(ctx, string(st), disk, "stage", size); err != nil {
			return errors.Join(err, waitFor(&running))
		}
		running.Go(func() {
			errs[i] = errors.Join(runMachine(ctx, img, disk, name, kvm, all), os.Remove(disk))
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

func waitFor(g *sync.WaitGroup) error { g.Wait(); return nil }

// runMachine boots one machine and follows it to its end.
func runMachine(ctx context.Context, img image, disk, name string, kvm bool, all *report) error {
	console := filepath.Join(cacheDir, name+".console.log")
	began := time.Now()
	progress("%s: booting", name)
	if err := boot(ctx, machineArgs(img, disk, console, kvm), name, all); err != nil {
		log, readErr := os.ReadFile(console)
		return errors.Join(err, readErr, fmt.Errorf("the console of %s said:\n%s", name, tail(string(log))))
	}
	progress("%s: ran for %.0fs", name, time.Since(began).Seconds())
	return nil
}

func machineArgs(img image, disk, console string, kvm bool) []string {
	// One processor: with several, emulation does not always see in time that a
	// kernel has patched its own code, and the guest dies of a trap (int3) of its
	// static branches.
	accel, cpu, processors := "tcg", "max", 1
	if kvm {
		accel, cpu, processors = "kvm", "host", min(runtime.NumCPU(), 4)
	}
	return []string{
		"-M", "q35", "-accel", accel, "-cpu", cpu, "-smp", strconv.Itoa(processors), "-m", "2048",
		"-nodefaults", "-no-reboot", "-display", "none",
		"-serial", "file:" + console,
		"-chardev", "file,id=results,path=/dev/stdout",
		"-device", "virtio-serial", "-device", "virtserialport,chardev=results,name=nucleus.results",
		"-drive", "file=" + img.disk() + ",if=virtio,format=raw,snapshot=on",
		"-drive", "file=" + disk + ",if=virtio,format=raw,readonly=on",
		"-kernel", img.kernel(), "-initrd", img.initrd(),
		"-append", "console=ttyS0 quiet root=LABEL=root rw panic=-1",
	}
}

// boot runs the machine until it powers off.
func boot(ctx context.Context, arg []string, name string, all *report) error {
	ctx, cancel := context.WithTimeout(ctx, guestLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", arg...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	watchdog := time.AfterFunc(bootLimit, cancel)
	defer watchdog.Stop()
	began := time.Now()
	readErr := readResults(stdout, []string{name}, all, func() {
		if watchdog.Stop() {
			progress("%s: up after %.0fs", name, time.Since(began).Seconds())
		}
	})
	if readErr != nil {
		cancel()
	}
	waitErr := cmd.Wait()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the guest did not end within %s", guestLimit)
	}
	return errors.Join(readErr, waitErr)
}

// diskSize is the size of everything in dir, with room for the file system's own.
func diskSize(dir string) (string, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		total += info.Size() + 4096
		return nil
	})
	return fmt.Sprintf("%dM", total>>20*5/4+64), err
}
