package cgroup_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/cgroup"
	"github.com/nucleus-container/nucleus/internal/facts"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

const (
	held    = 64 << 20 // bytes of memory that hold holds
	cached  = 32 << 20 // bytes that it writes into a file
	through = 8 << 20  // bytes that writeThrough writes past the cache and reads back
)

// hold takes memory, fills the page cache, says so and stays.
func hold() {
	path := os.Getenv(argEnv)
	f, err := os.Create(path)
	check(err)
	for range cached >> 20 {
		_, err := f.Write(make([]byte, 1<<20))
		check(err)
	}
	check(f.Sync())
	b, err := syscall.Mmap(-1, 0, held, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	check(err)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	check(os.Rename(path, path+".done"))
	for b[0] == 1 {
		time.Sleep(time.Hour)
	}
}

// writeThrough writes a file past the page cache, reads half of it and ends.
func writeThrough() {
	f, err := os.OpenFile(os.Getenv(argEnv), os.O_RDWR|os.O_CREATE|syscall.O_DIRECT, 0o600)
	check(err)
	b, err := syscall.Mmap(-1, 0, 1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON) // aligned
	check(err)
	for range through >> 20 {
		_, err := f.Write(b)
		check(err)
	}
	check(f.Sync())
	for i := range int64(through >> 21) {
		_, err := f.ReadAt(b, i<<20)
		check(err)
	}
}

// onDisk is a path on a real disk, which /tmp need not be, for the roles that
// are started next.
func onDisk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "nucleus-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "file")
	t.Setenv(argEnv, path)
	return path
}

func stats(t *testing.T, g *cgroup.Group) cgroup.Stats {
	t.Helper()
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// between fails unless got is in a range.
func between[T uint64 | time.Duration](t *testing.T, name string, got, low, high T) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: got %v, want %v to %v", name, got, low, high)
	}
}

func TestStatsMemory(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g := tracked(t, c)
		path := onDisk(t)
		start(t, c, g, "hold")
		eventually(t, "memory is held", func() bool {
			_, err := os.Stat(path + ".done")
			return err == nil
		})
		s := stats(t, g)
		const own = 48 << 20 // a Go program and what the kernel needs for it
		between(t, "memory", s.Memory, held, held+own)
		between(t, "with the cache", s.MemoryRaw, held+cached, held+cached+own)
		between(t, "the cache", s.MemoryRaw-s.Memory, cached*3/4, cached+own)
		between(t, "peak", s.MemoryPeak, s.MemoryRaw, held+cached+2*own)
		if s.MemoryLimit != 0 || s.Swap != 0 || s.OOMKills != 0 {
			t.Errorf("limit, swap, kills: got %d, %d, %d, want 0", s.MemoryLimit, s.Swap, s.OOMKills)
		}
	})
}

// TestStatsCPU compares the group's time with its process's, while both stand still.
func TestStatsCPU(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		if h, _ := c.For("cpu"); h.Version == 1 && c.Mode == facts.CgroupV1 && !separate(t, h) {
			return // processor time is in another hierarchy: none is shown
		}
		g, n := tracked(t, c), newCounter(t)
		cmd := start(t, c, g, "spin")
		n.moves(t)
		eventually(t, "it has used some time", func() bool { // however busy the machine is
			user, system := timesOf(t, cmd.Process.Pid)
			return user+system >= 150*time.Millisecond
		})
		if err := g.Freeze(); err != nil {
			t.Fatal(err)
		}
		s := stats(t, g)
		user, system := timesOf(t, cmd.Process.Pid)
		near := 30 * time.Millisecond * sandboxtest.Slow() // three clock ticks
		if c.Systemd != nil {
			near *= 2 // it was not born there
		}
		between(t, "CPU", s.CPU, user+system-near, user+system+near)
		between(t, "user and system", s.CPUUser+s.CPUSystem, s.CPU-time.Millisecond, s.CPU+time.Millisecond)
		between(t, "system", s.CPUSystem, system-near, system+near)
		if s.Throttled != 0 || s.CPULimit != 0 {
			t.Errorf("throttled, limit: got %v, %d, want 0", s.Throttled, s.CPULimit)
		}
	})
}

