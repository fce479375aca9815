package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/store"
)

// nothing asks whether a process is there.
const nothing = syscall.Signal(0)

// sample is what a sandbox uses at a moment.
type sample struct {
	Time  time.Time `json:"time"`
	ID    string    `json:"id"`
	Name  string    `json:"name,omitempty"`
	State string    `json:"state"`
	// CPUPercent is of one processor, since the sample before; nil: not known.
	CPUPercent *float64 `json:"cpu_percent,omitempty"`
	// Stats is nil for one that does not run.
	*nucleus.Stats
	Problem string `json:"problem,omitempty"`

	display string
}

// meter measures a sandbox again and again.
type meter struct {
	pid  int
	proc *nucleus.Process
	cpu  time.Duration // before
	at   time.Time     // zero: there is no before
}

// meters measure sandboxes.
type meters struct {
	store *store.Store
	ids   []string // empty: all
	all   bool     // those that do not run, too

	mu   sync.Mutex
	open map[string]*meter
}

func (m *meters) close() {
	for _, one := range m.open {
		_ = one.proc.Close() // nothing was written
	}
	m.open = nil
}

// look measures everybody.
func (m *meters) look(ctx context.Context) ([]sample, error) {
	list, err := m.store.List(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(i store.Info) bool {
		if len(m.ids) > 0 {
			return !slices.Contains(m.ids, i.ID)
		}
		return !m.all && !i.Running()
	})
	out := make([]sample, len(list))
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for at := range list {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			out[at] = m.measure(&list[at])
		})
	}
	all.Wait()
	m.forget(out)
	if !m.all && len(m.ids) == 0 { // what has ended meanwhile
		out = slices.DeleteFunc(out, func(s sample) bool { return s.Stats == nil && s.Problem == "" })
	}
	return out, nil
}

func (m *meters) measure(i *store.Info) sample {
	s := sample{Time: time.Now(), ID: i.ID, Name: i.Name, State: i.State, Problem: i.Problem, display: printable(i.Display())}
	if !i.Running() {
		return s
	}
	one, err := m.meter(i)
	var stats nucleus.Stats
	if err == nil {
		stats, err = one.proc.Stats()
		s.Time = time.Now()
	}
	// What a sandbox leaves when it ends is no longer there, in many ways.
	if gone := err != nil && (one == nil || one.proc.Signal(nothing) != nil); gone && (one != nil || errors.Is(err, store.ErrNotRunning)) {
		s.State = "exited"
		return s
	}
	if err != nil {
		s.Problem = err.Error()
		return s
	}
	s.Stats = &stats
	if !one.at.IsZero() && (stats.CPU > 0 || stats.Summed) && stats.CPU >= one.cpu && s.Time.After(one.at) {
		percent := 100 * float64(stats.CPU-one.cpu) / float64(s.Time.Sub(one.at))
		s.CPUPercent = &percent
	}
	one.cpu, one.at = stats.CPU, s.Time
	return s
}

// meter is the meter of a sandbox's present run.
func (m *meters) meter(i *store.Info) (*meter, error) {
	m.mu.Lock()
	one := m.open[i.ID]
	m.mu.Unlock()
	if one != nil && one.pid == i.Pid && one.proc.Signal(nothing) == nil {
		return one, nil
	}
	b, err := m.store.Sandbox(i.ID)
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			err = store.ErrNotRunning
		}
		return nil, err
	}
	p, err := b.Process()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if one != nil {
		err = one.proc.Close()
	}
	one = &meter{pid: i.Pid, proc: p}
	m.open[i.ID] = one
	return one, err
}

// forget closes the meters of those who do not run any more.
func (m *meters) forget(now []sample) {
	lives := make(map[string]bool, len(now))
	for _, s := range now {
		lives[s.ID] = s.Stats != nil
	}
	for id, one := range m.open {
		if !lives[id] {
			_ = one.proc.Close() // nothing was written
			delete(m.open, id)
		}
	}
}

// sorts are the orders of samples, with the keys that choose them.
const sorts = "cpu mem pids name io"

