package otel_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/slim/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/otel"
)

// collector is an OTLP endpoint. It decodes with OpenTelemetry's own code.
type collector struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request) bool // true: it has answered

	mu      sync.Mutex
	spans   []*tracepb.Span
	traces  []*tracepb.TracesData
	metrics []*metricspb.MetricsData
	header  http.Header
	posts   int
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(t, w, r) }))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) serve(t *testing.T, w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.posts++
	c.header = r.Header.Clone()
	if c.answer != nil && c.answer(w, r) {
		return
	}
	in := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		in = z
	}
	body, err := io.ReadAll(in)
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("%s %s: %v", r.Method, r.Header.Get("Content-Type"), err)
	}
	switch r.URL.Path {
	case "/v1/traces":
		var d tracepb.TracesData
		c.decode(t, body, &d)
		c.traces = append(c.traces, &d)
		for _, rs := range d.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				c.spans = append(c.spans, ss.Spans...)
			}
		}
	case "/v1/metrics":
		var d metricspb.MetricsData
		c.decode(t, body, &d)
		c.metrics = append(c.metrics, &d)
	default:
		t.Errorf("got %s", r.URL.Path)
		w.WriteHeader(http.StatusNotFound)
	}
}

// decode wants every field to be known: one with a wrong number would not be.
func (c *collector) decode(t *testing.T, body []byte, m proto.Message) {
	if err := (proto.UnmarshalOptions{}).Unmarshal(body, m); err != nil {
		t.Errorf("the message is not one: %v", err)
	}
	clean := proto.Clone(m)
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, clean); err != nil || proto.Size(clean) != len(body) {
		t.Errorf("it has unknown fields or is not canonical: %d bytes of %d (%v)", proto.Size(clean), len(body), err)
	}
}

// config is for a collector, without patience.
func config(t *testing.T, url string, more ...string) otel.Config {
	t.Helper()
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url}
	for i := 0; i < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}
	c, err := otel.FromEnv(func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	c.Version, c.Backoff, c.Interval = "test", 5*time.Millisecond, time.Hour
	return c
}

