package otel

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	metricspb "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/nucleus-container/nucleus/event"
)

// FuzzTake takes whatever calls itself an event: what is sent can be decoded, by
// OpenTelemetry's own code.
func FuzzTake(f *testing.F) {
	f.Add("sandbox_ended", `{"reason":"exited","code":-1,"seconds":1e300,"usage":{"max_rss":-5}}`)
	f.Add("sandbox_created", `{"command":{"program":"\ud800","args":["`+strings.Repeat("\u00e9", 5000)+`"]}}`)
	f.Add("denial", `{"source":"x`+strings.Repeat("\u00e9", 5000)+`","count":-3}`)
	f.Add("mount_audit", `{"wrong":[1,null,{"a":[]}],"x":{"y":{"z":1.5}}}`)
	f.Add("\xff", `{"a":"b"}`)
	f.Fuzz(func(t *testing.T, kind, data string) {
		at := time.Unix(1e9, 0)
		line, err := json.Marshal(event.Record{V: event.Version, Seq: 1, Time: at, Sandbox: event.Sandbox{ID: "aa"}, Type: kind, Data: json.RawMessage(data)})
		if err != nil { // no line could say it
			return
		}
		begin, err := event.New(at, event.Sandbox{ID: "aa"}, event.Created{})
		if err != nil {
			t.Fatal(err)
		}
		var lives Lives
		meters := NewMeters(at)
		spans := lives.Take(begin)
		if _, err := Read(strings.NewReader(string(line)), func(r event.Record) {
			meters.Take(r)
			spans = append(spans, lives.Take(r)...)
		}); err != nil {
			t.Fatal(err)
		}
		spans = append(spans, lives.Rest(at)...)
		if len(spans) == 0 {
			t.Error("a life is lost")
		}
		c := Config{Service: "x"}
		if err := proto.Unmarshal(encodeSpans(c.resource(), c.scope(), spans), &tracepb.TracesData{}); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if err := proto.Unmarshal(meters.encode(c.resource(), c.scope(), at), &metricspb.MetricsData{}); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	})
}
