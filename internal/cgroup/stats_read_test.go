package cgroup

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// folder is a directory that plays a part of a group, with files as kernels print
// them.
func folder(t *testing.T, version int, controllers []string, files map[string]string) *part {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &part{Place: Place{Version: version, Path: dir, Controllers: controllers}, dir: f}
}

// v2Files are from Linux 6.12, shortened; v1Files from 6.18.
var v2Files = map[string]string{
	"cgroup.procs":        "1\n",
	"memory.current":      "3000000\n",
	"memory.peak":         "4000000\n",
	"memory.max":          "67108864\n",
	"memory.swap.current": "8192\n",
	"memory.stat":         "anon 1000\nfile 2000\ninactive_anon 5\nactive_anon 6\ninactive_file 1000000\nactive_file 8\n",
	"memory.events":       "low 0\nhigh 0\nmax 4\noom 2\noom_kill 3\noom_group_kill 1\n",
	"cpu.stat":            "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnice_usec 0\nnr_periods 9\nnr_throttled 4\nthrottled_usec 700\n",
	"cpu.max":             "5000 1000000\n",
	"pids.current":        "7\n",
	"pids.max":            "max\n",
	"io.stat":             "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n254:16 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=5 dios=6\n",
	"cpu.pressure":        "some avg10=1.50 avg60=2.25 avg300=3.00 total=1234567\nfull avg10=0.50 avg60=0.25 avg300=0.01 total=89\n",
	"memory.pressure":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
}

var v1Files = map[string]string{
	"cgroup.procs":              "1\n",
	"memory.usage_in_bytes":     "3000000\n",
	"memory.max_usage_in_bytes": "4000000\n",
	"memory.limit_in_bytes":     "9223372036854771712\n",
	"memory.stat":               "inactive_file 1\nswap 1\ntotal_swap 8192\ntotal_inactive_file 1000000\n",
	"memory.oom_control":        "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
	"cpuacct.usage":             "5000000\n",
	"cpuacct.usage_user":        "3000000\n",
	"cpuacct.usage_sys":         "2000000\n",
	"cpu.stat":                  "nr_periods 9\nnr_throttled 4\nthrottled_time 700000\n",
	"cpu.cfs_quota_us":          "150000\n",
	"cpu.cfs_period_us":         "100000\n",
	"pids.current":              "7\n",
	"pids.max":                  "513\n",
	"blkio.throttle.io_service_bytes_recursive": "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 12288\n254:0 Async 0\n254:0 Discard 0\n254:0 Total 12288\n8:0 Read 10\n8:0 Write 20\nTotal 12318\n",
	"blkio.throttle.io_serviced_recursive":      "254:0 Read 1\n254:0 Write 2\n254:0 Total 3\n8:0 Read 3\n8:0 Write 4\nTotal 10\n",
}

func TestStatsOfFiles(t *testing.T) {
	common := Stats{Memory: 2000000, MemoryRaw: 3000000, MemoryPeak: 4000000, Swap: 8192, OOMKills: 3,
		CPU: 5 * time.Millisecond, CPUUser: 3 * time.Millisecond, CPUSystem: 2 * time.Millisecond, Throttled: 700 * time.Microsecond,
		Pids: 7, ReadBytes: 4106, WriteBytes: 8212, ReadOps: 4, WriteOps: 6}
	two, one := common, common
	two.MemoryLimit, two.CPULimit = 64<<20, 5
	two.Pressure = Pressures{Memory: &Pressure{}, CPU: &Pressure{1.5, 2.25, 3, 0.5, 0.25, 0.01, 1234567 * time.Microsecond, 89 * time.Microsecond}}
	one.CPULimit, one.PidsLimit = 1500, 513
	for _, tt := range []struct {
		name string
		part *part
		want Stats
	}{
		{"version 2", folder(t, 2, []string{"memory", "cpu", "pids", "io"}, v2Files), two},
		{"version 1", folder(t, 1, []string{"memory", "cpu", "pids", "blkio"}, v1Files), one},
		{"nothing", folder(t, 2, []string{"memory", "cpu", "pids", "io"}, map[string]string{"cgroup.procs": ""}), Stats{}},
	} {
		got, err := (&Group{parts: []*part{tt.part}}).Stats()
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}
}

// TestStatsOfOddFiles: a file longer than the buffer, and what is no number.
func TestStatsOfOddFiles(t *testing.T) {
	long := folder(t, 2, []string{"io"}, map[string]string{"cgroup.procs": "",
		"io.stat": strings.Repeat("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n", 1000)})
	if got, err := (&Group{parts: []*part{long}}).Stats(); err != nil || got.WriteBytes != 2000 {
		t.Errorf("a thousand devices: got %+v, %v, want 2000 written", got, err)
	}
	for file, content := range map[string]string{"pids.current": "many\n", "cpu.stat": "usage_usec -1\n"} {
		odd := folder(t, 2, []string{"pids"}, map[string]string{"cgroup.procs": "", file: content})
		if _, err := (&Group{parts: []*part{odd}}).Stats(); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want an error that names it", file, err)
		}
	}
	quota := folder(t, 2, []string{"cpu"}, map[string]string{"cgroup.procs": "", "cpu.max": "max 100000\n"})
	if got, err := (&Group{parts: []*part{quota}}).Stats(); err != nil || got.CPULimit != 0 {
		t.Errorf("no quota: got %+v, %v", got, err)
	}
}
