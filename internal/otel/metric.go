package otel

import (
	"encoding/json"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/nucleus-container/nucleus/event"
)

// Meters counts what events say. All of it is cumulative since it was made: a
// report that is lost is made good by the next.
type Meters struct {
	mu         sync.Mutex
	began      time.Time
	sums       map[key]float64
	histograms map[key]*histogram
}

// key is a metric with the one attribute that it has.
type key struct{ metric, value string }

type histogram struct {
	count    uint64
	sum      float64
	low, top float64
	buckets  []uint64
}

// instrument describes a metric.
type instrument struct {
	name, unit, doc, attr string
	whole                 bool      // it counts things
	falls                 bool      // a sum that may fall
	bounds                []float64 // of a histogram; nil: a sum
}

// instruments are all metrics.
func instruments() []instrument {
	seconds := []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600}
	return []instrument{
		{name: "nucleus.sandbox.runs", unit: "{run}", doc: "Runs that are over, by the reason of their end.", attr: "nucleus.reason", whole: true},
		{name: "nucleus.sandbox.active", unit: "{run}", doc: "Runs that have begun and are not over.", whole: true, falls: true},
		{name: "nucleus.sandbox.duration", unit: "s", doc: "How long runs lasted.", attr: "nucleus.reason", bounds: seconds},
		{name: "nucleus.sandbox.start.duration", unit: "s", doc: "How long starts took.", bounds: seconds},
		{name: "nucleus.sandbox.cpu.time", unit: "s", doc: "Processor time of runs that are over.", attr: "cpu.mode"},
		{name: "nucleus.sandbox.memory.peak", unit: "By", doc: "Memory that runs held at most.", bounds: []float64{1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30, 4 << 30, 16 << 30}},
		{name: "nucleus.denials", unit: "{denial}", doc: "What policies refused, by what refused it.", attr: "nucleus.source", whole: true},
		{name: "nucleus.oom.kills", unit: "{process}", doc: "Processes that memory limits ended.", whole: true},
		{name: "nucleus.weakened", unit: "{feature}", doc: "Features that could not be enforced.", attr: "nucleus.feature", whole: true},
		{name: "nucleus.events", unit: "{event}", doc: "Events, by their type.", attr: "nucleus.type", whole: true},
		{name: "nucleus.events.dropped", unit: "{event}", doc: "Events that the stream's writer could not write.", whole: true},
	}
}

// NewMeters begins to count.
func NewMeters(now time.Time) *Meters {
	m := &Meters{began: now, sums: map[key]float64{}, histograms: map[key]*histogram{}}
	m.sums[key{"nucleus.sandbox.active", ""}] = 0
	return m
}

// maxValues bounds the values of one attribute: what counts must not grow forever.
const maxValues = 200

func (m *Meters) add(metric, value string, n float64) {
	k := key{metric, value}
	if _, known := m.sums[k]; !known && len(m.sums) > maxValues {
		k.value = "other"
	}
	m.sums[k] += n
}

func (m *Meters) observe(metric, value string, v float64) {
	h := m.histograms[key{metric, value}]
	if h == nil {
		if len(m.histograms) > maxValues {
			return
		}
		h = &histogram{low: v, top: v}
		m.histograms[key{metric, value}] = h
		for _, i := range instruments() {
			if i.name == metric {
				h.buckets = make([]uint64, len(i.bounds)+1)
			}
		}
	}
	h.count++
	h.sum += v
	h.low, h.top = min(h.low, v), max(h.top, v)
	for _, i := range instruments() {
		if i.name == metric {
			h.buckets[sort.SearchFloat64s(i.bounds, v)]++
		}
	}
}