type attribute = commonpb.KeyValue

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// records are the events of one run, a millisecond apart.
func records(t *testing.T, id string, all ...event.Body) (out []event.Record) {
	t.Helper()
	for i, b := range all {
		r, err := event.New(begin.Add(time.Duration(i)*time.Millisecond), event.Sandbox{ID: id, Name: "web"}, b)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func whole(t *testing.T, id string, end event.Body) []event.Record {
	return records(t, id, event.Created{Command: event.Command{Program: "sh", Args: []string{"-c", "x"}}}, event.Namespaces{Own: map[string]string{"net": "net:[1]"}, Evidence: event.Kernel},
		event.Mounted{Target: "/"}, event.Mounted{Target: "/usr"}, event.NoNewPrivs{Set: true, Evidence: event.Kernel}, event.Weakened{Feature: "landlock", Why: "none"},
		event.Seccomp{Policy: "default", SHA256: "ab", Evidence: event.Accepted}, event.Started{Pid: 77, Seconds: 0.004},
		event.Denial{Source: "seccomp", What: "mount", Count: 3}, end)
}

func send(t *testing.T, c otel.Config, all []event.Record) otel.Sent {
	t.Helper()
	x := otel.Start(c)
	for _, r := range all {
		x.Take(r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return x.Close(ctx)
}

func attrs(list []*attribute) map[string]string {
	out := map[string]string{}
	for _, a := range list {
		v := a.Value
		switch {
		case v.GetArrayValue() != nil:
			var all []string
			for _, e := range v.GetArrayValue().Values {
				all = append(all, e.GetStringValue())
			}
			out[a.Key] = strings.Join(all, " ")
		case v.GetStringValue() != "":
			out[a.Key] = v.GetStringValue()
		default:
			out[a.Key] = fmt.Sprint(v.GetIntValue(), v.GetBoolValue(), v.GetDoubleValue())
		}
	}
	return out
}

func TestTrace(t *testing.T) {
	c := newCollector(t)
	all := whole(t, "0123456789abcdef", event.Ended{Reason: "exited", Code: 3, Seconds: 2, Usage: &event.Usage{UserSeconds: 1.5, MaxRSS: 4096}})
	if sent := send(t, config(t, c.URL), all); !sent.Complete() || sent.Spans != 6 {
		t.Errorf("got %+v", sent)
	}
	byName := map[string]*tracepb.Span{}
	for _, s := range c.spans {
		byName[s.Name] = s
	}
	root, start := byName["sandbox sh"], byName["start"]
	if root == nil || start == nil || len(c.spans) != 6 {
		t.Fatalf("got %v", c.spans)
	}
	for name, want := range map[string]struct {
		parent   []byte
		from, to int // milliseconds
	}{"sandbox sh": {nil, 0, 9}, "start": {root.SpanId, 0, 7}, "enter": {start.SpanId, 0, 1}, "verify": {start.SpanId, 1, 5}, "exec": {start.SpanId, 5, 7}, "program": {root.SpanId, 7, 9}} {
		s := byName[name]
		if s == nil {
			t.Errorf("no span %q", name)
			continue
		}
		ms := func(n int) uint64 { return uint64(begin.Add(time.Duration(n) * time.Millisecond).UnixNano()) }
		if string(s.ParentSpanId) != string(want.parent) || s.StartTimeUnixNano != ms(want.from) || s.EndTimeUnixNano != ms(want.to) || len(s.TraceId) != 16 || len(s.SpanId) != 8 || string(s.TraceId) != string(root.TraceId) {
			t.Errorf("%s: got %v", name, s)
		}
		if s.Kind != tracepb.Span_SPAN_KIND_INTERNAL {
			t.Errorf("%s: kind %v", name, s.Kind)
		}
	}
	if root.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || root.Status.GetMessage() != "exited: exit code 3" || start.Status.GetCode() != tracepb.Status_STATUS_CODE_UNSET {
		t.Errorf("got status %v and %v", root.Status, start.Status)
	}
	got := attrs(root.Attributes)
	for k, want := range map[string]string{"container.id": "0123456789abcdef", "container.name": "web", "process.command_args": "sh -c x", "process.pid": "77 false 0",
		"process.exit.code": "3 false 0", "nucleus.reason": "exited", "nucleus.mounts": "2 false 0", "nucleus.seccomp.policy": "default", "error.type": "exited"} {
		if got[k] != want {
			t.Errorf("attribute %s: got %q, want %q", k, got[k], want)
		}
	}
	names := []string{}
	for _, e := range root.Events {
		names = append(names, e.Name)
	}
	if !slices.Equal(names, []string{"namespaces_created", "no_new_privs_set", "weakened", "seccomp_applied", "sandbox_started", "denial"}) {
		t.Errorf("got events %v", names)
	}
	if a := attrs(root.Events[0].Attributes); a["nucleus.own.net"] != "net:[1]" || a["nucleus.evidence"] != "kernel" {
		t.Errorf("got %v", a)
	}
	if r := attrs(c.traces[0].ResourceSpans[0].Resource.Attributes); r["service.name"] != "nucleus" || r["telemetry.sdk.version"] != "test" {
		t.Errorf("got resource %v", r)
	}
}

// TestTheSameAgain: a log that is read again makes the same spans.
func TestTheSameAgain(t *testing.T) {
	c := newCollector(t)
	for range 2 {
		send(t, config(t, c.URL), whole(t, "aa", event.Ended{Reason: "exited"}))
	}
	if len(c.traces) != 2 || !proto.Equal(c.traces[0], c.traces[1]) {
		t.Error("they differ")
	}
	send(t, config(t, c.URL), whole(t, "bb", event.Ended{Reason: "exited"}))
	if string(c.spans[0].TraceId) == string(c.spans[len(c.spans)-1].TraceId) {
		t.Error("another sandbox has the same trace")
	}
	if c.spans[0].Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
		t.Error("a success is an error")
	}
}

func TestFailedAndUnfinished(t *testing.T) {
	c := newCollector(t)
	failed := records(t, "aa", event.Created{Command: event.Command{Program: "x", Omitted: 1}}, event.NotStarted{Stage: "enter", Error: "no such file"})
	send(t, config(t, c.URL), failed)
	if len(c.spans) != 2 || c.spans[0].Status.GetMessage() != "no such file" || c.spans[1].Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR {
		t.Errorf("got %v", c.spans)
	}
	if a := attrs(c.spans[0].Attributes); a["process.command_args"] != "" || a["nucleus.reason"] != "not started" {
		t.Errorf("got %v", a)
	}
	c.spans = nil
	send(t, config(t, c.URL), whole(t, "bb", event.Paused{}))
	if len(c.spans) == 0 || attrs(c.spans[0].Attributes)["nucleus.incomplete"] != "0 true 0" {
		t.Errorf("got %v", c.spans)
	}
}

func metric(t *testing.T, d *metricspb.MetricsData, name string) *metricspb.Metric {
	t.Helper()
	for _, m := range d.ResourceMetrics[0].ScopeMetrics[0].Metrics {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("no metric %s", name)
	return nil
}

func TestMetrics(t *testing.T) {
	c := newCollector(t)
	all := whole(t, "aa", event.Ended{Reason: "exited", Seconds: 2, Usage: &event.Usage{UserSeconds: 1.5, SystemSeconds: 0.5, MaxRSS: 5 << 20}})
	all = append(all, whole(t, "bb", event.Ended{Reason: "out of memory", Code: 137, Seconds: 0.02})...)
	all = append(all, records(t, "cc", event.Created{}, event.OutOfMemory{Kills: 2})...)
	send(t, config(t, c.URL), all)
	if len(c.metrics) != 1 {
		t.Fatalf("got %d reports", len(c.metrics))
	}
	d := c.metrics[0]
	sum := func(name string) map[string]string {
		s := metric(t, d, name).GetSum()
		if s.AggregationTemporality != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE || s.IsMonotonic == (name == "nucleus.sandbox.active") {
			t.Errorf("%s: %v, monotonic %t", name, s.AggregationTemporality, s.IsMonotonic)
		}
		out := map[string]string{}
		for _, p := range s.DataPoints {
			label := ""
			for _, v := range attrs(p.Attributes) {
				label = v
			}
			out[label] = fmt.Sprint(p.GetAsInt(), p.GetAsDouble())
			if p.StartTimeUnixNano == 0 || p.TimeUnixNano < p.StartTimeUnixNano {
				t.Errorf("%s: from %d to %d", name, p.StartTimeUnixNano, p.TimeUnixNano)
			}
		}
		return out
	}
	for name, want := range map[string]map[string]string{
		"nucleus.sandbox.runs":     {"exited": "1 0", "out of memory": "1 0"},
		"nucleus.sandbox.active":   {"": "1 0"},
		"nucleus.sandbox.cpu.time": {"user": "0 1.5", "system": "0 0.5"},
		"nucleus.denials":          {"seccomp": "6 0"},
		"nucleus.oom.kills":        {"": "2 0"},
		"nucleus.weakened":         {"landlock": "2 0"},
	} {
		if got := sum(name); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	for _, p := range metric(t, d, "nucleus.sandbox.duration").GetHistogram().DataPoints {
		n := uint64(0)
		for _, b := range p.BucketCounts {
			n += b
		}
		if len(p.BucketCounts) != len(p.ExplicitBounds)+1 || n != p.Count || p.Count != 1 || p.GetMin() != p.GetMax() || p.GetSum() != p.GetMin() {
			t.Errorf("got %v", p)
		}
		at := slices.Index(p.BucketCounts, 1)
		if v := p.GetSum(); v > p.ExplicitBounds[at] || at > 0 && v <= p.ExplicitBounds[at-1] {
			t.Errorf("%v is in bucket %d", v, at)
		}
	}
}

// TestRetries: what may pass is tried again; what will not is not.
func TestRetries(t *testing.T) {
	for _, tc := range []struct {
		status, times, posts int
		complete             bool
	}{{503, 2, 3, true}, {429, 1, 2, true}, {502, 99, 5, false}, {400, 99, 1, false}, {307, 99, 1, false}} {
		c := newCollector(t)
		left := tc.times
		c.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/v1/traces" || left == 0 {
				return false
			}
			left--
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tc.status)
			return true
		}
		cfg := config(t, c.URL, "OTEL_METRICS_EXPORTER", "none")
		var said strings.Builder
		cfg.Log = func(f string, a ...any) { fmt.Fprintf(&said, f+"\n", a...) }
		sent := send(t, cfg, whole(t, "aa", event.Ended{Reason: "exited"}))
		if c.posts != tc.posts || sent.Complete() != tc.complete || (said.Len() == 0) != tc.complete {
			t.Errorf("%d answered %d times: got %d posts, %+v, %q", tc.status, tc.times, c.posts, sent, said.String())
		}
		if !tc.complete && sent.Failed != 6 {
			t.Errorf("%d: %d spans are told to have failed", tc.status, sent.Failed)
		}
	}
}

func TestPartialSuccess(t *testing.T) {
	c := newCollector(t)
	c.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/traces" {
			w.Write([]byte{0x0a, 6, 0x08, 2, 0x12, 2, 'n', 'o'}) // partial_success{rejected_spans: 2, error_message: "no"}
		}
		return true
	}
	var said string
	cfg := config(t, c.URL)
	cfg.Log = func(f string, a ...any) { said = fmt.Sprintf(f, a...) }
	if sent := send(t, cfg, whole(t, "aa", event.Ended{})); sent.Rejected != 2 || sent.Spans != 4 || !strings.Contains(said, `"no"`) {
		t.Errorf("got %+v, %q", sent, said)
	}
}

