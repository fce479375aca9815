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
	"strings"
	"sync"
	"time"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
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

// guest is one machine.
type guest struct {
	name    string
	kernel  kernel
	append  string                // to the kernel's command line
	require []sandboxtest.Feature // that must not be missing there
}

// guestNew is the machine with the newer kernel: it runs what manifest.New says.
const guestNew = "guest-new"

// guests are the machines: one for root, one for a user who is logged in, and a
// short one for what only newer kernels have. There audit is on from the first
// process, so that every one is audited, with a queue that is long enough for
// nobody to wait until the kernel has delivered a burst of records. Nobody stores
// them: no audit daemon is there, and journald does not listen unless told.
var guests = [...]guest{
	{name: "guest-root"},
	{name: "guest-user"},
	{
		name: guestNew, kernel: newKernel, append: " audit=1 audit_backlog_limit=8192",
		require: []sandboxtest.Feature{sandboxtest.Landlock, sandboxtest.Audit},
	},
}

// guestsAtOnce is how many run at the same time: each is emulated by one
// processor. The short one is last and begins when the first of the others ends.
const guestsAtOnce = 2

// runGuest boots the image once for each of the guests, with the stage as its
// second disk. A machine's serial console goes to a file; results come through a
// port of their own.
func runGuest(ctx context.Context, st stage, work string, all *report) error {
	img, err := guestImage(ctx)
	if err != nil {
		return err
	}
	m, err := st.manifest()
	if err != nil {
		return err
	}
	kvm := os.Getenv(acceleration) == "1"
	size, err := diskSize(string(st))
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	errs := make([]error, len(guests))
	slots := make(chan struct{}, guestsAtOnce)
	for i, g := range guests {
		if len(m.of(g.name)) == 0 {
			progress("%s: none of these packages has a test for it", g.name)
			continue
		}
		why, err := img.lacks(g.kernel)
		if err != nil {
			return errors.Join(err, waitFor(&running))
		}
		if why != "" {
			all.skip(g.name, "newkernel", why)
			continue
		}
		if err := os.WriteFile(st.path("environment"), []byte(g.environment(kvm)), 0o644); err != nil {
			return errors.Join(err, waitFor(&running))
		}
		disk := filepath.Join(work, g.name+".img")
		if err := makeDisk(ctx, string(st), disk, "stage", size); err != nil {
			return errors.Join(err, waitFor(&running))
		}
		slots <- struct{}{}
		running.Go(func() {
			errs[i] = errors.Join(g.runMachine(ctx, img, disk, kvm, all), os.Remove(disk))
			<-slots
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// environment is what the machine's shell reads before it starts the tests.
func (g guest) environment(kvm bool) string {
	slow := guestSlow
	if kvm {
		slow = 2
	}
	require := []string{os.Getenv("NUCLEUS_TEST_REQUIRE")}
	for _, f := range g.require {
		require = append(require, string(f))
	}
	return fmt.Sprintf("NUCLEUS_TEST_SLOW=%d\nNUCLEUS_TEST_REQUIRE='%s'\nNUCLEUS_TEST_GUEST=%s\n",
		slow, strings.Join(require, ","), g.name)
}

func waitFor(g *sync.WaitGroup) error { g.Wait(); return nil }

// runMachine boots one machine and follows it to its end.
func (g guest) runMachine(ctx context.Context, img image, disk string, kvm bool, all *report) error {
	console := filepath.Join(cacheDir, g.name+".console.log")
	began := time.Now()
	progress("%s: booting", g.name)
	if err := boot(ctx, g.machineArgs(img, disk, console, kvm), g.name, all); err != nil {
		log, readErr := os.ReadFile(console)
		return errors.Join(err, readErr, fmt.Errorf("the console of %s said:\n%s", g.name, tail(string(log))))
	}
	progress("%s: ran for %.0fs", g.name, time.Since(began).Seconds())
	return nil
}

func (g guest) machineArgs(img image, disk, console string, kvm bool) []string {
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
		"-kernel", img.kernel(g.kernel), "-initrd", img.initrd(g.kernel),
		"-append", "console=ttyS0 quiet root=LABEL=root rw panic=-1" + g.append,
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