// separate reports whether the hierarchy of cpu also accounts.
func separate(t *testing.T, h facts.CgroupHierarchy) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(h.Own, "cpuacct.usage"))
	return err == nil
}

// timesOf is the processor time of a process, as /proc has it: in ticks of 10 ms.
func timesOf(t *testing.T, pid int) (user, system time.Duration) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var ticks [2]int
	for i := range ticks {
		if ticks[i], err = strconv.Atoi(fields[11+i]); err != nil {
			t.Fatal(err)
		}
	}
	return time.Duration(ticks[0]) * 10 * time.Millisecond, time.Duration(ticks[1]) * 10 * time.Millisecond
}

// TestStatsOfWhatIsThere: a controller that the machine has and the group has not
// is not asked.
func TestStatsOfWhatIsThere(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root)
	c := probe(t)
	h, ok := c.Unified()
	if !ok {
		sandboxtest.Need(t, sandboxtest.CgroupV2)
	}
	h.Via, h.Parent, h.Controllers, h.Enabled = facts.CgroupMkdir, h.Mount, []string{"misc", "memory", "cpu", "io"}, nil
	c = facts.Cgroup{Mode: facts.CgroupV2, Hierarchies: []facts.CgroupHierarchy{h}}
	g := makeGroup(t, c, facts.Freezer)
	places := g.Places()
	if got := places[0].Controllers; len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
	stats(t, g)
	// Nor is one an error that the group had when it was recorded.
	places[0].Controllers = []string{"memory", "cpu", "io", "pids"}
	again, err := cgroup.Open(c, places)
	if err != nil {
		t.Fatal(err)
	}
	stats(t, again)
	// But a group that is gone has no numbers, not even zeros.
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if s, err := again.Stats(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a group that is gone: got %+v, %v, want %v", s, err, fs.ErrNotExist)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestStatsLimits(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g, n := limited(t, c, spec.Limits{Memory: 64 * spec.MiB, MilliCPUs: 100, Pids: 33}), newCounter(t)
		start(t, c, g, "spin")
		n.moves(t)
		eventually(t, "it is throttled", func() bool { return stats(t, g).Throttled > 0 })
		s := stats(t, g)
		if s.MemoryLimit != 64<<20 || s.CPULimit != 100 || s.PidsLimit != 34 {
			t.Errorf("got %+v, want 64 MiB, 100 and 34", s)
		}
		between(t, "tasks", s.Pids, 1, 34)
	})
}

func TestStatsIO(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Root) // the device of /var/tmp is root's to limit
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g, path := tracked(t, c), onDisk(t)
		if h, ok := c.For("blkio"); ok && h.Version == 1 {
			// Since 6.10 the kernel counts from the first limit on.
			huge := diskOf(t, filepath.Dir(path)) + " 1099511627776"
			if err := g.Write("blkio", "blkio.throttle.write_bps_device", huge); err != nil {
				t.Fatal(err)
			}
		}
		waits := start(t, c, g, "wait")
		before := stats(t, g)
		if err := start(t, c, g, "write").Wait(); err != nil {
			t.Fatal(err)
		}
		s := stats(t, g)
		between(t, "written", s.WriteBytes-before.WriteBytes, through, through+2<<20)
		between(t, "writes", s.WriteOps-before.WriteOps, 8, 4096)
		// The program itself may have to be read, too.
		between(t, "read", s.ReadBytes-before.ReadBytes, through/2, through/2+20<<20)
		between(t, "reads", s.ReadOps-before.ReadOps, 4, 4096)
		waits.Process.Kill()
	})
}

