package record

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/spec"
)

// thousand makes sandboxes as they are in practice.
func thousand(b *testing.B) *Dir {
	b.Helper()
	d := testDir(b)
	for i := range 1000 {
		e, err := d.Create(&Config{
			Name: fmt.Sprintf("web-%d", i), Command: []string{"/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1"},
			Sandbox: spec.Sandbox{
				Toolchain: true, Workspace: &spec.Bind{Source: "/home/user/project"}, Env: []string{"LANG=C.UTF-8", "HOME=/root"},
				Volumes: []spec.Volume{{Source: "/srv/data", Target: "/data", Writable: true}}, Limits: spec.Limits{Memory: spec.GiB, MilliCPUs: 1500},
			},
			Service: spec.Service{Restart: spec.Restart{Policy: spec.RestartAlways}, Health: &spec.Check{TCP: "127.0.0.1:80"}},
			LogDir:  "/var/log/nucleus/0123456789abcdef", Labels: map[string]string{"team": "infra"},
		})
		must(b, err)
		must(b, e.SetRecord(&Record{
			State: StateRunning, Boot: "01234567-89ab-cdef-0123-456789abcdef", Pid: 12345, StartTicks: 123456, Run: 1, Started: time.Now(),
			Identity: json.RawMessage(`{"pid":12345,"start":123456,"boot":"01234567-89ab-cdef-0123-456789abcdef","cgroup":"/sys/fs/cgroup/nucleus/web"}`),
			Logger:   &Proc{12346, 123457}, Health: "healthy", Ready: true,
		}))
		must(b, e.Unlock())
	}
	return d
}

func BenchmarkLoad1000(b *testing.B) {
	d := thousand(b)
	for b.Loop() {
		all, err := d.Load()
		if err != nil || len(all) != 1000 {
			b.Fatal(len(all), err)
		}
	}
}

func BenchmarkList1000(b *testing.B) {
	d := thousand(b)
	for b.Loop() {
		if all, err := d.List(); err != nil || len(all) != 1000 {
			b.Fatal(len(all), err)
		}
	}
}

func BenchmarkFind1000(b *testing.B) {
	d := thousand(b)
	all, err := d.List()
	must(b, err)
	for _, ref := range []string{"web-500", all[500].ID(), all[500].ID()[:8]} {
		b.Run(fmt.Sprintf("%d", len(ref)), func(b *testing.B) {
			for b.Loop() {
				if _, err := d.Find(ref); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSweep1000(b *testing.B) {
	d := thousand(b)
	for b.Loop() {
		if _, err := d.Sweep(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLife(b *testing.B) {
	d := testDir(b)
	for b.Loop() {
		e, err := d.Create(&Config{Name: "web"})
		must(b, err)
		must(b, e.SetRecord(&Record{State: StateRunning}))
		must(b, e.Remove())
	}
}

func BenchmarkCreate(b *testing.B) {
	d := testDir(b)
	for b.Loop() {
		e, err := d.Create(&Config{})
		must(b, err)
		must(b, e.Unlock())
	}
}

func BenchmarkOpen(b *testing.B) {
	d := testDir(b)
	for b.Loop() {
		_, err := Open(d.Path())
		must(b, err)
	}
}

func BenchmarkSetRecord(b *testing.B) {
	d := testDir(b)
	e, err := d.Create(&Config{})
	must(b, err)
	defer e.Unlock()
	for b.Loop() {
		must(b, e.SetRecord(&Record{State: StateRunning}))
	}
}

func BenchmarkLog(b *testing.B) {
	d := testDir(b)
	for b.Loop() {
		must(b, d.Log(Event{Type: "start", ID: idA, Name: "web"}))
	}
}