// TestCollectorThatHangs: taking events goes on, the queue is bounded, and what is
// lost is counted to the last span.
func TestCollectorThatHangs(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-hang }))
	defer server.Close()
	defer close(hang)
	x := otel.Start(config(t, server.URL))
	start, runs := time.Now(), 2000
	for i := range runs {
		for _, r := range whole(t, fmt.Sprint("box", i), event.Ended{Reason: "exited"}) {
			x.Take(r)
		}
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("taking events took %v", d)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	sent := x.Close(ctx)
	if d := time.Since(start); d > 8*time.Second {
		t.Errorf("it took %v to give up", d)
	}
	if sent.Complete() || sent.Dropped == 0 || sent.Spans+sent.Dropped+sent.Failed != 6*runs {
		t.Errorf("got %+v, want %d spans in all", sent, 6*runs)
	}
}

func TestEnvironment(t *testing.T) {
	c := newCollector(t)
	cfg := config(t, c.URL, "OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret%2C=,a=b", "OTEL_SERVICE_NAME", "ci", "OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=test",
		"OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "OTEL_METRICS_EXPORTER", "none")
	send(t, cfg, whole(t, "aa", event.Ended{}))
	if c.header.Get("X-Key") != "s3cret,=" || c.header.Get("A") != "b" || c.header.Get("Content-Encoding") != "gzip" || len(c.metrics) != 0 || len(c.spans) != 6 {
		t.Errorf("got headers %v, %d reports, %d spans", c.header, len(c.metrics), len(c.spans))
	}
	if r := attrs(c.traces[0].ResourceSpans[0].Resource.Attributes); r["service.name"] != "ci" || r["deployment.environment.name"] != "test" {
		t.Errorf("got %v", r)
	}
	b, err := json.Marshal(cfg.Traces)
	if text := fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, b); strings.Contains(text, "s3cret") || err != nil {
		t.Errorf("the key is printed: %s, %v", text, err)
	}
	for key, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_HEADERS": "s3cret", "OTEL_EXPORTER_OTLP_TIMEOUT": "x",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "ftp://s3cret@x/", "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd", "OTEL_RESOURCE_ATTRIBUTES": "x", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/dev/null",
		"OTEL_EXPORTER_OTLP_CLIENT_KEY": "/x", "OTEL_METRIC_EXPORT_INTERVAL": "0",
	} {
		_, err := otel.FromEnv(func(k string) string { return map[string]string{key: value}[k] })
		if err == nil || !strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s=%s: got %v", key, value, err)
		}
	}
}