// diskOf is the whole disk that a file is on.
func diskOf(t *testing.T, path string) string {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	number := fmt.Sprintf("%d:%d", st.Dev>>8&0xfff, st.Dev&0xff|st.Dev>>12&^0xff)
	data, err := os.ReadFile("/sys/dev/block/" + number + "/../dev")
	if _, perr := os.Stat("/sys/dev/block/" + number + "/partition"); perr == nil && err == nil {
		return strings.TrimSpace(string(data))
	}
	return number
}

// TestStatsPressure compares with the file, read by other means. What the numbers
// are is the kernel's: on a busy machine they may stay 0 for long.
func TestStatsPressure(t *testing.T) {
	eachTracked(t, func(t *testing.T, c facts.Cgroup) {
		g := tracked(t, c)
		for range 4 { // more than this machine has processors, or the guest
			start(t, c, g, "burn")
		}
		i := slices.IndexFunc(g.Places(), func(p cgroup.Place) bool { return p.Version == 2 })
		if i < 0 {
			if p := stats(t, g).Pressure; p != (cgroup.Pressures{}) {
				t.Errorf("got %+v of a group that has none", p)
			}
			return
		}
		if _, err := os.ReadFile(filepath.Join(g.Paths()[i], "cpu.pressure")); err != nil {
			if p := stats(t, g).Pressure; p.CPU != nil {
				t.Errorf("got %+v although it cannot be read: %v", p.CPU, err)
			}
			return
		}
		if p := stats(t, g).Pressure; p.CPU == nil || p.Memory == nil || p.IO == nil {
			t.Fatalf("got %+v, want all three", p)
		}
		time.Sleep(100 * time.Millisecond)
		if err := g.Freeze(); err != nil {
			t.Fatal(err)
		}
		line := func(kind string, a, b, c float64, total time.Duration) string {
			return fmt.Sprintf("%s avg10=%.2f avg60=%.2f avg300=%.2f total=%d\n", kind, a, b, c, total.Microseconds())
		}
		eventually(t, "both are read between two updates", func() bool { // which come every 2 s
			p := stats(t, g).Pressure.CPU
			data, err := os.ReadFile(filepath.Join(g.Paths()[i], "cpu.pressure"))
			return err == nil && string(data) == line("some", p.Some10, p.Some60, p.Some300, p.SomeTotal)+
				line("full", p.Full10, p.Full60, p.Full300, p.FullTotal)
		})
	})
}

// TestStatsJSON: programs read these names.
func TestStatsJSON(t *testing.T) {
	got, err := json.Marshal(cgroup.Stats{Memory: 1, CPU: time.Second, Pressure: cgroup.Pressures{CPU: &cgroup.Pressure{Some10: 1.5, FullTotal: 2}}})
	const want = `{"memory":1,"memory_raw":0,"memory_peak":0,"memory_limit":0,"swap":0,"oom_kills":0,` +
		`"cpu_ns":1000000000,"cpu_user_ns":0,"cpu_system_ns":0,"throttled_ns":0,"cpu_limit":0,"pids":0,"pids_limit":0,` +
		`"read_bytes":0,"write_bytes":0,"read_ops":0,"write_ops":0,` +
		`"pressure":{"cpu":{"some_10":1.5,"some_60":0,"some_300":0,"full_10":0,"full_60":0,"full_300":0,"some_total_ns":0,"full_total_ns":2}}}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}

// BenchmarkStats is one look at a group with everything in it and a process that
// keeps its counters moving.
func BenchmarkStats(b *testing.B) {
	sandboxtest.Need(b, sandboxtest.Root, sandboxtest.Cgroup)
	c := probe(b)
	g := makeGroup(b, c, cgroup.Trackable(c)...)
	start(b, c, g, "burn")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Stats(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFreeze is to freeze a process and let it go again.
func BenchmarkFreeze(b *testing.B) {
	sandboxtest.Need(b, sandboxtest.Root, sandboxtest.Cgroup)
	c := probe(b)
	g := makeGroup(b, c, facts.Freezer)
	start(b, c, g, "burn")
	for b.Loop() {
		if err := errors.Join(g.Freeze(), g.Thaw()); err != nil {
			b.Fatal(err)
		}
	}
}