// sortKeys are the first letters of sorts, but for io.
var sortKeys = [...][2]string{{"c", "cpu"}, {"m", "mem"}, {"p", "pids"}, {"n", "name"}, {"i", "io"}}

// order sorts samples: the greatest first, names from a to z.
func order(all []sample, by string) {
	value := func(s *sample) float64 {
		switch {
		case s.Stats == nil:
			return -2
		case by == "cpu" && s.CPUPercent == nil:
			return -1
		case by == "cpu":
			return *s.CPUPercent
		case by == "mem":
			return float64(s.Memory)
		case by == "pids":
			return float64(s.Pids)
		case by == "io":
			return float64(s.ReadBytes + s.WriteBytes)
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b sample) int {
		if by != "name" && by != "" {
			if c := cmp.Compare(value(&b), value(&a)); c != 0 {
				return c
			}
		}
		return cmp.Or(cmp.Compare(a.display, b.display), cmp.Compare(a.ID, b.ID))
	})
}

// statsRow is a sample, for people: printable text.
type statsRow struct {
	Name, ID, State, CPUPerc, MemUsage, MemPerc, Pressure, BlockIO, PIDs string
	Container                                                            string // as docker calls it

	asItem
}

func statsHeading() statsRow {
	return statsRow{
		Name: "NAME", ID: "ID", State: "STATE", CPUPerc: "CPU %", MemUsage: "MEM USAGE / LIMIT", MemPerc: "MEM %",
		Pressure: "PRESSURE", BlockIO: "BLOCK I/O", PIDs: "PIDS", Container: "SANDBOX",
	}
}

func (r statsRow) cells() []string {
	return []string{r.Name, r.CPUPerc, r.MemUsage, r.MemPerc, r.Pressure, r.BlockIO, r.PIDs}
}

func newStatsRow(s sample) statsRow {
	const unknown = "-"
	r := statsRow{
		Name: s.display, ID: s.ID, State: printable(s.State), CPUPerc: unknown, MemUsage: unknown, MemPerc: unknown,
		Pressure: unknown, BlockIO: unknown, PIDs: unknown, Container: s.display, asItem: asItem{s},
	}
	if s.Stats == nil {
		if s.Problem != "" {
			r.MemUsage = printable(s.Problem)
			if s.State == "broken" {
				r.MemUsage = printable(brokenText(s.Problem))
			}
			r.MemPerc, r.Pressure, r.BlockIO, r.PIDs = "", "", "", ""
		}
		return r
	}
	if s.CPUPercent != nil {
		r.CPUPerc = fmt.Sprintf("%.2f%%", *s.CPUPercent)
	}
	// What runs has memory, a process and some time behind it: nothing of these
	// means that no controller counts them.
	if s.Memory > 0 {
		r.MemUsage = amount(s.Memory) + " / " + unknown
	}
	if s.Memory > 0 && s.MemoryLimit > 0 {
		r.MemUsage = amount(s.Memory) + " / " + amount(s.MemoryLimit)
		r.MemPerc = fmt.Sprintf("%.2f%%", 100*float64(s.Memory)/float64(s.MemoryLimit))
	}
	if !s.Summed {
		r.BlockIO = amount(s.ReadBytes) + " / " + amount(s.WriteBytes)
	}
	if s.Pids > 0 {
		r.PIDs = fmt.Sprint(s.Pids)
	}
	if s.CPUPressure != nil || s.MemoryPressure != nil || s.IOPressure != nil {
		r.Pressure = waits(s.CPUPressure) + "/" + waits(s.MemoryPressure) + "/" + waits(s.IOPressure)
	}
	return r
}

func waits(p *nucleus.Pressure) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f", p.Some10)
}

func statsRows(all []sample) []statsRow {
	rows := make([]statsRow, len(all))
	for i, s := range all {
		rows[i] = newStatsRow(s)
	}
	return rows
}

// refs finds the sandboxes that arguments name.
func (m *meters) refs(args []string) error {
	for _, ref := range args {
		b, err := lookUp(m.store, ref)
		if err != nil {
			return err
		}
		if !slices.Contains(m.ids, b.ID()) {
			m.ids = append(m.ids, b.ID())
		}
	}
	return nil
}