// Take counts an event.
func (m *Meters) Take(r event.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add("nucleus.events", limit(r.Type), 1)
	switch r.Type {
	case (event.Created{}).Kind():
		m.add("nucleus.sandbox.active", "", 1)
	case (event.NotStarted{}).Kind():
		m.add("nucleus.sandbox.active", "", -1)
		m.add("nucleus.sandbox.runs", "not started", 1)
	case (event.Started{}).Kind():
		var e event.Started
		if json.Unmarshal(r.Data, &e) == nil {
			m.observe("nucleus.sandbox.start.duration", "", e.Seconds)
		}
	case (event.Ended{}).Kind():
		m.ended(r)
	case (event.Denial{}).Kind():
		var e event.Denial
		if json.Unmarshal(r.Data, &e) == nil {
			m.add("nucleus.denials", limit(e.Source), float64(max(1, e.Count)))
		}
	case (event.OutOfMemory{}).Kind():
		var e event.OutOfMemory
		if json.Unmarshal(r.Data, &e) == nil {
			m.add("nucleus.oom.kills", "", float64(max(1, e.Kills)))
		}
	case (event.Weakened{}).Kind():
		var e event.Weakened
		if json.Unmarshal(r.Data, &e) == nil {
			m.add("nucleus.weakened", limit(e.Feature), 1)
		}
	case (event.Dropped{}).Kind():
		var e event.Dropped
		if json.Unmarshal(r.Data, &e) == nil {
			m.add("nucleus.events.dropped", "", float64(e.Events))
		}
	}
}

func (m *Meters) ended(r event.Record) {
	var e event.Ended
	if json.Unmarshal(r.Data, &e) != nil {
		return
	}
	reason := limit(e.Reason)
	m.add("nucleus.sandbox.active", "", -1)
	m.add("nucleus.sandbox.runs", reason, 1)
	if e.Seconds > 0 {
		m.observe("nucleus.sandbox.duration", reason, e.Seconds)
	}
	if u := e.Usage; u != nil {
		m.add("nucleus.sandbox.cpu.time", "user", u.UserSeconds)
		m.add("nucleus.sandbox.cpu.time", "system", u.SystemSeconds)
		if peak := max(u.MemoryPeak, uint64(max(0, u.MaxRSS))); peak > 0 {
			m.observe("nucleus.sandbox.memory.peak", "", float64(peak))
		}
	}
}

// encode is an ExportMetricsServiceRequest.
func (m *Meters) encode(resource, scope message, now time.Time) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list message
	list.bytes(1, scope)
	for _, i := range instruments() {
		points := m.points(i, now)
		if points == nil {
			continue
		}
		points.number(2, 2) // cumulative
		var one message
		one.text(1, i.name)
		one.text(2, i.doc)
		one.text(3, i.unit)
		if i.bounds != nil {
			one.bytes(9, points)
		} else {
			if !i.falls {
				points.number(3, 1) // monotonic
			}
			one.bytes(7, points)
		}
		list.bytes(2, one)
	}
	return wrap(resource, list)
}

func byKey(a, b key) int {
	switch {
	case a.metric+"\x00"+a.value < b.metric+"\x00"+b.value:
		return -1
	case a == b:
		return 0
	}
	return 1
}

// points are the data of one metric; nil if there are none.
func (m *Meters) points(i instrument, now time.Time) (out message) {
	label := func(k key, field int, p *message) {
		if i.attr != "" {
			p.attrs(field, []Attr{{i.attr, k.value}})
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(m.sums), byKey) {
		if k.metric != i.name {
			continue
		}
		var p message
		p.time(2, m.began)
		p.time(3, now)
		if i.whole {
			p.always(6, uint64(int64(m.sums[k])))
		} else {
			p.double(4, m.sums[k])
		}
		label(k, 7, &p)
		out.bytes(1, p)
	}
	for _, k := range slices.SortedFunc(maps.Keys(m.histograms), byKey) {
		if k.metric != i.name {
			continue
		}
		h := m.histograms[k]
		var p message
		p.time(2, m.began)
		p.time(3, now)
		p.fixed(4, h.count)
		p.double(5, h.sum)
		p.fixeds(6, h.buckets)
		p.doubles(7, i.bounds)
		label(k, 9, &p)
		p.double(11, h.low)
		p.double(12, h.top)
		out.bytes(1, p)
	}
	return out
}