func TestRead(t *testing.T) {
	good := `{"v":1,"seq":1,"time":"2026-01-02T03:04:05Z","sandbox":{"id":"a"},"type":"t","data":{},"new":1}`
	text := good + "\n\nnot json\n{\"v\":2}\n" + strings.Repeat("x", 3<<20) + "\n" + good + "\n" + good
	n := 0
	strange, err := otel.Read(strings.NewReader(text), func(event.Record) { n++ })
	if n != 3 || strange != 3 || err != nil {
		t.Errorf("got %d events, %d strange lines, %v; want 3 and 3", n, strange, err)
	}
}

// TestFollow: a file that grows, is replaced and is cut.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	line := func(seq int) string {
		return fmt.Sprintf(`{"v":1,"seq":%d,"time":"2026-01-02T03:04:05Z","sandbox":{"id":"a"},"type":"t","data":{}}`, seq) + "\n"
	}
	if err := os.WriteFile(path, []byte(line(1)+line(2)[:20]), 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan uint64, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		_, err := otel.Follow(ctx, path, time.Millisecond, func(r event.Record) { got <- r.Seq })
		done <- err
	}()
	want := func(seq uint64) {
		t.Helper()
		select {
		case n := <-got:
			if n != seq {
				t.Errorf("got event %d, want %d", n, seq)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("event %d never came", seq)
		}
	}
	add := func(s string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(s)
		f.Close()
	}
	want(1)
	add(line(2)[20:])
	want(2)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	add(line(3))
	want(3)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // so that it is seen to be shorter
	add(line(4))
	want(4)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
